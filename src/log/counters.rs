//! What a core's log has done so far.

use crate::base::counters::{JournalCounters, SegmentCounters};

/// Sums since the core started.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub journal: JournalCounters,
    pub segments: SegmentCounters,
}
