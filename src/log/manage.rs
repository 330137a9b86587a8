//! Opening and closing: a core's log, and partitions in it. Awaits the disk; the hot path is in `core`.

use super::completion::{ActiveSegment, segment_bases};
use super::core::{CoreLog, Shared, State};
use super::dir;
use super::error::{Damage, LogError, Refused};
use super::journal::format::Kind;
use super::journal::ring::Ring;
use super::journal::scan::ScannedJournal;
use super::partition::{Mode, PartitionLog};
use super::recovery::Recovered;
use super::segment::load::load;
use super::segment::tail::ChunkSizes;
use super::segment::{Segment, SegmentFile};
use super::settings::{LogSettings, PartitionSettings};
use super::signal::Signal;
use super::{LogIndex, Opening};
use crate::base::ids::{CoreIndex, Offset, PartitionId};
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Buffer, Disk, OpenMode};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

impl<D: Disk> CoreLog<D> {
    /// Opens the journal of a core for a new session. `scanned` is what `scan` found in its directory; the files it names stay as they
    /// are until `release_recovered`. `salt` is a random number.
    ///
    /// # Errors
    /// The directory or the first file cannot be made. `settings` were checked by whoever read them.
    pub async fn open(
        disk: D,
        settings: LogSettings,
        core: CoreIndex,
        scanned: &ScannedJournal,
        salt: u32,
    ) -> Result<CoreLog<D>, LogError> {
        let dir = scanned.dir.clone();
        disk.create_dir(&dir).await.map_err(LogError::io("make", &dir))?;
        let mut ring = Ring::new(dir, core.0, &settings, scanned.next_file_sequence, scanned.next_file_number, salt);
        let ready = ring.first_preparation().run(&disk, || true).await;
        let mut state = State::new(disk.clone(), settings, ring, salt, scanned.file_numbers.clone());
        let State { ring, counters, .. } = &mut state;
        ring.prepared(ready, &mut counters.journal).map_err(LogError::Fatal)?;
        ring.next_file(true).map_err(LogError::Refused)?;
        Ok(CoreLog(Rc::new(Shared { disk, state: RefCell::new(state), signal: Signal::default() })))
    }

    /// Makes an empty partition, beginning at `opening.start_offset`. It takes no file until its first segment is written, and exists
    /// durably with the next commit (`until_durable`).
    ///
    /// # Errors
    /// `Refused` where the journal has failed.
    pub async fn create(
        &self,
        id: PartitionId,
        opening: Opening,
        start_offset: i64,
        producers: &[u8],
    ) -> Result<LogIndex, LogError> {
        let Opening { dir, settings } = opening;
        let log = {
            let mut state = self.0.state.borrow_mut();
            let generation = state.first_generation(id);
            state.add(PartitionLog::new(id, generation, dir, settings, start_offset))
        };
        self.checkpoint_when_possible(log, producers).await?;
        Ok(log)
    }

    /// Opens a partition as recovery left it. `producers` is the shard's state after the replay.
    ///
    /// # Errors
    /// `Damaged` where its first segment is missing, or its last one does not end where recovery left it; the disk does not answer.
    pub async fn open_partition(
        &self,
        recovered: Recovered,
        settings: PartitionSettings,
        producers: &[u8],
    ) -> Result<LogIndex, LogError> {
        let partition = load_partition(&self.0.disk, recovered, settings).await?;
        let log = {
            let mut state = self.0.state.borrow_mut();
            state.writer.tail_bytes += partition.active().tail.memory_bytes();
            state.add(partition)
        };
        self.checkpoint_when_possible(log, producers).await?;
        Ok(log)
    }

    /// Writes a checkpoint of the partition, `producers` being what the shard wants back after a crash.
    ///
    /// # Errors
    /// `Backlog` or `DiskFull`: it will be asked for again.
    pub fn checkpoint(&self, log: LogIndex, producers: &[u8]) -> Result<(), Refused> {
        self.0.state.borrow_mut().checkpoint(log, Kind::Checkpoint, producers)
    }

    /// Partitions that need a checkpoint so that a journal file can be freed; at most `max` of them. Ask once a turn.
    pub fn take_checkpoints_due(&self, max: usize) -> Vec<LogIndex> {
        let mut state = self.0.state.borrow_mut();
        let count = state.checkpoints_due.len().min(max);
        state.checkpoints_due.drain(..count).collect()
    }

    async fn checkpoint_when_possible(&self, log: LogIndex, producers: &[u8]) -> Result<(), LogError> {
        self.when_possible(|state| state.checkpoint(log, Kind::Checkpoint, producers)).await
    }

    /// Tries `act` until the journal has room.
    pub(crate) async fn when_possible(
        &self,
        mut act: impl FnMut(&mut State<D>) -> Result<(), Refused>,
    ) -> Result<(), LogError> {
        let mut outcome = Ok(());
        let mut attempt = || {
            outcome = act(&mut self.0.state.borrow_mut());
            !matches!(outcome, Err(Refused::Backlog | Refused::DiskFull))
        };
        self.0.signal.until(&mut attempt).await;
        outcome.map_err(LogError::Refused)
    }

    /// Waits until everything appended so far is durable.
    ///
    /// # Errors
    /// The core has failed.
    pub async fn until_durable(&self) -> Result<(), LogError> {
        let placed = self.0.state.borrow().placements.next_number();
        let is_past = |is_past: &dyn Fn(&State<D>) -> bool| {
            let state = self.0.state.borrow();
            state.failed.is_some() || is_past(&state)
        };
        self.0.signal.until(|| is_past(&|state| state.placements.are_committed(placed))).await;
        let before = self.0.state.borrow().commits.next_sequence();
        self.0.signal.until(|| is_past(&|state| state.commits.durable_sequence() >= before)).await;
        match &self.0.state.borrow().failed {
            Some(fatal) => Err(LogError::Fatal(fatal.clone())),
            None => Ok(()),
        }
    }

    /// Gives the journal files of earlier sessions to the ring. Call it when every partition that they name is open somewhere and
    /// `until_durable` there has returned.
    ///
    /// # Errors
    /// The disk does not answer.
    pub async fn release_recovered(&self) -> Result<(), LogError> {
        let disk = &self.0.disk;
        let (journal_dir, numbers, file_bytes) = {
            let mut state = self.0.state.borrow_mut();
            let numbers = std::mem::take(&mut state.recovered_files);
            (state.ring.dir().to_owned(), numbers, state.ring.file_bytes())
        };
        for number in numbers {
            let path = dir::journal_path(&journal_dir, number);
            let failed = |error| LogError::io("release", &path)(error);
            let file = disk.open(&path, OpenMode::Direct).await.map_err(failed)?;
            let fits = disk.file_bytes(&file).await.map_err(failed)? == file_bytes;
            if fits && self.0.state.borrow().ring.has_room() {
                // Without a header it has no content.
                let block = disk.buffer(DISK_BLOCK_BYTES);
                block.append(&[0; DISK_BLOCK_BYTES]);
                disk.write(&file, 0, &block, 0..DISK_BLOCK_BYTES, true).await.map_err(failed)?;
                self.0.state.borrow_mut().ring.adopt(number, file);
            } else {
                disk.remove_file(&path).await.map_err(failed)?;
                disk.sync_dir(&journal_dir).await.map_err(LogError::io("sync", &journal_dir))?;
            }
        }
        Ok(())
    }

    /// Puts everything into the segments and writes a checkpoint of every partition, so that the next start has nothing to replay.
    /// `producers` gives the shard's blob. Appends must have ended; turns and completions go on until this returns.
    ///
    /// # Errors
    /// The core has failed; or the disk is full, and recovery will take what is in the journal.
    pub async fn close(&self, mut producers: impl FnMut(LogIndex) -> Vec<u8>) -> Result<(), LogError> {
        self.until_durable().await?;
        let logs = self.flush_all();
        self.0
            .signal
            .until(|| {
                let mut state = self.0.state.borrow_mut();
                let state = &mut *state;
                let mut partitions = state.slots.iter_mut().flatten();
                state.failed.is_some() || state.writer.disk_full || partitions.all(PartitionLog::is_clean)
            })
            .await;
        for (log, serial, base) in logs {
            self.save_index(log, serial, base).await;
            let blob = producers(log);
            self.checkpoint_when_possible(log, &blob).await?;
        }
        self.when_possible(State::append_closed).await?;
        self.until_durable().await
    }

    /// Tells the writer to write everything. Returns the partitions and their active segments.
    fn flush_all(&self) -> Vec<(LogIndex, u64, i64)> {
        let mut state = self.0.state.borrow_mut();
        let mut logs = Vec::new();
        for log in (0..state.slots.len() as u32).map(LogIndex) {
            state.flush(log);
            let Some(partition) = state.log(log) else { continue };
            logs.push((log, partition.serial, partition.active().base_offset));
        }
        logs
    }
}

impl<D: Disk> State<D> {
    /// Tells the writer to write all that is durable of a partition, however little.
    pub fn flush(&mut self, log: LogIndex) {
        let State { slots, writer, .. } = self;
        let Some(partition) = slots[log.0 as usize].as_mut() else { return };
        if !partition.is_written() || partition.synced() < partition.durable.place {
            partition.flush_to = Some(partition.durable.place);
            writer.enqueue(log, partition);
        }
    }

    /// A generation above that of any earlier partition of this id, also in other journals: one opening a second is never reached.
    fn first_generation(&self, id: PartitionId) -> u32 {
        let seconds = u32::try_from(self.now.wall_ms / 1000).unwrap_or(1).max(1);
        self.dropped.get(&id).map_or(seconds, |dropped| seconds.max(dropped + 1))
    }

    /// Appends a checkpoint, or the truncation that bears one.
    pub fn checkpoint(&mut self, log: LogIndex, kind: Kind, producers: &[u8]) -> Result<(), Refused> {
        let Some(partition) = self.log_mut(log) else { return Ok(()) };
        partition.checkpoint_due = false;
        if kind == Kind::Checkpoint && (partition.mode == Mode::Closed || partition.placing.is_busy()) {
            // It is cut or deleted, which the journal may know already; if it stays, it is asked for again. Or large batches are on their way
            // to its segments, which would be vouched for: they bring a checkpoint of their own.
            return Ok(());
        }
        partition.placing.note_producers(producers.len());
        let end_offset = partition.end_offset;
        let payload = partition.checkpoint(producers).encode();
        self.append_control(log, kind, end_offset, &payload)
    }
}

/// Reads what the partition's directory holds.
async fn load_partition<D: Disk>(
    disk: &D,
    recovered: Recovered,
    settings: PartitionSettings,
) -> Result<PartitionLog<D>, LogError> {
    let Recovered { id, dir, generation, start_offset, end_offset, epochs, active, .. } = recovered;
    let bases = segment_bases(disk, &dir).await?;
    let mut partition = PartitionLog::new(id, generation + 1, dir.clone(), settings, end_offset);
    partition.dir_made = !bases.is_empty();
    partition.start_offset = start_offset;
    partition.epochs = epochs;
    if start_offset < end_offset && bases.first().is_none_or(|first| *first > start_offset) {
        let what = format!("the segment with offset {start_offset} is missing");
        let path = dir.display().to_string();
        return Err(LogError::Damaged(Damage { path, position: 0, partition: Some(id), what }));
    }
    let Some((&last, sealed)) = bases.split_last() else { return Ok(partition) };
    let mut segments = Vec::with_capacity(bases.len());
    for (at, &base) in sealed.iter().enumerate() {
        let path = dir::segment_path(&dir, base);
        let file = disk.open(&path, OpenMode::ReadBuffered).await.map_err(LogError::io("open", &path))?;
        let bytes = disk.file_bytes(&file).await.map_err(LogError::io("open", &path))?;
        segments.push(Segment::on_disk(base, bases[at + 1], bytes));
    }
    let active = match active.filter(|active| active.base_offset == last) {
        Some(known) => open_active(disk, &dir, known, end_offset).await?,
        None => load_active(disk, &dir, id, last).await?,
    };
    if active.end_offset != end_offset.max(last) {
        let what = format!("the last segment ends at offset {}, the log at {end_offset}", active.end_offset);
        let path = dir::segment_path(&dir, last).display().to_string();
        return Err(LogError::Damaged(Damage { path, position: active.bytes, partition: Some(id), what }));
    }
    segments.push(active);
    partition.adopt_segments(segments.into());
    Ok(partition)
}

/// The last segment, ready to be appended to: its last partial block is in memory.
async fn load_active<D: Disk>(disk: &D, dir: &Path, id: PartitionId, base: i64) -> Result<Segment<D>, LogError> {
    let loaded = load(disk, dir, id, base).await?;
    if let Some(damage) = loaded.damage {
        return Err(LogError::Damaged(damage));
    }
    if loaded.index.entries().is_empty() {
        // Made, and nothing written before the crash: it is made again with its first batch.
        return Ok(Segment::new(base));
    }
    let path = dir::segment_path(dir, base);
    let failed = |error| LogError::io("open", &path)(error);
    let file = disk.open(&path, OpenMode::Direct).await.map_err(failed)?;
    let partial_at = loaded.bytes - loaded.bytes % DISK_BLOCK_BYTES as u64;
    let partial = disk.read(&file, partial_at, (loaded.bytes - partial_at) as usize).await.map_err(failed)?;
    let known = ActiveSegment {
        base_offset: base,
        bytes: loaded.bytes,
        index: loaded.index,
        index_saved: loaded.index_saved,
        max_timestamp: loaded.max_timestamp,
        partial: partial.to_vec(),
    };
    Ok(active_segment(disk, file, known, loaded.end_offset))
}

/// As `load_active`, of a segment that recovery has looked at.
async fn open_active<D: Disk>(
    disk: &D,
    dir: &Path,
    known: ActiveSegment,
    end_offset: Offset,
) -> Result<Segment<D>, LogError> {
    let path = dir::segment_path(dir, known.base_offset);
    let file = disk.open(&path, OpenMode::Direct).await.map_err(LogError::io("open", &path))?;
    Ok(active_segment(disk, file, known, end_offset))
}

fn active_segment<D: Disk>(disk: &D, file: D::File, known: ActiveSegment, end_offset: Offset) -> Segment<D> {
    let mut segment = Segment::on_disk(known.base_offset, end_offset, known.bytes);
    let partial_at = known.bytes - known.bytes % DISK_BLOCK_BYTES as u64;
    segment.tail.append(disk, partial_at, &known.partial, &mut ChunkSizes::default());
    segment.index_saved = known.index_saved;
    segment.index = Some(known.index);
    segment.max_timestamp = Some(known.max_timestamp);
    segment.file = SegmentFile::Open(file);
    segment.sealed = false;
    segment
}
