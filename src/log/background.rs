//! What the log does beside its hot path: journal files ahead of need, segment files, syncs, indexes, and keeping within memory.
//!
//! `keep_up` looks once a turn and starts tasks; the tasks await the disk and put what they did into the state.

use super::core::{CoreLog, State};
use super::dir;
use super::error::{Fatal, is_disk_full};
use super::segment::SegmentFile;
use super::segment::index::{ENTRY_BYTES, INDEX_HEADER_BYTES, Index};
use super::segment::tail::{CHUNK_BYTES_MIN, ChunkSizes};
use super::writer::{Chore, Errand, Evictable};
use super::{LogIndex, partition::PartitionLog};
use crate::base::ids::Offset;
use crate::base::time::Nanos;
use crate::ports::{Disk, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// How often what is due is looked for again, where nothing else brings it up.
const LOOK_AGAIN_MS: u64 = 100;
/// How long after a full disk the next write is tried.
const DISK_FULL_RETRY_MS: u64 = 1_000;
/// Partitions flushed for their age in one look: 64 writes of a block ten times a second are little beside anything else.
const AGED_PER_LOOK: usize = 64;
/// With more than this appended since the last look, what is aged waits: the journal will ask for it, in larger pieces.
const CALM_BYTES_PER_LOOK: u64 = 1 << 20;
/// Bytes of a growing segment that its index file may not know: a start after a crash scans them instead, and thousands of small segments
/// do without the file.
const UNINDEXED_BYTES_MAX: u64 = 64 << 10;

/// When things were last looked for.
#[derive(Default)]
pub(crate) struct Looks {
    last: Nanos,
    appended_bytes: u64,
    disk_full_tried: Nanos,
    journal_full_tried: Nanos,
}

impl<D: Disk> CoreLog<D> {
    /// Starts whatever is due and can go.
    pub(crate) fn keep_up(&self, state: &mut State<D>) {
        self.prepare_journal(state);
        self.unlink_due(state);
        let now = state.now.mono;
        let retire_through = state.ring.retire_through();
        let is_look = now.since(state.looks.last) >= LOOK_AGAIN_MS * 1_000_000;
        if is_look || retire_through != state.retired_through {
            state.looks.last = now;
            state.retired_through = retire_through;
            state.retire();
        }
        if is_look {
            let appended = state.counters.journal.append_bytes;
            let before = std::mem::replace(&mut state.looks.appended_bytes, appended);
            if appended - before <= CALM_BYTES_PER_LOOK {
                state.flush_aged();
            }
        }
        if state.writer.disk_full && now.since(state.looks.disk_full_tried) >= DISK_FULL_RETRY_MS * 1_000_000 {
            state.looks.disk_full_tried = now;
            state.writer.disk_full = false;
        }
        state.relieve_pressure();
        let State { writer, disk, slots, .. } = state;
        writer.run(disk, slots, retire_through);
        self.run_errands(state);
        state.evict();
    }

    fn prepare_journal(&self, state: &mut State<D>) {
        let now = state.now.mono;
        if state.ring.no_space && now.since(state.looks.journal_full_tried) < DISK_FULL_RETRY_MS * 1_000_000 {
            return;
        }
        let position = state.commits.position();
        let Some(preparation) = state.ring.preparation(position) else { return };
        state.looks.journal_full_tried = now;
        let log = self.clone();
        state.disk.spawn(async move {
            let shared = &log.0;
            let outcome = preparation.run(&shared.disk, || shared.state.borrow().ring.urgent).await;
            let mut state = shared.state.borrow_mut();
            let State { ring, counters, .. } = &mut *state;
            if let Err(fatal) = ring.prepared(outcome, &mut counters.journal) {
                state.failed.get_or_insert(fatal);
            }
            drop(state);
            shared.signal.notify();
        });
    }

    fn run_errands(&self, state: &mut State<D>) {
        let mut errands = std::mem::take(&mut state.writer.errands);
        let syncs = state.writer.due_syncs(state.now.mono);
        if state.writer.syncing_together && !syncs.is_empty() {
            let log = self.clone();
            state.disk.spawn(async move { log.sync_together(syncs).await });
        } else {
            errands.extend(syncs);
        }
        for errand in errands {
            let log = self.clone();
            match errand.chore {
                Chore::Create => state.disk.spawn(async move { log.create_segment(errand).await }),
                Chore::Allocate => state.disk.spawn(async move { log.allocate_segment(errand).await }),
                Chore::Sync => state.disk.spawn(async move { log.sync_segment(errand).await }),
            }
        }
    }

    fn fail(&self, doing: &'static str, path: &Path, error: &io::Error) {
        self.0.state.borrow_mut().failed.get_or_insert(Fatal::new(doing, path, error));
        self.0.signal.notify();
    }

    async fn create_segment(&self, errand: Errand) {
        self.create_file(errand).await;
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, .. } = &mut *state;
        writer.created(slots);
        drop(state);
        self.0.signal.notify();
    }

    async fn create_file(&self, errand: Errand) {
        let Errand { log, serial, segment, .. } = errand;
        let (dir, dir_made, crowded) = {
            let mut state = self.0.state.borrow_mut();
            let crowded = state.writer.is_crowded();
            let Some(partition) = state.log_of(log, serial) else { return };
            (partition.dir.clone(), partition.dir_made, crowded)
        };
        let path = dir::segment_path(&dir, segment);
        let mut outcome = self.make_file(&dir, dir_made, &path).await;
        if !crowded && outcome.is_ok() {
            outcome = self.0.disk.sync_dir(&dir).await.and(outcome);
        }
        {
            let mut state = self.0.state.borrow_mut();
            let State { slots, writer, .. } = &mut *state;
            let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
            let Some(partition) = partition else { return };
            match outcome {
                Ok(file) => {
                    partition.dir_made = true;
                    if let Some(segment) = partition.segment_mut(segment) {
                        segment.file = SegmentFile::Open(file);
                        segment.is_named = !crowded;
                    }
                }
                Err(error) => {
                    if let Some(segment) = partition.segment_mut(segment) {
                        segment.file = SegmentFile::Absent;
                    }
                    if is_disk_full(&error) {
                        writer.disk_full = true;
                    } else {
                        state.failed.get_or_insert(Fatal::new("make the segment", &path, &error));
                        return;
                    }
                }
            }
            writer.enqueue(log, partition);
        }
    }

    /// A new file. One that a crash left behind under this name is made empty.
    async fn make_file(&self, dir: &Path, dir_made: bool, path: &Path) -> io::Result<D::File> {
        let disk = &self.0.disk;
        if !dir_made {
            disk.create_dir(dir).await?;
        }
        match disk.open(path, OpenMode::CreateDirect).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = disk.open(path, OpenMode::Direct).await?;
                disk.set_file_bytes(&file, 0).await?;
                Ok(file)
            }
            other => other,
        }
    }

    async fn allocate_segment(&self, errand: Errand) {
        let Errand { log, serial, segment: base, .. } = errand;
        let (file, from, to, path) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return };
            let path = dir::segment_path(&partition.dir, base);
            let Some(segment) = partition.segment_mut(base) else { return };
            let (SegmentFile::Open(file), Some(to)) = (&segment.file, segment.allocating) else { return };
            (file.clone(), segment.allocated, to, path)
        };
        let mut outcome = self.0.disk.allocate(&file, from, to - from).await;
        if outcome.is_ok() {
            outcome = self.0.disk.set_file_bytes(&file, to).await;
        }
        match outcome {
            // Without room ahead the writes themselves will tell what fits.
            Err(error) if !is_disk_full(&error) => return self.fail("grow the segment", &path, &error),
            _ => {}
        }
        let mut state = self.0.state.borrow_mut();
        let State { slots, writer, .. } = &mut *state;
        let partition = slots[log.0 as usize].as_mut().filter(|partition| partition.serial == serial);
        let Some(partition) = partition else { return };
        if let Some(segment) = partition.segment_mut(base) {
            segment.allocating = None;
            segment.allocated = to;
        }
        writer.enqueue(log, partition);
        state.after_write(log, serial);
        drop(state);
        self.0.signal.notify();
    }

    async fn sync_segment(&self, errand: Errand) {
        let Errand { log, serial, segment: base, .. } = errand;
        let (file, written, is_named, dir) = {
            let mut state = self.0.state.borrow_mut();
            state.counters.segments.syncs += 1;
            let Some(partition) = state.log_of(log, serial) else { return };
            let dir = partition.dir.clone();
            let Some(segment) = partition.segment_mut(base) else { return };
            let SegmentFile::Open(file) = &segment.file else { return };
            (file.clone(), segment.written, segment.is_named, dir)
        };
        let mut outcome = self.0.disk.sync(&file).await;
        if outcome.is_ok() && !is_named {
            outcome = self.0.disk.sync_dir(&dir).await;
        }
        if let Err(error) = outcome {
            return self.fail("sync the segment", &dir::segment_path(&dir, base), &error);
        }
        let is_finished = self.0.state.borrow_mut().note_synced(log, serial, base, written);
        self.0.signal.notify();
        self.after_sync(log, serial, base, is_finished.then_some(file)).await;
    }

    /// Syncs all filesystems that hold one of these segments, with whatever else is on them: hundreds of files cost one transaction each
    /// otherwise.
    async fn sync_together(&self, errands: Vec<Errand>) {
        let mut segments = Vec::with_capacity(errands.len());
        let mut data_dirs = BTreeMap::new();
        {
            let mut state = self.0.state.borrow_mut();
            state.counters.segments.syncs_together += 1;
            for Errand { log, serial, segment: base, .. } in errands {
                let Some(partition) = state.log_of(log, serial) else { continue };
                let data_dir = partition.dir.parent().unwrap_or(&partition.dir).to_owned();
                let Some(segment) = partition.segment_mut(base) else { continue };
                let SegmentFile::Open(file) = &segment.file else { continue };
                data_dirs.insert(data_dir, file.clone());
                segments.push((log, serial, base, segment.written, file.clone()));
            }
        }
        for (data_dir, file) in &data_dirs {
            let mut outcome = self.0.disk.sync_all(data_dir).await;
            if outcome.is_ok() {
                // syncfs does not promise to empty the device's cache where the filesystem itself had nothing to write.
                outcome = self.0.disk.sync(file).await;
            }
            if let Err(error) = outcome {
                return self.fail("sync the segments in", data_dir, &error);
            }
        }
        let mut state = self.0.state.borrow_mut();
        state.writer.syncing_together = false;
        for (log, serial, base, written, file) in segments {
            let is_finished = state.note_synced(log, serial, base, written);
            if is_finished || state.lacks_index(log, serial, base) {
                let core = self.clone();
                state.disk.spawn(async move { core.after_sync(log, serial, base, is_finished.then_some(file)).await });
            }
        }
        drop(state);
        self.0.signal.notify();
    }

    async fn after_sync(&self, log: LogIndex, serial: u64, base: Offset, finished: Option<D::File>) {
        let is_lacking = self.0.state.borrow_mut().lacks_index(log, serial, base);
        if is_lacking || finished.is_some() {
            self.save_index(log, serial, base).await;
        }
        if let Some(file) = finished {
            self.finish_segment(log, serial, base, file).await;
        }
    }

    /// Cuts the padding off a sealed segment and closes it for writing.
    async fn finish_segment(&self, log: LogIndex, serial: u64, base: Offset, file: D::File) {
        let (bytes, path) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return };
            let path = dir::segment_path(&partition.dir, base);
            let Some(segment) = partition.segment_mut(base) else { return };
            (segment.bytes, path)
        };
        // Not synced: padding that comes back after a crash is read as the segment's end.
        if let Err(error) = self.0.disk.set_file_bytes(&file, bytes).await {
            return self.fail("cut the segment", &path, &error);
        }
        let mut state = self.0.state.borrow_mut();
        state.writer.evictable.push_back(Evictable { log, serial, segment: base, end: bytes });
        let Some(segment) = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base)) else { return };
        segment.file = SegmentFile::Closed;
        segment.syncing = false;
        let index_bytes = segment.index.as_ref().map_or(0, Index::memory_bytes);
        state.cache_index(log, serial, base, index_bytes);
        drop(state);
        self.0.signal.notify();
    }

    /// Appends the entries that the index file lacks and the segment's file has. Failures cost a later scan, nothing else.
    pub(crate) async fn save_index(&self, log: LogIndex, serial: u64, base: Offset) {
        let (path, saved, bytes) = {
            let mut state = self.0.state.borrow_mut();
            let Some(partition) = state.log_of(log, serial) else { return };
            let path = dir::index_path(&partition.dir, base);
            let Some(segment) = partition.segment_mut(base) else { return };
            let Some(index) = segment.index.as_ref().filter(|_| !segment.index_saving) else { return };
            let saved = segment.index_saved;
            let to = index.entries().partition_point(|entry| u64::from(entry.position) < segment.synced);
            let is_last = segment.sealed && segment.synced == segment.bytes && !segment.index_sealed;
            if to <= saved && !is_last {
                return;
            }
            let mut bytes = Vec::new();
            if saved == 0 {
                bytes.extend_from_slice(&Index::encode_header(base, None));
            }
            bytes.extend_from_slice(&index.encode_entries(saved..to.max(saved)));
            let seal = is_last.then(|| Index::encode_header(base, Some(index.entries())));
            segment.index_saving = true;
            segment.index_saved = to.max(saved);
            (path, saved, (bytes, seal))
        };
        let (bytes, seal) = bytes;
        let at = if saved == 0 { 0 } else { (INDEX_HEADER_BYTES + saved * ENTRY_BYTES) as u64 };
        let is_sealed = seal.is_some();
        let outcome = self.write_index(&path, at, bytes, seal).await;
        let mut state = self.0.state.borrow_mut();
        let Some(segment) = state.log_of(log, serial).and_then(|partition| partition.segment_mut(base)) else { return };
        segment.index_saving = false;
        match outcome {
            Ok(()) => segment.index_sealed |= is_sealed,
            // Written whole the next time.
            Err(_) => segment.index_saved = 0,
        }
        drop(state);
        self.0.signal.notify();
    }

    async fn write_index(&self, path: &Path, at: u64, bytes: Vec<u8>, seal: Option<Vec<u8>>) -> io::Result<()> {
        let disk = &self.0.disk;
        let file = disk.open(path, OpenMode::WriteBuffered).await?;
        let end = at + bytes.len() as u64;
        if !bytes.is_empty() {
            disk.write_small(&file, at, bytes).await?;
        }
        if let Some(header) = seal {
            // What an older, longer index had behind this one's end goes away before the header vouches for it.
            disk.set_file_bytes(&file, end).await?;
            disk.write_small(&file, 0, header).await?;
        }
        Ok(())
    }
}

impl<D: Disk> State<D> {
    /// The first `written` bytes of a segment are durable. True where that is all of it for ever: then it stays marked as being synced
    /// until its file is closed.
    fn note_synced(&mut self, log: LogIndex, serial: u64, base: Offset, written: u64) -> bool {
        let Some(segment) = self.log_of(log, serial).and_then(|partition| partition.segment_mut(base)) else {
            return false;
        };
        segment.is_named = true;
        segment.synced = segment.synced.max(written);
        let is_finished = segment.sealed && segment.synced == segment.bytes;
        segment.syncing = is_finished;
        self.after_write(log, serial);
        is_finished
    }

    /// The segment's index file lacks so much that it is worth a write.
    fn lacks_index(&mut self, log: LogIndex, serial: u64, base: Offset) -> bool {
        let segment = self.log_of(log, serial).and_then(|partition| partition.segment_mut(base));
        segment.is_some_and(|segment| {
            let unsaved = segment.index.as_ref().and_then(|index| index.entries().get(segment.index_saved));
            unsaved.is_some_and(|first| segment.synced >= u64::from(first.position) + UNINDEXED_BYTES_MAX)
        })
    }

    /// Hurries whoever keeps the journal files alive that are to be freed.
    fn retire(&mut self) {
        let State { ring, slots, writer, checkpoints_due, .. } = self;
        let through = ring.retire_through();
        for file in ring.retiring() {
            for &slot in &file.appended {
                let Some(partition) = slots[slot as usize].as_mut() else { continue };
                if partition.target(through).is_some() {
                    writer.enqueue(LogIndex(slot), partition);
                }
            }
            for &slot in &file.checkpointed {
                let Some(partition) = slots[slot as usize].as_mut() else { continue };
                let is_due = partition.checkpoint_file == Some(file.sequence) && partition.checkpoints_pending == 0;
                if is_due && !partition.checkpoint_due {
                    partition.checkpoint_due = true;
                    checkpoints_due.push(LogIndex(slot));
                }
            }
        }
    }

    fn flush_aged(&mut self) {
        let age = self.settings.flush_age_ms * 1_000_000;
        let before = Nanos(self.now.mono.0.saturating_sub(age));
        for _ in 0..AGED_PER_LOOK {
            let Some((since, log, serial)) = self.writer.oldest_dirty(before) else { return };
            self.flush_soon(log, serial, since);
        }
    }

    /// Has everything of the partition written, if it has waited since `since`.
    fn flush_soon(&mut self, log: LogIndex, serial: u64, since: Nanos) {
        let State { slots, writer, .. } = self;
        let partition = slots[log.0 as usize].as_mut();
        let Some(partition) = partition.filter(|partition| partition.serial == serial) else { return };
        if partition.dirty_since != Some(since) {
            return;
        }
        partition.dirty_since = None;
        partition.flush_to = Some(partition.durable.place);
        writer.enqueue(log, partition);
    }

    /// Writes small pieces early where unwritten bytes take up the memory.
    fn relieve_pressure(&mut self) {
        // No more than are written soon: those that wait longer gather larger pieces.
        while self.writer.dirty_bytes > self.writer.tail_bytes_max as u64 / 4 && self.writer.waiting() < AGED_PER_LOOK {
            let Some((since, log, serial)) = self.writer.oldest_dirty(Nanos(u64::MAX)) else { return };
            self.flush_soon(log, serial, since);
        }
    }

    /// Gives up written chunks, oldest first, while the tails hold more than their budget.
    fn evict(&mut self) {
        let State { writer, slots, disk, counters, .. } = self;
        while writer.tail_bytes > writer.tail_bytes_max {
            let Some(next) = writer.evictable.pop_front() else { return };
            let partition = slots[next.log.0 as usize].as_mut();
            let Some(partition) = partition.filter(|partition| partition.serial == next.serial) else { continue };
            let freed = evict_from(disk, partition, &next);
            writer.tail_bytes -= freed;
            counters.segments.chunks_evicted += u64::from(freed > 0);
        }
    }
}

/// Gives up what `next` names, if it is written; returns the memory it gave back.
fn evict_from<D: Disk>(disk: &D, partition: &mut PartitionLog<D>, next: &Evictable) -> usize {
    let mut chunks = partition.chunks;
    let is_written = partition.is_written();
    let Some(segment) = partition.segment_mut(next.segment) else { return 0 };
    if matches!(segment.file, SegmentFile::Closed) && segment.sealed {
        return segment.tail.clear();
    }
    let mut freed = 0;
    while let Some(first) = segment.tail.first()
        && first.is_full()
        && first.end() <= next.end.min(segment.written)
    {
        freed += segment.tail.evict_first();
    }
    let is_idle = is_written && segment.written == segment.bytes && segment.pieces.is_empty() && !segment.sealed;
    if is_idle && segment.tail.memory_bytes() > CHUNK_BYTES_MIN {
        let keep_from = segment.bytes - segment.bytes % CHUNK_BYTES_MIN as u64;
        let mut kept = Vec::with_capacity(CHUNK_BYTES_MIN);
        segment.tail.views(keep_from, segment.bytes, &mut |view| kept.extend_from_slice(&view));
        freed += segment.tail.clear();
        chunks = ChunkSizes::default();
        freed -= segment.tail.append(disk, keep_from, &kept, &mut chunks);
    }
    partition.chunks = chunks;
    freed
}
