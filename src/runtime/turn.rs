//! The turn loop of a core: one glommio task that sleeps in the core's own ring.
//!
//! Each turn: enter the ring, handle what has completed as plain calls, then end the turn once (commits, replies, messages).
//! glommio itself never parks, so its wake-ups cannot be lost.

use super::clock::SystemClock;
use super::ring::{Completion, Ring};
use super::tasks::Tasks;
use crate::base::time::{Nanos, Now};
use crate::ports::Clock;
use std::time::Duration;

/// The longest sleep of a core at rest.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a core does between sleeps.
pub trait Turn {
    /// Something asked for has happened.
    fn on_completion(&mut self, completion: Completion, now: Now);

    /// All completions of this turn have been handed over.
    fn end_of_turn(&mut self, now: Now) -> Next;
}

/// When the next turn is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At once: there is work left over.
    Now,
    /// When something completes, or at this time.
    At(Nanos),
    /// When something completes.
    Idle,
    /// Never: the core is done.
    Stop,
}

/// Figures of the loop since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct TurnCounters {
    pub turns: u64,
    /// Nanoseconds spent in turns, sleeping excluded.
    pub busy_ns: u64,
    /// The longest turn, in nanoseconds.
    pub turn_ns_max: u64,
    /// Turns longer than 2 ms: a stall that a client could notice.
    pub stalls: u64,
}

/// A turn longer than this is counted as a stall.
const STALL_NS: u64 = 2_000_000;

/// Runs `core` until it answers `Next::Stop`. Must be called within a task of the executor that `tasks` belongs to.
pub async fn run(core: &mut impl Turn, ring: &Ring, tasks: &Tasks) -> TurnCounters {
    let clock = SystemClock;
    let mut counters = TurnCounters::default();
    let mut completions = Vec::new();
    let mut next = Next::Now;
    let mut polls = tasks.polls();
    loop {
        // What a background task has done since the last turn may be waiting for this one.
        let news = tasks.runnable() > 0 || tasks.polls() != polls;
        let timeout = if news { None } else { sleep_time(next, clock.now().mono) };
        polls = tasks.polls();
        ring.enter(timeout);
        let began = clock.now();
        let any = ring.reap(&mut completions);
        for completion in completions.drain(..) {
            core.on_completion(completion, began);
        }
        next = core.end_of_turn(began);
        account(&mut counters, clock.now().mono.since(began.mono));
        if next == Next::Stop {
            return counters;
        }
        if tasks.runnable() > 0 {
            if any || next == Next::Now {
                glommio::executor().yield_task_queue_now().await;
            } else {
                tasks.one_poll().await;
            }
        }
    }
}

fn sleep_time(next: Next, now: Nanos) -> Option<Duration> {
    match next {
        Next::Now | Next::Stop => None,
        Next::Idle => Some(SLEEP_MAX),
        Next::At(time) if time <= now => None,
        Next::At(time) => Some(Duration::from_nanos(time.since(now)).min(SLEEP_MAX)),
    }
}

fn account(counters: &mut TurnCounters, ns: u64) {
    counters.turns += 1;
    counters.busy_ns += ns;
    counters.turn_ns_max = counters.turn_ns_max.max(ns);
    counters.stalls += u64::from(ns > STALL_NS);
}
