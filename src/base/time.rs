//! Time as numbers that callers pass in. Nothing here asks a clock; `ports::Clock` does.

/// Wall-clock milliseconds since 1970-01-01 UTC, as in record timestamps. Negative means "none".
pub type TimestampMs = i64;

/// Monotonic nanoseconds since the process started; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const fn from_ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// The later time `ms` milliseconds from here; stays at the largest value instead of wrapping.
    pub const fn plus_ms(self, ms: u64) -> Nanos {
        self.plus_ns(ms.saturating_mul(1_000_000))
    }

    /// The later time `ns` nanoseconds from here; stays at the largest value instead of wrapping.
    pub const fn plus_ns(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to here, 0 if `earlier` is later.
    pub const fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// The moment a turn of the core began, in both clocks. All that happens within the turn has this time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub mono: Nanos,
    pub wall_ms: TimestampMs,
}
