//! `ports::Disk` on this machine: writes and reads by the core's ring, everything that blocks by the core's helper thread.

use super::blocking::Helper;
use super::memory::{Pool, RecordBuffer};
use super::read_ahead::Streams;
use super::ring::{Ring, read_entry, write_entry};
use super::tasks::Tasks;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Buffer, Disk, OpenMode, WriteToken};
use bytes::Bytes;
use io_uring::{opcode, types};
use std::collections::HashSet;
use std::ffi::CString;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Instant;

/// How long after a cold read of a file its pages are looked at one by one before they are sent.
const COLD_READ_MS: u64 = 1_000;

/// An open file; clones share the descriptor. May travel between cores inside a reply.
#[derive(Clone)]
pub struct File {
    inner: Arc<FileInner>,
}

struct FileInner {
    fd: OwnedFd,
    direct: bool,
    path: PathBuf,
    /// The same file opened around the page cache, for cold reads of a file that is open through it.
    around: OnceLock<OwnedFd>,
    /// When bytes were last asked of the disk through the page cache, in milliseconds since `clock_start`, at least 1. 0: never.
    cold_ms: AtomicU64,
    /// Who reads it cold, of all cores.
    streams: Mutex<Streams>,
}

/// What `cold_ms` counts from.
fn clock_start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd.as_raw_fd()
    }
}

impl File {
    fn new(file: std::fs::File, direct: bool, path: PathBuf) -> File {
        File {
            inner: Arc::new(FileInner {
                fd: file.into(),
                direct,
                path,
                around: OnceLock::new(),
                cold_ms: AtomicU64::new(0),
                streams: Mutex::default(),
            }),
        }
    }

    /// This file by a descriptor that reads around the page cache. The first call opens it; later ones are free.
    ///
    /// # Errors
    /// Where the filesystem refuses O_DIRECT.
    pub fn around_page_cache(&self) -> io::Result<RawFd> {
        if self.inner.direct {
            return Ok(self.as_raw_fd());
        }
        if let Some(around) = self.inner.around.get() {
            return Ok(around.as_raw_fd());
        }
        // By descriptor, not by name: the name may be gone while a reader still sends.
        let link = format!("/proc/self/fd/{}", self.as_raw_fd());
        let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(link);
        let opened = opened.map_err(|error| naming(&self.inner.path, error))?;
        Ok(self.inner.around.get_or_init(|| opened.into()).as_raw_fd())
    }

    /// Notes that bytes which may not be in the page cache are being read through it.
    pub(super) fn note_cold_read(&self) {
        self.inner.cold_ms.store(clock_start().elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// Somebody is sent `range` of this file, which `is_cold` where the disk has to be asked for it. Returns what to read ahead of them,
    /// none of it beyond `limit`. Costs nothing while nobody reads the file cold.
    pub(super) fn to_read_ahead(&self, range: Range<u64>, is_cold: bool, limit: u64) -> Option<Range<u64>> {
        if !is_cold && !self.is_being_read() {
            return None;
        }
        self.inner.streams.lock().expect("never poisoned").read(range, is_cold, limit)
    }

    /// Whether pages of this file may be on their way from the disk.
    pub(super) fn is_being_read(&self) -> bool {
        let last = self.inner.cold_ms.load(Ordering::Relaxed);
        last > 0 && (clock_start().elapsed().as_millis() as u64).saturating_sub(last) < COLD_READ_MS
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.inner.path.display())
    }
}

/// Files and memory of one core. Stays on its core.
#[derive(Clone)]
pub struct CoreDisk {
    ring: Ring,
    helper: Helper,
    pool: Arc<Pool>,
    tasks: Tasks,
    new_dirs: NewDirs,
}

impl CoreDisk {
    pub fn new(ring: Ring, helper: Helper, pool: Arc<Pool>, tasks: Tasks) -> CoreDisk {
        CoreDisk { ring, helper, pool, tasks, new_dirs: NewDirs::default() }
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Runs a call that blocks on `path`, on the helper thread.
    fn call<T, F>(&self, path: &Path, call: F) -> impl Future<Output = io::Result<T>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let path = path.to_owned();
        self.helper.run(move || call(&path).map_err(|error| naming(&path, error)))
    }
}

/// The same error with the file's name in it.
fn naming(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    match mode {
        OpenMode::ReadBuffered => options.read(true),
        OpenMode::Direct => options.read(true).write(true).custom_flags(libc::O_DIRECT),
        OpenMode::CreateDirect => options.read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT),
        OpenMode::WriteBuffered => options.read(true).write(true).create(true).truncate(false),
    };
    let direct = matches!(mode, OpenMode::Direct | OpenMode::CreateDirect);
    let file = options.open(path)?;
    if mode == OpenMode::ReadBuffered {
        // No readahead: it would run within sendfile, on the core, and what it allocates and submits there took up to 125 ms. Cold pages
        // are read by splices in a worker, as many as were asked for.
        // SAFETY: takes no pointers; the descriptor is open. Where it is refused, reads are as right, only less even.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    }
    Ok(File::new(file, direct, path.to_owned()))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Directories that were made and whose entry in their parent is not durable yet.
type NewDirs = Arc<Mutex<HashSet<PathBuf>>>;

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path, new_dirs: &NewDirs) -> io::Result<()> {
    let mut path = path;
    loop {
        std::fs::File::open(path)?.sync_all()?;
        if !new_dirs.lock().expect("never poisoned").remove(path) {
            return Ok(());
        }
        path = parent(path);
    }
}

fn create_dir(path: &Path, new_dirs: &NewDirs) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_dir(parent(path), new_dirs)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            new_dirs.lock().expect("never poisoned").insert(path.to_owned());
            Ok(())
        }
    }
}

fn sync_all(path: &Path, new_dirs: &NewDirs) -> io::Result<()> {
    let directory = std::fs::File::open(path)?;
    let synced = std::mem::take(&mut *new_dirs.lock().expect("never poisoned"));
    // SAFETY: takes no pointers; the descriptor is open.
    let outcome = check(unsafe { libc::syncfs(directory.as_raw_fd()) });
    // Those on other filesystems, or all if it failed, are as they were.
    let kept = synced.into_iter().filter(|dir| outcome.is_err() || !dir.starts_with(path));
    new_dirs.lock().expect("never poisoned").extend(kept);
    outcome
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` ends with a zero; `stat` is plain data that the call fills.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &mut stat))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(PathBuf::from(entry?.file_name()))).collect(),
    }
}

impl Disk for CoreDisk {
    type File = File;
    type Buffer = RecordBuffer;

    fn buffer(&self, bytes: usize) -> RecordBuffer {
        let buffer = self.pool.take(bytes);
        if self.pool.is_spare_wanted() {
            let pool = self.pool.clone();
            // Nobody waits for it.
            drop(self.helper.run(move || pool.stock_up()));
        }
        buffer
    }

    fn submit_write(
        &self,
        file: &File,
        offset: u64,
        buffer: &RecordBuffer,
        range: Range<usize>,
        durable: bool,
        token: WriteToken,
    ) {
        self.ring.write(file, offset, buffer, range, durable, token);
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<File>> {
        self.call(path, move |path| open(path, mode))
    }

    async fn file_bytes(&self, file: &File) -> io::Result<u64> {
        let file = file.clone();
        self.call(&file.inner.path.clone(), move |_| {
            // SAFETY: `stat` is plain data that the call fills; the descriptor is open.
            unsafe {
                let mut stat: libc::stat = std::mem::zeroed();
                check(libc::fstat(file.as_raw_fd(), &mut stat))?;
                Ok(stat.st_size as u64)
            }
        })
        .await
    }

    async fn read(&self, file: &File, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let block = DISK_BLOCK_BYTES as u64;
        // Around the page cache reads must be of whole blocks; what was not asked for is cut off again.
        let start = offset / block * block;
        let skip = (offset - start) as usize;
        let wanted = (skip + bytes).next_multiple_of(DISK_BLOCK_BYTES);
        let buffer = self.pool.take(wanted);
        while buffer.len() < wanted {
            let at = start + buffer.len() as u64;
            let entry = read_entry(file.as_raw_fd(), at, &buffer, wanted - buffer.len());
            let keep = (file.clone(), buffer.clone());
            let read = self.ring.awaited(entry, keep).await.map_err(|error| naming(&file.inner.path, error))?;
            // SAFETY: the kernel has read that many bytes to the buffer's end.
            unsafe { buffer.advance(read) };
            // The end of the file, which lies within a block.
            if !read.is_multiple_of(DISK_BLOCK_BYTES) || read == 0 {
                break;
            }
        }
        let end = buffer.len().min(skip + bytes);
        Ok(buffer.view(skip.min(end)..end))
    }

    async fn write_small(&self, file: &File, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = bytes[written..].to_vec();
            let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
                .offset(offset + written as u64)
                .build();
            let keep = (file.clone(), rest);
            let now = self.ring.awaited(entry, keep).await.map_err(|error| naming(&file.inner.path, error))?;
            if now == 0 {
                return Err(naming(&file.inner.path, io::ErrorKind::WriteZero.into()));
            }
            written += now;
        }
        Ok(())
    }

    async fn write(
        &self,
        file: &File,
        offset: u64,
        buffer: &RecordBuffer,
        range: Range<usize>,
        durable: bool,
    ) -> io::Result<()> {
        let bytes = range.len();
        let entry = write_entry(file, offset, buffer, range, durable);
        let keep = (file.clone(), buffer.clone());
        let written = self.ring.awaited(entry, keep).await.map_err(|error| naming(&file.inner.path, error))?;
        if written < bytes {
            let short = io::Error::other(format!("short write: {written} of {bytes} bytes"));
            return Err(naming(&file.inner.path, short));
        }
        Ok(())
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        let result = self.ring.sync(file).await;
        result.map(drop).map_err(|error| naming(&file.inner.path, error))
    }

    async fn set_file_bytes(&self, file: &File, bytes: u64) -> io::Result<()> {
        let file = file.clone();
        self.call(&file.inner.path.clone(), move |_| {
            // SAFETY: takes no pointers; the descriptor is open.
            check(unsafe { libc::ftruncate(file.as_raw_fd(), bytes as i64) })
        })
        .await
    }

    async fn allocate(&self, file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        let file = file.clone();
        self.call(&file.inner.path.clone(), move |_| {
            // SAFETY: takes no pointers; the descriptor is open.
            check(unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset as i64, bytes as i64) })
        })
        .await
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        let new_dirs = self.new_dirs.clone();
        self.call(path, move |path| create_dir(path, &new_dirs))
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<PathBuf>>> {
        self.call(path, list)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> {
        let to = to.to_owned();
        self.call(from, move |from| std::fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        self.call(path, |path| std::fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        self.call(path, |path| std::fs::remove_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        let new_dirs = self.new_dirs.clone();
        self.call(path, move |path| sync_dir(path, &new_dirs))
    }

    fn sync_all(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        let new_dirs = self.new_dirs.clone();
        self.call(path, move |path| sync_all(path, &new_dirs))
    }

    fn free_bytes(&self, path: &Path) -> impl Future<Output = io::Result<u64>> {
        self.call(path, free_bytes)
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(future);
    }
}
