//! The disk as a core sees it: files written around the page cache, and memory that such writes can start from.
//!
//! Hot writes (journal commits, segment pieces) are submitted with a token and reported to the shard as completions; all else
//! is `async`, runs in background tasks, and is never on the path of an acknowledgement.

use bytes::Bytes;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Memory for records on their way to disk: aligned to `DISK_BLOCK_BYTES`, filled once from front to back, readable while it fills.
///
/// A clone is another handle to the same memory. All handles stay on one core; views (`Bytes`) may travel. Memory returns to
/// the core's pool when the last handle and view are gone.
pub trait Buffer: Clone + 'static {
    /// Bytes it can hold; a multiple of `DISK_BLOCK_BYTES`.
    fn capacity(&self) -> usize;
    /// Bytes it holds.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `bytes` to the end. Panics if they do not fit: the caller has looked at `capacity`.
    fn append(&self, bytes: &[u8]);
    /// Appends zeros up to the next multiple of `DISK_BLOCK_BYTES`.
    fn pad_to_block(&self);
    /// The bytes in `range`, which must be within `len`, without copying them.
    fn view(&self, range: Range<usize>) -> Bytes;
}

/// Names a hot write to the one who submitted it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WriteToken(pub u64);

/// A hot write that has ended. A short write is reported as an error: callers never see part of a write succeed.
#[derive(Debug)]
pub struct DiskCompletion {
    pub token: WriteToken,
    pub result: io::Result<()>,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading through the page cache (sendfile, splice, index files).
    ReadBuffered,
    /// For reading and writing around the page cache (O_DIRECT); must exist.
    Direct,
    /// As `Direct`, made new; fails where it exists.
    CreateDirect,
    /// For small files (indexes, checkpoints) written through the page cache; made if absent.
    WriteBuffered,
}

/// Files of one core.
pub trait Disk: Clone + 'static {
    /// An open file. Clones share it; it is closed, off the hot path, when the last is gone. May travel between cores inside a reply.
    type File: Clone + Send + Sync + 'static;
    type Buffer: Buffer;

    /// A buffer of at least `bytes`, rounded up to the pool's sizes. Its content counts as empty.
    fn buffer(&self, bytes: usize) -> Self::Buffer;

    /// Starts writing `range` of `buffer` at `offset`; both are multiples of `DISK_BLOCK_BYTES`. `durable` makes it complete only
    /// when it would survive power loss (RWF_DSYNC). The buffer is kept until completion, which goes to the core's shard.
    fn submit_write(
        &self,
        file: &Self::File,
        offset: u64,
        buffer: &Self::Buffer,
        range: Range<usize>,
        durable: bool,
        token: WriteToken,
    );

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>>;
    fn file_bytes(&self, file: &Self::File) -> impl Future<Output = io::Result<u64>>;
    /// Reads up to `bytes` at `offset`; fewer only at the end of the file. Works on every mode and any alignment.
    fn read(&self, file: &Self::File, offset: u64, bytes: usize) -> impl Future<Output = io::Result<Bytes>>;
    /// Writes all of `bytes` at `offset` through the page cache (a file of mode `WriteBuffered`).
    fn write_small(&self, file: &Self::File, offset: u64, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>>;
    /// As `submit_write`, awaited.
    fn write(
        &self,
        file: &Self::File,
        offset: u64,
        buffer: &Self::Buffer,
        range: Range<usize>,
        durable: bool,
    ) -> impl Future<Output = io::Result<()>>;
    /// fdatasync.
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;
    /// Cuts or grows the file to `bytes`.
    fn set_file_bytes(&self, file: &Self::File, bytes: u64) -> impl Future<Output = io::Result<()>>;
    /// Reserves blocks for `[offset, offset + bytes)` without changing the file's size (FALLOC_FL_KEEP_SIZE).
    fn allocate(&self, file: &Self::File, offset: u64, bytes: u64) -> impl Future<Output = io::Result<()>>;
    /// Makes a directory with its parents. They last from the first `sync_dir` of it on: files are made in many new directories
    /// first, and then one transaction of the filesystem serves all of their syncs.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Names in a directory, in no order; empty where it does not exist.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<PathBuf>>>;
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Makes entries of this directory (created, renamed, removed) durable, and itself if `create_dir` made it.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Makes all files and directories on the filesystem that holds `path` durable (syncfs): for many files cheaper than a sync of each.
    /// A device's cache is sure to be emptied only by a `sync` behind it.
    fn sync_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Free bytes of the filesystem that holds `path`, as an unprivileged process may use them.
    fn free_bytes(&self, path: &Path) -> impl Future<Output = io::Result<u64>>;

    /// Runs `future` in the background queue of this core, in slices that its own awaits make.
    fn spawn(&self, future: impl Future<Output = ()> + 'static);
}
