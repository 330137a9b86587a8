//! Which record of a partition is the first of a time: for ListOffsets. Runs in the background and gives way to others.

use super::commands::OffsetSpec;
use crate::base::batch::{ATTRIBUTE_LOG_APPEND_TIME, BatchHeader, Compression};
use crate::base::ids::Offset;
use crate::base::record::records;
use crate::base::time::TimestampMs;
use crate::base::unpack::{STEP_BYTES, Step, Unpacking};
use crate::log::{CoreLog, LogError, LogIndex};
use crate::ports::Disk;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

/// What a search looks through.
pub(super) struct Search<D: Disk> {
    pub log: CoreLog<D>,
    /// A batch of this core is being unpacked: one at a time, for each takes memory.
    pub unpacking: Rc<Cell<bool>>,
}

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub offset: Offset,
    pub timestamp: TimestampMs,
    pub leader_epoch: i32,
}

/// Which record of a batch is looked for.
#[derive(Clone, Copy)]
struct Wanted {
    /// The first of this time or later ...
    timestamp: TimestampMs,
    /// ... at this offset or behind it.
    from: Offset,
}

impl<D: Disk> Search<D> {
    /// The first record of a time or later, or the first with the latest time, among those that are kept and lie before `limit`.
    ///
    /// # Errors
    /// The log cannot be read there.
    pub async fn find(&self, index: LogIndex, limit: Offset, spec: OffsetSpec) -> Result<Option<Found>, LogError> {
        let mut from = self.log.start_offset(index);
        loop {
            let batch = match spec {
                OffsetSpec::At(timestamp) => self.log.find_by_timestamp(index, timestamp, from).await?,
                _ => self.log.find_max_timestamp(index).await?,
            };
            let Some(batch) = batch else { return Ok(None) };
            let Some(header) = BatchHeader::read(&batch) else { return Ok(None) };
            // What is not visible yet cannot be asked for.
            if header.next_offset() > limit {
                return Ok(None);
            }
            let earliest = Found {
                offset: header.base_offset.max(from),
                timestamp: header.max_timestamp,
                leader_epoch: header.partition_leader_epoch,
            };
            let timestamp = match spec {
                OffsetSpec::At(timestamp) => timestamp,
                _ => header.max_timestamp,
            };
            match self.in_batch(&header, &batch, Wanted { timestamp, from }).await {
                Ok(Some((offset, timestamp))) => return Ok(Some(Found { offset, timestamp, ..earliest })),
                // Its header promised a time that none of its records has.
                Ok(None) if matches!(spec, OffsetSpec::At(_)) => from = header.next_offset(),
                Ok(None) => return Ok(Some(earliest)),
                Err(error) => {
                    tracing::debug!(offset = header.base_offset, "a batch cannot be unpacked: {error}");
                    // Early, never late.
                    return Ok(Some(earliest));
                }
            }
        }
    }

    async fn in_batch(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        wanted: Wanted,
    ) -> io::Result<Option<(Offset, TimestampMs)>> {
        if header.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0 {
            return Ok(Some((header.base_offset.max(wanted.from), header.max_timestamp)));
        }
        if header.compression() == Some(Compression::None) {
            let mut all = records(batch);
            return Ok(all.find_map(|record| wanted.meets(header, record.timestamp_delta, record.offset_delta)));
        }
        self.log.until(|| !self.unpacking.replace(true)).await;
        let found = in_packed(header, batch, wanted).await;
        self.unpacking.set(false);
        self.log.notify();
        found
    }
}

impl Wanted {
    /// The record's offset and time, if it is one.
    fn meets(&self, header: &BatchHeader, timestamp_delta: i64, offset_delta: i32) -> Option<(Offset, TimestampMs)> {
        // Of what was packed by a client nothing is known to be true.
        let timestamp = header.base_timestamp.saturating_add(timestamp_delta);
        let offset = header.base_offset + Offset::from(offset_delta);
        let is_within = (0..=header.last_offset_delta).contains(&offset_delta);
        (is_within && offset >= self.from && timestamp >= self.timestamp).then_some((offset, timestamp))
    }
}

/// As `in_batch`, giving way after each step.
async fn in_packed(header: &BatchHeader, batch: &[u8], wanted: Wanted) -> io::Result<Option<(Offset, TimestampMs)>> {
    let Some(mut unpacking) = Unpacking::new(header, batch)? else { return Ok(None) };
    loop {
        let slice_end = unpacking.taken() + STEP_BYTES as u64;
        while unpacking.taken() < slice_end {
            match unpacking.step()? {
                Step::Within => {}
                Step::Record { timestamp_delta, offset_delta } => {
                    if let Some(found) = wanted.meets(header, timestamp_delta, offset_delta) {
                        return Ok(Some(found));
                    }
                }
                Step::End => return Ok(None),
            }
        }
        give_way().await;
    }
}

/// Lets other tasks and the core's turns go first.
async fn give_way() {
    let mut is_second = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::BatchBuilder;

    #[test]
    fn a_record_before_the_logs_start_or_outside_of_its_batch_is_none() {
        let mut builder = BatchBuilder::new(1_000);
        (0..3).for_each(|n| builder.push(1_000 + n, None, None));
        let mut batch = builder.finish();
        batch[..8].copy_from_slice(&50i64.to_be_bytes());
        let header = BatchHeader::read(&batch).expect("a header");
        let wanted = Wanted { timestamp: 1_001, from: 52 };
        assert_eq!(wanted.meets(&header, 1, 1), None, "deleted");
        assert_eq!(wanted.meets(&header, 0, 2), None, "too early");
        assert_eq!(wanted.meets(&header, 2, 2), Some((52, 1_002)));
        for lie in [-1, 3, i32::MAX, i32::MIN] {
            assert_eq!(wanted.meets(&header, 2, lie), None);
        }
        assert_eq!(wanted.meets(&header, i64::MAX, 2), Some((52, i64::MAX)));
    }
}
