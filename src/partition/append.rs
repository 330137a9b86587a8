//! Decides about one produced batch: the topic's rules, then its producer, then its offset.
//!
//! Pure: the batch itself was checked by `base::batch::check_produced`; bytes reach disk in `log`, acknowledgement is `watermark`.
//! Source: Kafka `UnifiedLog.append`, `LogValidator`.

use super::producers::{Duplicate, Producers, Verdict};
use crate::base::batch::{ATTRIBUTE_LOG_APPEND_TIME, BatchHeader};
use crate::base::error::ErrorCode;
use crate::base::ids::Offset;
use crate::base::time::{Now, TimestampMs};

/// Who says when a record was written (`message.timestamp.type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// What a topic allows to be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendRules {
    /// `max.message.bytes`: largest batch, header included.
    pub message_bytes_max: u32,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record may lie in the past. Not asked where the broker stamps.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future.
    pub timestamp_after_max_ms: i64,
}

/// The place a new batch has been given. The state has moved on already: it must now be appended, or the core must stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    pub base_offset: Offset,
    /// The log's end after it; the answer to the producer waits for the high watermark to get here.
    pub next_offset: Offset,
    pub leader_epoch: i32,
    /// `base::batch::set_log_append_time` with this before the batch is written; also told to the producer.
    pub log_append_time: Option<TimestampMs>,
}

/// Why a batch was not taken, for the producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: &'static str,
}

/// What becomes of a produced batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Append(Placement),
    /// Answer with its first offset, once the high watermark is beyond its last.
    Duplicate(Duplicate),
    Refuse(Refusal),
}

/// What a partition must know to place the next batch.
#[derive(Debug)]
pub struct AppendState {
    /// Invariant: at least 0, and only grows while this node leads.
    log_end: Offset,
    leader_epoch: i32,
    producers: Producers,
}

impl AppendState {
    /// A partition as recovery left it.
    pub fn new(log_end: Offset, leader_epoch: i32, producers: Producers) -> AppendState {
        assert!(log_end >= 0 && leader_epoch >= 0);
        AppendState { log_end, leader_epoch, producers }
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// For expiry; batches go through `decide`.
    pub fn producers_mut(&mut self) -> &mut Producers {
        &mut self.producers
    }

    /// This node leads in `epoch` from here on.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        assert!(epoch >= self.leader_epoch, "leader epochs only grow");
        self.leader_epoch = epoch;
    }

    /// Decides about a batch that a client produced, and on `Append` gives it the offsets from `log_end` on.
    ///
    /// A repeat is recognised before the topic's rules are asked: it is in the log already, and a rule that has changed since,
    /// or a timestamp that has grown old, must not turn its answer into an error.
    pub fn decide(&mut self, batch: &BatchHeader, rules: &AppendRules, now: Now) -> Decision {
        if batch.is_transactional() {
            // Taken as plain records they would be visible whether or not the transaction ends well.
            return refuse(ErrorCode::InvalidTxnState, "The producer has no transaction on this partition.");
        }
        let verdict = if batch.is_idempotent() { self.producers.check(batch) } else { Ok(Verdict::Append) };
        if let Ok(Verdict::Duplicate(first)) = verdict {
            return Decision::Duplicate(first);
        }
        if let Err(refusal) = check_rules(batch, rules, now.wall_ms) {
            return Decision::Refuse(refusal);
        }
        match verdict {
            Err(code) => refuse(code, producer_message(code)),
            Ok(_) => Decision::Append(self.place(batch, rules, now.wall_ms)),
        }
    }

    /// Places a batch that the broker writes itself (group offsets, metadata): no rules, no producer.
    pub fn place_own(&mut self, record_count: u32) -> Placement {
        assert!(record_count >= 1);
        let base_offset = self.log_end;
        self.log_end += Offset::from(record_count);
        Placement { base_offset, next_offset: self.log_end, leader_epoch: self.leader_epoch, log_append_time: None }
    }

    fn place(&mut self, batch: &BatchHeader, rules: &AppendRules, now_ms: TimestampMs) -> Placement {
        let log_append_time = (rules.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
        let placement = Placement { log_append_time, ..self.place_own(batch.record_count.unsigned_abs()) };
        if batch.is_idempotent() {
            let timestamp = log_append_time.unwrap_or(batch.max_timestamp);
            self.producers.append(batch, placement.base_offset, timestamp, now_ms);
        }
        assert_eq!(placement.next_offset - placement.base_offset, Offset::from(batch.last_offset_delta) + 1);
        placement
    }
}

fn refuse(code: ErrorCode, message: &'static str) -> Decision {
    Decision::Refuse(Refusal { code, message })
}

fn producer_message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidProducerEpoch => "A newer instance of this producer has written to the partition.",
        _ => "The batch does not follow the producer's last one.",
    }
}

/// Size and timestamps. Of a compressed batch only the header's timestamps are known: its first record's and its largest.
fn check_rules(batch: &BatchHeader, rules: &AppendRules, now_ms: TimestampMs) -> Result<(), Refusal> {
    if batch.batch_bytes() > rules.message_bytes_max as usize {
        let message = "The batch is larger than the topic's max.message.bytes.";
        return Err(Refusal { code: ErrorCode::MessageTooLarge, message });
    }
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let invalid = |message| Err(Refusal { code: ErrorCode::InvalidTimestamp, message });
    if batch.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0 {
        return invalid("Only the broker may mark a batch as stamped by the broker.");
    }
    for timestamp in [batch.base_timestamp, batch.max_timestamp] {
        // Negative means that the record has none.
        if timestamp < 0 {
            continue;
        }
        if now_ms.saturating_sub(timestamp) > rules.timestamp_before_max_ms {
            return invalid("A timestamp is older than the topic's message.timestamp.before.max.ms allows.");
        }
        if timestamp.saturating_sub(now_ms) > rules.timestamp_after_max_ms {
            return invalid(
                "A timestamp is further in the future than the topic's message.timestamp.after.max.ms allows.",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::batch::ATTRIBUTE_TRANSACTIONAL;
    use crate::base::record::BatchBuilder;
    use crate::base::time::Nanos;

    const NOW: Now = Now { mono: Nanos(0), wall_ms: 100_000 };
    const RULES: AppendRules = AppendRules {
        message_bytes_max: 1000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: 10_000,
        timestamp_after_max_ms: 1000,
    };

    fn batch(timestamps: &[TimestampMs]) -> BatchHeader {
        let mut builder = BatchBuilder::new(timestamps[0]);
        for &timestamp in timestamps {
            builder.push(timestamp, None, Some(b"value"));
        }
        BatchHeader::read(&builder.finish()).expect("header")
    }

    fn idempotent(sequence: i32) -> BatchHeader {
        BatchHeader { producer_id: 9, producer_epoch: 0, base_sequence: sequence, ..batch(&[NOW.wall_ms; 2]) }
    }

    fn state() -> AppendState {
        AppendState::new(40, 3, Producers::default())
    }

    fn code(decision: Decision) -> ErrorCode {
        match decision {
            Decision::Refuse(refusal) => refusal.code,
            _ => ErrorCode::None,
        }
    }

    #[test]
    fn batches_get_dense_offsets_and_the_leader_epoch() {
        let mut state = state();
        for (base_offset, count) in [(40, 3), (43, 1), (44, 2)] {
            let expected = Placement {
                base_offset,
                next_offset: base_offset + count as i64,
                leader_epoch: 3,
                log_append_time: None,
            };
            let decision = state.decide(&batch(&vec![NOW.wall_ms; count]), &RULES, NOW);
            assert_eq!(decision, Decision::Append(expected));
        }
        state.set_leader_epoch(5);
        assert_eq!(state.place_own(4).leader_epoch, 5);
        assert_eq!(state.log_end(), 50);
    }

    #[test]
    fn a_refused_batch_takes_no_offset() {
        let mut state = state();
        let rules = AppendRules { message_bytes_max: 50, ..RULES };
        assert_eq!(code(state.decide(&batch(&[NOW.wall_ms]), &rules, NOW)), ErrorCode::MessageTooLarge);
        assert_eq!(code(state.decide(&idempotent(0), &rules, NOW)), ErrorCode::MessageTooLarge);
        assert_eq!((state.log_end(), state.producers().len()), (40, 0));
    }

    #[test]
    fn a_batch_may_be_just_as_large_as_allowed() {
        let header = batch(&[NOW.wall_ms]);
        let exact = AppendRules { message_bytes_max: header.batch_bytes() as u32, ..RULES };
        assert_eq!(code(state().decide(&header, &exact, NOW)), ErrorCode::None);
        let less = AppendRules { message_bytes_max: exact.message_bytes_max - 1, ..RULES };
        assert_eq!(code(state().decide(&header, &less, NOW)), ErrorCode::MessageTooLarge);
    }

    #[test]
    fn timestamps_are_held_to_the_topics_window() {
        for (timestamps, expected) in [
            (&[100_000][..], ErrorCode::None),
            (&[90_000], ErrorCode::None),
            (&[89_999], ErrorCode::InvalidTimestamp),
            (&[101_000], ErrorCode::None),
            (&[101_001], ErrorCode::InvalidTimestamp),
            (&[100_000, 101_001], ErrorCode::InvalidTimestamp),
            (&[89_999, 100_000], ErrorCode::InvalidTimestamp),
            (&[-1], ErrorCode::None),
        ] {
            assert_eq!(code(state().decide(&batch(timestamps), &RULES, NOW)), expected, "{timestamps:?}");
        }
        let wide = AppendRules { timestamp_before_max_ms: i64::MAX, timestamp_after_max_ms: i64::MAX, ..RULES };
        for timestamp in [0, i64::MAX] {
            let header = BatchHeader { max_timestamp: timestamp, ..batch(&[0]) };
            assert_eq!(code(state().decide(&header, &wide, NOW)), ErrorCode::None, "{timestamp}");
        }
    }

    #[test]
    fn a_topic_that_stamps_takes_any_timestamp_and_tells_its_own() {
        let rules = AppendRules { timestamp_type: TimestampType::LogAppendTime, ..RULES };
        let mut state = state();
        let Decision::Append(placement) = state.decide(&batch(&[5]), &rules, NOW) else { panic!("refused") };
        assert_eq!(placement.log_append_time, Some(NOW.wall_ms));

        assert!(matches!(state.decide(&idempotent(0), &rules, NOW), Decision::Append(_)));
        let later = Now { wall_ms: NOW.wall_ms + 5000, ..NOW };
        let repeat = Duplicate { base_offset: 41, last_offset: 42, timestamp: NOW.wall_ms };
        assert_eq!(state.decide(&idempotent(0), &rules, later), Decision::Duplicate(repeat));
    }

    #[test]
    fn a_client_may_not_claim_the_brokers_stamp() {
        let header = BatchHeader { attributes: ATTRIBUTE_LOG_APPEND_TIME, ..batch(&[NOW.wall_ms]) };
        assert_eq!(code(state().decide(&header, &RULES, NOW)), ErrorCode::InvalidTimestamp);
    }

    #[test]
    fn a_repeat_is_known_even_when_the_rules_have_changed() {
        let mut state = state();
        assert!(matches!(state.decide(&idempotent(0), &RULES, NOW), Decision::Append(_)));
        let strict = AppendRules { message_bytes_max: 1, ..RULES };
        let later = Now { wall_ms: NOW.wall_ms + 60_000, ..NOW };
        let Decision::Duplicate(first) = state.decide(&idempotent(0), &strict, later) else { panic!("not known") };
        assert_eq!((first.base_offset, first.last_offset, state.log_end()), (40, 41, 42));
        assert_eq!(code(state.decide(&idempotent(7), &RULES, NOW)), ErrorCode::OutOfOrderSequenceNumber);
    }

    #[test]
    fn transactional_batches_are_refused() {
        let header = BatchHeader { attributes: ATTRIBUTE_TRANSACTIONAL, ..idempotent(0) };
        assert_eq!(code(state().decide(&header, &RULES, NOW)), ErrorCode::InvalidTxnState);
    }
}
