//! What tests of many seeds share: random batches, a model of what a partition must hold, and the comparison of the log with it.

use super::disk::SimDisk;
use super::rng::Rng;
use super::world::World;
use ringlog::base::batch::BatchHeader;
use ringlog::base::ids::{Offset, PartitionId};
use ringlog::base::record::BatchBuilder;
use ringlog::log::{CoreLog, LogIndex, LogSettings, Piece, ReadError, Refused};

/// Base offset, next offset, bytes as stored.
pub type Batches = Vec<(Offset, Offset, Vec<u8>)>;

/// A log so small that everything in it happens often.
pub fn small_settings(
    recovery_bytes_max: usize,
    crowd: usize,
    commit_window_us: u64,
    large_batch_bytes: usize,
) -> LogSettings {
    LogSettings {
        journal_file_bytes: 256 << 10,
        journal_bytes: 1 << 20,
        commit_window_us,
        backlog_bytes: 128 << 10,
        tail_bytes: 1 << 20,
        pieces_in_flight_max: 3,
        index_cache_bytes: 2 << 10,
        readers_max: 2,
        flush_age_ms: 50,
        crowd,
        large_batch_bytes,
        placing_bytes_max: 128 << 10,
        recovery_bytes_max,
    }
}

fn batch(rng: &mut Rng, timestamp: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(timestamp);
    for _ in 0..1 + rng.below(3) {
        let size = match rng.below(20) {
            0 => 20_000 + rng.below(60_000),
            1..4 => rng.below(9_000),
            _ => rng.below(200),
        };
        let value = rng.bytes(size);
        builder.push(timestamp, None, Some(&value));
    }
    builder.finish()
}

/// Appends a random batch where `batches` end, unless there is no room. Returns the new end.
pub fn append(
    world: &mut World,
    log: &CoreLog<SimDisk>,
    index: LogIndex,
    end: Offset,
    batches: &mut Batches,
) -> Offset {
    const EPOCH: i32 = 7;
    let mut bytes = batch(&mut world.rng, world.now.wall_ms);
    let header = BatchHeader::read(&bytes).expect("header");
    match log.append(index, &header, &bytes, end, EPOCH) {
        Ok(()) => {
            bytes[..16].copy_from_slice(&header.rewritten(end, EPOCH));
            let next = end + i64::from(header.last_offset_delta) + 1;
            batches.push((end, next, bytes));
            next
        }
        Err(Refused::Backlog) => end,
        Err(refused) => panic!("{refused:?}"),
    }
}

/// Reads all from `start` to `end`, and compares it with `batches`.
pub fn check(
    world: &mut World,
    log: &CoreLog<SimDisk>,
    (id, index): (PartitionId, LogIndex),
    (start, end): (Offset, Offset),
    batches: &Batches,
) {
    let mut offset = start;
    while offset < end {
        let max_bytes = world.rng.below(50_000);
        let bytes = read(world, log, index, offset, max_bytes, end);
        assert!(!bytes.is_empty(), "{id}: nothing at {offset}, the end is {end}");
        offset = compare(id, batches, offset, &bytes);
    }
    let past = log.read(index, end + 1, 1000, end, true);
    assert!(matches!(past, Err(ReadError::OutOfRange { start: from, end: to }) if (from, to) == (start, end)));
}

/// Reads as a client would: waits for what has to be loaded, takes file pieces from the file.
fn read(
    world: &mut World,
    log: &CoreLog<SimDisk>,
    index: LogIndex,
    offset: Offset,
    max: usize,
    limit: Offset,
) -> Vec<u8> {
    for _ in 0..100 {
        match log.read(index, offset, max, limit, true) {
            Ok(read) => {
                let mut bytes = Vec::new();
                for piece in &read.pieces {
                    match piece {
                        Piece::Memory(view) => bytes.extend_from_slice(view),
                        Piece::File { file, position, bytes: length, .. } => {
                            let disk = world.disk.clone();
                            let read = ringlog::ports::Disk::read(&disk, file, *position, *length as usize);
                            let got = world.run(read).expect("read");
                            assert_eq!(got.len() as u64, *length, "a read beyond the end of a file");
                            bytes.extend_from_slice(&got);
                        }
                    }
                }
                assert_eq!(bytes.len() as u64, read.bytes);
                return bytes;
            }
            Err(ReadError::NotLoaded) => world.run(log.load(index, offset, limit)).expect("load"),
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("never loaded");
}

/// Compares an answer with what was appended; returns the offset behind it.
fn compare(id: PartitionId, batches: &Batches, offset: Offset, bytes: &[u8]) -> Offset {
    let header = BatchHeader::read(bytes).expect("a batch");
    assert!(header.base_offset <= offset, "{id}: asked for {offset}, got {}", header.base_offset);
    let mut at = batches.partition_point(|batch| batch.0 < header.base_offset);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (_, _, expected) = &batches[at];
        assert!(rest.len() >= expected.len(), "{id}: a batch was cut");
        assert!(rest[..expected.len()] == expected[..], "{id}: other bytes at offset {}", batches[at].0);
        rest = &rest[expected.len()..];
        at += 1;
    }
    let next = batches[at - 1].1;
    assert!(next > offset, "{id}: asked for {offset}, all is before");
    next
}

/// `SEED` alone, or as many as `SEEDS` says.
pub fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..std::env::var("SEEDS").map_or(150, |count| count.parse().expect("SEEDS is a number")),
    }
}

/// Runs `test` for many seeds; a failure names its own.
pub fn for_seeds(test: impl Fn(u64)) {
    for seed in seeds() {
        if let Err(cause) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(seed))) {
            eprintln!("SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}
