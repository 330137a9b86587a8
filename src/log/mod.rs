//! One core's log: its journal, and the partitions that live on it. Runs over `ports::Disk`, on one core, without a clock of its own.
//!
//! An append is copied into the open commit of the core's journal and into the partition's tail. At the end of a turn the commit is
//! written with one durable write; its completion is what makes the records durable, for all partitions at once. Off that path the tail
//! is written to the partition's segments, and a journal file is used again when the segments no longer need it.
//!
//! **Starting.** `scan` each journal directory → where two journals name a partition, the higher generation is right → `recover`
//! on some core, with `replay` giving the shard what its own state needs → [`CoreLog::open`] → `open_partition` / `create` on the owner →
//! `until_durable` everywhere → `release_recovered`. Turns must run meanwhile.
//!
//! **Hot calls** (never wait): [`CoreLog::append`], [`CoreLog::end_of_turn`], [`CoreLog::on_completion`] for every completion of a
//! hot write, [`CoreLog::read`]. Once a turn `take_checkpoints_due` → `checkpoint` with the shard's blob for each.
//!
//! **Calls that wait**, for tasks beside the turn loop: `load` after `ReadError::NotLoaded`, `find_by_timestamp`,
//! `find_max_timestamp`, `truncate`, `set_start_offset`, `apply_retention`, `drop_partition`, `release`, `verify`, `close`. They need
//! turns and completions to go on.
//!
//! By file: `core` (state, hot calls) → `journal/commit` (group commit) → `journal/ring` (files) · `partition`, `segment/*` (tail, index,
//! positions) → `writer` (tail to segment), `placing` (large batches, to the segment first) → `background` (tasks) · `reader`, `loading`, `lookup`, `cursor` · `manage` (open, close) ·
//! `truncation`, `retention`, `deletion`, `handover`, `verify` · `journal/scan` → `recovery`.

mod access;
mod background;
mod completion;
mod core;
mod counters;
mod cursor;
mod deletion;
mod dir;
mod error;
mod handover;
mod journal;
mod loading;
mod lookup;
mod manage;
mod partition;
mod placing;
mod reader;
mod recovery;
mod retention;
mod segment;
mod settings;
mod signal;
mod together;
mod truncation;
mod verify;
mod window;
mod writer;

pub use self::core::CoreLog;
pub use crate::ports::Piece;
pub use counters::Counters;
pub use deletion::{discard, remove_leftovers};
pub use dir::{parse_partition_dir_name, partition_dir_name};
pub use error::{Damage, Fatal, LogError, ReadError, Refused};
pub use journal::format::EpochStart;
pub use journal::scan::{ScannedJournal, ScannedPartition, scan};
pub use reader::Read;
pub use recovery::{Recovered, Replay, recover, recover_from_segments};
pub use segment::index::{Entry as SegmentIndexEntry, Index as SegmentIndex};
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
