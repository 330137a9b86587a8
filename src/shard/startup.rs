//! From data directories to a shard that serves: journals are replayed, the metadata is read, partitions and groups are opened.
//!
//! Cores do this side by side and meet at a board between the steps, since a partition may belong to another core than the
//! one in whose journal it was, and only the controller's core can read the metadata. No request is served meanwhile, so that
//! waiting there blocks nobody.

use super::apply::is_metadata;
use super::balance::Balancing;
use super::control::{Asker, CONTROLLER_CORE, Controlled, Controlling};
use super::groups::Coordinating;
use super::leftovers::{PartitionDirs, list_partition_dirs, own_data_dirs};
use super::moves::Moves;
use super::open::RecoveredPartition;
use super::own::OwnAppends;
use super::producer_ids::HandingOut;
use super::replay::read_image;
use super::slab::Slab;
use super::snapshots::Snapshots;
use super::{Outbox, Shard, ShardSettings, World};
use crate::base::ids::{PartitionId, TopicId};
use crate::base::limits::PRODUCERS_PER_PARTITION_MAX;
use crate::base::time::Nanos;
use crate::cluster::commands::Command;
use crate::cluster::controller::Controller;
use crate::cluster::image::Image;
use crate::cluster::names::CONSUMER_OFFSETS;
use crate::group::Groups;
use crate::log::{CoreLog, Replay, ScannedJournal, recover, recover_from_segments, scan};
use crate::partition::producers::Producers;
use crate::partition::waiters::FetchWaiters;
use crate::ports::Disk;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Barrier, Mutex};

/// Partitions of a core that are opened at once.
const OPENING_AT_ONCE: usize = 32;

/// Where a shard is found as soon as there is one.
pub type Place<D> = Rc<RefCell<Option<Rc<RefCell<Shard<D>>>>>>;

/// Where the cores of a starting process meet.
pub struct StartBoard {
    barrier: Barrier,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// The newest record generation of each partition over all journals, and the journal that has it.
    newest: HashMap<PartitionId, (u32, PathBuf)>,
    recovered: HashMap<PartitionId, RecoveredPartition>,
    image: Option<Arc<Vec<Command>>>,
    /// The image came from a journal: it lacks nothing that was acknowledged.
    image_is_sure: bool,
    partition_dirs: PartitionDirs,
    /// What was found damaged: partitions that are not served, or places whose partition is not known.
    damage: Vec<(Option<PartitionId>, String)>,
    failed: Option<StartFailure>,
}

/// Why a core cannot start.
#[derive(Clone, Debug)]
pub enum StartFailure {
    /// A disk or file did not do as it was told.
    Io(String),
    /// Data that was once durable is not what it was.
    Damaged(String),
}

/// What recovery came to, for the first lines of the log.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// Partitions that this core serves.
    pub partitions: usize,
    /// Those of them that were found in a journal or on disk.
    pub recovered: usize,
    /// Batches that had to be replayed, because the broker was not stopped in order.
    pub replayed_batches: u64,
    /// Journals that ended in the middle of a commit: what was not acknowledged is gone.
    pub torn_journals: usize,
    /// Partitions that are not served, and why.
    pub damaged: Vec<String>,
}

impl Notes {
    /// Why `id` cannot be served, if it cannot.
    fn damage_of(&self, id: PartitionId) -> Option<String> {
        self.damage.iter().find(|(of, _)| *of == Some(id)).map(|(_, what)| what.clone())
    }

    /// Whether something was lost of which nobody knows whose it was.
    fn has_unknown_damage(&self) -> bool {
        self.damage.iter().any(|(of, _)| of.is_none())
    }
}

impl StartBoard {
    pub fn new(cores: u16) -> Arc<StartBoard> {
        Arc::new(StartBoard { barrier: Barrier::new(usize::from(cores)), notes: Mutex::default() })
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("a core that panics ends the process")
    }

    /// Waits for all cores to get here. If one has failed, all stop.
    fn meet<T>(&self, own: Result<T, StartFailure>) -> Result<T, StartFailure> {
        if let Err(failure) = &own {
            self.notes().failed.get_or_insert_with(|| failure.clone());
        }
        self.barrier.wait();
        let failed = self.notes().failed.clone();
        match failed {
            Some(failure) => Err(failure),
            None => own,
        }
    }
}

pub(super) fn io(error: impl std::fmt::Display) -> StartFailure {
    StartFailure::Io(error.to_string())
}

/// Starts the shard of one core. The core's turns must run meanwhile; they find the shard in `place` once there is one.
///
/// # Errors
/// Any core's failure, told to all.
pub async fn start<D: Disk>(
    disk: D,
    settings: ShardSettings,
    world: World,
    board: Arc<StartBoard>,
    place: Place<D>,
) -> Result<Started, StartFailure> {
    let mut started = Started::default();
    let (now, settings_core) = (world.now.clone(), settings.core);
    let phase = |name: &str, since: Nanos| {
        let at = now().mono;
        tracing::debug!(core = settings_core.0, ms = at.since(since) / 1_000_000, "start: {name}");
        at
    };
    let began = now().mono;
    let scanned = board.meet(scan_journals(&disk, &settings, &board).await)?;
    let at = phase("journals are scanned", began);
    started.torn_journals = scanned.iter().filter(|journal| journal.torn).count();
    board.meet(recover_journals(&disk, &settings, &board, &scanned, &mut started).await)?;
    let at = phase("segments are completed", at);

    let shard = board.meet(open_shard(&disk, settings, world, &scanned).await)?;
    *place.borrow_mut() = Some(shard.clone());
    let image = if shard.borrow().core == CONTROLLER_CORE { open_metadata(&shard, &board).await } else { Ok(()) };
    board.meet(image)?;
    let commands = board.notes().image.clone().expect("the controller's core has posted it");
    board.meet(take_image(&shard, &commands))?;
    let at = phase("the metadata is read", at);
    board.meet(open_partitions(&shard, &board, &mut started).await)?;
    // Before any core gives back the journal in which one of these partitions was.
    let log = shard.borrow().log.clone();
    board.meet(log.until_durable().await.map_err(io))?;
    let at = phase("partitions are open", at);
    board.meet(load_groups(&shard).await)?;
    // The journal of a damaged partition is all there is of what its segments lack: it stays until somebody has mended that.
    let is_whole = board.notes().damage.is_empty();
    board.meet(if is_whole { log.release_recovered().await.map_err(io) } else { Ok(()) })?;
    phase("groups are loaded and old journals released", at);
    let discarded = needless(&shard.borrow(), &board, &scanned);
    started.damaged = board.notes().damage.iter().map(|(_, what)| what.clone()).collect();
    let mut shard = shard.borrow_mut();
    shard.remove_leftovers(discarded);
    shard.starting = false;
    started.partitions = shard.by_id.len();
    Ok(started)
}

/// The directories of journals that this core looks after: its own, and those of cores that are no more.
async fn journal_dirs<D: Disk>(disk: &D, settings: &ShardSettings) -> Result<Vec<PathBuf>, StartFailure> {
    let mut dirs = vec![own_journal_dir(settings)];
    for data_dir in &settings.data_dirs {
        let journals = data_dir.join("journal");
        for name in disk.list(&journals).await.map_err(io)? {
            let core = name.to_str().and_then(|name| name.strip_prefix("core-")?.parse::<u16>().ok());
            let dir = journals.join(&name);
            let is_mine = core.is_some_and(|core| core % settings.core_count == settings.core.0);
            if is_mine && !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
    }
    Ok(dirs)
}

fn own_journal_dir(settings: &ShardSettings) -> PathBuf {
    settings.data_dir.join("journal").join(format!("core-{}", settings.core.0))
}

async fn scan_journals<D: Disk>(
    disk: &D,
    settings: &ShardSettings,
    board: &StartBoard,
) -> Result<Vec<ScannedJournal>, StartFailure> {
    let mut scanned = Vec::new();
    for dir in journal_dirs(disk, settings).await? {
        let journal = scan(disk, &dir, settings.log.recovery_bytes_max).await.map_err(io)?;
        let mut notes = board.notes();
        for (id, partition) in &journal.partitions {
            let newest = notes.newest.entry(*id).or_insert_with(|| (partition.generation, dir.clone()));
            if partition.generation > newest.0 {
                *newest = (partition.generation, dir.clone());
            }
        }
        for damage in journal.damage.iter().filter(|damage| damage.partition.is_none()) {
            notes.damage.push((None, damage.to_string()));
        }
        drop(notes);
        scanned.push(journal);
    }
    let found = list_partition_dirs(disk, settings).await?;
    board.notes().partition_dirs.add(found);
    Ok(scanned)
}

async fn recover_journals<D: Disk>(
    disk: &D,
    settings: &ShardSettings,
    board: &StartBoard,
    scanned: &[ScannedJournal],
    started: &mut Started,
) -> Result<(), StartFailure> {
    for journal in scanned {
        // Which other core's disk a partition lies on, its journal does not say: cores may have been fewer, or more.
        let near = journal.dir.ancestors().nth(2).unwrap_or(&settings.data_dir).join("partitions");
        let homes: HashMap<PartitionId, PathBuf> = {
            let notes = board.notes();
            let is_newest = |id: &&PartitionId| notes.newest.get(id).is_some_and(|(_, dir)| *dir == journal.dir);
            journal.partitions.keys().filter(is_newest).map(|id| (*id, notes.partition_dirs.home(*id, &near))).collect()
        };
        for home in homes.values().collect::<BTreeSet<_>>() {
            let wanted = |id: PartitionId| homes.get(&id) == Some(home);
            recover_partitions(disk, home, journal, wanted, board, started).await?;
        }
    }
    Ok(())
}

/// Recovers the `wanted` partitions of a journal, whose directories are in `home`.
async fn recover_partitions<D: Disk>(
    disk: &D,
    home: &Path,
    journal: &ScannedJournal,
    wanted: impl Fn(PartitionId) -> bool,
    board: &StartBoard,
    started: &mut Started,
) -> Result<(), StartFailure> {
    let mut producers: HashMap<PartitionId, Producers> = HashMap::new();
    let mut bad_snapshots = Vec::new();
    let results = recover(disk, home, journal, wanted, |id, replay| match replay {
        Replay::Checkpoint(blob) => match Producers::restore(blob) {
            Ok(restored) => {
                producers.insert(id, restored);
            }
            Err(error) => bad_snapshots.push(format!("the producers of partition {id} cannot be read: {error:?}")),
        },
        Replay::Batch(header, _) => {
            started.replayed_batches += 1;
            if let Some(producers) = producers.get_mut(&id) {
                producers.replay(header, header.max_timestamp);
            }
        }
    })
    .await
    .map_err(io)?;
    if let Some(bad) = bad_snapshots.into_iter().next() {
        return Err(StartFailure::Damaged(bad));
    }
    let mut notes = board.notes();
    for (id, result) in results {
        match result {
            Ok(recovered) => {
                let none = || Producers::new(PRODUCERS_PER_PARTITION_MAX);
                let producers = producers.remove(&id).unwrap_or_else(none);
                notes.recovered.insert(id, RecoveredPartition { recovered, producers });
            }
            Err(damage) => notes.damage.push((Some(id), damage.to_string())),
        }
    }
    Ok(())
}

/// Directories that nobody needs: of partitions that no topic has, and journals of cores that are no more. None where anything
/// is damaged or the image may lack something: they may be what is left of it.
fn needless<D: Disk>(shard: &Shard<D>, board: &StartBoard, scanned: &[ScannedJournal]) -> Vec<PathBuf> {
    let notes = board.notes();
    if !notes.damage.is_empty() || !notes.image_is_sure {
        return Vec::new();
    }
    let own = own_journal_dir(&shard.settings);
    let journals = scanned.iter().map(|journal| journal.dir.clone()).filter(|dir| *dir != own);
    // What is left of the recovered ones had no topic. Its journal says that it lives, so it stays until no journal does.
    let orphans = notes.partition_dirs.orphans(&shard.image, |id| notes.recovered.contains_key(&id));
    let is_mine = |dir: &PathBuf| own_data_dirs(&shard.settings).any(|data_dir| dir.starts_with(data_dir));
    journals.chain(orphans.into_iter().filter(is_mine)).collect()
}

async fn open_shard<D: Disk>(
    disk: &D,
    settings: ShardSettings,
    world: World,
    scanned: &[ScannedJournal],
) -> Result<Rc<RefCell<Shard<D>>>, StartFailure> {
    let own = own_journal_dir(&settings);
    let journal = scanned.iter().find(|journal| journal.dir == own).expect("the first of the list");
    let salt = (world.random)() as u32;
    let log = CoreLog::open(disk.clone(), settings.log.clone(), settings.core, journal, salt).await.map_err(io)?;
    Ok(Rc::new_cyclic(|me| RefCell::new(Shard::new(disk.clone(), settings, world, log, me.clone()))))
}

impl<D: Disk> Shard<D> {
    fn new(disk: D, settings: ShardSettings, world: World, log: CoreLog<D>, me: Weak<RefCell<Shard<D>>>) -> Shard<D> {
        let groups = Groups::new(settings.groups.clone());
        Shard {
            core: settings.core,
            settings,
            disk,
            world,
            me,
            image: Image::default(),
            log,
            partitions: Vec::new(),
            vacant_slots: Vec::new(),
            by_id: HashMap::new(),
            by_log: Vec::new(),
            committed: Vec::new(),
            durable_parts: Vec::new(),
            backlog: VecDeque::new(),
            waiting_fetches: Slab::default(),
            fetch_counters: Default::default(),
            fetch_origins: HashMap::new(),
            fetch_waiters: FetchWaiters::default(),
            ready_fetches: Vec::new(),
            own: OwnAppends::default(),
            controlling: Controlling::default(),
            coordinating: Coordinating::new(groups),
            handing_out: HandingOut::default(),
            unpacking: Rc::default(),
            snapshots: Snapshots::default(),
            moves: Moves::default(),
            balancing: Balancing::default(),
            starting: true,
            next_tick: Nanos(0),
            next_retention: Nanos(0),
            retaining: false,
            disk_full: false,
            outbox: Outbox { messages: Vec::new(), answers: Vec::new(), told: Vec::new() },
        }
    }

    /// Ends the shard in order: everything appended is written to the segments and checkpointed. Sets `done` when it is.
    pub fn close(shard: &Rc<RefCell<Shard<D>>>, done: Rc<Cell<bool>>) {
        let me = shard.clone();
        let (disk, log) = {
            let mut shard = shard.borrow_mut();
            // A change decided now would stand behind the end of the journal, where nobody reads it.
            shard.controlling.hold();
            (shard.disk.clone(), shard.log.clone())
        };
        disk.spawn(async move {
            let producers = |index| {
                let shard = me.borrow();
                let slot = shard.slot_of(index);
                slot.map_or_else(Vec::new, |slot| shard.partitions[slot as usize].state.producers().snapshot())
            };
            if let Err(error) = log.close(producers).await {
                tracing::error!("the log could not be closed in order, the next start replays the journal: {error}");
            }
            done.set(true);
        });
    }
}

/// The controller's core: reads the metadata log, registers this broker in it, posts the image.
async fn open_metadata<D: Disk>(shard: &Rc<RefCell<Shard<D>>>, board: &StartBoard) -> Result<(), StartFailure> {
    let id = PartitionId { topic: TopicId::METADATA, index: 0 };
    let damaged = board.notes().damage_of(id);
    if let Some(damage) = damaged {
        return Err(StartFailure::Damaged(damage));
    }
    let is_sure = board.notes().recovered.contains_key(&id);
    board.notes().image_is_sure = is_sure;
    let found = find_partition(shard, board, id).await?;
    match found {
        Some(found) => {
            Shard::open_partition(shard, id, found).await.map_err(StartFailure::Io)?;
            let (image, log_bytes) = read_image(shard, id).await?;
            let state_bytes = image.snapshot().iter().map(|command| command.encode().len() as u64).sum();
            let mut this = shard.borrow_mut();
            this.image = image;
            this.watch_growth(id, log_bytes, state_bytes);
        }
        None => {
            Shard::create_partition(shard, id).await;
            shard.borrow_mut().watch_growth(id, 0, 0);
        }
    }
    let commands = {
        let this = shard.borrow();
        let settings = &this.settings;
        let mut commands = Vec::new();
        if this.image.cluster_id().is_empty() {
            commands.push(Command::InitCluster { cluster_id: settings.cluster_id.clone() });
        }
        let broker = this.image.broker_configs(settings.node, &settings.statics);
        let controller = Controller { image: &this.image, broker };
        let registered = controller.register_broker(settings.node, settings.as_broker());
        commands.extend(registered.map_err(|refusal| io(refusal.message))?);
        commands
    };
    if !commands.is_empty() {
        let now = (shard.borrow().world.now)();
        shard.borrow_mut().begin_commands(Asker::Nobody, commands, Controlled::Done(vec![]), now);
        let log = shard.borrow().log.clone();
        log.until(|| shard.borrow().controlling.is_idle()).await;
    }
    board.notes().image = Some(Arc::new(shard.borrow().image.snapshot()));
    Ok(())
}

/// Cores other than the controller's take the image over.
fn take_image<D: Disk>(shard: &Rc<RefCell<Shard<D>>>, commands: &[Command]) -> Result<(), StartFailure> {
    let mut this = shard.borrow_mut();
    if this.core != CONTROLLER_CORE {
        let image = Image::from_snapshot(commands, commands.len() as u64);
        this.image = image.map_err(|wrong| StartFailure::Damaged(format!("metadata: {wrong:?}")))?;
    }
    Ok(())
}

/// Opens what this core owns: as recovered, or empty where a topic was made just before the end.
///
/// Several at once: opening is mostly waiting, for files and for commits that they then share.
async fn open_partitions<D: Disk>(
    shard: &Rc<RefCell<Shard<D>>>,
    board: &Arc<StartBoard>,
    started: &mut Started,
) -> Result<(), StartFailure> {
    let owned = Rc::new(RefCell::new(owned_partitions(&shard.borrow())));
    let recovered = Rc::new(Cell::new(0));
    let failed: Rc<RefCell<Option<StartFailure>>> = Rc::default();
    let running = Rc::new(Cell::new(OPENING_AT_ONCE));
    let (disk, log) = (shard.borrow().disk.clone(), shard.borrow().log.clone());
    for _ in 0..OPENING_AT_ONCE {
        let (shard, board, log) = (shard.clone(), board.clone(), log.clone());
        let (owned, running) = (owned.clone(), running.clone());
        let (recovered, failed) = (recovered.clone(), failed.clone());
        disk.spawn(async move {
            loop {
                let Some(id) = owned.borrow_mut().pop() else { break };
                match open_or_create(&shard, &board, id).await {
                    Ok(found) => recovered.set(recovered.get() + usize::from(found)),
                    Err(failure) => {
                        *failed.borrow_mut() = Some(failure);
                        owned.borrow_mut().clear();
                    }
                }
            }
            running.set(running.get() - 1);
            log.notify();
        });
    }
    log.until(|| running.get() == 0).await;
    started.recovered = recovered.get();
    failed.take().map_or(Ok(()), Err)
}

/// All partitions of topics that this core owns.
fn owned_partitions<D: Disk>(shard: &Shard<D>) -> Vec<PartitionId> {
    let mut owned = Vec::new();
    for topic in shard.image.topics() {
        let partitions = (0..).zip(&topic.partitions).filter(|(_, partition)| shard.owns(partition));
        owned
            .extend(partitions.map(|(index, _)| PartitionId { topic: topic.id, index }).filter(|id| !is_metadata(*id)));
    }
    owned
}

/// Opens one partition, or makes it. True if there was something to open.
async fn open_or_create<D: Disk>(
    shard: &Rc<RefCell<Shard<D>>>,
    board: &StartBoard,
    id: PartitionId,
) -> Result<bool, StartFailure> {
    // A damaged one is not served: its clients are told, and so is the operator.
    if board.notes().damage_of(id).is_some() {
        return Ok(false);
    }
    match find_partition(shard, board, id).await? {
        Some(found) => {
            Shard::open_partition(shard, id, found).await.map_err(StartFailure::Io)?;
            Ok(true)
        }
        None => {
            Shard::create_partition(shard, id).await;
            Ok(false)
        }
    }
}

/// What there is of a partition: what its journal told, or, where no journal knows it, what its files tell. `None`: nothing.
async fn find_partition<D: Disk>(
    shard: &Rc<RefCell<Shard<D>>>,
    board: &StartBoard,
    id: PartitionId,
) -> Result<Option<RecoveredPartition>, StartFailure> {
    if let Some(found) = board.notes().recovered.remove(&id) {
        return Ok(Some(found));
    }
    let (disk, dirs) = {
        let this = shard.borrow();
        let name = this.partition_dir_name(id);
        let dirs: Vec<PathBuf> = this.settings.data_dirs.iter().map(|dir| dir.join("partitions").join(&name)).collect();
        (this.disk.clone(), dirs)
    };
    for dir in dirs {
        if disk.list(&dir).await.map_err(io)?.is_empty() {
            continue;
        }
        tracing::warn!(partition = %id, dir = %dir.display(), "no journal knows this partition: its files alone tell what it holds");
        let recovered = recover_from_segments(&disk, &dir, id).await.map_err(io)?;
        return Ok(Some(RecoveredPartition { recovered, producers: Producers::new(PRODUCERS_PER_PARTITION_MAX) }));
    }
    if board.notes().has_unknown_damage() {
        let what =
            format!("partition {id} has no files, and a damaged journal may have held it: restore the data directory");
        return Err(StartFailure::Damaged(what));
    }
    Ok(None)
}

/// Replays the groups whose offsets partitions this core owns.
async fn load_groups<D: Disk>(shard: &Rc<RefCell<Shard<D>>>) -> Result<(), StartFailure> {
    shard.borrow_mut().count_group_partitions();
    let owned: Vec<PartitionId> = {
        let this = shard.borrow();
        let Some(topic) = this.image.topic_by_name(CONSUMER_OFFSETS) else { return Ok(()) };
        let partitions = (0..).zip(&topic.partitions).filter(|(_, partition)| this.owns(partition));
        partitions.map(|(index, _)| PartitionId { topic: topic.id, index }).collect()
    };
    for id in owned {
        Shard::load_group_partition(shard, id).await?;
    }
    Ok(())
}
