//! A core's own io_uring: submissions by slot, completions as plain values.
//!
//! It knows neither connections nor logs: whoever submits names the operation with a number of its own. What the kernel may
//! still touch (buffers, files, pipes) is held by the slot until its completion, whatever became of the one who asked.

use super::disk::File;
use super::doorbell::Doorbell;
use super::memory::RecordBuffer;
use super::transfer::Pipe;
use crate::base::counters::RingCounters;
use crate::ports::{Buffer, DiskCompletion, WriteToken};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Entries of the submission queue. A turn that submits more enters the kernel in between.
const SUBMISSIONS_MAX: u32 = 512;
/// Entries of the completion queue: room for a ready event of every connection of a busy core at once.
const COMPLETIONS_MAX: u32 = 16 << 10;
/// Completions handled in one turn, so that a burst does not hold up replies and messages of other cores.
pub const COMPLETIONS_PER_TURN_MAX: usize = 256;

/// `user_data` of a message from another core.
const WAKE: u64 = u64::MAX;
/// `user_data` of operations whose completion says nothing.
const NOTHING: u64 = u64::MAX - 1;

/// Something that has happened, in the words of the one who asked for it.
pub enum Completion {
    /// A listener has a new connection; where `ended`, it must be told to accept again.
    Accepted { listener: u32, ended: bool, result: io::Result<OwnedFd> },
    /// A watched socket can be read or written, or its peer is gone.
    Ready { connection: u64, readable: bool, writable: bool },
    /// A splice from a file into `pipe` has ended with this many bytes.
    Spliced { connection: u64, pipe: Pipe, result: io::Result<usize> },
    /// A read of a file around the page cache has ended; `buffer` holds `result` bytes more than before.
    DirectRead { connection: u64, buffer: RecordBuffer, result: io::Result<usize> },
    /// A hot write has ended.
    Disk(DiskCompletion),
    /// Another core has put messages into a mailbox of this one.
    Woken,
    /// The core's doorbell rang: a helper thread or the main thread has something.
    Doorbell,
}

enum Slot {
    Free,
    Accept { listener: u32 },
    Watch { connection: u64, socket: RawFd },
    Doorbell { doorbell: Doorbell },
    Write { token: WriteToken, bytes: usize, _file: File, _buffer: RecordBuffer },
    Splice { connection: u64, _file: File, pipe: Option<Pipe> },
    DirectRead { connection: u64, _file: File, buffer: RecordBuffer },
    ReadAhead { _file: File },
    Await(Rc<Awaited>),
}

/// The meeting point of an awaited operation and its future.
struct Awaited {
    result: Cell<Option<i32>>,
    waker: RefCell<Option<Waker>>,
    /// What the kernel may touch until the completion.
    _keep: Box<dyn Any>,
}

struct Inner {
    uring: IoUring,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Submissions that found the queue full even after an enter.
    overflow: VecDeque<squeue::Entry>,
    counters: RingCounters,
}

/// A handle to the core's ring; stays on its core.
#[derive(Clone)]
pub struct Ring {
    inner: Rc<RefCell<Inner>>,
}

impl Ring {
    /// A ring for the calling thread, which alone may use it from now on.
    ///
    /// # Errors
    /// What io_uring_setup answers: ENOSYS or EPERM where io_uring is off, EINVAL before Linux 6.1, ENOMEM beyond RLIMIT_MEMLOCK.
    pub fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS_MAX)
            .build(SUBMISSIONS_MAX)?;
        let inner =
            Inner { uring, slots: vec![], free: vec![], overflow: VecDeque::new(), counters: RingCounters::default() };
        Ok(Ring { inner: Rc::new(RefCell::new(inner)) })
    }

    /// Keeps the kernel's worker threads of this ring on `cpu`, at most `workers` for files and as many for the rest.
    pub fn bind_workers(&self, cpu: usize, workers: u32) -> io::Result<()> {
        let inner = self.inner.borrow();
        // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET writes within it for the CPUs a kernel can have.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            set
        };
        inner.uring.submitter().register_iowq_aff(&set)?;
        inner.uring.submitter().register_iowq_max_workers(&mut [workers, workers])
    }

    pub fn counters(&self) -> RingCounters {
        self.inner.borrow().counters
    }

    /// Where other cores send their wake-ups.
    pub fn descriptor(&self) -> RawFd {
        self.inner.borrow().uring.as_raw_fd()
    }

    /// Accepts connections of `listener` until it is closed.
    pub fn accept(&self, socket: RawFd, listener: u32) {
        let entry = opcode::AcceptMulti::new(types::Fd(socket)).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build();
        self.inner.borrow_mut().submit(entry, Slot::Accept { listener });
    }

    /// Reports every change of `socket` to readable, writable or closed, until the socket is shut down.
    pub fn watch(&self, socket: RawFd, connection: u64) {
        self.inner.borrow_mut().submit(watch_entry(socket), Slot::Watch { connection, socket });
    }

    /// Reports each time `doorbell` is rung, and keeps it open.
    pub fn watch_doorbell(&self, doorbell: &Doorbell) {
        let slot = Slot::Doorbell { doorbell: doorbell.clone() };
        self.inner.borrow_mut().submit(doorbell_entry(doorbell.descriptor()), slot);
    }

    /// Wakes the core whose ring is `peer`.
    pub fn wake(&self, peer: RawFd) {
        let mut inner = self.inner.borrow_mut();
        inner.counters.wakes_sent += 1;
        let entry = opcode::MsgRingData::new(types::Fd(peer), 0, WAKE, None).build().user_data(NOTHING);
        inner.push(entry);
    }

    /// See `Disk::submit_write`.
    pub fn write(
        &self,
        file: &File,
        offset: u64,
        buffer: &RecordBuffer,
        range: std::ops::Range<usize>,
        durable: bool,
        token: WriteToken,
    ) {
        let entry = write_entry(file, offset, buffer, range.clone(), durable);
        let slot = Slot::Write { token, bytes: range.len(), _file: file.clone(), _buffer: buffer.clone() };
        let mut inner = self.inner.borrow_mut();
        inner.counters.writes += 1;
        inner.submit(entry, slot);
    }

    /// Moves up to `bytes` of the page cache at `offset` into `pipe`, reading the file where they are not there. Runs in a kernel worker.
    pub fn splice(&self, file: &File, offset: u64, bytes: usize, pipe: Pipe, connection: u64) {
        file.note_cold_read();
        let entry = opcode::Splice::new(
            types::Fd(file.as_raw_fd()),
            offset as i64,
            types::Fd(pipe.write_end()),
            -1,
            u32::try_from(bytes).expect("pieces are small"),
        )
        .build();
        let slot = Slot::Splice { connection, _file: file.clone(), pipe: Some(pipe) };
        let mut inner = self.inner.borrow_mut();
        inner.counters.splices += 1;
        inner.submit(entry, slot);
    }

    /// Tells that `range` of `file` is being sent through the page cache, and has read ahead what its reader will want next, up to `limit`.
    /// `is_cold`: the disk has to be asked for `range` itself.
    pub fn read_ahead(&self, file: &File, range: std::ops::Range<u64>, is_cold: bool, limit: u64) {
        let Some(ahead) = file.to_read_ahead(range, is_cold, limit) else { return };
        file.note_cold_read();
        // Allocates pages and submits the reads, in a worker, and waits for none of them.
        let bytes = libc::off_t::try_from(ahead.end - ahead.start).expect("a window");
        let entry = opcode::Fadvise::new(types::Fd(file.as_raw_fd()), bytes, libc::POSIX_FADV_WILLNEED)
            .offset(ahead.start)
            .build();
        let mut inner = self.inner.borrow_mut();
        inner.counters.read_aheads += 1;
        inner.counters.read_ahead_bytes += ahead.end - ahead.start;
        inner.submit(entry, Slot::ReadAhead { _file: file.clone() });
    }

    /// Reads up to `bytes` at `offset` around the page cache to the end of `buffer`; all three in whole blocks.
    ///
    /// # Errors
    /// Where the file cannot be opened that way.
    pub fn read_direct(
        &self,
        file: &File,
        offset: u64,
        bytes: usize,
        buffer: RecordBuffer,
        connection: u64,
    ) -> io::Result<()> {
        let fd = file.around_page_cache()?;
        let entry = read_entry(fd, offset, &buffer, bytes);
        let mut inner = self.inner.borrow_mut();
        inner.counters.direct_reads += 1;
        inner.submit(entry, Slot::DirectRead { connection, _file: file.clone(), buffer });
        Ok(())
    }

    /// Submits an entry that a future awaits. `keep` lives until the completion, even if the future does not.
    pub(super) fn awaited<K: Any>(
        &self,
        entry: squeue::Entry,
        keep: K,
    ) -> impl Future<Output = io::Result<usize>> + use<K> {
        let awaited = Rc::new(Awaited { result: Cell::new(None), waker: RefCell::new(None), _keep: Box::new(keep) });
        self.inner.borrow_mut().submit(entry, Slot::Await(awaited.clone()));
        Operation { awaited }
    }

    /// fdatasync of `file`.
    pub(super) fn sync(&self, file: &File) -> impl Future<Output = io::Result<usize>> + use<> {
        self.inner.borrow_mut().counters.syncs += 1;
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
        self.awaited(entry, file.clone())
    }

    /// Gives the kernel what has been submitted and lets it run what is due. Sleeps for up to `timeout` if there is nothing
    /// to report; without one it never sleeps.
    pub fn enter(&self, timeout: Option<Duration>) {
        let mut inner = self.inner.borrow_mut();
        inner.drain_overflow();
        inner.counters.enters += 1;
        let pending = !inner.uring.completion().is_empty();
        let result = match timeout {
            Some(timeout) if !pending => {
                inner.counters.waits += 1;
                let timespec = types::Timespec::from(timeout);
                inner.uring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
            }
            _ => inner.uring.submit(),
        };
        match result {
            Ok(_) => {}
            // ETIME: the timeout. EINTR: a signal. EBUSY, EAGAIN: completions must be reaped first, which comes next.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => panic!("io_uring_enter failed: {error}; the core cannot go on"),
        }
    }

    /// Whether completions wait to be reaped.
    pub fn has_completions(&self) -> bool {
        !self.inner.borrow_mut().uring.completion().is_empty()
    }

    /// Takes at most `COMPLETIONS_PER_TURN_MAX` completions into `out`; wakes the futures among them. True if any was taken.
    pub fn reap(&self, out: &mut Vec<Completion>) -> bool {
        let mut woken: Vec<Waker> = Vec::new();
        let mut any = false;
        {
            let inner = &mut *self.inner.borrow_mut();
            for _ in 0..COMPLETIONS_PER_TURN_MAX {
                let Some(entry) = inner.uring.completion().next() else { break };
                any = true;
                inner.counters.completions += 1;
                inner.complete(&entry, out, &mut woken);
            }
        }
        // Wakers run code of the executor; they must not find the ring borrowed.
        woken.into_iter().for_each(Waker::wake);
        any
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing a ring does not wait for its workers: what they may still touch is left to the process's end.
        let busy = std::mem::take(&mut self.slots).into_iter().filter(|slot| !matches!(slot, Slot::Free));
        busy.for_each(std::mem::forget);
    }
}

impl Inner {
    fn push(&mut self, entry: squeue::Entry) {
        self.counters.submissions += 1;
        if !self.overflow.is_empty() {
            self.overflow.push_back(entry);
            return;
        }
        // SAFETY: what the entry points to is kept by its slot until the completion (or it points to nothing).
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.counters.enters += 1;
        let submitted = self.uring.submit();
        // SAFETY: as above.
        if submitted.is_err() || unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.overflow.push_back(entry);
        }
    }

    fn drain_overflow(&mut self) {
        while let Some(entry) = self.overflow.pop_front() {
            // SAFETY: as in `push`.
            if unsafe { self.uring.submission().push(&entry) }.is_err() {
                self.overflow.push_front(entry);
                break;
            }
        }
    }

    fn submit(&mut self, entry: squeue::Entry, slot: Slot) {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot::Free);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[index as usize] = slot;
        self.push(entry.user_data(u64::from(index)));
    }

    fn complete(&mut self, entry: &cqueue::Entry, out: &mut Vec<Completion>, woken: &mut Vec<Waker>) {
        match entry.user_data() {
            WAKE => {
                self.counters.wakes_received += 1;
                out.push(Completion::Woken);
            }
            NOTHING => {}
            index => self.complete_slot(index as u32, entry, out, woken),
        }
    }

    fn complete_slot(&mut self, index: u32, entry: &cqueue::Entry, out: &mut Vec<Completion>, woken: &mut Vec<Waker>) {
        let result = if entry.result() < 0 {
            Err(io::Error::from_raw_os_error(-entry.result()))
        } else {
            Ok(entry.result() as usize)
        };
        let more = cqueue::more(entry.flags());
        match &self.slots[index as usize] {
            Slot::Accept { listener } => {
                let listener = *listener;
                if !more {
                    self.release(index);
                }
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                let result = result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
                out.push(Completion::Accepted { listener, ended: !more, result });
                return;
            }
            Slot::Watch { connection, socket } => {
                let (connection, socket) = (*connection, *socket);
                if !more {
                    self.release(index);
                }
                let Ok(mask) = result else { return };
                let mask = mask as i16;
                let gone = mask & (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) != 0;
                if !more && !gone {
                    // The kernel ends a multishot poll when the completion queue overflowed: watch again.
                    self.submit(watch_entry(socket), Slot::Watch { connection, socket });
                }
                if more && mask & (libc::POLLHUP | libc::POLLERR) != 0 {
                    self.end_watch(index);
                }
                let readable = mask & libc::POLLIN != 0 || gone;
                out.push(Completion::Ready { connection, readable, writable: mask & libc::POLLOUT != 0 });
                return;
            }
            Slot::Doorbell { doorbell } => {
                let doorbell = doorbell.clone();
                doorbell.hush();
                if !more {
                    self.release(index);
                    self.submit(doorbell_entry(doorbell.descriptor()), Slot::Doorbell { doorbell });
                }
                out.push(Completion::Doorbell);
                return;
            }
            _ => {}
        }
        match self.release(index) {
            Slot::Write { token, bytes, .. } => {
                let result = result.and_then(|written| {
                    if written == bytes {
                        Ok(())
                    } else {
                        Err(io::Error::other(format!("short write: {written} of {bytes} bytes")))
                    }
                });
                out.push(Completion::Disk(DiskCompletion { token, result }));
            }
            Slot::Splice { connection, pipe, .. } => {
                let pipe = pipe.expect("held until completion");
                out.push(Completion::Spliced { connection, pipe, result });
            }
            Slot::DirectRead { connection, buffer, .. } => {
                if let Ok(bytes) = result {
                    // SAFETY: the kernel has read that many bytes to the buffer's end.
                    unsafe { buffer.advance(bytes) };
                }
                out.push(Completion::DirectRead { connection, buffer, result });
            }
            // Where it failed the bytes are read when they are sent.
            Slot::ReadAhead { .. } => {}
            Slot::Await(awaited) => {
                awaited.result.set(Some(entry.result()));
                woken.extend(awaited.waker.borrow_mut().take());
            }
            Slot::Free | Slot::Accept { .. } | Slot::Watch { .. } | Slot::Doorbell { .. } => {
                unreachable!("a slot completes once, or is multishot and was handled above")
            }
        }
    }

    /// Both directions of a watched socket have ended. The kernel does not end a multishot poll for that, and the poll keeps the
    /// socket alive after its descriptor is closed: so it is removed here, and the slot is free when that completes.
    ///
    /// Where another event of the socket is just under way the kernel refuses (EALREADY); that event then comes here again.
    /// A removal that comes late finds nothing: whatever gets the slot next is submitted after it.
    fn end_watch(&mut self, index: u32) {
        self.push(opcode::PollRemove::new(u64::from(index)).build().user_data(NOTHING));
    }

    fn release(&mut self, index: u32) -> Slot {
        self.free.push(index);
        std::mem::replace(&mut self.slots[index as usize], Slot::Free)
    }
}

fn watch_entry(socket: RawFd) -> squeue::Entry {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    opcode::PollAdd::new(types::Fd(socket), events as u32).multi(true).build()
}

fn doorbell_entry(eventfd: RawFd) -> squeue::Entry {
    opcode::PollAdd::new(types::Fd(eventfd), libc::POLLIN as u32).multi(true).build()
}

/// `range` of `buffer`; what lies beyond the buffer's filled part is written as zeros.
pub(super) fn write_entry(
    file: &File,
    offset: u64,
    buffer: &RecordBuffer,
    range: std::ops::Range<usize>,
    durable: bool,
) -> squeue::Entry {
    assert!(range.start < range.end && range.end <= buffer.capacity());
    buffer.zero_to(range.end);
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    opcode::Write::new(types::Fd(file.as_raw_fd()), buffer.address(range.start), range.len() as u32)
        .offset(offset)
        .rw_flags(flags)
        .build()
}

/// Reads `bytes` to the end of the filled part of `buffer`.
pub(super) fn read_entry(file: RawFd, offset: u64, buffer: &RecordBuffer, bytes: usize) -> squeue::Entry {
    assert!(bytes <= buffer.capacity() - buffer.len());
    opcode::Read::new(types::Fd(file), buffer.address(buffer.len()), bytes as u32).offset(offset).build()
}

struct Operation {
    awaited: Rc<Awaited>,
}

impl Future for Operation {
    type Output = io::Result<usize>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.awaited.result.get() {
            Some(result) if result < 0 => Poll::Ready(Err(io::Error::from_raw_os_error(-result))),
            Some(result) => Poll::Ready(Ok(result as usize)),
            None => {
                *self.awaited.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Operations that the kernel has not ended.
    fn slots_in_use(ring: &Ring) -> usize {
        let inner = ring.inner.borrow();
        inner.slots.len() - inner.free.len()
    }

    /// Both ends of a connection.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("somebody listens");
        (listener.accept().expect("the peer connects").0, peer)
    }

    fn reset(stream: TcpStream, peer: &mut TcpStream) {
        use std::io::Write;
        // Unread bytes make the close a reset.
        peer.write_all(b"unread").expect("connected");
        drop(stream);
    }

    fn ends(ring: &Ring) {
        let mut out = Vec::new();
        for _ in 0..100 {
            if slots_in_use(ring) == 0 {
                return;
            }
            ring.enter(Some(Duration::from_millis(100)));
            ring.reap(&mut out);
        }
        panic!("the watch of a closed socket goes on");
    }

    /// Watches one end of a connection and ends it by `end`, which gets the watched end and the other.
    fn watch_until(ring: &Ring, end: impl FnOnce(TcpStream, TcpStream)) {
        let (watched, peer) = connected();
        ring.watch(watched.as_raw_fd(), 7);
        ring.enter(None);
        end(watched, peer);
        ends(ring);
    }

    #[test]
    fn a_watch_ends_with_its_socket() {
        let ring = Ring::new().expect("io_uring");
        watch_until(&ring, |watched, peer| {
            // As a server closes: the peer is still there.
            watched.shutdown(std::net::Shutdown::Both).expect("connected");
            drop(watched);
            drop(peer);
        });
        watch_until(&ring, |watched, peer| {
            drop(peer);
            watched.shutdown(std::net::Shutdown::Both).expect("half connected");
            drop(watched);
        });
        watch_until(&ring, |mut watched, peer| {
            reset(peer, &mut watched);
            drop(watched);
        });
    }

    #[test]
    fn a_watch_ends_that_began_when_the_peer_was_gone() {
        let ring = Ring::new().expect("io_uring");
        let (mut watched, peer) = connected();
        reset(peer, &mut watched);
        ring.watch(watched.as_raw_fd(), 7);
        ring.enter(None);
        let mut out = Vec::new();
        ring.reap(&mut out);
        drop(watched);
        ends(&ring);
    }
}
