//! Idempotent producers of one partition: which batch is new, which is a repeat, which came out of order.
//!
//! State moves when a batch gets its offset, not when it is durable, so that a producer can have several batches on their way.
//! Transactions are not known here. Source: KIP-98, KIP-360; Kafka `ProducerStateManager`, `ProducerAppendInfo`.

use crate::base::batch::{BatchHeader, NO_SEQUENCE};
use crate::base::error::ErrorCode;
use crate::base::fields::{self, FieldsError};
use crate::base::ids::Offset;
use crate::base::limits::PRODUCERS_PER_PARTITION_MAX;
use crate::base::time::TimestampMs;
use std::collections::HashMap;

/// Batches remembered for each producer: clients keep at most five on their way (`max.in.flight.requests.per.connection`).
pub const BATCHES_PER_PRODUCER: usize = 5;

const SNAPSHOT_VERSION: u8 = 1;
/// A producer without batches in a snapshot: id, epoch, last seen, count of batches.
const SNAPSHOT_PRODUCER_BYTES: usize = 8 + 2 + 8 + 1;

/// What is to be done with a batch of an idempotent producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// New and in order: give it the next offset.
    Append,
    /// Appended before: answer with the offset of that time, once it is visible.
    Duplicate(Duplicate),
}

/// Where a repeated batch was appended the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duplicate {
    pub base_offset: Offset,
    /// The answer waits until the high watermark is beyond this: the first append may not be durable yet.
    pub last_offset: Offset,
    /// Its max timestamp: the log append time where the topic stamps records.
    pub timestamp: TimestampMs,
}

/// One appended batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Batch {
    last_offset: Offset,
    timestamp: TimestampMs,
    /// Last offset less the first; also last sequence less the first, but for the wrap.
    offset_delta: i32,
    last_sequence: i32,
}

impl Batch {
    fn base_offset(&self) -> Offset {
        self.last_offset - Offset::from(self.offset_delta)
    }
}

/// One producer; no heap of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Producer {
    /// Oldest first; only the first `count` mean something.
    batches: [Batch; BATCHES_PER_PRODUCER],
    last_seen_ms: TimestampMs,
    epoch: i16,
    /// Invariant: `count <= BATCHES_PER_PRODUCER`.
    count: u8,
}

impl Producer {
    fn new(epoch: i16) -> Producer {
        Producer { batches: Default::default(), last_seen_ms: 0, epoch, count: 0 }
    }

    fn batches(&self) -> &[Batch] {
        &self.batches[..usize::from(self.count)]
    }

    fn push(&mut self, batch: Batch) {
        if usize::from(self.count) == BATCHES_PER_PRODUCER {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = batch;
        self.count += 1;
    }

    /// The sequence number that the next batch must begin with; 0 where nothing was appended in this epoch.
    fn next_sequence(&self) -> i32 {
        match self.batches().last() {
            None => 0,
            Some(last) if last.last_sequence == i32::MAX => 0,
            Some(last) => last.last_sequence + 1,
        }
    }
}

/// All idempotent producers of one partition.
#[derive(Clone, Debug)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    /// Most producers that `by_id` holds; at least 1.
    producers_max: usize,
}

impl Default for Producers {
    fn default() -> Producers {
        Producers::new(PRODUCERS_PER_PARTITION_MAX)
    }
}

impl Producers {
    /// No producers yet, and room for `producers_max` (at least 1).
    pub fn new(producers_max: usize) -> Producers {
        assert!(producers_max >= 1);
        Producers { by_id: HashMap::new(), producers_max }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Checks a batch of an idempotent producer against that producer's last five.
    ///
    /// A producer not known here (its records are gone, or it was forgotten) may begin with any sequence number, as in Kafka
    /// since KIP-360. A new epoch begins at sequence 0.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`: a newer instance of this producer has written here. `OutOfOrderSequenceNumber`: a gap, or a
    /// repeat of something older than the last five batches.
    pub fn check(&self, batch: &BatchHeader) -> Result<Verdict, ErrorCode> {
        assert!(batch.is_idempotent(), "only idempotent batches have a producer");
        let Some(producer) = self.by_id.get(&batch.producer_id) else {
            return Ok(Verdict::Append);
        };
        if batch.producer_epoch < producer.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 {
                Ok(Verdict::Append)
            } else {
                Err(ErrorCode::OutOfOrderSequenceNumber)
            };
        }
        let last_sequence = batch.last_sequence();
        let repeated = producer
            .batches()
            .iter()
            .find(|known| known.last_sequence == last_sequence && known.offset_delta == batch.last_offset_delta);
        if let Some(known) = repeated {
            return Ok(Verdict::Duplicate(Duplicate {
                base_offset: known.base_offset(),
                last_offset: known.last_offset,
                timestamp: known.timestamp,
            }));
        }
        if batch.base_sequence == producer.next_sequence() {
            Ok(Verdict::Append)
        } else {
            Err(ErrorCode::OutOfOrderSequenceNumber)
        }
    }

    /// Takes note of a batch that `check` let through and that now has `base_offset`; `timestamp` is its max timestamp as stored.
    ///
    /// `now_ms` is when this producer was last heard of. Kafka takes the record's timestamp for that, which lets a client that
    /// sends old records lose its protection at once; the broker's clock does not.
    pub fn append(&mut self, batch: &BatchHeader, base_offset: Offset, timestamp: TimestampMs, now_ms: TimestampMs) {
        if !self.by_id.contains_key(&batch.producer_id) {
            self.make_room();
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer::new(batch.producer_epoch));
        if batch.producer_epoch != producer.epoch {
            *producer = Producer::new(batch.producer_epoch);
        }
        producer.last_seen_ms = now_ms;
        if batch.base_sequence == NO_SEQUENCE {
            return;
        }
        if let Some(last) = producer.batches().last() {
            assert!(base_offset > last.last_offset, "offsets of one producer only grow");
        }
        producer.push(Batch {
            last_offset: base_offset + Offset::from(batch.last_offset_delta),
            timestamp,
            offset_delta: batch.last_offset_delta,
            last_sequence: batch.last_sequence(),
        });
    }

    /// Takes note of a batch found in the log after a snapshot; it was checked when it was appended. Batches that the snapshot
    /// already holds change nothing, so replay may begin anywhere before its end.
    ///
    /// A control batch (the end of a transaction) has no sequence and only moves the epoch.
    pub fn replay(&mut self, batch: &BatchHeader, now_ms: TimestampMs) {
        if !batch.is_idempotent() {
            return;
        }
        if let Some(known) = self.by_id.get(&batch.producer_id) {
            let old = known.batches().last().is_some_and(|last| last.last_offset >= batch.base_offset);
            if old || batch.producer_epoch < known.epoch {
                return;
            }
        }
        self.append(batch, batch.base_offset, batch.max_timestamp, now_ms);
    }

    /// Forgets producers not heard of for `expiration_ms` (`producer.id.expiration.ms`). Visits all of them: call it rarely.
    pub fn expire(&mut self, now_ms: TimestampMs, expiration_ms: i64) {
        self.by_id.retain(|_, producer| now_ms.saturating_sub(producer.last_seen_ms) < expiration_ms);
    }

    /// Makes room for one more. A sixteenth goes at once, so that the search costs little for each producer.
    fn make_room(&mut self) {
        if self.by_id.len() < self.producers_max {
            return;
        }
        let mut by_age: Vec<(TimestampMs, i64)> =
            self.by_id.iter().map(|(&id, producer)| (producer.last_seen_ms, id)).collect();
        let forget = (self.producers_max / 16).max(1);
        by_age.select_nth_unstable(forget - 1);
        for (_, id) in &by_age[..forget] {
            self.by_id.remove(id);
        }
        assert!(self.by_id.len() < self.producers_max);
    }

    /// All producers as bytes, the same for the same state; [`Producers::restore`] reads them.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut ids: Vec<i64> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        let mut body = Vec::with_capacity(4 + ids.len() * (SNAPSHOT_PRODUCER_BYTES + 24));
        body.extend_from_slice(&(ids.len() as u32).to_be_bytes());
        for id in ids {
            let producer = &self.by_id[&id];
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(&producer.epoch.to_be_bytes());
            body.extend_from_slice(&producer.last_seen_ms.to_be_bytes());
            body.push(producer.count);
            for batch in producer.batches() {
                body.extend_from_slice(&batch.last_offset.to_be_bytes());
                body.extend_from_slice(&batch.timestamp.to_be_bytes());
                body.extend_from_slice(&batch.offset_delta.to_be_bytes());
                body.extend_from_slice(&batch.last_sequence.to_be_bytes());
            }
        }
        fields::seal(SNAPSHOT_VERSION, &body)
    }

    /// Reads what [`Producers::snapshot`] wrote; bounded by [`PRODUCERS_PER_PARTITION_MAX`] from here on.
    ///
    /// # Errors
    /// Damaged bytes, an unknown version, or fields that contradict each other.
    pub fn restore(bytes: &[u8]) -> Result<Producers, FieldsError> {
        let (version, mut body) = fields::open(bytes)?;
        if version != SNAPSHOT_VERSION {
            return Err(FieldsError::Version(version));
        }
        let count = body.u32()? as usize;
        if count > body.remaining() / SNAPSHOT_PRODUCER_BYTES || count > PRODUCERS_PER_PARTITION_MAX {
            return Err(FieldsError::Malformed);
        }
        let mut producers = Producers::default();
        for _ in 0..count {
            let id = body.i64()?;
            let mut producer = Producer::new(body.i16()?);
            producer.last_seen_ms = body.i64()?;
            let batches = body.u8()?;
            if usize::from(batches) > BATCHES_PER_PRODUCER {
                return Err(FieldsError::Malformed);
            }
            for _ in 0..batches {
                producer.push(restore_batch(&mut body)?);
            }
            if producers.by_id.insert(id, producer).is_some() {
                return Err(FieldsError::Malformed);
            }
        }
        body.end()?;
        Ok(producers)
    }
}

fn restore_batch(body: &mut fields::Fields<'_>) -> Result<Batch, FieldsError> {
    let batch = Batch {
        last_offset: body.i64()?,
        timestamp: body.i64()?,
        offset_delta: body.i32()?,
        last_sequence: body.i32()?,
    };
    let sound =
        batch.offset_delta >= 0 && batch.last_offset >= Offset::from(batch.offset_delta) && batch.last_sequence >= 0;
    if sound { Ok(batch) } else { Err(FieldsError::Malformed) }
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
