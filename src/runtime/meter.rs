//! What the time of a turn loop goes to, and whose fault a long turn is. Measures and adds up; decides nothing.

use crate::base::measures::TurnMeasures;
use crate::base::time::Nanos;

/// Longer than this a client could notice.
const LONG_NS: u64 = 2_000_000;

/// What this thread has used of its CPU, and how often it has given it up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct ThreadUse {
    cpu_ns: u64,
    /// Times a call made the thread sleep; times that others got the CPU instead are not among them.
    slept: u64,
}

impl ThreadUse {
    /// Of the calling thread, so far. One plain system call, a few hundred nanoseconds.
    fn now() -> ThreadUse {
        // SAFETY: an all-zero rusage is valid, the call fills it, and it cannot fail for the calling thread.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage
        };
        let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
        ThreadUse { cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime), slept: usage.ru_nvcsw as u64 }
    }
}

/// Follows one loop through its turns.
pub struct Meter {
    measures: TurnMeasures,
    began: Nanos,
    at_begin: ThreadUse,
    ended: Nanos,
}

impl Meter {
    pub fn new(now: Nanos) -> Meter {
        Meter { measures: TurnMeasures::default(), began: now, at_begin: ThreadUse::default(), ended: now }
    }

    pub fn measures(&self) -> &TurnMeasures {
        &self.measures
    }

    /// The loop goes to its ring; what has gone by since the last turn was background work.
    pub fn enters(&mut self, now: Nanos) {
        let ns = now.since(self.ended);
        let counters = &mut self.measures.counters;
        counters.background_us_max = counters.background_us_max.max(ns / 1000);
        if ns > LONG_NS {
            self.blame_background(self.ended.since(self.began), ThreadUse::now());
        }
    }

    /// `turn_ns`: how long the turn before was. It counts as computed, so that no turn needs a second look at the thread's use.
    fn blame_background(&mut self, turn_ns: u64, at_end: ThreadUse) {
        let counters = &mut self.measures.counters;
        counters.background_over_2ms += 1;
        let busy = at_end.cpu_ns - self.at_begin.cpu_ns > LONG_NS + turn_ns;
        counters.background_over_2ms_own += u64::from(busy || at_end.slept > self.at_begin.slept);
    }

    /// It has come back; a turn begins. `entered`: when it went there, if it was not allowed to sleep.
    pub fn begins(&mut self, entered: Option<Nanos>, now: Nanos) {
        if let Some(entered) = entered {
            let counters = &mut self.measures.counters;
            counters.enter_us_max = counters.enter_us_max.max(now.since(entered) / 1000);
        }
        self.began = now;
        self.at_begin = ThreadUse::now();
    }

    /// The turn is over.
    pub fn ends(&mut self, now: Nanos) {
        self.ended = now;
        let ns = now.since(self.began);
        self.measures.times.record(ns);
        let counters = &mut self.measures.counters;
        counters.turns += 1;
        counters.busy_ns += ns;
        counters.turn_us_max = counters.turn_us_max.max(ns / 1000);
        if ns > LONG_NS {
            self.blame(ThreadUse::now());
        }
    }

    fn blame(&mut self, at_end: ThreadUse) {
        let counters = &mut self.measures.counters;
        counters.over_2ms += 1;
        if at_end.cpu_ns - self.at_begin.cpu_ns > LONG_NS {
            counters.over_2ms_busy += 1;
        } else if at_end.slept > self.at_begin.slept {
            counters.over_2ms_blocked += 1;
        } else {
            counters.over_2ms_preempted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::TurnCounters;

    #[test]
    fn a_long_turn_is_blamed_on_what_made_it_long() {
        let mut meter = Meter::new(Nanos(0));
        meter.at_begin = ThreadUse { cpu_ns: 100, slept: 7 };
        meter.blame(ThreadUse { cpu_ns: 101 + LONG_NS, slept: 9 });
        meter.blame(ThreadUse { cpu_ns: 200, slept: 8 });
        meter.blame(ThreadUse { cpu_ns: 200, slept: 7 });
        let TurnCounters { over_2ms, over_2ms_busy, over_2ms_blocked, over_2ms_preempted, .. } =
            meter.measures.counters;
        assert_eq!((over_2ms, over_2ms_busy, over_2ms_blocked, over_2ms_preempted), (3, 1, 1, 1));
    }

    #[test]
    fn a_long_background_is_its_own_fault_only_beyond_the_turn_before() {
        let mut meter = Meter::new(Nanos(0));
        meter.at_begin = ThreadUse { cpu_ns: 100, slept: 7 };
        meter.blame_background(1000, ThreadUse { cpu_ns: 1100 + LONG_NS, slept: 7 });
        assert_eq!(
            (meter.measures.counters.background_over_2ms, meter.measures.counters.background_over_2ms_own),
            (1, 0)
        );
        meter.blame_background(1000, ThreadUse { cpu_ns: 1101 + LONG_NS, slept: 7 });
        meter.blame_background(1000, ThreadUse { cpu_ns: 100, slept: 8 });
        assert_eq!(
            (meter.measures.counters.background_over_2ms, meter.measures.counters.background_over_2ms_own),
            (3, 2)
        );
    }

    #[test]
    fn turns_entering_and_the_background_are_told_apart() {
        let mut meter = Meter::new(Nanos(0));
        meter.enters(Nanos(1_000_000));
        meter.begins(Some(Nanos(3_000_000)), Nanos(3_010_000));
        meter.ends(Nanos(3_030_000));
        meter.enters(Nanos(3_030_000));
        // Slept: nobody knows for how long it submitted.
        meter.begins(None, Nanos(9_000_000));
        meter.ends(Nanos(9_005_000));
        let expected = TurnCounters {
            turns: 2,
            busy_ns: 25_000,
            turn_us_max: 20,
            enter_us_max: 10,
            background_us_max: 1000,
            ..TurnCounters::default()
        };
        assert_eq!(meter.measures().counters, expected);
        assert_eq!((meter.measures().times.count(), meter.measures().times.sum_ns()), (2, 25_000));
    }

    #[test]
    fn a_thread_that_sleeps_is_seen_to() {
        let before = ThreadUse::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(ThreadUse::now().slept > before.slept);
    }
}
