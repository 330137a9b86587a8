//! How far a partition's log is written, durable and visible. Refuses to know what is stored, or who waits for it.
//!
//! One node now: what is committed is what this node has, by the topic's flush policy. With replicas the same place
//! (`Watermark::committed`) will look at the in-sync ones too.

use crate::base::ids::Offset;
use std::collections::VecDeque;

/// When records of a topic become visible and are acknowledged (`flush.messages`, `flush.ms`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushPolicy {
    /// When they would survive power loss: contract D1 and D2, our default.
    #[default]
    WhenDurable,
    /// When they are appended: the topic's owner has traded durability away. They still go to disk with the next commit.
    WhenAppended,
}

impl FlushPolicy {
    /// `flush.messages=1` or `flush.ms=0` ask for a flush of every batch. Anything above allows records to be lost that were
    /// acknowledged; how many and how long is bounded by the core's commits, which are far below any `flush.ms` of a whole millisecond.
    pub fn of(flush_messages: i64, flush_ms: i64) -> FlushPolicy {
        if flush_messages <= 1 || flush_ms <= 0 { FlushPolicy::WhenDurable } else { FlushPolicy::WhenAppended }
    }
}

/// Records that have become visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    /// The new high watermark: everything before it may be read and is acknowledged.
    pub high_watermark: Offset,
    /// Size of the batches that became visible; wakes fetches that wait for `min_bytes`.
    pub bytes: u64,
}

/// A batch that is appended and not visible yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    next_offset: Offset,
    bytes: u32,
}

/// The ends of one partition's log.
#[derive(Debug)]
pub struct Watermark {
    /// Invariants: `durable_end <= log_end` and `high_watermark <= log_end`. Under `WhenDurable` also
    /// `high_watermark <= durable_end`, unless the policy was laxer before: the high watermark never goes back.
    log_end: Offset,
    durable_end: Offset,
    high_watermark: Offset,
    policy: FlushPolicy,
    /// Batches from `high_watermark` to `log_end`, oldest first. As many as the core has in commits on their way.
    pending: VecDeque<Pending>,
}

impl Watermark {
    /// A log that was just opened: all that recovery found is durable, and visible.
    pub fn new(log_end: Offset, policy: FlushPolicy) -> Watermark {
        assert!(log_end >= 0);
        Watermark { log_end, durable_end: log_end, high_watermark: log_end, policy, pending: VecDeque::new() }
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Everything before this survives power loss of this node.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// Everything before this may be read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// A batch of `bytes` was appended; the log now ends at `next_offset`.
    #[must_use = "waiters must hear of it"]
    pub fn on_append(&mut self, next_offset: Offset, bytes: u32) -> Option<Advance> {
        assert!(next_offset > self.log_end, "an append makes the log longer");
        self.log_end = next_offset;
        self.pending.push_back(Pending { next_offset, bytes });
        self.advance()
    }

    /// This node's disk has everything before `offset`. Reports may repeat or come late; they count once.
    #[must_use = "waiters must hear of it"]
    pub fn on_local_durable(&mut self, offset: Offset) -> Option<Advance> {
        assert!(offset <= self.log_end, "only what was appended can be durable");
        self.durable_end = self.durable_end.max(offset);
        self.advance()
    }

    /// The topic's flush settings changed. A stricter policy holds for what is not visible yet.
    #[must_use = "waiters must hear of it"]
    pub fn set_policy(&mut self, policy: FlushPolicy) -> Option<Advance> {
        self.policy = policy;
        self.advance()
    }

    fn committed(&self) -> Offset {
        match self.policy {
            FlushPolicy::WhenDurable => self.durable_end,
            FlushPolicy::WhenAppended => self.log_end,
        }
    }

    fn advance(&mut self) -> Option<Advance> {
        let committed = self.committed();
        let mut bytes = 0;
        let before = self.high_watermark;
        while let Some(batch) = self.pending.front().copied().filter(|batch| batch.next_offset <= committed) {
            self.pending.pop_front();
            bytes += u64::from(batch.bytes);
            // Whole batches only: half of one is of no use to a reader.
            self.high_watermark = batch.next_offset;
        }
        assert!(before <= self.high_watermark && self.high_watermark <= self.log_end);
        (self.high_watermark > before).then_some(Advance { high_watermark: self.high_watermark, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn advance(high_watermark: Offset, bytes: u64) -> Option<Advance> {
        Some(Advance { high_watermark, bytes })
    }

    #[test]
    fn records_are_visible_when_durable() {
        let mut ends = Watermark::new(5, FlushPolicy::WhenDurable);
        assert_eq!(ends.on_append(7, 100), None);
        assert_eq!(ends.on_append(9, 50), None);
        assert_eq!(ends.on_local_durable(7), advance(7, 100));
        assert_eq!(ends.on_local_durable(7), None, "a repeated report is no news");
        assert_eq!(ends.on_local_durable(6), None, "nor is a late one");
        assert_eq!(ends.on_local_durable(9), advance(9, 50));
        assert_eq!((ends.log_end(), ends.durable_end(), ends.high_watermark()), (9, 9, 9));
    }

    #[test]
    fn one_commit_makes_many_batches_visible() {
        let mut ends = Watermark::new(0, FlushPolicy::WhenDurable);
        for next in 1..=10 {
            assert_eq!(ends.on_append(next, 10), None);
        }
        assert_eq!(ends.on_local_durable(10), advance(10, 100));
    }

    #[test]
    fn records_of_a_lax_topic_are_visible_when_appended() {
        let mut ends = Watermark::new(0, FlushPolicy::of(1000, i64::MAX));
        assert_eq!(ends.on_append(2, 20), advance(2, 20));
        assert_eq!(ends.on_local_durable(2), None);
    }

    #[test]
    fn a_stricter_policy_takes_nothing_back() {
        let mut ends = Watermark::new(0, FlushPolicy::WhenAppended);
        assert_eq!(ends.on_append(2, 20), advance(2, 20));
        assert_eq!(ends.set_policy(FlushPolicy::WhenDurable), None);
        assert_eq!((ends.durable_end(), ends.high_watermark()), (0, 2));
        assert_eq!(ends.on_append(3, 10), None);
        assert_eq!(ends.on_local_durable(2), None);
        assert_eq!(ends.set_policy(FlushPolicy::WhenAppended), advance(3, 10));
    }

    #[test]
    fn flush_settings_name_the_policy() {
        for (messages, ms, policy) in [
            (1, i64::MAX, FlushPolicy::WhenDurable),
            (2, i64::MAX, FlushPolicy::WhenAppended),
            (i64::MAX, 0, FlushPolicy::WhenDurable),
            (i64::MAX, 1000, FlushPolicy::WhenAppended),
        ] {
            assert_eq!(FlushPolicy::of(messages, ms), policy, "{messages} {ms}");
        }
    }

    #[test]
    #[should_panic(expected = "only what was appended can be durable")]
    fn durability_beyond_the_log_is_a_broken_invariant() {
        let _ = Watermark::new(3, FlushPolicy::WhenDurable).on_local_durable(4);
    }

    proptest! {
        #[test]
        fn ends_keep_their_order_and_every_byte_is_told_once(steps in prop::collection::vec((0..4u8, 1..50u32), 1..200)) {
            let mut ends = Watermark::new(0, FlushPolicy::WhenDurable);
            let (mut appended, mut told, mut strict) = (0u64, 0u64, true);
            for (step, amount) in steps {
                let before = ends.high_watermark();
                let told_now = match step {
                    0 | 1 => {
                        appended += u64::from(amount);
                        ends.on_append(ends.log_end() + i64::from(amount), amount)
                    }
                    2 => ends.on_local_durable(ends.log_end() - ends.log_end().min(i64::from(amount) / 10)),
                    _ if amount < 5 => {
                        strict = false;
                        ends.set_policy(FlushPolicy::WhenAppended)
                    }
                    _ => ends.set_policy(FlushPolicy::WhenDurable),
                };
                told += told_now.map_or(0, |advance| advance.bytes);
                prop_assert!(before <= ends.high_watermark());
                prop_assert!(ends.high_watermark() <= ends.log_end() && ends.durable_end() <= ends.log_end());
                prop_assert!(!strict || ends.high_watermark() <= ends.durable_end());
            }
            told += ends.on_local_durable(ends.log_end()).map_or(0, |advance| advance.bytes);
            prop_assert_eq!((told, ends.high_watermark()), (appended, ends.log_end()));
        }
    }
}
