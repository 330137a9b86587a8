//! A connection to a broker: frames out without waiting, frames in as they come.

use crate::kept::Stretch;
use crate::poller::Poller;
use crate::wire;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a broker may take for its first answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A reply longer than this is taken for garbage, bytes.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Connects, and asks for the broker's versions as every client does first. It is needed here: a broker with a short queue of connections
/// (Kafka's is 50) drops those that come faster than it accepts, while they look open on this side and stand still for seconds.
///
/// # Errors
/// As connect(2), and where no answer comes within 5 s.
pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut hello = Vec::new();
    wire::api_versions(0, &mut hello);
    stream.write_all(&hello)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let rest = needed(&length)? - length.len();
    io::copy(&mut (&mut stream).take(rest as u64), &mut io::sink())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One call's part of a file, bytes.
const SENDFILE_BYTES_MAX: u64 = 1 << 20;

pub struct Connection {
    stream: TcpStream,
    /// Bytes that the socket had no room for, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// The start of a frame that has not come whole.
    partial: Vec<u8>,
    /// Bytes of `partial` that hold something.
    filled: usize,
}

impl Connection {
    /// Connects, and has `poller` report under `token`.
    ///
    /// # Errors
    /// As `dial`.
    pub fn open(address: SocketAddr, poller: &mut Poller, token: u64) -> io::Result<Connection> {
        Connection::accepted(dial(address)?, poller, token)
    }

    /// One that a peer has opened.
    ///
    /// # Errors
    /// Where the socket cannot be set up.
    pub fn accepted(stream: TcpStream, poller: &mut Poller, token: u64) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poller.watch(&stream, token);
        Ok(Connection { stream, unsent: Vec::new(), sent: 0, partial: Vec::new(), filled: 0 })
    }

    /// Whether bytes wait for room in the socket.
    pub fn is_backed_up(&self) -> bool {
        self.sent < self.unsent.len()
    }

    /// Sends `head` and `body` as one; what does not fit into the socket is kept, and `flush` goes on with it.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if !self.is_backed_up() {
            sent = match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.unsent.clear();
            self.sent = 0;
        }
        self.unsent.extend_from_slice(&head[sent.min(head.len())..]);
        self.unsent.extend_from_slice(&body[sent.saturating_sub(head.len())..]);
        // What was left after a short write may fit now, and no event would say so.
        if sent > 0 && self.is_backed_up() { self.flush() } else { Ok(()) }
    }

    /// Sends what is left, as far as there is room.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.is_backed_up() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends of `stretch`, straight from its file, what there is room for behind what waits.
    ///
    /// # Errors
    /// Where the connection is gone, and `UnexpectedEof` where the file is shorter.
    pub fn send_file(&mut self, stretch: &mut Stretch) -> io::Result<()> {
        while !self.is_backed_up() && stretch.bytes > 0 {
            let wanted = stretch.bytes.min(SENDFILE_BYTES_MAX) as usize;
            match rustix::fs::sendfile(&self.stream, &stretch.file, Some(&mut stretch.from), wanted) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => stretch.bytes -= bytes as u64,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads all that is there and hands each whole frame, without its length, to `each`. `shared` is memory for reading that
    /// all connections of a thread have in common.
    ///
    /// # Errors
    /// `UnexpectedEof` where the peer has closed; `InvalidData` where it sends no frames.
    pub fn receive(&mut self, shared: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let is_partial = self.filled > 0;
            let room = if is_partial { &mut self.partial[self.filled..] } else { &mut shared[..] };
            let asked = room.len();
            let read = match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if is_partial {
                self.filled += read;
                let wanted = needed(&self.partial[..self.filled])?;
                if self.filled < wanted {
                    self.partial.resize(wanted, 0);
                } else {
                    // Reading stops at the frame's end, so nothing of the next one is here.
                    each(&self.partial[4..self.filled]);
                    self.filled = 0;
                }
            } else {
                let mut rest = &shared[..read];
                while rest.len() >= 4 && rest.len() >= needed(rest)? {
                    let (frame, after) = rest.split_at(needed(rest)?);
                    each(&frame[4..]);
                    rest = after;
                }
                if !rest.is_empty() {
                    self.filled = rest.len();
                    self.partial.clear();
                    self.partial.extend_from_slice(rest);
                    self.partial.resize(needed(rest)?, 0);
                }
            }
            // A short read emptied the socket; what comes later is reported.
            if read < asked && asked >= 4096 {
                return Ok(());
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Ends the watch of its socket, which would otherwise keep that alive.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// How long the frame that `bytes` begin is, with its length; 4 while that is not known.
fn needed(bytes: &[u8]) -> io::Result<usize> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(4) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        return Err(io::Error::new(ErrorKind::InvalidData, "the peer does not send Kafka frames"));
    }
    Ok(4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Connection, TcpStream, Poller) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut poller = Poller::new().expect("io_uring");
        let address = listener.local_addr().expect("bound");
        let peer = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("connected");
            let mut hello = Vec::new();
            wire::api_versions(0, &mut hello);
            peer.read_exact(&mut hello).expect("a client says hello");
            peer.write_all(&[0, 0, 0, 6, 0, 0, 0, 0, 0, 0]).expect("connected");
            peer
        });
        let connection = Connection::open(address, &mut poller, 1).expect("somebody listens");
        (connection, peer.join().expect("it connects"), poller)
    }

    fn wait(poller: &mut Poller) {
        poller.wait(Some(Duration::from_millis(200)), &mut Vec::new()).expect("a ring");
    }

    #[test]
    fn frames_come_whole_however_they_were_cut() {
        let (mut connection, mut peer, mut poller) = pair();
        let mut sent = Vec::new();
        let mut stream = Vec::new();
        for bytes in [4usize, 5, 100, 5000, 4, 70_000, 9] {
            let frame: Vec<u8> = (0..bytes).map(|at| (at * 7) as u8).collect();
            stream.extend_from_slice(&(bytes as u32).to_be_bytes());
            stream.extend_from_slice(&frame);
            sent.push(frame);
        }
        let mut random = fastrand::Rng::with_seed(11);
        let mut shared = vec![0; 8192];
        let mut got: Vec<Vec<u8>> = Vec::new();
        for _ in 0..20 {
            got.clear();
            let mut rest = &stream[..];
            while !rest.is_empty() || got.len() < sent.len() {
                let most = if random.bool() { 3 } else { 9000 };
                let piece = random.usize(1..=most).min(rest.len());
                peer.write_all(&rest[..piece]).expect("connected");
                rest = &rest[piece..];
                if rest.is_empty() {
                    wait(&mut poller);
                }
                connection.receive(&mut shared, |frame| got.push(frame.to_vec())).expect("frames");
            }
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn what_the_socket_has_no_room_for_goes_later() {
        let (mut connection, mut peer, _poller) = pair();
        let body = vec![5u8; 300_000];
        for _ in 0..60 {
            connection.send(b"head", &body).expect("connected");
        }
        assert!(connection.is_backed_up(), "18 MB do not fit into a socket that nobody reads");
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while read < 60 * 300_004 {
            let bytes = peer.read(&mut buffer).expect("connected");
            for (at, &byte) in buffer[..bytes].iter().enumerate() {
                let within = (read + at) % 300_004;
                assert_eq!(byte, if within < 4 { b"head"[within] } else { 5 });
            }
            read += bytes;
            connection.flush().expect("connected");
        }
        assert!(!connection.is_backed_up());
    }

    #[test]
    fn a_peer_that_goes_or_babbles_is_an_error() {
        let (mut connection, peer, _poller) = pair();
        drop(peer);
        let mut shared = vec![0; 100];
        let closed = loop {
            match connection.receive(&mut shared, |_| ()) {
                Ok(()) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(matches!(closed.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
        let (mut connection, mut peer, _poller) = pair();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").expect("connected");
        let error = loop {
            match connection.receive(&mut shared, |_| ()) {
                Ok(()) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
