//! Whose requests have to go when others wait for request memory, and whose replies when memory for records is short.
//!
//! Pure: it is told how requests arrive and says which connections are to be closed. Kafka lends memory to a request (with
//! `queued.max.request.bytes`) for as long as its peer likes; one that stops in the middle keeps it until the connection is idle.

use crate::base::time::Nanos;

/// A request that arrives more slowly than this is slow. A link of 1 Mbit/s brings about twice as much.
const BYTES_PER_SECOND_MIN: u128 = 64 << 10;
/// A request that was slow for so long goes when others wait.
const SLOW_MS_MAX: u64 = 2000;
/// A request that is held up by us for so long goes, too, and its client asks again. Those that sent a lot ahead and then nothing look
/// like those that are held up, so this, not their number, bounds how long a good client waits: this and `SLOW_MS_MAX` and a few
/// ticks after it began to wait nobody is left who waited before it.
const HELD_UP_MS_MAX: u64 = 10_000;

/// A reply that was not read for so long, at the pace of a slow request, goes when the records that it keeps in memory are too many.
const UNREAD_MS_MAX: u64 = 10_000;

/// How a request arrives, or replies leave, as seen by one who looks from time to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From here on it has not got on; invariant: `since <= looked`.
    since: Nanos,
    looked: Nanos,
    /// Bytes that moved since `looked`.
    moved: usize,
    /// What is missing is not its peer's doing: it waits for memory, for its turn or for the disk.
    held_up: bool,
}

impl Pace {
    /// Of what begins now.
    pub fn new(now: Nanos) -> Pace {
        Pace { since: now, looked: now, moved: 0, held_up: false }
    }

    pub fn advance(&mut self, bytes: usize) {
        self.moved += bytes;
    }

    /// One that was fast enough since the last look, or whose hold-up has begun or ended, has time again from here on.
    pub fn look(&mut self, held_up: bool, now: Nanos) {
        let wanted = BYTES_PER_SECOND_MIN * u128::from(now.since(self.looked)) / 1_000_000_000;
        let gets_on = held_up != self.held_up || self.moved as u128 >= wanted;
        let since = if gets_on { now } else { self.since };
        *self = Pace { since, looked: now, moved: 0, held_up };
    }

    /// Whether replies of this pace are as good as not read.
    pub fn is_unread(&self, now: Nanos) -> bool {
        !self.held_up && now.since(self.since) >= UNREAD_MS_MAX * 1_000_000
    }

    /// Whether this is still the stretch without progress that `seen` was of: what moves after a look counts at the next one.
    pub fn is_still(&self, seen: &Pace) -> bool {
        self.since == seen.since
    }

    /// As of the last look.
    fn fault(&self) -> Option<Fault> {
        let (ms_max, fault) = if self.held_up { (HELD_UP_MS_MAX, Fault::HeldUp) } else { (SLOW_MS_MAX, Fault::Slow) };
        (self.looked.since(self.since) >= ms_max * 1_000_000).then_some(fault)
    }
}

/// A connection that holds memory for a request which cannot start yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    pub connection: u64,
    /// Memory lent to it.
    pub bytes: usize,
    pub pace: Pace,
    /// Bytes have come for it that cannot be received for want of memory.
    pub waits: bool,
}

/// Why a connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its peer sends too slowly.
    Slow,
    /// It was held up for too long.
    HeldUp,
}

/// The connections to close: none while nobody waits; else all that are slow or were held up for too long, at once, since those
/// that get the memory next may be no better.
pub fn to_close(holders: &[Holder]) -> Vec<(Holder, Fault)> {
    if !holders.iter().any(|holder| holder.waits) {
        return Vec::new();
    }
    holders.iter().filter_map(|holder| Some((*holder, holder.pace.fault()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One that last got on at `since_ms`.
    fn holder(connection: u64, since_ms: u64, held_up: bool, waits: bool) -> Holder {
        let pace = Pace { held_up, ..Pace::new(Nanos::from_ms(since_ms)) };
        Holder { connection, bytes: 1 << 20, pace, waits }
    }

    /// Who goes where all were looked at just now.
    fn closed(holders: &[Holder], now_ms: u64) -> Vec<(u64, Fault)> {
        let looked = |holder: &Holder| Pace { looked: Nanos::from_ms(now_ms), ..holder.pace };
        let holders: Vec<_> = holders.iter().map(|holder| Holder { pace: looked(holder), ..*holder }).collect();
        let closed = to_close(&holders);
        closed.into_iter().map(|(holder, fault)| (holder.connection, fault)).collect()
    }

    #[test]
    fn who_goes_when_somebody_waits() {
        let waiting = holder(0, 100_000, true, true);
        // Since, held up, now; what becomes of it.
        let cases = [
            (100_000, false, 101_999, None),
            (100_000, false, 102_000, Some(Fault::Slow)),
            (0, false, 102_000, Some(Fault::Slow)),
            (100_000, true, 109_999, None),
            (100_000, true, 110_000, Some(Fault::HeldUp)),
        ];
        for (since, held_up, now, expected) in cases {
            let other = holder(7, since, held_up, false);
            let found = closed(&[waiting, other], now).into_iter().find(|(id, _)| *id == 7).map(|(_, fault)| fault);
            assert_eq!(found, expected, "{other:?} at {now} ms");
            assert_eq!(closed(&[other], now), [], "nobody waits");
        }
    }

    #[test]
    fn who_gets_on() {
        // Bytes in each second from the first on; the second at the end of which it is slow.
        let cases: [(&[usize], Option<u64>); 6] = [
            (&[0, 0], Some(2)),
            (&[1, 1, 1, 1], Some(2)),
            (&[65_536, 0, 65_535], Some(3)),
            (&[100 << 20, 0, 0, 0], Some(3)),
            (&[0, 65_536, 0, 65_536, 0], None),
            // 1 Mbit/s.
            (&[125_000; 9], None),
        ];
        for (seconds, slow_at) in cases {
            let mut pace = Pace::new(Nanos(0));
            let found = (1..).zip(seconds).find(|&(second, &received)| {
                pace.advance(received);
                pace.look(false, Nanos::from_ms(second * 1000));
                pace.fault() == Some(Fault::Slow)
            });
            assert_eq!(found.map(|(second, _)| second), slow_at, "{seconds:?}");
        }
    }

    #[test]
    fn a_thousand_that_send_a_byte_a_second_go_at_once_and_the_one_that_waits_stays() {
        let mut holders: Vec<_> = (0..1000).map(|id| holder(id, 58_000, false, false)).collect();
        assert_eq!(closed(&holders, 60_000), [], "memory is not short");
        holders.push(holder(1000, 58_000, true, true));
        let expected: Vec<_> = (0..1000).map(|id| (id, Fault::Slow)).collect();
        assert_eq!(closed(&holders, 60_000), expected);
    }

    #[test]
    fn time_in_which_it_was_held_up_is_not_held_against_it() {
        let mut pace = Pace::new(Nanos(0));
        pace.look(true, Nanos::from_ms(1000));
        pace.look(true, Nanos::from_ms(9_000));
        assert_eq!(pace.fault(), None);
        pace.look(false, Nanos::from_ms(10_000));
        assert_eq!(pace.fault(), None);
        pace.look(false, Nanos::from_ms(12_000));
        assert_eq!(pace.fault(), Some(Fault::Slow));
    }

    #[test]
    fn replies_that_are_hardly_read_are_unread_but_not_while_the_disk_is_awaited() {
        for (per_second, reading, expected) in
            [(0, false, true), (65_535, false, true), (65_536, false, false), (0, true, false)]
        {
            let mut pace = Pace::new(Nanos(0));
            for second in 1..=30 {
                pace.advance(per_second);
                pace.look(reading, Nanos::from_ms(second * 1000));
                let unread = pace.is_unread(Nanos::from_ms(second * 1000));
                assert_eq!(unread, expected && second >= 10, "{per_second} bytes/s, {reading}, {second} s");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn while_somebody_waits_those_go_whose_patience_is_over_and_no_others(
            raw in prop::collection::vec((0..60_000u64, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let raw = (0..).zip(&raw);
            let holders: Vec<_> = raw.map(|(id, &(since, held_up, waits))| holder(id, since, held_up, waits)).collect();
            let closed = closed(&holders, 60_000);
            let somebody_waits = holders.iter().any(|holder| holder.waits);
            for holder in &holders {
                let ms = 60_000 - holder.pace.since.as_ms();
                let patience = if holder.pace.held_up { HELD_UP_MS_MAX } else { SLOW_MS_MAX };
                let goes = closed.iter().any(|(id, _)| *id == holder.connection);
                prop_assert_eq!(goes, somebody_waits && ms >= patience, "{:?}", holder);
            }
        }

        #[test]
        fn one_that_keeps_the_rate_is_never_closed_however_it_is_looked_at(
            steps in prop::collection::vec((1..1500u64, 0..100_000usize), 1..60),
        ) {
            let (mut pace, mut now_ms) = (Pace::new(Nanos(0)), 0);
            for (ms, more) in steps {
                now_ms += ms;
                pace.advance((ms * 65_536 / 1000) as usize + 1 + more);
                pace.look(false, Nanos::from_ms(now_ms));
                prop_assert_eq!(pace.fault(), None);
            }
        }

        #[test]
        fn one_that_stops_is_closed_after_its_patience_whatever_it_sent_before(
            before in prop::collection::vec((1..1500u64, 0..10_000_000usize, any::<bool>()), 0..20), held_up: bool,
        ) {
            let (mut pace, mut now_ms) = (Pace::new(Nanos(0)), 0);
            for (ms, received, held_up) in before {
                now_ms += ms;
                pace.advance(received);
                pace.look(held_up, Nanos::from_ms(now_ms));
            }
            let patience = if held_up { HELD_UP_MS_MAX } else { SLOW_MS_MAX };
            // The first look may still find what came before it; none after that finds anything.
            let looks = 1 + patience.div_ceil(1000);
            for _ in 0..=looks {
                now_ms += 1000;
                pace.look(held_up, Nanos::from_ms(now_ms));
            }
            prop_assert!(pace.fault().is_some(), "{:?}", pace);
            // A byte is not enough to stay, another request is.
            let seen = pace;
            pace.advance(1);
            prop_assert!(pace.is_still(&seen) && !Pace::new(Nanos::from_ms(now_ms)).is_still(&seen), "{:?}", pace);
        }
    }
}
