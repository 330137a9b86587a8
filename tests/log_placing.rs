//! Goal: large batches are written once, to their segments, and are as durable, as ordered and as whole after a crash as those in the journal.

mod sim;

use ringlog::base::batch::BatchHeader;
use ringlog::log::{LogIndex, Opening};
use sim::bench::{Bench, JOURNAL, id, partition_dir};
use std::path::Path;

const LARGE: usize = 6 << 10;

/// A log for which every batch of `LARGE` bytes is large, with a partition that a crash would find.
fn bench() -> (Bench, LogIndex) {
    let mut bench = Bench::new(7);
    bench.settings.large_batch_bytes = LARGE;
    // Few batches have an entry, so that a checkpoint knows of few places where segments may be taken up.
    bench.partition.index_interval_bytes = 1 << 20;
    bench.open();
    let index = bench.create(0);
    bench.until_durable();
    (bench, index)
}

/// Enough for the next large batch to find the disk busy.
fn load(bench: &mut Bench, index: LogIndex) {
    for _ in 0..3 {
        bench.append(index, 1, LARGE - 200);
    }
}

fn placed(bench: &Bench) -> u64 {
    bench.log().counters().journal.placed
}

/// How far the partition is durable, as the log has reported it.
fn durable(bench: &Bench, index: LogIndex) -> i64 {
    bench
        .world
        .durable
        .iter()
        .filter(|durable| durable.log == index)
        .map(|durable| durable.end_offset)
        .max()
        .unwrap_or(0)
}

/// All batches of the partition.
fn all(bench: &mut Bench, index: LogIndex) -> Vec<u8> {
    let log = bench.log();
    let (mut offset, end) = log.offsets(index).expect("open");
    let mut bytes = Vec::new();
    while offset < end {
        bench.world.run(log.load(index, offset, end)).expect("load");
        let read = bench.read(index, offset, usize::MAX).expect("loaded");
        let mut at = 0;
        while at < read.len() {
            let header = BatchHeader::read(&read[at..]).expect("a batch");
            (at, offset) = (at + header.batch_bytes(), header.next_offset());
        }
        bytes.extend(read);
    }
    bytes
}

/// What is durable is there after a crash, byte for byte.
fn is_whole_after_a_crash(bench: &mut Bench, index: LogIndex) {
    let (offsets, before) = (bench.log().offsets(index), all(bench, index));
    bench.crash();
    let index = bench.restart()[0];
    assert_eq!(bench.log().offsets(index), offsets);
    assert!(all(bench, index) == before, "the same bytes");
}

#[test]
fn a_large_batch_is_written_once_while_the_disk_is_busy() {
    let (mut bench, index) = bench();
    load(&mut bench, index);
    let commits = bench.log().counters().journal.commit_bytes;
    for _ in 0..10 {
        bench.append(index, 1, LARGE);
    }
    bench.until_durable();
    assert_eq!((placed(&bench), durable(&bench, index)), (10, 13));
    let commits = bench.log().counters().journal.commit_bytes - commits;
    // The load itself, and a block or two for checkpoints.
    assert!(commits < 5 * LARGE as u64, "{commits} bytes went to the journal");
    is_whole_after_a_crash(&mut bench, index);
}

#[test]
fn who_waits_for_each_answer_has_it_from_the_journal() {
    let (mut bench, index) = bench();
    for _ in 0..5 {
        bench.append(index, 1, LARGE);
        bench.until_durable();
    }
    assert_eq!(placed(&bench), 0);
}

#[test]
fn what_comes_behind_a_large_batch_goes_its_way_until_that_one_is_durable() {
    let (mut bench, index) = bench();
    load(&mut bench, index);
    bench.append(index, 1, LARGE);
    bench.append(index, 2, 10);
    assert_eq!(placed(&bench), 2, "its record would stand in the journal before that of the batch");
    bench.until_durable();
    bench.append(index, 3, 10);
    assert_eq!(placed(&bench), 2);
    bench.until_durable();
    assert_eq!(durable(&bench, index), 9);
    is_whole_after_a_crash(&mut bench, index);
}

#[test]
fn whatever_is_reported_durable_is_there_when_the_power_fails_at_once() {
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        bench.settings.large_batch_bytes = LARGE;
        bench.open();
        let index = bench.create(0);
        bench.until_durable();
        load(&mut bench, index);
        bench.append(index, 1, LARGE);
        while durable(&bench, index) < 4 {
            bench.world.turn();
        }
        assert_eq!(placed(&bench), 1);
        bench.crash();
        let index = bench.restart()[0];
        assert_eq!(bench.log().offsets(index), Some((0, 4)), "seed {seed}");
    }
}

#[test]
fn a_partition_that_no_crash_would_find_has_its_large_batches_in_the_journal() {
    let (mut bench, known) = bench();
    load(&mut bench, known);
    let opening = Opening { dir: partition_dir(1), settings: bench.partition };
    let log = bench.log();
    // Ready at once: its checkpoint has room in the open commit.
    let new = futures_executor::block_on(log.create(id(1), opening, 0, b"")).expect("create");
    bench.append(new, 1, LARGE);
    assert_eq!(placed(&bench), 0);
    bench.until_durable();
    load(&mut bench, known);
    bench.append(new, 1, LARGE);
    assert_eq!(placed(&bench), 1);
}

#[test]
fn recovery_repairs_nothing_that_is_only_in_the_segments() {
    let (mut bench, index) = bench();
    // The journal is read twice then, and all its records are held against the last checkpoint.
    bench.settings.recovery_bytes_max = 1 << 10;
    load(&mut bench, index);
    bench.append(index, 1, LARGE);
    bench.until_durable();
    // Behind it small ones, which only the journal has yet; between them a checkpoint, which finds no entry of the index behind the first batch.
    bench.append(index, 1, 10);
    bench.log().checkpoint(index, b"").expect("room");
    bench.append(index, 1, 10);
    bench.until_durable();
    assert_eq!(placed(&bench), 1);
    is_whole_after_a_crash(&mut bench, index);
}

#[test]
fn the_journal_is_used_again_and_again_beside_large_batches() {
    let (mut bench, index) = bench();
    for _ in 0..200 {
        load(&mut bench, index);
        bench.append(index, 1, LARGE);
    }
    bench.until_durable();
    assert!(placed(&bench) > 100 && bench.log().counters().journal.files_recycled > 0);
    assert!(bench.files(Path::new(JOURNAL), "").len() <= 5);
    is_whole_after_a_crash(&mut bench, index);
}
