//! Times in buckets of half an octave: cheap to count, and near enough for percentiles. Pure.

/// The first bucket ends here, ns: 2^10.
const FIRST_BITS: u32 = 10;
/// The last bucket with an end ends at 2^36 ns, 69 s.
const LAST_BITS: u32 = 36;
/// One below the first end, two for each octave, one for what is longer than all of them.
pub const BUCKETS: usize = 1 + 2 * (LAST_BITS - FIRST_BITS) as usize + 1;

/// How often something took how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Each bucket's end in ns, `None` for the last, and how many times were shorter than it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut sum = 0;
        self.counts.iter().enumerate().map(move |(index, count)| {
            sum += count;
            ((index + 1 < BUCKETS).then(|| end(index)), sum)
        })
    }
}

fn bucket(ns: u64) -> usize {
    if ns < 1 << FIRST_BITS {
        return 0;
    }
    let octave = ns.ilog2();
    let half = (ns >> (octave - 1)) & 1;
    (1 + 2 * (octave - FIRST_BITS) as usize + half as usize).min(BUCKETS - 1)
}

/// Where a bucket ends; what takes exactly so long is in the next one.
fn end(index: usize) -> u64 {
    let Some(above) = index.checked_sub(1) else { return 1 << FIRST_BITS };
    let start = 1u64 << (FIRST_BITS as usize + above / 2);
    if above % 2 == 0 { start + start / 2 } else { 2 * start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_whose_ends_are_around_it() {
        for bits in 0..40 {
            for ns in [1u64 << bits, (1 << bits) + 1, (3 << bits) / 2, (2 << bits) - 1] {
                let index = bucket(ns);
                assert!(index + 1 == BUCKETS || ns < end(index), "{ns} in {index}");
                assert!(index == 0 || ns >= end(index - 1), "{ns} in {index}");
            }
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn counts_add_up() {
        let mut histogram = Histogram::default();
        [5, 2000, 2000, 1 << 40].iter().for_each(|&ns| histogram.record(ns));
        assert_eq!((histogram.count(), histogram.sum_ns()), (4, 4005 + (1 << 40)));
        let all: Vec<(Option<u64>, u64)> = histogram.cumulative().collect();
        assert_eq!(all[0], (Some(1024), 1));
        assert_eq!(all[2], (Some(2048), 3), "2000 is below 2048 and not below 1536");
        assert_eq!(all[BUCKETS - 2], (Some(1 << LAST_BITS), 3));
        assert_eq!(all[BUCKETS - 1], (None, 4));
    }
}
