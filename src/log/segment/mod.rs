//! One segment of a partition: its file, its index, its bytes in memory, and how far they are written. Submits nothing itself.

pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod load;
pub(crate) mod tail;

use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::base::time::TimestampMs;
use crate::log::settings::PartitionSettings;
use crate::ports::Disk;
use format::{FIRST_BATCH_AT, SegmentHeader};
use index::{Entry, Index, NO_TIMESTAMP};
use std::collections::VecDeque;
use tail::{ChunkSizes, Tail};

/// The file that a segment is written to.
pub(crate) enum SegmentFile<F> {
    /// Nothing needed it yet.
    Absent,
    /// A background task is making it.
    Creating,
    /// Made.
    Open(F),
    /// Sealed and wholly written: opened again only for reading.
    Closed,
}

/// A write of `[start, end)` on its way. Only the last one may end inside a block.
pub(crate) struct Piece {
    pub token: u64,
    pub start: u64,
    pub end: u64,
    pub durable: bool,
    /// Whether it was written; `None` while it is on its way.
    pub outcome: Option<bool>,
}

/// See the module. Invariant: `synced <= written <= submitted <= bytes`, and what is beyond `written` is in the tail.
pub(crate) struct Segment<D: Disk> {
    pub base_offset: Offset,
    /// The offset after the last batch.
    pub end_offset: Offset,
    /// All bytes, header block and what is only in memory included.
    pub bytes: u64,
    pub submitted: u64,
    pub written: u64,
    pub synced: u64,
    pub pieces: VecDeque<Piece>,
    pub file: SegmentFile<D::File>,
    /// The file's name is durable. Before, `synced` does not move.
    pub is_named: bool,
    /// For reads through the page cache.
    pub reader: Option<D::File>,
    /// `None` where it has to be loaded from its file.
    pub index: Option<Index>,
    /// Entries that are in the index file.
    pub index_saved: usize,
    pub index_saving: bool,
    /// The index file is complete and vouches for its entries.
    pub index_sealed: bool,
    pub tail: Tail<D::Buffer>,
    /// Latest timestamp of a record, [`NO_TIMESTAMP`] without one; `None` until a sealed segment's index is loaded.
    pub max_timestamp: Option<TimestampMs>,
    /// Wall clock of the first append since the segment was opened.
    pub first_append_ms: Option<TimestampMs>,
    /// No more is appended.
    pub sealed: bool,
    /// Size to which the file was grown ahead of its content, with blocks.
    pub allocated: u64,
    /// … or is being grown; nothing may be written beyond it meanwhile.
    pub allocating: Option<u64>,
    /// An `fdatasync` is on its way.
    pub syncing: bool,
    /// Turn of its last read, for the index cache.
    pub last_read: u64,
}

impl<D: Disk> Segment<D> {
    /// A segment that exists in memory only, not even with its header.
    pub fn new(base_offset: Offset) -> Segment<D> {
        Segment {
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            submitted: 0,
            written: 0,
            synced: 0,
            pieces: VecDeque::new(),
            file: SegmentFile::Absent,
            is_named: false,
            reader: None,
            index: Some(Index::default()),
            index_saved: 0,
            index_saving: false,
            index_sealed: false,
            tail: Tail::new(),
            max_timestamp: Some(NO_TIMESTAMP),
            first_append_ms: None,
            sealed: false,
            allocated: 0,
            allocating: None,
            syncing: false,
            last_read: 0,
        }
    }

    /// A sealed segment whose file holds all of its `bytes`, durably.
    pub fn on_disk(base_offset: Offset, end_offset: Offset, bytes: u64) -> Segment<D> {
        Segment {
            end_offset,
            bytes,
            submitted: bytes,
            written: bytes,
            synced: bytes,
            index: None,
            max_timestamp: None,
            file: SegmentFile::Closed,
            is_named: true,
            sealed: true,
            ..Segment::new(base_offset)
        }
    }

    /// Bytes of batches.
    pub fn data_bytes(&self) -> u64 {
        self.bytes.saturating_sub(FIRST_BATCH_AT)
    }

    /// Bytes of batches that are not in the file.
    pub fn unwritten(&self) -> u64 {
        self.bytes.max(FIRST_BATCH_AT) - self.written.max(FIRST_BATCH_AT)
    }

    /// Whether the next batch must go to another segment.
    pub fn is_full(
        &self,
        header: &BatchHeader,
        base_offset: Offset,
        settings: &PartitionSettings,
        now_ms: i64,
    ) -> bool {
        if self.data_bytes() == 0 {
            return false;
        }
        let aged = self.first_append_ms.is_some_and(|first| now_ms - first >= settings.segment_ms as i64);
        let last_offset = base_offset + Offset::from(header.last_offset_delta);
        aged
            || self.data_bytes() + header.batch_bytes() as u64 > settings.segment_bytes
            // Index entries hold offsets and positions in 32 bits.
            || last_offset - self.base_offset > Offset::from(i32::MAX)
            || self.bytes + header.batch_bytes() as u64 > u64::from(u32::MAX)
    }

    /// Takes one batch, given as its rewritten head and the rest. Returns the memory it took from the pool.
    pub fn append(
        &mut self,
        disk: &D,
        partition: PartitionId,
        batch: (&BatchHeader, &[u8], &[u8]),
        base_offset: Offset,
        settings: &PartitionSettings,
        sizes: &mut ChunkSizes,
    ) -> usize {
        assert!(!self.sealed, "a sealed segment grew");
        let (header, head, rest) = batch;
        let mut taken = 0;
        if self.bytes == 0 {
            let block = SegmentHeader::new(partition, self.base_offset).encode();
            taken += self.tail.append(disk, 0, &block, sizes);
            self.bytes = FIRST_BATCH_AT;
        }
        let entry = Entry {
            relative_offset: (base_offset - self.base_offset) as u32,
            position: self.bytes as u32,
            max_timestamp_before: self.max_timestamp.unwrap_or(NO_TIMESTAMP),
        };
        self.index.as_mut().expect("the active segment's index is in memory").add(entry, settings.index_interval_bytes);
        for part in [head, rest] {
            taken += self.tail.append(disk, self.bytes, part, sizes);
            self.bytes += part.len() as u64;
        }
        self.end_offset = base_offset + Offset::from(header.last_offset_delta) + 1;
        self.max_timestamp = self.max_timestamp.max(Some(header.max_timestamp));
        taken
    }

    /// Where bytes in memory begin; the segment's end where there are none.
    pub fn memory_start(&self) -> u64 {
        self.tail.start().unwrap_or(self.bytes)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.file, SegmentFile::Open(_))
    }

    /// No task and no write has to do with the segment.
    pub fn is_quiet(&self) -> bool {
        self.pieces.is_empty()
            && !self.syncing
            && !self.index_saving
            && self.allocating.is_none()
            && !matches!(self.file, SegmentFile::Creating)
    }

    /// A write found the disk full, and others are still on their way.
    pub fn has_failed(&self) -> bool {
        self.pieces.iter().any(|piece| piece.outcome == Some(false))
    }

    /// Moves `written`, and `synced` where writes were durable, over the completed writes at the front.
    pub fn settle_pieces(&mut self) {
        while let Some(piece) = self.pieces.front()
            && piece.outcome == Some(true)
        {
            if piece.durable && self.synced >= piece.start {
                self.synced = piece.end;
            }
            self.written = piece.end;
            self.pieces.pop_front();
        }
        if self.has_failed() && self.pieces.iter().all(|piece| piece.outcome.is_some()) {
            // Written again when there is space: these bytes are in memory and in the journal.
            self.pieces.clear();
            self.submitted = self.written;
        }
    }
}
