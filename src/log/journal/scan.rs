//! Reads a journal as a crash left it: which records hold, where the tail was torn, and what is damaged. Changes nothing.
//!
//! Every record says which ones before it were durable when it was made. So a gap that a later record proves durable is damage; one that
//! none does is the torn end of the journal, of which nothing was acknowledged.

use super::format::{
    self, Checkpoint, FIRST_COMMIT_AT, FileHeader, Kind, RECORD_HEADER_BYTES, RecordError, RecordHeader,
};
use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::log::dir;
use crate::log::error::{Damage, LogError};
use crate::log::settings::CROWD;
use crate::log::window::Window;
use crate::ports::Disk;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const BLOCK: u64 = DISK_BLOCK_BYTES as u64;
/// A smaller batch is copied when it is held: as a view it would hold all that was read together with it.
const HELD_VIEW_BYTES_MIN: usize = 16 << 10;

/// A stretch of a file whose records all hold, one after the other. `salt` is of its session.
#[derive(Clone, Debug)]
pub struct Extent {
    pub path: PathBuf,
    pub file_sequence: u32,
    salt: u32,
    from: u64,
    to: u64,
}

/// What a journal knows of one partition.
#[derive(Clone, Debug, Default)]
pub struct ScannedPartition {
    pub generation: u32,
    /// The latest one, with its order in the journal.
    pub checkpoint: Option<(Position, Checkpoint)>,
    /// Where its newest record stands.
    pub last: Position,
    pub is_dropped: bool,
    /// Where the log starts, by the latest record that says so.
    pub start_offset: Offset,
    /// Records before this one are of a partition of the same id that was deleted.
    pub(crate) born: Position,
    pub(crate) truncations: Vec<Truncation>,
    /// Batches that the segments may lack, in order. All of them, if the journal's `is_held`.
    pub(crate) held: Vec<HeldBatch>,
    /// Batches of this partition that cannot be believed, and where they stood.
    pub damage: Vec<(Position, Damage)>,
}

/// Records before `at` that were appended at or beyond `end_offset` are no longer part of the partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truncation {
    pub at: Position,
    pub end_offset: Offset,
    /// Nor are any others.
    pub is_empty: bool,
}

/// A batch that was kept in memory, so that recovery need not read it again.
#[derive(Clone, Debug)]
pub(crate) struct HeldBatch {
    pub at: Position,
    pub record: RecordHeader,
    pub payload: Bytes,
}

/// Order of records over all sessions of a journal: session, then sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    pub session: u32,
    pub sequence: u64,
}

/// What recovery learns from a first pass over one journal. May travel to another core.
#[derive(Clone, Debug, Default)]
pub struct ScannedJournal {
    pub dir: PathBuf,
    pub partitions: HashMap<PartitionId, ScannedPartition>,
    /// Where something that once was durable cannot be read.
    pub damage: Vec<Damage>,
    /// The journal was closed in order.
    pub is_closed: bool,
    /// Bytes of records that were cut because their commit was never complete.
    pub torn: bool,
    /// The batches that recovery needs are in memory: `held` of each partition. Otherwise there are too many, and it reads them again.
    pub(crate) is_held: bool,
    held_bytes: usize,
    /// With this many segments to be completed, they are synced together.
    pub crowd: usize,
    /// Where records of unknown partitions are missing.
    pub(crate) gaps: Vec<Position>,
    pub(crate) extents: Vec<(u32, Extent)>,
    pub(crate) file_numbers: Vec<u32>,
    pub(crate) next_file_sequence: u32,
    pub(crate) next_file_number: u32,
}

impl ScannedPartition {
    /// Lets go of batches that are in the segments by `checkpoint`. Those that were cut off before it stay.
    fn release(&mut self, checkpoint: &Checkpoint) -> usize {
        let before = held_bytes(&self.held);
        self.held.retain(|held| {
            BatchHeader::read(&held.payload).is_some_and(|batch| batch.next_offset() > checkpoint.segment_end_offset)
        });
        before - held_bytes(&self.held)
    }
}

/// Memory of batches that are held.
fn held_bytes(held: &[HeldBatch]) -> usize {
    held.iter().map(|held| size_of::<HeldBatch>() + held.payload.len()).sum()
}

/// What stands at a position of a journal file.
enum Found {
    Record(RecordHeader, Bytes),
    /// A record whose header holds and whose batch does not.
    BadBatch(RecordHeader),
    Nothing,
}

async fn find<D: Disk>(
    window: &mut Window<'_, D>,
    position: u64,
    file_sequence: u32,
    salt: u32,
) -> Result<Found, LogError> {
    let head = window.at(position, RECORD_HEADER_BYTES).await?;
    let Some(header) = RecordHeader::decode(&head).filter(|header| header.file_sequence == file_sequence) else {
        return Ok(Found::Nothing);
    };
    let bytes = RECORD_HEADER_BYTES + header.payload_bytes as usize;
    if position + bytes as u64 > window.bytes {
        return Ok(Found::Nothing);
    }
    let record = window.at(position, bytes).await?;
    if record.len() < bytes {
        return Ok(Found::Nothing);
    }
    Ok(match format::check_record(&header, salt, &record) {
        Ok(()) => Found::Record(header, record.slice(RECORD_HEADER_BYTES..)),
        Err(RecordError::Batch) => Found::BadBatch(header),
        Err(RecordError::Crc) => Found::Nothing,
    })
}

/// Scans the journal in `dir`, in the order of its files. An absent or empty directory is an empty journal.
///
/// Up to `hold_bytes_max` bytes of batches stay in memory for `recover`.
///
/// # Errors
/// The disk does not answer; a file is of a format or session that cannot be read. Other damage is part of the result.
pub async fn scan<D: Disk>(disk: &D, dir: &Path, hold_bytes_max: usize) -> Result<ScannedJournal, LogError> {
    let (dir, is_held) = (dir.to_owned(), true);
    let mut journal = ScannedJournal { dir, is_held, crowd: CROWD, next_file_sequence: 1, ..ScannedJournal::default() };
    let dir = &journal.dir.clone();
    let mut files = Vec::new();
    for path in disk.list(dir).await.map_err(LogError::io("list", dir))? {
        let Some(number) = dir::parse_journal_name(&path) else { continue };
        let path = dir::journal_path(dir, number);
        journal.file_numbers.push(number);
        journal.next_file_number = journal.next_file_number.max(number + 1);
        let mut window = Window::open(disk, &path).await?;
        let block = window.at(0, DISK_BLOCK_BYTES).await?;
        // Without a header a file was never used: it is written, durably, before the first commit.
        let Some(header) = FileHeader::decode(&block) else { continue };
        if header.format_version != format::FORMAT_VERSION {
            let what = format!("journal format {} is not known to this version", header.format_version);
            return Err(bad_header(&path, what));
        }
        let Some(next) = header.file_sequence.checked_add(1) else {
            return Err(bad_header(&path, "no file can follow this one: its sequence is the last there is".into()));
        };
        journal.next_file_sequence = journal.next_file_sequence.max(next);
        files.push((header, path));
    }
    files.sort_by_key(|(header, _)| header.file_sequence);
    let mut before = None;
    for (header, path) in &files {
        // A session is named after its first file. Without that order nobody could tell which of two records is the later one.
        let is_in_order = header.session <= header.file_sequence
            && before.is_none_or(|(session, sequence)| header.session == session || header.session > sequence);
        if !is_in_order {
            let what = format!("file {} is of session {}, which cannot be", header.file_sequence, header.session);
            return Err(bad_header(path, what));
        }
        before = Some((header.session, header.file_sequence));
    }
    // Unused ones first, then in the order of their records: so they are released without leaving a gap.
    journal.file_numbers.sort_by_key(|number| {
        let path = dir::journal_path(dir, *number);
        files.iter().find(|(_, used)| *used == path).map_or(0, |(header, _)| header.file_sequence)
    });
    for session in files.chunk_by(|(a, _), (b, _)| a.session == b.session) {
        // What was freed is in segments, and its checkpoints are superseded. A header that says so of its own file says nothing.
        let honest = session.iter().filter(|(header, _)| header.first_live <= header.file_sequence);
        let first_live = honest.map(|(header, _)| header.first_live).max().unwrap_or_default();
        let freed = session.partition_point(|(header, _)| header.file_sequence < first_live);
        let mut scanner =
            Scanner { disk, journal: &mut journal, files: &session[freed..], expected: None, hold_bytes_max };
        scanner.run().await?;
    }
    Ok(journal)
}

fn bad_header(path: &Path, what: String) -> LogError {
    LogError::Damaged(Damage { path: path.display().to_string(), position: 0, partition: None, what })
}

/// Goes through the files of one session.
struct Scanner<'a, D: Disk> {
    disk: &'a D,
    journal: &'a mut ScannedJournal,
    files: &'a [(FileHeader, PathBuf)],
    /// Sequence of the next record; `None` before the first.
    expected: Option<u64>,
    hold_bytes_max: usize,
}

/// Where the scan goes on after a gap.
enum Resume {
    /// At this file and position, nothing is missing.
    Whole(usize, u64),
    /// … after records that were durable.
    Damaged(usize, u64),
    /// Nowhere: the session ends here.
    End,
}

impl<D: Disk> Scanner<'_, D> {
    async fn run(&mut self) -> Result<(), LogError> {
        let (mut file, mut position) = (0, FIRST_COMMIT_AT);
        self.journal.is_closed = false;
        loop {
            let stopped = self.records(file, position).await?;
            let missing = self.expected.unwrap_or_default();
            if self.journal.is_closed {
                return Ok(());
            }
            match self.resume(file, stopped).await? {
                Resume::Whole(next_file, next) => (file, position) = (next_file, next),
                Resume::Damaged(next_file, next) => {
                    self.note_damage(file, stopped, missing);
                    (file, position) = (next_file, next);
                }
                Resume::End => return Ok(()),
            }
        }
    }

    /// Takes records from `position` on while they follow each other; returns where they stop.
    async fn records(&mut self, file: usize, mut position: u64) -> Result<u64, LogError> {
        let (header, path) = &self.files[file];
        let mut window = Window::open(self.disk, path).await?;
        let mut from = position;
        loop {
            let mut at = position;
            let mut found = find(&mut window, at, header.file_sequence, header.salt).await?;
            if matches!(found, Found::Nothing) && !at.is_multiple_of(BLOCK) {
                // Behind the last record of a commit there are zeros up to the next block.
                at = at.next_multiple_of(BLOCK);
                found = find(&mut window, at, header.file_sequence, header.salt).await?;
            }
            match found {
                Found::Record(record, payload) if self.is_next(&record) => {
                    self.expected = Some(record.sequence + 1);
                    position = at + record.record_bytes() as u64;
                    if !self.take(header.session, &record, payload) {
                        self.note_bad_record(file, at, &record, "this is no checkpoint of the partition".into());
                    }
                    if record.kind == Kind::Closed {
                        self.journal.is_closed = true;
                        break;
                    }
                }
                Found::BadBatch(record) if self.is_next(&record) && self.is_proven(file, at, &record).await? => {
                    self.extent(file, from, position);
                    let what = format!("the batch behind offset {} is not what was written", record.offset);
                    self.note_bad_record(file, at, &record, what);
                    self.expected = Some(record.sequence + 1);
                    position = at + record.record_bytes() as u64;
                    from = position;
                }
                _ => break,
            }
        }
        self.extent(file, from, position);
        Ok(position)
    }

    fn is_next(&self, record: &RecordHeader) -> bool {
        self.expected.is_none_or(|expected| expected == record.sequence)
    }

    fn extent(&mut self, file: usize, from: u64, to: u64) {
        if to > from {
            let (header, path) = &self.files[file];
            let extent =
                Extent { path: path.clone(), file_sequence: header.file_sequence, salt: header.salt, from, to };
            self.journal.extents.push((header.session, extent));
        }
    }

    /// Takes a record whose CRC holds. False where nothing can be made of it: nobody has written it so.
    fn take(&mut self, session: u32, record: &RecordHeader, payload: Bytes) -> bool {
        if record.kind == Kind::Closed {
            return true;
        }
        if record.kind == Kind::Left {
            // Not even its generation: where the other journal is lost, the files alone must tell, and the next opening counts from there.
            let gone = self.journal.partitions.remove(&record.partition);
            self.journal.held_bytes -= gone.map_or(0, |partition| held_bytes(&partition.held));
            return true;
        }
        let position = Position { session, sequence: record.sequence };
        let partition = self.journal.partitions.entry(record.partition).or_default();
        partition.generation = record.generation;
        partition.last = position;
        match record.kind {
            Kind::Checkpoint | Kind::Truncate => {
                let decoded = Checkpoint::decode(&payload);
                // Where it sent the partition to another one's directory, two of them would write there.
                let Some(checkpoint) = decoded.filter(|read| dir::is_partition_dir(&read.dir, record.partition)) else {
                    return false;
                };
                if record.kind == Kind::Truncate {
                    let (start, end_offset) = (checkpoint.start_offset, checkpoint.end_offset);
                    let is_empty = start == end_offset;
                    partition.truncations.push(Truncation { at: position, end_offset, is_empty });
                }
                let released = partition.release(&checkpoint);
                partition.start_offset = checkpoint.start_offset;
                partition.checkpoint = Some((position, checkpoint));
                partition.is_dropped = false;
                self.journal.held_bytes -= released;
            }
            Kind::Drop => {
                partition.is_dropped = true;
                partition.born = position;
                self.journal.held_bytes -= held_bytes(&std::mem::take(&mut partition.held));
            }
            Kind::StartOffset => partition.start_offset = partition.start_offset.max(record.offset),
            Kind::Append => self.hold(position, record, payload),
            Kind::Closed | Kind::Left => {}
        }
        true
    }

    /// Keeps a batch in memory while there is room; without room none is kept, and recovery reads the journal again.
    fn hold(&mut self, at: Position, record: &RecordHeader, payload: Bytes) {
        if !self.journal.is_held {
            return;
        }
        let payload = if payload.len() < HELD_VIEW_BYTES_MIN { Bytes::copy_from_slice(&payload) } else { payload };
        let held = HeldBatch { at, record: *record, payload };
        self.journal.held_bytes += held_bytes(std::slice::from_ref(&held));
        if self.journal.held_bytes <= self.hold_bytes_max {
            self.journal.partitions.entry(record.partition).or_default().held.push(held);
            return;
        }
        self.journal.is_held = false;
        self.journal.partitions.values_mut().for_each(|partition| partition.held = Vec::new());
        self.journal.held_bytes = 0;
    }

    /// Looks for where the session goes on behind `stopped`: at a block boundary of this file, or in a later one.
    async fn resume(&mut self, file: usize, stopped: u64) -> Result<Resume, LogError> {
        let Some(expected) = self.expected else {
            // No record yet: the oldest file may be empty, or begin with what is torn or damaged.
            return self.resume_first(file, stopped).await;
        };
        let mut later = None;
        for at_file in file..self.files.len() {
            let from = if at_file == file { stopped.next_multiple_of(BLOCK) } else { FIRST_COMMIT_AT };
            let mut search = Search::begin(self.disk, &self.files[at_file], from).await?;
            while let Some((position, record)) = search.next().await? {
                if record.sequence == expected && (at_file, position) != (file, stopped) {
                    return Ok(Resume::Whole(at_file, position));
                }
                if record.sequence <= expected {
                    continue;
                }
                // Everything from the first record behind the gap on is good again once it is known that the gap was durable.
                let behind = *later.get_or_insert((at_file, position, record.sequence));
                if record.durable_before() > expected {
                    self.expected = Some(behind.2);
                    return Ok(Resume::Damaged(behind.0, behind.1));
                }
            }
        }
        self.journal.torn |= later.is_some();
        Ok(Resume::End)
    }

    async fn resume_first(&mut self, file: usize, stopped: u64) -> Result<Resume, LogError> {
        for at_file in file..self.files.len() {
            let from = if at_file == file { stopped + BLOCK } else { FIRST_COMMIT_AT };
            let mut search = Search::begin(self.disk, &self.files[at_file], from).await?;
            if let Some((position, record)) = search.next().await? {
                if record.durable_before() > 1 {
                    return Ok(Resume::Damaged(at_file, position));
                }
                // The session's very first commit was torn beside its second one.
                self.journal.torn = true;
                return Ok(Resume::End);
            }
        }
        Ok(Resume::End)
    }

    /// Whether a later record says that `record`, at `position`, was durable.
    async fn is_proven(&self, file: usize, position: u64, record: &RecordHeader) -> Result<bool, LogError> {
        for at_file in file..self.files.len() {
            let from = if at_file == file { position.next_multiple_of(BLOCK) } else { FIRST_COMMIT_AT };
            let mut search = Search::begin(self.disk, &self.files[at_file], from).await?;
            while let Some((_, later)) = search.next().await? {
                if later.durable_before() > record.sequence && later.sequence > record.sequence {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Only this record is lost, and it is known whose it was.
    fn note_bad_record(&mut self, file: usize, position: u64, record: &RecordHeader, what: String) {
        let path = self.files[file].1.display().to_string();
        let damage = Damage { path, position, partition: Some(record.partition), what };
        let partition = self.journal.partitions.entry(record.partition).or_default();
        let at = Position { session: self.files[file].0.session, sequence: record.sequence };
        partition.damage.push((at, damage.clone()));
        self.journal.damage.push(damage);
    }

    /// Records of unknown partitions are missing: every partition of this journal may be one of them.
    fn note_damage(&mut self, file: usize, position: u64, sequence: u64) {
        self.journal.gaps.push(Position { session: self.files[file].0.session, sequence });
        let damage = Damage {
            path: self.files[file].1.display().to_string(),
            position,
            partition: None,
            what: "records that were durable cannot be read".into(),
        };
        self.journal.damage.push(damage);
    }
}

/// The records of an extent, read again.
pub(crate) struct Records<'a, D: Disk> {
    window: Window<'a, D>,
    extent: Extent,
}

impl<'a, D: Disk> Records<'a, D> {
    pub async fn open(disk: &'a D, extent: Extent) -> Result<Records<'a, D>, LogError> {
        Ok(Records { window: Window::open(disk, &extent.path).await?, extent })
    }

    /// The next record and its payload.
    ///
    /// # Errors
    /// What `scan` has read cannot be read again.
    pub async fn next(&mut self) -> Result<Option<(RecordHeader, Bytes)>, LogError> {
        while self.extent.from < self.extent.to {
            let at = self.extent.from;
            match find(&mut self.window, at, self.extent.file_sequence, self.extent.salt).await? {
                Found::Record(record, payload) => {
                    self.extent.from = at + record.record_bytes() as u64;
                    return Ok(Some((record, payload)));
                }
                Found::Nothing if !at.is_multiple_of(BLOCK) => self.extent.from = at.next_multiple_of(BLOCK),
                _ => {
                    let path = self.extent.path.display().to_string();
                    let what = "a record that was whole a moment ago is not".into();
                    return Err(LogError::Damaged(Damage { path, position: at, partition: None, what }));
                }
            }
        }
        Ok(None)
    }
}

/// Valid records at block boundaries of one file.
struct Search<'a, D: Disk> {
    window: Window<'a, D>,
    header: FileHeader,
    position: u64,
}

impl<'a, D: Disk> Search<'a, D> {
    async fn begin(
        disk: &'a D,
        (header, path): &(FileHeader, PathBuf),
        position: u64,
    ) -> Result<Search<'a, D>, LogError> {
        Ok(Search { window: Window::open(disk, path).await?, header: *header, position })
    }

    async fn at(&mut self, position: u64) -> Result<Found, LogError> {
        find(&mut self.window, position, self.header.file_sequence, self.header.salt).await
    }

    async fn next(&mut self) -> Result<Option<(u64, RecordHeader)>, LogError> {
        while self.position < self.window.bytes {
            let position = self.position;
            self.position += BLOCK;
            if let Found::Record(record, _) | Found::BadBatch(record) = self.at(position).await? {
                return Ok(Some((position, record)));
            }
        }
        Ok(None)
    }
}
