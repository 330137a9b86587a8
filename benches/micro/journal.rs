//! A core's turn as its log sees it: batches are put into the open commit and into their partitions' tails, the commit is sealed and
//! submitted, the one before completes. Over a disk that answers at once.

use super::memory_disk::MemoryDisk;
use super::{large_batch, small_batch};
use criterion::{Criterion, Throughput};
use ringlog::base::batch::BatchHeader;
use ringlog::base::ids::{CoreIndex, PartitionId, TopicId};
use ringlog::base::time::{Nanos, Now};
use ringlog::log::{CoreLog, LogIndex, LogSettings, Opening, PartitionSettings, Refused, scan};
use ringlog::ports::DiskCompletion;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A log with its partitions, and the turns it is given.
struct Core {
    disk: MemoryDisk,
    log: CoreLog<MemoryDisk>,
    partitions: Vec<LogIndex>,
    now: Now,
}

/// Polls a future that this disk never keeps waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the disk answers at once"),
    }
}

impl Core {
    fn new(partitions: i32) -> Core {
        let disk = MemoryDisk::new();
        let scanned = at_once(scan(&disk, Path::new("/journal"), 0)).expect("empty");
        let settings = LogSettings { tail_bytes: 64 << 20, ..LogSettings::default() };
        let log = at_once(CoreLog::open(disk.clone(), settings, CoreIndex(0), &scanned, 1)).expect("open");
        let mut core = Core { disk, log, partitions: Vec::new(), now: Now { mono: Nanos(1), wall_ms: 1 } };
        for index in 0..partitions {
            let id = PartitionId { topic: TopicId([1; 16]), index };
            let opening = Opening { dir: PathBuf::from(format!("/p-{index}")), settings: PartitionSettings::default() };
            let created = at_once(core.log.create(id, opening, 0, b"")).expect("create");
            core.partitions.push(created);
        }
        core.end_turn();
        core
    }

    fn append(&mut self, partition: usize, batch: &[u8]) {
        let log = self.partitions[partition];
        let header = BatchHeader::read(batch).expect("a header");
        loop {
            let (_, end) = self.log.offsets(log).expect("open");
            match self.log.append(log, &header, batch, end, 1) {
                Ok(()) => return,
                Err(Refused::Backlog) => self.end_turn(),
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    fn end_turn(&mut self) {
        self.now.mono.0 += 100_000;
        let mut durable = Vec::new();
        for (token, _buffer) in self.disk.take_done() {
            let completion = DiskCompletion { token, result: Ok(()) };
            self.log.on_completion(completion, self.now, &mut durable).expect("the disk is well");
        }
        for due in self.log.take_checkpoints_due(8) {
            self.log.checkpoint(due, b"").expect("there is room");
        }
        self.log.end_of_turn(self.now, |_, _| Vec::new()).expect("the disk is well");
        self.disk.poll_tasks();
    }
}

pub fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal-append");
    for (name, batch, batches, partitions) in
        [("turn-of-16x64KiB", large_batch(), 16, 4), ("turn-of-100x500B-to-100-partitions", small_batch(), 100, 100)]
    {
        let mut core = Core::new(partitions);
        group.throughput(Throughput::Bytes((batches * batch.len()) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for n in 0..batches {
                    core.append(n % partitions as usize, &batch);
                }
                core.end_turn();
            });
        });
    }
    group.finish();
}
