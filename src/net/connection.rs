//! One client's connection: what it has received, which requests of it are being worked on, what it has to send.
//!
//! Replies leave in the order of the requests, whatever order they are ready in.

use super::hoarding::{Holder, Pace};
use super::inbound::{FIRST_BYTES, Inbound};
use super::outbound::Outbound;
use crate::api::reply::Pieces;
use crate::base::time::Nanos;
use crate::runtime::disk::File;
use crate::runtime::socket::Socket;

/// Requests of one connection that may be worked on at once. More wait in its socket.
const IN_FLIGHT_MAX: usize = 256;

/// The kernel takes this much ahead for a connection that we do not read, and more. A peer of which less waits there is not held up by us.
const QUEUED_BYTES_MIN: usize = 32 << 10;

/// How requests of a connection may overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlap {
    /// Produce requests are placed in the order they come, so that the next may start before the last is durable.
    Produce,
    /// All others see what went before them, as if one were done after the other: so does Kafka.
    Alone,
}

pub struct Connection {
    pub socket: Socket,
    /// By which of the core's listeners it came.
    pub listener: u32,
    pub inbound: Inbound,
    pub outbound: Outbound,
    /// Sequence of the oldest request whose reply has not moved on to `outbound`, and of the next one to come.
    first: u64,
    next: u64,
    /// Requests from `first` on that are done, with their sequences, and wait for an older one.
    early: Vec<(u64, Pieces<File>)>,
    /// The kind of the requests that are being worked on.
    overlap: Overlap,
    /// Last time a byte moved; of its replies, while some are unsent.
    pub active: Nanos,
    /// Since when `inbound` holds what it holds.
    pub held_since: Nanos,
    /// How the request that `inbound` holds arrives.
    pub pace: Pace,
    /// How what `outbound` holds leaves.
    pub sending: Pace,
    /// Since when `outbound` holds a reply that is timed.
    pub unsent_since: Option<Nanos>,
    /// Bytes of the core's request memory lent to `inbound`.
    pub lent: usize,
    /// The socket has more to read than was taken.
    pub readable: bool,
    /// Bytes of its last request, with its length.
    pub last_bytes: usize,
    /// Its last read was small.
    pub reads_little: bool,
    /// It is in the core's list of connections to read together.
    pub gathered: bool,
    /// It is in the core's list of connections to go on with.
    pub listed: bool,
    /// It is in the core's list of connections that wait for request memory.
    pub starved: bool,
    /// No more requests are taken; it is closed when its replies are sent.
    pub closing: bool,
}

impl Connection {
    pub fn new(socket: Socket, listener: u32, now: Nanos) -> Connection {
        Connection {
            socket,
            listener,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            first: 0,
            next: 0,
            early: Vec::new(),
            overlap: Overlap::Alone,
            active: now,
            held_since: now,
            pace: Pace::new(now),
            sending: Pace::new(now),
            unsent_since: None,
            lent: 0,
            readable: false,
            last_bytes: 0,
            reads_little: false,
            gathered: false,
            listed: false,
            starved: false,
            closing: false,
        }
    }

    /// Requests that are being worked on.
    fn working(&self) -> usize {
        self.in_flight() - self.early.len()
    }

    /// Requests that are being worked on, or whose reply waits for its turn.
    fn in_flight(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// Whether a request of this kind may start now.
    pub fn may_start(&self, overlap: Overlap) -> bool {
        let room = self.in_flight() < IN_FLIGHT_MAX && !self.outbound.is_full();
        room && (self.working() == 0 || overlap == Overlap::Produce && self.overlap == Overlap::Produce)
    }

    /// A request starts; returns its sequence.
    pub fn begin(&mut self, overlap: Overlap) -> u64 {
        self.overlap = overlap;
        self.next += 1;
        self.next - 1
    }

    /// The request that started last was none: no reply is to come.
    pub fn abandon(&mut self) {
        assert!(self.working() > 0, "it has just started");
        self.next -= 1;
    }

    /// A request is done; `reply` is empty where there is none. Replies whose turn has come move on to be sent.
    pub fn finish(&mut self, sequence: u64, reply: Pieces<File>) {
        assert!((self.first..self.next).contains(&sequence), "a request is done once");
        if sequence > self.first {
            return self.early.push((sequence, reply));
        }
        self.reply(reply);
        while let Some(place) = self.early.iter().position(|(sequence, _)| *sequence == self.first) {
            let (_, reply) = self.early.swap_remove(place);
            self.reply(reply);
        }
    }

    fn reply(&mut self, pieces: Pieces<File>) {
        self.first += 1;
        pieces.into_iter().for_each(|piece| self.outbound.push(piece));
    }

    /// Whether there may be something to take in: held already, or in the socket.
    pub fn has_input(&self) -> bool {
        self.readable || !self.inbound.is_empty()
    }

    /// Looks at how its request arrives, if it holds memory for one that cannot start.
    pub fn look_at_pace(&mut self, id: u64, request_bytes_max: usize, now: Nanos) -> Option<Holder> {
        if self.inbound.is_empty() {
            return None;
        }
        // A length that cannot be is found where it is received.
        let missing = self.inbound.missing(request_bytes_max).ok()?;
        let (held_up, waits) = if missing > 0 {
            let queued = if self.starved { self.socket.queued_bytes() } else { 0 };
            (queued >= missing.min(QUEUED_BYTES_MIN), queued > 0)
        } else if self.starved || self.lent <= FIRST_BYTES {
            // It waits for the disk, or holds next to nothing.
            return None;
        } else {
            // It waits for an earlier one of its own connection.
            (true, false)
        };
        self.pace.look(held_up, now);
        Some(Holder { connection: id, bytes: self.lent, pace: self.pace, waits })
    }

    /// Looks at how its replies leave. True if they keep memory, and for long nobody has read them.
    pub fn look_at_sending(&mut self, now: Nanos) -> bool {
        if self.outbound.is_empty() {
            self.sending = Pace::new(now);
        } else {
            self.sending.look(self.outbound.awaits_disk(), now);
        }
        self.outbound.keeps_memory() && self.sending.is_unread(now)
    }

    /// Nothing is being worked on and nothing waits to be sent.
    pub fn is_quiet(&self) -> bool {
        self.in_flight() == 0 && self.outbound.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Piece;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("somebody listens");
        let socket = Socket::new(listener.accept().expect("the peer connects").0.into());
        (Connection::new(socket, 0, Nanos(0)), peer)
    }

    fn reply(byte: u8) -> Pieces<File> {
        Pieces::from_buf([Piece::Memory(Bytes::from(vec![byte]))])
    }

    proptest! {
        #[test]
        fn replies_leave_in_the_order_of_the_requests(order in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle()) {
            use crate::net::outbound::{ColdRead, Sender};
            let (mut connection, mut peer) = connected();
            for sequence in 0..20 {
                prop_assert!(connection.may_start(Overlap::Produce) && !connection.may_start(Overlap::Alone) || sequence == 0);
                prop_assert_eq!(connection.begin(Overlap::Produce), sequence);
            }
            for sequence in order {
                // One of them asked for no reply.
                connection.finish(sequence, if sequence == 7 { Pieces::new() } else { reply(sequence as u8) });
            }
            prop_assert!(connection.may_start(Overlap::Alone) && !connection.is_quiet());
            let ring = crate::runtime::ring::Ring::new().expect("io_uring");
            let mut sender = Sender::new(ring, crate::runtime::memory::Pool::new(0), ColdRead::Splice);
            connection.outbound.pump(&connection.socket, 1, &mut sender).expect("connected");
            prop_assert!(connection.is_quiet());
            let mut read = [0; 19];
            peer.read_exact(&mut read).expect("all that was sent");
            let expected: Vec<u8> = (0..20).filter(|sequence| *sequence != 7).collect();
            prop_assert_eq!(&read[..], &expected[..]);
        }
    }

    #[test]
    fn a_request_that_was_none_holds_nobody_up() {
        let (mut connection, _peer) = connected();
        let first = connection.begin(Overlap::Produce);
        connection.begin(Overlap::Produce);
        connection.abandon();
        assert!(!connection.may_start(Overlap::Alone), "the first one is being worked on");
        connection.finish(first, Pieces::new());
        assert!(connection.may_start(Overlap::Alone) && connection.is_quiet());
    }
}
