//! After a crash: brings the segments up to what the journal holds, and says with what each partition goes on.
//!
//! Writes to segments only, never to the journal, and the same bytes each time: whenever it is interrupted, it starts over. What
//! is damaged is left as it is and reported with the partition, which is then not served.

use super::deletion::rename_deleted;
use super::dir;
use super::error::{Damage, LogError};
use super::journal::format::{Checkpoint, EpochStart, Kind, RecordHeader};
use super::journal::scan::{Position, Records, ScannedJournal, ScannedPartition, Truncation};
use super::segment::format::{FIRST_BATCH_AT, SegmentHeader};
use super::segment::index::{ENTRY_BYTES, INDEX_HEADER_BYTES, Index};
use super::segment::load::{BatchWalk, load};
use super::together::together;
use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::base::limits::{DISK_BLOCK_BYTES, SEGMENT_PIECE_BYTES};
use crate::ports::{Buffer, Disk, OpenMode};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Bytes gathered for all partitions together before they are written.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Recovery does not know the topic's `segment.bytes`; it goes on with the last segment up to this.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const BLOCK: u64 = DISK_BLOCK_BYTES as u64;

/// With what a partition goes on. May travel to the core that will own it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    pub id: PartitionId,
    pub dir: PathBuf,
    /// Of the journal records so far; the next opening has a higher one.
    pub generation: u32,
    pub start_offset: Offset,
    pub end_offset: Offset,
    pub epochs: Vec<EpochStart>,
    /// The shard's blob of the last checkpoint. Batches after it were given to `replay`.
    pub producers: Vec<u8>,
}

/// What the shard folds into its own state while a partition is recovered.
#[derive(Clone, Copy, Debug)]
pub enum Replay<'a> {
    /// Comes first, and alone if nothing was appended since: the blob of the last checkpoint.
    Checkpoint(&'a [u8]),
    /// A batch after that checkpoint, in order; its header and all its bytes.
    Batch(&'a BatchHeader, &'a [u8]),
}

/// One partition's way through the journal.
struct Repair<D: Disk> {
    recovered: Recovered,
    checkpoint: Checkpoint,
    checkpointed: Position,
    born: Position,
    truncations: Vec<Truncation>,
    /// `None` until the first record that the segments may lack.
    writer: Option<SegmentWriter<D>>,
    damage: Option<Damage>,
    /// Nothing can have happened to the segments since the checkpoint.
    is_closed: bool,
}

/// Reads the journal again and completes the segments of the partitions that `wanted` names: those of which no other journal knows a
/// higher generation. `data_dir` holds the partitions' directories; `replay` is given what the shard must know.
///
/// Partitions without a checkpoint in the journal and those that were dropped are not part of the result.
///
/// # Errors
/// The disk does not answer or is full. Damage of a partition is in its own result.
pub async fn recover<D: Disk>(
    disk: &D,
    data_dir: &Path,
    scanned: &ScannedJournal,
    wanted: impl Fn(PartitionId) -> bool,
    mut replay: impl FnMut(PartitionId, Replay<'_>),
) -> Result<Vec<(PartitionId, Result<Recovered, Damage>)>, LogError> {
    let mut repairs = HashMap::new();
    for (id, partition) in &scanned.partitions {
        if !wanted(*id) {
            continue;
        }
        if partition.is_dropped {
            finish_drop(disk, data_dir, partition).await?;
        } else if let Some(repair) = Repair::begin(data_dir, *id, partition, scanned) {
            replay(*id, Replay::Checkpoint(&repair.recovered.producers));
            repairs.insert(*id, repair);
        }
    }
    let mut pending = 0;
    for (session, extent) in &scanned.extents {
        let mut records = Records::open(disk, extent.clone()).await?;
        while let Some((record, payload)) = records.next().await? {
            let Some(repair) = repairs.get_mut(&record.partition) else { continue };
            let at = Position { session: *session, sequence: record.sequence };
            pending += repair.take(disk, at, &record, &payload, &mut replay).await?;
            if pending >= PENDING_BYTES_MAX {
                together(repairs.values_mut().map(|repair| repair.flush(disk))).await?;
                pending = 0;
            }
        }
    }
    let finishing = repairs.into_iter().map(async |(id, repair)| Ok((id, repair.finish(disk).await?)));
    let mut results = together(finishing).await?;
    results.sort_by_key(|(id, _)| *id);
    Ok(results)
}

/// Renames the directory of a dropped partition, should the crash have come before that. `remove_leftovers` unlinks it.
async fn finish_drop<D: Disk>(disk: &D, data_dir: &Path, partition: &ScannedPartition) -> Result<(), LogError> {
    let Some((_, checkpoint)) = &partition.checkpoint else { return Ok(()) };
    let path = data_dir.join(&checkpoint.dir);
    // Serials of this process begin at 1.
    match rename_deleted(disk, &path, 0).await? {
        Some(_) => disk.sync_dir(data_dir).await.map_err(LogError::io("sync", data_dir)),
        None => Ok(()),
    }
}

impl<D: Disk> Repair<D> {
    fn begin(
        data_dir: &Path,
        id: PartitionId,
        partition: &ScannedPartition,
        scanned: &ScannedJournal,
    ) -> Option<Repair<D>> {
        let (checkpointed, checkpoint) = partition.checkpoint.clone()?;
        let bad = partition.damage.iter().find(|(at, _)| *at > checkpointed);
        let mut damage = bad.map(|(_, damage)| damage.clone());
        // A gap behind the checkpoint may hide records of this partition, whether or not others show it.
        if scanned.gaps.iter().any(|gap| *gap > checkpointed) {
            damage = damage.or(scanned.damage.iter().find(|damage| damage.partition.is_none()).cloned());
        }
        let recovered = Recovered {
            id,
            dir: data_dir.join(&checkpoint.dir),
            generation: partition.generation,
            start_offset: partition.start_offset,
            end_offset: checkpoint.segment_end_offset,
            epochs: checkpoint.epochs.clone(),
            producers: checkpoint.producers.clone(),
        };
        // Closed in order, with everything in the segments: they are as the checkpoint says.
        let is_closed = scanned.is_closed
            && partition.last == checkpointed
            && checkpoint.segment_end_offset == checkpoint.end_offset;
        let (born, truncations) = (partition.born, partition.truncations.clone());
        Some(Repair { recovered, checkpoint, checkpointed, born, truncations, writer: None, damage, is_closed })
    }

    /// Applies one record. Returns the bytes it left to be written.
    async fn take(
        &mut self,
        disk: &D,
        at: Position,
        record: &RecordHeader,
        payload: &Bytes,
        replay: &mut impl FnMut(PartitionId, Replay<'_>),
    ) -> Result<usize, LogError> {
        let is_ours = record.generation == self.recovered.generation && at > self.born;
        if self.damage.is_some() || record.kind != Kind::Append || !is_ours {
            return Ok(0);
        }
        let is_later = at > self.checkpointed;
        let header = BatchHeader::read(payload).expect("the record was checked");
        let is_known = header.next_offset() <= self.checkpoint.segment_end_offset;
        // Before the checkpoint: in the segments by then, or cut off by then.
        if !is_later && (is_known || self.is_cut(at, record.offset)) {
            return Ok(0);
        }
        // What lies before the start may be gone from the segments, so it is not missed.
        let is_needed = header.next_offset() > self.recovered.start_offset;
        let written = if is_needed { self.append(disk, record, &header, payload).await? } else { 0 };
        if is_later && self.damage.is_none() {
            let epoch = header.partition_leader_epoch;
            if self.recovered.epochs.last().is_none_or(|last| epoch > last.epoch) {
                self.recovered.epochs.push(EpochStart { epoch, start_offset: header.base_offset });
            }
            replay(self.recovered.id, Replay::Batch(&header, payload));
        }
        Ok(written)
    }

    async fn append(
        &mut self,
        disk: &D,
        record: &RecordHeader,
        header: &BatchHeader,
        payload: &Bytes,
    ) -> Result<usize, LogError> {
        if self.writer.is_none() {
            self.reach(disk, record.offset).await?;
        }
        if self.damage.is_some() {
            return Ok(0);
        }
        if record.offset != self.recovered.end_offset {
            let what = format!("the journal lacks offsets {}..{}", self.recovered.end_offset, record.offset);
            self.damage = Some(self.damage(what));
            return Ok(0);
        }
        let writer = self.writer.as_mut().expect("reached");
        writer.append(disk, header, payload).await?;
        self.recovered.end_offset = header.next_offset();
        Ok(payload.len())
    }

    fn damage(&self, what: String) -> Damage {
        Damage { path: self.recovered.dir.display().to_string(), position: 0, partition: Some(self.recovered.id), what }
    }

    /// Finds where `offset` begins in the segments, at or behind what the checkpoint vouches for, and cuts them there.
    async fn reach(&mut self, disk: &D, offset: Offset) -> Result<(), LogError> {
        match find_end(disk, &self.recovered, &self.checkpoint, offset).await? {
            Ok(end) => {
                self.recovered.end_offset = end.offset;
                self.writer = Some(SegmentWriter::open(disk, &self.recovered, end).await?);
            }
            Err(damage) => self.damage = Some(damage),
        }
        Ok(())
    }

    /// Whether a later truncation took away what was appended at `offset`.
    fn is_cut(&self, at: Position, offset: Offset) -> bool {
        let later = self.truncations.iter().filter(|truncation| truncation.at > at);
        later.into_iter().any(|truncation| truncation.end_offset <= offset || truncation.is_empty)
    }

    async fn flush(&mut self, disk: &D) -> Result<(), LogError> {
        match &mut self.writer {
            Some(writer) => writer.flush(disk, false).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self, disk: &D) -> Result<Result<Recovered, Damage>, LogError> {
        if self.damage.is_none() && self.writer.is_none() && !self.is_closed {
            self.reach(disk, self.checkpoint.end_offset.max(self.recovered.start_offset)).await?;
        }
        if self.damage.is_none() && self.recovered.end_offset < self.checkpoint.end_offset {
            let (end, expected) = (self.recovered.end_offset, self.checkpoint.end_offset);
            self.damage =
                Some(self.damage(format!("the log ends at offset {end}, durable were all before {expected}")));
        }
        if let Some(damage) = self.damage {
            return Ok(Err(damage));
        }
        if let Some(writer) = &mut self.writer {
            writer.flush(disk, true).await?;
        }
        Ok(Ok(self.recovered))
    }
}

/// A batch boundary in the segments.
struct End {
    segment: Offset,
    position: u64,
    offset: Offset,
    /// No segment before it is needed: they end before the log starts.
    starts_over: bool,
}

/// The last batch boundary at or before `offset`, reading on from where the checkpoint says that segments are whole.
async fn find_end<D: Disk>(
    disk: &D,
    recovered: &Recovered,
    checkpoint: &Checkpoint,
    offset: Offset,
) -> Result<Result<End, Damage>, LogError> {
    let mut end = End {
        segment: checkpoint.segment_base,
        position: checkpoint.segment_position,
        offset: checkpoint.segment_end_offset,
        starts_over: false,
    };
    let bases = segment_bases(disk, &recovered.dir).await?;
    if end.position > 0 && !bases.contains(&end.segment) {
        if recovered.start_offset < end.offset {
            return Ok(Err(Damage {
                path: dir::segment_path(&recovered.dir, end.segment).display().to_string(),
                position: 0,
                partition: Some(recovered.id),
                what: "the segment is missing".into(),
            }));
        }
        // Deleted since the checkpoint, with all before the log's new start.
        let next = bases.iter().copied().find(|base| *base > end.segment).unwrap_or(offset);
        end = End { segment: next, position: 0, offset: next, starts_over: false };
    }
    let first = bases.partition_point(|base| *base < end.segment);
    for &base in &bases[first..] {
        if end.offset >= offset {
            break;
        }
        let path = dir::segment_path(&recovered.dir, base);
        let from = if base == end.segment { end.position } else { 0 };
        let mut walk = BatchWalk::open(disk, &path, recovered.id, base, from, end.offset.max(base)).await?;
        while let Some((position, header)) = walk.next().await? {
            if header.next_offset() > offset {
                break;
            }
            let (position, offset) = (position + header.batch_bytes() as u64, header.next_offset());
            end = End { segment: base, position, offset, starts_over: false };
        }
    }
    if end.offset < offset && offset <= recovered.start_offset {
        // Between the segments and the start of the log nothing is needed.
        end = End { segment: offset, position: 0, offset, starts_over: true };
    }
    Ok(Ok(end))
}

/// Base offsets of the segments in a partition's directory, rising.
pub(crate) async fn segment_bases<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = disk.list(dir).await.map_err(LogError::io("list", dir))?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| dir::parse_segment_name(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Appends batches to the last segment of a partition.
struct SegmentWriter<D: Disk> {
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
}

impl<D: Disk> SegmentWriter<D> {
    /// Cuts the segments at `end`: what lies behind it is in the journal, or was never acknowledged.
    async fn open(disk: &D, recovered: &Recovered, end: End) -> Result<SegmentWriter<D>, LogError> {
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
        };
        if end.position > FIRST_BATCH_AT {
            writer.continue_file(disk, end.position).await?;
        }
        Ok(writer)
    }

    async fn continue_file(&mut self, disk: &D, end: u64) -> Result<(), LogError> {
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
        Ok(())
    }

    async fn append(&mut self, disk: &D, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        let bytes = self.position + (self.pending.len() + batch.len()) as u64;
        let is_wide = header.last_offset() - self.base > Offset::from(i32::MAX);
        if self.file.is_some() && (bytes > SEGMENT_BYTES_MAX || is_wide) {
            self.flush(disk, true).await?;
            self.file = None;
        }
        if self.file.is_none() {
            self.create(disk, header.base_offset).await?;
        }
        self.pending.extend_from_slice(batch);
        if self.pending.len() >= SEGMENT_PIECE_BYTES {
            self.flush(disk, false).await?;
        }
        Ok(())
    }

    async fn create(&mut self, disk: &D, base: Offset) -> Result<(), LogError> {
        disk.create_dir(&self.dir).await.map_err(LogError::io("make", &self.dir))?;
        let path = dir::segment_path(&self.dir, base);
        let file = disk.open(&path, OpenMode::CreateDirect).await.map_err(LogError::io("make", &path))?;
        disk.sync_dir(&self.dir).await.map_err(LogError::io("sync", &self.dir))?;
        self.base = base;
        self.file = Some(file);
        self.position = 0;
        self.pending = SegmentHeader::new(self.id, base).encode();
        self.written = 0;
        Ok(())
    }

    /// Writes what is pending. `end`: and syncs it, for nothing more comes.
    async fn flush(&mut self, disk: &D, end: bool) -> Result<(), LogError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let path = dir::segment_path(&self.dir, self.base);
        let failed = |error| LogError::io("write", &path)(error);
        if self.pending.len() > self.written {
            let buffer = disk.buffer(self.pending.len().next_multiple_of(DISK_BLOCK_BYTES));
            buffer.append(&self.pending);
            buffer.pad_to_block();
            disk.write(&file, self.position, &buffer, 0..buffer.len(), false).await.map_err(failed)?;
            let whole = self.pending.len() - self.pending.len() % DISK_BLOCK_BYTES;
            self.pending.drain(..whole);
            self.position += whole as u64;
            self.written = self.pending.len();
            self.touched = true;
        }
        if end && self.touched {
            self.touched = false;
            disk.set_file_bytes(&file, self.position + self.pending.len() as u64).await.map_err(failed)?;
            disk.sync(&file).await.map_err(failed)?;
        }
        Ok(())
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

/// A partition as its segments alone tell, for one whose journal is lost. Its producers are unknown; only its last segment is read.
///
/// # Errors
/// `Damaged` where the last segment does not end cleanly.
pub async fn recover_from_segments<D: Disk>(disk: &D, dir: &Path, id: PartitionId) -> Result<Recovered, LogError> {
    let bases = segment_bases(disk, dir).await?;
    let mut recovered = Recovered {
        id,
        dir: dir.to_owned(),
        generation: 0,
        start_offset: bases.first().copied().unwrap_or(0),
        end_offset: bases.last().copied().unwrap_or(0),
        epochs: Vec::new(),
        producers: Vec::new(),
    };
    if let Some(last) = bases.last() {
        // A torn end is cut: without a journal nobody knows what was acknowledged behind it.
        let loaded = load(disk, dir, id, *last).await?;
        recovered.end_offset = loaded.end_offset;
        let end = End { segment: *last, position: loaded.bytes, offset: loaded.end_offset, starts_over: false };
        let mut writer = SegmentWriter::<D>::open(disk, &recovered, end).await?;
        writer.flush(disk, true).await?;
    }
    Ok(recovered)
}
