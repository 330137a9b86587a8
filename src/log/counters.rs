//! What a core's log has done so far.

use crate::base::counters::{JournalCounters, SegmentCounters};
use crate::base::histogram::Histogram;

/// Sums since the core started.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub journal: JournalCounters,
    /// Journal writes, from submission to completion.
    pub commit_times: Histogram,
    pub segments: SegmentCounters,
}
