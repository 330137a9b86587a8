//! This machine's clocks. The only place that asks for the time.

use crate::base::time::{Nanos, Now};
use crate::ports::Clock;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static STARTED: OnceLock<Instant> = OnceLock::new();

/// The wall clock and the monotonic clock of this machine; the latter counts from the first call in this process.
#[derive(Clone, Copy, Default)]
pub struct SystemClock;

/// The monotonic clock alone.
pub fn mono() -> Nanos {
    Nanos(STARTED.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Now { mono: mono(), wall_ms }
    }
}
