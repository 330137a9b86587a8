//! Produce on the core that owns the partitions: check, place, append, and the answer once it is durable.

use super::Shard;
use super::balance::OPERATION_BYTES;
use super::commands::{Answer, Origin, ProducePart, ProduceResults, Produced};
use crate::base::batch::{self, BatchHeader};
use crate::base::error::ErrorCode;
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::Now;
use crate::log::Refused;
use crate::partition::append::Decision;
use crate::partition::watermark::Advance;
use crate::ports::Disk;
use bytes::Bytes;

/// A Produce of which some partitions are not durable yet.
pub(super) struct WaitingProduce {
    origin: Origin,
    results: ProduceResults,
    missing: u32,
}

/// A part that waits because the disk is behind, or for its partition to come here. Its turn comes in the order of arrival.
pub(super) struct DelayedPart {
    waiting: u64,
    pub part: ProducePart<Bytes>,
}

/// Names one partition's part of a waiting Produce.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProduceKey {
    waiting: u64,
    /// Its place in `results`.
    place: u32,
}

/// What became of one part.
enum Outcome {
    Done(Produced),
    /// Answer with this when the high watermark reaches `next_offset`.
    WaitsFor {
        next_offset: Offset,
        slot: u32,
        then: Produced,
    },
    /// The disk is behind.
    Backlog,
    /// The partition is on its way to this core.
    Awaited,
}

impl<D: Disk> Shard<D> {
    /// Appends the batches of `parts`. `share` makes a part's bytes outlive this call; it is asked only where a part is delayed.
    pub fn produce<R: AsRef<[u8]>>(
        &mut self,
        origin: Origin,
        parts: impl IntoIterator<Item = ProducePart<R>, IntoIter: ExactSizeIterator>,
        share: impl Fn(R) -> Bytes,
        now: Now,
    ) {
        let parts = parts.into_iter();
        let mut results = ProduceResults::with_capacity(parts.len());
        let waiting =
            self.waiting_produces.insert(WaitingProduce { origin, results: ProduceResults::new(), missing: 0 });
        let mut missing = 0;
        for part in parts {
            let place = results.len() as u32;
            let outcome = if self.backlog.is_empty() {
                let ProducePart { index, partition, records } = &part;
                self.produce_part(*index, *partition, records.as_ref(), now)
            } else {
                Outcome::Backlog
            };
            match outcome {
                Outcome::Done(produced) => results.push(produced),
                Outcome::WaitsFor { next_offset, slot, then } => {
                    results.push(then);
                    self.partitions[slot as usize].producing.wait(next_offset, ProduceKey { waiting, place });
                    missing += 1;
                }
                Outcome::Backlog | Outcome::Awaited => {
                    results.push(Produced::refused(part.index, ErrorCode::RequestTimedOut, None));
                    let ProducePart { index, partition, records } = part;
                    let delayed =
                        DelayedPart { waiting, part: ProducePart { index, partition, records: share(records) } };
                    match outcome {
                        Outcome::Awaited => self.hold(delayed),
                        _ => self.backlog.push_back(delayed),
                    }
                    missing += 1;
                }
            }
        }
        if missing == 0 {
            self.waiting_produces.remove(waiting);
            return self.answer(origin, Answer::Produce(results));
        }
        let place = self.waiting_produces.find(waiting).expect("nothing is durable before this call ends");
        (place.results, place.missing) = (results, missing);
    }

    fn produce_part(&mut self, index: u32, id: PartitionId, records: &[u8], now: Now) -> Outcome {
        let refused = |code, message| Outcome::Done(Produced::refused(index, code, message));
        let Some(slot) = self.slot(id) else {
            return if self.is_awaited(id) { Outcome::Awaited } else { refused(ErrorCode::NotLeaderOrFollower, None) };
        };
        if self.disk_full {
            return refused(ErrorCode::KafkaStorageError, Some("The disk is full: free space, or lower retention."));
        }
        if self.log.is_behind(records.len()) {
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
        let log_start_offset = self.log.start_offset(partition.log);
        let produced = |base_offset, log_append_time_ms| Produced {
            index,
            error: ErrorCode::None,
            message: None,
            base_offset,
            log_append_time_ms,
            log_start_offset,
        };
        match partition.state.decide(&header, &partition.rules, now) {
            Decision::Refuse(refusal) => refused(refusal.code, Some(refusal.message)),
            Decision::Duplicate(first) => {
                let then = produced(first.base_offset, -1);
                let next_offset = first.last_offset + 1;
                if next_offset <= partition.watermark.high_watermark() {
                    return Outcome::Done(then);
                }
                Outcome::WaitsFor { next_offset, slot, then }
            }
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
                let then = produced(placement.base_offset, placement.log_append_time.unwrap_or(-1));
                let partition = &self.partitions[slot as usize];
                if placement.next_offset <= partition.watermark.high_watermark() {
                    return Outcome::Done(then);
                }
                Outcome::WaitsFor { next_offset: placement.next_offset, slot, then }
            }
        }
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
        let mut woken = std::mem::take(&mut self.woken_produces);
        self.partitions[slot as usize].producing.wake(advance.high_watermark, &mut woken);
        for key in woken.drain(..) {
            self.part_done(key.waiting);
        }
        self.woken_produces = woken;
        self.on_own_visible(slot, advance.high_watermark);
        self.fetch_waiters.on_visible(slot, advance.bytes, &mut self.ready_fetches);
    }

    /// One more part of a waiting Produce has its result.
    fn part_done(&mut self, waiting: u64) {
        let Some(produce) = self.waiting_produces.find(waiting) else { return };
        produce.missing -= 1;
        if produce.missing == 0 {
            let done = self.waiting_produces.remove(waiting).expect("found above");
            self.answer(done.origin, Answer::Produce(done.results));
        }
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
        let ProducePart { index, partition, records } = &delayed.part;
        match self.produce_part(*index, *partition, records, now) {
            Outcome::Backlog => return Err(delayed),
            Outcome::Awaited => self.hold(delayed),
            Outcome::Done(produced) => self.delayed_done(&delayed, produced),
            Outcome::WaitsFor { next_offset, slot, then } => {
                let waiting = delayed.waiting;
                let place = self.set_result(waiting, then);
                self.partitions[slot as usize].producing.wait(next_offset, ProduceKey { waiting, place });
            }
        }
        Ok(())
    }

    /// A part that was delayed has its result.
    pub(super) fn delayed_done(&mut self, delayed: &DelayedPart, produced: Produced) {
        self.set_result(delayed.waiting, produced);
        self.part_done(delayed.waiting);
    }

    fn set_result(&mut self, waiting: u64, produced: Produced) -> u32 {
        let produce = self.waiting_produces.find(waiting).expect("a delayed part keeps its produce waiting");
        let place = produce.results.iter().position(|result| result.index == produced.index).expect("one of its parts");
        produce.results[place] = produced;
        place as u32
    }

    /// Ends with `error` every produce that waits on a partition which is going away.
    pub(super) fn fail_producing(&mut self, slot: u32, error: ErrorCode) {
        let keys: Vec<ProduceKey> = self.partitions[slot as usize].producing.drain().collect();
        for key in keys {
            if let Some(produce) = self.waiting_produces.find(key.waiting) {
                let result = &mut produce.results[key.place as usize];
                *result = Produced::refused(result.index, error, None);
            }
            self.part_done(key.waiting);
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
