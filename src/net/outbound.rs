//! What a connection has to send: memory by send, resident file bytes by sendfile, cold ones by splice or direct reads.
//!
//! No path copies bytes in user space and none blocks the core: where the kernel must wait for a disk, it does so in a worker,
//! and the connection goes on when the completion comes.

use crate::base::counters::SentCounters;
use crate::base::limits::DISK_BLOCK_BYTES;
use crate::ports::{Buffer, Piece};
use crate::runtime::disk::File;
use crate::runtime::memory::{Pool, RecordBuffer};
use crate::runtime::ring::Ring;
use crate::runtime::socket::{SEND_PIECES_MAX, Socket};
use crate::runtime::transfer::{Pipe, Pipes, TRANSFER_BYTES_MAX, resident, sendfile};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Bytes all connections together may send in one of the three parts of a turn. On loopback the kernel takes 0.15 to 0.7 ms for a MiB, the
/// receiver's work included: with 1 MiB a part 5 to 7 turns beside 5 GB of cold reads computed for 2 to 4 ms, with this 1 to 3 or none.
const PART_BYTES_MAX: usize = 256 << 10;
/// A reply of so much memory does not wait for those that were larger.
const SMALL_BYTES_MAX: usize = 16 << 10;
/// One cold read.
const COLD_READ_BYTES: usize = 1 << 20;

/// Pieces of replies that may wait for a slow reader before no more of its requests are taken ...
const UNSENT_PIECES_MAX: usize = 256;
/// ... and bytes of memory in them. One peer that never reads makes a core hold this and one reply more.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// How bytes that are not in the page cache are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColdRead {
    /// File to pipe in a kernel worker, pipe to socket here; fills the page cache, ahead of whoever reads in order.
    Splice,
    /// Around the page cache into recycled memory.
    Direct,
}

/// What sending needs of its core.
pub struct Sender {
    pub ring: Ring,
    pub pipes: Pipes,
    pub pool: Arc<Pool>,
    pub cold_read: ColdRead,
    pub sent: SentCounters,
    /// What may still be sent in this part of the turn.
    left: usize,
}

impl Sender {
    pub fn new(ring: Ring, pool: Arc<Pool>, cold_read: ColdRead) -> Sender {
        let sent = SentCounters::default();
        Sender { ring, pipes: Pipes::default(), pool, cold_read, sent, left: PART_BYTES_MAX }
    }

    /// Another part of the turn begins.
    pub fn next_part(&mut self) {
        self.left = PART_BYTES_MAX;
    }

    /// Whether this part of the turn has sent enough: more waits for the next turn, so that no turn becomes a stall.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// Where a connection's sending stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing left.
    Done,
    /// The socket is full: go on when it is writable.
    Blocked,
    /// A disk read is under way: go on at its completion.
    Reading,
    /// Others' turn; there is more.
    Yield,
}

#[derive(Default)]
enum Cold {
    #[default]
    None,
    InFlight,
    Pipe(Pipe),
    /// Bytes of the file from `start` on; `next` is a read of what follows them.
    Memory {
        start: u64,
        buffer: RecordBuffer,
        next: Next,
    },
}

enum Next {
    None,
    InFlight,
    Ready { start: u64, buffer: RecordBuffer },
}

/// Pieces in the order they leave. Mostly there is one, which has no memory of its own: where a thousand connections have a reply each, every
/// further place is one that no cache holds.
#[derive(Default)]
struct Queue {
    /// Invariant: `behind` is empty where there is none.
    front: Option<Piece<File>>,
    behind: VecDeque<Piece<File>>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.behind.len()
    }

    fn front(&self) -> Option<&Piece<File>> {
        self.front.as_ref()
    }

    fn front_mut(&mut self) -> Option<&mut Piece<File>> {
        self.front.as_mut()
    }

    fn push_back(&mut self, piece: Piece<File>) {
        match self.front {
            None => self.front = Some(piece),
            Some(_) => self.behind.push_back(piece),
        }
    }

    fn pop_front(&mut self) {
        self.front = self.behind.pop_front();
    }

    fn iter(&self) -> impl Iterator<Item = &Piece<File>> {
        self.front.iter().chain(&self.behind)
    }
}

/// The replies of one connection on their way out.
#[derive(Default)]
pub struct Outbound {
    queue: Queue,
    /// Bytes of memory that `queue` keeps alive.
    memory_bytes: usize,
    cold: Cold,
}

fn blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Outbound {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so much waits for the peer to read that it gets nothing more for now.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= UNSENT_PIECES_MAX || self.memory_bytes >= UNSENT_BYTES_MAX
    }

    /// Whether it is a disk, and not the peer, that must do something next.
    pub fn awaits_disk(&self) -> bool {
        matches!(self.cold, Cold::InFlight)
    }

    /// Whether it keeps memory alive: records of a tail, or what was read around the page cache.
    pub fn keeps_memory(&self) -> bool {
        self.memory_bytes > 0 || matches!(self.cold, Cold::Memory { .. })
    }

    pub fn push(&mut self, piece: Piece<File>) {
        if piece.bytes() > 0 {
            if let Piece::Memory(bytes) = &piece {
                self.memory_bytes += bytes.len();
            }
            self.queue.push_back(piece);
        }
    }

    /// Sends as much as the socket takes and fairness allows.
    ///
    /// # Errors
    /// The socket's, or the file's: the connection is then of no more use.
    pub fn pump(&mut self, socket: &Socket, connection: u64, sender: &mut Sender) -> io::Result<Progress> {
        loop {
            let is_small = self.memory_bytes <= SMALL_BYTES_MAX && matches!(self.queue.front(), Some(Piece::Memory(_)));
            if !self.queue.is_empty() && sender.is_spent() && !is_small {
                return Ok(Progress::Yield);
            }
            let sent = match self.queue.front() {
                None => return Ok(Progress::Done),
                Some(Piece::Memory(_)) => self.send_memory(socket, sender),
                Some(Piece::File { .. }) => match self.send_file(socket, connection, sender) {
                    Ok(Some(sent)) => Ok(sent),
                    Ok(None) => return Ok(Progress::Reading),
                    Err(error) => Err(error),
                },
            };
            match sent {
                Ok(sent) => sender.left = sender.left.saturating_sub(sent),
                Err(error) if blocked(&error) => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            }
        }
    }

    fn send_memory(&mut self, socket: &Socket, sender: &mut Sender) -> io::Result<usize> {
        let sent = match self.queue.front() {
            Some(Piece::Memory(only)) if self.queue.len() == 1 => socket.send(&[only], false)?,
            _ => self.send_pieces(socket)?,
        };
        sender.sent.memory_bytes += sent as u64;
        sender.sent.memory_sends += 1;
        self.advance_memory(sent);
        Ok(sent)
    }

    /// Offers the socket all memory up to the next piece of a file, as far as one call takes it.
    fn send_pieces(&self, socket: &Socket) -> io::Result<usize> {
        let mut pieces: [&[u8]; SEND_PIECES_MAX] = [&[]; SEND_PIECES_MAX];
        let (mut count, mut offered) = (0, 0);
        for piece in self.queue.iter().take(SEND_PIECES_MAX) {
            let Piece::Memory(bytes) = piece else { break };
            if offered >= TRANSFER_BYTES_MAX {
                break;
            }
            pieces[count] = bytes;
            offered += bytes.len();
            count += 1;
        }
        let more = self.queue.len() > count;
        socket.send(&pieces[..count], more)
    }

    fn advance_memory(&mut self, mut sent: usize) {
        self.memory_bytes -= sent;
        while sent > 0 {
            let Some(Piece::Memory(bytes)) = self.queue.front_mut() else { unreachable!("only memory was sent") };
            if sent < bytes.len() {
                bytes::Buf::advance(bytes, sent);
                return;
            }
            sent -= bytes.len();
            self.queue.pop_front();
        }
    }

    /// Sends from the file piece in front; `None` where a read must complete first.
    fn send_file(&mut self, socket: &Socket, connection: u64, sender: &mut Sender) -> io::Result<Option<usize>> {
        let Some(Piece::File { file, position, bytes, settled }) = self.queue.front() else {
            unreachable!("a file is in front")
        };
        let (position, bytes, settled) = (*position, *bytes, *settled);
        let sent = match &mut self.cold {
            Cold::InFlight => return Ok(None),
            Cold::Pipe(pipe) => {
                let sent = pipe.drain_to(socket.descriptor())?;
                sender.sent.splice_bytes += sent as u64;
                sender.sent.splices += 1;
                if pipe.filled == 0
                    && let Cold::Pipe(pipe) = std::mem::replace(&mut self.cold, Cold::None)
                {
                    sender.pipes.give_back(pipe);
                }
                sent
            }
            Cold::Memory { start, buffer, next } => {
                let from = (position - *start) as usize;
                let end = buffer.len().min(from + (bytes as usize).min(TRANSFER_BYTES_MAX));
                if from >= end {
                    return self.next_direct(connection, sender);
                }
                if matches!(next, Next::None) && *start + (buffer.len() as u64) < position + bytes {
                    let after = *start + buffer.len() as u64;
                    read_direct(file, after, position + bytes - after, connection, sender)?;
                    *next = Next::InFlight;
                }
                let more = self.queue.len() > 1 || ((end - from) as u64) < bytes;
                let sent = socket.send(&[&buffer.view(from..end)[..]], more)?;
                sender.sent.direct_bytes += sent as u64;
                sender.sent.direct_sends += 1;
                sent
            }
            Cold::None => {
                let slice = bytes.min(TRANSFER_BYTES_MAX as u64) as usize;
                if resident(file, position, slice) {
                    let sent = sendfile(socket.descriptor(), file, position, slice)?;
                    sender.sent.sendfile_bytes += sent as u64;
                    sender.sent.sendfiles += 1;
                    if sent == 0 {
                        return Err(ended_early(file, position));
                    }
                    if sender.cold_read == ColdRead::Splice {
                        sender.ring.read_ahead(file, position..position + sent as u64, false, settled);
                    }
                    sent
                } else {
                    return self.start_cold(connection, sender);
                }
            }
        };
        self.advance_file(sent as u64);
        Ok(Some(sent))
    }

    fn advance_file(&mut self, sent: u64) {
        let Some(Piece::File { position, bytes, .. }) = self.queue.front_mut() else {
            unreachable!("a file is in front")
        };
        *position += sent;
        *bytes -= sent;
        if *bytes == 0 {
            self.queue.pop_front();
            if matches!(self.cold, Cold::Memory { .. }) {
                self.cold = Cold::None;
            }
        }
    }

    fn start_cold(&mut self, connection: u64, sender: &mut Sender) -> io::Result<Option<usize>> {
        let Some(Piece::File { file, position, bytes, settled }) = self.queue.front() else {
            unreachable!("a file is in front")
        };
        match sender.cold_read {
            ColdRead::Splice => {
                let pipe = sender.pipes.take()?;
                let wanted = (*bytes).min(pipe.capacity as u64);
                sender.ring.splice(file, *position, wanted as usize, pipe, connection);
                sender.ring.read_ahead(file, *position..*position + wanted, true, *settled);
            }
            ColdRead::Direct => read_direct(file, *position, *bytes, connection, sender)?,
        }
        self.cold = Cold::InFlight;
        Ok(None)
    }

    /// The bytes at hand are sent: goes over to the ones that were read meanwhile.
    fn next_direct(&mut self, connection: u64, sender: &mut Sender) -> io::Result<Option<usize>> {
        let Cold::Memory { next, .. } = std::mem::replace(&mut self.cold, Cold::None) else {
            unreachable!("called while memory is sent")
        };
        match next {
            Next::Ready { start, buffer } => {
                self.cold = Cold::Memory { start, buffer, next: Next::None };
                Ok(Some(0))
            }
            Next::InFlight => {
                self.cold = Cold::InFlight;
                Ok(None)
            }
            Next::None => self.start_cold(connection, sender),
        }
    }

    /// A splice into `pipe` has ended.
    ///
    /// # Errors
    /// The disk's, or the file ended before the bytes that were promised.
    pub fn on_spliced(&mut self, mut pipe: Pipe, result: io::Result<usize>) -> io::Result<()> {
        let moved = result?;
        let Some(Piece::File { file, position, .. }) = self.queue.front() else { unreachable!("spliced for a file") };
        if moved == 0 {
            return Err(ended_early(file, *position));
        }
        pipe.filled = moved;
        self.cold = Cold::Pipe(pipe);
        Ok(())
    }

    /// A direct read has ended.
    ///
    /// # Errors
    /// As `on_spliced`.
    pub fn on_direct_read(&mut self, buffer: RecordBuffer, result: io::Result<usize>) -> io::Result<()> {
        let read = result?;
        let Some(Piece::File { file, position, .. }) = self.queue.front() else {
            // The read ahead of a piece that is all sent already.
            self.cold = Cold::None;
            return Ok(());
        };
        match &mut self.cold {
            Cold::Memory { start, buffer: current, next } => {
                let start = *start + current.len() as u64;
                *next = Next::Ready { start, buffer };
            }
            _ => {
                let start = block_start(*position);
                if start + read as u64 <= *position {
                    return Err(ended_early(file, *position));
                }
                self.cold = Cold::Memory { start, buffer, next: Next::None };
            }
        }
        Ok(())
    }
}

fn block_start(position: u64) -> u64 {
    position / DISK_BLOCK_BYTES as u64 * DISK_BLOCK_BYTES as u64
}

fn read_direct(file: &File, position: u64, bytes: u64, connection: u64, sender: &Sender) -> io::Result<()> {
    let start = block_start(position);
    let wanted = (position + bytes - start).min(COLD_READ_BYTES as u64) as usize;
    let buffer = sender.pool.take(wanted);
    sender.ring.read_direct(file, start, wanted.next_multiple_of(DISK_BLOCK_BYTES), buffer, connection)
}

fn ended_early(file: &File, position: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{file:?} ends before position {position} that its index promises"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::net::{TcpListener, TcpStream};

    fn socket() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("somebody listens");
        (Socket::new(listener.accept().expect("the peer connects").0.into()), peer)
    }

    #[test]
    fn large_replies_wait_for_the_next_part_of_the_turn_and_small_ones_do_not() {
        let (socket, _peer) = socket();
        let mut sender = Sender::new(Ring::new().expect("io_uring"), Pool::new(0), ColdRead::Splice);
        let reply = |bytes: usize| {
            let mut outbound = Outbound::default();
            outbound.push(Piece::Memory(Bytes::from(vec![0; bytes])));
            outbound
        };
        sender.left = 1;
        let (mut first, mut small, mut large) = (reply(100), reply(SMALL_BYTES_MAX), reply(SMALL_BYTES_MAX + 1));
        assert_eq!(first.pump(&socket, 1, &mut sender).expect("connected"), Progress::Done);
        assert!(sender.is_spent());
        assert_eq!(small.pump(&socket, 2, &mut sender).expect("connected"), Progress::Done);
        assert_eq!(large.pump(&socket, 3, &mut sender).expect("connected"), Progress::Yield);
        assert_eq!(sender.sent.memory_bytes, (100 + SMALL_BYTES_MAX) as u64);
        sender.next_part();
        assert_eq!(large.pump(&socket, 3, &mut sender).expect("connected"), Progress::Done);
        assert_eq!(reply(0).pump(&socket, 4, &mut sender).expect("connected"), Progress::Done, "nothing to send");
    }
}
