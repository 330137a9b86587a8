//! Sockets: listening on every core, and calls that never block.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Memory pieces given to one sendmsg.
pub const SEND_PIECES_MAX: usize = 64;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: passes four bytes of `value`, which lives through the call.
    check(unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), 4) }).map(drop)
}

/// What a listener is given, and its connections inherit.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that the kernel may hold ready for a core that is busy; it lowers this to `net.core.somaxconn`.
    pub backlog: u32,
    /// SO_SNDBUF in bytes, which the kernel doubles, and bounds by `net.core.wmem_max`. `None`: it sizes the buffer itself.
    pub send_buffer_bytes: Option<u32>,
    /// SO_RCVBUF in bytes, likewise, with `net.core.rmem_max`.
    pub receive_buffer_bytes: Option<u32>,
}

/// A listener. One that is `shared` has its port together with those of other cores (SO_REUSEPORT); the kernel spreads connections over them.
///
/// # Errors
/// `AddrInUse` where somebody else has the port.
pub fn listen(address: SocketAddr, options: ListenOptions, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: a descriptor that was just made and that nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    // Before the first connection: a window's scale is agreed on when it opens.
    let sizes = [(libc::SO_SNDBUF, options.send_buffer_bytes), (libc::SO_RCVBUF, options.receive_buffer_bytes)];
    for (name, bytes) in sizes {
        if let Some(bytes) = bytes {
            set_option(fd, libc::SOL_SOCKET, name, bytes as i32)?;
        }
    }
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `raw` is a whole sockaddr_in and its size is given.
            check(unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) })?;
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: `raw` is a whole sockaddr_in6 and its size is given.
            check(unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) })?;
        }
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(fd, options.backlog as i32) })?;
    Ok(TcpListener::from(socket))
}

/// A connection's socket; closed when dropped.
pub struct Socket {
    fd: OwnedFd,
    peer: Option<SocketAddr>,
}

impl Socket {
    /// Takes over an accepted socket: no Nagle; on loopback no bbr, whose pacing timers dominate there.
    pub fn new(fd: OwnedFd) -> Socket {
        let raw = fd.as_raw_fd();
        let stream = std::net::TcpStream::from(fd);
        let peer = stream.peer_addr().ok();
        // A socket that refuses an option still works, only slower.
        let _ = stream.set_nodelay(true);
        if peer.is_some_and(|peer| peer.ip().is_loopback()) {
            let name = c"cubic";
            // SAFETY: passes five bytes of a constant.
            unsafe {
                libc::setsockopt(raw, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), 5);
            }
        }
        Socket { fd: stream.into(), peer }
    }

    /// Who is connected; `None` where it was gone before we looked.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub fn descriptor(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Ends both directions: the peer sees it, and a watch of this socket ends.
    pub fn shutdown(&self) {
        // SAFETY: takes no pointers; failing means that the peer was faster.
        unsafe { libc::shutdown(self.descriptor(), libc::SHUT_RDWR) };
    }

    /// Bytes that have come and were not read. 0 where the kernel cannot say.
    pub fn queued_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: writes one int into `bytes`, which lives through the call.
        let asked = unsafe { libc::ioctl(self.descriptor(), libc::FIONREAD, &raw mut bytes) };
        if asked < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
    }

    /// Reads what is there into `target`. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there.
    pub fn receive(&self, target: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the slice is borrowed mutably through the call.
        let read =
            unsafe { libc::recv(self.descriptor(), target.as_mut_ptr().cast(), target.len(), libc::MSG_DONTWAIT) };
        if read < 0 { Err(io::Error::last_os_error()) } else { Ok(read as usize) }
    }

    /// Reads what is there: up to `room` bytes behind what `buffer` holds, which has memory for them, then into `rest`. 0 is the end of the
    /// stream.
    ///
    /// # Errors
    /// As `receive`.
    pub fn receive_behind(&self, buffer: &mut Vec<u8>, room: usize, rest: &mut [u8]) -> io::Result<usize> {
        let held = buffer.len();
        let first = &mut buffer.spare_capacity_mut()[..room];
        let mut pieces = [
            libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
            libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() },
        ];
        // SAFETY: an all-zero msghdr is valid: no name, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len();
        // SAFETY: the pieces point to memory that is borrowed mutably through the call.
        let read = unsafe { libc::recvmsg(self.descriptor(), &mut message, libc::MSG_DONTWAIT) };
        if read < 0 {
            return Err(io::Error::last_os_error());
        }
        let read = read as usize;
        // SAFETY: the first piece lies within the buffer's memory, and the kernel has filled its front before it went on to the second.
        unsafe { buffer.set_len(held + read.min(room)) };
        Ok(read)
    }

    /// Sends the front of `pieces` (at most `SEND_PIECES_MAX`); returns how many bytes the socket took. `more`: further bytes
    /// follow at once, so an unfilled packet may wait for them.
    ///
    /// # Errors
    /// `WouldBlock` where its buffer is full.
    pub fn send(&self, pieces: &[&[u8]], more: bool) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        let sent = if let [piece] = pieces {
            // SAFETY: the slice is borrowed through the call.
            unsafe { libc::send(self.descriptor(), piece.as_ptr().cast(), piece.len(), flags) }
        } else {
            let mut vector = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEND_PIECES_MAX];
            let count = pieces.len().min(SEND_PIECES_MAX);
            for (target, piece) in vector.iter_mut().zip(pieces) {
                *target = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
            }
            // SAFETY: an all-zero msghdr is valid: no name, no control data.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = vector.as_mut_ptr();
            message.msg_iovlen = count;
            // SAFETY: the vector points to slices that are borrowed through the call; sendmsg only reads them.
            unsafe { libc::sendmsg(self.descriptor(), &message, flags) }
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(socket: RawFd, name: i32) -> i32 {
        let (mut value, mut size) = (0i32, 4u32);
        // SAFETY: the kernel writes at most the four bytes of `value` and a size, both of which live through the call.
        let result =
            unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut size) };
        check(result).unwrap();
        value
    }

    #[test]
    fn connections_have_the_buffers_that_their_listener_was_given() {
        let options = ListenOptions { backlog: 1, send_buffer_bytes: Some(20_000), receive_buffer_bytes: Some(30_000) };
        let listener = listen("127.0.0.1:0".parse().unwrap(), options, true).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = Socket::new(accepted.into());
        // The kernel doubles what it is told, for its own overhead (socket(7)).
        assert_eq!(option(socket.descriptor(), libc::SO_SNDBUF), 40_000);
        assert_eq!(option(socket.descriptor(), libc::SO_RCVBUF), 60_000);
        assert_ne!(option(client.as_raw_fd(), libc::SO_RCVBUF), 60_000);
    }
}
