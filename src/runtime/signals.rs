//! SIGTERM and SIGINT, waited for by the main thread instead of interrupting a core.

use std::io;

/// The signals that ask the broker to stop, blocked in this thread and in all that it starts.
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals. To be called before any other thread is started.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: an all-zero sigset_t is a valid argument to sigemptyset, which makes it the empty set.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Signals { set }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Waits for one of them; returns its name.
    pub fn wait(&self) -> &'static str {
        let mut signal = 0;
        // SAFETY: the set was made by `block`; `signal` lives through the call.
        unsafe { libc::sigwait(&self.set, &mut signal) };
        if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" }
    }
}
