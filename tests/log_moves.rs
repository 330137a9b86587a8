//! Goal: partitions go from one core's log to another's and back, under load and beside deletions, and whatever was reported durable by
//! either is there after any crash, at any moment of a move.

mod sim;

use ringlog::base::ids::{CoreIndex, Offset, PartitionId, TopicId};
use ringlog::log::{
    CoreLog, LogError, LogIndex, LogSettings, Opening, PartitionSettings, Refused, ScannedJournal, partition_dir_name,
    recover, scan,
};
use ringlog::ports::Disk;
use sim::disk::SimDisk;
use sim::model::{Batches, append, check, for_seeds, seeds, small_settings};
use sim::world::World;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const DATA: &str = "/data/partitions";
const CORES: usize = 2;
const PARTITIONS: usize = 4;

/// What a partition must hold, and who has it.
#[derive(Default)]
struct Model {
    batches: Batches,
    end: Offset,
    durable: Offset,
    /// Where the log must start at least, and may start at most.
    start: Rc<Cell<Offset>>,
    start_max: Offset,
    core: usize,
    log: Option<LogIndex>,
    /// A move that has begun.
    moving: Option<Arrival>,
}

/// Where a move has ended, once it has.
type Arrival = Rc<Cell<Option<(usize, LogIndex)>>>;

struct Run {
    world: World,
    models: BTreeMap<PartitionId, Model>,
    settings: LogSettings,
    partition: PartitionSettings,
    logs: Vec<CoreLog<SimDisk>>,
    /// Partitions in use are those from here on.
    first: i32,
    dropped: HashSet<PartitionId>,
    retaining: Rc<Cell<bool>>,
    moved: Rc<Cell<u64>>,
    taken_back: Rc<Cell<u64>>,
}

fn journal(core: usize) -> PathBuf {
    PathBuf::from(format!("/data/journal-of-core-{core}"))
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut world = World::new(seed);
        let segment_bytes = [40 << 10, 150 << 10, 1 << 30][world.rng.below(3)];
        let retention_bytes = world.rng.one_in(2).then_some(segment_bytes);
        let partition =
            PartitionSettings { segment_bytes, retention_bytes, delete_delay_ms: 20, ..PartitionSettings::default() };
        let recovery_bytes_max = [usize::MAX, 1 << 10][world.rng.below(2)];
        let crowd = [usize::MAX, 3, 1][world.rng.below(3)];
        let window_us = [0, 300][world.rng.below(2)];
        let large_batch_bytes = [usize::MAX / 2, 1_000][world.rng.below(2)];
        Run {
            world,
            models: BTreeMap::new(),
            settings: small_settings(recovery_bytes_max, crowd, window_us, large_batch_bytes),
            partition,
            logs: Vec::new(),
            first: 0,
            dropped: HashSet::new(),
            retaining: Rc::default(),
            moved: Rc::default(),
            taken_back: Rc::default(),
        }
    }

    /// Recovers from both journals, opens each partition on a core of chance, and checks it against the models.
    fn start(&mut self) {
        let disk = self.world.disk.clone();
        let scanned: Vec<ScannedJournal> = (0..CORES).map(|core| self.scan(core)).collect();
        let mut newest: HashMap<PartitionId, (u32, usize)> = HashMap::new();
        for (core, journal) in scanned.iter().enumerate() {
            for (id, partition) in &journal.partitions {
                let known = newest.entry(*id).or_insert((partition.generation, core));
                assert!(
                    known.1 == core || known.0 != partition.generation,
                    "{id}: a generation is in one journal only"
                );
                *known = (*known).max((partition.generation, core));
            }
        }
        let mut found = Vec::new();
        for (core, journal) in scanned.iter().enumerate() {
            let wanted = |id: PartitionId| newest.get(&id).is_some_and(|(_, holder)| *holder == core);
            found.extend(self.world.run(recover(&disk, Path::new(DATA), journal, wanted, |_, _| {})).expect("recover"));
        }
        self.logs.clear();
        for (core, journal) in scanned.iter().enumerate() {
            let salt = self.world.rng.next() as u32;
            let (disk, index) = (disk.of_core(core as u16), CoreIndex(core as u16));
            let log = self.world.run(CoreLog::open(disk, self.settings.clone(), index, journal, salt)).expect("open");
            match core {
                0 => self.world.log = Some(log.clone()),
                _ => self.world.second = Some(log.clone()),
            }
            self.logs.push(log);
        }
        let mut opened = BTreeMap::new();
        for (id, recovered) in found {
            let recovered = recovered.expect("no damage");
            let (core, end) = (self.world.rng.below(CORES), recovered.end_offset);
            let open = self.logs[core].open_partition(recovered, self.partition, b"producers");
            opened.insert(id, (core, self.world.run(open).expect("open partition"), end));
        }
        for log in self.logs.clone() {
            self.world.run(log.until_durable()).expect("checkpoints");
        }
        for log in self.logs.clone() {
            self.world.run(log.release_recovered()).expect("release");
        }
        assert!(!opened.keys().any(|id| self.dropped.contains(id)), "what was deleted is not found again");
        for (id, model) in &mut self.models {
            let Some(&(core, log, end)) = opened.get(id) else {
                assert!(model.durable == 0, "{id} is lost");
                *model = Model::default();
                continue;
            };
            assert!(end >= model.durable, "{id}: durable up to {}, found up to {end}", model.durable);
            assert!(end <= model.end, "{id}: more than was ever appended");
            let (start, _) = self.logs[core].offsets(log).expect("open");
            let start_min = model.start.get();
            assert!(
                (start_min..=model.start_max.max(start_min)).contains(&start),
                "{id} starts at {start}, not in {start_min}..={}",
                model.start_max
            );
            model.batches.retain(|batch| batch.1 <= end);
            let (batches, start_max) = (std::mem::take(&mut model.batches), start);
            let (start, log) = (Rc::new(Cell::new(start)), Some(log));
            *model = Model { batches, end, durable: end, start, start_max, core, log, moving: None };
        }
        self.check();
    }

    fn scan(&mut self, core: usize) -> ScannedJournal {
        let disk = self.world.disk.clone();
        let scanned = self.world.run(scan(&disk, &journal(core), self.settings.recovery_bytes_max));
        let mut scanned = scanned.expect("scan");
        scanned.crowd = self.settings.crowd;
        assert!(scanned.damage.is_empty(), "a crash is no damage: {:?}", scanned.damage);
        scanned
    }

    /// Reads back what is not on its way.
    fn check(&mut self) {
        for (id, model) in &mut self.models {
            let Some(log) = model.log.filter(|_| model.moving.is_none()) else { continue };
            let (start, end) = self.logs[model.core].offsets(log).expect("open");
            assert!(
                start >= model.start.get() && start <= model.start_max && end == model.end,
                "{id}: {start} to {end}"
            );
            check(&mut self.world, &self.logs[model.core], (*id, log), (start, end), &model.batches);
        }
    }

    /// Appends, moves and deletes at random.
    fn work(&mut self, count: usize) {
        for _ in 0..count {
            let index = self.first + self.world.rng.below(PARTITIONS) as i32;
            let id = PartitionId { topic: TopicId([3; 16]), index };
            if self.dropped.contains(&id) {
                continue;
            }
            if self.models.entry(id).or_default().log.is_none() {
                let core = self.world.rng.below(CORES);
                let dir = Path::new(DATA).join(partition_dir_name("topic", id));
                let create = self.logs[core].create(id, Opening { dir, settings: self.partition }, 0, b"");
                let log = Some(self.world.run(create).expect("create"));
                self.models.insert(id, Model { core, log, ..Model::default() });
            }
            let model = self.models.get_mut(&id).expect("made");
            if model.moving.is_none() {
                let log = model.log.expect("made");
                model.end = append(&mut self.world, &self.logs[model.core], log, model.end, &mut model.batches);
                match self.world.rng.below(180) {
                    0..9 => self.begin_move(id),
                    9..12 => self.delete(id),
                    12 => self.drop(id),
                    _ => {}
                }
            }
            if self.world.rng.one_in(3) {
                self.world.turn();
            }
            self.take_durable();
        }
    }

    /// Starts a move in the background, as a shard does it: appends have ended.
    fn begin_move(&mut self, id: PartitionId) {
        let fails = self.world.rng.one_in(5);
        let model = self.models.get_mut(&id).expect("made");
        let (from, to, log) = (model.core, CORES - 1 - model.core, model.log.expect("made"));
        let ended = Rc::new(Cell::new(None));
        model.moving = Some(ended.clone());
        let (giver, taker, settings) = (self.logs[from].clone(), self.logs[to].clone(), self.partition);
        let (moved, taken_back) = (self.moved.clone(), self.taken_back.clone());
        self.world.disk.spawn(async move {
            let recovered = giver.release(log).await.expect("release");
            if fails {
                giver.take_back(log);
                taken_back.set(taken_back.get() + 1);
                return ended.set(Some((from, log)));
            }
            let opened = taker.open_partition(recovered, settings, b"producers").await.expect("open");
            taker.until_durable().await.expect("durable");
            giver.forget(log).await.expect("forget");
            moved.set(moved.get() + 1);
            ended.set(Some((to, opened)));
        });
    }

    /// Takes note of where a move has ended.
    fn arrive(&mut self, id: PartitionId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        if let Some((core, log)) = model.moving.as_ref().and_then(|moving| moving.get()) {
            (model.core, model.log, model.moving) = (core, Some(log), None);
            let (_, end) = self.logs[core].offsets(log).expect("open");
            assert_eq!(end, model.end, "{id}: a move loses nothing");
            model.durable = end;
        }
    }

    /// Deletes from the front, beside whatever else happens to the partition.
    fn delete(&mut self, id: PartitionId) {
        // As a shard does it: one partition after the other.
        let by_size = self.world.rng.one_in(2) && !self.retaining.replace(true);
        let retaining = self.retaining.clone();
        let now_ms = self.world.now.wall_ms;
        let model = self.models.get_mut(&id).expect("made");
        let (log, index, limit) = (self.logs[model.core].clone(), model.log.expect("made"), model.durable);
        let (start, wanted) = (model.start.clone(), model.durable.min(model.start.get() + 5));
        model.start_max = if by_size { limit } else { wanted }.max(model.start_max);
        self.world.disk.spawn(async move {
            if by_size {
                log.apply_retention(index, now_ms, limit).await.expect("retention");
                return retaining.set(false);
            }
            match log.set_start_offset(index, wanted).await {
                Ok(()) => start.set(start.get().max(wanted)),
                Err(LogError::Refused(Refused::Busy)) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }

    /// Deletes a partition for ever; another one takes its place.
    fn drop(&mut self, id: PartitionId) {
        let model = self.models.remove(&id).expect("made");
        let log = self.logs[model.core].clone();
        self.world.run(log.drop_partition(model.log.expect("made"))).expect("drop");
        self.dropped.insert(id);
        while self.dropped.contains(&PartitionId { index: self.first, ..id }) {
            self.first += 1;
        }
    }

    fn take_durable(&mut self) {
        // A place in a log may be another partition's by now.
        let ids: Vec<PartitionId> = self.models.keys().copied().collect();
        ids.into_iter().for_each(|id| self.arrive(id));
        let reported = [std::mem::take(&mut self.world.durable), std::mem::take(&mut self.world.second_durable)];
        for (core, durable) in
            reported.into_iter().enumerate().flat_map(|(core, all)| all.into_iter().map(move |one| (core, one)))
        {
            // What reaches further than it has ever been told of the partition that had the place before.
            let of = |model: &&mut Model| {
                model.core == core && model.log == Some(durable.log) && durable.end_offset <= model.end
            };
            let Some(model) = self.models.values_mut().find(of) else { continue };
            model.durable = model.durable.max(durable.end_offset);
        }
    }

    fn crash(&mut self) {
        self.logs.clear();
        self.retaining = Rc::default();
        self.world.crash();
    }
}

#[test]
fn what_was_durable_survives_moves_and_any_crash() {
    let reached = RefCell::new((0, 0, 0));
    for_seeds(|seed| {
        let mut run = Run::new(seed);
        for _ in 0..3 {
            run.start();
            let count = run.world.rng.below(400);
            run.work(count);
            if run.world.rng.one_in(3) {
                run.world.settle();
                run.take_durable();
            }
            if run.world.rng.one_in(2) {
                // Nobody deletes any more.
                run.world.settle();
                run.take_durable();
                run.check();
            }
            let interrupted = run.models.values().filter(|model| model.moving.is_some()).count();
            reached.borrow_mut().2 += interrupted;
            run.crash();
        }
        run.start();
        let mut reached = reached.borrow_mut();
        reached.0 += run.moved.get();
        reached.1 += run.taken_back.get();
    });
    let (moved, taken_back, interrupted) = *reached.borrow();
    if seeds().count() > 1 {
        assert!(moved > 0 && taken_back > 0 && interrupted > 0, "{:?}", (moved, taken_back, interrupted));
    }
}
