//! Reads a segment back from its file: with the help of its index where that can be trusted, batch by batch where not. Changes nothing.

use super::format::{FIRST_BATCH_AT, SegmentHeader};
use super::index::{Entry, Index, NO_TIMESTAMP};
use crate::base::batch::{self, BatchHeader, HEADER_BYTES};
use crate::base::ids::{Offset, PartitionId};
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::base::time::TimestampMs;
use crate::log::dir;
use crate::log::error::{Damage, LogError};
use crate::log::window::Window;
use crate::ports::{Disk, OpenMode};
use std::path::{Path, PathBuf};

/// Largest index file that is read: one entry for each byte would still be wrong, so a larger one is not an index.
const INDEX_FILE_BYTES_MAX: u64 = 64 << 20;

/// A segment as its file has it.
pub(crate) struct Loaded {
    pub index: Index,
    /// Entries that came from the index file.
    pub index_saved: usize,
    pub index_sealed: bool,
    pub end_offset: Offset,
    /// Where the last whole batch ends.
    pub bytes: u64,
    pub max_timestamp: TimestampMs,
    /// What stands behind the last whole batch is neither zeros nor the end of the file.
    pub damage: Option<Damage>,
}

/// Walks the batches of a segment file.
pub(crate) struct BatchWalk<'a, D: Disk> {
    window: Window<'a, D>,
    path: PathBuf,
    partition: PartitionId,
    base_offset: Offset,
    pub position: u64,
    pub end_offset: Offset,
    /// Set where the walk ended at something that is not the end.
    pub damage: Option<Damage>,
}

impl<'a, D: Disk> BatchWalk<'a, D> {
    /// Begins at `position`, where the batch at `offset` is expected. Checks the file's header block.
    pub async fn open(
        disk: &'a D,
        path: &Path,
        partition: PartitionId,
        base_offset: Offset,
        position: u64,
        offset: Offset,
    ) -> Result<BatchWalk<'a, D>, LogError> {
        let mut window = Window::open(disk, path).await?;
        let block = window.at(0, DISK_BLOCK_BYTES).await?;
        let mut walk = BatchWalk {
            window,
            path: path.to_owned(),
            partition,
            base_offset,
            position: position.max(FIRST_BATCH_AT),
            end_offset: offset,
            damage: None,
        };
        if SegmentHeader::decode(&block) != Some(SegmentHeader::new(partition, base_offset)) {
            walk.position = 0;
            // A file without content was left by a crash between its making and its first write.
            if block.iter().any(|byte| *byte != 0) {
                walk.damage = Some(walk.damage_here("the header block is not this segment's"));
            }
        }
        Ok(walk)
    }

    fn damage_here(&self, what: &str) -> Damage {
        Damage {
            path: self.path.display().to_string(),
            position: self.position,
            partition: Some(self.partition),
            what: format!("{what} (offset {})", self.end_offset),
        }
    }

    /// The next whole batch's header and position; checks its CRC, and that it has the offset that follows: offsets are dense, and the CRC
    /// does not cover them. `None` at the end, or where `damage` says why.
    pub async fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, LogError> {
        if self.position == 0 {
            return Ok(None);
        }
        let position = self.position;
        let head = self.window.at(position, HEADER_BYTES).await?;
        if head.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = BatchHeader::read(&head).map_or(HEADER_BYTES, |header| header.batch_bytes());
        if position + bytes as u64 > self.window.bytes || bytes < HEADER_BYTES {
            self.damage = Some(self.damage_here("a batch does not end within the file"));
            return Ok(None);
        }
        let batch = self.window.at(position, bytes).await?;
        match batch::check_stored(&batch) {
            Ok(header) if header.base_offset == self.end_offset && self.is_within_reach(&header) => {
                self.position += bytes as u64;
                self.end_offset = header.next_offset();
                Ok(Some((position, header)))
            }
            Ok(header) => {
                let what = format!("a batch has offset {}", header.base_offset);
                self.damage = Some(self.damage_here(&what));
                Ok(None)
            }
            Err(error) => {
                self.damage = Some(self.damage_here(&format!("a batch is damaged: {error:?}")));
                Ok(None)
            }
        }
    }
}

impl<D: Disk> BatchWalk<'_, D> {
    /// Offsets of a segment fit into 32 bits; those that do not were never appended to it.
    fn is_within_reach(&self, header: &BatchHeader) -> bool {
        let reached = header.base_offset.checked_add(Offset::from(header.last_offset_delta));
        reached.is_some_and(|last| last < Offset::MAX && last - self.base_offset <= Offset::from(i32::MAX))
    }
}

/// Loads the segment `base_offset` in `dir`: its index from the file as far as that can be trusted, the rest by reading batches.
///
/// # Errors
/// Only if the disk does not answer.
pub(crate) async fn load<D: Disk>(
    disk: &D,
    dir: &Path,
    partition: PartitionId,
    base_offset: Offset,
) -> Result<Loaded, LogError> {
    let path = dir::segment_path(dir, base_offset);
    let (mut index, mut index_sealed) = match read_index(disk, dir, base_offset).await {
        Some((bytes, segment_bytes)) => Index::decode(&bytes, base_offset, segment_bytes).unwrap_or_default(),
        None => Default::default(),
    };
    // The last entry is where the reading begins; if no such batch stands there, the index is not this file's.
    let mut start = index.entries().last().copied();
    let mut walk;
    loop {
        let (position, offset) = start.map_or((FIRST_BATCH_AT, base_offset), |entry| {
            (u64::from(entry.position), base_offset + Offset::from(entry.relative_offset))
        });
        walk = BatchWalk::open(disk, &path, partition, base_offset, position, offset).await?;
        let first = walk.next().await?;
        let is_right = first.is_some_and(|(_, header)| header.base_offset == offset);
        if start.is_none() || is_right {
            let mut loaded = Loaded {
                index_saved: index.entries().len(),
                max_timestamp: start.map_or(NO_TIMESTAMP, |entry| entry.max_timestamp_before),
                index,
                index_sealed,
                end_offset: base_offset,
                bytes: walk.position,
                damage: None,
            };
            loaded.take(first, base_offset);
            while let Some(next) = walk.next().await? {
                loaded.take(Some(next), base_offset);
            }
            loaded.end_offset = walk.end_offset;
            loaded.bytes = walk.position;
            loaded.damage = walk.damage;
            return Ok(loaded);
        }
        index = Index::default();
        index_sealed = false;
        start = None;
    }
}

impl Loaded {
    fn take(&mut self, batch: Option<(u64, BatchHeader)>, base_offset: Offset) {
        let Some((position, header)) = batch else { return };
        let entry = Entry {
            relative_offset: (header.base_offset - base_offset) as u32,
            position: position as u32,
            max_timestamp_before: self.max_timestamp,
        };
        if !self.index_sealed && self.index.entries().last().is_none_or(|last| last.position < entry.position) {
            self.index.add(entry, REBUILT_INTERVAL_BYTES);
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }
}

/// Entries of an index that is built anew are this far apart (Kafka's default for `index.interval.bytes`).
pub(crate) const REBUILT_INTERVAL_BYTES: u32 = 4096;

/// The index file's bytes, and the segment's size. `None` where either cannot be read: the segment itself will tell.
async fn read_index<D: Disk>(disk: &D, dir: &Path, base_offset: Offset) -> Option<(bytes::Bytes, u64)> {
    let segment = disk.open(&dir::segment_path(dir, base_offset), OpenMode::ReadBuffered).await.ok()?;
    let segment_bytes = disk.file_bytes(&segment).await.ok()?;
    let file = disk.open(&dir::index_path(dir, base_offset), OpenMode::ReadBuffered).await.ok()?;
    let bytes = disk.file_bytes(&file).await.ok().filter(|bytes| *bytes <= INDEX_FILE_BYTES_MAX)?;
    Some((disk.read(&file, 0, bytes as usize).await.ok()?, segment_bytes))
}
