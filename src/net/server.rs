//! The server of one core: its turn. What has completed goes to connections and to the log; `receiving` takes requests, `replying` sends what
//! was answered, `upkeep` looks at everything once a second.

use super::budget::Budget;
use super::connection::Connection;
use super::inbound::Inbound;
use super::outbound::Sender;
use super::quiet::RateLimit;
use super::report::Reporter;
use super::spans::Spans;
use super::upkeep::Round;
use crate::api::{Api, Finished};
use crate::base::counters::{ConnectionCounters, CoreCounters};
use crate::base::measures::{ListenerMeasures, Measures, TurnMeasures};
use crate::base::time::{Nanos, Now};
use crate::runtime::blocking::Helper;
use crate::runtime::disk::{CoreDisk, File};
use crate::runtime::mailbox::Mailboxes;
use crate::runtime::ring::{Completion, Ring};
use crate::runtime::socket::Socket;
use crate::runtime::turn::{Next, Turn};
use crate::shard::Shard;
use crate::shard::commands::{Answer, Message, RequestId};
use crate::shard::control::Asker;
use crate::shard::facts::Slice;
use crate::shard::slab::Slab;
use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The receive buffer of a core: frames that are whole are read where they lie in it.
pub(super) const SCRATCH_BYTES: usize = 512 << 10;
/// How long requests may take to end when the broker stops.
const DRAIN_MS: u64 = 2000;

/// What a server must know of the configuration.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub request_bytes_max: usize,
    pub request_memory_bytes: usize,
    pub tail_memory_bytes: usize,
    /// `connections.max.idle.ms`; `None` keeps idle connections.
    pub idle_ms_max: Option<u64>,
    /// Connections of this core; further ones are closed at once.
    pub connections_max: usize,
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// The peer did, or its network.
    ByPeer,
    /// It could not be understood, or holds memory that others wait for.
    Bad,
    Idle,
    /// It does not read its replies, and memory for records is short.
    Unread,
    /// A request without a reply has failed: closing is the only way to say so.
    Unanswerable,
    /// Sending or reading for it failed.
    Failed,
    /// The broker stops.
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Serving,
    /// No new requests; those under way are finished until this time.
    Draining(Nanos),
    /// The log is being closed.
    Closing,
    Closed,
}

/// What a server is made of.
pub struct Parts {
    pub ring: Ring,
    pub helper: Helper,
    pub mailboxes: Mailboxes<Message<File>>,
    pub shard: Rc<RefCell<Shard<CoreDisk>>>,
    pub api: Api<CoreDisk>,
    pub sender: Sender,
    pub settings: ServerSettings,
    pub reporter: Reporter,
    /// How many cores are short of memory for records: replies of any core may keep it.
    pub short_cores: Arc<AtomicUsize>,
}

pub struct Server {
    ring: Ring,
    helper: Helper,
    mailboxes: Mailboxes<Message<File>>,
    pub(super) shard: Rc<RefCell<Shard<CoreDisk>>>,
    pub(super) api: Api<CoreDisk>,
    pub(super) sender: Sender,
    pub(super) settings: ServerSettings,
    reporter: Reporter,
    pub(super) short_cores: Arc<AtomicUsize>,
    /// This core is one of `short_cores`.
    pub(super) is_short: bool,
    listeners: Vec<TcpListener>,
    /// What came through each of them; stays when they close.
    pub(super) doors: Vec<ListenerMeasures>,
    /// Listeners that accept again at the next tick.
    pub(super) resting: Vec<u32>,
    pub(super) connections: Slab<Connection>,
    pub(super) scratch: Vec<u8>,
    pub(super) budget: Budget,
    /// Connections that have more to read or to send.
    listed: Vec<u64>,
    /// Connections with little to read, to be read together.
    pub(super) gathered: Vec<u64>,
    /// Connections that wait for request memory, each once.
    pub(super) starved: Vec<u64>,
    inbox: Vec<Message<File>>,
    /// Of no meaning between calls, like the two that follow; they keep their memory.
    pub(super) answers: Vec<(RequestId, Answer<File>)>,
    pub(super) finished: Vec<Finished<File>>,
    replied: Vec<u64>,
    pub(super) phase: Phase,
    closed: Rc<std::cell::Cell<bool>>,
    pub(super) next_tick: Nanos,
    pub(super) round: Round,
    complaints: RateLimit,
    pub(super) counters: ConnectionCounters,
    pub(super) spans: Spans,
    /// Times a connection had to wait for request memory.
    refusals: u64,
    /// A report on its way, and where it goes on.
    describing: Option<(Box<Measures>, Slice)>,
}

impl Server {
    pub fn new(parts: Parts) -> Server {
        let Parts { ring, helper, mailboxes, shard, api, sender, settings, reporter, short_cores } = parts;
        Server {
            ring,
            helper,
            mailboxes,
            shard,
            api,
            sender,
            reporter,
            short_cores,
            is_short: false,
            listeners: Vec::new(),
            doors: Vec::new(),
            resting: Vec::new(),
            connections: Slab::default(),
            scratch: vec![0; SCRATCH_BYTES],
            budget: Budget::new(settings.request_memory_bytes),
            settings,
            listed: Vec::new(),
            gathered: Vec::new(),
            starved: Vec::new(),
            inbox: Vec::new(),
            answers: Vec::new(),
            finished: Vec::new(),
            replied: Vec::new(),
            phase: Phase::Serving,
            closed: Rc::default(),
            next_tick: Nanos(0),
            round: Round::default(),
            complaints: RateLimit::default(),
            counters: ConnectionCounters::default(),
            spans: Spans::default(),
            refusals: 0,
            describing: None,
        }
    }

    /// All that this core has counted and timed; `turns` is known to its loop.
    fn measure(&self, turns: &TurnMeasures) -> Measures {
        let counters = CoreCounters {
            turns: turns.counters,
            ring: self.ring.counters(),
            helper: self.helper.counters(),
            mailbox: self.mailboxes.counters,
            connections: ConnectionCounters {
                open_now: self.connections.len() as u64,
                accepted: self.doors.iter().map(|door| door.accepted).sum(),
                received_bytes: self.doors.iter().map(|door| door.received_bytes).sum(),
                ..self.counters
            },
            sent: self.sender.sent,
            ..CoreCounters::default()
        };
        let (send, apis, listeners) = (self.spans.send(), self.spans.apis(), self.doors.clone());
        let mut sum = Measures { counters, turn: turns.times, send, listeners, apis, ..Measures::default() };
        self.budget.count_into(&mut sum.counters.memory);
        sum.counters.memory.refusals = self.refusals;
        sum.counters.memory.pool_bytes_now = self.sender.pool.used_bytes() as u64;
        self.shard.borrow().count_into(&mut sum);
        sum
    }

    /// Brings the operator's wishes to the controller. Before the turn's commit, so that an idle core does not sleep over them.
    fn take_asks(&mut self, now: Now) {
        for (number, control) in self.reporter.take_asks() {
            self.shard.borrow_mut().control(Asker::Operator(number), control, now);
        }
    }

    /// Brings the controller's answers to the operator.
    fn answer_asks(&mut self) {
        for (number, controlled) in self.shard.borrow_mut().outbox.told.drain(..) {
            self.reporter.tell(number, controlled);
        }
    }

    /// Gives the report that is asked for: at once, or, where it is to have partitions and groups, a slice a turn.
    fn report(&mut self, turns: &TurnMeasures) {
        if self.reporter.is_asked() {
            let measures = self.measure(turns);
            match self.reporter.is_detailed() {
                true => self.describing = Some((Box::new(measures), Slice::FIRST)),
                false => self.reporter.give(measures),
            }
        }
        let Some((mut measures, slice)) = self.describing.take() else { return };
        let next = self.shard.borrow().describe_into(&mut measures, slice);
        match next {
            Some(slice) => self.describing = Some((measures, slice)),
            None => self.reporter.give(*measures),
        }
    }

    /// The loop has ended: gives the last report.
    pub fn end(self, turns: &TurnMeasures) {
        self.reporter.give_last(self.measure(turns));
    }

    /// Accepts the connections of `listener` from here on.
    pub fn serve(&mut self, listener: TcpListener) {
        self.ring.accept(listener.as_raw_fd(), self.listeners.len() as u32);
        let address = listener.local_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
        self.doors.push(ListenerMeasures { address, ..ListenerMeasures::default() });
        self.listeners.push(listener);
    }

    fn on_accepted(&mut self, listener: u32, ended: bool, result: std::io::Result<OwnedFd>, now: Now) {
        let failed = result.is_err();
        let door = &mut self.doors[listener as usize];
        match result {
            Ok(fd) if self.phase == Phase::Serving && self.connections.len() < self.settings.connections_max => {
                let socket = Socket::new(fd);
                let descriptor = socket.descriptor();
                let id = self.connections.insert(Connection::new(socket, listener, now.mono));
                door.accepted += 1;
                door.open_now += 1;
                self.ring.watch(descriptor, id);
            }
            Ok(_) => {
                self.counters.refused += 1;
                door.refused += 1;
            }
            Err(error) if self.phase == Phase::Serving => {
                self.counters.refused += 1;
                if self.may_complain(now) {
                    tracing::warn!("a connection could not be accepted: {error}; raise `ulimit -n` if files ran out");
                }
            }
            Err(_) => {}
        }
        match ended {
            // Out of descriptors or memory: asking again at once would fail again at once, and keep the core busy with it.
            true if failed => self.resting.push(listener),
            true => self.accept_again(listener),
            false => {}
        }
    }

    pub(super) fn accept_again(&self, listener: u32) {
        if self.phase == Phase::Serving
            && let Some(socket) = self.listeners.get(listener as usize)
        {
            self.ring.accept(socket.as_raw_fd(), listener);
        }
    }

    /// Puts a connection on the list of those to go on with in this turn or the next.
    pub(super) fn list(&mut self, id: u64) {
        if let Some(connection) = self.connections.find(id)
            && !connection.listed
        {
            connection.listed = true;
            self.listed.push(id);
        }
    }

    pub(super) fn close(&mut self, id: u64, why: Closing) {
        if let Some(connection) = self.connections.remove(id) {
            self.doors[connection.listener as usize].open_now -= 1;
            self.budget.adjust(id, connection.lent, 0);
            // What came first counts: of one that is closed for a bad request, the rest only takes its time.
            match if connection.closing { Closing::Bad } else { why } {
                Closing::ByPeer => self.counters.closed_by_peer += 1,
                Closing::Bad => self.counters.closed_bad += 1,
                Closing::Idle => self.counters.closed_idle += 1,
                Closing::Unread => self.counters.closed_unread += 1,
                Closing::Unanswerable => self.counters.closed_unanswerable += 1,
                Closing::Failed => self.counters.closed_failed += 1,
                Closing::Stop => self.counters.closed_at_stop += 1,
            }
            connection.socket.shutdown();
        }
    }

    /// Puts a connection on the list of those that go on when request memory comes back.
    pub(super) fn starve(&mut self, id: u64) {
        if let Some(connection) = self.connections.find(id)
            && !connection.starved
        {
            connection.starved = true;
            self.starved.push(id);
            self.refusals += 1;
        }
    }

    /// Closes a connection that cannot be understood, and says why, but not too often.
    pub(super) fn close_bad(&mut self, id: u64, why: &str, now: Now) {
        if self.connections.find(id).is_some() && self.may_complain(now) {
            let peer = self.connections.find(id).and_then(|connection| connection.socket.peer());
            let peer = peer.map_or("unknown".to_owned(), |peer| peer.to_string());
            tracing::warn!(peer, "connection closed: {why}");
        }
        self.close_in_order(id);
    }

    /// Whether a line about a connection may be written now. Tells of those that were not.
    fn may_complain(&mut self, now: Now) -> bool {
        let left_out = self.complaints.allows(now.mono);
        if let Some(left_out @ 1..) = left_out {
            tracing::warn!(left_out, "there were more connections to complain about than lines allowed");
        }
        left_out.is_some()
    }

    /// Takes nothing more from a connection, and closes it when what it has asked before is answered, as if it had been read one by one.
    pub(super) fn close_in_order(&mut self, id: u64) {
        match self.connections.find(id) {
            Some(connection) if !connection.is_quiet() => {
                connection.closing = true;
                connection.inbound = Inbound::default();
                self.lend(id);
            }
            _ => self.close(id, Closing::Bad),
        }
    }

    fn take_messages(&mut self, now: Now) {
        self.mailboxes.receive(&mut self.inbox);
        if self.inbox.is_empty() {
            return;
        }
        let mut shard = self.shard.borrow_mut();
        for message in self.inbox.drain(..) {
            match message {
                Message::Answer { request, answer } => self.api.on_answer(request, answer, &mut shard, now),
                other => shard.on_message(other, now),
            }
        }
    }

    fn go_on(&mut self, now: Now) {
        if self.budget.take_returned() {
            let starved = std::mem::take(&mut self.starved);
            for id in starved {
                if let Some(connection) = self.connections.find(id) {
                    connection.starved = false;
                    self.list(id);
                }
            }
        }
        let mut listed = std::mem::take(&mut self.listed).into_iter();
        while !self.sender.is_spent()
            && let Some(id) = listed.next()
        {
            if let Some(connection) = self.connections.find(id) {
                connection.listed = false;
                let (sends, reads) = (!connection.outbound.is_empty(), connection.has_input());
                if sends {
                    self.pump(id, now);
                }
                if reads {
                    self.receive(id, now);
                }
            }
        }
        // Those that were not reached come first in the next turn.
        let reached = std::mem::take(&mut self.listed);
        self.listed.extend(listed);
        self.listed.extend(reached);
    }

    /// Moves on towards the end, once it was asked for.
    fn advance_phase(&mut self, now: Now) {
        let before = self.phase;
        match self.phase {
            Phase::Serving if self.reporter.orders().stops() => {
                self.listeners.clear();
                self.phase = Phase::Draining(now.mono.plus_ms(DRAIN_MS));
            }
            Phase::Draining(deadline) if self.api.pending() == 0 || now.mono >= deadline => {
                for id in self.connections.ids() {
                    self.close(id, Closing::Stop);
                }
                self.phase = Phase::Closing;
                Shard::close(&self.shard, self.closed.clone());
            }
            Phase::Closing if self.closed.get() => self.phase = Phase::Closed,
            _ => {}
        }
        if self.phase != before {
            self.advance_phase(now);
        }
    }

    fn next(&self, flushed: bool) -> Next {
        if self.phase == Phase::Closed {
            return Next::Stop;
        }
        let shard = self.shard.borrow();
        let unsettled = !shard.outbox.answers.is_empty() || shard.has_ready() || self.api.has_finished();
        let starved_go_on = !self.starved.is_empty() && self.budget.has_returned();
        if !self.listed.is_empty() || !flushed || unsettled || starved_go_on || self.describing.is_some() {
            return Next::Now;
        }
        let mut at = self.next_tick;
        if let Phase::Draining(deadline) = self.phase {
            at = at.min(deadline);
        }
        Next::At(shard.next_deadline().map_or(at, |deadline| deadline.min(at)))
    }
}

impl Turn for Server {
    fn on_completion(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Accepted { listener, ended, result } => self.on_accepted(listener, ended, result, now),
            Completion::Ready { connection: id, readable, writable } => {
                let Some(connection) = self.connections.find(id) else { return };
                connection.readable |= readable;
                let sends = writable && !connection.outbound.is_empty();
                if sends {
                    self.pump(id, now);
                }
                if readable {
                    self.receive_soon(id, now);
                }
            }
            Completion::Spliced { connection: id, pipe, result } => {
                let Some(connection) = self.connections.find(id) else { return };
                match connection.outbound.on_spliced(pipe, result) {
                    Ok(()) => self.pump(id, now),
                    Err(error) => {
                        tracing::error!("a cold read failed: {error}");
                        self.close(id, Closing::Failed);
                    }
                }
            }
            Completion::DirectRead { connection: id, buffer, result } => {
                let Some(connection) = self.connections.find(id) else { return };
                match connection.outbound.on_direct_read(buffer, result) {
                    Ok(()) => self.pump(id, now),
                    Err(error) => {
                        tracing::error!("a cold read failed: {error}");
                        self.close(id, Closing::Failed);
                    }
                }
            }
            Completion::Disk(completion) => self.shard.borrow_mut().on_disk(completion, now),
            Completion::Woken => {}
            Completion::Doorbell => self.helper.reap(),
        }
    }

    fn end_of_turn(&mut self, now: Now, so_far: &TurnMeasures) -> Next {
        self.receive_gathered(now);
        self.take_messages(now);
        self.take_asks(now);
        self.sender.next_part();
        self.go_on(now);
        let mut replied = std::mem::take(&mut self.replied);
        self.settle(&mut replied, now);
        self.shard.borrow_mut().end_of_turn(now);
        self.sender.next_part();
        for id in replied.drain(..) {
            self.pump(id, now);
        }
        self.replied = replied;
        // For the completions of the next turn.
        self.sender.next_part();
        self.tick(now);
        self.advance_phase(now);
        self.answer_asks();
        for (core, message) in self.shard.borrow_mut().outbox.messages.drain(..) {
            self.mailboxes.send(core, message);
        }
        let flushed = self.mailboxes.flush(&self.ring);
        self.report(so_far);
        self.next(flushed)
    }
}
