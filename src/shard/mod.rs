//! One core: owns its partitions and their logs, and performs what the pure parts decide.
//!
//! It knows `ports` and no runtime, so that a simulator can run it whole.

pub mod commands;
mod fetch;
mod offsets;
mod partition;
mod produce;
pub mod slab;

use crate::base::ids::{CoreIndex, NodeId, PartitionId};
use crate::base::time::{Nanos, Now};
use crate::cluster::image::Image;
use crate::log::CoreLog;
use crate::partition::waiters::FetchWaiters;
use crate::ports::{Disk, DiskCompletion};
use commands::{Answer, Command, Message, Origin, RequestId};
use fetch::WaitingFetch;
use partition::Partition;
use produce::{BackloggedPart, WaitingProduce};
use slab::Slab;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

/// Where the shard asks for the time outside of a turn: at the end of a background task.
pub type NowFn = Rc<dyn Fn() -> Now>;

/// What a shard is told when it starts.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub core: CoreIndex,
    pub core_count: u16,
    pub node: NodeId,
}

/// Messages that a turn has produced, for the caller to move on.
pub struct Outbox<F> {
    /// For other cores.
    pub messages: Vec<(CoreIndex, Message<F>)>,
    /// For requests of this core.
    pub answers: Vec<(RequestId, Answer<F>)>,
}

/// The state of one core.
pub struct Shard<D: Disk> {
    core: CoreIndex,
    settings: ShardSettings,
    disk: D,
    clock: NowFn,
    /// This shard, for its background tasks.
    me: Weak<RefCell<Shard<D>>>,
    image: Image,
    log: CoreLog<D>,
    partitions: Vec<Partition>,
    vacant_slots: Vec<u32>,
    by_id: HashMap<PartitionId, u32>,
    /// By the log's own number of a partition.
    by_log: HashMap<crate::log::LogIndex, u32>,
    waiting_produces: Slab<WaitingProduce>,
    backlog: VecDeque<BackloggedPart>,
    waiting_fetches: Slab<WaitingFetch>,
    fetch_origins: HashMap<Origin, u64>,
    fetch_waiters: FetchWaiters<u32, u64>,
    /// Fetches that were woken in this turn.
    ready_fetches: Vec<u64>,
    /// Free space is below the reserve: produce is refused until there is more (durability contract, D6).
    disk_full: bool,
    pub outbox: Outbox<D::File>,
}

impl<D: Disk> Shard<D> {
    /// This core's copy of the metadata.
    pub fn image(&self) -> &Image {
        &self.image
    }

    fn slot(&self, id: PartitionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Brings `command` to the core that is to perform it.
    pub fn dispatch(&mut self, core: CoreIndex, origin: Origin, command: Command, now: Now) {
        if core == self.core {
            self.execute(origin, command, now);
        } else {
            self.outbox.messages.push((core, Message::Command { origin, command }));
        }
    }

    /// Performs a command on what this core owns.
    pub fn execute(&mut self, origin: Origin, command: Command, now: Now) {
        match command {
            Command::Produce(produce) => self.produce(origin, produce, |records| records, now),
            Command::Fetch(fetch) => self.fetch(origin, fetch, now),
            Command::FinishFetch => self.finish_fetch(origin, now),
            Command::ListOffsets(parts) => self.list_offsets(origin, parts),
            Command::EpochEnds(parts) => self.epoch_ends(origin, parts),
        }
    }

    fn answer(&mut self, origin: Origin, answer: Answer<D::File>) {
        if origin.core == self.core {
            self.outbox.answers.push((origin.request, answer));
        } else {
            self.outbox.messages.push((origin.core, Message::Answer { request: origin.request, answer }));
        }
    }

    /// A hot write of the log has ended.
    pub fn on_disk(&mut self, completion: DiskCompletion, now: Now) {
        let mut durable = Vec::new();
        if let Err(fatal) = self.log.on_completion(completion, now, &mut durable) {
            self.fail(&fatal);
        }
        for durable in durable {
            let Some(&slot) = self.by_log.get(&durable.log) else { continue };
            let advance = self.partitions[slot as usize].watermark.on_local_durable(durable.end_offset);
            if let Some(advance) = advance {
                self.on_visible(slot, advance);
            }
        }
    }

    /// After a failed write nothing may be acknowledged any more (durability contract, D5): the process ends here, and
    /// recovery begins from the journal.
    fn fail(&self, fatal: &crate::log::Fatal) -> ! {
        tracing::error!("{fatal}; nothing is acknowledged after a failed write, so the process ends: check the disk, then start again");
        std::process::exit(i32::from(crate::base::exit::Exit::DiskFailed.code()))
    }

    /// The turn's completions and messages are handled: goes on with what they have made possible, and starts a commit.
    pub fn end_of_turn(&mut self, now: Now) {
        self.resume_fetches(now);
        self.resume_backlog(now);
        self.log.end_of_turn(now);
    }

    /// When `end_of_turn` next has something to do of itself.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.fetch_waiters.next_deadline()
    }
}
