//! Keeps what a client can cause out of the log's way: so many lines a second, no more.

use crate::base::time::Nanos;

/// Lines a second that one core writes about bad clients.
const LINES_PER_SECOND_MAX: u32 = 5;

#[derive(Debug, Default)]
pub struct RateLimit {
    second: u64,
    lines: u32,
}

impl RateLimit {
    /// Whether one more line may be written now.
    pub fn allows(&mut self, now: Nanos) -> bool {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            *self = RateLimit { second, lines: 0 };
        }
        self.lines += 1;
        self.lines <= LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_is_heard() {
        let mut limit = RateLimit::default();
        let heard = (0..100).filter(|_| limit.allows(Nanos(5))).count();
        assert_eq!(heard, LINES_PER_SECOND_MAX as usize);
        assert!(limit.allows(Nanos(1_000_000_000)));
    }
}
