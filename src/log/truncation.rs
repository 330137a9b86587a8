//! Cuts records off the end of a partition, as a follower must where its leader has others (KIP-101).
//!
//! The journal knows it first, then the files are cut: whatever a crash leaves in between, recovery cuts again. Appends wait meanwhile.

use super::completion::cut_index;
use super::core::{CoreLog, State};
use super::cursor::SegmentName;
use super::dir;
use super::error::{Fatal, LogError, Refused};
use super::journal::format::Kind;
use super::partition::{Mark, Mode, PartitionLog, Place};
use super::segment::format::FIRST_BATCH_AT;
use super::segment::tail::ChunkSizes;
use super::segment::{Segment, SegmentFile};
use super::writer::release_synced;
use super::{LogIndex, deletion};
use crate::base::ids::Offset;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Disk, OpenMode};
use bytes::Bytes;
use std::path::PathBuf;

/// Where a partition is cut.
struct Cut {
    mark: Mark,
    /// The bytes of the last block before it, where they are no longer in memory.
    partial: Option<Bytes>,
}

impl<D: Disk> CoreLog<D> {
    /// Cuts off everything from `offset` on; a batch that holds it goes whole. Beyond the end, or before the start, the partition becomes
    /// empty and begins at `offset`. `producers` is the shard's blob for what is left, asked for with the end offset it will have.
    ///
    /// Returns the new end offset. Appends are refused (`Busy`) meanwhile.
    ///
    /// # Errors
    /// The core has failed, or does now because the disk does not answer. `Damaged` where the place of `offset` cannot be found; then all is
    /// as it was.
    pub async fn truncate(
        &self,
        log: LogIndex,
        offset: Offset,
        producers: impl FnOnce(Offset) -> Vec<u8>,
    ) -> Result<Offset, LogError> {
        let serial = self.quiesce(log).await?;
        let (start, end) = self.offsets(log).ok_or(LogError::Refused(Refused::Busy))?;
        if offset == end {
            self.reopen(log, serial);
            return Ok(end);
        }
        let starts_over = offset < start || offset > end;
        let removed = if starts_over {
            self.start_over(log, serial, offset)
        } else {
            let cut = self.find_cut(log, serial, offset).await;
            if cut.is_err() {
                // Nothing has changed yet.
                self.reopen(log, serial);
            }
            self.cut_memory(log, serial, cut?)
        };
        let (_, new_end) = self.offsets(log).ok_or(LogError::Refused(Refused::Busy))?;
        let blob = producers(new_end);
        self.when_possible(|state| state.checkpoint(log, Kind::Truncate, &blob)).await?;
        self.until_durable().await?;
        if let Err(error) = self.cut_files(log, serial, removed).await {
            // The journal says that the records are gone, the files may still have them.
            let fatal = Fatal { doing: "cut the segments of", path: log.0.to_string(), error: error.to_string() };
            self.0.state.borrow_mut().failed.get_or_insert(fatal);
            return Err(error);
        }
        self.reopen(log, serial);
        Ok(new_end)
    }

    /// Closes the partition to appends and waits until nothing of it is on its way. Returns its serial.
    pub(crate) async fn quiesce(&self, log: LogIndex) -> Result<u64, LogError> {
        let serial = {
            let mut state = self.0.state.borrow_mut();
            let partition = state.log_mut(log).ok_or(LogError::Refused(Refused::Busy))?;
            if partition.mode == Mode::Closed {
                return Err(LogError::Refused(Refused::Busy));
            }
            partition.mode = Mode::Closed;
            partition.serial
        };
        self.0
            .signal
            .until(|| {
                let mut state = self.0.state.borrow_mut();
                state.failed.is_some() || state.log_of(log, serial).is_none_or(|partition| partition.is_quiet())
            })
            .await;
        match &self.0.state.borrow().failed {
            Some(fatal) => Err(LogError::Fatal(fatal.clone())),
            None => Ok(serial),
        }
    }

    pub(crate) fn reopen(&self, log: LogIndex, serial: u64) {
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, .. } = &mut *state;
        let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
        if let Some(partition) = partition {
            partition.mode = Mode::Open;
            writer.enqueue(log, partition);
        }
    }

    /// The last batch boundary at or before `offset`, which is within the partition.
    async fn find_cut(&self, log: LogIndex, serial: u64, offset: Offset) -> Result<Cut, LogError> {
        let base = {
            let state = self.0.state.borrow();
            let partition = state.log(log).ok_or(LogError::Refused(Refused::Busy))?;
            let after = partition.segments.partition_point(|segment| segment.base_offset < offset);
            partition.segments[after.saturating_sub(1)].base_offset
        };
        self.load_segment(log, serial, base).await?;
        let (path, from, memory_start) = {
            let mut state = self.0.state.borrow_mut();
            let partition = state.log_of(log, serial).ok_or(LogError::Refused(Refused::Busy))?;
            let path = dir::segment_path(&partition.dir, base);
            let segment = partition.segment_mut(base).ok_or(LogError::Refused(Refused::Busy))?;
            let relative = (offset - base).max(0) as u32;
            let entry = segment.index.as_ref().and_then(|index| index.at_or_before_offset(relative));
            let from = entry.map_or((FIRST_BATCH_AT, base), |entry| {
                (u64::from(entry.position), base + Offset::from(entry.relative_offset))
            });
            (path, from, segment.memory_start())
        };
        let (position, end) = self.boundary_before(SegmentName { log, serial, base }, from, offset).await?;
        let block = position - position % DISK_BLOCK_BYTES as u64;
        let partial = if block < memory_start && position > block {
            let failed = |error| LogError::io("read", &path)(error);
            let file = self.0.disk.open(&path, OpenMode::ReadBuffered).await.map_err(failed)?;
            Some(self.0.disk.read(&file, block, (position - block) as usize).await.map_err(failed)?)
        } else {
            None
        };
        Ok(Cut { mark: Mark { offset: end, place: Place { segment: base, position } }, partial })
    }

    /// Cuts what is in memory. Returns the files that go.
    fn cut_memory(&self, log: LogIndex, serial: u64, cut: Cut) -> Vec<PathBuf> {
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, ring, disk, .. } = &mut *state;
        let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
        let Some(partition) = partition else { return Vec::new() };
        let mark = cut.mark;
        let mut removed = Vec::new();
        while partition.active().base_offset > mark.place.segment {
            let segment = partition.segments.pop_back().expect("a later segment");
            writer.forget(&segment);
            removed.extend(deletion::segment_files(&partition.dir, segment.base_offset));
        }
        if mark.place.position <= FIRST_BATCH_AT {
            let segment = partition.segments.pop_back().expect("the cut one");
            writer.forget(&segment);
            removed.extend(deletion::segment_files(&partition.dir, segment.base_offset));
            partition.segments.push_back(Segment::new(segment.base_offset));
        } else {
            let before = (partition.active().tail.memory_bytes(), partition.active().unwritten());
            cut_segment(disk, partition.active_mut(), mark, cut.partial);
            let after = (partition.active().tail.memory_bytes(), partition.active().unwritten());
            writer.tail_bytes = writer.tail_bytes + after.0 - before.0;
            writer.dirty_bytes = writer.dirty_bytes + after.1 - before.1;
        }
        partition.set_end(mark.offset);
        release_synced(partition, ring);
        removed
    }

    /// Makes the partition empty. Returns the files that go.
    fn start_over(&self, log: LogIndex, serial: u64, offset: Offset) -> Vec<PathBuf> {
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, ring, .. } = &mut *state;
        let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
        let Some(partition) = partition else { return Vec::new() };
        let mut removed = Vec::new();
        for segment in std::mem::take(&mut partition.segments) {
            writer.forget(&segment);
            removed.extend(deletion::segment_files(&partition.dir, segment.base_offset));
        }
        partition.adopt_segments([Segment::new(offset)].into());
        partition.start_offset = offset;
        partition.epochs.clear();
        partition.set_end(offset);
        release_synced(partition, ring);
        removed
    }

    async fn cut_files(&self, log: LogIndex, serial: u64, removed: Vec<PathBuf>) -> Result<(), LogError> {
        let disk = &self.0.disk;
        let (dir, dir_made, base, bytes) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(()) };
            let (dir, dir_made, active) = (partition.dir.clone(), partition.dir_made, partition.active());
            (dir, dir_made, active.base_offset, active.written)
        };
        for path in &removed {
            deletion::remove_if_there(disk, path).await?;
        }
        // What is kept may have a name that is not durable yet.
        if dir_made {
            disk.sync_dir(&dir).await.map_err(LogError::io("sync", &dir))?;
        }
        if bytes == 0 {
            return Ok(());
        }
        cut_index(disk, &dir, base, bytes).await?;
        let path = dir::segment_path(&dir, base);
        let failed = |error| LogError::io("cut", &path)(error);
        let file = disk.open(&path, OpenMode::Direct).await.map_err(failed)?;
        disk.set_file_bytes(&file, bytes).await.map_err(failed)?;
        disk.sync(&file).await.map_err(failed)?;
        let mut state = self.0.state.borrow_mut();
        if let Some(segment) = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base)) {
            segment.file = SegmentFile::Open(file);
            segment.is_named = true;
            segment.synced = bytes;
        }
        Ok(())
    }
}

/// Cuts `segment` at `mark`, which lies behind its first batch, and makes it the active one.
fn cut_segment<D: Disk>(disk: &D, segment: &mut Segment<D>, mark: Mark, partial: Option<Bytes>) {
    let end = mark.place.position;
    let written = segment.written.min(end);
    let from = written - written % DISK_BLOCK_BYTES as u64;
    let mut kept = Vec::new();
    match partial {
        Some(partial) => kept.extend_from_slice(&partial),
        None => segment.tail.views(from, end, &mut |view| kept.extend_from_slice(&view)),
    }
    segment.tail.clear();
    segment.tail.append(disk, from, &kept, &mut ChunkSizes::for_bytes(kept.len()));
    segment.bytes = end;
    segment.end_offset = mark.offset;
    segment.written = written;
    segment.submitted = written;
    segment.synced = segment.synced.min(end);
    segment.sealed = false;
    segment.allocated = 0;
    if let Some(index) = &mut segment.index {
        index.truncate(end);
        segment.index_saved = segment.index_saved.min(index.entries().len());
    }
    segment.index_sealed = false;
}

impl<D: Disk> PartitionLog<D> {
    /// The log ends at `end` now, which its segments do already, and everything is durable.
    fn set_end(&mut self, end: Offset) {
        self.end_offset = end;
        self.epochs.retain(|start| start.start_offset < end);
        self.forget_hints();
        let place = self.end_place();
        self.durable = Mark { offset: end, place };
        self.promised = self.durable;
        self.placing.cut(self.durable);
        self.flush_to = self.flush_to.min(Some(place));
        for (_, owed) in &mut self.unflushed {
            *owed = place.min(*owed);
        }
        self.reset_clean();
    }
}
