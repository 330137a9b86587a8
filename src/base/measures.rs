//! All that a core has counted and timed, as it is shown to people and collected by machines. Pure data.

use super::counters::{CoreCounters, TurnCounters};
use super::histogram::Histogram;
use super::ids::Offset;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the time of the requests of one API went. Of Produce and Fetch every eighth is timed, of all others each.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ApiMeasures {
    /// All of them, timed or not.
    pub requests: u64,
    /// Error codes in replies, by code; one for each partition or topic that has one.
    pub errors: BTreeMap<i16, u64>,
    /// From when the core learnt of its bytes to when it began with it.
    pub queue: Histogram,
    /// The core's own work until it had to wait, or was done.
    pub local: Histogram,
    /// From the begin to the answer: Produce waits for the disk, Fetch for records.
    pub answer: Histogram,
}

/// What the turn loop reports.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TurnMeasures {
    pub counters: TurnCounters,
    /// How long turns took.
    pub times: Histogram,
}

/// What one core reports.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Measures {
    pub counters: CoreCounters,
    /// Turns of the loop.
    pub turn: Histogram,
    /// Journal writes, from submission to completion.
    pub commit: Histogram,
    /// From the answer of a request to when the socket had taken the last byte of its reply and of those behind it.
    pub send: Histogram,
    /// In the order in which the core began to serve them: the broker's, then its own.
    pub listeners: Vec<ListenerMeasures>,
    /// By name of the API; those that were never asked for are left out.
    pub apis: Vec<(&'static str, ApiMeasures)>,
    /// Where details were asked for: the partitions that the core owns, and the offsets of the groups that it coordinates.
    pub partitions: Vec<PartitionMeasures>,
    pub committed: Vec<Committed>,
}

/// One address at which a core accepts.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListenerMeasures {
    /// HOST:PORT as it was bound.
    pub address: String,
    pub open_now: u64,
    pub accepted: u64,
    /// Connections closed at once: too many, or the broker stops.
    pub refused: u64,
    /// Bytes of requests.
    pub received_bytes: u64,
}

/// A partition where it is owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionMeasures {
    pub topic: Arc<str>,
    pub index: i32,
    pub start: Offset,
    /// The high watermark.
    pub end: Offset,
    /// On disk.
    pub bytes: u64,
}

/// How far a group has come, by what it committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub group: String,
    pub topic: String,
    pub index: i32,
    pub offset: Offset,
}
