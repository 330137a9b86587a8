//! Begins the broker's own logs anew when they have grown: the state that they keep is appended as records, then the log starts
//! where the first of these stands, and the segments before it are deleted. Kafka compacts `__consumer_offsets` and snapshots
//! `__cluster_metadata`; here the state of both is in memory, so that nothing has to be read.
//!
//! One log of the core at a time, one slice a turn. Whatever a crash leaves of it, replay in the order of the log comes to the same state:
//! of groups the last record of a key wins; of the metadata a snapshot counts only whole (`cluster::snapshot`).

use super::Shard;
use super::apply::is_metadata;
use crate::base::ids::{Offset, PartitionId};
use crate::base::record::BatchBuilder;
use crate::base::time::Now;
use crate::cluster;
use crate::group::{self, Groups, SliceLimit};
use crate::log::{LogError, LogIndex, Refused};
use crate::ports::Disk;
use std::collections::VecDeque;

/// A log is left alone until it has grown by so many times what its state takes, so that writing snapshots is little beside the rest.
const GROWTH_PER_SNAPSHOT: u64 = 4;
/// What one turn appends: encoding and checking it takes a fraction of a millisecond.
const SLICE: SliceLimit = SliceLimit { bytes: 64 << 10, keys: 512 };

/// How much of a log is not its state.
#[derive(Debug)]
pub(super) struct Growth {
    id: PartitionId,
    /// Appended since the last snapshot began; the snapshot itself does not count once it is done.
    bytes: u64,
    /// What the state took when it was last written or read.
    snapshot_bytes: u64,
    /// Among those that are due.
    queued: bool,
}

impl Growth {
    fn is_due(&self, growth_bytes_min: u64) -> bool {
        self.bytes > growth_bytes_min.max(GROWTH_PER_SNAPSHOT.saturating_mul(self.snapshot_bytes))
    }
}

/// The snapshots of one core.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Slots of partitions that have grown enough. One may have got another partition meanwhile.
    due: VecDeque<u32>,
    job: Option<Job>,
}

/// The snapshot in progress.
struct Job {
    id: PartitionId,
    slot: u32,
    log: LogIndex,
    /// Where the log will start.
    start: Offset,
    /// Appended so far.
    bytes: u64,
    stage: Stage,
}

enum Stage {
    /// Metadata: the change in progress is on its way to the cores; the next ones wait until the snapshot is written.
    Holding,
    /// Groups: appends before `start` are on their way, and their values not in the state yet.
    Settling,
    Writing(Cursor),
    /// All is appended, up to this offset, and not yet durable.
    Syncing(Offset),
    /// A background task moves the start.
    Moving,
}

enum Cursor {
    Groups(Option<group::SnapshotCursor>),
    Image(Option<cluster::snapshot::SnapshotCursor>),
}

/// What a step of a snapshot came to.
enum Step {
    Next(Stage),
    /// Something must happen first, or the turn has had its share.
    Wait(Stage),
    /// The log goes on as it is, until it has grown as much again.
    GiveUp(&'static str),
}

impl<D: Disk> Shard<D> {
    /// The log's state is in memory from here on: `log_bytes` were read, of which the state would take `state_bytes`.
    pub(super) fn watch_growth(&mut self, id: PartitionId, log_bytes: u64, state_bytes: u64) {
        let Some(slot) = self.slot(id) else { return };
        let bytes = log_bytes.saturating_sub(state_bytes);
        self.partitions[slot as usize].growth =
            Some(Growth { id, bytes: 0, snapshot_bytes: state_bytes, queued: false });
        self.note_growth(slot, bytes);
    }

    /// Bytes were appended to a partition.
    pub(super) fn note_growth(&mut self, slot: u32, bytes: u64) {
        let Some(growth) = &mut self.partitions[slot as usize].growth else { return };
        growth.bytes += bytes;
        if !growth.queued && growth.is_due(self.settings.own_log_growth_bytes) {
            growth.queued = true;
            self.snapshots.due.push_back(slot);
        }
    }

    /// Does one turn's share of the snapshot in progress, or begins one that is due.
    pub(super) fn write_snapshots(&mut self, now: Now) {
        let Some(mut job) = self.snapshots.job.take().or_else(|| self.begin_snapshot()) else { return };
        if self.slot(job.id) != Some(job.slot) {
            return;
        }
        loop {
            match self.snapshot_step(&mut job, now) {
                Step::Next(stage) => job.stage = stage,
                Step::Wait(stage) => {
                    job.stage = stage;
                    self.snapshots.job = Some(job);
                    return;
                }
                Step::GiveUp(why) => {
                    tracing::warn!(partition = %job.id, why, "the snapshot of this log is put off");
                    return self.release_control(now);
                }
            }
        }
    }

    fn begin_snapshot(&mut self) -> Option<Job> {
        if self.starting {
            return None;
        }
        while let Some(slot) = self.snapshots.due.pop_front() {
            let partition = &mut self.partitions[slot as usize];
            let Some(growth) = partition.growth.as_mut().filter(|growth| growth.queued) else { continue };
            growth.queued = false;
            if !growth.is_due(self.settings.own_log_growth_bytes) {
                continue;
            }
            growth.bytes = 0;
            let mut job = Job { id: growth.id, slot, log: partition.log, start: 0, bytes: 0, stage: Stage::Settling };
            if is_metadata(job.id) {
                self.controlling.hold();
                job.stage = Stage::Holding;
            } else {
                self.set_snapshot_start(&mut job);
            }
            return Some(job);
        }
        None
    }

    /// The log will start where it ends now. In a segment of its own, so that all before it can be deleted.
    fn set_snapshot_start(&self, job: &mut Job) {
        job.start = self.partitions[job.slot as usize].watermark.log_end();
        self.log.roll(job.log);
    }

    fn snapshot_step(&mut self, job: &mut Job, now: Now) -> Step {
        let watermark = &self.partitions[job.slot as usize].watermark;
        match std::mem::replace(&mut job.stage, Stage::Moving) {
            Stage::Holding if self.controlling.is_quiet() => {
                self.set_snapshot_start(job);
                Step::Next(Stage::Writing(Cursor::Image(None)))
            }
            Stage::Settling if watermark.high_watermark() >= job.start && !self.own.has_durable() => {
                Step::Next(Stage::Writing(Cursor::Groups(None)))
            }
            // A batch of ours that waits may yet be refused, and what it was to change would be missing.
            Stage::Writing(cursor) if self.own.is_waiting() => Step::Wait(Stage::Writing(cursor)),
            Stage::Writing(cursor) => self.write_slice(job, cursor, now),
            Stage::Syncing(end) if watermark.durable_end() >= end => {
                self.move_own_start(job);
                Step::Wait(Stage::Moving)
            }
            waiting => Step::Wait(waiting),
        }
    }

    fn write_slice(&mut self, job: &mut Job, cursor: Cursor, now: Now) -> Step {
        let mut builder = BatchBuilder::new(now.wall_ms);
        let next = match &cursor {
            Cursor::Groups(from) => {
                let Some(slice) = self.coordinating.groups.snapshot(job.id.index, from.as_ref(), SLICE) else {
                    return Step::GiveUp("its groups are not here any more");
                };
                for record in &slice.records {
                    builder.push(now.wall_ms, Some(&record.key), record.value.as_deref());
                }
                slice.next.map(|next| Cursor::Groups(Some(next)))
            }
            Cursor::Image(from) => {
                let slice = self.image.snapshot_slice(*from, SLICE.bytes);
                for record in &slice.records {
                    builder.push(now.wall_ms, Some(&record.key), Some(&record.value));
                }
                slice.next.map(|next| Cursor::Image(Some(next)))
            }
        };
        // Groups of which nothing is left, or all of it is on its way anyhow, have a slice without records.
        if !builder.is_empty() {
            let batch = builder.finish();
            match self.log.admit(job.log, batch.len()) {
                Ok(()) => {}
                // The cursor stays, and the slice is taken anew: its values may be others by then.
                Err(Refused::Backlog) => return Step::Wait(Stage::Writing(cursor)),
                Err(_) => return Step::GiveUp("the log does not take it now"),
            }
            self.place_own(job.slot, &batch, None);
            job.bytes += batch.len() as u64;
        }
        match next {
            Some(next) => Step::Wait(Stage::Writing(next)),
            None => {
                self.release_control(now);
                Step::Next(Stage::Syncing(self.partitions[job.slot as usize].watermark.log_end()))
            }
        }
    }

    fn move_own_start(&self, job: &Job) {
        let (me, logs) = (self.me.clone(), self.log.clone());
        let &Job { id, slot, log, start, bytes, .. } = job;
        self.disk.spawn(async move {
            // The partition may be gone since this task was made, and its place in the log another's.
            if me.upgrade().is_none_or(|shard| shard.borrow().slot(id) != Some(slot)) {
                return;
            }
            let moved = logs.set_start_offset(log, start).await;
            if let Some(shard) = me.upgrade() {
                shard.borrow_mut().end_snapshot(id, bytes, start, moved);
            }
            // What is not deleted now, because it is being read or written, goes with the next look of `apply_retention`.
            let limit = me.upgrade().and_then(|shard| {
                let shard = shard.borrow();
                let slot = shard.slot(id)?;
                Some(((shard.world.now)().wall_ms, shard.partitions[slot as usize].watermark.high_watermark()))
            });
            let Some((now_ms, limit)) = limit else { return };
            if let Err(error) = logs.apply_retention(log, now_ms, limit).await {
                tracing::error!(partition = %id, "segments before the log's start could not be deleted: {error}");
            }
        });
    }

    fn end_snapshot(&mut self, id: PartitionId, bytes: u64, start: Offset, moved: Result<(), LogError>) {
        self.snapshots.job = None;
        if let Err(error) = moved {
            tracing::error!(partition = %id, "the log could not be begun anew: {error}");
            return;
        }
        tracing::info!(partition = %id, start, bytes, "the log begins anew with a snapshot of its state");
        let Some(slot) = self.slot(id) else { return };
        if let Some(growth) = &mut self.partitions[slot as usize].growth {
            growth.bytes = growth.bytes.saturating_sub(bytes);
            growth.snapshot_bytes = bytes;
        }
    }
}

/// What a snapshot of a partition's groups would take.
pub(super) fn group_state_bytes(groups: &Groups, partition: i32) -> u64 {
    let mut bytes = 0;
    let mut from = None;
    while let Some(slice) = groups.snapshot(partition, from.as_ref(), SLICE) {
        bytes += slice.records.iter().map(|record| record.bytes() as u64).sum::<u64>();
        match slice.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    bytes
}
