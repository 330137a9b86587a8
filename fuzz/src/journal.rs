//! A journal of two sessions over the segments of four partitions, damaged, then scanned and recovered.

use super::damage::{Input, Source, damage};
use super::sim::bench::{Bench, DATA, JOURNAL};
use super::stored::{History, check_batch, is_whole, open, read_through, remember};
use ringlog::base::batch;
use ringlog::base::ids::{Offset, PartitionId, TopicId};
use ringlog::log::{Damage, LogError, Recovered, Replay, recover, scan};
use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

/// Recovery of these few files never holds more.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const BLOCK: usize = 4096;
const RECORD_HEADER_BYTES: usize = 64;
const RECORD_APPEND: u8 = 1;
/// Bytes of a batch that the CRC of its record covers.
const BATCH_PREFIX_BYTES: usize = 21;
/// Bytes of a journal file's header before its CRC.
const FILE_HEADER_BYTES: usize = 32;
/// Where a file's header, and a record's, have the file's sequence.
#[cfg(test)]
const SEQUENCE_IN_FILE_AT: usize = 12;
#[cfg(test)]
const SEQUENCE_IN_RECORD_AT: usize = 48;

struct Base {
    journal: Vec<Source>,
    /// What the damage leaves alone.
    segments: Vec<(std::path::PathBuf, Vec<u8>)>,
    history: History,
}

static BASE: LazyLock<Base> = LazyLock::new(Base::new);

/// A log with small files, so that a few records fill several of them.
fn bench() -> Bench {
    let mut bench = Bench::new(11);
    bench.settings.journal_file_bytes = 48 << 10;
    bench.settings.journal_bytes = 240 << 10;
    bench.partition.segment_bytes = 6_000;
    bench
}

impl Base {
    fn new() -> Base {
        let mut bench = bench();
        bench.open();
        let logs: Vec<_> = (0..4).map(|index| bench.create(index)).collect();
        for round in 0..6 {
            for log in &logs[..3] {
                bench.append(*log, 1 + round % 3, 150);
            }
            bench.until_durable();
        }
        bench.flush();
        let log = bench.log();
        log.checkpoint(logs[0], b"producers").expect("room");
        bench.world.run(log.truncate(logs[1], 7, |_| b"cut".to_vec())).expect("truncate");
        bench.append(logs[1], 2, 90);
        bench.world.run(log.set_start_offset(logs[0], 3)).expect("start");
        bench.world.run(log.drop_partition(logs[2])).expect("drop");
        bench.append(logs[3], 1, 40);
        bench.until_durable();
        bench.crash();
        let logs = bench.restart();
        for _ in 0..4 {
            for log in &logs {
                bench.append(*log, 2, 60);
            }
            bench.until_durable();
        }
        bench.crash();
        let (mut journal, mut history) = (Vec::new(), History::new());
        for (path, mut bytes) in bench.files(Path::new(JOURNAL), "") {
            // Behind the last record a file is zeros; two blocks of them tell as much as all.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(BLOCK) + 2 * BLOCK);
            let spots = records(&bytes);
            for at in &spots[1..] {
                remember(&mut history, partition_at(&bytes[*at..]), &bytes[at + RECORD_HEADER_BYTES..]);
            }
            journal.push(Source { path, bytes, spots });
        }
        assert!(journal.iter().filter(|source| source.spots.len() > 4).count() >= 2, "two sessions with records");
        let segments = bench.files(Path::new(DATA), "");
        assert!(segments.len() > 3);
        Base { journal, segments, history }
    }
}

/// The header block, and where each record begins.
fn records(file: &[u8]) -> Vec<usize> {
    let heads = (BLOCK..file.len().saturating_sub(RECORD_HEADER_BYTES)).step_by(8);
    std::iter::once(0).chain(heads.filter(|at| file[*at..].starts_with(b"RLr1"))).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn partition_at(record: &[u8]) -> PartitionId {
    let topic = TopicId(record[16..32].try_into().expect("sixteen bytes"));
    PartitionId { topic, index: u32_at(record, 40) as i32 }
}

/// Renews the CRC of the file's header, or that of a record and of the batch in it.
fn seal(_: &Path, file: &mut [u8], at: usize) {
    if at == 0 && file.len() >= FILE_HEADER_BYTES + 4 {
        let crc = crc32c::crc32c(&file[..FILE_HEADER_BYTES]);
        file[FILE_HEADER_BYTES..FILE_HEADER_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    }
    if at < BLOCK || file.len() < at + RECORD_HEADER_BYTES {
        return;
    }
    let salt = u32_at(file, 20);
    let (header, rest) = file[at..].split_at_mut(RECORD_HEADER_BYTES);
    let payload_bytes = u32_at(header, 44) as usize;
    let Some(payload) = rest.get_mut(..payload_bytes) else { return };
    let is_batch = header[60] == RECORD_APPEND;
    if is_batch && payload.len() >= batch::HEADER_BYTES {
        batch::seal(payload);
    }
    let prefix = if is_batch { payload.len().min(BATCH_PREFIX_BYTES) } else { payload.len() };
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &header[8..]), &payload[..prefix]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

type Results = Vec<(PartitionId, Result<Recovered, Damage>)>;

/// `input` tells what happened to the journal. Nothing may panic, hang or take memory without bound; what is believed must be what was
/// once written, in order, and recovering twice must find the same.
pub fn journal(input: &[u8]) {
    let base = &*BASE;
    let measured = allocation_counter::measure(|| check(base, input));
    assert!(measured.bytes_max < MEMORY_BYTES_MAX, "{} bytes at once", measured.bytes_max);
}

fn check(base: &Base, input: &[u8]) {
    let mut bench = bench();
    for (path, bytes) in &base.segments {
        bench.world.disk.0.borrow_mut().storage.put(path, bytes.clone());
    }
    let damaged = damage(&base.journal, Input(input), seal);
    let history = (!damaged.is_forged).then_some(&base.history);
    damaged.put(&bench);
    // Read twice, and then with all of it held in memory.
    let Some(first) = recover_all(&mut bench, history, 0) else { return };
    let again = recover_all(&mut bench, history, usize::MAX).expect("as before");
    assert_eq!(again, first, "recovery may start over at any time, and its memory changes nothing");
    bench.open();
    for recovered in first.into_iter().filter_map(|(_, recovered)| recovered.ok()) {
        check_log(&mut bench, recovered, history);
    }
}

/// `None` where a header says that the journal is of another version.
fn recover_all(bench: &mut Bench, history: Option<&History>, memory: usize) -> Option<Results> {
    let disk = bench.disk();
    let scanned = match bench.world.run(scan(&disk, Path::new(JOURNAL), memory)) {
        Err(LogError::Damaged(_)) => return None,
        scanned => scanned.expect("the disk answers"),
    };
    let mut replayed: HashMap<PartitionId, Option<Offset>> = HashMap::new();
    let replay = |id, replay: Replay<'_>| match replay {
        Replay::Checkpoint(_) => assert!(replayed.insert(id, None).is_none(), "the checkpoint comes first, and once"),
        Replay::Batch(_, whole) => {
            let next = replayed.get_mut(&id).expect("the checkpoint comes first");
            *next = Some(check_batch(id, whole, *next, history));
        }
    };
    let recovered = bench.world.run(recover(&disk, Path::new(DATA), &scanned, |_| true, replay));
    Some(recovered.expect("the disk answers"))
}

/// What recovery calls whole can be opened and read to its end.
fn check_log(bench: &mut Bench, recovered: Recovered, history: Option<&History>) {
    let (id, start, end) = (recovered.id, recovered.start_offset, recovered.end_offset);
    let Some(index) = open(bench, recovered) else { return };
    if !is_whole(bench, index) {
        return;
    }
    let batches = read_through(bench, index, 1_000, true).expect("verified a moment ago");
    let mut next = None;
    for whole in &batches {
        next = Some(check_batch(id, whole, next, history));
    }
    if history.is_some() {
        assert!(start >= end || next == Some(end), "{id}: {start}..{end} ends at {next:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::bench::id;
    use super::*;

    #[test]
    fn an_undamaged_journal_is_recovered_whole() {
        let mut bench = bench();
        for (path, bytes) in &BASE.segments {
            bench.world.disk.0.borrow_mut().storage.put(path, bytes.clone());
        }
        damage(&BASE.journal, Input(&[]), seal).put(&bench);
        let results = recover_all(&mut bench, Some(&BASE.history), usize::MAX).expect("known format");
        let partitions: Vec<_> = results.iter().map(|(id, recovered)| (*id, recovered.is_ok())).collect();
        assert_eq!(partitions, [(id(0), true), (id(1), true), (id(3), true)]);
        journal(&[]);
    }

    #[test]
    fn sealing_what_is_whole_changes_nothing() {
        for source in &BASE.journal {
            let mut sealed = source.bytes.clone();
            // What a recycled file still holds of its earlier uses has another salt, and one that waits for its next use has no header.
            let sequence = u32_at(&source.bytes, SEQUENCE_IN_FILE_AT);
            let is_own = |at: &usize| match at {
                0 => sequence != 0,
                at => u32_at(&source.bytes, at + SEQUENCE_IN_RECORD_AT) == sequence,
            };
            for at in source.spots.iter().filter(|at| is_own(at)) {
                seal(&source.path, &mut sealed, *at);
            }
            assert!(sealed == source.bytes, "{}", source.path.display());
        }
    }
}
