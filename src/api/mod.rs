//! One file per group of APIs: from a decoded request to the cores that own what it names, and back to one reply.
//!
//! No socket and no disk: `net` hands frames in and takes replies out, `shard` does the work.

pub mod api_versions;
pub mod cluster;
pub mod configs;
pub mod control;
pub mod coordinator;
pub mod delete_records;
pub mod dispatch;
pub mod fetch;
pub mod find_coordinator;
pub mod group_offsets;
pub mod groups;
pub mod layout;
pub mod list_offsets;
pub mod log_dirs;
pub mod membership;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod operations;
pub mod produce;
pub mod producer_ids;
pub mod reply;
pub mod topics;
pub mod work;

pub use dispatch::{Api, Verdict};
pub use reply::{Finished, Tag};
