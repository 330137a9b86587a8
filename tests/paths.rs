//! Which way bytes take to a reader: from memory while it keeps up, by sendfile where segments are in the page cache, by splice or
//! around the page cache where they are not. The broker's own counters say which it was.
//!
//! One core and small tails, so that a few MiB reach segments and leave memory.

mod support;

use ringlog::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::protocol::messages::produce::ProduceResponse;
use ringlog::protocol::writer::Records;
use rustix::fs::{Advice, fadvise, fsync};
use std::fs::File;
use std::path::{Path, PathBuf};
use support::clients::{create_topic, unique};
use support::counters::Counters;
use support::raw::{batch, produce};
use support::wire::Wire;
use support::{Broker, Options};

const VALUE_BYTES: usize = 256 << 10;
/// Four times what a tail may hold.
const MANY_BATCHES: usize = 128;
/// The first half of that: surely written, and gone from memory.
const OLD_BATCHES: i64 = 64;

fn start(cold_read: &str) -> Broker {
    let settings = format!("core.cold.read = \"{cold_read}\"\ncore.tail.memory.bytes = 8388608\n");
    Broker::start(Options { cores: 1, settings, ..Options::default() })
}

fn value(index: usize) -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| (at.wrapping_mul(31) ^ index) as u8).collect()
}

/// Writes batch `index` and returns the offset that its only record got.
fn write(wire: &mut Wire, topic: &str, index: usize) -> i64 {
    let batch = batch(&value(index));
    let response: ProduceResponse<'_> = wire.ask(9, &produce(topic, -1, &[(0, &batch)]));
    let part = &response.responses[0].partition_responses[0];
    assert_eq!(part.error_code, 0);
    part.base_offset
}

/// One fetch from `offset`: how many records it brought and their bytes. Each is the record that was written there.
fn read(wire: &mut Wire, topic: &str, offset: i64) -> (i64, u64) {
    let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: 4 << 20, ..Default::default() };
    let topics = vec![FetchTopic { topic, partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: 30_000,
        min_bytes: 1,
        max_bytes: 8 << 20,
        session_epoch: -1,
        topics,
        ..Default::default()
    };
    let response: FetchResponse<'_> = wire.ask(11, &request);
    let part = &response.responses[0].partitions[0];
    assert_eq!(part.error_code, 0);
    let Records::Inline(bytes) = part.records else { panic!("a fetch from {offset} brings records") };
    let (mut rest, mut count) = (bytes, 0);
    while let Some(length) = rest.get(8..12) {
        let length = 12 + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let (whole, behind) = rest.split_at(length);
        // A batch ends with its only record, and that with its value and a count of no headers.
        assert_eq!(
            whole[..8],
            (offset + count).to_be_bytes(),
            "batches come in order and begin where they were asked for"
        );
        assert!(whole[..length - 1].ends_with(&value((offset + count) as usize)), "record {}", offset + count);
        (rest, count) = (behind, count + 1);
    }
    (count, bytes.len() as u64)
}

/// Reads `[0, OLD_BATCHES)` and a little beyond; returns the bytes of batches.
fn read_old(wire: &mut Wire, topic: &str) -> u64 {
    let (mut offset, mut sum) = (0, 0);
    while offset < OLD_BATCHES {
        let (count, bytes) = read(wire, topic, offset);
        (offset, sum) = (offset + count, sum + bytes);
    }
    sum
}

/// A topic of many small segments, most of them no longer in memory.
fn filled(broker: &Broker) -> (Wire, String) {
    let topic = unique("paths");
    create_topic(broker.address(), &topic, 1, &[("segment.bytes", "4194304")]);
    let mut wire = Wire::connect(broker.address(), "paths");
    for index in 0..MANY_BATCHES {
        assert_eq!(write(&mut wire, &topic, index), index as i64);
    }
    (wire, topic)
}

/// The segment files of `topic`.
fn segments(dir: &Path, topic: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of the broker's") {
        let path = entry.expect("an entry").path();
        let of_topic =
            path.parent().is_some_and(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().contains(topic)));
        match path.is_dir() {
            true => found.extend(segments(&path, topic)),
            false if of_topic && path.extension().is_some_and(|extension| extension == "log") => found.push(path),
            false => {}
        }
    }
    found
}

/// Reads all by sendfile alone. In one of some passes: the kernel may take pages back at any time.
fn reads_by_sendfile(broker: &Broker, wire: &mut Wire, topic: &str, prepare: impl Fn()) {
    let mut seen = Vec::new();
    while seen.len() < 20 {
        prepare();
        let before = broker.counters();
        let sum = read_old(wire, topic);
        let after = broker.counters();
        assert_eq!(after.since(&before, "fetches.file_bytes"), sum);
        let ways = from_files(&after, &before);
        if ways == [sum, 0, 0] {
            return;
        }
        seen.push(ways);
    }
    panic!("no pass went by sendfile alone: {seen:?}");
}

fn warm(broker: &Broker, topic: &str) {
    let segments = segments(&broker.data_dir(), topic);
    assert!(segments.len() >= 4, "{segments:?}");
    for path in segments {
        std::fs::read(path).expect("a segment can be read");
    }
}

fn chill(broker: &Broker, topic: &str) {
    let segments = segments(&broker.data_dir(), topic);
    assert!(segments.len() >= 4, "{segments:?}");
    for path in segments {
        let file = File::open(path).expect("a segment can be opened");
        fsync(&file).expect("a segment can be synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("the page cache takes advice");
    }
}

/// Bytes that sockets took from files, as sendfile, splice and around the page cache.
fn from_files(now: &Counters, earlier: &Counters) -> [u64; 3] {
    ["sent.sendfile_bytes", "sent.splice_bytes", "sent.direct_bytes"].map(|name| now.since(earlier, name))
}

#[test]
fn a_consumer_that_keeps_up_reads_from_memory() {
    let broker = start("splice");
    let topic = unique("paths");
    create_topic(broker.address(), &topic, 1, &[]);
    let (mut producer, mut consumer) =
        (Wire::connect(broker.address(), "paths"), Wire::connect(broker.address(), "paths"));
    let before = broker.counters();
    let mut sum = 0;
    for index in 0..MANY_BATCHES {
        let offset = write(&mut producer, &topic, index);
        let (count, bytes) = read(&mut consumer, &topic, offset);
        assert_eq!(count, 1);
        sum += bytes;
    }
    let after = broker.counters();
    assert_eq!(from_files(&after, &before), [0; 3]);
    assert_eq!(after.since(&before, "fetches.tail_bytes"), sum);
    assert_eq!(after.since(&before, "fetches.file_bytes"), 0);
    assert_eq!(after.since(&before, "journal.append_bytes"), sum);
    assert!(after.since(&before, "sent.memory_bytes") > sum);
}

#[test]
fn segments_in_the_page_cache_go_by_sendfile() {
    let broker = start("splice");
    let (mut wire, topic) = filled(&broker);
    reads_by_sendfile(&broker, &mut wire, &topic, || warm(&broker, &topic));
}

#[test]
fn cold_segments_go_through_a_pipe_or_are_read_ahead() {
    let broker = start("splice");
    let (mut wire, topic) = filled(&broker);
    chill(&broker, &topic);
    let before = broker.counters();
    let sum = read_old(&mut wire, &topic);
    let after = broker.counters();
    let [sendfile, splice, direct] = from_files(&after, &before);
    assert_eq!((sendfile + splice, direct), (sum, 0));
    let ahead = after.since(&before, "ring.read_ahead_bytes");
    assert!(splice > 0 && after.since(&before, "ring.splices") > 0, "{sendfile} {splice}");
    assert!(ahead > 0 && after.since(&before, "ring.read_aheads") > 0, "a reader in order is read ahead");
    // Nobody else has asked the disk, least of all the core. A page that a splice has read and its pipe had no room for may go by sendfile.
    assert!(splice + ahead > sum / 2, "{sendfile} {splice} {ahead}");
    // What a cold read has brought into the page cache is there for the next one.
    reads_by_sendfile(&broker, &mut wire, &topic, || ());
}

#[test]
fn cold_segments_go_around_the_page_cache_where_that_is_set() {
    let broker = start("direct");
    let (mut wire, topic) = filled(&broker);
    chill(&broker, &topic);
    for _ in 0..2 {
        let before = broker.counters();
        let sum = read_old(&mut wire, &topic);
        // It stays cold: these reads leave the page cache to others.
        assert_eq!(from_files(&broker.counters(), &before), [0, 0, sum]);
    }
    reads_by_sendfile(&broker, &mut wire, &topic, || warm(&broker, &topic));
}

#[test]
fn counters_add_up_and_are_shown_at_an_orderly_stop() {
    let mut broker = Broker::start(Options::default());
    let topic = unique("paths");
    create_topic(broker.address(), &topic, 2, &[]);
    let mut wire = Wire::connect(broker.address(), "paths");
    write(&mut wire, &topic, 0);
    let counters = broker.counters();
    assert_eq!(counters.each("turns.turns").len(), Options::default().cores);
    assert!(counters.each("turns.turns").iter().all(|&turns| turns > 0), "{counters:?}");
    let open_now = counters.sum("connections.open_now");
    assert!(open_now >= 1, "{counters:?}");
    drop(wire);
    assert!(broker.terminate().success());
    let last = Counters::last_of(&broker.log());
    let closed = ["by_peer", "bad", "idle", "unread", "unanswerable", "failed", "at_stop"];
    let closed: u64 = closed.iter().map(|why| last.sum(&format!("connections.closed_{why}"))).sum();
    assert_eq!((last.sum("connections.open_now"), last.sum("connections.accepted")), (0, closed));
    assert!(last.sum("journal.commits") >= counters.sum("journal.commits"));
    // Creating a topic tells all cores; what one sent last may find the other stopped.
    let (sent, received) = (last.sum("mailbox.sent"), last.sum("mailbox.received"));
    assert!(received > 0 && received <= sent, "{received} of {sent}");
}
