//! A core's doorbell: an eventfd that threads without a ring of their own (helpers, the main thread) wake it by.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Rings one core. Clones ring the same one, from any thread.
#[derive(Clone)]
pub struct Doorbell {
    eventfd: Arc<OwnedFd>,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: eventfd takes no pointers; its result is checked below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and that nobody else knows.
        Ok(Doorbell { eventfd: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Wakes the core. Rings before it looked count as one.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from `one`. It fails only when the count is full, and then the bell is ringing already.
        unsafe { libc::write(self.descriptor(), (&raw const one).cast(), 8) };
    }

    /// Takes note of all rings so far.
    pub(super) fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: reads at most eight bytes into `count`; the descriptor is ours and does not block.
        unsafe { libc::read(self.descriptor(), (&raw mut count).cast(), 8) };
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
