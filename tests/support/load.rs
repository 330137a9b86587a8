//! Producers, readers and a consumer group that work while a broker crashes, and write down what they were told.
//!
//! Judges nothing: that is `history`. Knows no process: that is `Broker`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::history::{Acked, Commit, Fault, History};
use crate::payload::{RecordId, encode, split_mix};
use crate::support::clients::{config, until};

/// Producers per load: every other one is idempotent.
const PRODUCERS: u32 = 4;
const READERS: usize = 2;
const MEMBERS: usize = 2;

/// A producer waits when this many of its records have no answer.
const UNANSWERED_MAX: i32 = 500;

/// What stays while clients come and go: the work they do and what they saw.
pub struct Scene {
    pub topic: String,
    pub partitions: i32,
    pub group: String,
    pub seed: u64,
    history: Mutex<History>,
    acked_count: AtomicU64,
    producer_count: AtomicU64,
    /// Ticks at the start and end of every commit.
    clock: AtomicU64,
    /// Where each reader goes on, by reader and partition.
    positions: Mutex<HashMap<(usize, i32), i64>>,
}

impl Scene {
    pub fn new(topic: String, partitions: i32, group: String, seed: u64) -> Arc<Scene> {
        Arc::new(Scene {
            topic,
            partitions,
            group,
            seed,
            history: Mutex::default(),
            acked_count: AtomicU64::new(0),
            producer_count: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            positions: Mutex::default(),
        })
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no client panics while it writes down what it saw")
    }

    pub fn acked_count(&self) -> u64 {
        self.acked_count.load(Ordering::Relaxed)
    }

    /// Waits until `count` records more than now are acknowledged.
    pub fn await_acked(&self, count: u64) {
        let wanted = self.acked_count() + count;
        until("records are acknowledged", || (self.acked_count() >= wanted).then_some(()));
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note_client_error(&self, error: impl ToString) {
        self.history().faults.push(Fault::Client { error: error.to_string() });
    }
}

/// Running clients of one scene. They outlive the broker until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a client thread is given.
#[derive(Clone)]
struct Place {
    scene: Arc<Scene>,
    address: String,
    stop: Arc<AtomicBool>,
}

impl Place {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Load {
    pub fn start(scene: &Arc<Scene>, address: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let place = Place { scene: scene.clone(), address: address.to_owned(), stop: stop.clone() };
        let mut threads = Vec::new();
        let mut spawn = |work: Box<dyn FnOnce(Place) + Send>| {
            let place = place.clone();
            threads.push(std::thread::spawn(move || work(place)));
        };
        for _ in 0..PRODUCERS {
            let producer = scene.producer_count.fetch_add(1, Ordering::Relaxed) as u32;
            spawn(Box::new(move |place| run_producer(&place, producer)));
        }
        for reader in 0..READERS {
            spawn(Box::new(move |place| run_reader(&place, reader)));
        }
        for member in 0..MEMBERS {
            spawn(Box::new(move |place| run_member(&place, member)));
        }
        Load { stop, threads }
    }

    /// Tells all clients to stop at their next step, whether or not there is a broker.
    pub fn wind_down(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Stops all clients and waits for them. Records without an answer stay so.
    ///
    /// Needs a broker at the clients' address: librdkafka's synchronous commit waits for an answer for ever.
    pub fn stop(self) {
        self.wind_down();
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
    }
}

/// Writes down each delivery at the moment the client learns of it.
struct Deliveries(Arc<Scene>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<RecordId>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<RecordId>) {
        // An error leaves open whether the record was written; nothing is claimed then.
        let Ok(message) = result else { return };
        let offset = (message.offset() >= 0).then_some(message.offset());
        self.0.history().acked.push(Acked { id: *id, partition: message.partition(), offset });
        self.0.acked_count.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_producer(place: &Place, producer: u32) {
    let idempotent = producer.is_multiple_of(2);
    let scene = &place.scene;
    scene.history().producers.insert(producer, idempotent);
    let overrides = [
        ("acks", "all"),
        ("enable.idempotence", if idempotent { "true" } else { "false" }),
        // Without idempotence only one request in flight keeps the order when it is asked again.
        ("max.in.flight.requests.per.connection", if idempotent { "5" } else { "1" }),
        ("linger.ms", "2"),
        // Longer than any restart: giving up would leave gaps in what a producer knows.
        ("message.timeout.ms", "120000"),
        ("compression.type", if producer % 4 >= 2 { "lz4" } else { "none" }),
    ];
    let client: BaseProducer<Deliveries> =
        config(&place.address, &overrides).create_with_context(Deliveries(scene.clone())).expect("a producer");
    let mut random = scene.seed ^ (u64::from(producer) << 32);
    let mut sequence = 0;
    while place.goes_on() {
        // Bursts of very different sizes, so that batches and commits of the journal differ too.
        for _ in 0..=split_mix(&mut random) % 100 {
            let id = RecordId { producer, sequence };
            let bytes = encode(id);
            let mut record: BaseRecord<'_, (), [u8], Box<RecordId>> =
                BaseRecord::with_opaque_to(&scene.topic, Box::new(id)).payload(&bytes);
            record.partition = Some((split_mix(&mut random) % scene.partitions as u64) as i32);
            if let Err((error, _)) = client.send(record) {
                return scene.note_client_error(error);
            }
            sequence += 1;
        }
        client.poll(Duration::from_millis(split_mix(&mut random) % 20));
        while client.in_flight_count() > UNANSWERED_MAX && place.goes_on() {
            client.poll(Duration::from_millis(20));
        }
    }
    if let Some((code, reason)) = client.client().fatal_error() {
        scene.note_client_error(format!("producer {producer}: {code}: {reason}"));
    }
}

/// Reads every partition from where this reader stopped the last time.
fn run_reader(place: &Place, reader: usize) {
    let scene = &place.scene;
    let overrides = [
        ("group.id", "unused"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("fetch.wait.max.ms", "20"),
    ];
    let consumer: BaseConsumer = config(&place.address, &overrides).create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..scene.partitions {
        let positions = scene.positions.lock().expect("no reader panics");
        let next = positions.get(&(reader, partition)).copied().unwrap_or(0);
        assignment.add_partition_offset(&scene.topic, partition, Offset::Offset(next)).expect("a valid offset");
    }
    consumer.assign(&assignment).expect("the assignment is taken");
    while place.goes_on() {
        if let Some(message) = poll(place, &consumer) {
            let at = (message.partition(), message.offset());
            scene.history().read(at, message.payload().unwrap_or_default());
            scene.positions.lock().expect("no reader panics").insert((reader, at.0), at.1 + 1);
        }
    }
}

/// Reads as a member of the group and commits now and then. Static, so that whoever replaces it need not wait.
fn run_member(place: &Place, member: usize) {
    let scene = &place.scene;
    let instance = format!("member-{member}");
    let overrides = [
        ("group.id", scene.group.as_str()),
        ("group.instance.id", instance.as_str()),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "6000"),
        // Bounds a rebalance too: a member that hangs in a commit holds the others up no longer than this.
        ("max.poll.interval.ms", "8000"),
        ("heartbeat.interval.ms", "300"),
        ("fetch.wait.max.ms", "20"),
    ];
    let consumer: BaseConsumer = config(&place.address, &overrides).create().expect("a consumer");
    consumer.subscribe(&[&scene.topic]).expect("subscribe");
    let mut random = scene.seed ^ 0x6d65_6d62 ^ member as u64;
    let mut uncommitted: HashMap<i32, i64> = HashMap::new();
    let mut until_commit = 1;
    while place.goes_on() {
        let Some(message) = poll(place, &consumer) else { continue };
        scene.history().read((message.partition(), message.offset()), message.payload().unwrap_or_default());
        uncommitted.insert(message.partition(), message.offset() + 1);
        until_commit -= 1;
        if until_commit == 0 {
            commit(scene, &consumer, &uncommitted);
            uncommitted.clear();
            until_commit = 1 + split_mix(&mut random) % 100;
        }
    }
}

fn commit(scene: &Scene, consumer: &BaseConsumer, offsets: &HashMap<i32, i64>) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&scene.topic, *partition, Offset::Offset(*offset)).expect("a valid offset");
    }
    let started = scene.tick();
    let acked = consumer.commit(&list, CommitMode::Sync).is_ok();
    let ended = scene.tick();
    let commits = offsets.iter().map(|(&partition, &offset)| Commit { partition, offset, started, ended, acked });
    scene.history().commits.extend(commits);
}

/// The next message within a moment. Most errors only say that the broker is away; those that say more are noted.
fn poll<'a>(place: &Place, consumer: &'a BaseConsumer) -> Option<BorrowedMessage<'a>> {
    match consumer.poll(Duration::from_millis(50))? {
        Ok(message) => Some(message),
        Err(error) => {
            if is_fault(&error) {
                place.scene.note_client_error(error);
            }
            None
        }
    }
}

fn is_fault(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, Fatal, LogTruncation, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | Fatal | LogTruncation | OffsetOutOfRange))
}
