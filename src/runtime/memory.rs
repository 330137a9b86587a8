//! Memory for records: aligned, recycled, filled by one core and read by any.
//!
//! It does no I/O and knows no file. Recycling matters: fresh pages fault one by one, in a VM twice, and a core turns over gigabytes a second here.
//! So does that a block lies in one piece of physical memory: O_DIRECT hands a device each piece by itself (docs/performance.md).

use super::copy::copy;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::Buffer;
use bytes::Bytes;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Sizes that are cut from regions and recycled; larger blocks are the allocator's, one by one.
const CLASS_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Size and alignment of a region: a huge page of x86-64 and, where pages are of 4 KiB, of ARM64.
const REGION_BYTES: usize = 2 << 20;

/// A core's store of blocks. Blocks may come back from other cores, hence the locks; they are taken once per block, not per record.
pub struct Pool {
    shelves: [Mutex<Shelf>; CLASS_BYTES.len()],
    /// Memory for the next region, its pages there already: in the middle of a turn they took up to 7 ms.
    spare: Mutex<Option<Mapping>>,
    /// The spare was used, or was not there, since `is_spare_wanted` was last asked.
    spare_wanted: AtomicBool,
    /// Bytes of regions that nobody has.
    free_bytes: AtomicUsize,
    free_bytes_max: usize,
    /// Bytes lent out.
    used_bytes: AtomicUsize,
}

/// The regions that blocks of one size are cut from.
#[derive(Default)]
struct Shelf {
    /// `None`: given back to the kernel, its place is in `vacant`.
    regions: Vec<Option<Region>>,
    vacant: Vec<u32>,
    /// Regions with blocks that nobody has; the last is used first, so that others become whole again.
    open: Vec<u32>,
}

/// Memory of the size and alignment of a region, which the kernel backs with one huge page where it can.
struct Mapping {
    start: NonNull<u8>,
}

// SAFETY: plain memory without a tie to the thread that mapped it; only holders of blocks cut from it read and write it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new() -> Mapping {
        let layout = Layout::from_size_align(REGION_BYTES, REGION_BYTES).expect("a power of two");
        // SAFETY: a new anonymous mapping, which touches no other memory.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 2 * REGION_BYTES, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if mapped == libc::MAP_FAILED {
            handle_alloc_error(layout);
        }
        let before = mapped.align_offset(REGION_BYTES);
        // SAFETY: an aligned region begins `before` bytes into a mapping of twice its size; what is unmapped around it is of the same new
        // mapping. Advice that is not taken (a host without huge pages) leaves ordinary ones.
        let start = unsafe {
            let start = mapped.byte_add(before);
            if before > 0 {
                libc::munmap(mapped, before);
            }
            libc::munmap(start.byte_add(REGION_BYTES), REGION_BYTES - before);
            libc::madvise(start, REGION_BYTES, libc::MADV_HUGEPAGE);
            start
        };
        Mapping { start: NonNull::new(start.cast()).expect("a mapping is not at 0") }
    }

    /// Has the kernel find and zero the memory now, and not when it is first written to.
    fn populate(&self) {
        // SAFETY: the mapping's own range. A kernel that does not know the advice (before 5.14) leaves it to the first write.
        unsafe { libc::madvise(self.start.as_ptr().cast(), REGION_BYTES, libc::MADV_POPULATE_WRITE) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once. Nobody has a block of it: a shelf lets go only of whole regions, and lives as long as its
        // pool, which every block keeps.
        unsafe { libc::munmap(self.start.as_ptr().cast(), REGION_BYTES) };
    }
}

/// A mapping that blocks of one size are cut from.
struct Region {
    memory: Mapping,
    /// Places of the blocks that nobody has.
    free: Vec<u32>,
}

impl Region {
    fn new(memory: Mapping, bytes: usize) -> Region {
        Region { memory, free: (0..(REGION_BYTES / bytes) as u32).rev().collect() }
    }
}

impl Shelf {
    /// A block of `bytes`, and whether `map` was asked for a region for it.
    fn take(&mut self, bytes: usize, map: impl FnOnce() -> Mapping) -> (Block, bool) {
        let is_new = self.open.is_empty();
        if is_new {
            let region = Some(Region::new(map(), bytes));
            let place = self.vacant.pop().unwrap_or(self.regions.len() as u32);
            match self.regions.get_mut(place as usize) {
                Some(vacant) => *vacant = region,
                None => self.regions.push(region),
            }
            self.open.push(place);
        }
        let place = *self.open.last().expect("pushed where there was none");
        let region = self.regions[place as usize].as_mut().expect("open ones are there");
        let at = region.free.pop().expect("open ones have a free block");
        if region.free.is_empty() {
            self.open.pop();
        }
        // SAFETY: within the region, and no two places overlap.
        let start = unsafe { region.memory.start.add(at as usize * bytes) };
        (Block { start, bytes, home: Some((place, at)) }, is_new)
    }

    /// Takes a block back. The memory of a region that is whole again is handed out where `is_enough` is kept without it; the last stays.
    fn give_back(&mut self, bytes: usize, place: u32, at: u32, is_enough: bool) -> Option<Mapping> {
        let is_last = self.regions_held() == 1;
        let slot = &mut self.regions[place as usize];
        let region = slot.as_mut().expect("it has a block that is lent out");
        if region.free.is_empty() {
            self.open.push(place);
        }
        region.free.push(at);
        if region.free.len() < REGION_BYTES / bytes || !is_enough || is_last {
            return None;
        }
        self.vacant.push(place);
        self.open.retain(|&open| open != place);
        slot.take().map(|region| region.memory)
    }

    fn regions_held(&self) -> usize {
        self.regions.len() - self.vacant.len()
    }
}

struct Block {
    start: NonNull<u8>,
    bytes: usize,
    /// Region and place in it; `None`: the allocator's.
    home: Option<(u32, u32)>,
}

// SAFETY: a block is plain memory that its holder alone owns; it has no tie to the thread that allocated it.
unsafe impl Send for Block {}

impl Block {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, DISK_BLOCK_BYTES).expect("a block's size is bounded by a request's")
    }

    /// Memory as it comes: nobody sees bytes that were not written first, so zeroing it would only touch every page.
    fn allocate(bytes: usize) -> Block {
        let layout = Block::layout(bytes);
        // SAFETY: the layout's size is not zero: it is larger than the largest class.
        let start = unsafe { alloc(layout) };
        Block { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), bytes, home: None }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.home.is_none() {
            // SAFETY: allocated in `allocate` with this very layout, and freed once: the block owns it.
            unsafe { dealloc(self.start.as_ptr(), Block::layout(self.bytes)) }
        }
    }
}

impl Pool {
    /// A store that keeps regions with up to about `free_bytes_max` bytes that nobody has, beyond the first of each size and what
    /// shares a region with a block that is lent out.
    pub fn new(free_bytes_max: usize) -> Arc<Pool> {
        Arc::new(Pool {
            shelves: Default::default(),
            spare: Mutex::default(),
            spare_wanted: AtomicBool::new(false),
            free_bytes: AtomicUsize::new(0),
            free_bytes_max,
            used_bytes: AtomicUsize::new(0),
        })
    }

    /// Bytes lent out now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether somebody should `stock_up`; true once for each region that was needed.
    pub fn is_spare_wanted(&self) -> bool {
        self.spare_wanted.load(Ordering::Relaxed) && self.spare_wanted.swap(false, Ordering::Relaxed)
    }

    /// Gets memory for the next region. May take milliseconds: not for a core's own thread.
    pub fn stock_up(&self) {
        if self.spare().is_none() {
            let memory = Mapping::new();
            memory.populate();
            *self.spare() = Some(memory);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<Mapping>> {
        self.spare.lock().expect("never poisoned")
    }

    fn map(&self) -> Mapping {
        self.spare_wanted.store(true, Ordering::Relaxed);
        self.spare().take().unwrap_or_else(Mapping::new)
    }

    fn shelf(&self, class: usize) -> MutexGuard<'_, Shelf> {
        self.shelves[class].lock().expect("never poisoned")
    }

    /// An empty buffer of at least `bytes`. Its memory holds whatever an earlier user left beyond `len`.
    pub fn take(self: &Arc<Pool>, bytes: usize) -> RecordBuffer {
        let block = match CLASS_BYTES.iter().position(|&class| class >= bytes) {
            Some(class) => {
                let (block, is_new) = self.shelf(class).take(CLASS_BYTES[class], || self.map());
                if is_new {
                    self.free_bytes.fetch_add(REGION_BYTES, Ordering::Relaxed);
                }
                self.free_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
                block
            }
            None => Block::allocate(bytes.next_multiple_of(DISK_BLOCK_BYTES)),
        };
        self.used_bytes.fetch_add(block.bytes, Ordering::Relaxed);
        let shared = Shared { block: Some(block), filled: AtomicUsize::new(0), pool: self.clone() };
        RecordBuffer { shared: Arc::new(shared), one_core: PhantomData }
    }

    fn give_back(&self, block: Block) {
        self.used_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
        if let Some((place, at)) = block.home {
            let class =
                CLASS_BYTES.iter().position(|&class| class == block.bytes).expect("what has a region is of a class");
            let free_bytes = self.free_bytes.fetch_add(block.bytes, Ordering::Relaxed) + block.bytes;
            let is_enough = free_bytes > self.free_bytes_max;
            if let Some(memory) = self.shelf(class).give_back(block.bytes, place, at, is_enough) {
                self.free_bytes.fetch_sub(REGION_BYTES, Ordering::Relaxed);
                // What was there before it, if anything, goes back to the kernel.
                *self.spare() = Some(memory);
            }
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
    fn regions_beyond_the_bound_go_back_once_nobody_has_a_block_of_them() {
        let pool = Pool::new(REGION_BYTES);
        let of_region = REGION_BYTES / (256 << 10);
        let mut buffers: Vec<_> = (0..4 * of_region).map(|_| pool.take(256 << 10)).collect();
        assert_eq!((pool.used_bytes(), pool.free_bytes.load(Ordering::Relaxed)), (4 * REGION_BYTES, 0));
        // One of each region is still lent out: all stay.
        let kept: Vec<_> = (0..4).rev().map(|region| buffers.swap_remove(region * of_region)).collect();
        drop(buffers);
        assert_eq!(pool.shelf(3).regions_held(), 4);
        // What is taken now comes from them.
        drop(pool.take(256 << 10));
        assert_eq!(pool.shelf(3).regions_held(), 4);
        drop(kept);
        assert_eq!((pool.used_bytes(), pool.free_bytes.load(Ordering::Relaxed)), (0, REGION_BYTES));
        assert_eq!(pool.shelf(3).regions_held(), 1);
        // A place that was given back is used again.
        let _buffers: Vec<_> = (0..2 * of_region).map(|_| pool.take(256 << 10)).collect();
        let shelf = pool.shelf(3);
        assert_eq!((shelf.regions.len(), shelf.regions_held()), (4, 2));
        drop(shelf);
    }

    #[test]
    fn the_last_region_of_a_size_stays() {
        let pool = Pool::new(0);
        let first = pool.take(1).address(0);
        assert_eq!(pool.take(1).address(0), first);
    }

    #[test]
    fn the_next_region_is_made_ahead_of_need_or_was_given_back() {
        let pool = Pool::new(0);
        assert!(!pool.is_spare_wanted(), "nothing was needed yet");
        let first = pool.take(1 << 20);
        assert!(pool.is_spare_wanted() && !pool.is_spare_wanted());
        pool.stock_up();
        let spare = pool.spare().as_ref().map(|memory| memory.start.as_ptr());
        pool.stock_up();
        assert_eq!(pool.spare().as_ref().map(|memory| memory.start.as_ptr()), spare, "one is enough");
        // Of any size.
        let second = pool.take(4096);
        assert!(Some(second.address(0)) <= spare.map(|start| start.wrapping_add(REGION_BYTES)));
        assert!(Some(second.address(0)) >= spare && pool.spare().is_none() && pool.is_spare_wanted());
        // Without one, it is made at once.
        let others: Vec<_> = (0..2).map(|_| pool.take(1 << 20)).collect();
        assert!(pool.spare().is_none());
        drop((first, others));
        assert!(pool.spare().is_some() && pool.shelf(4).regions_held() == 1);
    }

    #[test]
    fn blocks_of_a_region_do_not_overlap() {
        let pool = Pool::new(0);
        for bytes in CLASS_BYTES {
            let buffers: Vec<_> = (0..REGION_BYTES / bytes + 1).map(|_| pool.take(bytes)).collect();
            for (number, buffer) in buffers.iter().enumerate() {
                buffer.append(&vec![number as u8; bytes]);
            }
            for (number, buffer) in buffers.iter().enumerate() {
                assert!(buffer.view(0..bytes).iter().all(|&byte| byte == number as u8));
            }
            let region = |at: usize| buffers[at].address(0) as usize / REGION_BYTES;
            assert!((1..buffers.len() - 1).all(|at| region(at) == region(0)));
            assert_ne!(region(buffers.len() - 1), region(0));
        }
    }

    #[test]
    fn what_is_larger_than_any_class_is_the_allocators() {
        let pool = Pool::new(0);
        let buffer = pool.take((1 << 20) + 1);
        assert_eq!((buffer.capacity(), pool.used_bytes()), ((1 << 20) + 4096, (1 << 20) + 4096));
        drop(buffer);
        assert_eq!((pool.used_bytes(), pool.free_bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    #[should_panic(expected = "capacity")]
    fn overfilling_is_a_bug_of_ours() {
        Pool::new(0).take(4096).append(&[0; 4097]);
    }
}
