//! What the log is told: sizes of a core's journal and tail, and Kafka's per-topic segment settings. Holds no state.

use crate::base::config::CoreConfig;
use crate::base::limits::{DISK_BLOCK_BYTES, JOURNAL_FILE_BYTES};

/// Smallest `journal_file_bytes` that makes sense: eight full commits. What works at all is asserted elsewhere.
pub const JOURNAL_FILE_BYTES_MIN: u64 = 8 << 20;

/// With this many partitions waiting to be written, syncs are made for all of them together.
pub(crate) const CROWD: usize = 32;

/// A start after a crash may take as much memory as this many tails: what waits for segments is in the tail, what they may lack after
/// a crash is up to that and what was written since the last checkpoints.
const RECOVERY_TAILS_MAX: usize = 3;

/// Sizes for one core.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// One file of the journal. A multiple of a disk block, at least [`JOURNAL_FILE_BYTES_MIN`].
    pub journal_file_bytes: u64,
    /// All files of the journal together; at least two of them.
    pub journal_bytes: u64,
    /// A commit gathers records for this long before it is written, unless it is full.
    pub commit_window_us: u64,
    /// Sealed commits that may wait for the disk before appends are refused.
    pub backlog_bytes: usize,
    /// Memory for the tails of all partitions. Half of it may hold bytes that are in no segment yet.
    pub tail_bytes: usize,
    /// Segment writes on their way at once.
    pub pieces_in_flight_max: usize,
    /// Memory for the indexes of sealed segments.
    pub index_cache_bytes: usize,
    /// Files open for reading; a read of another one closes the one opened longest ago. Every partition has one more open for writing.
    pub readers_max: usize,
    /// Bytes that have waited this long for a segment are written while the disk has time.
    pub flush_age_ms: u64,
    /// With this many partitions waiting to be written, syncs are made for all of them together.
    pub crowd: usize,
    /// A batch of this size goes to its partition's segment first, and not through the journal (`placing`), where twice as much is on its way
    /// to the disk.
    pub large_batch_bytes: usize,
    /// Bytes that may be on their way so before appends are refused.
    pub placing_bytes_max: u64,
    /// Memory for batches of the journal at a start after a crash; with more to replay, the journal is read twice.
    pub recovery_bytes_max: usize,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            journal_file_bytes: JOURNAL_FILE_BYTES as u64,
            journal_bytes: 512 << 20,
            commit_window_us: 0,
            backlog_bytes: 8 << 20,
            tail_bytes: 256 << 20,
            pieces_in_flight_max: 8,
            index_cache_bytes: 16 << 20,
            readers_max: 2048,
            flush_age_ms: 5_000,
            crowd: CROWD,
            large_batch_bytes: 512 << 10,
            placing_bytes_max: 16 << 20,
            recovery_bytes_max: RECOVERY_TAILS_MAX * (256 << 20),
        }
    }
}

impl LogSettings {
    /// What the configuration of a core says of them; it says nothing of the others.
    pub fn of(core: &CoreConfig) -> LogSettings {
        LogSettings {
            journal_file_bytes: core.journal.file_bytes,
            journal_bytes: core.journal.bytes,
            commit_window_us: core.commit_window_us,
            large_batch_bytes: usize::try_from(core.large_batch_bytes).unwrap_or(usize::MAX),
            tail_bytes: core.tail_memory_bytes as usize,
            recovery_bytes_max: RECOVERY_TAILS_MAX * core.tail_memory_bytes as usize,
            ..LogSettings::default()
        }
    }

    /// Whether a log can work with them. Asked once the configuration is known, before anything is opened.
    ///
    /// # Errors
    /// What is wrong, in words for whoever wrote the configuration.
    pub fn check(&self) -> Result<(), String> {
        if self.journal_file_bytes < JOURNAL_FILE_BYTES_MIN {
            return Err(format!("a journal file must hold at least {JOURNAL_FILE_BYTES_MIN} bytes"));
        }
        if !self.journal_file_bytes.is_multiple_of(DISK_BLOCK_BYTES as u64) {
            return Err(format!("a journal file must be a multiple of {DISK_BLOCK_BYTES} bytes"));
        }
        if self.journal_files_max() < 2 {
            return Err("the journal must have room for two files".into());
        }
        if self.pieces_in_flight_max == 0 || self.backlog_bytes == 0 || self.tail_bytes < 1 << 20 {
            return Err("segment writes, backlog and tail need room (the tail at least 1 MiB)".into());
        }
        Ok(())
    }

    pub(crate) fn journal_files_max(&self) -> usize {
        (self.journal_bytes / self.journal_file_bytes) as usize
    }
}

/// A topic's settings, as far as its files are concerned. Names are Kafka's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSettings {
    /// A segment is closed before it would grow beyond this (`segment.bytes`). At most 2 GiB, as in Kafka.
    pub segment_bytes: u64,
    /// … or when its first batch is this old (`segment.ms`).
    pub segment_ms: u64,
    /// An index entry is made about this often (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Segments whose newest record is older are deleted (`retention.ms`); `None` keeps them.
    pub retention_ms: Option<u64>,
    /// The oldest segments are deleted while the others alone hold this much (`retention.bytes`); `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// The files of a removed segment stay on disk for this long (`file.delete.delay.ms`).
    pub delete_delay_ms: u64,
}

impl Default for PartitionSettings {
    fn default() -> PartitionSettings {
        PartitionSettings {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            delete_delay_ms: 60_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_cannot_work_with_is_refused_with_the_reason() {
        let good = LogSettings::default();
        assert_eq!(good.check(), Ok(()));
        for (bad, reason) in [
            (
                LogSettings { journal_file_bytes: JOURNAL_FILE_BYTES_MIN - 4096, ..good.clone() },
                "at least 8388608 bytes",
            ),
            (LogSettings { journal_file_bytes: JOURNAL_FILE_BYTES_MIN + 1, ..good.clone() }, "a multiple of 4096"),
            (LogSettings { journal_bytes: good.journal_file_bytes * 2 - 1, ..good.clone() }, "room for two files"),
            (LogSettings { tail_bytes: (1 << 20) - 1, ..good.clone() }, "need room"),
        ] {
            let said = bad.check().unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
