//! What the shard asks of a log besides appends and reads: whether it would take a batch, where it starts, when it has moved on.

use super::LogIndex;
use super::core::{CoreLog, State};
use super::error::Refused;
use super::partition::Mode;
use crate::base::ids::Offset;
use crate::ports::Disk;
use std::path::PathBuf;

impl<D: Disk> CoreLog<D> {
    /// Whether `append` would take a batch of this size now. Nothing may happen to the log between the two.
    ///
    /// # Errors
    /// As `append`.
    pub fn admit(&self, log: LogIndex, batch_bytes: usize) -> Result<(), Refused> {
        let mut state = self.0.state.borrow_mut();
        let state = &mut *state;
        if state.failed.is_some() {
            return Err(Refused::Failed);
        }
        if state.log(log).is_none_or(|partition| partition.mode != Mode::Open) {
            return Err(Refused::Busy);
        }
        state.writer.admit()?;
        let outcome = match state.is_placed(log, batch_bytes) {
            true => state.placements.admit(&state.writer),
            false => state.commits.reserve(&state.disk, &mut state.ring, batch_bytes, false),
        };
        match outcome {
            Err(Refused::Backlog) => state.counters.journal.refused_backlog += 1,
            Err(Refused::DiskFull) => state.counters.journal.refused_disk_full += 1,
            _ => {}
        }
        outcome.map(drop)
    }

    /// Whether `admit` would put a batch of this size off because the disk is behind. Asked before a batch is checked, since those that were
    /// put off are taken up again each turn.
    pub fn is_behind(&self, log: LogIndex, batch_bytes: usize) -> bool {
        let mut state = self.0.state.borrow_mut();
        let is_behind = state.writer.admit() == Err(Refused::Backlog)
            || match state.is_placed(log, batch_bytes) {
                true => state.placements.admit(&state.writer) == Err(Refused::Backlog),
                false => state.commits.is_behind(&state.ring, batch_bytes),
            };
        state.counters.journal.refused_backlog += u64::from(is_behind);
        is_behind
    }

    /// The first offset that can be read; 0 for a partition that is gone.
    pub fn start_offset(&self, log: LogIndex) -> Offset {
        self.0.state.borrow().log(log).map_or(0, |partition| partition.start_offset)
    }

    /// Bytes of all batches that the partition holds, wherever they are; 0 for a partition that is gone.
    pub fn partition_bytes(&self, log: LogIndex) -> u64 {
        let state = self.0.state.borrow();
        state.log(log).map_or(0, |partition| partition.segments.iter().map(|segment| segment.data_bytes()).sum())
    }

    /// Where the partition's segments are; `None` for a partition that is gone.
    pub fn partition_dir(&self, log: LogIndex) -> Option<PathBuf> {
        self.0.state.borrow().log(log).map(|partition| partition.dir.clone())
    }

    /// Makes those who wait with `until` ask again.
    pub fn notify(&self) {
        self.0.signal.notify();
    }

    /// Waits until `ready` is true; asks again whenever a write has completed, and after `notify`.
    pub async fn until(&self, ready: impl FnMut() -> bool) {
        self.0.signal.until(ready).await;
    }
}

impl<D: Disk> State<D> {
    /// Whether a batch of this size would go to the partition's segments first.
    fn is_placed(&self, log: LogIndex, batch_bytes: usize) -> bool {
        let State { placements, commits, writer, .. } = self;
        self.log(log).is_some_and(|partition| placements.takes(partition, batch_bytes, commits, writer))
    }
}
