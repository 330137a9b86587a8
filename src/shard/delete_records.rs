//! DeleteRecords on the core that owns the partitions: moves their start forward, and answers when that would survive a crash.

use super::Shard;
use super::commands::{Answer, DeleteRecords, DeletedRecords, Origin};
use crate::base::error::ErrorCode;
use crate::base::ids::Offset;
use crate::log::{LogError, LogIndex, Refused};
use crate::ports::Disk;

impl<D: Disk> Shard<D> {
    /// Each part is answered by itself, so that none waits for the others' commits.
    pub(super) fn delete_records(&mut self, origin: Origin, parts: Vec<DeleteRecords>) {
        for part in parts {
            match self.new_start(&part) {
                Ok((log, start)) => self.move_start(origin, part, log, start),
                Err(code) => self.answer(origin, Answer::DeletedRecords(DeletedRecords::refused(part.index, code))),
            }
        }
    }

    /// Where the partition shall start. Only what is visible is deleted: what follows may not be committed yet.
    fn new_start(&self, part: &DeleteRecords) -> Result<(LogIndex, Offset), ErrorCode> {
        let slot = self.slot(part.partition).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let topic = self.image.topic(part.partition.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let config = self.topic_config(topic);
        if config.cleanup_compact && !config.cleanup_delete {
            // The last record of each key is promised to stay.
            return Err(ErrorCode::PolicyViolation);
        }
        let partition = &self.partitions[slot as usize];
        let start = start_within(part.before, partition.watermark.high_watermark())?;
        Ok((partition.log, start))
    }

    fn move_start(&self, origin: Origin, part: DeleteRecords, log: LogIndex, start: Offset) {
        let (me, logs) = (self.me.clone(), self.log.clone());
        self.disk.spawn(async move {
            let deleted = match logs.set_start_offset(log, start).await {
                // It may have started later already.
                Ok(()) => DeletedRecords {
                    index: part.index,
                    error: ErrorCode::None,
                    low_watermark: logs.start_offset(log).max(start),
                },
                // It was deleted meanwhile.
                Err(LogError::Refused(Refused::Busy)) => {
                    DeletedRecords::refused(part.index, ErrorCode::NotLeaderOrFollower)
                }
                Err(error) => {
                    tracing::error!(partition = %part.partition, start, "records could not be deleted: {error}");
                    DeletedRecords::refused(part.index, ErrorCode::KafkaStorageError)
                }
            };
            if let Some(shard) = me.upgrade() {
                shard.borrow_mut().answer(origin, Answer::DeletedRecords(deleted));
            }
        });
    }
}

/// The offset before which all goes; -1 asks for the high watermark.
fn start_within(before: Offset, high_watermark: Offset) -> Result<Offset, ErrorCode> {
    match before {
        -1 => Ok(high_watermark),
        _ if (0..=high_watermark).contains(&before) => Ok(before),
        _ => Err(ErrorCode::OffsetOutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_visible_is_deleted() {
        for (before, expected) in [
            (-1, Ok(10)),
            (0, Ok(0)),
            (10, Ok(10)),
            (11, Err(ErrorCode::OffsetOutOfRange)),
            (-2, Err(ErrorCode::OffsetOutOfRange)),
            (i64::MAX, Err(ErrorCode::OffsetOutOfRange)),
        ] {
            assert_eq!(start_within(before, 10), expected, "{before}");
        }
    }
}
