//! An io_uring that says which sockets have something to read or room to write: the only home of `unsafe` here.

use io_uring::{IoUring, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Entries of the submission queue; more are submitted in several steps.
const SUBMISSIONS: u32 = 256;
/// Entries of the completion queue: an event of each of some ten thousand sockets at once.
const COMPLETIONS: u32 = 32 << 10;

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// As `watch` was told.
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

pub struct Poller {
    ring: IoUring,
    /// Watches that the submission queue had no room for.
    waiting: VecDeque<squeue::Entry>,
}

impl Poller {
    /// # Errors
    /// What io_uring_setup answers: ENOSYS or EPERM where io_uring is off, EINVAL before Linux 6.1.
    pub fn new() -> io::Result<Poller> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        Ok(Poller { ring, waiting: VecDeque::new() })
    }

    /// Reports each change of `socket` from now until it is shut down and closed. `token` is its owner's, below `u64::MAX`.
    pub fn watch(&mut self, socket: &impl AsRawFd, token: u64) {
        self.waiting.push_back(entry(socket.as_raw_fd(), token));
    }

    /// Waits up to `timeout` (`None`: not at all) and appends what has happened to `events`.
    ///
    /// # Errors
    /// Where the ring itself fails.
    pub fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.fill();
            match self.ring.submit() {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => {}
            }
        }
        let result = match timeout {
            Some(timeout) if self.ring.completion().is_empty() => {
                let timespec = types::Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
            }
            _ => self.ring.submit(),
        };
        match result {
            Err(error) if !is_passing(&error) => return Err(error),
            _ => {}
        }
        for completion in self.ring.completion() {
            // Failed, or removed with its socket.
            if completion.result() < 0 {
                continue;
            }
            let mask = completion.result() as i16;
            let gone = mask & (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) != 0;
            events.push(Event {
                token: completion.user_data(),
                readable: gone || mask & libc::POLLIN != 0,
                writable: mask & libc::POLLOUT != 0,
            });
        }
        Ok(())
    }

    fn fill(&mut self) {
        while let Some(entry) = self.waiting.pop_front() {
            // SAFETY: a poll points to no memory of ours.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                self.waiting.push_front(entry);
                break;
            }
        }
    }
}

fn entry(socket: RawFd, token: u64) -> squeue::Entry {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    opcode::PollAdd::new(types::Fd(socket), events as u32).multi(true).build().user_data(token)
}

/// The timeout, a signal, or completions that must be taken first.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_socket_is_reported_when_it_has_something() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (socket, _) = listener.accept().expect("connected");
        let mut poller = Poller::new().expect("io_uring");
        poller.watch(&socket, 7);
        let mut events = Vec::new();
        poller.wait(Some(Duration::from_secs(5)), &mut events).expect("a ring");
        assert!(events.iter().all(|event| event.token == 7 && event.writable && !event.readable), "{events:?}");
        events.clear();
        peer.write_all(b"x").expect("connected");
        while !events.iter().any(|event| event.readable) {
            poller.wait(Some(Duration::from_secs(5)), &mut events).expect("a ring");
        }
        assert!(events.iter().all(|event| event.token == 7));
    }
}
