//! How long a durable write takes: as the broker's journal writes, around the page cache, one at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What O_DIRECT wants memory, place and length to be multiples of, everywhere.
const BLOCK_BYTES: usize = 4096;

/// Times of one kind of write, µs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub longest: f64,
}

/// A file that is removed with its owner.
struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone already with its folder.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes `count` times `bytes` (a multiple of 4096) durably to a file in `dir` that was written before, as the journal's files are.
///
/// # Errors
/// As open(2) and write(2): `InvalidInput` where the filesystem has no O_DIRECT.
pub fn measure_syncs(dir: &Path, bytes: usize, count: usize) -> io::Result<Latencies> {
    assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES) && count > 0);
    let scratch = Scratch { path: dir.join(format!(".ringlog-probe-{}", std::process::id())) };
    let places = count.min((64 << 20) / bytes).max(1);
    File::create(&scratch.path).and_then(|mut file| {
        let zeros = vec![0; bytes];
        (0..places).try_for_each(|_| file.write_all(&zeros))?;
        file.sync_all()
    })?;
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(&scratch.path)?;
    let mut memory = vec![1u8; bytes + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let buffer = &mut memory[start..start + bytes];
    let mut times: Vec<f64> = Vec::with_capacity(count);
    for at in 0..count {
        file.seek(SeekFrom::Start((at % places * bytes) as u64))?;
        let began = Instant::now();
        file.write_all(buffer)?;
        times.push(began.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Latencies { p50: at(0.5), p99: at(0.99), longest: at(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_take_time_and_leave_nothing() {
        // Not the folder for temporary files: that may be in memory, where O_DIRECT has no meaning.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let found = measure_syncs(dir.path(), 4096, 20).expect("a disk");
        assert!(found.p50 > 0.0 && found.p50 <= found.p99 && found.p99 <= found.longest, "{found:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("the folder").count(), 0);
    }
}
