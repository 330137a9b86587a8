//! Reads a partition's segments again and checks every batch: the scrub. Repairs nothing.

use super::core::CoreLog;
use super::error::{Damage, LogError, Refused};
use super::segment::format::FIRST_BATCH_AT;
use super::segment::load::BatchWalk;
use super::{LogIndex, dir};
use crate::base::ids::Offset;
use crate::ports::Disk;

impl<D: Disk> CoreLog<D> {
    /// Checks everything of the partition that is in segments' files: CRCs, order, and that no batch is missing at the end. Returns the
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
        let (id, dir, written, is_exact) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return Ok(0) };
            let (id, dir) = (partition.id, partition.dir.clone());
            let Some(segment) = partition.segment_mut(base) else { return Ok(0) };
            // Before its index is loaded a sealed segment's size may count padding.
            (id, dir, segment.written, segment.index.is_some())
        };
        if written <= FIRST_BATCH_AT {
            return Ok(0);
        }
        let path = dir::segment_path(&dir, base);
        let mut walk = BatchWalk::open(&self.0.disk, &path, id, base, FIRST_BATCH_AT, base).await?;
        while walk.position > 0 && walk.position < written {
            let Some((_, header)) = walk.next().await? else { break };
            let beyond = walk.position > written;
            debug_assert!(header.base_offset >= base);
            if beyond {
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
