//! Producers against transcripts and against a model that remembers everything.

use super::*;
use crate::base::record::BatchBuilder;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A batch header of producer `id` with `count` records from `sequence` on.
fn batch(id: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
    let mut builder = BatchBuilder::new(1000);
    builder.push(1000, None, None);
    let mut header = BatchHeader::read(&builder.finish()).expect("header");
    header.producer_id = id;
    header.producer_epoch = epoch;
    header.base_sequence = sequence;
    header.last_offset_delta = count - 1;
    header.record_count = count;
    header
}

/// A partition in miniature: appends what is let through.
struct Partition {
    producers: Producers,
    log_end: Offset,
    log: Vec<BatchHeader>,
}

impl Partition {
    fn new() -> Partition {
        Partition { producers: Producers::default(), log_end: 0, log: Vec::new() }
    }

    /// What the producer is told: `+offset` appended, `=offset` a repeat, or the error.
    fn send(&mut self, mut header: BatchHeader) -> String {
        match self.producers.check(&header) {
            Ok(Verdict::Append) => {
                let base_offset = self.log_end;
                self.producers.append(&header, base_offset, header.max_timestamp, 0);
                header.base_offset = base_offset;
                self.log.push(header);
                self.log_end = header.next_offset();
                format!("+{base_offset}")
            }
            Ok(Verdict::Duplicate(first)) => format!("={}..{}", first.base_offset, first.last_offset),
            Err(code) => format!("{code:?}"),
        }
    }
}

const OUT_OF_ORDER: &str = "OutOfOrderSequenceNumber";
const FENCED: &str = "InvalidProducerEpoch";

/// (epoch, base sequence, records) → answer, one partition and producer throughout.
fn transcript(steps: &[(i16, i32, i32, &str)]) {
    let mut partition = Partition::new();
    for (at, &(epoch, sequence, count, expected)) in steps.iter().enumerate() {
        assert_eq!(partition.send(batch(7, epoch, sequence, count)), expected, "step {at}");
    }
}

#[test]
fn batches_in_order_are_appended() {
    transcript(&[(0, 0, 3, "+0"), (0, 3, 2, "+3"), (0, 5, 1, "+5")]);
}

#[test]
fn duplicate_batch_gets_its_first_offset() {
    transcript(&[(0, 0, 3, "+0"), (0, 3, 2, "+3"), (0, 0, 3, "=0..2"), (0, 3, 2, "=3..4"), (0, 5, 1, "+5")]);
}

#[test]
fn the_last_five_batches_are_known_and_the_sixth_is_out_of_order() {
    transcript(&[
        (0, 0, 1, "+0"),
        (0, 1, 1, "+1"),
        (0, 2, 1, "+2"),
        (0, 3, 1, "+3"),
        (0, 4, 1, "+4"),
        (0, 0, 1, "=0..0"),
        (0, 5, 1, "+5"),
        (0, 0, 1, OUT_OF_ORDER),
        (0, 1, 1, "=1..1"),
        (0, 5, 1, "=5..5"),
    ]);
}

#[test]
fn gaps_overlaps_and_other_cuts_of_known_records_are_out_of_order() {
    transcript(&[
        (0, 0, 4, "+0"),
        (0, 5, 1, OUT_OF_ORDER),
        (0, 3, 1, OUT_OF_ORDER),
        (0, 0, 3, OUT_OF_ORDER),
        (0, 2, 4, OUT_OF_ORDER),
        (0, 4, 1, "+4"),
    ]);
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    transcript(&[
        (3, 0, 2, "+0"),
        (2, 2, 1, FENCED),
        (2, 0, 2, FENCED),
        (4, 2, 1, OUT_OF_ORDER),
        (4, 0, 2, "+2"),
        (3, 2, 1, FENCED),
        (4, 0, 2, "=2..3"),
        (4, 2, 1, "+4"),
    ]);
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    transcript(&[(0, 41, 1, "+0"), (0, 42, 1, "+1"), (0, 44, 1, OUT_OF_ORDER)]);
}

#[test]
fn sequences_wrap_between_and_within_batches() {
    transcript(&[(0, i32::MAX - 1, 2, "+0"), (0, 0, 1, "+2"), (0, i32::MAX - 1, 2, "=0..1")]);
    transcript(&[(0, i32::MAX - 1, 4, "+0"), (0, 0, 1, OUT_OF_ORDER), (0, 2, 1, "+4"), (0, i32::MAX - 1, 4, "=0..3")]);
}

#[test]
fn producers_do_not_disturb_each_other() {
    let mut partition = Partition::new();
    assert_eq!(partition.send(batch(1, 0, 0, 1)), "+0");
    assert_eq!(partition.send(batch(2, 5, 0, 1)), "+1");
    assert_eq!(partition.send(batch(1, 0, 1, 1)), "+2");
    assert_eq!(partition.send(batch(2, 5, 0, 1)), "=1..1");
}

#[test]
fn silent_producers_expire_and_heard_ones_stay() {
    let mut producers = Producers::default();
    producers.append(&batch(1, 0, 0, 1), 0, 0, 1000);
    producers.append(&batch(2, 0, 0, 1), 1, 0, 1500);
    producers.expire(1999, 1000);
    assert_eq!(producers.len(), 2);
    producers.expire(2000, 1000);
    assert_eq!(producers.len(), 1);
    assert_eq!(producers.check(&batch(2, 0, 9, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(producers.check(&batch(1, 0, 9, 1)), Ok(Verdict::Append));
}

#[test]
fn a_full_table_forgets_the_longest_silent() {
    let mut producers = Producers::new(4);
    for id in 0..4 {
        producers.append(&batch(id, 0, 0, 1), id, 0, 100 - id);
    }
    producers.append(&batch(9, 0, 0, 1), 9, 0, 200);
    assert_eq!(producers.len(), 4);
    assert_eq!(producers.check(&batch(3, 0, 5, 1)), Ok(Verdict::Append), "the longest silent is unknown now");
    assert_eq!(producers.check(&batch(2, 0, 5, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    producers.append(&batch(2, 0, 1, 1), 10, 0, 201);
    assert_eq!(producers.len(), 4, "a known producer needs no room");
}

#[test]
fn replay_takes_up_where_the_snapshot_ends_wherever_it_starts() {
    let mut partition = Partition::new();
    for sequence in 0..3 {
        partition.send(batch(1, 0, sequence, 1));
    }
    let snapshot = partition.producers.snapshot();
    for sequence in 3..9 {
        partition.send(batch(1, 0, sequence, 1));
    }
    partition.send(batch(1, 1, 0, 2));
    for start in 0..=3 {
        let mut restored = Producers::restore(&snapshot).expect("sound");
        for header in &partition.log[start..] {
            restored.replay(header, 0);
        }
        assert_eq!(restored.snapshot(), partition.producers.snapshot(), "from batch {start}");
    }
}

#[test]
fn a_control_batch_moves_the_epoch_and_leaves_no_sequence() {
    let mut producers = Producers::default();
    producers.append(&batch(1, 4, 0, 2), 0, 0, 0);
    let mut control = batch(1, 5, NO_SEQUENCE, 1);
    control.base_offset = 2;
    producers.replay(&control, 0);
    assert_eq!(producers.check(&batch(1, 4, 2, 1)), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(producers.check(&batch(1, 5, 0, 1)), Ok(Verdict::Append));
    assert_eq!(producers.check(&batch(1, 5, 1, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused() {
    let mut producers = Producers::default();
    producers.append(&batch(1, 0, 0, 1), 0, 0, 0);
    let snapshot = producers.snapshot();
    for byte in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[byte] ^= 0x10;
        assert_eq!(Producers::restore(&damaged).unwrap_err(), FieldsError::Crc, "byte {byte}");
    }
    let body = &snapshot[1..snapshot.len() - 4];
    assert_eq!(Producers::restore(&fields::seal(9, body)).unwrap_err(), FieldsError::Version(9));
    for end in 0..body.len() {
        let cut = fields::seal(SNAPSHOT_VERSION, &body[..end]);
        assert_eq!(Producers::restore(&cut).unwrap_err(), FieldsError::Malformed, "cut at {end}");
    }
    let mut huge = body.to_vec();
    huge[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(Producers::restore(&fields::seal(SNAPSHOT_VERSION, &huge)).unwrap_err(), FieldsError::Malformed);
}

/// Remembers all batches of each producer and looks only at the last five of its newest epoch.
#[derive(Default)]
struct Model {
    appended: BTreeMap<i64, Vec<(i16, i64, i64, Offset)>>,
    log_end: Offset,
}

impl Model {
    fn send(&mut self, header: &BatchHeader) -> String {
        let count = i64::from(header.record_count);
        let modulus = i64::from(i32::MAX) + 1;
        let first = i64::from(header.base_sequence);
        let all = self.appended.entry(header.producer_id).or_default();
        let epoch = all.last().map(|entry| entry.0);
        let newest: Vec<_> = all.iter().rev().take_while(|entry| Some(entry.0) == epoch).take(5).collect();
        let fits = match epoch {
            None => true,
            Some(known) if header.producer_epoch < known => return FENCED.into(),
            Some(known) if header.producer_epoch > known => first == 0,
            Some(_) => {
                if let Some(entry) = newest.iter().find(|entry| (entry.1, entry.2) == (first, count)) {
                    return format!("={}..{}", entry.3, entry.3 + count - 1);
                }
                first == (newest[0].1 + newest[0].2) % modulus
            }
        };
        if !fits {
            return OUT_OF_ORDER.into();
        }
        all.push((header.producer_epoch, first, count, self.log_end));
        self.log_end += count;
        format!("+{}", self.log_end - count)
    }
}

/// Where a random batch begins: relative to what its producer would send next.
fn sends() -> impl Strategy<Value = Vec<(i64, i16, i32, i32)>> {
    let step = prop_oneof![6 => Just(0i32), 3 => -8i32..0, 1 => 1i32..3];
    prop::collection::vec(
        (0..3i64, prop_oneof![20 => Just(0i16), 1 => Just(1i16), 1 => Just(-1i16)], step, 1..4i32),
        1..120,
    )
}

proptest! {
    #[test]
    fn producers_agree_with_a_model_that_remembers_everything(
        sends in sends(),
        start in prop_oneof![Just(0), Just(i32::MAX - 10), Just(5)],
        cut in 0..120usize,
    ) {
        let mut partition = Partition::new();
        let mut model = Model::default();
        let mut next: BTreeMap<i64, (i16, i32)> = BTreeMap::new();
        let modulus = i64::from(i32::MAX) + 1;
        let wrap = |value: i64| value.rem_euclid(modulus) as i32;
        for (at, (id, epoch_step, step, count)) in sends.into_iter().enumerate() {
            let (epoch, sequence) = next.entry(id).or_insert((3, start));
            let begins_epoch = epoch_step == 1;
            let sent_epoch = *epoch + epoch_step;
            let sent = if begins_epoch { step.max(0) } else { wrap(i64::from(*sequence) + i64::from(step)) };
            let header = batch(id, sent_epoch, sent, count);
            let answer = partition.send(header);
            prop_assert_eq!(&answer, &model.send(&header), "step {}", at);
            if answer.starts_with('+') {
                (*epoch, *sequence) = (sent_epoch, wrap(i64::from(sent) + i64::from(count)));
            }
            if at == cut {
                partition.producers = Producers::restore(&partition.producers.snapshot()).expect("sound");
            }
        }
        let mut replayed = Producers::default();
        for header in &partition.log {
            replayed.replay(header, 0);
        }
        prop_assert_eq!(replayed.snapshot(), partition.producers.snapshot());
    }

    #[test]
    fn restoring_any_sealed_bytes_ends_in_a_value_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Producers::restore(&fields::seal(SNAPSHOT_VERSION, &body));
        let _ = Producers::restore(&body);
    }
}
