//! What a core's log has done so far, as plain numbers for the metrics. Only ever added to.

/// Sums since the core started.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub appends: u64,
    pub append_bytes: u64,
    /// Journal writes that became durable, their bytes on disk, and the time from submission to completion.
    pub commits: u64,
    pub commit_bytes: u64,
    pub commit_ns: u64,
    pub commit_ns_max: u64,
    /// Appends refused because the disk was behind, or full.
    pub refused_backlog: u64,
    pub refused_disk_full: u64,
    /// Segment writes, their bytes, and `fdatasync` calls on segments.
    pub pieces: u64,
    pub piece_bytes: u64,
    pub syncs: u64,
    pub journal_files_created: u64,
    pub journal_files_recycled: u64,
    pub checkpoints: u64,
    pub segments_rolled: u64,
    pub segments_deleted: u64,
    /// Reads answered from memory and from files.
    pub reads_memory: u64,
    pub reads_file: u64,
    pub indexes_loaded: u64,
    pub indexes_rebuilt: u64,
    /// Tail chunks given up to keep within the budget.
    pub chunks_evicted: u64,
}
