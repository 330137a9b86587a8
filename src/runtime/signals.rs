//! SIGTERM, SIGINT and SIGUSR1, waited for by the main thread instead of interrupting a core.

use std::io;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// SIGTERM or SIGINT, by name.
    Stop(&'static str),
    /// SIGUSR1: show the counters.
    Counters,
}

/// The signals that ask the broker for something, blocked in this thread and in all that it starts.
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
            libc::sigaddset(&mut set, libc::SIGUSR1);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Signals { set }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Waits for one of them.
    pub fn wait(&self) -> Asked {
        let mut signal = 0;
        // SAFETY: the set was made by `block`; `signal` lives through the call.
        unsafe { libc::sigwait(&self.set, &mut signal) };
        match signal {
            libc::SIGUSR1 => Asked::Counters,
            libc::SIGINT => Asked::Stop("SIGINT"),
            _ => Asked::Stop("SIGTERM"),
        }
    }
}
