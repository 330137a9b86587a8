//! Finds batches by time, and tells where leader epochs begin and end. Reads what it must from segments; not a hot path.

use super::LogIndex;
use super::core::CoreLog;
use super::cursor::SegmentName;
use super::error::{LogError, Refused};
use super::journal::format::EpochStart;
use crate::base::ids::Offset;
use crate::base::time::TimestampMs;
use crate::ports::Disk;
use bytes::Bytes;

impl<D: Disk> CoreLog<D> {
    /// The first batch at or behind `from_offset` whose latest timestamp is at least `timestamp`, whole; `None` if there is none.
    /// The record in question may lie anywhere in it, or nowhere, if the header says more than is true.
    ///
    /// # Errors
    /// As `load`.
    pub async fn find_by_timestamp(
        &self,
        log: LogIndex,
        timestamp: TimestampMs,
        from_offset: Offset,
    ) -> Result<Option<Bytes>, LogError> {
        for name in self.segments_from(log, from_offset)? {
            self.load_segment(log, name.serial, name.base).await?;
            let Some(mut position) = self.stretch_of(name, timestamp) else { continue };
            while let Some(header) = self.header_at(name, position).await? {
                let end = position + header.batch_bytes() as u64;
                if header.max_timestamp >= timestamp && header.next_offset() > from_offset {
                    return Ok(self.bytes_at(name, position, end).await?.map(Bytes::from));
                }
                position = end;
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
        for name in self.segments_from(log, start)? {
            self.load_segment(log, name.serial, name.base).await?;
            let mut state = self.0.state.borrow_mut();
            let segment = state.log_of(log, name.serial).and_then(|partition| partition.segment_mut(name.base));
            latest = latest.max(segment.and_then(|segment| segment.max_timestamp));
        }
        match latest {
            Some(timestamp) => self.find_by_timestamp(log, timestamp, start).await,
            None => Ok(None),
        }
    }

    fn segments_from(&self, log: LogIndex, offset: Offset) -> Result<Vec<SegmentName>, LogError> {
        let state = self.0.state.borrow();
        let partition = state.log(log).ok_or(LogError::Refused(Refused::Busy))?;
        let serial = partition.serial;
        let behind = partition.segments.iter().filter(|segment| segment.end_offset > offset);
        Ok(behind.map(|segment| SegmentName { log, serial, base: segment.base_offset }).collect())
    }

    /// From where in the segment to look for the first batch that reaches `timestamp`; `None` if there is none.
    fn stretch_of(&self, name: SegmentName, timestamp: TimestampMs) -> Option<u64> {
        let mut state = self.0.state.borrow_mut();
        let segment = state.log_of(name.log, name.serial)?.segment_mut(name.base)?;
        if segment.max_timestamp < Some(timestamp) {
            return None;
        }
        segment.index.as_ref()?.before_timestamp(timestamp).map(|entry| u64::from(entry.position))
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
