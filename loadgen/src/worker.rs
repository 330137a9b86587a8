//! A thread of the load: its producers and consumers, their sockets, and the clock that drives them.

use crate::admin::{self, Admin};
use crate::arrivals::Arrivals;
use crate::idle::Idle;
use crate::link::Tokens;
use crate::plan::{Phase, Plan};
use crate::poller::{Event, Poller};
use crate::producer::{self, Kit, Producer};
use crate::reader::{self, Reader};
use crate::scenario::{Acks, Start};
use crate::stats::Stats;
use crate::verify::{AllSent, Verdict};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Memory into which all connections of a thread are read, bytes.
const SHARED_BYTES: usize = 256 << 10;
/// A timer may wake a thread this late; the rest until a record is due is waited out awake, ns.
const SPIN_NS: u64 = 60_000;
/// The longest sleep: phases and lost connections are looked at in between, ns.
const SLEEP_MAX_NS: u64 = 20_000_000;
/// Tokens from here on are of idle connections.
const IDLE_TOKEN: u64 = 1 << 48;

/// What a worker tells the main thread.
pub enum Report {
    /// Counts of a tick (`Plan::tick_end`).
    Tick(u64, Box<Stats>),
    /// Its connections are open, as far as they can be.
    Connected,
    /// Its producers have an answer for everything they sent, and what they sent.
    ProducersDone(AllSent),
    /// Its consumers have read all they wanted (at the end of a run, all there is).
    ReadersDone,
    /// The thread ends: what is left of the counts, what nobody answered for, and what became of records.
    Ended { rest: Box<Stats>, unanswered: u64, verdict: Option<Verdict> },
}

#[derive(Clone, Copy)]
enum Owner {
    Producer(u32, u32),
    Reader(u32, u32),
}

struct Worker {
    plan: Arc<Plan>,
    kit: Kit,
    producers: Vec<Producer>,
    readers: Vec<Reader>,
    poller: Poller,
    tokens: Tokens<Owner>,
    idle: Option<Idle>,
    shared: Vec<u8>,
    stats: Stats,
    arrivals: Option<Arrivals>,
    /// Producers with records that wait for others, by when they wait no longer.
    lingers: BinaryHeap<Reverse<(u64, u32)>>,
    /// Producers that got records in this turn.
    touched: Vec<u32>,
    turn: usize,
    /// Connections may be missing and are to be looked for.
    incomplete: bool,
    /// Leaders may have changed.
    stale: bool,
}

/// Runs the `index`-th of `count` threads. `all_sent`: what the producers of all threads have sent, once they are done.
///
/// # Errors
/// Where the thread cannot begin, in words; later failures go to `plan.control`.
pub fn run(
    plan: Arc<Plan>,
    index: u32,
    count: u32,
    reports: &Sender<Report>,
    all_sent: &Receiver<Arc<AllSent>>,
) -> Result<(), String> {
    crate::host::ask_for_exact_timers();
    let mut worker = Worker::new(plan, index, count)?;
    worker.connect(0);
    let _ = reports.send(Report::Connected);
    worker.await_start(count);
    worker.run(reports);
    let unanswered = worker.producers.iter().map(Producer::unanswered).sum();
    let sent = all_sent.try_iter().last();
    let verdict = sent.map(|sent| {
        let mut all = Verdict::default();
        worker.readers.iter_mut().filter_map(|reader| reader.verdict(&sent)).for_each(|verdict| all.add(verdict));
        all
    });
    let rest = Box::new(std::mem::take(&mut worker.stats));
    // Where the main thread is gone already nobody wants to know.
    let _ = reports.send(Report::Ended { rest, unanswered, verdict });
    Ok(())
}

impl Worker {
    fn new(plan: Arc<Plan>, index: u32, count: u32) -> Result<Worker, String> {
        let scenario = &plan.scenario;
        let share = |all: u32| (index..all).step_by(count as usize);
        let poller =
            Poller::new().map_err(|error| format!("io_uring: {error}; it needs Linux 6.1, and to be allowed"))?;
        let brokers = plan.cluster.brokers.len();
        let seed = (u64::from(plan.run) << 32) | u64::from(index);
        let bytes_left = plan.bytes_max.map(|bytes| bytes / u64::from(count));
        let readers = (0..scenario.groups * scenario.consumers).skip(index as usize).step_by(count as usize);
        let mut worker = Worker {
            kit: Kit::new(&plan, seed, bytes_left),
            producers: share(scenario.producers).map(|producer| Producer::new(producer, brokers)).collect(),
            readers: readers.map(|reader| Reader::new(reader % scenario.consumers, &plan)).collect(),
            poller,
            tokens: Tokens::new(),
            idle: None,
            shared: vec![0; SHARED_BYTES],
            stats: Stats::default(),
            arrivals: None,
            lingers: BinaryHeap::new(),
            touched: Vec::new(),
            turn: 0,
            incomplete: true,
            stale: false,
            plan,
        };
        let scenario = &worker.plan.scenario;
        let (slow, idle) = (scenario.slow_connections as usize, scenario.idle_connections as usize);
        if index == 0 && slow + idle > 0 {
            let address = worker.plan.cluster.brokers[0];
            worker.idle = Some(Idle::open(address, slow, idle, &mut worker.poller, IDLE_TOKEN)?);
        }
        Ok(worker)
    }

    /// Opens the connections that are missing and may be tried.
    fn connect(&mut self, now: u64) {
        let plan = self.plan.clone();
        self.incomplete = false;
        for (broker, &address) in plan.cluster.brokers.iter().enumerate() {
            for place in 0..self.producers.len() {
                let owner = Owner::Producer(place as u32, broker as u32);
                let link = self.producers[place].link(broker);
                if link.open(address, now, &mut self.poller, &mut self.tokens, owner) && now > 0 {
                    self.fill(place, now);
                }
                self.incomplete |= !self.producers[place].link(broker).is_open();
            }
            for place in 0..self.readers.len() {
                let owner = Owner::Reader(place as u32, broker as u32);
                let link = self.readers[place].link(broker);
                if link.open(address, now, &mut self.poller, &mut self.tokens, owner) && now > 0 {
                    self.ask(place, broker, now);
                }
                self.incomplete |= !self.readers[place].link(broker).is_open();
            }
        }
    }

    /// Waits for the other threads to be connected, and for the start; of `count` threads each has its share of the arrivals.
    fn await_start(&mut self, count: u32) {
        let plan = self.plan.clone();
        let has_started = || plan.times.get().is_some_and(|times| plan.clock.now() >= times.start);
        while !has_started() && plan.control.phase() == Phase::Running {
            std::thread::sleep(Duration::from_micros(200));
        }
        let scenario = &plan.scenario;
        if scenario.is_open_loop() && !self.producers.is_empty() && plan.times.get().is_some() {
            let rate = scenario.rate / f64::from(count);
            self.arrivals = Some(Arrivals::new(scenario.arrivals, rate, plan.times().start, self.kit.random.u64(..)));
        }
    }

    fn run(&mut self, reports: &Sender<Report>) {
        let plan = self.plan.clone();
        let clock = plan.clock;
        if plan.times.get().is_none() {
            // Another thread could not begin.
            return;
        }
        let (mut events, mut producers_done, mut readers_done) = (Vec::new(), false, self.readers.is_empty());
        let tick_end = |tick: u64| plan.tick_end(tick);
        let mut tick = 1;
        let now = clock.now();
        (0..self.producers.len()).for_each(|place| self.fill(place, now));
        for broker in 0..plan.cluster.brokers.len() {
            (0..self.readers.len()).for_each(|place| self.ask(place, broker, now));
        }
        let mut phase = Phase::Running;
        loop {
            let mut now = clock.now();
            let next_phase = plan.control.phase();
            if next_phase != phase {
                phase = next_phase;
                if phase == Phase::Stopped {
                    return;
                }
                // What was held back goes now, or is asked for up to the end.
                (0..self.producers.len()).for_each(|place| self.fill(place, now));
                for broker in 0..plan.cluster.brokers.len() {
                    (0..self.readers.len()).for_each(|place| self.ask(place, broker, now));
                }
                readers_done &= self.readers.is_empty() || phase != Phase::Reading;
            }
            if self.stale {
                self.refresh(now);
            }
            if self.incomplete {
                self.connect(now);
            }
            self.offer_due(now);
            if let Some(idle) = &mut self.idle {
                idle.trickle(now);
            }
            if now >= tick_end(tick) {
                let whole = std::mem::take(&mut self.stats);
                if reports.send(Report::Tick(tick, Box::new(whole))).is_err() {
                    return;
                }
                tick += 1;
                self.kit.make_templates(&plan);
            }
            let is_over = phase == Phase::Draining || (plan.bytes_max.is_some() && self.kit.bytes_left == Some(0));
            if is_over && !producers_done && self.producers.iter().all(Producer::is_done) {
                producers_done = true;
                self.report_sent(reports);
            }
            if !readers_done && self.have_readers_done(phase) {
                readers_done = true;
                let _ = reports.send(Report::ReadersDone);
            }
            events.clear();
            let timeout = self.sleep_time(now, tick_end(tick));
            if let Err(error) = self.poller.wait(timeout, &mut events) {
                plan.control.fail(format!("io_uring: {error}"));
                return;
            }
            now = clock.now();
            for event in events.drain(..) {
                self.on_event(event, now);
            }
        }
    }

    fn report_sent(&self, reports: &Sender<Report>) {
        let mut sent = AllSent::new();
        if self.plan.scenario.verify {
            self.producers.iter().for_each(|producer| producer.sent(&mut sent));
        }
        let _ = reports.send(Report::ProducersDone(sent));
    }

    fn have_readers_done(&self, phase: Phase) -> bool {
        match self.plan.control.targets.get() {
            Some(targets) if phase == Phase::Reading => self.readers.iter().all(|reader| reader.has_reached(targets)),
            _ => phase == Phase::Running && self.readers.iter().all(|reader| reader.is_done(&self.plan)),
        }
    }

    /// Until something is due; `None` where that is so soon that it is waited out awake.
    fn sleep_time(&self, now: u64, tick_end: u64) -> Option<Duration> {
        let mut until = (now + SLEEP_MAX_NS).min(tick_end);
        if let Some(arrivals) = &self.arrivals
            && self.plan.control.phase() == Phase::Running
        {
            until = until.min(arrivals.due().saturating_sub(SPIN_NS));
        }
        if let Some(&Reverse((linger, _))) = self.lingers.peek() {
            until = until.min(linger);
        }
        if let Some(due) = self.idle.as_ref().and_then(Idle::due) {
            until = until.min(due);
        }
        (until > now).then(|| Duration::from_nanos(until - now))
    }

    /// Open loop: hands out the records that are due, and sends what need not wait.
    fn offer_due(&mut self, now: u64) {
        let plan = self.plan.clone();
        let linger = (plan.scenario.linger_ms * 1e6) as u64;
        if let Some(arrivals) = &mut self.arrivals {
            let last = now.min(plan.times().end - 1);
            while arrivals.due() <= last && plan.control.phase() == Phase::Running {
                let due = arrivals.due();
                arrivals.advance();
                self.stats.late_max = self.stats.late_max.max(now - due);
                self.turn = (self.turn + 1) % self.producers.len();
                let place = self.turn as u32;
                let begins = self.producers[self.turn].offer(due, &plan, &mut self.kit);
                if linger == 0 {
                    self.touched.push(place);
                } else if begins {
                    self.lingers.push(Reverse((due + linger, place)));
                } else {
                    // It may fill a batch.
                    self.touched.push(place);
                }
            }
        }
        while let Some(&Reverse((until, place))) = self.lingers.peek() {
            if until > now {
                break;
            }
            self.lingers.pop();
            self.touched.push(place);
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched.drain(..).for_each(|place| self.fill(place as usize, now));
        self.touched = touched;
    }

    /// Has a producer send what it may, to all brokers.
    fn fill(&mut self, place: usize, now: u64) {
        let plan = self.plan.clone();
        for broker in 0..plan.cluster.brokers.len() {
            if self.producers[place].fill(broker, now, &plan, &mut self.kit, &mut self.stats).is_err() {
                self.lose_producer(place, broker, now);
            }
        }
    }

    fn ask(&mut self, place: usize, broker: usize, now: u64) {
        if self.readers[place].ask(broker, &self.plan, &self.kit.leaders).is_err() {
            self.lose_reader(place, broker, now);
        }
    }

    fn lose_producer(&mut self, place: usize, broker: usize, now: u64) {
        self.stats.disconnects += 1;
        self.producers[place].lose(broker, now);
        self.incomplete = true;
        if self.plan.scenario.acks == Acks::None {
            return;
        }
        self.stale = self.plan.cluster.brokers.len() > 1;
    }

    fn lose_reader(&mut self, place: usize, broker: usize, now: u64) {
        self.stats.disconnects += 1;
        self.readers[place].lose(broker, now);
        self.incomplete = true;
        self.stale = self.plan.cluster.brokers.len() > 1;
    }

    fn on_event(&mut self, event: Event, now: u64) {
        if event.token >= IDLE_TOKEN {
            if let Some(idle) = &mut self.idle
                && event.readable
                && idle.on_readable((event.token - IDLE_TOKEN) as usize)
            {
                self.stats.idle_disconnects += 1;
            }
            return;
        }
        match self.tokens.owner(event.token) {
            Owner::Producer(place, broker) => self.on_producer(place as usize, broker as usize, event, now),
            Owner::Reader(place, broker) => self.on_reader(place as usize, broker as usize, event, now),
        }
    }

    fn on_producer(&mut self, place: usize, broker: usize, event: Event, now: u64) {
        let producer = &mut self.producers[place];
        let Some(mut connection) = producer.link(broker).take(event.token) else { return };
        let mut result = if event.writable { connection.flush() } else { Ok(()) };
        let (mut is_refused, plan, stats) = (false, &self.plan, &mut self.stats);
        if event.readable && result.is_ok() {
            result = connection.receive(&mut self.shared, |frame| {
                match producer.on_reply(broker, frame, now, plan, stats) {
                    producer::Answered::Fine => {}
                    producer::Answered::Retry => is_refused = true,
                    producer::Answered::Refused(why) => plan.control.fail(why),
                }
            });
        }
        producer.link(broker).put_back(connection);
        self.stale |= is_refused;
        if is_refused || result.is_err() {
            self.lose_producer(place, broker, now);
        } else {
            self.fill(place, now);
        }
    }

    fn on_reader(&mut self, place: usize, broker: usize, event: Event, now: u64) {
        let reader = &mut self.readers[place];
        let Some(mut connection) = reader.link(broker).take(event.token) else { return };
        let mut result = if event.writable { connection.flush() } else { Ok(()) };
        let (mut is_refused, plan, stats) = (false, &self.plan, &mut self.stats);
        if event.readable && result.is_ok() {
            result =
                connection.receive(&mut self.shared, |frame| match reader.on_reply(broker, frame, now, plan, stats) {
                    reader::Answered::Fine => {}
                    reader::Answered::Retry => is_refused = true,
                    reader::Answered::OutOfRange => {
                        let first = admin::offsets(&plan.cluster, Start::Earliest);
                        match first.and_then(|first| Ok((first, admin::offsets(&plan.cluster, Start::Latest)?))) {
                            Ok((first, end)) => reader.keep_within(&first, &end),
                            Err(_) => is_refused = true,
                        }
                    }
                    reader::Answered::Refused(why) => plan.control.fail(why),
                });
        }
        reader.link(broker).put_back(connection);
        self.stale |= is_refused;
        if is_refused || result.is_err() {
            self.lose_reader(place, broker, now);
        } else {
            self.ask(place, broker, now);
        }
    }

    /// Asks who leads what. Blocks this thread: it happens where brokers come and go, not where they are measured.
    fn refresh(&mut self, now: u64) {
        let plan = self.plan.clone();
        let brokers: Vec<String> = plan.cluster.brokers.iter().map(ToString::to_string).collect();
        let found = Admin::connect(&brokers.join(","))
            .and_then(|mut admin| admin.cluster(&plan.cluster.topics, plan.cluster.partitions_per_topic));
        // Brokers that came later are not followed; those known may have changed places in the answer.
        let Ok(found) = found else { return };
        let place = |leader: usize| plan.cluster.brokers.iter().position(|known| *known == found.brokers[leader]);
        if let Some(leaders) = found.leaders.iter().map(|&leader| place(leader)).collect::<Option<Vec<usize>>>() {
            self.stale = false;
            self.kit.learn(&plan, &leaders);
            (0..self.producers.len()).for_each(|place| self.fill(place, now));
        }
    }
}
