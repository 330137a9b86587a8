//! ListOffsets and OffsetForLeaderEpoch on the core that owns the partitions.

use super::Shard;
use super::by_time::{Found, Search};
use super::commands::{Answer, EndedEpoch, EpochEnd, ListOffset, ListedOffset, OffsetSpec, Origin};
use crate::base::error::ErrorCode;
use crate::base::ids::Offset;
use crate::ports::Disk;

impl<D: Disk> Shard<D> {
    /// Answers at once where no batch must be read; else a background task does.
    pub(super) fn list_offsets(&mut self, origin: Origin, parts: Vec<ListOffset>) {
        let needs_disk = parts.iter().any(|part| matches!(part.spec, OffsetSpec::At(_) | OffsetSpec::MaxTimestamp));
        if !needs_disk {
            let listed = parts.iter().map(|part| self.list_end(part)).collect();
            return self.answer(origin, Answer::ListOffsets(listed));
        }
        let me = self.me.clone();
        let search = Search { log: self.log.clone(), unpacking: self.unpacking.clone() };
        self.disk.spawn(async move {
            let mut listed = Vec::with_capacity(parts.len());
            for part in &parts {
                let Some(shard) = me.upgrade() else { return };
                let (end, found) = shard.borrow().find_log(part);
                drop(shard);
                let Some((index, limit)) = found else {
                    listed.push(end);
                    continue;
                };
                listed.push(match search.find(index, limit, part.spec).await {
                    Ok(None) => end,
                    Ok(Some(Found { offset, timestamp, leader_epoch })) => {
                        ListedOffset { offset, timestamp, leader_epoch, ..end }
                    }
                    Err(error) => {
                        tracing::error!(partition = %part.partition, "a search by time failed: {error}");
                        ListedOffset { error: ErrorCode::KafkaStorageError, ..end }
                    }
                });
            }
            if let Some(shard) = me.upgrade() {
                shard.borrow_mut().answer(origin, Answer::ListOffsets(listed));
            }
        });
    }

    /// The answer that needs no batch, or what to search where one is needed: the log, and the offset where it ends for readers.
    fn find_log(&self, part: &ListOffset) -> (ListedOffset, Option<(crate::log::LogIndex, Offset)>) {
        let end = self.list_end(part);
        let searched = !end.error.is_error() && matches!(part.spec, OffsetSpec::At(_) | OffsetSpec::MaxTimestamp);
        let slot = self.slot(part.partition).filter(|_| searched);
        let found = slot.map(|slot| {
            let partition = &self.partitions[slot as usize];
            (partition.log, partition.watermark.high_watermark())
        });
        (end, found)
    }

    fn list_end(&self, part: &ListOffset) -> ListedOffset {
        let answer = |error, offset, leader_epoch| ListedOffset {
            index: part.index,
            error,
            offset,
            timestamp: -1,
            leader_epoch,
        };
        let Some(slot) = self.slot(part.partition) else { return answer(ErrorCode::NotLeaderOrFollower, -1, -1) };
        let partition = &self.partitions[slot as usize];
        if let Some(code) = partition.check_epoch(part.current_leader_epoch) {
            return answer(code, -1, -1);
        }
        let epoch = partition.state.leader_epoch();
        match part.spec {
            OffsetSpec::Earliest => answer(ErrorCode::None, self.log.start_offset(partition.log), epoch),
            OffsetSpec::Latest => answer(ErrorCode::None, partition.watermark.high_watermark(), epoch),
            OffsetSpec::MaxTimestamp | OffsetSpec::At(_) => answer(ErrorCode::None, -1, -1),
        }
    }

    pub(super) fn epoch_ends(&mut self, origin: Origin, parts: Vec<EpochEnd>) {
        let ended = parts.iter().map(|part| self.epoch_end(part)).collect();
        self.answer(origin, Answer::EpochEnds(ended));
    }

    fn epoch_end(&self, part: &EpochEnd) -> EndedEpoch {
        let answer =
            |error, leader_epoch, end_offset| EndedEpoch { index: part.index, error, leader_epoch, end_offset };
        let Some(slot) = self.slot(part.partition) else { return answer(ErrorCode::NotLeaderOrFollower, -1, -1) };
        let partition = &self.partitions[slot as usize];
        if let Some(code) = partition.check_epoch(part.current_leader_epoch) {
            return answer(code, -1, -1);
        }
        let (epoch, end) = partition.epochs.end_offset(part.leader_epoch, partition.watermark.high_watermark());
        answer(ErrorCode::None, epoch, end)
    }
}
