//! Look-ups in the sparse index of a segment of 1 GiB: an entry for each 4 KiB, so 262 144 of them.

use criterion::Criterion;
use ringlog::log::{SegmentIndex, SegmentIndexEntry};
use std::hint::black_box;

const SEGMENT_BYTES: u32 = 1 << 30;
const INTERVAL_BYTES: u32 = 4096;
const RECORDS_PER_ENTRY: u32 = 4;

/// Steps through the segment in an order that no cache guesses: odd, so it comes to every entry.
const STRIDE: u32 = 2_654_435_761;

pub fn look_up(criterion: &mut Criterion) {
    let mut index = SegmentIndex::default();
    let entries = SEGMENT_BYTES / INTERVAL_BYTES;
    for n in 0..entries {
        let entry = SegmentIndexEntry {
            relative_offset: n * RECORDS_PER_ENTRY,
            position: (n + 1) * (INTERVAL_BYTES - 1),
            max_timestamp_before: i64::from(n) * 10 - 1,
        };
        index.add(entry, INTERVAL_BYTES - 1);
    }
    assert_eq!(index.entries().len(), entries as usize);
    let mut group = criterion.benchmark_group("index");
    let mut at = 0u32;
    let mut next = move || {
        at = at.wrapping_add(STRIDE);
        at % (entries * RECORDS_PER_ENTRY)
    };
    group.bench_function("offset-to-position/1GiB", |bencher| {
        bencher.iter(|| index.at_or_before_offset(black_box(next())).expect("an entry"));
    });
    group.bench_function("time-to-position/1GiB", |bencher| {
        bencher.iter(|| index.before_timestamp(black_box(i64::from(next()))).expect("an entry"));
    });
    group.finish();
}
