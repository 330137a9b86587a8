//! Measures the disk, and proposes settings from what it found.

use crate::disk::{Latencies, measure_syncs};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Sizes that are measured: a commit of one small batch, of one client's large one, of many, and the largest there is.
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
const WRITES: usize = 200;

/// What the disk does.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Bytes of a durable write, and its times.
    pub writes: Vec<(usize, Latencies)>,
}

/// Writes for a second or two in `dir`.
///
/// # Errors
/// As `measure_syncs`.
pub fn probe(dir: &Path) -> io::Result<Probe> {
    let writes = SIZES.iter().map(|&bytes| Ok((bytes, measure_syncs(dir, bytes, WRITES)?)));
    Ok(Probe { writes: writes.collect::<io::Result<_>>()? })
}

impl Probe {
    /// The profile that fits best, and why.
    pub fn proposal(&self) -> (&'static str, String) {
        let (_, small) = self.writes[0];
        let (bytes, large) = self.writes[self.writes.len() - 1];
        let mb_s = bytes as f64 / large.p50;
        match () {
            () if small.p50 > 3000.0 => {
                ("laptop", format!("a durable write takes {:.0} µs: commits must be few and large", small.p50))
            }
            () if small.p99 > 10.0 * small.p50 => {
                let times = small.p99 / small.p50;
                (
                    "throughput",
                    format!("p99 is {times:.0} times the median: the disk stalls, and no polling helps against that"),
                )
            }
            () if small.p50 < 60.0 => {
                ("latency", format!("a durable write takes {:.0} µs: waking up is most of what is left", small.p50))
            }
            () => ("throughput", format!("{:.0} µs for a small write, {mb_s:.0} MB/s in large ones", small.p50)),
        }
    }

    pub fn table(&self) -> String {
        let mut out = String::from("durable write    median     p99  longest   one after the other\n");
        for (bytes, Latencies { p50, p99, longest }) in &self.writes {
            let (kib, mb_s) = (bytes / 1024, *bytes as f64 / p50);
            writeln!(out, "{kib:>8} KiB  {p50:>7.0} µs {p99:>7.0} {longest:>8.0}   {mb_s:.0} MB/s")
                .expect("a string takes all");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(small: Latencies) -> Probe {
        Probe { writes: vec![(4096, small), (1 << 20, Latencies { p50: 500.0, p99: 900.0, longest: 1000.0 })] }
    }

    #[test]
    fn the_proposal_follows_from_what_was_found() {
        for (p50, p99, name) in [
            (20.0, 40.0, "latency"),
            (120.0, 300.0, "throughput"),
            (120.0, 9000.0, "throughput"),
            (8000.0, 9000.0, "laptop"),
        ] {
            let (proposed, why) = probed(Latencies { p50, p99, longest: p99 }).proposal();
            assert_eq!(proposed, name, "{why}");
            assert!(crate::profile(proposed).is_some());
        }
    }
}
