//! Group commit: records gather in an arena, which is written with one durable write while the next one fills.
//!
//! A commit starts as soon as the one before is done; a second one only beside a small one, which hides the disk's latency without
//! halving its throughput (docs/performance.md). It waits for more records only where it is given a window to do so. Knows nothing of partitions but their
//! slots.

use super::format::{FIRST_COMMIT_AT, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RecordHeader, record_bytes};
use super::ring::Ring;
use crate::base::ids::Offset;
use crate::base::limits::{COMMIT_BYTES_MAX, DISK_BLOCK_BYTES};
use crate::base::time::Nanos;
use crate::log::counters::Counters;
use crate::log::error::Refused;
use crate::log::partition::Place;
use crate::ports::{Buffer, Disk, WriteToken};
use std::collections::VecDeque;

/// A second commit goes out beside one that is smaller than this.
const OVERLAP_BYTES_MAX: usize = 512 << 10;
const IN_FLIGHT_MAX: usize = 2;
/// Marks a write token as a commit's.
pub(crate) const COMMIT_TOKEN: u64 = 1 << 63;

/// What a commit means for one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitEntry {
    pub slot: u32,
    /// Tells the partition from a later one in the same slot.
    pub serial: u64,
    /// What its log holds once this is durable.
    pub end_offset: Offset,
    pub end: Place,
    /// Bytes of batches.
    pub bytes: u64,
    /// Checkpoints of the partition in this commit.
    pub checkpoints: u32,
}

struct Arena<D: Disk> {
    id: u64,
    buffer: D::Buffer,
    /// Bytes it may hold: its file may end before the buffer does.
    limit: usize,
    file: D::File,
    file_sequence: u32,
    position: u64,
    entries: Vec<CommitEntry>,
    last_sequence: u64,
    /// End of the turn that began it.
    begun: Option<Nanos>,
    submitted: Nanos,
    done: bool,
}

impl<D: Disk> Arena<D> {
    fn has_room(&self, bytes: usize) -> bool {
        self.limit - self.buffer.len() >= bytes
    }
}

/// A commit that has become durable, in order.
pub(crate) struct Committed {
    pub file_sequence: u32,
    pub entries: Vec<CommitEntry>,
}

/// Where a record was put.
pub(crate) struct Written {
    pub file_sequence: u32,
    pub commit_id: u64,
}

/// The open arena, those that wait, and those on their way.
pub(crate) struct Commits<D: Disk> {
    salt: u32,
    /// The open arena gathers records for this long, unless it is full.
    window_ns: u64,
    open: Option<Arena<D>>,
    sealed: VecDeque<Arena<D>>,
    sealed_bytes: usize,
    backlog_bytes_max: usize,
    in_flight: VecDeque<Arena<D>>,
    /// Where the next arena of the current file begins.
    position: u64,
    next_id: u64,
    next_sequence: u64,
    /// Every record before this one is durable.
    durable_sequence: u64,
    /// Entry lists for reuse.
    spare: Vec<Vec<CommitEntry>>,
}

impl<D: Disk> Commits<D> {
    pub fn new(salt: u32, window_ns: u64, backlog_bytes_max: usize) -> Commits<D> {
        Commits {
            salt,
            window_ns,
            open: None,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            backlog_bytes_max,
            in_flight: VecDeque::new(),
            position: FIRST_COMMIT_AT,
            next_id: 0,
            next_sequence: 1,
            durable_sequence: 1,
            spare: Vec::new(),
        }
    }

    /// Sequence of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Every record before this one is durable.
    pub fn durable_sequence(&self) -> u64 {
        self.durable_sequence
    }

    /// Bytes that are on their way to the disk, or wait for it.
    pub fn waiting_bytes(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(|arena| arena.buffer.len()).sum();
        self.open.as_ref().map_or(0, |open| open.buffer.len()) + self.sealed_bytes + in_flight
    }

    /// Whether `reserve` puts a batch of this size off: the open commit has no room for it, and with that one as much would wait for the disk
    /// as may; or the ring has used what room it has for batches.
    pub fn is_behind(&self, ring: &Ring<D>, batch_bytes: usize) -> bool {
        if ring.is_beyond_limit() {
            return true;
        }
        let open_bytes = match &self.open {
            Some(open) if open.has_room(record_bytes(batch_bytes)) => return false,
            Some(open) => open.buffer.len().next_multiple_of(DISK_BLOCK_BYTES),
            None => 0,
        };
        self.sealed_bytes + open_bytes >= self.backlog_bytes_max
    }

    /// Makes room for a record of `payload_bytes`. `essential`: a record without a
    /// batch, which may go beyond the ring's limit: others wait for such records to free the ring.
    ///
    /// # Errors
    /// `TooLarge`, `Backlog` or `DiskFull`; nothing has changed for the caller then.
    pub fn reserve(
        &mut self,
        disk: &D,
        ring: &mut Ring<D>,
        payload_bytes: usize,
        essential: bool,
    ) -> Result<(), Refused> {
        let bytes = record_bytes(payload_bytes);
        if !essential && self.is_behind(ring, payload_bytes) {
            return Err(Refused::Backlog);
        }
        if self.open.as_ref().is_some_and(|open| open.has_room(bytes)) {
            return Ok(());
        }
        let blocks = bytes.next_multiple_of(DISK_BLOCK_BYTES);
        if FIRST_COMMIT_AT + blocks as u64 > ring.file_bytes() {
            return Err(Refused::TooLarge);
        }
        self.seal();
        let is_full = self.position + blocks as u64 > ring.file_bytes();
        if is_full {
            ring.next_file(essential)?;
        }
        if is_full || ring.leave_unwritten() {
            self.position = FIRST_COMMIT_AT;
        }
        let room = (ring.file_bytes() - self.position) as usize;
        let limit = blocks.max(COMMIT_BYTES_MAX).min(room);
        let buffer = disk.buffer(limit);
        let current = ring.current();
        self.open = Some(Arena {
            id: self.next_id,
            limit: limit.min(buffer.capacity()),
            buffer,
            file: current.file.clone(),
            file_sequence: current.sequence,
            position: self.position,
            entries: self.spare.pop().unwrap_or_default(),
            last_sequence: 0,
            begun: None,
            submitted: Nanos::default(),
            done: false,
        });
        self.next_id += 1;
        Ok(())
    }

    /// Writes a record whose payload is `parts`, after `reserve` made room. Sequence, file and durability are filled in here.
    pub fn push(&mut self, mut header: RecordHeader, prefix: &[u8], parts: [&[u8]; 2]) -> Written {
        let open = self.open.as_mut().expect("room was reserved");
        header.sequence = self.next_sequence;
        header.file_sequence = open.file_sequence;
        header.undurable = u32::try_from(self.next_sequence + 1 - self.durable_sequence).unwrap_or(u32::MAX);
        self.next_sequence += 1;
        let start = open.buffer.len();
        open.buffer.append(&header.encode(self.salt, prefix));
        for part in parts {
            open.buffer.append(part);
        }
        let payload_end = start + RECORD_HEADER_BYTES + header.payload_bytes as usize;
        assert_eq!(open.buffer.len(), payload_end, "the header states the payload's size");
        let padding = payload_end.next_multiple_of(RECORD_ALIGN_BYTES) - payload_end;
        open.buffer.append(&[0; RECORD_ALIGN_BYTES][..padding]);
        open.last_sequence = header.sequence;
        Written { file_sequence: open.file_sequence, commit_id: open.id }
    }

    /// The entry at `index` of the commit `id`, while that one still gathers records.
    pub fn open_entry(&mut self, id: u64, index: u32) -> Option<&mut CommitEntry> {
        self.open.as_mut().filter(|open| open.id == id)?.entries.get_mut(index as usize)
    }

    /// Adds an entry to the open commit; returns its index.
    pub fn push_entry(&mut self, entry: CommitEntry) -> u32 {
        let entries = &mut self.open.as_mut().expect("a record was pushed").entries;
        entries.push(entry);
        (entries.len() - 1) as u32
    }

    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.buffer.is_empty() {
            // Reserved and never used: its place is free again, since it is the last one.
            self.spare.push(open.entries);
            return;
        }
        open.buffer.pad_to_block();
        self.position = open.position + open.buffer.len() as u64;
        self.sealed_bytes += open.buffer.len();
        self.sealed.push_back(open);
    }

    fn may_submit(&self) -> bool {
        match self.in_flight.front() {
            None => true,
            Some(first) => self.in_flight.len() < IN_FLIGHT_MAX && first.buffer.len() < OVERLAP_BYTES_MAX,
        }
    }

    /// When the open arena's window ends; `None` where it is empty.
    fn window_end(&mut self, now: Nanos) -> Option<Nanos> {
        let open = self.open.as_mut().filter(|open| !open.buffer.is_empty())?;
        Some(open.begun.get_or_insert(now).plus_ns(self.window_ns))
    }

    /// When the end of a turn would submit the open arena, where that waits for its window alone.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let begun = self.open.as_ref().filter(|_| self.may_submit())?.begun?;
        Some(begun.plus_ns(self.window_ns))
    }

    /// Submits what may go now: full arenas first, then, at the `end_of_turn`, the open one if it has gathered long enough.
    pub fn submit(&mut self, disk: &D, now: Nanos, end_of_turn: bool) {
        let may_seal = end_of_turn && self.window_end(now).is_some_and(|end| end <= now);
        while self.may_submit() {
            if self.sealed.is_empty() && may_seal {
                self.seal();
            }
            let Some(mut arena) = self.sealed.pop_front() else { return };
            self.sealed_bytes -= arena.buffer.len();
            arena.submitted = now;
            let token = WriteToken(COMMIT_TOKEN | arena.id);
            disk.submit_write(&arena.file, arena.position, &arena.buffer, 0..arena.buffer.len(), true, token);
            self.in_flight.push_back(arena);
        }
    }

    /// Takes a completed write. Returns false where the token is not of a commit in flight.
    pub fn complete(&mut self, token: WriteToken, now: Nanos, counters: &mut Counters) -> bool {
        let id = token.0 & !COMMIT_TOKEN;
        let Some(arena) = self.in_flight.iter_mut().find(|arena| arena.id == id) else { return false };
        arena.done = true;
        let took = now.since(arena.submitted);
        counters.commit_times.record(took);
        let counters = &mut counters.journal;
        counters.commits += 1;
        counters.commit_bytes += arena.buffer.len() as u64;
        counters.commit_ns += took;
        counters.commit_us_max = counters.commit_us_max.max(took / 1000);
        true
    }

    /// The next commit that is durable together with all before it. Give its list back with `recycle`.
    pub fn next_committed(&mut self) -> Option<Committed> {
        if !self.in_flight.front()?.done {
            return None;
        }
        let arena = self.in_flight.pop_front()?;
        self.durable_sequence = arena.last_sequence + 1;
        Some(Committed { file_sequence: arena.file_sequence, entries: arena.entries })
    }

    /// The oldest journal file with a write that is not complete.
    pub fn oldest_pending_file(&self) -> Option<u32> {
        self.in_flight.front().or(self.sealed.front()).or(self.open.as_ref()).map(|arena| arena.file_sequence)
    }

    /// How far the current file is filled.
    pub fn position(&self) -> u64 {
        self.open.as_ref().map_or(self.position, |open| open.position + open.buffer.len() as u64)
    }

    pub fn recycle(&mut self, mut entries: Vec<CommitEntry>) {
        entries.clear();
        self.spare.push(entries);
    }
}
