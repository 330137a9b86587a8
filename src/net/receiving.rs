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

/// Connections that are read one after the other before their requests are worked on: the kernel's code and ours then run from the
/// processor's caches, instead of by turns.
const GATHERED_MAX: usize = 32;
/// What one of them may bring. A connection that brought more the last time is read on its own, with all the room there is.
const GATHERED_BYTES: usize = SCRATCH_BYTES / GATHERED_MAX;
/// A frame of so much would seldom be whole in the scratch buffer, behind others.
const LARGE_FRAME_BYTES: usize = SCRATCH_BYTES / 4;

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
            let growth = connection.inbound.growth(missing, connection.last_bytes);
            if growth > 0 {
                if !self.budget.allows(id, growth) {
                    self.starve(id);
                    return Received::Waits;
                }
                connection.inbound.grow(growth);
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
        let held = connection.inbound.take();
        let keep = !self.budget.is_short();
        match self.take_frames(id, &held, Some(&held), now) {
            Err(why) => Received::Bad(why),
            Ok(taken) => {
                if let Some(connection) = self.connections.find(id) {
                    connection.inbound.recycle(held, taken, keep);
                }
                self.lend(id);
                Received::More(taken)
            }
        }
    }

    /// Reads from the socket: up to `missing` bytes to the frame that is held, the rest into the scratch buffer.
    fn read_socket(&mut self, id: u64, missing: usize, now: Now) -> Received {
        let Some(connection) = self.connections.find(id) else { return Received::Waits };
        // What is not taken at once will be held, so that no more is read than there is memory to hold it. Behind a large frame comes another,
        // as a rule: it is to be received where it will be held.
        let most = if connection.last_bytes >= LARGE_FRAME_BYTES { FIRST_BYTES } else { SCRATCH_BYTES };
        let scratch_bytes = self.budget.room().clamp(FIRST_BYTES, most);
        let scratch = &mut self.scratch[..scratch_bytes];
        let (result, room, offered) = if missing == 0 {
            (connection.socket.receive(scratch), 0, scratch.len())
        } else {
            let (memory, room) = connection.inbound.room(missing);
            // Only behind a whole frame may the next one begin in the scratch buffer.
            let rest = if room == missing { scratch } else { &mut [] };
            let offered = room + rest.len();
            (connection.socket.receive_behind(memory, room, rest), room, offered)
        };
        let read = match self.note_read(id, result, offered, now) {
            Ok(read) => read,
            Err(end) => return end,
        };
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

    /// What a read of a connection's socket says about it; how many bytes it was.
    fn note_read(
        &mut self,
        id: u64,
        result: std::io::Result<usize>,
        offered: usize,
        now: Now,
    ) -> Result<usize, Received> {
        let Some(connection) = self.connections.find(id) else { return Err(Received::Waits) };
        let read = match result {
            Ok(0) => return Err(Received::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                connection.readable = false;
                self.lend(id);
                return Err(Received::Waits);
            }
            Err(_) => return Err(Received::Closed),
        };
        // While replies are unread, only reading them shows that somebody is there.
        if connection.outbound.is_empty() {
            connection.active = now.mono;
        }
        connection.pace.advance(read);
        self.doors[connection.listener as usize].received_bytes += read as u64;
        // Less than was offered: the socket is empty, and its watch reports when that changes.
        connection.readable = read == offered;
        connection.reads_little = read < GATHERED_BYTES;
        Ok(read)
    }

    /// A socket has something to read: now, or, where little is expected, together with others of this turn.
    pub(super) fn receive_soon(&mut self, id: u64, now: Now) {
        let is_roomy = self.budget.room() >= SCRATCH_BYTES;
        let Some(connection) = self.connections.find(id) else { return };
        if !(connection.reads_little && is_roomy && connection.inbound.is_empty()) {
            return self.receive(id, now);
        }
        if !connection.gathered {
            connection.gathered = true;
            self.gathered.push(id);
            if self.gathered.len() == GATHERED_MAX {
                self.receive_gathered(now);
            }
        }
    }

    /// Reads all connections that were gathered before the first of their requests is worked on.
    pub(super) fn receive_gathered(&mut self, now: Now) {
        if self.gathered.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut scratch = std::mem::take(&mut self.scratch);
        // One behind the other, so that small requests of many lie in few cache lines, which are used again and again.
        let mut results = [const { None }; GATHERED_MAX];
        let mut end = 0;
        for (id, result) in gathered.iter().zip(&mut results) {
            if let Some(connection) = self.connections.find(*id) {
                connection.gathered = false;
                if self.phase == Phase::Serving && !connection.closing {
                    let received = connection.socket.receive(&mut scratch[end..end + GATHERED_BYTES]);
                    let read = received.as_ref().copied().unwrap_or(0);
                    *result = Some((end, received));
                    end += read;
                }
            }
        }
        for (id, result) in gathered.iter().zip(results) {
            let Some((start, result)) = result else { continue };
            let received = match self.note_read(*id, result, GATHERED_BYTES, now) {
                Ok(read) => {
                    let bytes = &scratch[start..start + read];
                    self.take_scratch(*id, bytes, now).map_or_else(Received::Bad, |()| Received::Waits)
                }
                Err(end) => end,
            };
            match received {
                Received::Closed => self.close(*id, Closing::ByPeer),
                Received::Bad(why) => self.close_bad(*id, &why, now),
                Received::Waits | Received::More(_) => {}
            }
        }
        self.scratch = scratch;
        for id in gathered.drain(..) {
            if self.connections.find(id).is_some_and(|connection| connection.has_input()) {
                self.receive(id, now);
            }
        }
        // Nobody gathers while this runs: only completions do.
        self.gathered = gathered;
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
            connection.last_bytes = LENGTH_BYTES + length;
            at += connection.last_bytes;
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
