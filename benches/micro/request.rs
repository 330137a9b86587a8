//! Decoding a Produce frame, header and body; batches stay where they are.

use super::{large_batch, small_batch};
use criterion::Criterion;
use ringlog::protocol::Message;
use ringlog::protocol::frame::{read_request_header, write_request};
use ringlog::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog::protocol::writer::Writer;
use std::hint::black_box;

const VERSION: i16 = 11;

/// A request with `batch` for each of `partitions`; without the length in front.
fn frame(batch: &[u8], partitions: i32) -> Vec<u8> {
    let part = |index| PartitionProduceData { index, records: Some(batch) };
    let partition_data = (0..partitions).map(part).collect();
    let topic = TopicProduceData { name: "orders", partition_data, ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    let mut writer = Writer::new();
    write_request(&mut writer, 1, Some("producer-1"), VERSION, &request);
    writer.bytes()[4..].to_vec()
}

pub fn produce_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce-decode");
    for (name, frame) in [
        ("1x64KiB", frame(&large_batch(), 1)),
        ("1x5x100B", frame(&small_batch(), 1)),
        ("100-partitions-x5x100B", frame(&small_batch(), 100)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (_, mut body) = read_request_header(black_box(&frame)).expect("a header");
                black_box(ProduceRequest::decode(&mut body, VERSION).expect("a body"));
            });
        });
    }
    group.finish();
}
