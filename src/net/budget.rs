//! The memory that one core lends to requests before they are whole.
//!
//! It counts and decides, and holds no memory itself.

/// Bytes lent and still to lend.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    lent: usize,
    /// The one connection that may go over, so that full memory never stops all: its frame is bounded by the largest request.
    overdrawn: Option<u64>,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, lent: 0, overdrawn: None }
    }

    /// Whether `connection` may take `bytes` more. It then must, and `adjust` tells how many they were.
    pub fn allows(&mut self, connection: u64, bytes: usize) -> bool {
        if self.lent + bytes <= self.bytes_max || self.overdrawn == Some(connection) {
            return true;
        }
        if self.overdrawn.is_none() {
            self.overdrawn = Some(connection);
            return true;
        }
        false
    }

    /// What `connection` holds has changed from `before` to `now`.
    pub fn adjust(&mut self, connection: u64, before: usize, now: usize) {
        self.lent = self.lent - before + now;
        if now == 0 && self.overdrawn == Some(connection) {
            self.overdrawn = None;
        }
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
        budget.adjust(2, 50, 0);
        assert_eq!(budget.lent, 80);
        assert!(budget.allows(3, 20));
    }
}
