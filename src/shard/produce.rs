//! Produce on the core that owns the partitions: check, place, append, and the answer once it is durable.

use super::Shard;
use super::balance::OPERATION_BYTES;
use super::commands::{Answer, Message, Origin, ProducePart, ProduceResults, Produced, RequestId};
use crate::base::batch::{self, BatchHeader};
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, Offset, PartitionId};
use crate::base::time::{Now, TimestampMs};
use crate::log::Refused;
use crate::partition::append::Decision;
use crate::partition::watermark::Advance;
use crate::ports::Disk;
use bytes::Bytes;

/// A part that waits because the disk is behind, or for its partition to come here. Its turn comes in the order of arrival.
pub(super) struct DelayedPart {
    origin: Origin,
    pub part: ProducePart<Bytes>,
}

/// A part that is appended and waits to be durable: all that its answer needs, since with a thousand of them each look elsewhere is at memory
/// that no cache holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct UndurablePart {
    request: RequestId,
    core: CoreIndex,
    index: u32,
    base_offset: Offset,
    log_append_time_ms: TimestampMs,
}

impl UndurablePart {
    fn origin(&self) -> Origin {
        Origin { core: self.core, request: self.request }
    }

    /// What its client is told once it is durable.
    fn durable(&self, log_start_offset: Offset) -> Produced {
        Produced {
            index: self.index,
            error: ErrorCode::None,
            message: None,
            base_offset: self.base_offset,
            log_append_time_ms: self.log_append_time_ms,
            log_start_offset,
        }
    }
}

/// What became of one part.
enum Outcome {
    Done(Produced),
    /// Its answer will come when it is durable.
    Waits,
    /// The disk is behind.
    Backlog,
    /// The partition is on its way to this core.
    Awaited,
}

impl<D: Disk> Shard<D> {
    /// Appends the batches of `parts`; each is answered when it is durable, or refused. `share` makes a part's bytes outlive this call; it is
    /// asked only where a part is delayed.
    pub fn produce<R: AsRef<[u8]>>(
        &mut self,
        origin: Origin,
        parts: impl IntoIterator<Item = ProducePart<R>>,
        share: impl Fn(R) -> Bytes,
        now: Now,
    ) {
        for part in parts {
            let outcome = if self.backlog.is_empty() {
                let ProducePart { index, partition, records } = &part;
                self.produce_part(origin, *index, *partition, records.as_ref(), now)
            } else {
                Outcome::Backlog
            };
            match outcome {
                Outcome::Done(produced) => self.answer_part(origin, produced),
                Outcome::Waits => {}
                Outcome::Backlog | Outcome::Awaited => {
                    let ProducePart { index, partition, records } = part;
                    let delayed =
                        DelayedPart { origin, part: ProducePart { index, partition, records: share(records) } };
                    match outcome {
                        Outcome::Awaited => self.hold(delayed),
                        _ => self.backlog.push_back(delayed),
                    }
                }
            }
        }
    }

    /// Tells what became of a part. Parts of one request that are done one after the other are one answer.
    pub(super) fn answer_part(&mut self, origin: Origin, produced: Produced) {
        let last = if origin.core == self.core {
            self.outbox.answers.last_mut().map(|(request, answer)| (origin.core, *request, answer))
        } else {
            match self.outbox.messages.last_mut() {
                Some((core, Message::Answer { request, answer })) => Some((*core, *request, answer)),
                _ => None,
            }
        };
        if let Some((core, request, Answer::Produce(results))) = last
            && (Origin { core, request }) == origin
        {
            return results.push(produced);
        }
        self.answer(origin, Answer::Produce(ProduceResults::from_buf([produced])));
    }

    fn produce_part(&mut self, origin: Origin, index: u32, id: PartitionId, records: &[u8], now: Now) -> Outcome {
        let refused = |code, message| Outcome::Done(Produced::refused(index, code, message));
        let Some(slot) = self.slot(id) else {
            return if self.is_awaited(id) { Outcome::Awaited } else { refused(ErrorCode::NotLeaderOrFollower, None) };
        };
        if self.disk_full {
            return refused(ErrorCode::KafkaStorageError, Some("The disk is full: free space, or lower retention."));
        }
        if self.log.is_behind(self.partitions[slot as usize].log, records.len()) {
            return Outcome::Backlog;
        }
        let header = match batch::check_produced(records) {
            Ok(header) => header,
            Err(error) => return refused(error.code(), Some(error.message())),
        };
        let partition = &mut self.partitions[slot as usize];
        match self.log.admit(partition.log, records.len()) {
            Ok(()) => {}
            Err(Refused::Backlog) => return Outcome::Backlog,
            Err(refusal) => return refused(refusal_code(refusal), None),
        }
        let (base_offset, next_offset, log_append_time_ms) =
            match partition.state.decide(&header, &partition.rules, now) {
                Decision::Refuse(refusal) => return refused(refusal.code, Some(refusal.message)),
                Decision::Duplicate(first) => (first.base_offset, first.last_offset + 1, -1),
                Decision::Append(placement) => {
                    match placement.log_append_time {
                        None => self.append(slot, &header, records, placement.base_offset),
                        Some(stamp) => {
                            let mut stamped = records.to_vec();
                            batch::set_log_append_time(&mut stamped, stamp);
                            let header = BatchHeader::read(&stamped).expect("a batch that was checked");
                            self.append(slot, &header, &stamped, placement.base_offset);
                        }
                    }
                    (placement.base_offset, placement.next_offset, placement.log_append_time.unwrap_or(-1))
                }
            };
        let Origin { core, request } = origin;
        let part = UndurablePart { request, core, index, base_offset, log_append_time_ms };
        let partition = &mut self.partitions[slot as usize];
        if next_offset <= partition.watermark.high_watermark() {
            let log_start_offset = self.log.start_offset(partition.log);
            return Outcome::Done(part.durable(log_start_offset));
        }
        partition.producing.wait(next_offset, part);
        Outcome::Waits
    }

    /// Appends a batch that has been admitted and placed.
    pub(super) fn append(&mut self, slot: u32, header: &BatchHeader, bytes: &[u8], base_offset: Offset) {
        let partition = &mut self.partitions[slot as usize];
        let epoch = partition.state.leader_epoch();
        self.log
            .append(partition.log, header, bytes, base_offset, epoch)
            .expect("the log has admitted the batch, and nothing has happened since");
        self.note_growth(slot, bytes.len() as u64);
        let partition = &mut self.partitions[slot as usize];
        partition.work += bytes.len() as u64 + OPERATION_BYTES;
        let next_offset = base_offset + Offset::from(header.last_offset_delta) + 1;
        if let Some(advance) = partition.watermark.on_append(next_offset, bytes.len() as u32) {
            self.on_visible(slot, advance);
        }
    }

    /// Records of a partition have become visible: producers and fetches that waited for them go on.
    pub(super) fn on_visible(&mut self, slot: u32, advance: Advance) {
        let mut durable = std::mem::take(&mut self.durable_parts);
        let partition = &mut self.partitions[slot as usize];
        partition.producing.wake(advance.high_watermark, &mut durable);
        if !durable.is_empty() {
            let log_start_offset = self.log.start_offset(partition.log);
            for part in durable.drain(..) {
                self.answer_part(part.origin(), part.durable(log_start_offset));
            }
        }
        self.durable_parts = durable;
        self.on_own_visible(slot, advance.high_watermark);
        self.fetch_waiters.on_visible(slot, advance.bytes, &mut self.ready_fetches);
    }

    /// The disk has caught up: takes what waited, oldest first.
    pub(super) fn resume_backlog(&mut self, now: Now) {
        let before = self.backlog.len();
        while let Some(delayed) = self.backlog.pop_front() {
            if let Err(delayed) = self.take_delayed(delayed, now) {
                self.backlog.push_front(delayed);
                break;
            }
        }
        if self.backlog.len() < before {
            // A partition that is to leave waits for its part of it.
            self.log.notify();
        }
    }

    /// The partition that `held` waited for is here: they come before what has come since.
    pub(super) fn resume_held(&mut self, held: Vec<DelayedPart>, now: Now) {
        let mut held = held.into_iter();
        while let Some(delayed) = held.next() {
            if let Err(delayed) = self.take_delayed(delayed, now) {
                for delayed in std::iter::once(delayed).chain(held).rev() {
                    self.backlog.push_front(delayed);
                }
                return;
            }
        }
    }

    pub(super) fn has_backlog(&self, id: PartitionId) -> bool {
        self.backlog.iter().any(|delayed| delayed.part.partition == id)
    }

    /// Takes up a part that was delayed; gives it back where the disk is behind.
    fn take_delayed(&mut self, delayed: DelayedPart, now: Now) -> Result<(), DelayedPart> {
        let DelayedPart { origin, part: ProducePart { index, partition, records } } = &delayed;
        match self.produce_part(*origin, *index, *partition, records, now) {
            Outcome::Backlog => return Err(delayed),
            Outcome::Awaited => self.hold(delayed),
            Outcome::Done(produced) => self.answer_part(*origin, produced),
            Outcome::Waits => {}
        }
        Ok(())
    }

    /// Refuses a part that was delayed.
    pub(super) fn refuse_delayed(&mut self, delayed: &DelayedPart, error: ErrorCode) {
        self.answer_part(delayed.origin, Produced::refused(delayed.part.index, error, None));
    }

    /// Ends with `error` every produce that waits on a partition which is going away.
    pub(super) fn fail_producing(&mut self, slot: u32, error: ErrorCode) {
        let parts: Vec<UndurablePart> = self.partitions[slot as usize].producing.drain().collect();
        for part in parts {
            self.answer_part(part.origin(), Produced::refused(part.index, error, None));
        }
    }
}

fn refusal_code(refusal: Refused) -> ErrorCode {
    match refusal {
        Refused::DiskFull | Refused::Failed => ErrorCode::KafkaStorageError,
        Refused::TooLarge => ErrorCode::MessageTooLarge,
        Refused::Busy | Refused::Backlog => ErrorCode::NotLeaderOrFollower,
    }
}
