//! Goal: committed offsets and metadata outlive any crash while their logs are begun anew again and again, and those logs stay small.
//!
//! A whole shard on a simulated disk. After each crash every key must have the last value that was acknowledged, or a later one that
//! was asked for. A failure prints `SEED=…`; `SEED` repeats one, `SEEDS` says how many are tried.

mod sim;

use ringlog::base::error::ErrorCode;
use ringlog::base::ids::{CoreIndex, PartitionId, TopicId};
use ringlog::base::record::BatchBuilder;
use ringlog::cluster::names::CONSUMER_OFFSETS;
use ringlog::group::{self, CommitPartition, CommitTopic, OffsetCommit, OffsetDelete, OffsetFetch, Reply};
use ringlog::log::{parse_partition_dir_name, partition_dir_name};
use ringlog::ports::Disk;
use ringlog::shard::commands::{Answer, Command, ListOffset, OffsetSpec, Origin, ProducePart, RequestId};
use ringlog::shard::control::{ConfigValue, Control, Controlled, Resource, TopicNamed, TopicWanted};
use ringlog::shard::startup::{StartBoard, start};
use ringlog::shard::{GroupSettings, Shard, ShardSettings};
use sim::disk::{SimDisk, SimFile};
use sim::shards::{DATA, outside};
use sim::world::World;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const OFFSETS_PARTITIONS: i32 = 2;
const GROUPS: usize = 4;
/// A text for a topic, so that an image takes more than one slice.
const TOPIC_TEXT: &str = "follower.replication.throttled.replicas";

/// Group, topic, partition.
type Key = (String, String, i32);
/// Partitions and the length of the topic's text.
type Topics = BTreeMap<String, (usize, usize)>;

/// A change of the metadata, as the test understands it.
#[derive(Clone, Debug)]
enum Change {
    Create(String, usize, usize),
    Delete(String),
    Text(String, usize),
    ProducerIds,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Metadata {
    topics: Topics,
    next_producer_id: i64,
}

impl Metadata {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(name, partitions, text) => {
                self.topics.entry(name.clone()).or_insert((*partitions, *text));
            }
            Change::Delete(name) => drop(self.topics.remove(name)),
            Change::Text(name, text) => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.1 = *text;
                }
            }
            Change::ProducerIds => self.next_producer_id += 1000,
        }
    }
}

struct Run {
    world: World,
    /// What a key may have: the last that was acknowledged, and what was asked for since, by which request.
    offsets: BTreeMap<Key, Vec<(u64, Option<i64>)>>,
    metadata: Metadata,
    /// Asked for, oldest first.
    changes: Vec<(u64, Change)>,
    next_request: u64,
    /// Length of what is committed beside an offset.
    text: usize,
    growth: u64,
}

fn settings(run: &Run) -> ShardSettings {
    ShardSettings {
        groups: GroupSettings { offsets_partition_count: OFFSETS_PARTITIONS, ..GroupSettings::default() },
        statics: [("log.segment.delete.delay.ms".to_owned(), "20".to_owned())].into(),
        own_log_growth_bytes: run.growth,
        ..sim::shards::settings(0, 1)
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut world = World::new(seed);
        // Small values make many snapshots of one slice, large ones fewer of several.
        let (text, growth) = [(0, 4 << 10), (200, 16 << 10), (4_000, 32 << 10)][world.rng.below(3)];
        Run {
            world,
            offsets: BTreeMap::new(),
            metadata: Metadata::default(),
            changes: Vec::new(),
            next_request: 1,
            text,
            growth,
        }
    }

    fn shard(&self) -> Rc<RefCell<Shard<SimDisk>>> {
        self.world.shards[0].borrow().clone().expect("started")
    }

    fn execute(&mut self, command: Command) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        let origin = Origin { core: CoreIndex(0), request: RequestId(request) };
        self.shard().borrow_mut().execute(origin, command, self.world.now);
        request
    }

    /// Turns until `request` is answered.
    fn answer(&mut self, request: u64) -> Answer<SimFile> {
        for _ in 0..100_000 {
            if let Some(at) = self.world.answers.iter().position(|(id, _)| id.0 == request) {
                return self.world.answers.swap_remove(at).1;
            }
            self.world.turn();
        }
        panic!("no answer");
    }

    /// Starts the shard on what is on the disk, and holds it against what it must have.
    fn start(&mut self) {
        let world = outside(&mut self.world);
        let (disk, settings, place) = (self.world.disk.clone(), settings(self), self.world.shards[0].clone());
        let started = self.world.run(start(disk, settings, world, StartBoard::new(1), place)).expect("starts");
        assert!(started.damaged.is_empty(), "a crash is no damage: {:?}", started.damaged);
        if self.shard().borrow().image().topic_by_name(CONSUMER_OFFSETS).is_none() {
            let wanted = self.shard().borrow().offsets_topic();
            let create = Control::CreateTopics { topics: vec![wanted], validate_only: false };
            let request = self.execute(Command::Control(create));
            assert!(matches!(self.answer(request), Answer::Control(Controlled::Created(_))));
        }
        self.check_metadata();
        self.check_offsets();
    }

    fn observed(&self) -> Metadata {
        let shard = self.shard();
        let shard = shard.borrow();
        let topics = shard.image().topics().filter(|topic| &*topic.name != CONSUMER_OFFSETS);
        let seen = topics.map(|topic| {
            let text = topic.configs.get(TOPIC_TEXT).map_or(0, String::len);
            (topic.name.to_string(), (topic.partitions.len(), text))
        });
        Metadata { topics: seen.collect(), next_producer_id: shard.image().next_producer_id() }
    }

    fn check_metadata(&mut self) {
        let observed = self.observed();
        let mut expected = self.metadata.clone();
        let mut later = std::mem::take(&mut self.changes).into_iter();
        while expected != observed {
            let Some((_, change)) = later.next() else {
                panic!("{observed:?} is nothing that was asked for: {expected:?}")
            };
            expected.apply(&change);
        }
        self.metadata = expected;
    }

    fn check_offsets(&mut self) {
        let mut found: BTreeMap<Key, i64> = BTreeMap::new();
        for group in (0..GROUPS).map(group_name) {
            let fetch = OffsetFetch { group: group.clone(), topics: None, require_stable: false };
            let request = self.execute(Command::Group { place: 0, request: group::Request::OffsetFetch(fetch) });
            let Answer::Group { reply: Reply::OffsetFetch(reply), .. } = self.answer(request) else {
                panic!("a fetch")
            };
            assert_eq!(reply.error, ErrorCode::None);
            for (topic, partitions) in reply.topics {
                for (partition, committed) in partitions {
                    let committed = committed.expect("all that there are");
                    assert_eq!(committed.metadata.len(), self.text);
                    found.insert((group.clone(), topic.clone(), partition), committed.offset);
                }
            }
        }
        for (key, possible) in &mut self.offsets {
            let value = found.remove(key);
            assert!(possible.iter().any(|(_, other)| *other == value), "{key:?} is {value:?}, not of {possible:?}");
            *possible = vec![(0, value)];
        }
        assert!(found.is_empty(), "nobody has committed {found:?}");
    }

    fn commit(&mut self) {
        let group = group_name(self.world.rng.below(GROUPS));
        let mut keys = Vec::new();
        for _ in 0..1 + self.world.rng.below(3) {
            let (topic, partition) = (format!("c-{}", self.world.rng.below(3)), self.world.rng.below(5) as i32);
            if !keys.contains(&(topic.clone(), partition)) {
                keys.push((topic, partition));
            }
        }
        let offset = self.next_request as i64;
        let topic = |(topic, partition): &(String, i32)| CommitTopic {
            topic: topic.clone(),
            partitions: vec![CommitPartition {
                partition: *partition,
                offset,
                leader_epoch: -1,
                metadata: Some("m".repeat(self.text)),
            }],
        };
        let commit = OffsetCommit {
            group: group.clone(),
            member_id: String::new(),
            group_instance_id: None,
            generation: -1,
            retention_time_ms: None,
            topics: keys.iter().map(topic).collect(),
        };
        let request = self.execute(Command::Group { place: 0, request: group::Request::OffsetCommit(commit) });
        for (topic, partition) in keys {
            self.offsets
                .entry((group.clone(), topic, partition))
                .or_insert(vec![(0, None)])
                .push((request, Some(offset)));
        }
    }

    /// Deletes an offset, or a group with all its offsets.
    fn forget(&mut self) {
        let group = group_name(self.world.rng.below(GROUPS));
        let whole = self.world.rng.one_in(3);
        let (topic, partition) = (format!("c-{}", self.world.rng.below(3)), self.world.rng.below(5) as i32);
        let request = if whole {
            group::Request::DeleteGroup(group.clone())
        } else {
            let topics = vec![(topic.clone(), vec![partition])];
            group::Request::OffsetDelete(OffsetDelete { group: group.clone(), topics })
        };
        let request = self.execute(Command::Group { place: 0, request });
        for (key, possible) in &mut self.offsets {
            if key.0 == group && (whole || (key.1 == topic && key.2 == partition)) {
                possible.push((request, None));
            }
        }
    }

    fn change(&mut self) {
        let name = format!("t-{}", self.world.rng.below(8));
        let text = 1 + self.world.rng.below(4 * self.text + 10);
        let change = match self.world.rng.below(8) {
            0..3 => Change::Create(name, 1 + self.world.rng.below(3), text),
            3 => Change::Delete(name),
            4..7 => Change::Text(name, text),
            _ => Change::ProducerIds,
        };
        let value = |text: usize| -> ConfigValue { (TOPIC_TEXT.to_owned(), Some("x".repeat(text))) };
        let control = match &change {
            Change::Create(name, partitions, text) => {
                let by_default = TopicWanted::by_default(name.clone());
                let wanted =
                    TopicWanted { partition_count: *partitions as i32, configs: vec![value(*text)], ..by_default };
                Control::CreateTopics { topics: vec![wanted], validate_only: false }
            }
            Change::Delete(name) => Control::DeleteTopics(vec![TopicNamed::Name(name.clone())]),
            Change::Text(name, text) => {
                let resources = vec![(Resource::Topic(name.clone()), vec![value(*text)])];
                Control::ReplaceConfigs { resources, validate_only: false }
            }
            Change::ProducerIds => Control::AllocateProducerIds,
        };
        let request = self.execute(Command::Control(control));
        self.changes.push((request, change));
    }

    /// Writes to some topic, so that it has a directory.
    fn produce(&mut self) {
        let partition = {
            let (shard, name) = (self.shard(), format!("t-{}", self.world.rng.below(8)));
            let shard = shard.borrow();
            let Some(topic) = shard.image().topic_by_name(&name) else { return };
            PartitionId { topic: topic.id, index: 0 }
        };
        let mut batch = BatchBuilder::new(self.world.now.wall_ms);
        batch.push(self.world.now.wall_ms, None, Some(b"value"));
        let part = ProducePart { index: 0, partition, records: batch.finish().into() };
        self.execute(Command::Produce(vec![part]));
    }

    fn take_answers(&mut self) {
        for (id, answer) in std::mem::take(&mut self.world.answers) {
            match answer {
                Answer::Group { reply, .. } => self.take_reply(id.0, &reply),
                Answer::Control(controlled) => {
                    assert!(!matches!(controlled, Controlled::Failed(_)), "{controlled:?}");
                    let (first, change) = self.changes.remove(0);
                    assert_eq!(first, id.0, "changes are decided one after the other");
                    self.metadata.apply(&change);
                }
                Answer::Produce(_) => {}
                _ => panic!("nothing else was asked for"),
            }
        }
    }

    fn take_reply(&mut self, request: u64, reply: &Reply) {
        let done = match reply {
            Reply::OffsetCommit(topics) => {
                let mut errors = topics.iter().flat_map(|(_, partitions)| partitions).map(|(_, error)| *error);
                assert!(errors.all(|error| error == ErrorCode::None), "{topics:?}");
                true
            }
            Reply::OffsetDelete { error, .. } | Reply::DeleteGroup(error) => {
                assert!(matches!(error, ErrorCode::None | ErrorCode::GroupIdNotFound), "{error:?}");
                *error == ErrorCode::None
            }
            other => panic!("{other:?}"),
        };
        for possible in self.offsets.values_mut() {
            if let Some(at) = possible.iter().position(|(by, _)| *by == request) {
                if done {
                    possible.drain(..at);
                } else {
                    possible.remove(at);
                }
            }
        }
    }

    fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.world.rng.below(12) {
                0 => self.forget(),
                1 | 2 => self.change(),
                3 => self.produce(),
                _ => self.commit(),
            }
            if self.world.rng.one_in(50) {
                self.world.pass_ms(200);
            }
            for _ in 0..self.world.rng.below(12) {
                self.world.turn();
            }
            self.take_answers();
        }
    }

    /// The logs under test: their directories, and where they start.
    fn own_logs(&mut self) -> Vec<(PathBuf, i64)> {
        let offsets = self.shard().borrow().image().topic_by_name(CONSUMER_OFFSETS).expect("made at the start").id;
        let mut logs = vec![("__cluster_metadata", PartitionId { topic: TopicId::METADATA, index: 0 })];
        logs.extend((0..OFFSETS_PARTITIONS).map(|index| (CONSUMER_OFFSETS, PartitionId { topic: offsets, index })));
        let parts = logs.iter().map(|(_, partition)| ListOffset {
            index: 0,
            partition: *partition,
            spec: OffsetSpec::Earliest,
            current_leader_epoch: -1,
        });
        let request = self.execute(Command::ListOffsets(parts.collect()));
        let Answer::ListOffsets(listed) = self.answer(request) else { panic!("offsets") };
        let dir =
            |(name, id): &(&str, PartitionId)| Path::new(DATA).join("partitions").join(partition_dir_name(name, *id));
        logs.iter().zip(listed).map(|(log, listed)| (dir(log), listed.offset)).collect()
    }

    /// Lets time pass until what is not needed any more is deleted, and looks that it is.
    fn check_files(&mut self) {
        for _ in 0..60 {
            self.world.pass_ms(100);
            self.world.settle();
        }
        self.take_answers();
        for (dir, start) in self.own_logs() {
            let files = self.world.disk.0.borrow().storage.files(&dir);
            let names = files.iter().filter_map(|(path, _)| path.file_name()?.to_str()?.strip_suffix(".log"));
            let bases: Vec<i64> = names.map(|name| name.parse().expect("an offset")).collect();
            let needless = bases.windows(2).filter(|pair| pair[1] <= start).count();
            assert_eq!(needless, 0, "{}: segments {bases:?}, start {start}", dir.display());
        }
    }
}

impl Run {
    /// Deletes all topics, and returns as soon as that is answered.
    fn delete_all(&mut self) {
        self.take_answers();
        let names: Vec<String> = self.metadata.topics.keys().cloned().collect();
        for name in &names {
            self.metadata.apply(&Change::Delete(name.clone()));
        }
        let request =
            self.execute(Command::Control(Control::DeleteTopics(names.into_iter().map(TopicNamed::Name).collect())));
        assert!(matches!(self.answer(request), Answer::Control(Controlled::Deleted(_))));
    }

    /// Directories of partitions whose topic is no more.
    fn orphans(&mut self) -> Vec<String> {
        let disk = self.world.disk.clone();
        let names = self.world.run(disk.list(&Path::new(DATA).join("partitions"))).expect("a directory");
        let shard = self.shard();
        let shard = shard.borrow();
        let is_orphan = |name: &String| {
            let (_, id) = parse_partition_dir_name(name).expect("a partition's, and nothing else is left");
            id.topic != TopicId::METADATA && shard.image().partition(id).is_none()
        };
        names.iter().map(|name| name.display().to_string()).filter(is_orphan).collect()
    }
}

fn group_name(number: usize) -> String {
    format!("group-{number}")
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(24),
    }
}

#[test]
fn offsets_and_metadata_survive_crashes_at_any_point_of_a_snapshot() {
    let (mut moved, mut orphans) = ([0; 2], 0);
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            let mut moved = [0; 2];
            run.start();
            for _ in 0..4 {
                let steps = run.world.rng.below(400);
                run.work(steps);
                if run.world.rng.one_in(4) {
                    run.check_files();
                }
                run.world.crash();
                run.start();
                for (at, (_, start)) in run.own_logs().into_iter().enumerate() {
                    moved[at.min(1)] += u64::from(start > 0);
                }
            }
            run.work(100);
            run.check_files();
            run.delete_all();
            // A topic that was deleted just before a crash is known to the journal at the first start; at the second to nobody.
            let mut found = 0;
            for _ in 0..2 {
                run.world.crash();
                run.start();
                found += run.orphans().len() as u64;
                run.check_files();
            }
            assert_eq!(run.orphans(), [""; 0]);
            (moved, found)
        });
        match outcome {
            Ok((more, found)) => {
                (0..2).for_each(|at| moved[at] += more[at]);
                orphans += found;
            }
            Err(cause) => {
                eprintln!("SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("starts found behind 0: metadata {}, offsets {}; orphans {orphans}", moved[0], moved[1]);
    if seeds().count() > 1 {
        assert!(orphans > 0, "some topics were deleted just before a crash");
        assert!(moved[0] > 0 && moved[1] > 0, "the logs were begun anew: {moved:?}");
    }
}
