//! Brings sealed segments' indexes and files into reach of reads, and lets go of the ones used longest ago.

use super::core::{CoreLog, State};
use super::cursor::SegmentName;
use super::dir;
use super::error::{Damage, LogError, Refused};
use super::partition::{Mark, Mode, Place};
use super::segment::load::{Loaded, load};
use super::{LogIndex, partition::PartitionLog};
use crate::base::ids::{Offset, PartitionId};
use crate::ports::{Disk, OpenMode};
use std::collections::VecDeque;
use std::path::Path;

/// Sealed segments whose index is in memory, oldest load first.
#[derive(Default)]
pub(crate) struct IndexCache {
    loaded: VecDeque<(LogIndex, u64, Offset)>,
    bytes: usize,
    /// Segments of any kind that were opened for reading, oldest first; some may have been closed since.
    readers: VecDeque<(LogIndex, u64, Offset)>,
}

impl<D: Disk> CoreLog<D> {
    /// Makes `read` able to answer for `offset`, limited by `limit_offset`: loads or rebuilds the segment's index, opens its file.
    ///
    /// # Errors
    /// `Damaged` where the segment has to be read to rebuild its index and is not whole, or ends before the next one begins; `OutOfRange`; the disk does not answer.
    pub async fn load(&self, log: LogIndex, offset: Offset, limit_offset: Offset) -> Result<(), LogError> {
        let found = {
            let state = self.0.state.borrow();
            let partition = state.log(log).ok_or(LogError::Refused(Refused::Busy))?;
            let (start, end) = (partition.start_offset, partition.end_offset);
            if offset < start || offset > end {
                return Err(LogError::OutOfRange { start, end });
            }
            (partition.serial, partition.segments[partition.segment_of(offset)].base_offset)
        };
        let (serial, base) = found;
        self.load_segment(log, serial, base).await?;
        self.find_limit(log, serial, base, limit_offset).await
    }

    /// Loads the index of the segment `base` if it is not in memory, and opens its file for reading.
    pub(crate) async fn load_segment(&self, log: LogIndex, serial: u64, base: Offset) -> Result<(), LogError> {
        let disk = &self.0.disk;
        let (id, dir, end_offset, has_index, has_reader) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(()) };
            let (id, dir) = (partition.id, partition.dir.clone());
            let Some(segment) = partition.segment_mut(base) else { return Ok(()) };
            let has_reader = segment.reader.is_some() || segment.written == 0;
            (id, dir, segment.end_offset, segment.index.is_some(), has_reader)
        };
        if !has_reader {
            let path = dir::segment_path(&dir, base);
            let file = disk.open(&path, OpenMode::ReadBuffered).await.map_err(LogError::io("open", &path))?;
            let mut state = self.0.state.borrow_mut();
            if let Some(segment) = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base)) {
                segment.reader = Some(file);
                state.cache_reader(log, serial, base);
            }
        }
        if has_index {
            return Ok(());
        }
        let loaded = load(disk, &dir, id, base).await?;
        if let Some(damage) = loaded.damage {
            return Err(LogError::Damaged(damage));
        }
        if loaded.end_offset != end_offset {
            return Err(LogError::Damaged(ends_early(&dir, id, base, (loaded.bytes, loaded.end_offset), end_offset)));
        }
        self.adopt_index(log, serial, base, loaded);
        self.save_index(log, serial, base).await;
        Ok(())
    }

    fn adopt_index(&self, log: LogIndex, serial: u64, base: Offset, loaded: Loaded) {
        let mut state = self.0.state.borrow_mut();
        if loaded.index_sealed {
            state.counters.segments.indexes_loaded += 1;
        } else {
            state.counters.segments.indexes_rebuilt += 1;
        }
        let segment = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
        let Some(segment) = segment.filter(|segment| segment.index.is_none()) else { return };
        segment.index_saved = if loaded.index_sealed { loaded.index.entries().len() } else { 0 };
        segment.index_sealed = loaded.index_sealed;
        // Padding behind the last batch is not part of the segment.
        segment.bytes = loaded.bytes;
        (segment.submitted, segment.written, segment.synced) = (loaded.bytes, loaded.bytes, loaded.bytes);
        segment.max_timestamp = Some(loaded.max_timestamp);
        let index_bytes = loaded.index.memory_bytes();
        segment.index = Some(loaded.index);
        state.cache_index(log, serial, base, index_bytes);
    }

    /// Looks into the file for the batch boundary at `limit`, where the index alone is too coarse.
    async fn find_limit(&self, log: LogIndex, serial: u64, base: Offset, limit: Offset) -> Result<(), LogError> {
        let entry = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(()) };
            let known = partition.known_place(limit);
            let Some(segment) = partition.segment_mut(base) else { return Ok(()) };
            if known.is_some() || limit <= base || limit >= segment.end_offset {
                return Ok(());
            }
            let entry = segment.index.as_ref().and_then(|index| index.at_or_before_offset((limit - base) as u32));
            let Some(entry) = entry.filter(|entry| u64::from(entry.position) < segment.memory_start()) else {
                return Ok(());
            };
            entry
        };
        let from = (u64::from(entry.position), base + Offset::from(entry.relative_offset));
        let (position, _) = self.boundary_before(SegmentName { log, serial, base }, from, limit).await?;
        let mut state = self.0.state.borrow_mut();
        if let Some(partition) = state.log_of(log, serial) {
            partition.remember(Mark { offset: limit, place: Place { segment: base, position } });
        }
        Ok(())
    }
}

impl<D: Disk> State<D> {
    /// Counts a segment's file in, and closes the oldest ones beyond the bound. What is being sent from them stays open for that.
    fn cache_reader(&mut self, log: LogIndex, serial: u64, base: Offset) {
        let State { index_cache, slots, settings, .. } = self;
        let newest = (log, serial, base);
        index_cache.readers.push_back(newest);
        while index_cache.readers.len() > settings.readers_max.max(1) {
            let oldest = index_cache.readers.pop_front().expect("more than the most");
            let partition = slots[oldest.0.0 as usize].as_mut().filter(|partition| partition.serial == oldest.1);
            if let Some(segment) = partition.and_then(|partition| partition.segment_mut(oldest.2))
                && oldest != newest
            {
                segment.reader = None;
            }
        }
    }

    /// Counts a sealed segment's index in, and lets go of the oldest ones beyond the bound.
    pub fn cache_index(&mut self, log: LogIndex, serial: u64, base: Offset, bytes: usize) {
        let State { index_cache, slots, settings, .. } = self;
        index_cache.loaded.push_back((log, serial, base));
        index_cache.bytes += bytes;
        let mut looked_at = index_cache.loaded.len();
        while index_cache.bytes > settings.index_cache_bytes && looked_at > 1 {
            looked_at -= 1;
            let Some(oldest) = index_cache.loaded.pop_front() else { return };
            match unload(slots, oldest) {
                Unloaded::Bytes(bytes) => index_cache.bytes -= bytes.min(index_cache.bytes),
                Unloaded::Needed => index_cache.loaded.push_back(oldest),
            }
        }
    }
}

/// The segment `base` ends at a position and offset where it should reach `expected`, where the next one begins.
pub(crate) fn ends_early(
    dir: &Path,
    partition: PartitionId,
    base: Offset,
    (position, offset): (u64, Offset),
    expected: Offset,
) -> Damage {
    let path = dir::segment_path(dir, base).display().to_string();
    let what = format!("the segment ends at offset {offset}, it had all before {expected}");
    Damage { path, position, partition: Some(partition), what }
}

enum Unloaded {
    Bytes(usize),
    /// Not yet in its file.
    Needed,
}

fn unload<D: Disk>(slots: &mut [Option<PartitionLog<D>>], (log, serial, base): (LogIndex, u64, Offset)) -> Unloaded {
    let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
    let Some(partition) = partition else { return Unloaded::Bytes(0) };
    // A truncation may be about to make it the active segment.
    let is_pinned = partition.mode == Mode::Closed;
    let Some(segment) = partition.segment_mut(base) else { return Unloaded::Bytes(0) };
    if is_pinned || !segment.sealed || !segment.index_sealed || segment.index_saving {
        return Unloaded::Needed;
    }
    segment.reader = None;
    Unloaded::Bytes(segment.index.take().map_or(0, |index| index.memory_bytes()))
}
