//! The journal's files: which one is written, which wait empty, which may be used again. Made and recycled in the background.
//!
//! A synced write into blocks that were never written takes a transaction of the filesystem, too, and waits for any other that is under way:
//! so files are written with zeros first, and one that could not be is left early, for one that is.
//!
//! A file is live until every partition has what it appended there durable in a segment, and has its latest checkpoint in a later
//! file. Live files are freed oldest first, so a journal is always one unbroken stretch of records.

use super::format::{FIRST_COMMIT_AT, FileHeader};
use crate::base::counters::JournalCounters;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::log::LogIndex;
use crate::log::dir;
use crate::log::error::{Fatal, Refused, is_disk_full};
use crate::log::settings::LogSettings;
use crate::ports::{Buffer, Disk, OpenMode};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// Files beyond the limit that checkpoints may take: they are what frees the others.
const ESSENTIAL_FILES: usize = 2;
/// Zeros are written in pieces of this size, so that commits are not held up behind them.
const ZERO_PIECE_BYTES: usize = 1 << 20;
/// What may be appended to a file that was not zeroed before another one is prepared. Who appends less needs none: a broker that is tried
/// out, or started for a test.
const UNWRITTEN_BYTES_MAX: u64 = 1 << 20;

/// A file that holds records which recovery would need.
pub(crate) struct LiveFile<F> {
    pub sequence: u32,
    pub file: F,
    number: u32,
    /// Its blocks were written before, but perhaps for the last ones of a file that a large batch did not fit into any more.
    is_written: bool,
    /// Partitions with bytes here that are not durable in a segment.
    pub unflushed: usize,
    /// Partitions whose latest checkpoint, or one on its way, is here.
    pub checkpoints: usize,
    /// Slots of all partitions that appended here, and of those that were checkpointed here; some may have moved on.
    pub appended: Vec<u32>,
    pub checkpointed: Vec<u32>,
}

/// A file with its header written and no records.
pub(crate) struct ReadyFile<F> {
    sequence: u32,
    number: u32,
    file: F,
    is_written: bool,
}

struct FreeFile<F> {
    number: u32,
    file: F,
    is_written: bool,
}

/// See the module. Invariant: `live` is never empty; its last is the one being written.
pub(crate) struct Ring<D: Disk> {
    dir: PathBuf,
    core: u16,
    file_bytes: u64,
    files_max: usize,
    session: u32,
    salt: u32,
    live: VecDeque<LiveFile<D::File>>,
    ready: VecDeque<ReadyFile<D::File>>,
    /// Oldest first: what a crash finds is then still one unbroken stretch.
    free: VecDeque<FreeFile<D::File>>,
    next_sequence: u32,
    next_number: u32,
    preparing: bool,
    /// Someone was refused for want of a file: make one quickly rather than well.
    pub urgent: bool,
    /// A checkpoint was: one beyond the limit may be made.
    essential: bool,
    /// The last attempt to make a file found the disk full.
    pub no_space: bool,
}

/// What a background task needs to know to prepare one file.
pub(crate) struct Preparation<F> {
    number: u32,
    header: FileHeader,
    /// A recycled file; `None` makes a new one.
    file: Option<F>,
    is_written: bool,
    path: PathBuf,
    file_bytes: u64,
}

impl<D: Disk> Ring<D> {
    pub fn new(
        dir: PathBuf,
        core: u16,
        settings: &LogSettings,
        next_sequence: u32,
        next_number: u32,
        salt: u32,
    ) -> Ring<D> {
        Ring {
            dir,
            core,
            file_bytes: settings.journal_file_bytes,
            files_max: settings.journal_files_max(),
            session: next_sequence,
            salt,
            live: VecDeque::new(),
            ready: VecDeque::new(),
            free: VecDeque::new(),
            next_sequence,
            next_number,
            preparing: false,
            urgent: false,
            essential: false,
            no_space: false,
        }
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn current(&self) -> &LiveFile<D::File> {
        self.live.back().expect("one file is always live")
    }

    pub fn live_mut(&mut self, sequence: u32) -> Option<&mut LiveFile<D::File>> {
        self.live.iter_mut().rev().find(|file| file.sequence == sequence)
    }

    /// Bytes of all files, whatever their state.
    pub fn bytes_on_disk(&self) -> u64 {
        self.file_bytes * self.files() as u64
    }

    /// More files are live than the journal should have.
    pub fn is_beyond_limit(&self) -> bool {
        self.live.len() > self.files_max
    }

    fn files(&self) -> usize {
        self.live.len() + self.ready.len() + self.free.len() + usize::from(self.preparing)
    }

    /// Goes on to the next prepared file, since the current one, if there is one, is full.
    ///
    /// # Errors
    /// `Backlog` where none is ready, `DiskFull` where none could be made.
    pub fn next_file(&mut self, essential: bool) -> Result<(), Refused> {
        let Some(ready) = self.ready.pop_front() else {
            self.urgent = true;
            self.essential |= essential;
            return Err(if self.no_space { Refused::DiskFull } else { Refused::Backlog });
        };
        self.urgent = false;
        self.essential = false;
        if let Some(full) = self.live.back_mut() {
            full.is_written = true;
        }
        self.go_on(ready);
        Ok(())
    }

    /// Leaves the current file if it was not zeroed and the next one is ready and was; true if so.
    pub fn leave_unwritten(&mut self) -> bool {
        if self.current().is_written || !self.ready.front().is_some_and(|ready| ready.is_written) {
            return false;
        }
        let ready = self.ready.pop_front().expect("looked at");
        self.go_on(ready);
        true
    }

    fn go_on(&mut self, ready: ReadyFile<D::File>) {
        self.live.push_back(LiveFile {
            sequence: ready.sequence,
            file: ready.file,
            number: ready.number,
            is_written: ready.is_written,
            unflushed: 0,
            checkpoints: 0,
            appended: Vec::new(),
            checkpointed: Vec::new(),
        });
    }

    /// A checkpoint of the partition in this slot was put into the file of that sequence, which is being written.
    pub fn note_checkpoint(&mut self, sequence: u32, log: LogIndex) {
        let file = self.live_mut(sequence).expect("the file being written is live");
        file.checkpoints += 1;
        file.checkpointed.push(log.0);
    }

    /// Files up to this sequence are to be freed: half of the ring is kept for what segments have yet to take over.
    pub fn retire_through(&self) -> Option<u32> {
        let kept = (self.files_max / 2).max(1);
        let retired = self.live.len().checked_sub(kept + 1)?;
        Some(self.live[retired].sequence)
    }

    /// Files whose content is to be made superfluous now.
    pub fn retiring(&self) -> impl Iterator<Item = &LiveFile<D::File>> {
        let through = self.retire_through();
        self.live.iter().take_while(move |file| through.is_some_and(|through| file.sequence <= through))
    }

    /// Frees the oldest files that nobody needs. `pending`: the oldest file with a write not yet complete.
    pub fn free_oldest(&mut self, pending: Option<u32>, counters: &mut JournalCounters) {
        while self.live.len() > 1 {
            let oldest = &self.live[0];
            let is_pending = pending.is_some_and(|pending| pending <= oldest.sequence);
            if oldest.unflushed > 0 || oldest.checkpoints > 0 || is_pending {
                return;
            }
            let file = self.live.pop_front().expect("more than one");
            let LiveFile { number, file, is_written, .. } = file;
            self.free.push_back(FreeFile { number, file, is_written });
            counters.files_recycled += 1;
        }
    }

    /// Adds a file of an earlier session, whose header was wiped. Whether that one zeroed it is not known.
    pub fn adopt(&mut self, number: u32, file: D::File) {
        self.free.push_back(FreeFile { number, file, is_written: false });
    }

    /// Whether one more file of an earlier session fits.
    pub fn has_room(&self) -> bool {
        self.files() < self.files_max
    }

    /// What to prepare now, if anything. `position` is how far the current file is filled.
    pub fn preparation(&mut self, position: u64) -> Option<Preparation<D::File>> {
        let is_written = self.live.back().is_some_and(|current| current.is_written);
        let most = if is_written { self.file_bytes / 4 } else { UNWRITTEN_BYTES_MAX.min(self.file_bytes / 16) };
        let soon = self.urgent || position > most;
        if self.preparing || !self.ready.is_empty() || !soon {
            return None;
        }
        let free = self.free.pop_front();
        let files_max = self.files_max + if self.essential { ESSENTIAL_FILES } else { 0 };
        if free.is_none() && self.files() >= files_max {
            return None;
        }
        Some(self.prepare(free))
    }

    /// The first file of a session, before any is live.
    pub fn first_preparation(&mut self) -> Preparation<D::File> {
        assert!(self.live.is_empty() && self.ready.is_empty());
        self.urgent = true;
        self.prepare(None)
    }

    fn prepare(&mut self, free: Option<FreeFile<D::File>>) -> Preparation<D::File> {
        self.preparing = true;
        let (number, file, is_written) = match free {
            Some(free) => (free.number, Some(free.file), free.is_written),
            None => {
                self.next_number += 1;
                (self.next_number - 1, None, false)
            }
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let first_live = self.live.front().map_or(sequence, |oldest| oldest.sequence);
        Preparation {
            number,
            header: FileHeader::new(self.core, sequence, self.session, self.salt, first_live),
            file,
            is_written,
            path: dir::journal_path(&self.dir, number),
            file_bytes: self.file_bytes,
        }
    }

    /// Takes what `Preparation::run` brought.
    ///
    /// # Errors
    /// Anything but a full disk is fatal.
    pub fn prepared(
        &mut self,
        outcome: Result<ReadyFile<D::File>, (PathBuf, io::Error)>,
        counters: &mut JournalCounters,
    ) -> Result<(), Fatal> {
        self.preparing = false;
        match outcome {
            Ok(ready) => {
                self.no_space = false;
                self.ready.push_back(ready);
                counters.files_created += 1;
            }
            Err((_, error)) if is_disk_full(&error) => self.no_space = true,
            Err((path, error)) => return Err(Fatal::new("prepare the journal file", &path, &error)),
        }
        Ok(())
    }
}

impl<F: Clone> Preparation<F> {
    /// Makes or recycles the file. `is_urgent` ends the zeroing early.
    pub async fn run<D: Disk<File = F>>(
        self,
        disk: &D,
        is_urgent: impl Fn() -> bool,
    ) -> Result<ReadyFile<F>, (PathBuf, io::Error)> {
        match self.prepare(disk, is_urgent).await {
            Ok((file, is_written)) => {
                Ok(ReadyFile { sequence: self.header.file_sequence, number: self.number, file, is_written })
            }
            Err(error) => {
                if self.file.is_none() {
                    // Gives back what a full disk did allow; if that fails too, the next start finds an unused file.
                    let _ = disk.remove_file(&self.path).await;
                }
                Err((self.path, error))
            }
        }
    }

    async fn prepare<D: Disk<File = F>>(&self, disk: &D, is_urgent: impl Fn() -> bool) -> io::Result<(F, bool)> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.create(disk).await?,
        };
        // Before the zeros: by its old header, a recycled file that is half wiped would be a damaged one.
        self.write_header(disk, &file).await?;
        if self.file.is_none() {
            disk.sync(&file).await?;
            if let Some(dir) = self.path.parent() {
                disk.sync_dir(dir).await?;
            }
        }
        let is_written = self.is_written || self.zero(disk, &file, is_urgent).await?;
        Ok((file, is_written))
    }

    async fn create<D: Disk<File = F>>(&self, disk: &D) -> io::Result<F> {
        let file = disk.open(&self.path, OpenMode::CreateDirect).await?;
        disk.set_file_bytes(&file, self.file_bytes).await?;
        disk.allocate(&file, 0, self.file_bytes).await?;
        Ok(file)
    }

    /// True where it came to the file's end.
    async fn zero<D: Disk<File = F>>(&self, disk: &D, file: &F, is_urgent: impl Fn() -> bool) -> io::Result<bool> {
        let zeros = disk.buffer(ZERO_PIECE_BYTES);
        let mut position = FIRST_COMMIT_AT;
        while position < self.file_bytes {
            if is_urgent() {
                return Ok(false);
            }
            if zeros.is_empty() {
                zeros.append(&vec![0; ZERO_PIECE_BYTES]);
            }
            let bytes = (self.file_bytes - position).min(ZERO_PIECE_BYTES as u64);
            disk.write(file, position, &zeros, 0..bytes as usize, true).await?;
            position += bytes;
        }
        Ok(true)
    }

    async fn write_header<D: Disk<File = F>>(&self, disk: &D, file: &F) -> io::Result<()> {
        let block = disk.buffer(DISK_BLOCK_BYTES);
        block.append(&self.header.encode());
        block.pad_to_block();
        disk.write(file, 0, &block, 0..DISK_BLOCK_BYTES, true).await
    }
}
