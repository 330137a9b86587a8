//! Keeps what a client can cause out of the log's way: so many lines a second, no more.

use crate::base::time::Nanos;

/// Lines a second that one core writes about bad clients.
const LINES_PER_SECOND_MAX: u32 = 10;

#[derive(Debug, Default)]
pub struct RateLimit {
    second: u64,
    lines: u32,
    left_out: u32,
}

impl RateLimit {
    /// Whether one more line may be written now; if so, how many were left out since the last one.
    pub fn allows(&mut self, now: Nanos) -> Option<u32> {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines == LINES_PER_SECOND_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_is_heard_and_told_what_was_left_out() {
        let mut limit = RateLimit::default();
        let heard = (0..100).filter(|_| limit.allows(Nanos(5)) == Some(0)).count();
        assert_eq!(heard, LINES_PER_SECOND_MAX as usize);
        let next = Nanos(1_000_000_000);
        assert_eq!(limit.allows(next), Some(100 - LINES_PER_SECOND_MAX));
        assert_eq!(limit.allows(next), Some(0));
    }
}
