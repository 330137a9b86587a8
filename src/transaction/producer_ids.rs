//! Hands out producer ids from blocks that the controller has given to this core; never one twice.
//!
//! Refuses to ask for blocks: it says when one is wanted. What is left of a block is lost with the process, as in Kafka.
//! Source: KIP-98, KIP-730; Kafka `RPCProducerIdManager`.

/// The producer ids this core may still hand out.
#[derive(Debug, Default)]
pub struct ProducerIds {
    /// Invariant: `next <= end`, and all of `next..end` belong to this core alone.
    next: i64,
    end: i64,
    /// The block after that one, fetched before it is needed. Empty where the two are equal.
    reserve: (i64, i64),
    /// How many ids the block in use had.
    block_count: i64,
    asked: bool,
}

impl ProducerIds {
    /// The next id; `None` until a block arrives, and then the caller lets its client wait or try again
    /// (`CoordinatorLoadInProgress`).
    pub fn take(&mut self) -> Option<i64> {
        if self.next == self.end {
            let (next, end) = std::mem::take(&mut self.reserve);
            (self.next, self.end, self.block_count) = (next, end, end - next);
        }
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// True once for each block that is wanted: when a tenth or less is left and no other block is in reserve or on its way.
    pub fn ask(&mut self) -> bool {
        let left = self.end - self.next;
        let wanted = !self.asked && self.reserve.0 == self.reserve.1 && left <= self.block_count / 10;
        self.asked |= wanted;
        wanted
    }

    /// The block that was asked for: ids `first..first + count`.
    pub fn on_block(&mut self, first: i64, count: i64) {
        assert!(self.asked, "a block comes when it was asked for");
        assert!(first >= 0 && count >= 1, "a block has ids");
        self.asked = false;
        self.reserve = (first, first.checked_add(count).expect("the controller's blocks stay below the largest id"));
    }

    /// The block that was asked for did not come; `ask` will ask again.
    pub fn on_block_failed(&mut self) {
        self.asked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_follow_each_other_through_blocks() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        assert!(ids.ask());
        assert!(!ids.ask(), "one block at a time");
        ids.on_block(5000, 3);
        assert_eq!([ids.take(), ids.take()], [Some(5000), Some(5001)]);
        assert!(!ids.ask());
        assert_eq!(ids.take(), Some(5002));
        assert!(ids.ask());
        ids.on_block(9000, 3);
        assert_eq!(ids.take(), Some(9000));
    }

    #[test]
    fn the_next_block_is_asked_for_while_a_tenth_is_left() {
        let mut ids = ProducerIds::default();
        assert!(ids.ask());
        ids.on_block(0, 1000);
        let asked_at = (0..1000).find(|_| ids.take().is_some() && ids.ask());
        assert_eq!(asked_at, Some(899), "with the 900th id taken");
        ids.on_block(7000, 1000);
        assert!(!ids.ask(), "a block is in reserve");
        assert_eq!((900..1000).map(|_| ids.take()).last(), Some(Some(999)));
        assert_eq!(ids.take(), Some(7000));
    }

    #[test]
    fn a_block_that_failed_is_asked_for_again() {
        let mut ids = ProducerIds::default();
        assert!(ids.ask());
        ids.on_block_failed();
        assert!(ids.ask());
    }

    proptest! {
        #[test]
        fn no_id_is_handed_out_twice_by_cores_that_share_a_controller(steps in prop::collection::vec((0..3usize, 0..3u8), 0..300)) {
            let mut cores = [ProducerIds::default(), ProducerIds::default(), ProducerIds::default()];
            let mut waiting = [false; 3];
            let (mut next_block, mut seen) = (0, BTreeSet::new());
            for (core, step) in steps {
                match step {
                    0 if waiting[core] => {
                        cores[core].on_block(next_block, 7);
                        next_block += 7;
                        waiting[core] = false;
                    }
                    1 if waiting[core] => {
                        cores[core].on_block_failed();
                        waiting[core] = false;
                    }
                    _ => {
                        if let Some(id) = cores[core].take() {
                            prop_assert!(seen.insert(id) && id < next_block);
                        }
                        waiting[core] |= cores[core].ask();
                    }
                }
            }
        }
    }
}
