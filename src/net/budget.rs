//! The memory that one core lends to requests: while they arrive, and while produces of them wait for the disk.
//!
//! It counts and decides, and holds no memory itself.

use crate::base::counters::MemoryCounters;

/// Bytes lent and still to lend.
///
/// With `n` connections a core holds at most `bytes_max`, one request that goes over, half of `bytes_max` and one request more for
/// produces, and for each connection the first few KiB of a request, which are given unasked (`Inbound`).
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    /// Buffers of connections.
    lent: usize,
    /// Produce requests that are being worked on: until they are durable, somebody may hold a copy or the buffer itself.
    working: usize,
    /// The one connection that may go over, so that full memory never stops all: its frame is bounded by the largest request.
    overdrawn: Option<u64>,
    /// Something has come back since `take_returned` was asked.
    returned: bool,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, lent: 0, working: 0, overdrawn: None, returned: false }
    }

    /// Adds what is lent, and of how much.
    pub fn count_into(&self, sum: &mut MemoryCounters) {
        sum.request_lent_bytes_now = self.lent as u64;
        sum.request_working_bytes_now = self.working as u64;
        sum.request_limit_bytes = self.bytes_max as u64;
    }

    /// Whether `connection` may take `bytes` more. It then must, and `adjust` tells how many they were.
    pub fn allows(&mut self, connection: u64, bytes: usize) -> bool {
        if bytes <= self.room() || self.overdrawn == Some(connection) {
            return true;
        }
        if self.overdrawn.is_none() {
            self.overdrawn = Some(connection);
            return true;
        }
        false
    }

    /// Bytes still to lend.
    pub fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.lent + self.working)
    }

    /// More than half is lent: nobody keeps a buffer for later.
    pub fn is_short(&self) -> bool {
        self.room() < self.bytes_max / 2
    }

    /// What `connection` holds has changed from `before` to `now`. Memory that comes back is from a request that has arrived, or from
    /// one that never will: the next connection may go over then.
    pub fn adjust(&mut self, connection: u64, before: usize, now: usize) {
        self.lent = self.lent - before + now;
        if now < before {
            self.returned = true;
            if self.overdrawn == Some(connection) {
                self.overdrawn = None;
            }
        }
    }

    /// Whether one more produce may start, whatever its size: a large one would wait for ever behind small ones.
    pub fn allows_work(&self) -> bool {
        self.working <= self.bytes_max / 2
    }

    pub fn begin_work(&mut self, bytes: usize) {
        self.working += bytes;
    }

    pub fn end_work(&mut self, bytes: usize) {
        self.working -= bytes;
        self.returned |= bytes > 0;
    }

    /// Whether those that were refused should ask again; true once for whatever came back.
    pub fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.returned)
    }

    /// As `take_returned`, and stays so.
    pub fn has_returned(&self) -> bool {
        self.returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_goes_over_and_the_others_wait_for_it() {
        let mut budget = Budget::new(100);
        assert!(budget.allows(1, 80));
        budget.adjust(1, 0, 80);
        assert!(budget.allows(2, 50));
        budget.adjust(2, 0, 50);
        assert!(budget.allows(2, 1000));
        assert!(!budget.allows(3, 1));
        assert!(!budget.take_returned());
        budget.adjust(2, 50, 0);
        assert!(budget.take_returned() && !budget.take_returned());
        assert_eq!(budget.lent, 80);
        assert!(budget.allows(3, 20));
    }

    #[test]
    fn one_that_went_over_must_ask_again_for_its_next_request() {
        let mut budget = Budget::new(100);
        budget.adjust(1, 0, 100);
        assert!(budget.allows(2, 50));
        budget.adjust(2, 0, 50);
        // Its request is whole; of the next one a little has come already.
        budget.adjust(2, 50, 4);
        assert!(budget.allows(3, 50), "now it is another's turn");
        assert!(!budget.allows(2, 50));
    }

    #[test]
    fn produces_that_wait_for_the_disk_hold_up_others_and_large_ones_are_not_held_up_for_ever() {
        let mut budget = Budget::new(100);
        budget.begin_work(40);
        assert!(budget.allows_work());
        budget.begin_work(90);
        assert!(!budget.allows_work());
        assert_eq!(budget.room(), 0);
        budget.end_work(90);
        assert!(budget.allows_work() && budget.take_returned());
    }
}
