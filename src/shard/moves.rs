//! Moves a partition to another core of this process, while it is being used: the log is released here and opened there, and no record is
//! copied.
//!
//! The metadata log has the move first. Each core that applies it sends what is produced from then on to the new core, which keeps it until it
//! has the partition, and says so to the old core, which goes on appending until it has heard all. So every producer's batches are appended in
//! the order in which they came, and none is refused: a client that asks again later than it sends its next batch would swap the two.
//! Whoever reads or asks is answered NOT_LEADER_OR_FOLLOWER meanwhile, and asks again.
//!
//! The controller counts the move as applied only when the new core has the partition, so that nothing else is decided meanwhile: no
//! deletion, no other move. Where the new core cannot open it, the old one keeps it, and the controller moves it back; what the new core
//! has kept until then is refused.

use super::Shard;
use super::commands::{Message, Produced};
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
    /// In the order of arrival.
    Held(Vec<DelayedPart>),
    /// It could not be opened here: the metadata is about to say that it is elsewhere.
    Failed,
}

impl<D: Disk> Shard<D> {
    /// A move that is about to be applied. True where this core is to give the partition away.
    pub(super) fn on_move(&mut self, id: PartitionId, to: CoreIndex) -> bool {
        let from = self.image.partition(id).filter(|partition| partition.leader == self.settings.node);
        let Some(from) = from.map(|partition| partition.core).filter(|from| *from != to && !self.starting) else {
            return false;
        };
        if to == self.core && !self.moves.staying.remove(&id) {
            self.moves.awaited.insert(id, Awaited::Held(vec![]));
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

    /// Whether the partition is on its way to this core, so that what is produced to it can be held.
    pub(super) fn is_awaited(&self, id: PartitionId) -> bool {
        matches!(self.moves.awaited.get(&id), Some(Awaited::Held(_)))
    }

    /// Keeps a part until its partition, which is awaited, is here.
    pub(super) fn hold(&mut self, part: DelayedPart) {
        let Some(Awaited::Held(held)) = self.moves.awaited.get_mut(&part.part.partition) else {
            unreachable!("only what is awaited is held")
        };
        held.push(part);
    }

    /// Nothing more comes for a partition that is to leave, and all that has come is appended.
    fn is_quiet(&self, id: PartitionId) -> bool {
        let redirected = self.moves.redirected.get(&id).copied().unwrap_or(0);
        redirected + 1 == self.settings.core_count && !self.has_backlog(id)
    }

    /// Gives a partition to the core that owns it now.
    ///
    /// # Errors
    /// It is still here, and served, if it was, as soon as the metadata says so.
    pub(super) async fn hand_over(shard: &Rc<RefCell<Shard<D>>>, id: PartitionId) -> Result<(), FailedMove> {
        let logs = shard.borrow().log.clone();
        logs.until(|| shard.borrow().is_quiet(id)).await;
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
            // Who waits for records here is told to look elsewhere.
            this.fetch_waiters.on_changed(slot, &mut this.ready_fetches);
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

    fn refuse_held(&mut self, awaited: Awaited) {
        let Awaited::Held(held) = awaited else { return };
        for part in held {
            self.delayed_done(&part, Produced::refused(part.part.index, ErrorCode::NotLeaderOrFollower, None));
        }
    }

    /// Nobody names the slot of a partition any more. Whoever still waits for it is told `error`.
    pub(super) fn vacate(&mut self, slot: u32, log: LogIndex, error: ErrorCode) {
        self.fail_producing(slot, error);
        self.fetch_waiters.on_changed(slot, &mut self.ready_fetches);
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
            Awaited::Held(held) if is_open => self.resume_held(held, (self.world.now)()),
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
