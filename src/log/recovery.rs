//! After a crash: brings the segments up to what the journal holds, and says with what each partition goes on.
//!
//! Writes to segments only, never to the journal, and the same bytes each time: whenever it is interrupted, it starts over. What
//! is damaged is left as it is and reported with the partition, which is then not served.

use super::completion::{ActiveSegment, End, SegmentWriter, segment_bases};
use super::deletion::rename_deleted;
use super::dir;
use super::error::{Damage, LogError};
use super::journal::format::{Checkpoint, EpochStart, Kind, RecordHeader};
use super::journal::scan::{Position, Records, ScannedJournal, ScannedPartition, Truncation};
use super::segment::load::{BatchWalk, load};
use super::together::together;
use crate::base::batch::BatchHeader;
use crate::base::ids::{Offset, PartitionId};
use crate::ports::Disk;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Bytes of the journal held for all partitions together, when it is read again, before what they need of them is written.
const HELD_BYTES_MAX: u64 = 128 << 20;

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
    /// The last segment, where recovery has looked at it: so nobody reads it again.
    pub(crate) active: Option<ActiveSegment>,
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
    /// Where the next batch after the checkpoint begins.
    next: Offset,
    /// `None` until the first record that the segments may lack.
    writer: Option<SegmentWriter<D>>,
    /// Read and not yet written: offset of the record, header and bytes of its batch.
    held: Vec<(Offset, BatchHeader, Bytes)>,
    damage: Option<Damage>,
    /// Nothing can have happened to the segments since the checkpoint.
    is_closed: bool,
}

/// Completes the segments of the partitions that `wanted` names: those of which no other journal knows a higher generation. What they
/// lack was held by the scan, or is read again. `data_dir` holds the partitions' directories; `replay` is given what the shard must know.
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
    if scanned.is_held {
        for (id, repair) in &mut repairs {
            for held in &scanned.partitions[id].held {
                repair.take(held.at, &held.record, held.payload.clone(), &mut replay);
            }
        }
    } else {
        read_again(disk, scanned, &mut repairs, &mut replay).await?;
    }
    together(repairs.values_mut().map(|repair| repair.settle(disk))).await?;
    // All syncs behind all writes: the filesystem then has one transaction to commit rather than one for each file.
    sync_together(disk, data_dir, &mut repairs, scanned.crowd).await?;
    let finishing = repairs.into_iter().map(async |(id, repair)| Ok((id, repair.finish(disk).await?)));
    let mut results = together(finishing).await?;
    results.sort_by_key(|(id, _)| *id);
    Ok(results)
}

/// Syncs the files of many partitions with one call; those of a few are left to `finish`.
async fn sync_together<D: Disk>(
    disk: &D,
    data_dir: &Path,
    repairs: &mut HashMap<PartitionId, Repair<D>>,
    crowd: usize,
) -> Result<(), LogError> {
    let writers = || repairs.values().filter_map(|repair| repair.writer.as_ref());
    let changed: Vec<&D::File> = writers().filter_map(SegmentWriter::changed).collect();
    if changed.len() < crowd {
        return Ok(());
    }
    disk.sync_all(data_dir).await.map_err(LogError::io("sync", data_dir))?;
    // See `sync_all`.
    disk.sync(changed[0]).await.map_err(LogError::io("sync", data_dir))?;
    repairs.values_mut().filter_map(|repair| repair.writer.as_mut()).for_each(SegmentWriter::synced);
    Ok(())
}

/// Gives the journal's records to the repairs once more, writing as often as memory asks for it.
async fn read_again<D: Disk>(
    disk: &D,
    scanned: &ScannedJournal,
    repairs: &mut HashMap<PartitionId, Repair<D>>,
    replay: &mut impl FnMut(PartitionId, Replay<'_>),
) -> Result<(), LogError> {
    let mut held_bytes = 0;
    for (session, extent) in &scanned.extents {
        let mut records = Records::open(disk, extent.clone()).await?;
        while let Some((record, payload)) = records.next().await? {
            let Some(repair) = repairs.get_mut(&record.partition) else { continue };
            let at = Position { session: *session, sequence: record.sequence };
            let is_held = repair.take(at, &record, payload, replay);
            // One batch that is held keeps all in memory that was read together with it.
            if is_held || held_bytes > 0 {
                held_bytes += record.record_bytes() as u64;
            }
            if held_bytes >= HELD_BYTES_MAX {
                together(repairs.values_mut().map(|repair| repair.write(disk))).await?;
                held_bytes = 0;
            }
        }
    }
    Ok(())
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
            active: None,
        };
        // Closed in order, with everything in the segments: they are as the checkpoint says.
        let is_closed = scanned.is_closed
            && partition.last == checkpointed
            && checkpoint.segment_end_offset == checkpoint.end_offset;
        let (born, truncations) = (partition.born, partition.truncations.clone());
        let next = checkpoint.end_offset;
        Some(Repair {
            recovered,
            checkpoint,
            checkpointed,
            born,
            truncations,
            next,
            writer: None,
            held: Vec::new(),
            damage,
            is_closed,
        })
    }

    /// Takes one record. True if its payload is held until `write`.
    fn take(
        &mut self,
        at: Position,
        record: &RecordHeader,
        payload: Bytes,
        replay: &mut impl FnMut(PartitionId, Replay<'_>),
    ) -> bool {
        let is_ours = record.generation == self.recovered.generation && at > self.born;
        if self.damage.is_some() || record.kind != Kind::Append || !is_ours {
            return false;
        }
        let is_later = at > self.checkpointed;
        let header = BatchHeader::read(&payload).expect("the record was checked");
        let is_known = header.next_offset() <= self.checkpoint.segment_end_offset;
        // Before the checkpoint: in the segments by then, or cut off by then.
        if !is_later && (is_known || self.is_cut(at, record.offset)) {
            return false;
        }
        if is_later {
            if record.offset != self.next {
                let what =
                    format!("the journal appends at offset {}, and the log ended at {}", record.offset, self.next);
                self.damage = Some(self.damage(what));
                return false;
            }
            self.next = header.next_offset();
            let epoch = header.partition_leader_epoch;
            if self.recovered.epochs.last().is_none_or(|last| epoch > last.epoch) {
                self.recovered.epochs.push(EpochStart { epoch, start_offset: header.base_offset });
            }
            replay(self.recovered.id, Replay::Batch(&header, &payload));
        }
        // What lies before the start may be gone from the segments, so it is not missed.
        let is_needed = header.next_offset() > self.recovered.start_offset;
        if is_needed {
            self.held.push((record.offset, header, payload));
        }
        is_needed
    }

    /// Writes what is held.
    async fn write(&mut self, disk: &D) -> Result<(), LogError> {
        for (offset, header, batch) in std::mem::take(&mut self.held) {
            if self.writer.is_none() && self.damage.is_none() {
                self.reach(disk, offset).await?;
            }
            if self.damage.is_some() {
                return Ok(());
            }
            if offset != self.recovered.end_offset {
                let what = format!("the journal lacks offsets {}..{offset}", self.recovered.end_offset);
                self.damage = Some(self.damage(what));
                return Ok(());
            }
            self.writer.as_mut().expect("reached").append(disk, &header, &batch).await?;
            self.recovered.end_offset = header.next_offset();
        }
        match &mut self.writer {
            Some(writer) => writer.flush(disk).await,
            None => Ok(()),
        }
    }

    fn damage(&self, what: String) -> Damage {
        Damage { path: self.recovered.dir.display().to_string(), position: 0, partition: Some(self.recovered.id), what }
    }

    /// Finds where `offset` begins in the segments, at or behind what the checkpoint vouches for, and cuts them there.
    async fn reach(&mut self, disk: &D, offset: Offset) -> Result<(), LogError> {
        match find_end(disk, &self.recovered, &self.checkpoint, offset).await? {
            Ok(end) => {
                self.recovered.end_offset = end.offset;
                match SegmentWriter::open(disk, &self.recovered, end).await? {
                    Ok(writer) => self.writer = Some(writer),
                    Err(damage) => self.damage = Some(damage),
                }
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

    /// Writes the last of what is held; after it the segments have everything.
    async fn settle(&mut self, disk: &D) -> Result<(), LogError> {
        self.write(disk).await?;
        if self.damage.is_none() && self.writer.is_none() && !self.is_closed {
            self.reach(disk, self.checkpoint.end_offset.max(self.recovered.start_offset)).await?;
        }
        if self.damage.is_none() && self.recovered.end_offset < self.checkpoint.end_offset {
            let (end, expected) = (self.recovered.end_offset, self.checkpoint.end_offset);
            self.damage =
                Some(self.damage(format!("the log ends at offset {end}, durable were all before {expected}")));
        }
        match &mut self.writer {
            Some(writer) if self.damage.is_none() => writer.end(disk).await,
            _ => Ok(()),
        }
    }

    async fn finish(mut self, disk: &D) -> Result<Result<Recovered, Damage>, LogError> {
        if let Some(damage) = self.damage {
            return Ok(Err(damage));
        }
        if let Some(mut writer) = self.writer {
            writer.sync(disk).await?;
            self.recovered.active = writer.into_active();
        }
        Ok(Ok(self.recovered))
    }
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
        if base > end.offset.max(recovered.start_offset) {
            // What stands behind missing batches is not a part of the log; that it ends too early will show.
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
        active: None,
    };
    if let Some(last) = bases.last() {
        // A torn end is cut: without a journal nobody knows what was acknowledged behind it.
        let loaded = load(disk, dir, id, *last).await?;
        recovered.end_offset = loaded.end_offset;
        let end = End { segment: *last, position: loaded.bytes, offset: loaded.end_offset, starts_over: false };
        let mut writer = SegmentWriter::<D>::open(disk, &recovered, end).await?.map_err(LogError::Damaged)?;
        writer.end(disk).await?;
        writer.sync(disk).await?;
    }
    Ok(recovered)
}
