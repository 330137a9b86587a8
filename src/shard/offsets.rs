//! ListOffsets and OffsetForLeaderEpoch on the core that owns the partitions.

use super::Shard;
use super::commands::{Answer, EndedEpoch, EpochEnd, ListOffset, ListedOffset, OffsetSpec, Origin};
use crate::base::batch::{BatchHeader, Compression};
use crate::base::error::ErrorCode;
use crate::base::ids::Offset;
use crate::base::record::records;
use crate::base::time::TimestampMs;
use crate::ports::Disk;
use bytes::Bytes;

impl<D: Disk> Shard<D> {
    /// Answers at once where no batch must be read; else a background task does.
    pub(super) fn list_offsets(&mut self, origin: Origin, parts: Vec<ListOffset>) {
        let needs_disk = parts.iter().any(|part| matches!(part.spec, OffsetSpec::At(_) | OffsetSpec::MaxTimestamp));
        if !needs_disk {
            let listed = parts.iter().map(|part| self.list_end(part)).collect();
            return self.answer(origin, Answer::ListOffsets(listed));
        }
        let me = self.me.clone();
        let log = self.log.clone();
        self.disk.spawn(async move {
            let mut listed = Vec::with_capacity(parts.len());
            for part in &parts {
                let Some(shard) = me.upgrade() else { return };
                let (end, found) = shard.borrow().find_log(part);
                drop(shard);
                listed.push(match found {
                    None => end,
                    Some((index, limit)) => find(&log, index, limit, part, end).await,
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

/// Searches a log by time; what it finds is told by the batch's header and, where they are not compressed, its records.
async fn find<D: Disk>(
    log: &crate::log::CoreLog<D>,
    index: crate::log::LogIndex,
    limit: Offset,
    part: &ListOffset,
    none: ListedOffset,
) -> ListedOffset {
    let found = match part.spec {
        OffsetSpec::At(timestamp) => log.find_by_timestamp(index, timestamp, log.start_offset(index)).await,
        _ => log.find_max_timestamp(index).await,
    };
    // What is not visible yet cannot be asked for.
    let is_visible = |batch: &Bytes| BatchHeader::read(batch).is_some_and(|header| header.next_offset() <= limit);
    match found.map(|batch| batch.filter(is_visible)) {
        Ok(None) => none,
        Ok(Some(batch)) => {
            let at = match part.spec {
                OffsetSpec::At(timestamp) => Some(timestamp),
                _ => None,
            };
            match record_at(&batch, at) {
                Some((offset, timestamp, leader_epoch)) => ListedOffset { offset, timestamp, leader_epoch, ..none },
                None => none,
            }
        }
        Err(error) => {
            tracing::error!("a search by time failed: {error}");
            ListedOffset { error: ErrorCode::KafkaStorageError, ..none }
        }
    }
}

/// The first record of `batch` at or after `at`; without `at` the first with the largest timestamp.
///
/// Compressed batches are opened by `codec`; where that fails the batch's own start is the answer, which is early, never late.
fn record_at(batch: &[u8], at: Option<TimestampMs>) -> Option<(Offset, TimestampMs, i32)> {
    let header = BatchHeader::read(batch)?;
    let epoch = header.partition_leader_epoch;
    let wanted = at.unwrap_or(header.max_timestamp);
    if header.compression() != Some(Compression::None) {
        let timestamp = if at.is_some() { header.base_timestamp.max(wanted.min(header.max_timestamp)) } else { wanted };
        return Some((header.base_offset, timestamp, epoch));
    }
    if header.attributes & crate::base::batch::ATTRIBUTE_LOG_APPEND_TIME != 0 {
        return Some((header.base_offset, header.max_timestamp, epoch));
    }
    records(batch).find_map(|record| {
        let timestamp = header.base_timestamp + record.timestamp_delta;
        (timestamp >= wanted).then(|| (header.base_offset + Offset::from(record.offset_delta), timestamp, epoch))
    })
}
