//! The segments and indexes of a partition, damaged, then recovered, loaded, read, searched, scrubbed and cut. With a journal that is
//! whole, or without one.

use super::damage::{Input, Source, damage};
use super::sim::bench::{Bench, DATA, JOURNAL, id, partition_dir};
use super::stored::{History, check_batch, is_whole, open, read_through, remember};
use ringlog::base::batch;
use ringlog::log::{LogError, LogIndex, Recovered, recover, recover_from_segments, scan};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Reading these few files never holds more.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const BLOCK: usize = 4096;
/// Bytes of a segment's header before its CRC.
const SEGMENT_HEADER_BYTES: usize = 40;
const INDEX_HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 20;
/// Time of the first batch; each has its own millisecond.
const FIRST_MS: i64 = 5_000;
const BATCHES: i64 = 60;

struct Base {
    segments: Vec<Source>,
    journal: Vec<(PathBuf, Vec<u8>)>,
    history: History,
}

static BASE: LazyLock<Base> = LazyLock::new(Base::new);

/// A log whose partition has several segments with several index entries each.
fn bench() -> Bench {
    let mut bench = Bench::new(12);
    bench.settings.journal_file_bytes = 48 << 10;
    bench.settings.journal_bytes = 240 << 10;
    bench.partition.segment_bytes = 5_000;
    bench.partition.index_interval_bytes = 600;
    bench.partition.retention_ms = None;
    bench
}

impl Base {
    fn new() -> Base {
        let mut bench = bench();
        bench.open();
        let index = bench.create(0);
        for n in 0..BATCHES {
            while bench.try_append(index, 1 + n as usize % 3, 80, FIRST_MS + n).is_err() {
                bench.world.turn();
            }
            bench.until_durable();
        }
        let log = bench.log();
        bench.world.run(log.close(|_| b"producers".to_vec())).expect("close");
        crash_keeping_all(&mut bench);
        // Not closed in order: recovery looks at the segments.
        let index = bench.restart()[0];
        bench.append(index, 2, 80);
        bench.flush();
        bench.append(index, 2, 80);
        bench.until_durable();
        crash_keeping_all(&mut bench);
        let mut history = History::new();
        let mut segments: Vec<Source> = Vec::new();
        for (path, bytes) in bench.files(&partition_dir(0), "") {
            let is_index = path.extension().is_some_and(|extension| extension == "index");
            let spots = if is_index { index_spots(&bytes) } else { batch_spots(&bytes) };
            if !is_index {
                remember(&mut history, id(0), &bytes[BLOCK.min(bytes.len())..]);
            }
            segments.push(Source { path, bytes, spots });
        }
        let batches: usize = segments.iter().map(|source| source.spots.len() - 1).sum();
        assert!(
            segments.len() > 5 && batches > BATCHES as usize,
            "several segments with their indexes: {} files, {batches} batches",
            segments.len()
        );
        let journal = bench.files(Path::new(JOURNAL), "");
        for (_, bytes) in &journal {
            for at in (BLOCK..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"RLr1")) {
                remember(&mut history, id(0), &bytes[at + 64..]);
            }
        }
        Base { segments, journal, history }
    }
}

/// Indexes are written without syncs; here none of them is lost.
fn crash_keeping_all(bench: &mut Bench) {
    for (path, _) in bench.files(Path::new("/"), "") {
        bench.edit(&path, |_| ());
    }
    bench.crash();
}

fn batch_spots(file: &[u8]) -> Vec<usize> {
    let mut spots = vec![0];
    let mut at = BLOCK;
    for (_, whole) in batch::batches(&file[BLOCK.min(file.len())..]) {
        spots.push(at);
        at += whole.len();
    }
    spots
}

fn index_spots(file: &[u8]) -> Vec<usize> {
    std::iter::once(0).chain((INDEX_HEADER_BYTES..file.len()).step_by(ENTRY_BYTES)).collect()
}

/// Renews the CRC of a segment's header or batch, or that of an index.
fn seal(path: &Path, file: &mut [u8], at: usize) {
    if path.extension().is_some_and(|extension| extension == "index") {
        seal_index(file);
    } else if at == 0 && file.len() >= SEGMENT_HEADER_BYTES + 4 {
        let crc = crc32c::crc32c(&file[..SEGMENT_HEADER_BYTES]);
        file[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    } else if let Some(header) = batch::BatchHeader::read(&file[at..])
        && let Some(whole) = file[at..].get_mut(..header.batch_bytes())
        && whole.len() >= batch::HEADER_BYTES
    {
        batch::seal(whole);
    }
}

/// As if all entries that are there had been written, and then sealed.
fn seal_index(file: &mut [u8]) {
    if file.len() < INDEX_HEADER_BYTES {
        return;
    }
    let (header, entries) = file.split_at_mut(INDEX_HEADER_BYTES);
    for entry in entries.chunks_exact_mut(ENTRY_BYTES) {
        let crc = crc32c::crc32c(&entry[..ENTRY_BYTES - 4]);
        entry[ENTRY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    let count = entries.len() / ENTRY_BYTES;
    header[12..16].copy_from_slice(&(count as u32).to_le_bytes());
    header[24..28].copy_from_slice(&crc32c::crc32c(&entries[..count * ENTRY_BYTES]).to_le_bytes());
}

/// The first byte of `input` says what is done with the segments, the others what had happened to them. Nothing may panic, hang or take
/// memory without bound; what the scrub calls whole must be what was once written, in order.
pub fn segments(input: &[u8]) {
    let base = &*BASE;
    let measured = allocation_counter::measure(|| check(base, input));
    assert!(measured.bytes_max < MEMORY_BYTES_MAX, "{} bytes at once", measured.bytes_max);
}

fn check(base: &Base, input: &[u8]) {
    let mut input = Input(input);
    let mode = input.byte();
    let mut bench = bench();
    if mode & 1 == 0 {
        for (path, bytes) in &base.journal {
            bench.world.disk.0.borrow_mut().storage.put(path, bytes.clone());
        }
    }
    let damaged = damage(&base.segments, input, seal);
    let history = (!damaged.is_forged).then_some(&base.history);
    damaged.put(&bench);
    let Some(recovered) = recover_one(&mut bench, mode & 1 == 0) else { return };
    bench.open();
    let end = recovered.end_offset;
    let Some(index) = open(&mut bench, recovered) else { return };
    if mode & 2 == 0 {
        // Before the scrub, as consumers come: nothing may break on it.
        read_through(&mut bench, index, 1_000, false);
    }
    let log = bench.log();
    for timestamp in [0, FIRST_MS + BATCHES / 2, i64::MAX] {
        answered(bench.world.run(log.find_by_timestamp(index, timestamp, 0)));
    }
    answered(bench.world.run(log.find_max_timestamp(index)));
    if mode & 4 != 0 {
        answered(bench.world.run(log.truncate(index, end / 2, |_| Vec::new())));
    }
    check_log(&mut bench, index, history);
}

fn recover_one(bench: &mut Bench, has_journal: bool) -> Option<Recovered> {
    let disk = bench.disk();
    if !has_journal {
        return answered(bench.world.run(recover_from_segments(&disk, &partition_dir(0), id(0))));
    }
    let scanned = bench
        .world
        .run(scan(&disk, Path::new(JOURNAL), bench.settings.recovery_bytes_max))
        .expect("the journal is whole");
    let recovering = recover(&disk, Path::new(DATA), &scanned, |_| true, |_, _| {});
    let mut recovered = bench.world.run(recovering).expect("the disk answers");
    recovered.remove(0).1.ok()
}

/// Damage is an answer; any other error is none.
fn answered<T>(result: Result<T, LogError>) -> Option<T> {
    match result {
        Err(LogError::Damaged(_)) => None,
        result => Some(result.expect("the disk answers")),
    }
}

fn check_log(bench: &mut Bench, index: LogIndex, history: Option<&History>) {
    if !is_whole(bench, index) {
        return;
    }
    let mut next = None;
    for whole in read_through(bench, index, 700, history.is_some()).unwrap_or_default() {
        next = Some(check_batch(id(0), &whole, next, history));
    }
    // And the log goes on.
    bench.append(index, 1, 30);
    bench.flush();
    assert_eq!(bench.world.fatal, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undamaged_segments_are_whole_in_every_mode() {
        for mode in 0..8 {
            segments(&[mode]);
        }
        let mut bench = bench();
        damage(&BASE.segments, Input(&[]), seal).put(&bench);
        let recovered = recover_one(&mut bench, false).expect("whole");
        bench.open();
        let index = open(&mut bench, recovered).expect("whole");
        assert!(is_whole(&mut bench, index));
        assert!(read_through(&mut bench, index, 700, true).expect("whole").len() >= BATCHES as usize);
    }

    #[test]
    fn sealing_what_is_whole_changes_nothing() {
        for source in &BASE.segments {
            let mut sealed = source.bytes.clone();
            let is_index = source.path.extension().is_some_and(|extension| extension == "index");
            let is_unsealed = is_index && source.bytes[12..16] == [0; 4];
            for at in source.spots.iter().filter(|_| !is_unsealed) {
                seal(&source.path, &mut sealed, *at);
            }
            assert!(sealed == source.bytes, "{}", source.path.display());
        }
    }
}
