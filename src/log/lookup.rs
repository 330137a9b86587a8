//! Finds batches by time, and tells where leader epochs begin and end. Reads what it must from segments; not a hot path.

use super::LogIndex;
use super::core::CoreLog;
use super::error::{LogError, Refused};
use super::journal::format::EpochStart;
use super::segment::load::BatchWalk;
use super::{dir, partition::PartitionLog};
use crate::base::batch::{BatchHeader, HEADER_BYTES};
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::TimestampMs;
use crate::ports::Disk;
use bytes::{Bytes, BytesMut};
use std::path::PathBuf;

/// Where in a partition to look, taken out of the state so that nothing is borrowed while the disk is awaited.
struct Candidate {
    serial: u64,
    base: Offset,
}

/// A stretch of a segment to go through, batch by batch.
struct Stretch {
    id: PartitionId,
    dir: PathBuf,
    position: u64,
    offset: Offset,
    /// Bytes before this are to be read from the file.
    memory_start: u64,
    end: u64,
}

impl<D: Disk> CoreLog<D> {
    /// The first batch at or behind `from_offset` whose latest timestamp is at least `timestamp`, whole; `None` if there is none.
    /// The record in question may lie anywhere in it, or (compressed) can only be found by opening it.
    ///
    /// # Errors
    /// As `load`.
    pub async fn find_by_timestamp(
        &self,
        log: LogIndex,
        timestamp: TimestampMs,
        from_offset: Offset,
    ) -> Result<Option<Bytes>, LogError> {
        for Candidate { serial, base } in self.segments_from(log, from_offset)? {
            self.load_segment(log, serial, base).await?;
            let Some(stretch) = self.stretch(log, serial, base, timestamp) else { continue };
            if let Some(found) = self.search(log, serial, base, stretch, timestamp, from_offset).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The batch that bears the latest timestamp of the partition; the first of them if there are several. `None` in an empty log.
    ///
    /// # Errors
    /// As `load`.
    pub async fn find_max_timestamp(&self, log: LogIndex) -> Result<Option<Bytes>, LogError> {
        let start = self.0.state.borrow().log(log).ok_or(LogError::Refused(Refused::Busy))?.start_offset;
        let mut latest = None;
        for Candidate { serial, base } in self.segments_from(log, start)? {
            self.load_segment(log, serial, base).await?;
            let mut state = self.0.state.borrow_mut();
            let segment = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
            latest = latest.max(segment.and_then(|segment| segment.max_timestamp));
        }
        match latest {
            Some(timestamp) => self.find_by_timestamp(log, timestamp, start).await,
            None => Ok(None),
        }
    }

    fn segments_from(&self, log: LogIndex, offset: Offset) -> Result<Vec<Candidate>, LogError> {
        let state = self.0.state.borrow();
        let partition = state.log(log).ok_or(LogError::Refused(Refused::Busy))?;
        let serial = partition.serial;
        let behind = partition.segments.iter().filter(|segment| segment.end_offset > offset);
        Ok(behind.map(|segment| Candidate { serial, base: segment.base_offset }).collect())
    }

    /// Where in the segment the first batch that reaches `timestamp` must lie; `None` if there is none.
    fn stretch(&self, log: LogIndex, serial: u64, base: Offset, timestamp: TimestampMs) -> Option<Stretch> {
        let mut state = self.0.state.borrow_mut();
        let partition = state.log_of(log, serial)?;
        let (id, dir) = (partition.id, partition.dir.clone());
        let segment = partition.segment_mut(base)?;
        if segment.max_timestamp < Some(timestamp) {
            return None;
        }
        let entry = segment.index.as_ref()?.before_timestamp(timestamp)?;
        Some(Stretch {
            id,
            dir,
            position: u64::from(entry.position),
            offset: base + Offset::from(entry.relative_offset),
            memory_start: segment.memory_start(),
            end: segment.bytes,
        })
    }

    async fn search(
        &self,
        log: LogIndex,
        serial: u64,
        base: Offset,
        stretch: Stretch,
        timestamp: TimestampMs,
        from_offset: Offset,
    ) -> Result<Option<Bytes>, LogError> {
        let Stretch { id, dir, mut position, offset, memory_start, end } = stretch;
        let is_it = |header: &BatchHeader| header.max_timestamp >= timestamp && header.next_offset() > from_offset;
        if position < memory_start {
            let path = dir::segment_path(&dir, base);
            let mut walk = BatchWalk::open(&self.0.disk, &path, id, base, position, offset).await?;
            while walk.position < memory_start
                && let Some((at, header)) = walk.next().await?
            {
                if is_it(&header) {
                    return Ok(Some(walk.batch(at, &header).await?));
                }
                position = walk.position;
            }
        }
        let mut state = self.0.state.borrow_mut();
        let partition = state.log_of(log, serial);
        Ok(partition.and_then(|partition| search_memory(partition, base, position, end, is_it)))
    }

    /// The leader epochs of the partition and where each began, rising.
    pub fn epochs(&self, log: LogIndex) -> Vec<EpochStart> {
        self.0.state.borrow().log(log).map(|partition| partition.epochs.clone()).unwrap_or_default()
    }

    /// The last epoch at or before `epoch`, and the offset at which it ended: OffsetForLeaderEpoch (KIP-101, KIP-279). `None` where
    /// all known epochs are later.
    pub fn end_of_epoch(&self, log: LogIndex, epoch: i32) -> Option<(i32, Offset)> {
        let state = self.0.state.borrow();
        let partition = state.log(log)?;
        let after = partition.epochs.partition_point(|start| start.epoch <= epoch);
        let found = partition.epochs[..after].last()?;
        let end = partition.epochs.get(after).map_or(partition.end_offset, |next| next.start_offset);
        Some((found.epoch, end))
    }
}

/// Goes through batches in memory. `None` also where they have left it meanwhile.
fn search_memory<D: Disk>(
    partition: &mut PartitionLog<D>,
    base: Offset,
    mut position: u64,
    end: u64,
    is_it: impl Fn(&BatchHeader) -> bool,
) -> Option<Bytes> {
    let segment = partition.segment_mut(base)?;
    let mut head = [0; HEADER_BYTES];
    while position < end && segment.tail.copy(position, &mut head) {
        let header = BatchHeader::read(&head)?;
        let batch_end = position + header.batch_bytes() as u64;
        if is_it(&header) {
            let mut batch = BytesMut::with_capacity(header.batch_bytes());
            segment.tail.views(position, batch_end, &mut |view| batch.extend_from_slice(&view));
            return Some(batch.freeze());
        }
        position = batch_end;
    }
    None
}
