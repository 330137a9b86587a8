//! What became of the records that were sent: lost, doubled, out of order, changed.
//!
//! Pure. One `Check` for each group of consumers: each group must see everything once.

use crate::mark::{self, Mark};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Numbers named one by one in a report, at most.
const EXAMPLES_MAX: usize = 10;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Records of this run that were read as they were sent.
    pub seen: u64,
    /// Acknowledged and never read.
    pub lost: u64,
    /// Read again.
    pub doubled: u64,
    /// Read after one of the same producer and partition that was sent later.
    pub reordered: u64,
    /// Not as it was sent.
    pub damaged: u64,
    /// Sent without an answer, and not read either: nobody promised anything.
    pub unanswered: u64,
    /// The first faults, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.damaged == 0
    }

    /// Both together: of another group or another thread.
    pub fn add(&mut self, other: Verdict) {
        self.seen += other.seen;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
        self.unanswered += other.unanswered;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// The records of one producer in one partition.
#[derive(Default)]
struct Stream {
    /// The number after the highest that was read.
    next: u64,
    /// Below `next` and not read yet.
    missing: BTreeSet<u64>,
}

/// What one group has read.
pub struct Check {
    run: u32,
    streams: HashMap<(u32, u32), Stream>,
    verdict: Verdict,
}

impl Check {
    pub fn new(run: u32) -> Check {
        Check { run, streams: HashMap::new(), verdict: Verdict::default() }
    }

    /// A value of `partition` was read at `offset`.
    pub fn on_value(&mut self, partition: u32, offset: i64, value: &[u8]) -> Option<Mark> {
        let mark = match mark::read(value, true) {
            mark::Read::Whole(mark) if mark.run == self.run => mark,
            mark::Read::Whole(_) | mark::Read::Foreign => return None,
            mark::Read::Damaged => {
                self.on_damage(partition, offset, "the value's checksum does not fit");
                return None;
            }
        };
        let (verdict, stream) = (&mut self.verdict, self.streams.entry((partition, mark.producer)).or_default());
        let at = |what: &str| {
            format!(
                "{what}: record {} of producer {} in partition {partition}, at offset {offset}",
                mark.number, mark.producer
            )
        };
        if mark.number >= stream.next {
            stream.missing.extend(stream.next..mark.number);
            stream.next = mark.number + 1;
            verdict.seen += 1;
        } else if stream.missing.remove(&mark.number) {
            verdict.seen += 1;
            verdict.reordered += 1;
            verdict.note(|| at("out of order"));
        } else {
            verdict.doubled += 1;
            verdict.note(|| at("doubled"));
        }
        Some(mark)
    }

    /// Bytes of `partition` at `offset` are not what was sent, or no records at all.
    pub fn on_damage(&mut self, partition: u32, offset: i64, why: &str) {
        self.verdict.damaged += 1;
        self.verdict.note(|| format!("damaged: partition {partition}, offset {offset}: {why}"));
    }

    /// The end: `sent` says, by partition and producer, how many records were sent, and which of them were acknowledged.
    pub fn finish(mut self, sent: &AllSent) -> Verdict {
        for (&(partition, producer), sent) in sent {
            let stream = self.streams.remove(&(partition, producer)).unwrap_or_default();
            for number in stream.missing.iter().copied().chain(stream.next..sent.count) {
                if sent.unanswered.contains(&number) {
                    self.verdict.unanswered += 1;
                } else {
                    self.verdict.lost += 1;
                    self.verdict
                        .note(|| format!("lost: record {number} of producer {producer} in partition {partition}"));
                }
            }
        }
        self.verdict
    }
}

/// By partition and producer.
pub type AllSent = BTreeMap<(u32, u32), Sent>;

/// The records that a producer sent to a partition.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub count: u64,
    /// Without an answer, or refused.
    pub unanswered: BTreeSet<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(run: u32, number: u64) -> Vec<u8> {
        let mut value = Vec::new();
        Mark { run, producer: 1, number, due: 0 }.append(40, b"x", &mut value);
        value
    }

    fn verdict(numbers: &[u64], count: u64, unanswered: &[u64]) -> Verdict {
        let mut check = Check::new(1);
        for (offset, &number) in numbers.iter().enumerate() {
            check.on_value(0, offset as i64, &value(1, number));
        }
        let sent = Sent { count, unanswered: unanswered.iter().copied().collect() };
        check.finish(&BTreeMap::from([((0, 1), sent)]))
    }

    fn counts(verdict: &Verdict) -> (u64, u64, u64, u64, u64) {
        (verdict.seen, verdict.lost, verdict.doubled, verdict.reordered, verdict.unanswered)
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        assert_eq!(counts(&verdict(&[0, 1, 2], 3, &[])), (3, 0, 0, 0, 0));
        assert_eq!(counts(&verdict(&[0, 2], 3, &[])), (2, 1, 0, 0, 0), "lost in the middle");
        assert_eq!(counts(&verdict(&[0, 1], 4, &[])), (2, 2, 0, 0, 0), "lost at the end");
        assert_eq!(counts(&verdict(&[], 2, &[])), (0, 2, 0, 0, 0), "all lost");
        assert_eq!(counts(&verdict(&[0, 1, 1, 2], 3, &[])), (3, 0, 1, 0, 0), "doubled");
        assert_eq!(counts(&verdict(&[0, 2, 1], 3, &[])), (3, 0, 0, 1, 0), "out of order");
        assert_eq!(counts(&verdict(&[0, 1], 4, &[2, 3])), (2, 0, 0, 0, 2), "nobody promised the last two");
        assert_eq!(counts(&verdict(&[0, 1, 2], 3, &[2])), (3, 0, 0, 0, 0), "unanswered, and there all the same");
    }

    #[test]
    fn other_runs_and_other_peoples_records_are_passed_over() {
        let mut check = Check::new(1);
        check.on_value(0, 0, &value(2, 0));
        check.on_value(0, 1, b"somebody else's");
        let verdict = check.finish(&BTreeMap::new());
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn damage_is_found_and_named() {
        let mut check = Check::new(1);
        let mut damaged = value(1, 0);
        damaged[35] ^= 1;
        assert_eq!(check.on_value(3, 17, &damaged), None);
        let verdict = check.finish(&BTreeMap::new());
        assert_eq!(verdict.damaged, 1);
        assert!(!verdict.is_clean());
        assert!(verdict.examples[0].contains("partition 3, offset 17"), "{:?}", verdict.examples);
    }
}
