//! Brings a partition's last segment up to what the journal holds: cuts it at a batch boundary, appends, and says how its file then is.

use super::dir;
use super::error::{Damage, LogError};
use super::recovery::Recovered;
use super::segment::format::{FIRST_BATCH_AT, SegmentHeader};
use super::segment::index::{ENTRY_BYTES, Entry, INDEX_HEADER_BYTES, Index, NO_TIMESTAMP};
use super::segment::load::{REBUILT_INTERVAL_BYTES, load};
use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::base::limits::{DISK_BLOCK_BYTES, SEGMENT_PIECE_BYTES};
use crate::base::time::TimestampMs;
use crate::ports::{Buffer, Disk, OpenMode};
use std::path::{Path, PathBuf};

/// Recovery does not know the topic's `segment.bytes`; it goes on with the last segment up to this.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const BLOCK: u64 = DISK_BLOCK_BYTES as u64;

/// The segment that a partition goes on with, as its file has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ActiveSegment {
    pub base_offset: Offset,
    /// Where its last batch ends.
    pub bytes: u64,
    pub index: Index,
    /// Entries that are in the index file.
    pub index_saved: usize,
    pub max_timestamp: TimestampMs,
    /// What it holds behind the last block boundary.
    pub partial: Vec<u8>,
}

/// A batch boundary in the segments.
pub(super) struct End {
    pub segment: Offset,
    pub position: u64,
    pub offset: Offset,
    /// No segment before it is needed: they end before the log starts.
    pub starts_over: bool,
}

/// Base offsets of the segments in a partition's directory, rising.
pub(crate) async fn segment_bases<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = disk.list(dir).await.map_err(LogError::io("list", dir))?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| dir::parse_segment_name(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Appends batches to the last segment of a partition.
pub(super) struct SegmentWriter<D: Disk> {
    dir: PathBuf,
    id: PartitionId,
    base: Offset,
    /// `None` before the first batch of a segment.
    file: Option<D::File>,
    /// Where `pending` begins: a block boundary.
    position: u64,
    pending: Vec<u8>,
    /// Bytes of `pending` that are in the file already.
    written: usize,
    /// The file was changed since its last sync.
    touched: bool,
    /// … or made.
    made: bool,
    index: Index,
    index_saved: usize,
    max_timestamp: TimestampMs,
}

impl<D: Disk> SegmentWriter<D> {
    /// Cuts the segments at `end`: what lies behind it is in the journal, or was never acknowledged.
    pub async fn open(disk: &D, recovered: &Recovered, end: End) -> Result<Result<SegmentWriter<D>, Damage>, LogError> {
        let dir = recovered.dir.clone();
        let mut removed = false;
        for base in segment_bases(disk, &dir).await?.into_iter().rev() {
            let is_kept = base < end.segment || (base == end.segment && end.position > FIRST_BATCH_AT);
            if is_kept && !end.starts_over {
                break;
            }
            for path in [dir::index_path(&dir, base), dir::segment_path(&dir, base)] {
                match disk.remove_file(&path).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(LogError::io("remove", &path)(error));
                    }
                    _ => removed = true,
                }
            }
        }
        if removed {
            disk.sync_dir(&dir).await.map_err(LogError::io("sync", &dir))?;
        }
        let mut writer = SegmentWriter {
            dir,
            id: recovered.id,
            base: end.segment,
            file: None,
            position: 0,
            pending: Vec::new(),
            written: 0,
            touched: false,
            made: false,
            index: Index::default(),
            index_saved: 0,
            max_timestamp: NO_TIMESTAMP,
        };
        let damage = match end.position > FIRST_BATCH_AT {
            true => writer.continue_file(disk, end.position).await?,
            false => None,
        };
        Ok(damage.map_or(Ok(writer), Err))
    }

    /// Takes the file up as it is up to `end`.
    async fn continue_file(&mut self, disk: &D, end: u64) -> Result<Option<Damage>, LogError> {
        cut_index(disk, &self.dir, self.base, end).await?;
        let path = dir::segment_path(&self.dir, self.base);
        let failed = |error| LogError::io("continue", &path)(error);
        let file = disk.open(&path, OpenMode::Direct).await.map_err(failed)?;
        self.position = end - end % BLOCK;
        let partial = disk.read(&file, self.position, (end - self.position) as usize).await.map_err(failed)?;
        if disk.file_bytes(&file).await.map_err(failed)? > end {
            disk.set_file_bytes(&file, end).await.map_err(failed)?;
            self.touched = true;
        }
        self.pending.extend_from_slice(&partial);
        self.written = partial.len();
        self.file = Some(file);
        let loaded = load(disk, &self.dir, self.id, self.base).await?;
        if loaded.damage.is_some() || loaded.bytes == end {
            self.index = loaded.index;
            self.index_saved = loaded.index_saved;
            self.max_timestamp = loaded.max_timestamp;
            return Ok(loaded.damage);
        }
        Ok(Some(Damage {
            path: path.display().to_string(),
            position: loaded.bytes,
            partition: Some(self.id),
            what: format!("the segment's batches end here, and not at {end}"),
        }))
    }

    pub async fn append(&mut self, disk: &D, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        let bytes = self.position + (self.pending.len() + batch.len()) as u64;
        let is_wide = header.last_offset() - self.base > Offset::from(i32::MAX);
        if self.file.is_some() && (bytes > SEGMENT_BYTES_MAX || is_wide) {
            self.end(disk).await?;
            self.sync(disk).await?;
            self.file = None;
        }
        if self.file.is_none() {
            self.create(disk, header.base_offset).await?;
        }
        let entry = Entry {
            relative_offset: (header.base_offset - self.base) as u32,
            position: (self.position + self.pending.len() as u64) as u32,
            max_timestamp_before: self.max_timestamp,
        };
        self.index.add(entry, REBUILT_INTERVAL_BYTES);
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.pending.extend_from_slice(batch);
        if self.pending.len() >= SEGMENT_PIECE_BYTES {
            self.flush(disk).await?;
        }
        Ok(())
    }

    async fn create(&mut self, disk: &D, base: Offset) -> Result<(), LogError> {
        disk.create_dir(&self.dir).await.map_err(LogError::io("make", &self.dir))?;
        let path = dir::segment_path(&self.dir, base);
        let file = disk.open(&path, OpenMode::CreateDirect).await.map_err(LogError::io("make", &path))?;
        self.base = base;
        self.file = Some(file);
        self.made = true;
        self.position = 0;
        self.pending = SegmentHeader::new(self.id, base).encode();
        self.written = 0;
        (self.index, self.index_saved, self.max_timestamp) = (Index::default(), 0, NO_TIMESTAMP);
        Ok(())
    }

    /// Writes what is pending.
    pub async fn flush(&mut self, disk: &D) -> Result<(), LogError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        if self.pending.len() > self.written {
            let buffer = disk.buffer(self.pending.len().next_multiple_of(DISK_BLOCK_BYTES));
            buffer.append(&self.pending);
            buffer.pad_to_block();
            let written = disk.write(&file, self.position, &buffer, 0..buffer.len(), false).await;
            written.map_err(|error| self.failed(error))?;
            let whole = self.pending.len() - self.pending.len() % DISK_BLOCK_BYTES;
            // Not drained: thousands of writers would keep the room of their largest piece.
            self.pending = self.pending.split_off(whole);
            self.position += whole as u64;
            self.written = self.pending.len();
            self.touched = true;
        }
        Ok(())
    }

    /// Writes what is pending and ends the file there, for nothing more comes.
    pub async fn end(&mut self, disk: &D) -> Result<(), LogError> {
        self.flush(disk).await?;
        if let Some(file) = self.file.as_ref().filter(|_| self.touched) {
            let end = self.position + self.pending.len() as u64;
            disk.set_file_bytes(file, end).await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// The file, if it was changed.
    pub fn changed(&self) -> Option<&D::File> {
        self.file.as_ref().filter(|_| self.touched)
    }

    /// Makes the file durable if it was changed.
    pub async fn sync(&mut self, disk: &D) -> Result<(), LogError> {
        let Some(file) = self.changed() else { return Ok(()) };
        disk.sync(file).await.map_err(|error| self.failed(error))?;
        if self.made {
            disk.sync_dir(&self.dir).await.map_err(LogError::io("sync", &self.dir))?;
        }
        self.synced();
        Ok(())
    }

    /// The file is durable, and its name.
    pub fn synced(&mut self) {
        (self.touched, self.made) = (false, false);
    }

    /// What the partition goes on with; `None` without a batch.
    pub fn into_active(self) -> Option<ActiveSegment> {
        (self.file.is_some() && !self.index.entries().is_empty()).then(|| ActiveSegment {
            base_offset: self.base,
            bytes: self.position + self.pending.len() as u64,
            index: self.index,
            index_saved: self.index_saved,
            max_timestamp: self.max_timestamp,
            partial: self.pending,
        })
    }

    fn failed(&self, error: std::io::Error) -> LogError {
        LogError::io("write", &dir::segment_path(&self.dir, self.base))(error)
    }
}

/// Takes entries at or behind `end` out of the segment's index file, durably: other batches will stand there.
pub(crate) async fn cut_index<D: Disk>(disk: &D, dir: &Path, base: Offset, end: u64) -> Result<(), LogError> {
    let path = dir::index_path(dir, base);
    let failed = |error| LogError::io("cut", &path)(error);
    let file = match disk.open(&path, OpenMode::ReadBuffered).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let bytes = disk.file_bytes(&file).await.map_err(failed)?;
    let content = disk.read(&file, 0, bytes as usize).await.map_err(failed)?;
    let (mut index, was_sealed) = Index::decode(&content, base, u64::MAX).unwrap_or_default();
    let before = index.entries().len();
    index.truncate(end);
    let kept = INDEX_HEADER_BYTES + index.entries().len() * ENTRY_BYTES;
    if index.entries().len() == before && kept as u64 == bytes && !was_sealed {
        return Ok(());
    }
    let file = disk.open(&path, OpenMode::WriteBuffered).await.map_err(failed)?;
    disk.write_small(&file, 0, Index::encode_header(base, None)).await.map_err(failed)?;
    disk.set_file_bytes(&file, kept as u64).await.map_err(failed)?;
    disk.sync(&file).await.map_err(failed)
}
