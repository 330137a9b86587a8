//! Deletes whole segments from the front: by age, by size, and below the log start offset. Kafka's rules (`LogSegment`s of `UnifiedLog.deleteOldSegments`).

use super::core::{CoreLog, State};
use super::error::{LogError, Refused};
use super::journal::format::Kind;
use super::partition::Mode;
use super::segment::Segment;
use super::settings::PartitionSettings;
use super::{LogIndex, deletion};
use crate::base::ids::Offset;
use crate::base::time::TimestampMs;
use crate::ports::Disk;
use std::path::PathBuf;

/// The start of a partition is being moved: it is neither dropped nor given away before this is dropped.
struct Trim<D: Disk> {
    core: CoreLog<D>,
    log: LogIndex,
    serial: u64,
}

impl<D: Disk> Drop for Trim<D> {
    fn drop(&mut self) {
        if let Some(partition) = self.core.0.state.borrow_mut().log_of(self.log, self.serial) {
            partition.trimming -= 1;
        }
        self.core.0.signal.notify();
    }
}

impl<D: Disk> CoreLog<D> {
    /// `None` where the partition is gone, or closed to be cut, dropped or given away.
    fn begin_trim(&self, log: LogIndex) -> Option<Trim<D>> {
        let mut state = self.0.state.borrow_mut();
        let partition = state.log_mut(log).filter(|partition| partition.mode == Mode::Open)?;
        partition.trimming += 1;
        Some(Trim { core: self.clone(), log, serial: partition.serial })
    }

    /// Moves the log start offset up to `offset` (DeleteRecords, or a follower whose leader did). Durable when this returns; whole segments
    /// below it go with the next `apply_retention`. Does nothing where the log starts there or later.
    ///
    /// # Errors
    /// `OutOfRange` beyond the end; `Busy` where the partition is dropped or given away; the core has failed.
    pub async fn set_start_offset(&self, log: LogIndex, offset: Offset) -> Result<(), LogError> {
        let trim = self.begin_trim(log).ok_or(LogError::Refused(Refused::Busy))?;
        self.move_start(&trim, offset).await
    }

    async fn move_start(&self, trim: &Trim<D>, offset: Offset) -> Result<(), LogError> {
        let &Trim { log, serial, .. } = trim;
        let (start, end) = {
            let mut state = self.0.state.borrow_mut();
            let partition = state.log_of(log, serial).ok_or(LogError::Refused(Refused::Busy))?;
            (partition.start_offset, partition.end_offset)
        };
        if offset > end {
            return Err(LogError::OutOfRange { start, end });
        }
        if offset <= start {
            // Perhaps since a moment ago, by another request whose commit is still on its way.
            return self.until_durable().await;
        }
        self.when_possible(|state| {
            let partition = state.log_of(log, serial).ok_or(Refused::Busy)?;
            if offset > partition.promised.offset {
                // Large batches before it are on their way to the segments: the journal must not name what a crash may take.
                return Err(Refused::Backlog);
            }
            state.append_control(log, Kind::StartOffset, offset, &[])?;
            if let Some(partition) = state.log_mut(log) {
                partition.start_offset = partition.start_offset.max(offset);
            }
            Ok(())
        })
        .await?;
        self.until_durable().await
    }

    /// Closes the active segment, so that what follows lies in another and all before it can be deleted. Does nothing where
    /// that one is empty, or records are being cut off.
    pub fn roll(&self, log: LogIndex) {
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, .. } = &mut *state;
        let partition = slots.get_mut(log.0 as usize).and_then(Option::as_mut);
        if let Some(partition) =
            partition.filter(|partition| partition.mode == Mode::Open && partition.active().bytes > 0)
        {
            partition.roll(partition.end_offset);
            writer.enqueue(log, partition);
        }
    }

    /// Puts other settings in force: at once for the next append and retention.
    pub fn set_settings(&self, log: LogIndex, settings: PartitionSettings) {
        if let Some(partition) = self.0.state.borrow_mut().log_mut(log) {
            partition.settings = settings;
        }
    }

    /// Deletes segments that the partition's settings no longer keep, none of them with records at or beyond `limit_offset` (the
    /// high watermark). Returns how many. Where even the active segment has expired it is closed, and goes the next time.
    ///
    /// # Errors
    /// The core has failed; the disk does not answer; a segment whose newest record is not known is damaged.
    pub async fn apply_retention(
        &self,
        log: LogIndex,
        now_ms: TimestampMs,
        limit_offset: Offset,
    ) -> Result<usize, LogError> {
        let mut deleted = 0;
        let Some(trim) = self.begin_trim(log) else { return Ok(deleted) };
        loop {
            self.load_oldest(log).await?;
            let Some(start) = self.after_expired(log, now_ms, limit_offset) else { return Ok(deleted) };
            self.move_start(&trim, start).await?;
            let (dir, mark, delay_ms, files) = self.take_oldest(log);
            if files.is_empty() {
                return Ok(deleted);
            }
            for path in files {
                let renamed = deletion::rename_deleted(&self.0.disk, &path, mark).await?;
                renamed.into_iter().for_each(|path| self.delete_later(path, delay_ms));
            }
            self.0.disk.sync_dir(&dir).await.map_err(LogError::io("sync", &dir))?;
            deleted += 1;
            self.0.state.borrow_mut().counters.segments.deleted += 1;
        }
    }

    /// Learns the newest timestamp of the oldest segment, where retention by time will ask for it.
    async fn load_oldest(&self, log: LogIndex) -> Result<(), LogError> {
        let unknown = {
            let state = self.0.state.borrow();
            let Some(partition) = state.log(log) else { return Ok(()) };
            let oldest = partition.segments.front().expect("a partition has a segment");
            // One below the start goes whatever it holds, and after a crash that may be nothing.
            let is_kept = oldest.end_offset > partition.start_offset;
            let asked = is_kept && partition.settings.retention_ms.is_some() && oldest.max_timestamp.is_none();
            asked.then_some((partition.serial, oldest.base_offset))
        };
        match unknown {
            Some((serial, base)) => self.load_segment(log, serial, base).await,
            None => Ok(()),
        }
    }

    /// Where the log starts once its oldest segment is gone; `None` if that one stays.
    fn after_expired(&self, log: LogIndex, now_ms: TimestampMs, limit_offset: Offset) -> Option<Offset> {
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, .. } = &mut *state;
        // Somebody waits to drop it or to give it away.
        let partition = slots.get_mut(log.0 as usize)?.as_mut().filter(|partition| partition.mode == Mode::Open)?;
        let settings = partition.settings;
        let total: u64 = partition.segments.iter().map(Segment::data_bytes).sum();
        let oldest = partition.segments.front().expect("a partition has a segment");
        let is_old = match (settings.retention_ms, oldest.max_timestamp) {
            (Some(retention_ms), Some(newest)) => newest >= 0 && now_ms - newest > retention_ms as i64,
            _ => false,
        };
        let is_surplus = settings.retention_bytes.is_some_and(|kept| total.saturating_sub(oldest.data_bytes()) >= kept);
        let is_below = oldest.end_offset <= partition.start_offset;
        let may_go = (oldest.sealed || oldest.data_bytes() > 0) && oldest.end_offset <= limit_offset;
        if !may_go || !(is_old || is_surplus || is_below) {
            return None;
        }
        if !oldest.sealed {
            // Kafka rolls the active segment where it is too old, or wholly below the start; for its size alone it stays.
            if is_old || is_below {
                partition.roll(partition.end_offset);
                writer.enqueue(log, partition);
            }
            return None;
        }
        let next = partition.segments.get(1).map(|next| next.base_offset)?;
        let is_quiet = oldest.synced == oldest.bytes && oldest.is_quiet() && !oldest.is_open();
        is_quiet.then_some(next)
    }

    /// Takes the oldest segment out of the partition. Returns the directory, the partition's serial, how long the
    /// segment's files are to stay, and those.
    fn take_oldest(&self, log: LogIndex) -> (PathBuf, u64, u64, Vec<PathBuf>) {
        let mut state = self.0.state.borrow_mut();
        let Some(partition) = state.log_mut(log) else { return Default::default() };
        let dir = partition.dir.clone();
        let (start, serial, delay_ms) = (partition.start_offset, partition.serial, partition.settings.delete_delay_ms);
        let is_gone = |segment: &Segment<D>| segment.sealed && segment.end_offset <= start && segment.is_quiet();
        if partition.segments.len() < 2 || !partition.segments.front().is_some_and(is_gone) {
            return Default::default();
        }
        let segment = partition.segments.pop_front().expect("two or more");
        partition.forget_hints();
        partition.epochs_after(start);
        state.writer.forget(&segment);
        let files = deletion::segment_files(&dir, segment.base_offset).to_vec();
        (dir, serial, delay_ms, files)
    }
}
