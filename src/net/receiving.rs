//! From sockets to requests: reads what has arrived, holds what is not whole, starts what may start.
//!
//! When to look at a connection is the server's decision; this is one look.

use super::connection::Overlap;
use super::hoarding::Pace;
use super::inbound::{FIRST_BYTES, FrameError, LENGTH_BYTES, frame_bytes, is_produce};
use super::server::{Closing, Phase, SCRATCH_BYTES, Server};
use crate::api::dispatch::Frame;
use crate::api::{Tag, Verdict};
use crate::base::time::Now;
use bytes::Bytes;

/// Bytes read from one connection before the next one has its turn.
const READ_BYTES_MAX: usize = 1 << 20;

impl Server {
    /// Takes requests of a connection: those it holds first, then what its socket has.
    pub(super) fn receive(&mut self, id: u64, now: Now) {
        let mut left = READ_BYTES_MAX;
        loop {
            match self.receive_once(id, now) {
                Received::More(bytes) if bytes < left => left -= bytes,
                Received::More(_) => return self.list(id),
                Received::Waits => return,
                Received::Closed => return self.close(id, Closing::ByPeer),
                Received::Bad(why) => return self.close_bad(id, &why, now),
            }
        }
    }

    fn receive_once(&mut self, id: u64, now: Now) -> Received {
        let request_bytes_max = self.settings.request_bytes_max;
        let Some(connection) = self.connections.find(id) else { return Received::Waits };
        if connection.closing || self.phase != Phase::Serving {
            return Received::Waits;
        }
        let mut missing = 0;
        if !connection.inbound.is_empty() {
            missing = match connection.inbound.missing(request_bytes_max) {
                Ok(missing) => missing,
                Err(error) => return Received::Bad(error.to_string()),
            };
            if missing == 0 {
                return self.take_held(id, now);
            }
        }
        if !connection.readable {
            return Received::Waits;
        }
        if missing > 0 {
            let growth = connection.inbound.growth(missing);
            if growth > 0 && !self.budget.allows(id, growth) {
                self.starve(id);
                return Received::Waits;
            }
        }
        self.read_socket(id, missing, now)
    }

    /// Starts what is whole of the bytes that a connection holds, where its turn has come.
    fn take_held(&mut self, id: u64, now: Now) -> Received {
        let Some(connection) = self.connections.find(id) else { return Received::Waits };
        let overlap = overlap_of(&connection.inbound.bytes()[LENGTH_BYTES..]);
        if !connection.may_start(overlap) {
            return Received::Waits;
        }
        if overlap == Overlap::Produce && !self.budget.allows_work() {
            self.starve(id);
            return Received::Waits;
        }
        let (held, filled) = connection.inbound.take();
        let keep = !self.budget.is_short();
        match self.take_frames(id, &held[..filled], Some(&held), now) {
            Err(why) => Received::Bad(why),
            Ok(taken) => {
                if let Some(connection) = self.connections.find(id) {
                    connection.inbound.recycle(held, taken..filled, keep);
                }
                self.lend(id);
                Received::More(taken)
            }
        }
    }

    /// Reads from the socket: up to `missing` bytes to the frame that is held, the rest into the scratch buffer.
    fn read_socket(&mut self, id: u64, missing: usize, now: Now) -> Received {
        let Some(connection) = self.connections.find(id) else { return Received::Waits };
        // What is not taken at once will be held, so that no more is read than there is memory to hold it.
        let scratch_bytes = self.budget.room().clamp(FIRST_BYTES, SCRATCH_BYTES);
        let scratch = &mut self.scratch[..scratch_bytes];
        let socket = &connection.socket;
        let (result, room, offered) = if missing == 0 {
            (socket.receive(&mut [], scratch), 0, scratch.len())
        } else {
            connection.inbound.fill(missing, |room| {
                // Only behind a whole frame may the next one begin in the scratch buffer.
                let rest = if room.len() == missing { scratch } else { &mut [] };
                let offered = room.len() + rest.len();
                let result = socket.receive(room, rest);
                let used = result.as_ref().map_or(0, |bytes| (*bytes).min(room.len()));
                (used, (result, room.len(), offered))
            })
        };
        let read = match result {
            Ok(0) => return Received::Closed,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                connection.readable = false;
                self.lend(id);
                return Received::Waits;
            }
            Err(_) => return Received::Closed,
        };
        // While replies are unread, only reading them shows that somebody is there.
        if connection.outbound.is_empty() {
            connection.active = now.mono;
        }
        connection.pace.advance(read);
        self.doors[connection.listener as usize].received_bytes += read as u64;
        // Less than was offered: the socket is empty, and its watch reports when that changes.
        connection.readable = read == offered;
        self.lend(id);
        let in_scratch = read.saturating_sub(room);
        if missing > 0
            && let Some(connection) = self.connections.find(id)
            && connection.inbound.missing(self.settings.request_bytes_max) == Ok(0)
            && let Received::Bad(why) = self.take_held(id, now)
        {
            return Received::Bad(why);
        }
        if in_scratch > 0 {
            let scratch = std::mem::take(&mut self.scratch);
            let outcome = self.take_scratch(id, &scratch[..in_scratch], now);
            self.scratch = scratch;
            if let Err(why) = outcome {
                return Received::Bad(why);
            }
        }
        Received::More(read)
    }

    fn take_scratch(&mut self, id: u64, bytes: &[u8], now: Now) -> Result<(), String> {
        let holds = self.connections.find(id).is_some_and(|connection| !connection.inbound.is_empty());
        // Behind a request that waits for its turn, later ones wait, too.
        let taken = if holds { 0 } else { self.take_frames(id, bytes, None, now)? };
        self.hold(id, &bytes[taken..]);
        Ok(())
    }

    fn hold(&mut self, id: u64, rest: &[u8]) {
        if !rest.is_empty()
            && let Some(connection) = self.connections.find(id)
        {
            connection.inbound.hold(rest);
        }
        self.lend(id);
    }

    /// Brings the account of lent memory up to date.
    pub(super) fn lend(&mut self, id: u64) {
        if let Some(connection) = self.connections.find(id) {
            let capacity = connection.inbound.capacity();
            self.budget.adjust(id, connection.lent, capacity);
            connection.lent = capacity;
        }
    }

    /// Starts the requests at the front of `bytes` that are whole and may start; returns how many bytes they were.
    fn take_frames(&mut self, id: u64, bytes: &[u8], owner: Option<&Bytes>, now: Now) -> Result<usize, String> {
        let Some(connection) = self.connections.find(id) else { return Ok(bytes.len()) };
        // What was held is known for longer than what came in this turn.
        let mut known = if owner.is_some() { connection.held_since } else { now.mono };
        // What is left of `bytes` in the end is another request than what was held before.
        connection.pace = Pace::new(now.mono);
        connection.held_since = now.mono;
        let mut shard = self.shard.borrow_mut();
        let (mut at, mut starves) = (0, false);
        let next = |at: usize| frame_bytes(&bytes[at..], self.settings.request_bytes_max);
        while let Some(length) = next(at).map_err(|error: FrameError| error.to_string())? {
            let Some(frame) = bytes[at + LENGTH_BYTES..].get(..length) else { break };
            let overlap = overlap_of(frame);
            if !connection.may_start(overlap) {
                break;
            }
            let held_bytes = if overlap == Overlap::Produce { LENGTH_BYTES + length } else { 0 };
            if held_bytes > 0 && !self.budget.allows_work() {
                starves = true;
                break;
            }
            self.budget.begin_work(held_bytes);
            let key = frame.first_chunk::<2>().map_or(-1, |key| i16::from_be_bytes(*key));
            let began = self.spans.begin(key, known);
            known = now.mono;
            let tag = Tag { connection: id, sequence: connection.begin(overlap), bytes: held_bytes, key, began };
            self.counters.requests += 1;
            let frame = Frame { bytes: frame, owner };
            match self.api.on_frame(tag, frame, connection.socket.peer(), &mut shard, now) {
                Verdict::Taken => began.into_iter().for_each(|began| self.spans.worked(key, began)),
                Verdict::Close(why) => {
                    self.budget.end_work(held_bytes);
                    connection.abandon();
                    return Err(why);
                }
            }
            at += LENGTH_BYTES + length;
        }
        drop(shard);
        if starves {
            self.starve(id);
        }
        Ok(at)
    }
}

fn overlap_of(frame: &[u8]) -> Overlap {
    if is_produce(frame) { Overlap::Produce } else { Overlap::Alone }
}

/// What came of one look at a connection's socket.
enum Received {
    /// So many bytes; there may be more.
    More(usize),
    /// Nothing more for now: the socket is empty, or a request must be finished first, or memory is short.
    Waits,
    Closed,
    Bad(String),
}
