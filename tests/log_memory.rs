//! Goal: tails stay within their memory however many partitions share it, and what they lose for it is nothing.

mod sim;

use ringlog::base::batch::BatchHeader;
use ringlog::base::limits::DISK_BLOCK_BYTES;
use ringlog::base::measures::Measures;
use sim::bench::Bench;

const PARTITIONS: i32 = 300;
/// Batches for each.
const ROUNDS: i64 = 60;

fn tail_bytes(bench: &Bench) -> u64 {
    let mut measures = Measures::default();
    bench.log().count_into(&mut measures);
    measures.counters.memory.tail_bytes_now
}

#[test]
fn many_partitions_share_the_memory_of_the_tails() {
    let mut bench = Bench::new(1);
    bench.open();
    let logs: Vec<_> = (0..PARTITIONS).map(|index| bench.create(index)).collect();
    let limit = bench.settings.tail_bytes as u64;
    // What it takes to append at all is a block for the segment's header and one for batches.
    let limit = limit + limit / 8 + 2 * PARTITIONS as u64 * DISK_BLOCK_BYTES as u64;
    let mut most = 0;
    for _ in 0..ROUNDS {
        for &log in &logs {
            bench.append(log, 1, 700);
            most = most.max(tail_bytes(&bench));
        }
        bench.world.turn();
    }
    assert!(most <= limit, "{most} bytes where {limit} are allowed");
    bench.until_durable();
    let log = bench.log();
    for &index in &logs {
        for offset in 0..ROUNDS {
            bench.world.run(log.load(index, offset, ROUNDS)).expect("an index");
            let bytes = bench.read(index, offset, 1 << 20).expect("it is there");
            // It may begin with batches before the one that is asked for.
            let first = BatchHeader::read(&bytes).expect("a batch");
            let found =
                bytes.chunks(first.batch_bytes()).nth((offset - first.base_offset) as usize).expect("it is among them");
            assert_eq!(BatchHeader::read(found).expect("a batch").base_offset, offset);
        }
    }
}
