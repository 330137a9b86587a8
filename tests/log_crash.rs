//! Goal: whatever was reported durable is there after any crash, byte for byte, at its offset; and nothing else is served as if it were.

mod sim;

use ringlog::base::ids::{CoreIndex, Offset, PartitionId, TopicId};
use ringlog::log::{
    CoreLog, Counters, LogIndex, LogSettings, Opening, PartitionSettings, Replay, partition_dir_name, recover, scan,
};
use ringlog::ports::Disk;
use sim::disk::SimDisk;
use sim::model::{Batches, append, check, for_seeds, seeds, small_settings};
use sim::world::{World, blob};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const DATA: &str = "/data/partitions";
const JOURNAL: &str = "/data/journal-of-core-0";

/// What a partition must hold.
#[derive(Default)]
struct Model {
    batches: Batches,
    end: Offset,
    durable: Offset,
    /// Where the log must start at least, and may start at most.
    start: Offset,
    start_max: Offset,
    /// A truncation to here has begun.
    cut: Option<Offset>,
    /// A deletion has begun; nothing of it may be left, or all.
    dropping: bool,
    log: Option<LogIndex>,
}

struct Run {
    world: World,
    models: BTreeMap<PartitionId, Model>,
    settings: LogSettings,
    partition: PartitionSettings,
}

fn id(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([3; 16]), index }
}

fn opening(id: PartitionId, settings: PartitionSettings) -> Opening {
    Opening { dir: Path::new(DATA).join(partition_dir_name("topic", id)), settings }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut world = World::new(seed);
        let segment_bytes = [40 << 10, 150 << 10, 1 << 30][world.rng.below(3)];
        let partition = PartitionSettings { segment_bytes, delete_delay_ms: 20, ..PartitionSettings::default() };
        // All that is replayed in memory; little of it, so that the journal is read twice; or some, which depends.
        let recovery_bytes_max = [usize::MAX, 1 << 10, 200 << 10][world.rng.below(3)];
        // Each segment synced alone, some of them together, or all.
        let crowd = [usize::MAX, 3, 1][world.rng.below(3)];
        let window_us = [0, 300, 5_000][world.rng.below(3)];
        // No batch, large ones, or most of them go to their segments first.
        let large_batch_bytes = [usize::MAX / 2, 15_000, 100][world.rng.below(3)];
        let settings = small_settings(recovery_bytes_max, crowd, window_us, large_batch_bytes);
        Run { world, models: BTreeMap::new(), settings, partition }
    }

    /// Recovers what is there, opens it, and checks it against the models.
    fn start(&mut self) {
        let world = &mut self.world;
        let disk = world.disk.clone();
        let mut scanned = world.run(scan(&disk, Path::new(JOURNAL), self.settings.recovery_bytes_max)).expect("scan");
        scanned.crowd = self.settings.crowd;
        assert!(scanned.damage.is_empty(), "a crash is no damage: {:?}", scanned.damage);
        // What the shard would know of each partition: all before this offset.
        let mut replayed: HashMap<PartitionId, Offset> = HashMap::new();
        let recovered = world
            .run(recover(
                &disk,
                Path::new(DATA),
                &scanned,
                |_| true,
                |id, replay| match replay {
                    Replay::Checkpoint(producers) => {
                        let end = producers.try_into().map(Offset::from_be_bytes).unwrap_or_default();
                        assert_eq!(replayed.insert(id, end), None, "{id}: the checkpoint comes first, and once");
                    }
                    Replay::Batch(header, _) => {
                        let end = replayed.insert(id, header.next_offset());
                        assert_eq!(end, Some(header.base_offset), "{id}: each batch behind the checkpoint, in order");
                    }
                },
            ))
            .expect("recover");
        let salt = world.rng.next() as u32;
        let log = world.run(CoreLog::open(disk, self.settings.clone(), CoreIndex(0), &scanned, salt)).expect("open");
        world.log = Some(log.clone());
        let mut found = HashMap::new();
        for (id, recovered) in recovered {
            let recovered = recovered.expect("no damage");
            let end = recovered.end_offset;
            assert_eq!(replayed[&id], end, "{id}: the shard knows as much as the log");
            let index = world.run(log.open_partition(recovered, self.partition, &blob(end))).expect("open partition");
            found.insert(id, (index, end));
        }
        world.run(log.until_durable()).expect("checkpoints");
        if world.rng.one_in(4) {
            return self.adopt(found, false);
        }
        world.run(log.release_recovered()).expect("release");
        self.adopt(found, true);
    }

    fn adopt(&mut self, found: HashMap<PartitionId, (LogIndex, Offset)>, check: bool) {
        for (id, model) in &mut self.models {
            let Some(&(log, end)) = found.get(id) else {
                assert!(model.durable == 0 || model.dropping, "{id} is lost");
                *model = Model::default();
                continue;
            };
            let (start, _) = self.world.log.as_ref().expect("started").offsets(log).expect("open");
            assert!(start >= model.start && start <= model.start_max.max(model.start), "{id} starts at {start}");
            (model.start, model.start_max) = (start, start);
            (model.dropping, model.cut) = (false, None);
            assert!(end >= model.durable, "{id}: durable up to {}, found up to {end}", model.durable);
            assert!(end <= model.end, "{id}: more than was ever appended");
            model.batches.retain(|batch| batch.1 <= end);
            assert_eq!(model.batches.last().map_or(end, |batch| batch.1), end, "{id} ends within a batch");
            model.end = end;
            model.durable = end;
            model.log = Some(log);
        }
        if check {
            self.check();
        }
    }

    /// Reads everything back.
    fn check(&mut self) {
        let log = self.world.log.clone().expect("started");
        let models = std::mem::take(&mut self.models);
        for (id, model) in &models {
            let Some(index) = model.log else { continue };
            check(&mut self.world, &log, (*id, index), (model.start, model.end), &model.batches);
        }
        self.models = models;
    }

    /// Appends, and where `changes` does other things to partitions. Returns true where one of them is to be cut off by a crash.
    fn append_some(&mut self, count: usize, changes: bool) -> bool {
        let log = self.world.log.clone().expect("started");
        for _ in 0..count {
            let id = id(self.world.rng.below(4) as i32);
            let index = match self.models.entry(id).or_default().log {
                Some(index) => index,
                None => {
                    let opening = opening(id, self.partition);
                    let index = self.world.run(log.create(id, opening, 0, b"")).expect("create");
                    self.models.get_mut(&id).expect("entered").log = Some(index);
                    index
                }
            };
            let model = self.models.get_mut(&id).expect("entered");
            model.end = append(&mut self.world, &log, index, model.end, &mut model.batches);
            if self.world.rng.one_in(3) {
                self.world.turn();
            }
            self.take_durable();
            if changes && self.world.rng.one_in(40) && self.change(id, index) {
                return true;
            }
        }
        false
    }

    /// Cuts, trims or deletes a partition. Returns true where the crash is to come before it is done.
    fn change(&mut self, id: PartitionId, index: LogIndex) -> bool {
        let log = self.world.log.clone().expect("started");
        let model = self.models.get_mut(&id).expect("entered");
        let choice = self.world.rng.below(4);
        let at = self.world.rng.below(model.batches.len() + 1);
        let offset = model.batches.get(at).map_or(model.end, |batch| batch.0).max(model.start);
        let world_log = log.clone();
        let limit = model.durable;
        let now_ms = self.world.now.wall_ms;
        let segment_bytes = self.partition.segment_bytes;
        let kept = PartitionSettings { retention_bytes: Some(segment_bytes), ..self.partition };
        match choice {
            0 => (model.durable, model.cut) = (model.durable.min(offset), Some(offset)),
            1 => model.start_max = model.start_max.max(offset),
            2 => model.start_max = model.durable.max(model.start_max),
            _ => model.dropping = true,
        }
        let work = async move {
            match choice {
                0 => drop(world_log.truncate(index, offset, blob).await.expect("truncate")),
                1 => world_log.set_start_offset(index, offset).await.expect("start"),
                2 => {
                    world_log.set_settings(index, kept);
                    world_log.apply_retention(index, now_ms, limit).await.expect("retention");
                }
                _ => world_log.drop_partition(index).await.expect("drop"),
            }
        };
        if self.world.rng.one_in(4) {
            self.world.disk.spawn(work);
            for _ in 0..self.world.rng.below(60) {
                self.world.turn();
            }
            return true;
        }
        self.world.run(work);
        self.take_durable();
        let model = self.models.get_mut(&id).expect("entered");
        match choice {
            0 => {
                let (_, end) = log.offsets(index).expect("open");
                assert_eq!(end, offset, "cut at a batch");
                model.batches.retain(|batch| batch.1 <= end);
                (model.end, model.durable, model.cut) = (end, end, None);
            }
            1 | 2 => {
                let (start, _) = log.offsets(index).expect("open");
                assert!(start >= model.start && start <= model.start_max);
                (model.start, model.start_max) = (start, start);
            }
            _ => *model = Model::default(),
        }
        false
    }

    fn take_durable(&mut self) {
        for durable in std::mem::take(&mut self.world.durable) {
            let model = self.models.values_mut().find(|model| model.log == Some(durable.log)).expect("known");
            assert!(durable.end_offset <= model.end);
            let end = durable.end_offset.min(model.cut.unwrap_or(Offset::MAX));
            model.durable = model.durable.max(end);
        }
    }

    fn close(&mut self) {
        let log = self.world.log.clone().expect("started");
        let ends = log.clone();
        let producers = |index| blob(ends.offsets(index).map_or(0, |(_, end)| end));
        self.world.run(log.close(producers)).expect("close");
        self.take_durable();
    }
}

/// What all seeds together have exercised, so that a test that no longer reaches a path fails.
#[derive(Default)]
struct Reached(Mutex<Counters>);

impl Reached {
    fn add(&self, log: &CoreLog<SimDisk>) {
        let more = log.counters();
        let mut sum = self.0.lock().expect("no other thread");
        sum.journal.files_recycled += more.journal.files_recycled;
        sum.journal.appends += more.journal.appends;
        sum.journal.checkpoints += more.journal.checkpoints;
        sum.segments.rolled += more.segments.rolled;
        sum.segments.chunks_evicted += more.segments.chunks_evicted;
        sum.segments.reads_file += more.segments.reads_file;
        sum.segments.reads_memory += more.segments.reads_memory;
        sum.segments.indexes_loaded += more.segments.indexes_loaded;
        sum.segments.indexes_rebuilt += more.segments.indexes_rebuilt;
        sum.journal.refused_backlog += more.journal.refused_backlog;
        sum.journal.placed += more.journal.placed;
        sum.segments.syncs += more.segments.syncs;
        sum.segments.syncs_together += more.segments.syncs_together;
        sum.segments.deleted += more.segments.deleted;
    }

    fn assert_all(&self) {
        let sum = *self.0.lock().expect("no other thread");
        assert!(sum.journal.files_recycled > 0 && sum.journal.checkpoints > 0 && sum.segments.rolled > 0, "{sum:?}");
        assert!(
            sum.segments.chunks_evicted > 0 && sum.segments.reads_file > 0 && sum.segments.reads_memory > 0,
            "{sum:?}"
        );
        assert!(sum.segments.indexes_loaded > 0 && sum.segments.indexes_rebuilt > 0, "{sum:?}");
        assert!(sum.journal.placed > 0 && sum.journal.placed < sum.journal.appends, "{sum:?}");
        assert!(sum.journal.refused_backlog > 0 && sum.segments.deleted > 0, "{sum:?}");
        assert!(sum.segments.syncs > 0 && sum.segments.syncs_together > 0, "{sum:?}");
    }
}

#[test]
fn what_was_durable_survives_any_crash() {
    let reached = Reached::default();
    for_seeds(|seed| {
        let mut run = Run::new(seed);
        for _ in 0..3 {
            run.start();
            let count = run.world.rng.below(400);
            if run.append_some(count, true) {
                run.world.crash();
                continue;
            }
            if run.world.rng.one_in(3) {
                run.check();
            }
            if run.world.rng.one_in(3) {
                run.world.settle();
                run.take_durable();
            }
            if run.world.rng.one_in(5) {
                run.close();
            }
            reached.add(run.world.log.as_ref().expect("started"));
            run.world.crash();
        }
        run.start();
        run.check();
        reached.add(run.world.log.as_ref().expect("started"));
    });
    if seeds().count() > 1 {
        reached.assert_all();
    }
}

#[test]
fn a_closed_log_replays_nothing() {
    for_seeds(|seed| {
        let mut run = Run::new(seed);
        run.start();
        run.append_some(200, false);
        run.close();
        run.world.crash();
        let disk = run.world.disk.clone();
        let scanned = run.world.run(scan(&disk, Path::new(JOURNAL), run.settings.recovery_bytes_max)).expect("scan");
        assert!(scanned.is_closed);
        let count = |_: PartitionId, replay: Replay<'_>| assert!(matches!(replay, Replay::Checkpoint(_)));
        let recovered =
            run.world.run(recover(&disk, &PathBuf::from(DATA), &scanned, |_| true, count)).expect("recover");
        assert_eq!(recovered.len(), run.models.values().filter(|model| model.log.is_some()).count());
        run.start();
        run.check();
    });
}
