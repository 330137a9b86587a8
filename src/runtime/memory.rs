//! Memory for records: aligned, recycled, filled by one core and read by any.
//!
//! It does no I/O and knows no file. Recycling matters: fresh pages fault one by one, in a VM twice, and a core turns over gigabytes a second here.

use super::copy::copy;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::Buffer;
use bytes::Bytes;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Sizes that are recycled; larger blocks go back to the allocator at once.
const CLASS_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// A core's store of blocks. Blocks may come back from other cores, hence the locks; they are taken once per block, not per record.
pub struct Pool {
    free: [Mutex<Vec<Block>>; CLASS_BYTES.len()],
    /// Bytes waiting in `free`; at most about `free_bytes_max`.
    free_bytes: AtomicUsize,
    free_bytes_max: usize,
    /// Bytes lent out.
    used_bytes: AtomicUsize,
}

struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory that its holder alone owns; it has no tie to the thread that allocated it.
unsafe impl Send for Block {}

impl Block {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, DISK_BLOCK_BYTES).expect("a block's size is bounded by a request's")
    }

    /// Memory as it comes: nobody sees bytes that were not written first, so zeroing it would only touch every page.
    fn new(bytes: usize) -> Block {
        let layout = Block::layout(bytes);
        // SAFETY: the layout's size is not zero: the smallest class is a disk block.
        let start = unsafe { alloc(layout) };
        Block { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), bytes }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once: the block owns it.
        unsafe { dealloc(self.start.as_ptr(), Block::layout(self.bytes)) }
    }
}

impl Pool {
    /// A store that keeps up to `free_bytes_max` bytes for reuse.
    pub fn new(free_bytes_max: usize) -> Arc<Pool> {
        Arc::new(Pool {
            free: Default::default(),
            free_bytes: AtomicUsize::new(0),
            free_bytes_max,
            used_bytes: AtomicUsize::new(0),
        })
    }

    /// Bytes lent out now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// An empty buffer of at least `bytes`. Its memory holds whatever an earlier user left beyond `len`.
    pub fn take(self: &Arc<Pool>, bytes: usize) -> RecordBuffer {
        let class = CLASS_BYTES.iter().position(|&class| class >= bytes);
        let recycled = class.and_then(|class| self.free[class].lock().expect("never poisoned").pop());
        let block = match (recycled, class) {
            (Some(block), _) => {
                self.free_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
                block
            }
            (None, Some(class)) => Block::new(CLASS_BYTES[class]),
            (None, None) => Block::new(bytes.next_multiple_of(DISK_BLOCK_BYTES)),
        };
        self.used_bytes.fetch_add(block.bytes, Ordering::Relaxed);
        let shared = Shared { block: Some(block), filled: AtomicUsize::new(0), pool: self.clone() };
        RecordBuffer { shared: Arc::new(shared), one_core: PhantomData }
    }

    fn give_back(&self, block: Block) {
        self.used_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
        let class = CLASS_BYTES.iter().position(|&class| class == block.bytes);
        if let Some(class) = class
            && self.free_bytes.load(Ordering::Relaxed) + block.bytes <= self.free_bytes_max
        {
            self.free_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            self.free[class].lock().expect("never poisoned").push(block);
        }
    }
}

struct Shared {
    /// `None` only while it is dropped.
    block: Option<Block>,
    /// Bytes before this are written for good; bytes after it belong to the core that fills.
    filled: AtomicUsize,
    pool: Arc<Pool>,
}

// SAFETY: other threads only read below `filled`, which the filling core raises after it has written (release/acquire).
unsafe impl Sync for Shared {}

impl Shared {
    fn block(&self) -> &Block {
        self.block.as_ref().expect("present until drop")
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.filled.load(Ordering::Acquire));
        // SAFETY: inside the block (filled <= its size), initialised, and never written again below `filled`.
        unsafe { std::slice::from_raw_parts(self.block().start.as_ptr().add(range.start), range.len()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let block = self.block.take().expect("dropped once");
        self.pool.give_back(block);
    }
}

/// A handle to one block; see [`Buffer`]. Not `Send`: only the core that took it may fill it.
#[derive(Clone)]
pub struct RecordBuffer {
    shared: Arc<Shared>,
    one_core: PhantomData<*const ()>,
}

impl RecordBuffer {
    /// The address of byte `at`, for a submission to the kernel.
    pub(super) fn address(&self, at: usize) -> *mut u8 {
        assert!(at <= self.capacity());
        // SAFETY: within the block, or one past its end.
        unsafe { self.shared.block().start.as_ptr().add(at) }
    }

    /// Zeroes what lies between the filled part and `end`, so that no earlier user's bytes reach the disk.
    pub(super) fn zero_to(&self, end: usize) {
        let filled = self.len();
        assert!(end <= self.capacity());
        if end > filled {
            // SAFETY: within the block; bytes beyond `filled` belong to this core, and `self` is on it (not Send).
            unsafe { std::ptr::write_bytes(self.address(filled), 0, end - filled) }
        }
    }

    /// Declares `bytes` after the filled part as written by the kernel (a read into this buffer that has completed).
    ///
    /// # Safety
    /// The kernel has written that many bytes at `address(len())`.
    pub(super) unsafe fn advance(&self, bytes: usize) {
        let filled = self.len();
        assert!(filled + bytes <= self.capacity());
        self.shared.filled.store(filled + bytes, Ordering::Release);
    }
}

impl Buffer for RecordBuffer {
    fn capacity(&self) -> usize {
        self.shared.block().bytes
    }

    fn len(&self) -> usize {
        self.shared.filled.load(Ordering::Relaxed)
    }

    fn append(&self, bytes: &[u8]) {
        let filled = self.len();
        assert!(bytes.len() <= self.capacity() - filled, "the caller looks at capacity first");
        // SAFETY: the target is inside the block and beyond `filled`, where nobody reads; `bytes` cannot overlap it, since views
        // end at `filled`. Handles are not Send, so no other thread fills.
        unsafe { copy(bytes, self.address(filled)) }
        self.shared.filled.store(filled + bytes.len(), Ordering::Release);
    }

    fn pad_to_block(&self) {
        let end = self.len().next_multiple_of(DISK_BLOCK_BYTES);
        self.zero_to(end);
        self.shared.filled.store(end, Ordering::Release);
    }

    fn view(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len());
        Bytes::from_owner(View { shared: self.shared.clone(), range })
    }
}

struct View {
    shared: Arc<Shared>,
    range: Range<usize>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.shared.bytes(self.range.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_keep_their_bytes_while_the_buffer_fills() {
        let pool = Pool::new(1 << 20);
        let buffer = pool.take(10);
        assert_eq!(buffer.capacity(), 4096);
        buffer.append(b"first");
        let view = buffer.view(0..5);
        buffer.append(b"second");
        assert_eq!(&view[..], b"first");
        assert_eq!(&buffer.view(5..11)[..], b"second");
        assert_eq!(buffer.address(0) as usize % DISK_BLOCK_BYTES, 0);
    }

    #[test]
    fn a_block_is_reused_only_after_its_last_view() {
        let pool = Pool::new(1 << 20);
        let buffer = pool.take(4096);
        buffer.append(&[7; 4096]);
        let first = buffer.address(0);
        let view = buffer.view(0..4096);
        drop(buffer);
        let second = pool.take(4096);
        assert_ne!(second.address(0), first);
        drop(view);
        assert_eq!(pool.take(4096).address(0), first);
    }

    #[test]
    fn padding_and_zeroing_hide_what_was_there_before() {
        let pool = Pool::new(1 << 20);
        let buffer = pool.take(4096);
        buffer.append(&[0xff; 4096]);
        drop(buffer);
        let buffer = pool.take(4096);
        buffer.append(b"x");
        buffer.pad_to_block();
        assert_eq!(buffer.len(), 4096);
        assert!(buffer.view(1..4096).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn free_memory_is_bounded() {
        let pool = Pool::new(8 << 10);
        let buffers: Vec<_> = (0..4).map(|_| pool.take(4096)).collect();
        assert_eq!(pool.used_bytes(), 4 * 4096);
        drop(buffers);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.free_bytes.load(Ordering::Relaxed), 8 << 10);
    }

    #[test]
    #[should_panic(expected = "capacity")]
    fn overfilling_is_a_bug_of_ours() {
        Pool::new(0).take(4096).append(&[0; 4097]);
    }
}
