//! Goal: a commit is written as soon as the disk is free, or once its window is over, and never waits longer.

mod sim;

use ringlog::base::limits::DISK_BLOCK_BYTES;
use ringlog::log::LogIndex;
use sim::bench::{Bench, JOURNAL};
use std::path::Path;

const WINDOW_US: u64 = 2_000;

/// A log whose commits wait for `window_us`, with nothing on its way to the disk.
fn at_rest(window_us: u64) -> (Bench, LogIndex) {
    let mut bench = Bench::new(1);
    bench.settings.commit_window_us = window_us;
    bench.open();
    let index = bench.create(0);
    bench.flush();
    assert_eq!(bench.log().next_deadline(), None);
    (bench, index)
}

fn commits_under_way(bench: &Bench) -> usize {
    bench.disk().hot_writes()
}

fn commits(bench: &Bench) -> u64 {
    bench.log().counters().journal.commits
}

/// Ends turns, without completions, until `at`.
fn turns_until(bench: &mut Bench, at: ringlog::base::time::Nanos) {
    while bench.world.now.mono < at {
        bench.world.now.mono = at.min(bench.world.now.mono.plus_ns(100_000));
        bench.log().end_of_turn(bench.world.now, |_, _| Vec::new()).expect("the disk is well");
    }
}

#[test]
fn without_a_window_the_end_of_the_turn_writes_the_commit() {
    let (mut bench, index) = at_rest(0);
    bench.append(index, 1, 100);
    bench.log().end_of_turn(bench.world.now, |_, _| Vec::new()).expect("the disk is well");
    assert_eq!((commits_under_way(&bench), bench.log().next_deadline()), (1, None));
}

#[test]
fn a_commit_gathers_for_its_window_and_is_written_at_its_end() {
    let (mut bench, index) = at_rest(WINDOW_US);
    let (before, begun) = (commits(&bench), bench.world.now.mono);
    let end = begun.plus_ns(WINDOW_US * 1000);
    for _ in 0..5 {
        bench.append(index, 1, 100);
        bench.log().end_of_turn(bench.world.now, |_, _| Vec::new()).expect("the disk is well");
        // Batches that come later wait no longer for it.
        assert_eq!(bench.log().next_deadline(), Some(end));
        assert_eq!(commits_under_way(&bench), 0);
        let soon = bench.world.now.mono.plus_ns(WINDOW_US * 1000 / 6);
        turns_until(&mut bench, soon);
    }
    turns_until(&mut bench, end);
    assert_eq!((commits_under_way(&bench), bench.log().next_deadline()), (1, None));
    bench.until_durable();
    assert_eq!(commits(&bench), before + 1, "five batches, one commit");
}

#[test]
fn a_full_commit_waits_for_nothing() {
    let (mut bench, index) = at_rest(1_000_000);
    let mut taken = 0;
    while commits_under_way(&bench) == 0 {
        taken += usize::from(bench.try_append(index, 1, 60_000, 0).is_ok());
        // No time passes.
        bench.log().end_of_turn(bench.world.now, |_, _| Vec::new()).expect("the disk is well");
    }
    assert!(taken >= 2, "{taken}");
}

#[test]
fn what_waits_for_its_window_is_not_acknowledged() {
    let (mut bench, index) = at_rest(WINDOW_US);
    bench.world.durable.clear();
    bench.append(index, 3, 100);
    let almost = bench.world.now.mono.plus_ns(WINDOW_US * 1000 - 100_000);
    turns_until(&mut bench, almost);
    assert!(bench.world.durable.is_empty());
    bench.crash();
    assert_eq!(bench.recover()[0].1.as_ref().expect("no damage").end_offset, 0);
}

#[test]
fn a_file_that_was_not_zeroed_is_left_for_one_that_was_and_wiped_before_it_is_used_again() {
    let (mut bench, index) = at_rest(0);
    // Blocks of a journal file that hold something, its header aside.
    let filled = |bench: &Bench, name| {
        let (_, content) = bench.files(Path::new(JOURNAL), name).remove(0);
        content.chunks(DISK_BLOCK_BYTES).skip(1).filter(|block| block.iter().any(|&byte| byte != 0)).count()
    };
    let mut appended = 0;
    let mut append = |bench: &mut Bench, times| {
        for _ in 0..times {
            bench.append(index, 1, 3000);
            bench.until_durable();
            appended += 1;
        }
    };
    append(&mut bench, 1);
    assert_eq!(bench.files(Path::new(JOURNAL), "").len(), 1, "who appends little needs one file");
    append(&mut bench, 40);
    let (first, second) = (filled(&bench, "journal-0"), filled(&bench, "journal-1"));
    assert!(first < 20 && second > 20, "{first} {second}");
    // Its records are in their segment before others come.
    while bench.log().counters().journal.files_recycled < 1 {
        append(&mut bench, 1);
    }
    while filled(&bench, "journal-0") > 0 {
        append(&mut bench, 1);
        assert!(bench.log().counters().journal.files_recycled < 3, "it came into use as it was");
    }
    bench.crash();
    let scanned = bench.scan();
    assert!(scanned.damage.is_empty(), "{:?}", scanned.damage);
    assert_eq!(bench.recover()[0].1.as_ref().expect("no damage").end_offset, appended);
}
