//! Moves durable bytes from tails into segments: whole chunks as they fill, less where journal files or memory must be freed.
//!
//! Only what the journal holds durably is written, so a segment never knows more than the journal, and never on the path of an acknowledgement;
//! but for large batches (`placing`), whose acknowledgement waits for it. Large pieces are written without waiting for the device and synced
//! once for each journal file that waits for them; small ones carry their own sync. Where many partitions wait, none does: one sync of the
//! whole filesystem then serves hundreds of files, and the names of new ones with them.

use super::LogIndex;
use super::core::State;
use super::error::{Fatal, Refused, is_disk_full};
use super::journal::ring::Ring;
use super::partition::{Mode, PartitionLog};
use super::segment::format::FIRST_BATCH_AT;
use super::segment::{Piece, Segment, SegmentFile};
use super::settings::LogSettings;
use crate::base::ids::Offset;
use crate::base::limits::{DISK_BLOCK_BYTES, SEGMENT_PIECE_BYTES};
use crate::base::time::Nanos;
use crate::ports::{Buffer, Disk, DiskCompletion, WriteToken};
use std::collections::VecDeque;

/// Pieces of one partition on their way at once.
const PIECES_PER_SEGMENT_MAX: usize = 4;
/// Less than this is copied and padded to one write of its own; more goes straight from its chunk.
const COPY_BYTES_MAX: u64 = 64 << 10;
/// Busy segments' files are grown ahead, by as much as they hold, within these bounds: writes within a file need no new size and
/// leave it in one stretch, and thousands of short segments must not take a disk for themselves.
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
const ALLOCATE_BYTES_MAX: u64 = 64 << 20;

/// How long syncs are gathered while many partitions are written: each is a transaction of the filesystem, however many segments it serves.
const GATHER_SYNCS_MS: u64 = 100;
/// Files being made at once: the first of thousands are to be written while the last are made.
const CREATING_MAX: usize = 64;

/// A piece on its way, by the token of its write.
struct InFlight {
    token: u64,
    log: LogIndex,
    serial: u64,
    segment: Offset,
}

/// Work that the writer wants done in the background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chore {
    /// Make the segment's file.
    Create,
    /// Grow it ahead of its content.
    Allocate,
    /// Make what is written of it durable, its name included.
    Sync,
}

pub(crate) struct Errand {
    pub chore: Chore,
    pub log: LogIndex,
    pub serial: u64,
    pub segment: Offset,
}

/// A written chunk, which may be given up.
pub(crate) struct Evictable {
    pub log: LogIndex,
    pub serial: u64,
    pub segment: Offset,
    /// End of the chunk, or of the segment's bytes where the partition has fallen idle.
    pub end: u64,
}

/// Queues and sums; the positions themselves stand in the segments.
pub(crate) struct Writer<D: Disk> {
    queue: VecDeque<LogIndex>,
    in_flight: Vec<InFlight>,
    in_flight_max: usize,
    next_token: u64,
    /// To be taken by the background.
    pub errands: Vec<Errand>,
    /// Segments to be synced, alone or together.
    syncs: Vec<Errand>,
    /// See `LogSettings`.
    crowd: usize,
    /// A sync of many is on its way; the next one waits for it.
    pub syncing_together: bool,
    /// Since when `syncs` are gathered, while they are.
    gathering_since: Option<Nanos>,
    /// An acknowledgement waits for one of them.
    is_sync_urgent: bool,
    creating: usize,
    /// Partitions whose files are made when others have been. They count as queued.
    to_create: VecDeque<LogIndex>,
    /// Memory taken from the pool by all tails.
    pub tail_bytes: usize,
    pub tail_bytes_max: usize,
    /// Bytes of batches that are not in a segment's file.
    pub dirty_bytes: u64,
    /// Partitions with such bytes, in the order in which those became durable.
    dirty: VecDeque<(Nanos, LogIndex, u64)>,
    pub evictable: VecDeque<Evictable>,
    /// The last write of a segment found the disk full; nothing is written until `retry`.
    pub disk_full: bool,
    /// Segment writes so far, and their bytes.
    pub pieces: u64,
    pub piece_bytes: u64,
    marker: std::marker::PhantomData<D>,
}

/// One write, ready to be submitted.
struct Plan<B> {
    segment: Offset,
    /// Where the write begins: a block boundary at or before the bytes that are new.
    position: u64,
    /// Where the new bytes begin and end.
    start: u64,
    end: u64,
    buffer: B,
    from: usize,
    bytes: usize,
    durable: bool,
}

enum Step<B> {
    Write(Plan<B>),
    /// The segment has no file yet.
    Create(Offset),
    Nothing,
}

fn block_floor(position: u64) -> u64 {
    position - position % DISK_BLOCK_BYTES as u64
}

impl<D: Disk> Writer<D> {
    pub fn new(settings: &LogSettings) -> Writer<D> {
        Writer {
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            in_flight_max: settings.pieces_in_flight_max,
            next_token: 0,
            errands: Vec::new(),
            syncs: Vec::new(),
            crowd: settings.crowd,
            syncing_together: false,
            gathering_since: None,
            is_sync_urgent: false,
            creating: 0,
            to_create: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max: settings.tail_bytes,
            dirty_bytes: 0,
            dirty: VecDeque::new(),
            evictable: VecDeque::new(),
            disk_full: false,
            pieces: 0,
            piece_bytes: 0,
            marker: std::marker::PhantomData,
        }
    }

    /// Whether there is memory for another append.
    pub fn admit(&self) -> Result<(), Refused> {
        if self.dirty_bytes < self.tail_bytes_max as u64 / 2 {
            return Ok(());
        }
        Err(if self.disk_full { Refused::DiskFull } else { Refused::Backlog })
    }

    /// The tails hold more than they may, and eviction has not helped: what they hold is not written, or chunks that do not fill.
    pub fn is_crammed(&self) -> bool {
        self.tail_bytes > self.tail_bytes_max + self.tail_bytes_max / 8
    }

    /// A segment goes away with what it has in memory.
    pub fn forget(&mut self, segment: &Segment<D>) {
        self.tail_bytes -= segment.tail.memory_bytes();
        self.dirty_bytes -= segment.unwritten();
    }

    pub fn enqueue(&mut self, log: LogIndex, partition: &mut PartitionLog<D>) {
        if !partition.queued {
            partition.queued = true;
            self.queue.push_back(log);
        }
    }

    /// Partitions that wait to be written.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.to_create.len() + self.creating
    }

    /// So many wait that they are synced together.
    pub fn is_crowded(&self) -> bool {
        self.waiting() >= self.crowd
    }

    /// A file was made, or could not be: the next one's turn.
    pub fn created(&mut self, slots: &mut [Option<PartitionLog<D>>]) {
        self.creating -= 1;
        while let Some(log) = self.to_create.pop_front() {
            if let Some(partition) = slots.get_mut(log.0 as usize).and_then(Option::as_mut) {
                partition.queued = false;
                return self.enqueue(log, partition);
            }
        }
    }

    /// The syncs to make now: one by one, or all at once where `syncing_together` is true then. Many wait for those that come soon.
    pub fn due_syncs(&mut self, now: Nanos) -> Vec<Errand> {
        if self.syncing_together || self.syncs.is_empty() {
            return Vec::new();
        }
        let many = self.is_crowded() || self.syncs.len() >= self.crowd;
        let since = *self.gathering_since.get_or_insert(now);
        if many && !self.is_sync_urgent && now.since(since) < GATHER_SYNCS_MS * 1_000_000 {
            return Vec::new();
        }
        self.gathering_since = None;
        self.is_sync_urgent = false;
        self.syncing_together = self.syncs.len() >= self.crowd;
        std::mem::take(&mut self.syncs)
    }

    /// More of `partition` is durable in the journal.
    pub fn on_durable(
        &mut self,
        log: LogIndex,
        partition: &mut PartitionLog<D>,
        retire_through: Option<u32>,
        now: Nanos,
    ) {
        if partition.dirty_since.is_none() {
            partition.dirty_since = Some(now);
            self.dirty.push_back((now, log, partition.serial));
        }
        let active = partition.active();
        let place = partition.durable.place;
        // Behind a roll the older segment is to be finished, whatever its size.
        let waits = place.segment != active.base_offset
            || place.position.saturating_sub(active.submitted) >= SEGMENT_PIECE_BYTES as u64
            || (active.submitted == 0 && partition.segments.len() > 1);
        if waits || partition.is_forced(retire_through) {
            self.enqueue(log, partition);
        }
    }

    /// The partition that has waited longest for its segment, and since when, if before `before`. It may have been served meanwhile.
    pub fn oldest_dirty(&mut self, before: Nanos) -> Option<(Nanos, LogIndex, u64)> {
        if self.dirty.front()?.0 >= before {
            return None;
        }
        self.dirty.pop_front()
    }

    fn submit(&mut self, disk: &D, log: LogIndex, partition: &mut PartitionLog<D>, plan: Plan<D::Buffer>) {
        let token = self.next_token;
        self.next_token += 1;
        let serial = partition.serial;
        let segment = partition.segment_mut(plan.segment).expect("planned for this segment");
        let SegmentFile::Open(file) = &segment.file else { panic!("planned for an open file") };
        let range = plan.from..plan.from + plan.bytes;
        disk.submit_write(file, plan.position, &plan.buffer, range, plan.durable, WriteToken(token));
        segment.submitted = plan.end;
        let Plan { start, end, durable, .. } = plan;
        segment.pieces.push_back(Piece { token, start, end, durable, outcome: None });
        self.in_flight.push(InFlight { token, log, serial, segment: plan.segment });
        self.pieces += 1;
        self.piece_bytes += plan.bytes as u64;
    }

    /// Submits what the bounds allow.
    pub fn run(&mut self, disk: &D, slots: &mut [Option<PartitionLog<D>>], retire_through: Option<u32>) {
        if self.disk_full {
            return;
        }
        let mut rounds = self.queue.len();
        while self.in_flight.len() < self.in_flight_max && rounds > 0 {
            rounds -= 1;
            let Some(log) = self.queue.pop_front() else { return };
            let Some(partition) = slots.get_mut(log.0 as usize).and_then(Option::as_mut) else { continue };
            partition.queued = false;
            if partition.mode == Mode::Closed && !partition.placing.is_busy() {
                continue;
            }
            let forced = partition.is_forced(retire_through);
            let crowded = self.is_crowded();
            match next_step(disk, partition, forced, crowded) {
                Step::Write(plan) => {
                    self.allocate_ahead(log, partition, &plan);
                    self.submit(disk, log, partition, plan);
                    self.enqueue(log, partition);
                    rounds += 1;
                }
                Step::Create(_) if self.creating >= CREATING_MAX => {
                    partition.queued = true;
                    self.to_create.push_back(log);
                }
                Step::Create(segment) => {
                    self.creating += 1;
                    partition.segment_mut(segment).expect("it was just found").file = SegmentFile::Creating;
                    let serial = partition.serial;
                    self.errands.push(Errand { chore: Chore::Create, log, serial, segment });
                }
                // All is on its way; perhaps it only wants a sync.
                Step::Nothing => self.want_syncs(log, partition, retire_through),
            }
        }
    }

    /// Has the file of a busy segment grown.
    fn allocate_ahead(&mut self, log: LogIndex, partition: &mut PartitionLog<D>, plan: &Plan<D::Buffer>) {
        let serial = partition.serial;
        let bytes_max = partition.settings.segment_bytes + FIRST_BATCH_AT;
        let segment = partition.segment_mut(plan.segment).expect("planned for this segment");
        let is_busy = plan.bytes >= SEGMENT_PIECE_BYTES && !segment.sealed;
        let step = plan.end.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
        let target = block_floor(bytes_max.min(segment.allocated.max(plan.end) + step));
        let is_short = plan.end + step / 2 > segment.allocated && target > segment.allocated.max(plan.end);
        if is_busy && is_short && segment.allocating.is_none() {
            segment.allocating = Some(target);
            self.errands.push(Errand { chore: Chore::Allocate, log, serial, segment: plan.segment });
        }
    }

    /// Asks for a sync of what is written and not synced, where someone waits for it.
    pub fn want_syncs(&mut self, log: LogIndex, partition: &mut PartitionLog<D>, retire_through: Option<u32>) {
        let (closed, serial) = (partition.closed_before(), partition.serial);
        // Only when all that is to be written is: one sync for all of it.
        let (written, synced) = (partition.written(), partition.synced());
        let next_end = partition.placing.next_end();
        let targets = [partition.target(retire_through), next_end].into_iter().flatten();
        let target = targets.filter(|target| synced < *target && *target <= written).max();
        let is_urgent = next_end.is_some_and(|end| synced < end && end <= written);
        let from = partition.segments.partition_point(|segment| segment.base_offset < closed);
        for segment in partition.segments.range_mut(from..) {
            let finished = segment.sealed && segment.written == segment.bytes;
            let wanted = finished || target.is_some_and(|target| segment.base_offset <= target.segment);
            let lacks = segment.synced < segment.written || finished;
            if wanted && lacks && !segment.syncing && segment.is_open() && segment.allocating.is_none() {
                segment.syncing = true;
                self.is_sync_urgent |= is_urgent;
                self.syncs.push(Errand { chore: Chore::Sync, log, serial, segment: segment.base_offset });
            }
        }
    }
}

/// What to write next of `partition`. `forced`: also what does not fill a piece; `crowded`: it will be synced with others.
fn next_step<D: Disk>(disk: &D, partition: &mut PartitionLog<D>, forced: bool, crowded: bool) -> Step<D::Buffer> {
    let writable = partition.writable();
    let clean = partition.clean_before;
    let from = partition.segments.partition_point(|segment| segment.base_offset < clean);
    for segment in partition.segments.range_mut(from..) {
        if segment.base_offset > writable.segment {
            break;
        }
        let limit = if segment.base_offset == writable.segment { writable.position } else { segment.bytes };
        if segment.submitted >= limit {
            continue;
        }
        match &segment.file {
            SegmentFile::Absent => return Step::Create(segment.base_offset),
            SegmentFile::Creating => return Step::Nothing,
            SegmentFile::Closed => panic!("a closed segment has nothing to write"),
            SegmentFile::Open(_) => {}
        }
        let plan = plan_piece(disk, segment, limit, forced || segment.sealed, crowded);
        return plan.map_or(Step::Nothing, Step::Write);
    }
    Step::Nothing
}

/// The next write of `segment`, whose bytes may go up to `limit`.
fn plan_piece<D: Disk>(
    disk: &D,
    segment: &Segment<D>,
    limit: u64,
    forced: bool,
    crowded: bool,
) -> Option<Plan<D::Buffer>> {
    let start = segment.submitted;
    let position = block_floor(start);
    let is_partial = segment.pieces.back().is_some_and(|piece| !piece.end.is_multiple_of(DISK_BLOCK_BYTES as u64));
    if is_partial || segment.pieces.len() >= PIECES_PER_SEGMENT_MAX || segment.has_failed() {
        return None;
    }
    if !forced && limit - start < SEGMENT_PIECE_BYTES as u64 {
        return None;
    }
    let chunk = segment.tail.at(position).expect("what is not written is in the tail");
    if segment.allocating.is_some_and(|allocating| chunk.end() > allocating) {
        return None;
    }
    let chunk_end = chunk.end().min(limit);
    let aligned_end = block_floor(chunk_end);
    let is_whole = chunk.is_full() && chunk_end == chunk.end();
    let base = Plan {
        segment: segment.base_offset,
        position,
        start,
        end: aligned_end,
        buffer: chunk.buffer.clone(),
        from: (position - chunk.start) as usize,
        bytes: (aligned_end.saturating_sub(position)) as usize,
        durable: false,
    };
    // A short chunk goes together with those behind it.
    let is_short = aligned_end.saturating_sub(position) < COPY_BYTES_MAX;
    if !is_short || (is_whole && limit == chunk_end) {
        return Some(base);
    }
    let end = limit.min(position + COPY_BYTES_MAX);
    // Unless it must be, the last block is not written before it is full. It is rewritten as it fills, so nothing may be on its way beside it.
    let is_partial = !end.is_multiple_of(DISK_BLOCK_BYTES as u64);
    let bytes = (end - position).next_multiple_of(DISK_BLOCK_BYTES as u64) as usize;
    let is_beyond = segment.allocating.is_some_and(|allocating| position + bytes as u64 > allocating);
    if is_beyond || (is_partial && (!forced || !segment.pieces.is_empty())) {
        return None;
    }
    let buffer = disk.buffer(bytes);
    segment.tail.views(position, end, &mut |view| buffer.append(&view));
    buffer.pad_to_block();
    let durable = segment.synced >= start && segment.is_named && !crowded;
    Some(Plan { end, buffer, from: 0, bytes, durable, ..base })
}

impl<D: Disk> State<D> {
    /// Takes the completion of a piece.
    ///
    /// # Errors
    /// Any failure but a full disk, for which the bytes stay in memory and in the journal, is fatal.
    pub fn complete_piece(&mut self, completion: DiskCompletion) -> Result<(), Fatal> {
        let token = completion.token.0;
        let Some(at) = self.writer.in_flight.iter().position(|piece| piece.token == token) else { return Ok(()) };
        let InFlight { log, serial, segment, .. } = self.writer.in_flight.swap_remove(at);
        let full = match &completion.result {
            Ok(()) => false,
            Err(error) if is_disk_full(error) => true,
            Err(error) => {
                let path = self.log_of(log, serial).map(|partition| partition.dir.clone()).unwrap_or_default();
                let fatal = Fatal::new("write a segment in", &path, error);
                self.failed = Some(fatal.clone());
                return Err(fatal);
            }
        };
        self.writer.disk_full |= full;
        let State { slots, writer, .. } = self;
        let Some(partition) = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial) else {
            return Ok(());
        };
        let Some(segment) = partition.segment_mut(segment) else { return Ok(()) };
        let piece = segment.pieces.iter_mut().find(|piece| piece.token == token).expect("it was in flight");
        piece.outcome = Some(!full);
        let before = segment.written;
        segment.settle_pieces();
        let moved = segment.written.max(FIRST_BATCH_AT) - before.max(FIRST_BATCH_AT);
        writer.dirty_bytes -= moved;
        let (base, from, to) = (segment.base_offset, before, segment.written);
        segment.tail.full_chunks_ending(from, to, &mut |end| {
            writer.evictable.push_back(Evictable { log, serial, segment: base, end });
        });
        self.after_write(log, serial);
        Ok(())
    }

    /// Frees what waited for `partition` to reach its segments, and asks for what comes next.
    pub fn after_write(&mut self, log: LogIndex, serial: u64) {
        let retire_through = self.ring.retire_through();
        let State { slots, writer, ring, commits, counters, .. } = self;
        let Some(partition) = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial) else {
            return;
        };
        release_synced(partition, ring);
        if partition.is_written() {
            partition.dirty_since = None;
            let active = partition.active();
            let (segment, end) = (active.base_offset, active.written);
            writer.evictable.push_back(Evictable { log, serial, segment, end });
        }
        let synced = partition.synced();
        partition.flush_to = partition.flush_to.filter(|target| synced < *target);
        writer.want_syncs(log, partition, retire_through);
        if !partition.is_submitted() {
            writer.enqueue(log, partition);
        }
        ring.free_oldest(commits.oldest_pending_file(), &mut counters.journal);
        self.commit_stretches(log);
    }
}

/// Lets go of the journal files whose bytes of `partition` are durable in segments.
pub(crate) fn release_synced<D: Disk>(partition: &mut PartitionLog<D>, ring: &mut Ring<D>) {
    let synced = partition.synced();
    while let Some((sequence, end)) = partition.unflushed.front() {
        if *end > synced {
            return;
        }
        if let Some(file) = ring.live_mut(*sequence) {
            file.unflushed -= 1;
        }
        partition.unflushed.pop_front();
    }
}
