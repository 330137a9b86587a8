//! Moves a partition to another core of this process, while it is being used: the log is released here and opened there, and no record is
//! copied.
//!
//! The metadata log has the move first. From then on the core that owned the partition answers NOT_LEADER_OR_FOLLOWER, upon which clients ask
//! again, until the new one has it. The controller counts the move as applied only then, so that nothing else is decided meanwhile: no
//! deletion, no other move. Where the new core cannot open it, the old one keeps it, and the controller moves it back.

use super::Shard;
use super::commands::Message;
use super::open::RecoveredPartition;
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, PartitionId};
use crate::cluster::commands::Command;
use crate::log::LogIndex;
use crate::ports::Disk;
use std::cell::RefCell;
use std::rc::Rc;

/// A partition that the core it was to go to does not have.
#[derive(Debug)]
pub struct FailedMove {
    /// Brings the metadata back in line with where the partition is.
    pub undo: Command,
    pub why: String,
}

/// A partition that has left for another core.
#[derive(Debug)]
pub(super) enum Leaving {
    OnItsWay,
    /// What the other core says.
    Arrived(Result<(), String>),
}

impl<D: Disk> Shard<D> {
    /// Whether this core must give the partition to the one that owns it now.
    pub(super) fn is_to_leave(&self, id: PartitionId) -> bool {
        self.by_id.contains_key(&id) && self.image.partition(id).is_some_and(|partition| !self.owns(partition))
    }

    /// Why a move that is about to be applied cannot be: the partition is this core's, and is not open here.
    pub(super) fn cannot_leave(&self, command: &Command) -> Option<FailedMove> {
        let &Command::MovePartition { id, partition, .. } = command else { return None };
        let id = PartitionId { topic: id, index: partition };
        let is_served = self.starting || self.by_id.contains_key(&id);
        if is_served || !self.image.partition(id).is_some_and(|partition| self.owns(partition)) {
            return None;
        }
        let why =
            "it is not served, because it is damaged or could not be opened: the broker's log says why".to_owned();
        Some(FailedMove { undo: self.undo(id), why })
    }

    fn undo(&self, id: PartitionId) -> Command {
        Command::MovePartition { id: id.topic, partition: id.index, core: self.core }
    }

    /// Gives a partition to the core that owns it now.
    ///
    /// # Errors
    /// It is still here, and served as soon as the metadata says so.
    pub(super) async fn hand_over(shard: &Rc<RefCell<Shard<D>>>, id: PartitionId) -> Result<(), FailedMove> {
        let (logs, slot, log) = {
            let mut this = shard.borrow_mut();
            let this = &mut *this;
            let Some(slot) = this.by_id.remove(&id) else { return Ok(()) };
            // Who waits for records here is told to look elsewhere.
            this.fetch_waiters.on_changed(slot, &mut this.ready_fetches);
            (this.log.clone(), slot, this.partitions[slot as usize].log)
        };
        let outcome = match logs.release(log).await {
            Ok(recovered) => {
                {
                    let mut this = shard.borrow_mut();
                    let to = this.image.partition(id).map_or(this.core, |partition| partition.core);
                    let producers = this.partitions[slot as usize].state.producers().clone();
                    let found = RecoveredPartition { recovered, producers };
                    let from = this.core;
                    this.leaving.insert(id, Leaving::OnItsWay);
                    this.outbox.messages.push((to, Message::Move { from, id, found: Box::new(found) }));
                }
                logs.until(|| matches!(shard.borrow().leaving.get(&id), Some(Leaving::Arrived(_)))).await;
                match shard.borrow_mut().leaving.remove(&id) {
                    Some(Leaving::Arrived(outcome)) => outcome.inspect_err(|_| logs.take_back(log)),
                    _ => unreachable!("waited for above"),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = outcome {
            let mut this = shard.borrow_mut();
            this.by_id.insert(id, slot);
            return Err(FailedMove { undo: this.undo(id), why });
        }
        if let Err(error) = logs.forget(log).await {
            // The turn that meets the failure ends the process.
            tracing::error!(partition = %id, "it has moved, and this core's journal cannot say so: {error}");
        }
        shard.borrow_mut().vacate(slot, log, ErrorCode::NotLeaderOrFollower);
        Ok(())
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
            if is_full {
                // Opening would wait for space, and with it whoever wants to delete a topic.
                let outcome = Err("the disk of that core is full".to_owned());
                return shard.borrow_mut().outbox.messages.push((from, Message::Moved { id, outcome }));
            }
            let mut outcome = Shard::open_partition(&shard, id, found).await;
            if outcome.is_ok() {
                outcome = log.until_durable().await.map_err(|error| error.to_string());
            }
            shard.borrow_mut().outbox.messages.push((from, Message::Moved { id, outcome }));
        });
    }

    /// The core to which a partition was given has it, or cannot open it.
    pub(super) fn partition_moved(&mut self, id: PartitionId, outcome: Result<(), String>) {
        self.leaving.insert(id, Leaving::Arrived(outcome));
        self.log.notify();
    }
}
