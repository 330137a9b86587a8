//! What can go wrong with a log, by who must act: refusals for the caller, fatal errors for the core, damage for the operator.

use crate::base::ids::{Offset, PartitionId};
use std::fmt;
use std::io;
use std::path::Path;

/// Why an append was not taken. Nothing of it is kept; the caller may try again unless stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The disk is behind: commits, journal files or tail memory are used up. Try again after the next completion.
    Backlog,
    /// No space on the device. Appends are taken again by themselves once there is.
    DiskFull,
    /// Larger than a journal file can hold. Never try again.
    TooLarge,
    /// The partition is being truncated or deleted.
    Busy,
    /// The core has failed; see [`Fatal`].
    Failed,
}

/// A disk error after which this core must stop: what is on disk is no longer known (durability contract, D5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    pub doing: &'static str,
    pub path: String,
    pub error: String,
}

impl Fatal {
    pub(crate) fn new(doing: &'static str, path: &Path, error: &io::Error) -> Fatal {
        Fatal { doing, path: path.display().to_string(), error: error.to_string() }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.doing, self.path, self.error)
    }
}

impl std::error::Error for Fatal {}

/// Why a read has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The offset is not in `start..=end`.
    OutOfRange { start: Offset, end: Offset },
    /// An index or file has to be opened first: await `CoreLog::load`, then read again.
    NotLoaded,
    /// The partition is damaged or gone.
    Unavailable,
}

/// Why an operation that awaits the disk failed.
#[derive(Debug)]
pub enum LogError {
    Io {
        doing: &'static str,
        path: String,
        error: io::Error,
    },
    /// Bytes that were once durable are not what they were.
    Damaged(Damage),
    Refused(Refused),
    Fatal(Fatal),
    OutOfRange {
        start: Offset,
        end: Offset,
    },
}

impl LogError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.display().to_string();
        move |error| LogError::Io { doing, path, error }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Io { doing, path, error } => write!(f, "{doing} {path}: {error}"),
            LogError::Damaged(damage) => damage.fmt(f),
            LogError::Refused(refused) => write!(f, "refused: {refused:?}"),
            LogError::Fatal(fatal) => fatal.fmt(f),
            LogError::OutOfRange { start, end } => write!(f, "offset out of range {start}..={end}"),
        }
    }
}

impl std::error::Error for LogError {}

/// Where durable bytes are not what they were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub path: String,
    /// Byte position in the file.
    pub position: u64,
    /// `None` where the damage hides whose record it was.
    pub partition: Option<PartitionId>,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path, self.position, self.what)?;
        match self.partition {
            Some(partition) => write!(f, " (partition {partition})"),
            None => Ok(()),
        }
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
