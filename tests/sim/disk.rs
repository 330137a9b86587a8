//! A disk in memory that completes its work in random order and, when the power fails, keeps of what was not synced what it likes:
//! sectors of writes, sizes, and the first so many changes of each directory.

use super::rng::Rng;
use bytes::Bytes;
use ringlog::ports::{Buffer, Disk, DiskCompletion, OpenMode, WriteToken};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// A change of a file that a crash may undo.
#[derive(Clone)]
enum Unsynced {
    Write { at: u64, bytes: Rc<Vec<u8>> },
    Size(u64),
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, u64),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct Directory {
    now: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    unsynced: Vec<Change>,
}

struct HotWrite {
    file: u64,
    at: u64,
    bytes: Rc<Vec<u8>>,
    buffer: SimBuffer,
    range: Range<usize>,
    durable: bool,
    core: u16,
    token: WriteToken,
}

type Job = Box<dyn FnOnce(&mut Storage)>;

/// What survives a crash, and what does not.
#[derive(Default)]
pub struct Storage {
    inodes: Vec<Inode>,
    directories: BTreeMap<PathBuf, Directory>,
    hot: Vec<HotWrite>,
    jobs: Vec<Job>,
    /// Bytes that all files together may hold.
    pub space: u64,
    /// The next write fails with this.
    pub fail_next_write: Option<io::ErrorKind>,
    /// Counts, for tests that look at how the disk is used.
    pub durable_writes: u64,
}

impl Inode {
    fn write(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
        let end = at as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[at as usize..end].copy_from_slice(bytes);
    }

    /// Makes one write durable, and the size it needs; other writes stay as they are.
    fn settle_write(&mut self, at: u64, bytes: &[u8]) {
        Inode::write(&mut self.durable, at, bytes);
        // What was written there before may not come back over it.
        self.unsynced.retain(|change| match change {
            Unsynced::Write { at: other, bytes: old } => {
                let inside = *other >= at && *other + old.len() as u64 <= at + bytes.len() as u64;
                !inside
            }
            Unsynced::Size(_) => true,
        });
    }

    fn sync(&mut self) {
        self.durable = self.now.clone();
        self.unsynced.clear();
    }

    fn crash(&mut self, rng: &mut Rng) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::Write { at, bytes } => tear(&mut self.durable, at, &bytes, rng),
                Unsynced::Size(size) if rng.one_in(2) => self.durable.resize(size as usize, 0),
                Unsynced::Size(_) => {}
            }
        }
        self.now = self.durable.clone();
    }
}

/// Keeps all, nothing, or some sectors of a write.
fn tear(content: &mut Vec<u8>, at: u64, bytes: &[u8], rng: &mut Rng) {
    match rng.below(3) {
        0 => Inode::write(content, at, bytes),
        1 => {}
        _ => {
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                if rng.one_in(2) {
                    Inode::write(content, at + (n * SECTOR) as u64, sector);
                }
            }
        }
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.below(self.unsynced.len() + 1);
        for change in self.unsynced.drain(..).take(kept) {
            apply(&mut self.durable, &change);
        }
        self.now = self.durable.clone();
    }
}

fn apply(entries: &mut BTreeMap<PathBuf, u64>, change: &Change) {
    match change {
        Change::Add(name, inode) => entries.insert(name.clone(), *inode),
        Change::Remove(name) => entries.remove(name),
    };
}

fn split(path: &Path) -> (PathBuf, PathBuf) {
    (path.parent().expect("a parent").to_owned(), PathBuf::from(path.file_name().expect("a name")))
}

impl Storage {
    fn find(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path);
        let entries = &self.directories.get(&dir).ok_or(io::ErrorKind::NotFound)?.now;
        entries.get(&name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        let live = self.directories.values().flat_map(|dir| dir.now.values());
        live.map(|inode| self.inodes[*inode as usize].now.len() as u64).sum()
    }

    fn check_space(&mut self, file: u64, end: u64) -> io::Result<()> {
        if let Some(kind) = self.fail_next_write.take() {
            return Err(kind.into());
        }
        let grows = end.saturating_sub(self.inodes[file as usize].now.len() as u64);
        if grows > 0 && self.used() + grows > self.space {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn write(&mut self, file: u64, at: u64, bytes: Rc<Vec<u8>>, durable: bool) -> io::Result<()> {
        self.check_space(file, at + bytes.len() as u64)?;
        let inode = &mut self.inodes[file as usize];
        Inode::write(&mut inode.now, at, &bytes);
        if durable {
            inode.settle_write(at, &bytes);
            self.durable_writes += 1;
        } else {
            inode.unsynced.push(Unsynced::Write { at, bytes });
        }
        Ok(())
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let found = self.find(path);
        let makes = matches!(mode, OpenMode::CreateDirect | OpenMode::WriteBuffered);
        match found {
            Ok(_) if mode == OpenMode::CreateDirect => Err(io::ErrorKind::AlreadyExists.into()),
            Ok(inode) => Ok(SimFile { inode, mode }),
            Err(error) if !makes => Err(error),
            Err(_) => {
                let (dir, name) = split(path);
                let inode = self.inodes.len() as u64;
                self.inodes.push(Inode::default());
                let dir = self.directories.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
                dir.change(Change::Add(name, inode));
                Ok(SimFile { inode, mode })
            }
        }
    }

    /// The power fails: what was on its way is torn, what was not synced may be lost.
    pub fn crash(&mut self, rng: &mut Rng) {
        for write in std::mem::take(&mut self.hot) {
            let inode = &mut self.inodes[write.file as usize];
            inode.unsynced.push(Unsynced::Write { at: write.at, bytes: write.bytes });
        }
        self.jobs.clear();
        for inode in &mut self.inodes {
            inode.crash(rng);
        }
        for directory in self.directories.values_mut() {
            directory.crash(rng);
        }
    }

    /// The files under `dir`, with their content.
    pub fn files(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let inside = self.directories.iter().filter(|(path, _)| path.starts_with(dir));
        let entries = inside.flat_map(|(path, dir)| dir.now.iter().map(move |(name, inode)| (path.join(name), inode)));
        entries.map(|(path, inode)| (path, self.inodes[*inode as usize].now.clone())).collect()
    }

    /// Puts a file with this content where it may not exist yet, behind everyone's back, durably.
    pub fn put(&mut self, path: &Path, content: Vec<u8>) {
        let (dir, name) = split(path);
        for parent in dir.ancestors() {
            self.directories.entry(parent.to_owned()).or_default();
        }
        let inode = self.inodes.len() as u64;
        self.inodes.push(Inode { now: content.clone(), durable: content, unsynced: Vec::new() });
        let directory = self.directories.get_mut(&dir).expect("just made");
        directory.now.insert(name.clone(), inode);
        directory.durable.insert(name, inode);
    }

    /// Changes a file behind everyone's back, durably.
    pub fn edit(&mut self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let inode = self.find(path).expect("the file exists") as usize;
        edit(&mut self.inodes[inode].now);
        self.inodes[inode].sync();
    }

    /// Removes a file behind everyone's back, durably.
    pub fn lose(&mut self, path: &Path) {
        let (dir, name) = split(path);
        let directory = self.directories.get_mut(&dir).expect("the directory exists");
        directory.change(Change::Remove(name));
        directory.durable = directory.now.clone();
        directory.unsynced.clear();
    }
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub struct SimFile {
    inode: u64,
    mode: OpenMode,
}

/// Memory that remembers how full it is.
#[derive(Clone)]
pub struct SimBuffer {
    bytes: Rc<RefCell<Vec<u8>>>,
    capacity: usize,
}

impl Buffer for SimBuffer {
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }
    fn append(&self, bytes: &[u8]) {
        let mut all = self.bytes.borrow_mut();
        all.extend_from_slice(bytes);
        assert!(all.len() <= self.capacity, "a buffer overflowed");
    }
    fn pad_to_block(&self) {
        let mut all = self.bytes.borrow_mut();
        let padded = all.len().next_multiple_of(BLOCK as usize);
        all.resize(padded, 0);
    }
    fn view(&self, range: Range<usize>) -> Bytes {
        Bytes::copy_from_slice(&self.bytes.borrow()[range])
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
pub struct Shared {
    pub storage: Storage,
    pub spawned: Vec<Task>,
}

/// A core's handle to the disk. Handles of before a crash must not be used after it.
#[derive(Clone)]
pub struct SimDisk(pub Rc<RefCell<Shared>>, u16);

impl SimDisk {
    pub fn new() -> SimDisk {
        let disk = SimDisk(Rc::default(), 0);
        disk.0.borrow_mut().storage.space = 1 << 40;
        disk.0.borrow_mut().storage.directories.insert(PathBuf::from("/"), Directory::default());
        disk
    }

    /// The handle of another core to the same disk.
    pub fn of_core(&self, core: u16) -> SimDisk {
        SimDisk(self.0.clone(), core)
    }

    /// Hot writes on their way.
    pub fn hot_writes(&self) -> usize {
        self.0.borrow().storage.hot.len()
    }

    /// Work that could complete now.
    pub fn waiting(&self) -> usize {
        let shared = self.0.borrow();
        shared.storage.jobs.len() + shared.storage.hot.len()
    }

    /// Completes one piece of work; a hot write is returned for the core that wanted it.
    pub fn complete_one(&self, rng: &mut Rng) -> Option<(u16, DiskCompletion)> {
        let (jobs, hot) = {
            let shared = self.0.borrow();
            (shared.storage.jobs.len(), shared.storage.hot.len())
        };
        let choice = rng.below(jobs + hot);
        if choice < jobs {
            let job = self.0.borrow_mut().storage.jobs.swap_remove(choice);
            job(&mut self.0.borrow_mut().storage);
            return None;
        }
        if hot == 0 {
            return None;
        }
        let mut shared = self.0.borrow_mut();
        let HotWrite { file, at, bytes, buffer, range, durable, core, token } =
            shared.storage.hot.swap_remove(choice - jobs);
        assert_eq!(buffer.bytes.borrow()[range], bytes[..], "a buffer changed while it was written");
        let result = shared.storage.write(file, at, bytes, durable);
        Some((core, DiskCompletion { token, result }))
    }

    async fn job<T: 'static>(&self, work: impl FnOnce(&mut Storage) -> io::Result<T> + 'static) -> io::Result<T> {
        type Slot<T> = Rc<RefCell<(Option<io::Result<T>>, Option<Waker>)>>;
        let slot: Slot<T> = Rc::new(RefCell::new((None, None)));
        let done = slot.clone();
        self.0.borrow_mut().storage.jobs.push(Box::new(move |storage| {
            let result = work(storage);
            let mut done = done.borrow_mut();
            done.0 = Some(result);
            if let Some(waker) = done.1.take() {
                waker.wake();
            }
        }));
        poll_fn(move |context| {
            let mut slot = slot.borrow_mut();
            match slot.0.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    slot.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Buffer = SimBuffer;

    fn buffer(&self, bytes: usize) -> SimBuffer {
        SimBuffer { bytes: Rc::default(), capacity: bytes.next_multiple_of(BLOCK as usize) }
    }

    fn submit_write(
        &self,
        file: &SimFile,
        offset: u64,
        buffer: &SimBuffer,
        range: Range<usize>,
        durable: bool,
        token: WriteToken,
    ) {
        assert!(matches!(file.mode, OpenMode::Direct | OpenMode::CreateDirect));
        assert!(offset.is_multiple_of(BLOCK) && (range.start as u64).is_multiple_of(BLOCK));
        assert!(!range.is_empty() && (range.end as u64).is_multiple_of(BLOCK));
        let bytes = Rc::new(buffer.bytes.borrow()[range.clone()].to_vec());
        let (buffer, core) = (buffer.clone(), self.1);
        let write = HotWrite { file: file.inode, at: offset, bytes, buffer, range, durable, core, token };
        let end = offset + write.bytes.len() as u64;
        let mut shared = self.0.borrow_mut();
        for other in shared.storage.hot.iter().filter(|other| other.file == write.file) {
            let other_end = other.at + other.bytes.len() as u64;
            assert!(other_end <= offset || end <= other.at, "two writes of the same block are on their way");
        }
        shared.storage.hot.push(write);
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let path = path.to_owned();
        self.job(move |storage| storage.open(&path, mode)).await
    }

    async fn file_bytes(&self, file: &SimFile) -> io::Result<u64> {
        let inode = file.inode as usize;
        self.job(move |storage| Ok(storage.inodes[inode].now.len() as u64)).await
    }

    async fn read(&self, file: &SimFile, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let inode = file.inode as usize;
        self.job(move |storage| {
            let content = &storage.inodes[inode].now;
            let from = content.len().min(offset as usize);
            let to = content.len().min(from.saturating_add(bytes));
            Ok(Bytes::copy_from_slice(&content[from..to]))
        })
        .await
    }

    async fn write_small(&self, file: &SimFile, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        assert_eq!(file.mode, OpenMode::WriteBuffered);
        let inode = file.inode;
        self.job(move |storage| storage.write(inode, offset, Rc::new(bytes), false)).await
    }

    async fn write(
        &self,
        file: &SimFile,
        offset: u64,
        buffer: &SimBuffer,
        range: Range<usize>,
        durable: bool,
    ) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK) && (range.end as u64).is_multiple_of(BLOCK));
        let bytes = Rc::new(buffer.bytes.borrow()[range].to_vec());
        let inode = file.inode;
        self.job(move |storage| storage.write(inode, offset, bytes, durable)).await
    }

    async fn sync(&self, file: &SimFile) -> io::Result<()> {
        let inode = file.inode as usize;
        self.job(move |storage| {
            storage.inodes[inode].sync();
            Ok(())
        })
        .await
    }

    async fn set_file_bytes(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        let inode = file.inode;
        self.job(move |storage| {
            storage.check_space(inode, bytes)?;
            let inode = &mut storage.inodes[inode as usize];
            inode.now.resize(bytes as usize, 0);
            inode.unsynced.push(Unsynced::Size(bytes));
            Ok(())
        })
        .await
    }

    async fn allocate(&self, file: &SimFile, offset: u64, bytes: u64) -> io::Result<()> {
        let inode = file.inode;
        self.job(move |storage| storage.check_space(inode, offset + bytes)).await
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.job(move |storage| {
            for dir in path.ancestors() {
                storage.directories.entry(dir.to_owned()).or_default();
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let path = path.to_owned();
        self.job(move |storage| {
            let Some(dir) = storage.directories.get(&path) else { return Ok(Vec::new()) };
            let children = storage.directories.keys().filter(|child| child.parent() == Some(&path));
            let names = children.filter_map(|child| child.file_name().map(PathBuf::from));
            Ok(dir.now.keys().cloned().chain(names).collect())
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.job(move |storage| {
            if storage.directories.contains_key(&from) {
                let moved = storage.directories.remove(&from).expect("it is there");
                storage.directories.insert(to, moved);
                return Ok(());
            }
            let inode = storage.find(&from)?;
            let ((dir, name), (to_dir, to_name)) = (split(&from), split(&to));
            assert_eq!(dir, to_dir, "files stay in their directory");
            let dir = storage.directories.get_mut(&dir).expect("it was found there");
            dir.change(Change::Add(to_name, inode));
            dir.change(Change::Remove(name));
            Ok(())
        })
        .await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.job(move |storage| {
            storage.find(&path)?;
            let (dir, name) = split(&path);
            storage.directories.get_mut(&dir).expect("it was found there").change(Change::Remove(name));
            Ok(())
        })
        .await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.job(move |storage| {
            let dir = storage.directories.get(&path).ok_or(io::ErrorKind::NotFound)?;
            if !dir.now.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            storage.directories.remove(&path);
            Ok(())
        })
        .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.job(move |storage| {
            let dir = storage.directories.get_mut(&path).ok_or(io::ErrorKind::NotFound)?;
            dir.durable = dir.now.clone();
            dir.unsynced.clear();
            Ok(())
        })
        .await
    }

    async fn sync_all(&self, _path: &Path) -> io::Result<()> {
        self.job(|storage| {
            storage.inodes.iter_mut().for_each(Inode::sync);
            for dir in storage.directories.values_mut() {
                dir.durable = dir.now.clone();
                dir.unsynced.clear();
            }
            Ok(())
        })
        .await
    }

    async fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.job(|storage| Ok(storage.space.saturating_sub(storage.used()))).await
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawned.push(Box::pin(future));
    }
}
