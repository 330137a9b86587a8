//! Bytes from a file to a socket without a copy in user space: sendfile for what is in the page cache, pipes for splice.

use super::disk::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Bytes moved in one call, so that no connection holds the core for long.
pub const TRANSFER_BYTES_MAX: usize = 256 << 10;
/// Bytes a pipe can hold; asked for, and less where `fs.pipe-user-pages-soft` says so.
const PIPE_BYTES: i32 = 1 << 20;
/// Distance of the probes in a range that is to be sent from the page cache.
const PROBE_BYTES: usize = 64 << 10;
/// `cachestat(2)`: Linux 6.5. The libc crate has no name for it on every target.
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// Whether `[offset, offset + bytes)` can be sent from the page cache without waiting for the disk. `bytes` is not 0.
///
/// cachestat counts the pages that are there, but also those that somebody is just reading; so where the file was read cold a
/// moment ago a byte is read every `PROBE_BYTES`, which such pages refuse. Reads of the disk are larger than that or end at
/// an end of the range. Before Linux 6.5 the probes are all there is.
pub fn resident(file: &File, offset: u64, bytes: usize) -> bool {
    const PAGE: u64 = 4096;
    let last = offset + bytes as u64 - 1;
    let range = CachestatRange { off: offset, len: bytes as u64 };
    let mut found = Cachestat::default();
    // SAFETY: both structures have the kernel's layout and live through the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0u32) };
    if result == 0 && found.nr_cache <= last / PAGE - offset / PAGE {
        return false;
    }
    if result == 0 && !file.is_being_read() {
        return true;
    }
    (offset..last).step_by(PROBE_BYTES).chain([last]).all(|at| can_read_at_once(file, at))
}

fn can_read_at_once(file: &File, at: u64) -> bool {
    let mut byte = 0u8;
    let piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: one byte is read into `byte`.
    unsafe { libc::preadv2(file.as_raw_fd(), &raw const piece, 1, at as i64, libc::RWF_NOWAIT) == 1 }
}

/// Sends `bytes` of `file` from `offset` to a non-blocking socket; returns how many it took. 0: the file ends there.
///
/// # Errors
/// `WouldBlock` where the socket's buffer is full.
pub fn sendfile(socket: RawFd, file: &File, offset: u64, bytes: usize) -> io::Result<usize> {
    let mut at = offset as i64;
    // SAFETY: both descriptors are open; `at` lives through the call.
    let sent = unsafe { libc::sendfile(socket, file.as_raw_fd(), &mut at, bytes.min(TRANSFER_BYTES_MAX)) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// A pipe that carries pages from a file to a socket.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// What it holds.
    pub filled: usize,
    /// What it can hold.
    pub capacity: usize,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written into `ends`.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: descriptors that were just made and that nobody else knows.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: takes no pointers. Where it is refused the pipe keeps its size.
        let capacity = unsafe {
            libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES);
            libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        Ok(Pipe { read, write, filled: 0, capacity: capacity.max(4096) as usize })
    }

    pub(super) fn write_end(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    /// Moves what the pipe holds to a non-blocking socket; returns how many bytes it took.
    ///
    /// # Errors
    /// `WouldBlock` where the socket's buffer is full.
    pub fn drain_to(&mut self, socket: RawFd) -> io::Result<usize> {
        let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
        let bytes = self.filled.min(TRANSFER_BYTES_MAX);
        // SAFETY: both descriptors are open; no offsets are given.
        let moved = unsafe {
            libc::splice(self.read.as_raw_fd(), std::ptr::null_mut(), socket, std::ptr::null_mut(), bytes, flags)
        };
        if moved < 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled -= moved as usize;
        Ok(moved as usize)
    }
}

/// Pipes of one core that are empty and can be used again. One that a closed connection left filled is thrown away.
#[derive(Default)]
pub struct Pipes {
    free: Vec<Pipe>,
}

/// Empty pipes kept; each holds two descriptors.
const PIPES_KEPT_MAX: usize = 32;

impl Pipes {
    pub fn take(&mut self) -> io::Result<Pipe> {
        self.free.pop().map_or_else(Pipe::new, Ok)
    }

    pub fn give_back(&mut self, pipe: Pipe) {
        if pipe.filled == 0 && self.free.len() < PIPES_KEPT_MAX {
            self.free.push(pipe);
        }
    }
}
