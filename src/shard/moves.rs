//! Moves a partition to another core of this process, while it is being used: the log is released here and opened there, and no record is
//! copied.
//!
//! The metadata log has the move first. Each core that applies it sends what is produced from then on to the new core, which keeps it until it
//! has the partition, and says so to the old core, which goes on appending until it has heard all. So every producer's batches are appended in
//! the order in which they came, and none is refused: a client that asks again later than it sends its next batch would swap the two.
//! A fetch waits at the new core too, for as long as it may wait at all; whoever asks for anything else is answered NOT_LEADER_OR_FOLLOWER
//! meanwhile, and asks again. With core listeners fetches are answered so as well, for that is how consumers learn where to go.
//!
//! The controller counts the move as applied only when the new core has the partition, so that nothing else is decided meanwhile: no
//! deletion, no other move. Where the new core cannot open it, the old one keeps it, and the controller moves it back; what the new core
//! has kept until then is refused.

use super::Shard;
use super::commands::{Fetch, Message};
use super::open::RecoveredPartition;
use super::produce::DelayedPart;
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, PartitionId};
use crate::cluster::commands::Command;
use crate::log::LogIndex;
use crate::ports::Disk;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A partition that the core it was to go to does not have.
#[derive(Debug)]
pub struct FailedMove {
    /// Brings the metadata back in line with where the partition is.
    pub undo: Command,
    pub why: String,
}

/// What a core knows of partitions between two cores.
#[derive(Default)]
pub(super) struct Moves {
    /// How many other cores send no more to a partition here, because it is to leave.
    redirected: HashMap<PartitionId, u16>,
    /// What the core says to which a partition was given.
    arrived: HashMap<PartitionId, Result<(), String>>,
    /// Partitions that could not be given away: the metadata is about to say that they are here.
    staying: HashSet<PartitionId>,
    /// Partitions that this core is to own, and does not have yet.
    awaited: HashMap<PartitionId, Awaited>,
}

enum Awaited {
    Coming(Held),
    /// It could not be opened here: the metadata is about to say that it is elsewhere.
    Failed,
}

impl Moves {
    /// What waits for a partition that is on its way to this core; `None` for any other.
    fn coming(&mut self, id: PartitionId) -> Option<&mut Held> {
        match self.awaited.get_mut(&id)? {
            Awaited::Coming(held) => Some(held),
            Awaited::Failed => None,
        }
    }
}

/// What waits for a partition to come here.
#[derive(Default)]
struct Held {
    /// In the order of arrival.
    produced: Vec<DelayedPart>,
    /// Some may be answered meanwhile, or named twice.
    fetches: Vec<u64>,
}

impl<D: Disk> Shard<D> {
    /// A move that is about to be applied. True where this core is to give the partition away.
    pub(super) fn on_move(&mut self, id: PartitionId, to: CoreIndex) -> bool {
        let from = self.image.partition(id).filter(|partition| partition.leader == self.settings.node);
        let Some(from) = from.map(|partition| partition.core).filter(|from| *from != to && !self.starting) else {
            return false;
        };
        if to == self.core && !self.moves.staying.remove(&id) {
            self.moves.awaited.entry(id).or_insert(Awaited::Coming(Held::default()));
        }
        if from != self.core {
            // Behind all that this core has sent there for the partition.
            self.outbox.messages.push((from, Message::Redirected(id)));
        }
        from == self.core
    }

    /// One more core sends nothing to a partition here that is to leave.
    pub(super) fn redirected(&mut self, id: PartitionId) {
        *self.moves.redirected.entry(id).or_default() += 1;
        self.log.notify();
    }

    /// Whether the partition, which is not open here, is on its way to this core, so that what is asked of it can be held. From then on it is
    /// awaited, if this core has not heard of the move yet.
    pub(super) fn is_awaited(&mut self, id: PartitionId) -> bool {
        if let Some(awaited) = self.moves.awaited.get(&id) {
            return matches!(awaited, Awaited::Coming(_));
        }
        // Nothing comes here for another core's partition any more once it has left: whoever sent this has applied a move that this core has not.
        let is_ahead = !self.by_id.contains_key(&id)
            && self.image.partition(id).is_some_and(|partition| partition.core != self.core);
        if is_ahead {
            self.moves.awaited.insert(id, Awaited::Coming(Held::default()));
        }
        is_ahead
    }

    /// Keeps a part until its partition, which is awaited, is here.
    pub(super) fn hold(&mut self, part: DelayedPart) {
        self.moves.coming(part.part.partition).expect("only what is awaited is held").produced.push(part);
    }

    /// True where the fetch is looked at again once one of its partitions, which is awaited, is here.
    pub(super) fn hold_fetch(&mut self, id: u64, fetch: &Fetch) -> bool {
        if !self.settings.core_ports.is_empty() {
            return false;
        }
        let awaited =
            fetch.parts.iter().find(|part| self.slot(part.partition).is_none() && self.is_awaited(part.partition));
        let held = awaited.and_then(|part| self.moves.coming(part.partition));
        held.map(|held| held.fetches.push(id)).is_some()
    }

    /// Nothing more comes for a partition that is to leave; all that has come is appended, and no reader waits for the disk.
    fn is_quiet(&self, id: PartitionId) -> bool {
        let redirected = self.moves.redirected.get(&id).copied().unwrap_or(0);
        redirected + 1 == self.settings.core_count && !self.has_backlog(id) && !self.is_loading(id)
    }

    /// Gives a partition to the core that owns it now.
    ///
    /// # Errors
    /// It is still here, and served, if it was, as soon as the metadata says so.
    pub(super) async fn hand_over(shard: &Rc<RefCell<Shard<D>>>, id: PartitionId) -> Result<(), FailedMove> {
        let logs = shard.borrow().log.clone();
        loop {
            logs.until(|| shard.borrow().is_quiet(id)).await;
            // While it is served: who waits for records here is told that there are none yet, and asks where it goes.
            shard.borrow_mut().dismiss_fetches(id);
            if shard.borrow().is_quiet(id) {
                break;
            }
        }
        let (slot, log) = {
            let mut this = shard.borrow_mut();
            let this = &mut *this;
            this.moves.redirected.remove(&id);
            if let Some(awaited) = this.moves.awaited.remove(&id) {
                // It has never come here, and goes back.
                this.refuse_held(awaited);
                return Ok(());
            }
            let Some(slot) = this.by_id.remove(&id) else {
                let why = "it is not served, because it is damaged or could not be opened: the broker's log says why";
                return Err(this.stay(id, why.to_owned()));
            };
            (slot, this.partitions[slot as usize].log)
        };
        let outcome = match logs.release(log).await {
            Ok(recovered) => {
                {
                    let mut this = shard.borrow_mut();
                    let to = this.image.partition(id).map_or(this.core, |partition| partition.core);
                    let producers = this.partitions[slot as usize].state.producers().clone();
                    let found = RecoveredPartition { recovered, producers };
                    let from = this.core;
                    this.outbox.messages.push((to, Message::Move { from, id, found: Box::new(found) }));
                }
                logs.until(|| shard.borrow().moves.arrived.contains_key(&id)).await;
                let outcome = shard.borrow_mut().moves.arrived.remove(&id).expect("waited for above");
                outcome.inspect_err(|_| logs.take_back(log))
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = outcome {
            let mut this = shard.borrow_mut();
            this.by_id.insert(id, slot);
            return Err(this.stay(id, why));
        }
        if let Err(error) = logs.forget(log).await {
            // The turn that meets the failure ends the process.
            tracing::error!(partition = %id, "it has moved, and this core's journal cannot say so: {error}");
        }
        shard.borrow_mut().vacate(slot, log, ErrorCode::NotLeaderOrFollower);
        Ok(())
    }

    fn stay(&mut self, id: PartitionId, why: String) -> FailedMove {
        self.moves.staying.insert(id);
        let undo = Command::MovePartition { id: id.topic, partition: id.index, core: self.core };
        FailedMove { undo, why }
    }

    /// Answers the fetches that wait for records of this partition.
    fn dismiss_fetches(&mut self, id: PartitionId) {
        let Some(slot) = self.slot(id) else { return };
        let now = (self.world.now)();
        self.resume_fetches(now);
        let mut woken = Vec::new();
        self.fetch_waiters.on_changed(slot, &mut woken);
        for id in woken {
            self.hurry_fetch(id, now);
        }
    }

    fn refuse_held(&mut self, awaited: Awaited) {
        let Awaited::Coming(held) = awaited else { return };
        self.end_fetches(&held.fetches);
        self.wake_fetches(held.fetches);
        for part in held.produced {
            self.refuse_delayed(&part, ErrorCode::NotLeaderOrFollower);
        }
    }

    /// Nobody names the slot of a partition any more. Whoever still waits for it is told `error`.
    pub(super) fn vacate(&mut self, slot: u32, log: LogIndex, error: ErrorCode) {
        self.fail_producing(slot, error);
        self.fetch_waiters.on_changed(slot, &mut self.ready_fetches);
        let producers = self.partitions[slot as usize].state.producers();
        self.log.close_stretch(log, |_| producers.snapshot());
        self.by_log[log.0 as usize] = None;
        self.vacant_slots.push(slot);
    }

    /// Opens a partition that another core gives, and tells it when that would survive a crash.
    pub(super) fn receive_partition(&self, from: CoreIndex, id: PartitionId, found: RecoveredPartition) {
        let (me, log, is_full) = (self.me.clone(), self.log.clone(), self.disk_full);
        self.disk.spawn(async move {
            let Some(shard) = me.upgrade() else { return };
            let mut outcome = match is_full {
                // Opening would wait for space, and with it whoever wants to delete a topic.
                true => Err("the disk of that core is full".to_owned()),
                false => Shard::open_partition(&shard, id, found).await,
            };
            shard.borrow_mut().arrived(id, outcome.is_ok());
            if outcome.is_ok() {
                outcome = log.until_durable().await.map_err(|error| error.to_string());
            }
            shard.borrow_mut().outbox.messages.push((from, Message::Moved { id, outcome }));
        });
    }

    /// A partition that was awaited is open, or cannot be: what was held is appended before anything else comes, or refused.
    fn arrived(&mut self, id: PartitionId, is_open: bool) {
        let Some(awaited) = self.moves.awaited.remove(&id) else { return };
        match awaited {
            Awaited::Coming(held) if is_open => {
                self.resume_held(held.produced, (self.world.now)());
                self.wake_fetches(held.fetches);
            }
            _ => {
                self.refuse_held(awaited);
                self.moves.awaited.insert(id, Awaited::Failed);
            }
        }
    }

    /// The core to which a partition was given has it, or cannot open it.
    pub(super) fn partition_moved(&mut self, id: PartitionId, outcome: Result<(), String>) {
        self.moves.arrived.insert(id, outcome);
        self.log.notify();
    }
}
