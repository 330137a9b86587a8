//! Bytes of a segment wherever they are: from its file up to where memory begins, from the tail behind that. For searches, not for serving.

use super::core::CoreLog;
use super::error::{Damage, LogError};
use super::{LogIndex, dir};
use crate::base::batch::{BatchHeader, HEADER_BYTES};
use crate::base::ids::Offset;
use crate::ports::{Disk, OpenMode};
use std::path::PathBuf;

/// One segment of a partition, by names that stay right when the partition changes.
#[derive(Clone, Copy)]
pub(crate) struct SegmentName {
    pub log: LogIndex,
    pub serial: u64,
    pub base: Offset,
}

impl<D: Disk> CoreLog<D> {
    /// Bytes `[from, to)` of the segment; `None` where it is gone or shorter.
    pub(crate) async fn bytes_at(&self, name: SegmentName, from: u64, to: u64) -> Result<Option<Vec<u8>>, LogError> {
        let SegmentName { log, serial, base } = name;
        let mut memory = Vec::new();
        let (path, file_to, reader) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(None) };
            let path = dir::segment_path(&partition.dir, base);
            let Some(segment) = partition.segment_mut(base).filter(|segment| to <= segment.bytes) else {
                return Ok(None);
            };
            let memory_start = segment.memory_start();
            segment.tail.views(from.max(memory_start), to, &mut |view| memory.extend_from_slice(&view));
            (path, to.min(memory_start), segment.reader.clone())
        };
        if from >= file_to {
            return Ok(Some(memory));
        }
        let failed = |error| LogError::io("read", &path)(error);
        let file = match reader {
            Some(file) => file,
            None => self.0.disk.open(&path, OpenMode::ReadBuffered).await.map_err(failed)?,
        };
        let mut bytes = self.0.disk.read(&file, from, (file_to - from) as usize).await.map_err(failed)?.to_vec();
        if bytes.len() as u64 != file_to - from {
            return Ok(None);
        }
        bytes.extend_from_slice(&memory);
        Ok(Some(bytes))
    }

    /// The header of the batch at `position`; `None` at the end of the segment.
    pub(crate) async fn header_at(&self, name: SegmentName, position: u64) -> Result<Option<BatchHeader>, LogError> {
        let bytes = self.bytes_at(name, position, position + HEADER_BYTES as u64).await?;
        // A length that cannot be ends the walk: what is damaged is for others to tell.
        let header = bytes.as_deref().and_then(BatchHeader::read);
        Ok(header.filter(|header| header.batch_bytes() >= HEADER_BYTES))
    }

    /// From the batch at `position` on, whose offset is `end`, the last boundary at or before `offset`: where it stands, and its offset.
    ///
    /// # Errors
    /// `Damaged` where a batch on the way has another offset than the one that follows, or does not end within the segment.
    pub(crate) async fn boundary_before(
        &self,
        name: SegmentName,
        (mut position, mut end): (u64, Offset),
        offset: Offset,
    ) -> Result<(u64, Offset), LogError> {
        while let Some(header) = self.header_at(name, position).await? {
            let batch_end = position + header.batch_bytes() as u64;
            if header.base_offset != end || header.last_offset_delta < 0 || !self.reaches(name, batch_end) {
                return Err(LogError::Damaged(self.damage(name, position, end)));
            }
            if header.next_offset() > offset {
                break;
            }
            (position, end) = (batch_end, header.next_offset());
        }
        Ok((position, end))
    }

    /// Whether the segment has bytes up to `position`; of one that is gone nobody knows better.
    fn reaches(&self, SegmentName { log, serial, base }: SegmentName, position: u64) -> bool {
        let mut state = self.0.state.borrow_mut();
        let segment = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
        segment.is_none_or(|segment| position <= segment.bytes)
    }

    fn damage(&self, SegmentName { log, serial, base }: SegmentName, position: u64, offset: Offset) -> Damage {
        let mut state = self.0.state.borrow_mut();
        let partition = state.log_of(log, serial);
        let path = partition.as_ref().map_or_else(PathBuf::new, |partition| dir::segment_path(&partition.dir, base));
        Damage {
            path: path.display().to_string(),
            position,
            partition: partition.map(|partition| partition.id),
            what: format!("no whole batch stands here (offset {offset})"),
        }
    }
}
