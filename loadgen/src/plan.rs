//! What all threads of a run share: the scenario, who leads what, when it is measured, and how far it has come.

use crate::admin::Cluster;
use crate::host::Clock;
use crate::keys::Keys;
use crate::scenario::Scenario;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};

/// Fixed for the whole run.
pub struct Plan {
    pub scenario: Scenario,
    pub cluster: Cluster,
    /// Names this run in the marks of its records.
    pub run: u32,
    /// Of each producer, where they have ids.
    pub producer_ids: Vec<(i64, i16)>,
    pub keys: Option<Keys>,
    /// Where consumers begin, by partition, and where they end or begin anew (`i64::MAX`: never).
    pub starts: Vec<i64>,
    pub ends: Vec<i64>,
    /// Producers end when they have sent this many bytes of values, all together.
    pub bytes_max: Option<u64>,
    pub clock: Clock,
    /// Set when all threads are connected; nothing is sent before.
    pub times: OnceLock<Times>,
    pub control: Control,
}

/// When producers and consumers start, and from when until when it counts, ns on the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub start: u64,
    pub begin: u64,
    pub end: u64,
}

impl Plan {
    pub fn times(&self) -> Times {
        *self.times.get().expect("threads start when it is set")
    }

    /// Whether something that was due then and is done now belongs to a tick: not what was due in the warm-up and comes late, nor
    /// what is due after the end.
    pub fn counts(&self, due: u64, now: u64) -> bool {
        let Times { begin, end, .. } = self.times();
        due < end && (due >= begin || now < begin)
    }
}

/// A stretch of a run that is reported by itself, ns.
pub const TICK_NS: u64 = 1_000_000_000;

impl Plan {
    /// Ticks before measuring begins; the first may be short.
    pub fn warmup_ticks(&self) -> u64 {
        (self.times().begin - self.times().start).div_ceil(TICK_NS)
    }

    /// When the tick with this number, counted from 1, ends: whole seconds before and after measuring begins.
    pub fn tick_end(&self, tick: u64) -> u64 {
        self.times().begin + tick * TICK_NS - self.warmup_ticks() * TICK_NS
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Producers and consumers do what the scenario says.
    Running,
    /// Producers send nothing new and wait for answers.
    Draining,
    /// Consumers read up to `Control::targets`.
    Reading,
    Stopped,
}

/// What the main thread tells the others.
#[derive(Default)]
pub struct Control {
    phase: AtomicU8,
    /// Where the partitions ended when all producers were done.
    pub targets: OnceLock<Vec<i64>>,
    /// Why the run cannot go on; the first reason.
    fatal: Mutex<Option<String>>,
}

impl Control {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            2 => Phase::Reading,
            _ => Phase::Stopped,
        }
    }

    /// Goes on to `phase`, never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// The run cannot go on.
    pub fn fail(&self, why: String) {
        self.fatal.lock().expect("nobody panics holding it").get_or_insert(why);
        self.advance(Phase::Stopped);
    }

    pub fn failure(&self) -> Option<String> {
        self.fatal.lock().expect("nobody panics holding it").clone()
    }
}
