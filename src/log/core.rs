//! The state of one core's log, and the calls that the shard makes on its hot path: append, end of turn, completion.
//!
//! No call here awaits; files are made, loaded and deleted by the background tasks of the neighbouring modules.

use super::background::Looks;
use super::counters::Counters;
use super::deletion::Deletions;
use super::error::{Fatal, Refused};
use super::journal::commit::{COMMIT_TOKEN, CommitEntry, Commits, Written};
use super::journal::format::{BATCH_PREFIX_BYTES, Kind, RecordHeader};
use super::journal::ring::Ring;
use super::loading::IndexCache;
use super::partition::{Mark, Mode, PartitionLog};
use super::placing::Placements;
use super::segment::tail::CHUNK_BYTES_MIN;
use super::settings::LogSettings;
use super::signal::Signal;
use super::writer::Writer;
use super::{Durable, LogIndex};
use crate::base::batch::{BatchHeader, REWRITTEN_BYTES};
use crate::base::ids::{Offset, PartitionId};
use crate::base::limits::SEGMENT_PIECE_BYTES;
use crate::base::measures::Measures;
use crate::base::time::{Nanos, Now};
use crate::ports::{Disk, DiskCompletion};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// One core's log: its journal and all its partitions. A clone is another handle to the same.
pub struct CoreLog<D: Disk>(pub(crate) Rc<Shared<D>>);

impl<D: Disk> Clone for CoreLog<D> {
    fn clone(&self) -> Self {
        CoreLog(self.0.clone())
    }
}

pub(crate) struct Shared<D: Disk> {
    pub disk: D,
    /// Never borrowed over an await.
    pub state: RefCell<State<D>>,
    /// Notified when a write has completed or a file has come into being.
    pub signal: Signal,
}

pub(crate) struct State<D: Disk> {
    pub disk: D,
    pub settings: LogSettings,
    pub ring: Ring<D>,
    pub commits: Commits<D>,
    pub slots: Vec<Option<PartitionLog<D>>>,
    pub free_slots: Vec<u32>,
    pub by_id: HashMap<PartitionId, u32>,
    pub next_serial: u64,
    pub writer: Writer<D>,
    pub placements: Placements,
    pub now: Now,
    pub counters: Counters,
    pub failed: Option<Fatal>,
    /// Journal files of earlier sessions, by number: released when recovery is complete.
    pub recovered_files: Vec<u32>,
    /// Last file for which checkpoints were asked and segments were told to hurry.
    pub retired_through: Option<u32>,
    /// Partitions to be checkpointed so that a journal file can be freed.
    pub checkpoints_due: Vec<LogIndex>,
    pub looks: Looks,
    pub index_cache: IndexCache,
    pub deletions: Deletions,
    /// Generations of partitions dropped in this session, should they be made again.
    pub dropped: HashMap<PartitionId, u32>,
}

impl<D: Disk> State<D> {
    pub fn new(disk: D, settings: LogSettings, ring: Ring<D>, salt: u32, recovered_files: Vec<u32>) -> State<D> {
        State {
            disk,
            ring,
            commits: Commits::new(salt, settings.commit_window_us * 1000, settings.backlog_bytes),
            slots: Vec::new(),
            free_slots: Vec::new(),
            by_id: HashMap::new(),
            next_serial: 1,
            writer: Writer::new(&settings),
            placements: Placements::new(&settings),
            now: Now { mono: Nanos::default(), wall_ms: 0 },
            counters: Counters::default(),
            failed: None,
            recovered_files,
            retired_through: None,
            checkpoints_due: Vec::new(),
            looks: Looks::default(),
            index_cache: IndexCache::default(),
            deletions: Deletions::default(),
            dropped: HashMap::new(),
            settings,
        }
    }

    pub fn log(&self, log: LogIndex) -> Option<&PartitionLog<D>> {
        self.slots.get(log.0 as usize)?.as_ref()
    }

    pub fn log_mut(&mut self, log: LogIndex) -> Option<&mut PartitionLog<D>> {
        self.slots.get_mut(log.0 as usize)?.as_mut()
    }

    /// The partition that a background task began with, if it is still there.
    pub fn log_of(&mut self, log: LogIndex, serial: u64) -> Option<&mut PartitionLog<D>> {
        self.log_mut(log).filter(|partition| partition.serial == serial)
    }

    /// Gives the partition a slot.
    pub fn add(&mut self, mut partition: PartitionLog<D>) -> LogIndex {
        assert!(!self.by_id.contains_key(&partition.id), "{} is open already", partition.id);
        partition.serial = self.next_serial;
        self.next_serial += 1;
        let slot = self.free_slots.pop().unwrap_or(self.slots.len() as u32);
        self.by_id.insert(partition.id, slot);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(partition);
        LogIndex(slot)
    }

    fn append(
        &mut self,
        log: LogIndex,
        header: &BatchHeader,
        batch: &[u8],
        base_offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), Refused> {
        if self.failed.is_some() {
            return Err(Refused::Failed);
        }
        self.writer.admit()?;
        let State { disk, ring, commits, slots, writer, placements, counters, now, .. } = self;
        let partition = slots.get_mut(log.0 as usize).and_then(Option::as_mut).expect("append to an open partition");
        if partition.mode != Mode::Open {
            return Err(Refused::Busy);
        }
        assert_eq!(base_offset, partition.end_offset, "offsets are dense");
        assert_eq!(header.batch_bytes(), batch.len(), "exactly one batch");
        let is_placed = placements.takes(partition, batch.len(), commits, writer);
        match is_placed {
            true => placements.admit(writer)?,
            false => commits.reserve(disk, ring, batch.len(), false)?,
        }

        let head = header.rewritten(base_offset, leader_epoch);
        let rest = &batch[REWRITTEN_BYTES..];
        let written = (!is_placed).then(|| {
            let mut prefix = [0; BATCH_PREFIX_BYTES];
            prefix[..REWRITTEN_BYTES].copy_from_slice(&head);
            prefix[REWRITTEN_BYTES..].copy_from_slice(&batch[REWRITTEN_BYTES..BATCH_PREFIX_BYTES]);
            let record = record_header(Kind::Append, partition, partition.end_offset, batch.len());
            commits.push(record, &prefix, [&head, rest])
        });
        // Where many partitions share the memory, a large chunk for each would be more than there is.
        partition.chunks.max = if writer.is_crammed() { CHUNK_BYTES_MIN } else { SEGMENT_PIECE_BYTES };
        let segments = partition.segments.len();
        writer.tail_bytes += partition.append(disk, (header, &head, rest), base_offset, leader_epoch, now.wall_ms);
        writer.dirty_bytes += batch.len() as u64;
        counters.segments.rolled += (partition.segments.len() - segments) as u64;
        counters.journal.appends += 1;
        counters.journal.append_bytes += batch.len() as u64;

        let Some(written) = written else {
            counters.journal.placed += 1;
            counters.journal.placed_bytes += batch.len() as u64;
            placements.add(log, partition, batch.len() as u64);
            return Ok(());
        };
        let end = partition.end_place();
        partition.promised = Mark { offset: partition.end_offset, place: end };
        match partition.unflushed.back_mut() {
            Some((sequence, place)) if *sequence == written.file_sequence => *place = end,
            _ => {
                partition.unflushed.push_back((written.file_sequence, end));
                let file = ring.live_mut(written.file_sequence).expect("the file being written is live");
                file.unflushed += 1;
                file.appended.push(log.0);
            }
        }
        note_commit(commits, partition, log, &written, batch.len() as u64, false);
        Ok(())
    }

    /// Writes a record without a batch. `payload` is a checkpoint's, or empty.
    ///
    /// # Errors
    /// As `append`; records that free journal space find room where appends do not.
    pub fn append_control(&mut self, log: LogIndex, kind: Kind, offset: Offset, payload: &[u8]) -> Result<(), Refused> {
        self.push_control(log, kind, offset, payload, None)
    }

    /// As `append_control`. `placed`: how far the record vouches for what is durable in the segments only, and how many bytes of batches those are.
    pub fn push_control(
        &mut self,
        log: LogIndex,
        kind: Kind,
        offset: Offset,
        payload: &[u8],
        placed: Option<(Mark, u64)>,
    ) -> Result<(), Refused> {
        if self.failed.is_some() {
            return Err(Refused::Failed);
        }
        let State { disk, ring, commits, slots, counters, .. } = self;
        commits.reserve(disk, ring, payload.len(), true)?;
        let partition = slots.get_mut(log.0 as usize).and_then(Option::as_mut).expect("an open partition");
        let record = record_header(kind, partition, offset, payload.len());
        let written = commits.push(record, payload, [payload, &[]]);
        let is_checkpoint = matches!(kind, Kind::Checkpoint | Kind::Truncate);
        if is_checkpoint {
            ring.note_checkpoint(written.file_sequence, log);
            partition.checkpoints_pending += 1;
            partition.checkpoint_due = false;
            counters.journal.checkpoints += 1;
        }
        partition.promised = placed.map_or(partition.promised, |(end, _)| end);
        note_commit(commits, partition, log, &written, placed.map_or(0, |(_, bytes)| bytes), is_checkpoint);
        Ok(())
    }

    /// The record that says the journal was closed in order.
    pub fn append_closed(&mut self) -> Result<(), Refused> {
        self.commits.reserve(&self.disk, &mut self.ring, 0, true)?;
        let record = RecordHeader {
            sequence: 0,
            partition: PartitionId { topic: Default::default(), index: 0 },
            offset: 0,
            payload_bytes: 0,
            file_sequence: 0,
            generation: 0,
            undurable: 0,
            kind: Kind::Closed,
        };
        self.commits.push(record, &[], [&[], &[]]);
        Ok(())
    }

    fn complete_commits(&mut self, durable: &mut Vec<Durable>) {
        while let Some(committed) = self.commits.next_committed() {
            for entry in &committed.entries {
                self.commit_entry(entry, committed.file_sequence, durable);
            }
            self.commits.recycle(committed.entries);
        }
        self.ring.free_oldest(self.commits.oldest_pending_file(), &mut self.counters.journal);
    }

    fn commit_entry(&mut self, entry: &CommitEntry, file_sequence: u32, durable: &mut Vec<Durable>) {
        let log = LogIndex(entry.slot);
        let retire_through = self.ring.retire_through();
        let State { slots, ring, writer, now, .. } = self;
        let partition = slots.get_mut(entry.slot as usize).and_then(Option::as_mut);
        let Some(partition) = partition.filter(|partition| partition.serial == entry.serial) else {
            // Dropped meanwhile, and its counts with it; but a checkpoint on its way was counted for its file.
            if entry.checkpoints > 0 {
                release_checkpoints(ring, file_sequence, entry.checkpoints);
            }
            return;
        };
        if entry.checkpoints > 0 {
            partition.checkpoints_pending -= entry.checkpoints;
            // The older one of two counts no longer.
            release_checkpoints(ring, file_sequence, entry.checkpoints - 1);
            if let Some(older) = partition.checkpoint_file.replace(file_sequence) {
                release_checkpoints(ring, older, 1);
            }
        }
        if entry.end_offset > partition.durable.offset {
            partition.durable = Mark { offset: entry.end_offset, place: entry.end };
            // Of what went to the segments first, nothing is left to be written.
            if entry.checkpoints == 0 || partition.synced() < entry.end {
                writer.on_durable(log, partition, retire_through, now.mono);
            }
        }
        if entry.bytes > 0 {
            durable.push(Durable { log, end_offset: entry.end_offset, bytes: entry.bytes });
        }
    }
}

fn release_checkpoints<D: Disk>(ring: &mut Ring<D>, file_sequence: u32, count: u32) {
    if let Some(file) = ring.live_mut(file_sequence) {
        file.checkpoints -= count as usize;
    }
}

fn record_header<D: Disk>(
    kind: Kind,
    partition: &PartitionLog<D>,
    offset: Offset,
    payload_bytes: usize,
) -> RecordHeader {
    RecordHeader {
        sequence: 0,
        partition: partition.id,
        offset,
        payload_bytes: payload_bytes as u32,
        file_sequence: 0,
        generation: partition.generation,
        undurable: 0,
        kind,
    }
}

/// Adds to the open commit what it will mean for `partition`: one entry for each, however many records.
fn note_commit<D: Disk>(
    commits: &mut Commits<D>,
    partition: &mut PartitionLog<D>,
    log: LogIndex,
    written: &Written,
    bytes: u64,
    checkpoint: bool,
) {
    let Mark { offset: end_offset, place: end } = partition.promised;
    let is_same = partition.commit_id == written.commit_id;
    if is_same && let Some(entry) = commits.open_entry(written.commit_id, partition.commit_entry) {
        entry.end_offset = end_offset;
        entry.end = end;
        entry.bytes += bytes;
        entry.checkpoints += u32::from(checkpoint);
        return;
    }
    partition.commit_id = written.commit_id;
    partition.commit_entry = commits.push_entry(CommitEntry {
        slot: log.0,
        serial: partition.serial,
        end_offset,
        end,
        bytes,
        checkpoints: u32::from(checkpoint),
    });
}

impl<D: Disk> CoreLog<D> {
    /// Appends one batch, which was checked, at `base_offset`. It becomes readable at once and durable with a later completion.
    ///
    /// Copies the batch twice (journal, tail), or, if it is large, once (tail), and submits nothing. `base_offset` is the log's end.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was kept then.
    pub fn append(
        &self,
        log: LogIndex,
        header: &BatchHeader,
        batch: &[u8],
        base_offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), Refused> {
        let mut state = self.0.state.borrow_mut();
        let outcome = state.append(log, header, batch, base_offset, leader_epoch);
        match outcome {
            Err(Refused::Backlog) => state.counters.journal.refused_backlog += 1,
            Err(Refused::DiskFull) => state.counters.journal.refused_disk_full += 1,
            _ => {}
        }
        outcome
    }

    /// Ends a turn: seals and submits what was appended, and starts whatever else can go. `producers` is what the shard wants back of a
    /// partition after a crash, as of now, which is that end offset; it is asked for where large batches were appended.
    ///
    /// # Errors
    /// A [`Fatal`] that anything since the last turn has met; the core must stop.
    pub fn end_of_turn(&self, now: Now, producers: impl FnMut(LogIndex, Offset) -> Vec<u8>) -> Result<(), Fatal> {
        let mut state = self.0.state.borrow_mut();
        state.now = now;
        state.close_stretches(producers);
        state.retry_stalled();
        let State { commits, disk, .. } = &mut *state;
        commits.submit(disk, now.mono, true);
        self.keep_up(&mut state);
        match &state.failed {
            Some(fatal) => Err(fatal.clone()),
            None => Ok(()),
        }
    }

    /// When `end_of_turn` has a commit to submit that nothing else will remind of.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.0.state.borrow().commits.next_deadline()
    }

    /// Takes the completion of a hot write. What became durable by it is added to `durable`.
    ///
    /// # Errors
    /// The write failed: nothing of it is acknowledged, and the core must stop (D5).
    pub fn on_completion(&self, completion: DiskCompletion, now: Now, durable: &mut Vec<Durable>) -> Result<(), Fatal> {
        let mut state = self.0.state.borrow_mut();
        state.now = now;
        if let Some(fatal) = &state.failed {
            return Err(fatal.clone());
        }
        if completion.token.0 & COMMIT_TOKEN != 0 {
            if let Err(error) = &completion.result {
                let fatal = Fatal::new("commit to the journal in", state.ring.dir(), error);
                state.failed = Some(fatal.clone());
                return Err(fatal);
            }
            let State { commits, counters, .. } = &mut *state;
            if commits.complete(completion.token, now.mono, counters) {
                state.complete_commits(durable);
                // What is full goes at once; what still gathers goes at the end of the turn.
                let State { commits, disk, .. } = &mut *state;
                commits.submit(disk, now.mono, false);
            }
        } else {
            state.complete_piece(completion)?;
        }
        drop(state);
        self.0.signal.notify();
        Ok(())
    }

    /// Bytes that the files of the journal take on disk.
    pub fn journal_bytes_on_disk(&self) -> u64 {
        self.0.state.borrow().ring.bytes_on_disk()
    }

    /// Log start offset and end offset; the end counts what is not durable yet. `None` where the partition was dropped.
    pub fn offsets(&self, log: LogIndex) -> Option<(Offset, Offset)> {
        let state = self.0.state.borrow();
        state.log(log).map(|partition| (partition.start_offset, partition.end_offset))
    }

    /// Adds the log's part to what its core has counted.
    pub fn count_into(&self, measures: &mut Measures) {
        let counters = self.counters();
        measures.commit = counters.commit_times;
        let sum = &mut measures.counters;
        (sum.journal, sum.segments) = (counters.journal, counters.segments);
        let writer = &self.0.state.borrow().writer;
        sum.memory.tail_bytes_now = writer.tail_bytes as u64;
        sum.memory.tail_limit_bytes = writer.tail_bytes_max as u64;
        sum.memory.unwritten_bytes_now = writer.dirty_bytes;
    }

    /// What the log has done so far.
    pub fn counters(&self) -> Counters {
        let state = self.0.state.borrow();
        let mut counters = state.counters;
        (counters.segments.writes, counters.segments.write_bytes) = (state.writer.pieces, state.writer.piece_bytes);
        counters
    }
}
