//! A disk that answers at once and keeps nothing, with the broker's own memory: so that a benchmark sees the log and no device.

use bytes::Bytes;
use ringlog::ports::{Disk, OpenMode, WriteToken};
use ringlog::runtime::memory::{Pool, RecordBuffer};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// See the module.
#[derive(Clone)]
pub struct MemoryDisk {
    pool: Arc<Pool>,
    shared: Rc<RefCell<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Hot writes that are done and not yet told; each keeps its memory until then, as the kernel does.
    done: Vec<(WriteToken, RecordBuffer)>,
    tasks: Vec<Task>,
}

impl MemoryDisk {
    pub fn new() -> MemoryDisk {
        MemoryDisk { pool: Pool::new(64 << 20), shared: Rc::default() }
    }

    /// Hot writes since the last call.
    pub fn take_done(&self) -> Vec<(WriteToken, RecordBuffer)> {
        std::mem::take(&mut self.shared.borrow_mut().done)
    }

    /// Gives every background task one poll.
    pub fn poll_tasks(&self) {
        let mut tasks = std::mem::take(&mut self.shared.borrow_mut().tasks);
        tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        self.shared.borrow_mut().tasks.append(&mut tasks);
    }
}

impl Disk for MemoryDisk {
    type File = ();
    type Buffer = RecordBuffer;

    fn buffer(&self, bytes: usize) -> RecordBuffer {
        self.pool.take(bytes)
    }

    fn submit_write(&self, _: &(), _: u64, buffer: &RecordBuffer, _: Range<usize>, _: bool, token: WriteToken) {
        self.shared.borrow_mut().done.push((token, buffer.clone()));
    }

    async fn open(&self, _: &Path, _: OpenMode) -> io::Result<()> {
        Ok(())
    }

    async fn file_bytes(&self, _: &()) -> io::Result<u64> {
        Ok(0)
    }

    async fn read(&self, _: &(), _: u64, _: usize) -> io::Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn write_small(&self, _: &(), _: u64, _: Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    async fn write(&self, _: &(), _: u64, _: &RecordBuffer, _: Range<usize>, _: bool) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self, _: &()) -> io::Result<()> {
        Ok(())
    }

    async fn set_file_bytes(&self, _: &(), _: u64) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, _: &(), _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    async fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn sync_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.shared.borrow_mut().tasks.push(Box::pin(future));
    }
}
