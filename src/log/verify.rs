//! Reads a partition's segments again and checks every batch: the scrub. Repairs nothing.

use super::core::CoreLog;
use super::error::{Damage, LogError, Refused};
use super::loading::ends_early;
use super::segment::format::FIRST_BATCH_AT;
use super::segment::load::BatchWalk;
use super::{LogIndex, dir};
use crate::base::ids::Offset;
use crate::ports::Disk;

impl<D: Disk> CoreLog<D> {
    /// Checks everything of the partition that is in segments' files: CRCs, offsets, and that no batch is missing at the end. Returns the
    /// bytes it has read. Reads in steps of 1 MiB, so that others have their turn.
    ///
    /// # Errors
    /// `Damaged` names file and position of the first damage.
    pub async fn verify(&self, log: LogIndex) -> Result<u64, LogError> {
        let (serial, bases) = {
            let state = self.0.state.borrow();
            let partition = state.log(log).ok_or(LogError::Refused(Refused::Busy))?;
            let bases: Vec<Offset> = partition.segments.iter().map(|segment| segment.base_offset).collect();
            (partition.serial, bases)
        };
        let mut bytes = 0;
        for base in bases {
            bytes += self.verify_segment(log, serial, base).await?;
        }
        Ok(bytes)
    }

    async fn verify_segment(&self, log: LogIndex, serial: u64, base: Offset) -> Result<u64, LogError> {
        let (id, dir, written, end_offset, is_exact) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(0) };
            let (id, dir) = (partition.id, partition.dir.clone());
            let Some(segment) = partition.segment_mut(base) else { return Ok(0) };
            // What is not written is not looked for.
            let end_offset = (segment.written == segment.bytes).then_some(segment.end_offset);
            // Before its index is loaded a sealed segment's size may count padding.
            (id, dir, segment.written, end_offset, segment.index.is_some())
        };
        if written <= FIRST_BATCH_AT && end_offset.is_none_or(|end| end == base) {
            return Ok(0);
        }
        let path = dir::segment_path(&dir, base);
        let mut walk = BatchWalk::open(&self.0.disk, &path, id, base, FIRST_BATCH_AT, base).await?;
        while walk.position > 0 && walk.position < written {
            if walk.next().await?.is_none() {
                break;
            }
            if walk.position > written {
                // The last batch is only partly in the file yet.
                return Ok(written);
            }
        }
        if !self.is_same(log, serial, base, written) {
            // Cut or deleted meanwhile.
            return Ok(0);
        }
        if let Some(damage) = walk.damage
            && !self.is_growing(log, serial, base)
        {
            return Err(LogError::Damaged(damage));
        }
        if is_exact && walk.position < written && !self.is_growing(log, serial, base) {
            let what = format!("the segment ends here, {written} bytes were written");
            let path = path.display().to_string();
            return Err(LogError::Damaged(Damage { path, position: walk.position, partition: Some(id), what }));
        }
        if let Some(expected) = end_offset
            && walk.end_offset != expected
        {
            let found = (walk.position, walk.end_offset);
            return Err(LogError::Damaged(ends_early(&dir, id, base, found, expected)));
        }
        Ok(walk.position)
    }

    fn is_same(&self, log: LogIndex, serial: u64, base: Offset, written: u64) -> bool {
        let mut state = self.0.state.borrow_mut();
        let segment = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
        segment.is_some_and(|segment| segment.written >= written)
    }

    /// The end of the file is being written, so its last batch may be there in part.
    fn is_growing(&self, log: LogIndex, serial: u64, base: Offset) -> bool {
        let mut state = self.0.state.borrow_mut();
        let segment = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
        segment.is_some_and(|segment| segment.written < segment.bytes)
    }
}
