//! Runs a core's log, or its whole shard, on the simulated disk: turns, completions in random order, background tasks, crashes.

use super::disk::{SimDisk, SimFile};
use super::rng::Rng;
use ringlog::base::ids::Offset;
use ringlog::base::time::{Nanos, Now};
use ringlog::log::{CoreLog, Durable, Fatal};
use ringlog::shard::commands::{Answer, Message, RequestId};
use ringlog::shard::startup::Place;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Flag>,
}

/// What a shard would want back of a partition that ends at `end`: here nothing but that.
pub fn blob(end: Offset) -> Vec<u8> {
    end.to_be_bytes().to_vec()
}

/// One machine: its disk outlives crashes, its tasks do not.
pub struct World {
    pub disk: SimDisk,
    pub rng: Rng,
    pub now: Now,
    tasks: Vec<Task>,
    /// The log whose turns are run while something is awaited.
    pub log: Option<CoreLog<SimDisk>>,
    /// That of a second core on the same disk, and what of it has become durable.
    pub second: Option<CoreLog<SimDisk>>,
    pub second_durable: Vec<Durable>,
    /// The shards whose turns are run instead, once there are some, by core.
    pub shards: Vec<Place<SimDisk>>,
    /// What they have sent each other, from and to.
    mail: BTreeMap<(u16, u16), Vec<Message<SimFile>>>,
    /// What they have answered.
    pub answers: Vec<(RequestId, Answer<SimFile>)>,
    /// The time, for those who ask outside of a turn.
    pub clock: Rc<Cell<Now>>,
    pub durable: Vec<Durable>,
    pub fatal: Option<Fatal>,
}

/// Steps after which an awaited operation counts as hung.
const STEPS_MAX: usize = 2_000_000;

impl World {
    pub fn new(seed: u64) -> World {
        let now = Now { mono: Nanos(1), wall_ms: 1_000_000 };
        World {
            disk: SimDisk::new(),
            rng: Rng(seed),
            now,
            tasks: Vec::new(),
            log: None,
            second: None,
            second_durable: Vec::new(),
            shards: vec![Place::default()],
            mail: BTreeMap::new(),
            answers: Vec::new(),
            clock: Rc::new(Cell::new(now)),
            durable: Vec::new(),
            fatal: None,
        }
    }

    fn poll_tasks(&mut self) {
        for future in std::mem::take(&mut self.disk.0.borrow_mut().spawned) {
            self.tasks.push(Task { future, woken: Arc::new(Flag(AtomicBool::new(true))) });
        }
        let mut at = 0;
        while at < self.tasks.len() {
            let task = &mut self.tasks[at];
            if task.woken.0.swap(false, Ordering::Relaxed) {
                let waker = task.woken.clone().into();
                if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    drop(self.tasks.swap_remove(at));
                    continue;
                }
            }
            at += 1;
        }
    }

    /// One turn: some completions, background tasks, end of turn.
    pub fn turn(&mut self) {
        self.now.mono.0 += 50_000;
        if self.rng.one_in(20) {
            self.pass_ms(1);
        }
        self.clock.set(self.now);
        for _ in 0..self.rng.below(4) {
            if self.disk.waiting() == 0 {
                break;
            }
            let Some((core, completion)) = self.disk.complete_one(&mut self.rng) else { continue };
            if let Some(shard) = self.shards.get(usize::from(core)).and_then(|place| place.borrow().clone()) {
                shard.borrow_mut().on_disk(completion, self.now);
                continue;
            }
            let (log, durable) = match core {
                0 => (&self.log, &mut self.durable),
                _ => (&self.second, &mut self.second_durable),
            };
            if let Some(log) = log
                && let Err(fatal) = log.on_completion(completion, self.now, durable)
            {
                self.fatal = Some(fatal);
            }
        }
        self.poll_tasks();
        for core in 0..self.shards.len() as u16 {
            // One core alone has a turn each time; of several, some are slower than others.
            if self.shards.len() == 1 || self.rng.one_in(2) {
                self.shard_turn(core);
            }
        }
        for log in [self.log.clone(), self.second.clone()].into_iter().flatten() {
            for due in log.take_checkpoints_due(2) {
                let end = log.offsets(due).map_or(0, |(_, end)| end);
                let _ = log.checkpoint(due, &blob(end));
            }
            if let Err(fatal) = log.end_of_turn(self.now, |_, end| blob(end)) {
                self.fatal = Some(fatal);
            }
        }
    }

    /// One turn of a shard, if it has started: mail of some other cores, then what it does of itself.
    fn shard_turn(&mut self, core: u16) {
        let Some(shard) = self.shards[usize::from(core)].borrow().clone() else { return };
        let mut shard = shard.borrow_mut();
        for from in 0..self.shards.len() as u16 {
            if self.rng.one_in(2) {
                continue;
            }
            for message in self.mail.remove(&(from, core)).into_iter().flatten() {
                match message {
                    Message::Answer { request, answer } => self.answers.push((request, answer)),
                    other => shard.on_message(other, self.now),
                }
            }
        }
        shard.resume(self.now);
        shard.end_of_turn(self.now);
        self.answers.append(&mut shard.outbox.answers);
        for (to, message) in shard.outbox.messages.drain(..) {
            self.mail.entry((core, to.0)).or_default().push(message);
        }
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall_ms += ms as i64;
    }

    /// Runs turns until `future` is ready.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        for _ in 0..STEPS_MAX {
            if woken.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&woken.clone().into()))
            {
                return value;
            }
            self.turn();
        }
        panic!("hung");
    }

    /// Runs turns until nothing is on its way.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 10 {
            self.turn();
            quiet = if self.disk.waiting() == 0 && self.tasks.iter().all(|task| !task.woken.0.load(Ordering::Relaxed)) {
                quiet + 1
            } else {
                0
            };
        }
    }

    /// The power fails. All that ran is gone.
    pub fn crash(&mut self) {
        self.forget();
        self.answers.clear();
        self.durable.clear();
        self.second_durable.clear();
        self.fatal = None;
        self.disk.0.borrow_mut().storage.crash(&mut self.rng);
    }

    /// Lets go of all that runs.
    fn forget(&mut self) {
        self.log = None;
        self.second = None;
        self.tasks.clear();
        self.mail.clear();
        self.shards.iter().for_each(|place| drop(place.take()));
        let spawned = std::mem::take(&mut self.disk.0.borrow_mut().spawned);
        drop(spawned);
    }
}

impl Drop for World {
    /// A task that waits to be polled holds the disk, and the disk holds it.
    fn drop(&mut self) {
        self.forget();
    }
}
