//! Consumer groups: the coordinator of the classic protocol and the offsets that groups commit.
//!
//! Pure: [`Groups::step`] takes what happened and the time, and returns what the shard is to do: replies, and records to
//! append to a partition of `__consumer_offsets`. No clock, no randomness, no I/O, no wire formats.
//!
//! A request's way: `request` → `coordinator` → `join` · `rebalance` · `sync` · `leave` · `offsets` · `expiry` · `describe`
//! → `persist` (what must be durable first) → `reply`. `snapshot` turns the durable state into records again.

mod classic;
mod context;
mod coordinator;
mod describe;
mod expiry;
mod fields;
mod join;
mod leave;
mod offsets;
mod persist;
mod rebalance;
mod records;
mod reply;
mod request;
mod settings;
mod snapshot;
mod subscription;
mod sync;
mod timers;

pub use classic::GroupState;
pub use coordinator::{Groups, partition_for};
pub use persist::AppendToken;
pub use records::{CommittedOffset, Record, RecordError};
pub use reply::*;
pub use request::*;
pub use settings::GroupSettings;
pub use snapshot::{SliceLimit, SnapshotCursor, SnapshotSlice};

/// A request that waits for its reply. Drawn by the caller, opaque here, not used again while it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);
