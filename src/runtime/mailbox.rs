//! Messages between cores: collected during a turn, moved as one batch at its end, announced by one wake-up.
//!
//! Each pair of cores has a box of its own, so a lock is taken by two threads at most, once a turn, for the length of a swap.

use super::ring::Ring;
use crate::base::counters::MailboxCounters;
use crate::base::ids::CoreIndex;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

/// Messages that may wait in one box. A sender that finds it fuller keeps its own and reads no further requests.
pub const MAILBOX_MESSAGES_MAX: usize = 16 << 10;

/// Kept apart, so that two cores never write to the same cache line for different boxes.
#[repr(align(128))]
struct Slot<M> {
    messages: Mutex<Vec<M>>,
}

#[repr(align(128))]
struct Inbox<M> {
    /// By sender.
    slots: Vec<Slot<M>>,
    /// Set by a sender that has put something in and will wake the owner; cleared by the owner before it looks.
    announced: AtomicBool,
    /// The owner's ring; -1 until it has one.
    ring: AtomicI32,
}

/// All boxes of a process.
pub struct Postbox<M> {
    inboxes: Vec<Inbox<M>>,
}

impl<M: Send> Postbox<M> {
    pub fn new(cores: usize) -> Arc<Postbox<M>> {
        let slot = || Slot { messages: Mutex::new(Vec::new()) };
        let inbox = || Inbox {
            slots: (0..cores).map(|_| slot()).collect(),
            announced: AtomicBool::new(false),
            ring: AtomicI32::new(-1),
        };
        Arc::new(Postbox { inboxes: (0..cores).map(|_| inbox()).collect() })
    }
}

/// One core's end of all boxes. Stays on its core.
pub struct Mailboxes<M> {
    own: CoreIndex,
    postbox: Arc<Postbox<M>>,
    outgoing: Vec<Vec<M>>,
    spare: Vec<M>,
    pub counters: MailboxCounters,
}

impl<M: Send> Mailboxes<M> {
    /// The end of core `own`, which receives its wake-ups by `ring`.
    pub fn new(own: CoreIndex, postbox: Arc<Postbox<M>>, ring: &Ring) -> Mailboxes<M> {
        let cores = postbox.inboxes.len();
        postbox.inboxes[usize::from(own.0)].ring.store(ring.descriptor(), Ordering::Release);
        Mailboxes {
            own,
            postbox,
            outgoing: (0..cores).map(|_| Vec::new()).collect(),
            spare: Vec::new(),
            counters: MailboxCounters::default(),
        }
    }

    /// Collects `message` for `to`; it leaves with `flush`.
    pub fn send(&mut self, to: CoreIndex, message: M) {
        self.counters.sent += 1;
        self.outgoing[usize::from(to.0)].push(message);
    }

    /// Moves what was collected into the boxes and wakes their owners. False if a box was full: some messages stay behind, in
    /// order, and the caller should take on no further work until a flush succeeds.
    pub fn flush(&mut self, ring: &Ring) -> bool {
        let mut all = true;
        for (inbox, outgoing) in self.postbox.inboxes.iter().zip(&mut self.outgoing) {
            if outgoing.is_empty() {
                continue;
            }
            {
                let mut messages = inbox.slots[usize::from(self.own.0)].messages.lock().expect("never poisoned");
                if messages.len() >= MAILBOX_MESSAGES_MAX {
                    self.counters.full += 1;
                    all = false;
                    continue;
                }
                if messages.is_empty() {
                    std::mem::swap(&mut *messages, outgoing);
                } else {
                    messages.append(outgoing);
                }
            }
            self.counters.batches += 1;
            let peer: RawFd = inbox.ring.load(Ordering::Acquire);
            if !inbox.announced.swap(true, Ordering::AcqRel) && peer >= 0 {
                ring.wake(peer);
            }
        }
        all
    }

    /// Takes everything that has arrived into `into`, each sender's messages in the order they were sent.
    pub fn receive(&mut self, into: &mut Vec<M>) {
        let inbox = &self.postbox.inboxes[usize::from(self.own.0)];
        // Cleared before looking: a message put in afterwards is announced again.
        if !inbox.announced.swap(false, Ordering::AcqRel) {
            return;
        }
        let before = into.len();
        for slot in &inbox.slots {
            std::mem::swap(&mut *slot.messages.lock().expect("never poisoned"), &mut self.spare);
            into.append(&mut self.spare);
        }
        let found = (into.len() - before) as u64;
        self.counters.received += found;
        self.counters.depth_max = self.counters.depth_max.max(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order_and_wake_once() {
        let (ring, peer) = (Ring::new().expect("ring"), Ring::new().expect("ring"));
        let postbox = Postbox::new(2);
        let mut a = Mailboxes::new(CoreIndex(0), postbox.clone(), &ring);
        let mut b = Mailboxes::new(CoreIndex(1), postbox, &peer);
        for n in 0..100 {
            a.send(CoreIndex(1), n);
            if n % 10 == 9 {
                assert!(a.flush(&ring));
            }
        }
        let mut got = vec![];
        b.receive(&mut got);
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert_eq!(ring.counters().wakes_sent, 1);
        assert_eq!((a.counters.sent, a.counters.batches), (100, 10));
        assert_eq!((b.counters.received, b.counters.depth_max), (100, 100));
        got.clear();
        b.receive(&mut got);
        assert!(got.is_empty());
    }

    #[test]
    fn a_full_box_keeps_messages_with_their_sender() {
        let ring = Ring::new().expect("ring");
        let postbox = Postbox::new(2);
        let mut a = Mailboxes::new(CoreIndex(0), postbox.clone(), &ring);
        (0..MAILBOX_MESSAGES_MAX).for_each(|n| a.send(CoreIndex(1), n));
        assert!(a.flush(&ring));
        a.send(CoreIndex(1), MAILBOX_MESSAGES_MAX);
        assert!(!a.flush(&ring));
        let mut b = Mailboxes::new(CoreIndex(1), postbox, &ring);
        let mut got = vec![];
        b.receive(&mut got);
        assert_eq!(got.len(), MAILBOX_MESSAGES_MAX);
        assert!(a.flush(&ring));
        b.receive(&mut got);
        assert_eq!(got, (0..=MAILBOX_MESSAGES_MAX).collect::<Vec<_>>());
    }
}
