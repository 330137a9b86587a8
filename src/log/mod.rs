//! One core's log: durable appends for all partitions of a core, over the `ports::Disk`.
#![allow(missing_docs)]

mod access;
mod tmp;
mod background;
mod core;
mod counters;
mod dir;
mod error;
mod journal;
mod loading;
mod manage;
mod partition;
mod reader;
mod recovery;
mod segment;
mod settings;
mod signal;
mod window;
mod writer;

pub use self::core::CoreLog;
pub use counters::Counters;
pub use dir::{parse_partition_dir_name, partition_dir_name};
pub use error::{Damage, Fatal, LogError, ReadError, Refused};
pub use journal::format::EpochStart;
pub use journal::scan::{ScannedJournal, ScannedPartition, scan};
pub use crate::ports::Piece;
pub use reader::Read;
pub use recovery::{Recovered, Replay, recover, recover_from_segments};
pub use settings::{JOURNAL_FILE_BYTES_MIN, LogSettings, PartitionSettings};

use crate::base::ids::Offset;
use std::path::PathBuf;

/// A partition of a [`CoreLog`], from `create` or `open` until it is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LogIndex(pub u32);

/// More of a partition has become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable {
    pub log: LogIndex,
    /// Everything before this offset is durable.
    pub end_offset: Offset,
    /// Bytes of batches that this adds.
    pub bytes: u64,
}

/// Where a partition's files are, and how they are to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The partition's own directory; `partition_dir_name` gives its name. Made when the first segment is written.
    pub dir: PathBuf,
    pub settings: PartitionSettings,
}
