//! One core: owns its partitions and their logs, and performs what the pure parts decide.
//!
//! It knows `ports` and no runtime, so that a simulator can run it whole.

mod apply;
mod balance;
mod by_time;
pub mod commands;
pub mod control;
mod delete_records;
pub mod facts;
mod fetch;
mod groups;
mod leftovers;
mod log_dirs;
pub mod moves;
mod offsets;
pub mod open;
mod own;
mod partition;
mod produce;
pub mod producer_ids;
mod replay;
pub mod slab;
mod snapshots;
pub mod startup;

pub use crate::group::GroupSettings;
pub use crate::log::LogSettings;

use crate::base::counters::FetchCounters;
use crate::base::ids::{CoreIndex, NodeId, PartitionId};
use crate::base::time::{Nanos, Now};
use crate::cluster::configs::Overrides;
use crate::cluster::image::{Broker, Image};
use crate::group::Input;
use crate::log::{CoreLog, Durable, LogIndex};
use crate::partition::waiters::FetchWaiters;
use crate::ports::{Disk, DiskCompletion};
use balance::Balancing;
use commands::{Answer, Command, Message, Origin, RequestId};
use control::{Asker, Controlled, Controlling};
use fetch::WaitingFetch;
use groups::Coordinating;
use moves::Moves;
use own::OwnAppends;
use partition::Partition;
use produce::{DelayedPart, UndurablePart};
use producer_ids::HandingOut;
use slab::Slab;
use snapshots::Snapshots;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::{Rc, Weak};

/// Checkpoints written in one turn, so that the oldest journal file can be freed without holding up requests.
const CHECKPOINTS_PER_TURN_MAX: usize = 64;
/// How often a shard looks at what only time changes: retention, producers that are gone, the disk's free space.
const TICK_MS: u64 = 1000;

/// What a shard asks of the world outside of a turn. A simulator gives it its own.
#[derive(Clone)]
pub struct World {
    pub now: Rc<dyn Fn() -> Now>,
    /// 128 random bits.
    pub random: Rc<dyn Fn() -> u128>,
}

/// What a shard is told when it starts.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub core: CoreIndex,
    pub core_count: u16,
    pub node: NodeId,
    pub cluster_id: String,
    /// What clients connect to.
    pub host: String,
    pub port: u16,
    /// Cores that are given no new partitions.
    pub spared_cores: Vec<u16>,
    /// The port of each core; empty without core listeners.
    pub core_ports: Vec<u16>,
    /// This core's disk: its journal is here, and the partitions it makes.
    pub data_dir: PathBuf,
    /// All disks of the process.
    pub data_dirs: Vec<PathBuf>,
    pub log: LogSettings,
    pub groups: GroupSettings,
    /// The process's own settings that have Kafka's names.
    pub statics: Overrides,
    /// How often old segments are looked for (`log.retention.check.interval.ms`).
    pub retention_check_ms: u64,
    /// Produce is refused while the disk has less than this.
    pub disk_reserve_bytes: u64,
    /// How often work is spread over the cores; `None`: partitions stay where they are.
    pub balance_interval_ms: Option<u64>,
    /// A log of the broker's own is begun anew with a snapshot when it has grown by more than this, and by more than a
    /// few times its state.
    pub own_log_growth_bytes: u64,
}

impl ShardSettings {
    /// This process as the cluster's metadata has it.
    fn as_broker(&self) -> Broker {
        Broker {
            host: self.host.clone(),
            port: self.port,
            core_count: self.core_count,
            core_ports: self.core_ports.clone(),
            spared_cores: self.spared_cores.clone(),
        }
    }
}

/// Messages that a turn has produced, for the caller to move on.
pub struct Outbox<F> {
    /// For other cores.
    pub messages: Vec<(CoreIndex, Message<F>)>,
    /// For requests of this core.
    pub answers: Vec<(RequestId, Answer<F>)>,
    /// For the operator, by the number of what was asked; on the controller's core.
    pub told: Vec<(u64, Controlled)>,
}

/// The state of one core.
pub struct Shard<D: Disk> {
    core: CoreIndex,
    settings: ShardSettings,
    disk: D,
    world: World,
    /// This shard, for its background tasks.
    me: Weak<RefCell<Shard<D>>>,
    image: Image,
    log: CoreLog<D>,
    partitions: Vec<Partition>,
    vacant_slots: Vec<u32>,
    by_id: HashMap<PartitionId, u32>,
    /// By the log's own number of a partition.
    by_log: Vec<Option<u32>>,
    /// Of no meaning between calls; keeps its memory.
    committed: Vec<Durable>,
    /// Of no meaning between calls; keeps its memory.
    durable_parts: Vec<UndurablePart>,
    backlog: VecDeque<DelayedPart>,
    waiting_fetches: Slab<WaitingFetch>,
    fetch_counters: FetchCounters,
    fetch_origins: HashMap<Origin, u64>,
    fetch_waiters: FetchWaiters<u32, u64>,
    /// Fetches that were woken in this turn.
    ready_fetches: Vec<u64>,
    own: OwnAppends,
    controlling: Controlling,
    coordinating: Coordinating,
    handing_out: HandingOut,
    /// See `by_time::Search`.
    unpacking: Rc<Cell<bool>>,
    snapshots: Snapshots,
    moves: Moves,
    balancing: Balancing,
    /// The other cores do not run yet: commands are applied here alone.
    starting: bool,
    next_tick: Nanos,
    next_retention: Nanos,
    /// Retention is being applied in the background.
    retaining: bool,
    /// Free space is below the reserve: produce is refused until there is more (durability contract, D6).
    disk_full: bool,
    pub outbox: Outbox<D::File>,
}

impl<D: Disk> Shard<D> {
    /// This core's copy of the metadata.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// 128 random bits.
    pub fn random(&self) -> u128 {
        (self.world.random)()
    }

    fn slot(&self, id: PartitionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    fn slot_of(&self, log: LogIndex) -> Option<u32> {
        self.by_log.get(log.0 as usize).copied().flatten()
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
            Command::Produce(parts) => self.produce(origin, parts, |records| records, now),
            Command::Fetch(fetch) => self.fetch(origin, fetch, now),
            Command::FinishFetch => self.finish_fetch(origin, now),
            Command::ListOffsets(parts) => self.list_offsets(origin, parts),
            Command::EpochEnds(parts) => self.epoch_ends(origin, parts),
            Command::Control(control) => self.control(Asker::Client(origin), control, now),
            Command::Group { place, request } => self.group_request(origin, place, request, now),
            Command::PartitionSizes(wanted) => self.partition_sizes(origin, wanted),
            Command::DiskSpace => self.disk_space(origin),
            Command::DeleteRecords(parts) => self.delete_records(origin, parts),
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
        let mut committed = std::mem::take(&mut self.committed);
        if let Err(fatal) = self.log.on_completion(completion, now, &mut committed) {
            self.fail(&fatal);
        }
        for durable in committed.drain(..) {
            let Some(slot) = self.slot_of(durable.log) else { continue };
            let advance = self.partitions[slot as usize].watermark.on_local_durable(durable.end_offset);
            if let Some(advance) = advance {
                self.on_visible(slot, advance);
            }
        }
        self.committed = committed;
    }

    /// After a failed write nothing may be acknowledged any more (durability contract, D5): the process ends here, and
    /// recovery begins from the journal.
    fn fail(&self, fatal: &crate::log::Fatal) -> ! {
        tracing::error!(
            "{fatal}; nothing is acknowledged after a failed write, so the process ends: check the disk, then start again"
        );
        std::process::exit(i32::from(crate::base::exit::Exit::DiskFailed.code()))
    }

    /// A message of another core that is not an answer.
    pub fn on_message(&mut self, message: Message<D::File>, now: Now) {
        match message {
            Message::Command { origin, command } => self.execute(origin, command, now),
            Message::Apply(commands) => self.apply(commands, now),
            Message::Applied { failed } => self.on_applied(failed, now),
            Message::Redirected(id) => self.redirected(id),
            Message::Move { from, id, found } => self.receive_partition(from, id, *found),
            Message::Load(load) => self.on_load(load, now),
            Message::Moved { id, outcome } => self.partition_moved(id, outcome),
            Message::Answer { .. } => unreachable!("answers go to the api layer"),
        }
    }

    /// Goes on with what has become possible since it was last called.
    pub fn resume(&mut self, now: Now) {
        while self.own.has_durable() {
            self.tell_own(now);
        }
        self.resume_fetches(now);
        self.resume_own(now);
        self.resume_backlog(now);
    }

    /// Whether `resume` has something to do.
    pub fn has_ready(&self) -> bool {
        self.own.has_durable() || !self.ready_fetches.is_empty()
    }

    /// The turn's completions and messages are handled: starts a commit and whatever time has brought.
    pub fn end_of_turn(&mut self, now: Now) {
        for log in self.log.take_checkpoints_due(CHECKPOINTS_PER_TURN_MAX) {
            self.checkpoint(log);
        }
        if self.coordinating.groups.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.group_step(Input::Tick, now);
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono.plus_ms(TICK_MS);
            self.tick(now);
        }
        self.write_snapshots(now);
        let Shard { log, by_log, partitions, .. } = self;
        let producers = |log: LogIndex, _| {
            let slot = by_log[log.0 as usize].expect("what a partition was given is closed before it is forgotten");
            partitions[slot as usize].state.producers().snapshot()
        };
        if let Err(fatal) = log.end_of_turn(now, producers) {
            self.fail(&fatal);
        }
    }

    /// When `end_of_turn` next has something to do of itself.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let deadlines = [
            self.fetch_waiters.next_deadline(),
            self.coordinating.groups.next_deadline(),
            self.log.next_deadline(),
            Some(self.next_tick),
        ];
        deadlines.into_iter().flatten().min()
    }
}
