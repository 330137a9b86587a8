//! Micro-benchmarks of what every request goes through. `cargo bench --bench micro -- --quick`; a word behind it picks groups.
//!
//! docs/benchmarks.md has figures. They say what a part costs by itself, warm; what a broker does is measured by `loadgen/compare`.

mod batch;
mod index;
mod journal;
mod mailbox;
mod memory_disk;
mod metrics;
mod request;

use criterion::{criterion_group, criterion_main};
use ringlog::base::record::BatchBuilder;

criterion_group!(
    micro,
    batch::validation,
    request::produce_decode,
    journal::append,
    index::look_up,
    mailbox::hop,
    metrics::measuring
);
criterion_main!(micro);

/// A batch as a producer sends it: `records` with values of `value_bytes` each, without keys.
fn produced_batch(records: usize, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1_700_000_000_000);
    let value: Vec<u8> = (0..value_bytes).map(|at| (at * 31) as u8).collect();
    for record in 0..records {
        builder.push(1_700_000_000_000 + record as i64, None, Some(&value));
    }
    builder.finish()
}

/// 64 records of 1 KiB, as a producer under load fills a batch.
fn large_batch() -> Vec<u8> {
    produced_batch(64, 1024)
}

/// Five records of 100 bytes, as many small producers send them.
fn small_batch() -> Vec<u8> {
    produced_batch(5, 100)
}
