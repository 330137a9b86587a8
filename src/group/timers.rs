//! Deadlines of all groups of a core, in one ordered queue. Holds times and names only; what is due is acted on elsewhere.
//!
//! A heartbeat moves a deadline without touching the queue: the entry that is already there is looked at when its time
//! comes, and queued again for the later time. So a member costs one entry for each session timeout, however often it
//! beats.

use std::collections::BTreeSet;

use super::classic::{GroupId, MemberId};
use crate::base::time::Nanos;

/// Whose time has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    /// A member sent no heartbeat within its session timeout.
    Session(GroupId, MemberId),
    /// A member id was handed out (KIP-394) and nobody joined with it.
    PendingMember(GroupId, MemberId),
    /// The time to join this generation is over.
    Join(GroupId),
    /// The time to send SyncGroup after a join is over.
    Sync(GroupId),
    /// The offsets of the partition are to be looked through for old ones.
    Expire,
}

/// A subject and the offsets partition it belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TimerKey {
    pub partition: i32,
    pub subject: Subject,
}

/// A deadline that may be set, moved and cleared; it lives in the thing that it is about.
#[derive(Clone, Default, Debug)]
pub(super) struct Deadline {
    at: Option<Nanos>,
    /// The earliest entry in the queue for this deadline. Invariant: where `at` is set, so is this, and not later.
    queued: Option<Nanos>,
}

impl Deadline {
    pub fn clear(&mut self) {
        self.at = None;
    }
}

/// The queue of a core.
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Nanos, TimerKey)>,
}

impl Timers {
    /// Sets or moves `deadline`; `key` is asked for only where a new entry is needed.
    pub fn set(&mut self, deadline: &mut Deadline, at: Nanos, key: impl FnOnce() -> TimerKey) {
        deadline.at = Some(at);
        if deadline.queued.is_none_or(|queued| at < queued) {
            deadline.queued = Some(at);
            self.queue.insert((at, key()));
        }
    }

    /// A time before which nothing is due. Waking then may find that nothing is due after all.
    pub fn next(&self) -> Option<Nanos> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first entry whose time has come. Whether its deadline still stands is for [`Timers::is_due`] to say.
    pub fn pop(&mut self, now: Nanos) -> Option<(Nanos, TimerKey)> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first()
    }

    /// Whether `deadline` is over, given its entry that was queued for `queued`; queues it again where it has moved.
    pub fn is_due(&mut self, deadline: &mut Deadline, queued: Nanos, now: Nanos, key: &TimerKey) -> bool {
        if deadline.queued != Some(queued) {
            return false;
        }
        deadline.queued = None;
        match deadline.at.take() {
            None => false,
            Some(at) if at <= now => true,
            Some(at) => {
                self.set(deadline, at, || key.clone());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TimerKey {
        TimerKey { partition: 0, subject: Subject::Expire }
    }

    #[test]
    fn a_deadline_moved_later_fires_once_at_the_later_time() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        for at in [10, 20, 30] {
            timers.set(&mut deadline, Nanos(at), key);
        }
        assert_eq!(timers.queue.len(), 1, "moving a deadline later costs no entry");
        let (queued, popped) = timers.pop(Nanos(10)).expect("the first entry is due");
        assert!(!timers.is_due(&mut deadline, queued, Nanos(10), &popped));
        assert_eq!(timers.next(), Some(Nanos(30)));
        let (queued, popped) = timers.pop(Nanos(30)).expect("queued again");
        assert!(timers.is_due(&mut deadline, queued, Nanos(30), &popped));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_moved_earlier_fires_early_and_once() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(&mut deadline, Nanos(30), key);
        timers.set(&mut deadline, Nanos(10), key);
        let mut fired = 0;
        while let Some((queued, popped)) = timers.pop(Nanos(40)) {
            fired += u32::from(timers.is_due(&mut deadline, queued, Nanos(40), &popped));
        }
        assert_eq!(fired, 1);
    }

    #[test]
    fn a_cleared_deadline_does_not_fire() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(&mut deadline, Nanos(10), key);
        deadline.clear();
        let (queued, popped) = timers.pop(Nanos(10)).expect("the entry is still there");
        assert!(!timers.is_due(&mut deadline, queued, Nanos(10), &popped));
    }
}
