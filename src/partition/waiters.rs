//! Who waits for a partition: produces for the high watermark, fetches for bytes (long poll), both for a deadline.
//!
//! Keys are the caller's own and mean nothing here. Nothing is sent: woken keys are handed back.

use crate::base::ids::Offset;
use crate::base::time::Nanos;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// Answers of one partition that wait until its high watermark has reached an offset: new batches and repeats of undurable ones.
///
/// Bounded by what the core lends to requests: each waiter is part of a request in memory.
#[derive(Debug)]
pub struct OffsetWaiters<K> {
    /// Ordered by offset; among equals in order of arrival.
    waiting: VecDeque<(Offset, K)>,
}

impl<K> Default for OffsetWaiters<K> {
    fn default() -> OffsetWaiters<K> {
        OffsetWaiters { waiting: VecDeque::new() }
    }
}

impl<K> OffsetWaiters<K> {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// `key` waits until the high watermark is at least `next_offset`, which it must not be yet.
    ///
    /// New batches come in the order of their offsets and cost O(1); a repeat is put between.
    pub fn wait(&mut self, next_offset: Offset, key: K) {
        let at = match self.waiting.back() {
            Some(&(last, _)) if last > next_offset => {
                self.waiting.partition_point(|&(offset, _)| offset <= next_offset)
            }
            _ => self.waiting.len(),
        };
        self.waiting.insert(at, (next_offset, key));
    }

    /// Appends to `woken` all keys whose offset is reached, lowest offset first.
    pub fn wake(&mut self, high_watermark: Offset, woken: &mut Vec<K>) {
        while self.waiting.front().is_some_and(|&(offset, _)| offset <= high_watermark) {
            woken.extend(self.waiting.pop_front().map(|(_, key)| key));
        }
    }

    /// Takes all keys, reached or not: the partition is deleted or led elsewhere, and each needs an answer that says so.
    pub fn drain(&mut self) -> impl Iterator<Item = K> + '_ {
        self.waiting.drain(..).map(|(_, key)| key)
    }
}

/// Names a waiting fetch to the one who registered it. Stale tickets are recognised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

/// A fetch in long poll.
#[derive(Debug)]
struct Fetch<P, K> {
    key: K,
    /// Bytes that must still become visible; 0 once it is to be woken.
    missing_bytes: u64,
    deadline: Nanos,
    /// Its partitions, each with the fetch's place in that partition's list.
    /// Invariant: `lists[partition][place]` names this fetch and this index.
    partitions: Box<[(P, u32)]>,
}

/// Where a partition's list points: a fetch and which of its partitions this is.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    index: u32,
}

/// The fetches of one core in long poll, each over many partitions.
///
/// To register, cancel or wake one costs as much as it has partitions, however many others wait. Bounded by the core's
/// connections: each has at most one fetch in long poll at the head of its queue.
#[derive(Debug)]
pub struct FetchWaiters<P, K> {
    /// A slot's generation grows each time it is vacated.
    slots: Vec<(u32, Option<Fetch<P, K>>)>,
    vacant: Vec<u32>,
    lists: HashMap<P, Vec<Place>>,
    deadlines: BTreeSet<(Nanos, u32)>,
}

impl<P, K> Default for FetchWaiters<P, K> {
    fn default() -> FetchWaiters<P, K> {
        FetchWaiters { slots: Vec::new(), vacant: Vec::new(), lists: HashMap::new(), deadlines: BTreeSet::new() }
    }
}

impl<P: Copy + Eq + Hash, K> FetchWaiters<P, K> {
    /// Fetches that wait.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// `key` waits until `missing_bytes` more have become visible in `partitions` together, or until `deadline`.
    ///
    /// `missing_bytes` is `min_bytes` less what is there already, at least 1: otherwise the fetch is answered at once. A fetch
    /// may wait for no partition at all; then only its deadline ends it.
    pub fn register(&mut self, key: K, partitions: &[P], missing_bytes: u64, deadline: Nanos) -> Ticket {
        assert!(missing_bytes >= 1, "a fetch that misses nothing does not wait");
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer fetches than connections")
        });
        let places = partitions
            .iter()
            .zip(0..)
            .map(|(&partition, index)| {
                let list = self.lists.entry(partition).or_default();
                list.push(Place { slot, index });
                (partition, list.len() as u32 - 1)
            })
            .collect();
        self.deadlines.insert((deadline, slot));
        let (generation, fetch) = &mut self.slots[slot as usize];
        assert!(fetch.is_none(), "a vacant slot is empty");
        *fetch = Some(Fetch { key, missing_bytes, deadline, partitions: places });
        Ticket { slot, generation: *generation }
    }

    /// Takes a fetch back, because its connection is gone. `None` where it was woken before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<K> {
        let (generation, fetch) = self.slots.get(ticket.slot as usize)?;
        (fetch.is_some() && *generation == ticket.generation).then(|| self.remove(ticket.slot))
    }

    /// `bytes` more are visible in `partition`. Appends to `woken` the fetches that have enough now.
    pub fn on_visible(&mut self, partition: P, bytes: u64, woken: &mut Vec<K>) {
        let Some(list) = self.lists.get(&partition) else { return };
        let mut ready = Vec::new();
        for place in list {
            let fetch = self.slots[place.slot as usize].1.as_mut().expect("lists name fetches that wait");
            if fetch.missing_bytes > 0 {
                fetch.missing_bytes = fetch.missing_bytes.saturating_sub(bytes);
                if fetch.missing_bytes == 0 {
                    ready.push(place.slot);
                }
            }
        }
        woken.extend(ready.into_iter().map(|slot| self.remove(slot)));
    }

    /// Wakes all fetches that wait on `partition`: it is deleted, led elsewhere, or has an error to tell.
    pub fn on_changed(&mut self, partition: P, woken: &mut Vec<K>) {
        self.on_visible(partition, u64::MAX, woken);
    }

    /// The earliest deadline: when `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Appends to `woken` the fetches whose deadline is at or before `now`, earliest first.
    pub fn expire(&mut self, now: Nanos, woken: &mut Vec<K>) {
        while let Some(&(_, slot)) = self.deadlines.first().filter(|&&(deadline, _)| deadline <= now) {
            woken.push(self.remove(slot));
        }
    }

    fn remove(&mut self, slot: u32) -> K {
        // Before the lists are touched, so that places moved within them are looked up among the others only.
        let entry = &mut self.slots[slot as usize];
        let mut fetch = entry.1.take().expect("the slot holds a fetch that waits");
        entry.0 = entry.0.wrapping_add(1);
        self.vacant.push(slot);
        assert!(self.deadlines.remove(&(fetch.deadline, slot)), "each waiting fetch has its deadline");
        for index in 0..fetch.partitions.len() {
            let (partition, place) = fetch.partitions[index];
            let list = self.lists.get_mut(&partition).expect("a partition waited for has a list");
            let removed = list.swap_remove(place as usize);
            assert_eq!((removed.slot, removed.index as usize), (slot, index));
            if let Some(&moved) = list.get(place as usize) {
                let partitions = match &mut self.slots[moved.slot as usize].1 {
                    Some(other) => &mut other.partitions,
                    // The same partition named twice by one fetch.
                    None => &mut fetch.partitions,
                };
                partitions[moved.index as usize].1 = place;
            } else if list.is_empty() {
                self.lists.remove(&partition);
            }
        }
        fetch.key
    }
}

#[cfg(test)]
#[path = "waiters_tests.rs"]
mod tests;
