//! What a batch is checked for: its header and CRC (recovery), and its records as well (produce).

use super::{large_batch, small_batch};
use criterion::{Criterion, Throughput};
use ringlog::base::batch;
use std::hint::black_box;

pub fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for (name, bytes) in [("64KiB", large_batch()), ("500B", small_batch())] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("header-and-crc/{name}"), |bencher| {
            bencher.iter(|| batch::check_stored(black_box(&bytes)).expect("whole"));
        });
        group.bench_function(format!("produced/{name}"), |bencher| {
            bencher.iter(|| batch::check_produced(black_box(&bytes)).expect("whole"));
        });
    }
    group.finish();
}
