//! librdkafka in the few shapes tests need: write these records, read this partition, ask as an admin.
//!
//! Every wait has a deadline and ends on an event of the broker's, never on a guess of time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// The longest any single step of a test may take.
pub const STEP: Duration = Duration::from_secs(30);

/// A record to write, or one that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; 0 leaves it to the client.
    pub timestamp_ms: i64,
}

impl Record {
    pub fn of(value: impl Into<Vec<u8>>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    pub fn from_message(message: &BorrowedMessage<'_>) -> Record {
        let headers = message.headers().map_or(Vec::new(), |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
        });
        Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        }
    }
}

/// A name no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The settings every client here starts from, with `overrides` on top.
pub fn config(address: &str, overrides: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("broker.address.family", "v4")
        // A broker that restarts is found again within this; the default of 10 s would make tests slow.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    for (key, value) in overrides {
        config.set(*key, *value);
    }
    config
}

pub fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    config(address, &[]).create().expect("an admin client")
}

pub fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(STEP)).operation_timeout(Some(STEP))
}

/// Creates a topic with these topic configs and waits until a client sees every partition with a leader.
pub fn create_topic(address: &str, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in configs {
        new = new.set(key, value);
    }
    let results = block_on(admin(address).create_topics([&new], &admin_options())).expect("the broker answers");
    assert_eq!(results, vec![Ok(topic.to_owned())]);
    await_partitions(address, topic, partitions);
}

/// Waits until the metadata shows `topic` with `partitions` led partitions.
pub fn await_partitions(address: &str, topic: &str, partitions: i32) {
    let consumer: BaseConsumer = config(address, &[]).create().expect("a consumer");
    until("the topic has its partitions", || {
        let metadata = consumer.fetch_metadata(Some(topic), STEP).ok()?;
        let found = metadata.topics().first()?.partitions();
        let led = found.iter().filter(|p| p.leader() >= 0 && p.error().is_none()).count();
        (led == partitions as usize).then_some(())
    });
}

/// Asks `probe` again until it answers; panics with `what` after `STEP`. For states of the broker that no event tells.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + STEP;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {STEP:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where a record went: partition and offset, or why it went nowhere.
pub type Delivery = Result<(i32, i64), RDKafkaErrorCode>;

/// Collects delivery reports by the index of the record.
#[derive(Default)]
pub struct Reports {
    deliveries: Mutex<HashMap<usize, Delivery>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let delivery = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        let before = self.deliveries.lock().expect("no report panics").insert(*index, delivery);
        assert!(before.is_none(), "record {index} was reported twice");
    }
}

/// Writes `records` in order and returns a delivery for each.
pub fn produce(
    address: &str,
    overrides: &[(&str, &str)],
    topic: &str,
    partition: Option<i32>,
    records: &[Record],
) -> Vec<Delivery> {
    let producer: BaseProducer<Reports> =
        config(address, overrides).create_with_context(Reports::default()).expect("a producer");
    for (index, record) in records.iter().enumerate() {
        let mut outgoing = to_outgoing(topic, partition, record, index);
        while let Err((error, back)) = producer.send(outgoing) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "send: {error}");
            producer.poll(Duration::from_millis(10));
            outgoing = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(STEP).expect("every record is reported within the step");
    let mut deliveries = producer.context().deliveries.lock().expect("no report panics");
    (0..records.len()).map(|index| deliveries.remove(&index).expect("flush reports every record")).collect()
}

/// Writes `values` to partition 0 and returns the offset of the first; panics unless they lie side by side.
pub fn produce_values(address: &str, topic: &str, partition: i32, values: &[String]) -> i64 {
    let records: Vec<Record> = values.iter().map(|v| Record::of(v.as_bytes())).collect();
    let deliveries = produce(address, &[], topic, Some(partition), &records);
    let (_, first) = deliveries[0].expect("the record is acknowledged");
    for (offset, delivery) in (first..).zip(&deliveries) {
        assert_eq!(*delivery, Ok((partition, offset)));
    }
    first
}

fn to_outgoing<'a>(
    topic: &'a str,
    partition: Option<i32>,
    record: &'a Record,
    index: usize,
) -> BaseRecord<'a, [u8], [u8], Box<usize>> {
    let mut outgoing = BaseRecord::with_opaque_to(topic, Box::new(index));
    outgoing.partition = partition;
    outgoing.key = record.key.as_deref();
    outgoing.payload = record.value.as_deref();
    if record.timestamp_ms != 0 {
        outgoing = outgoing.timestamp(record.timestamp_ms);
    }
    if !record.headers.is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_deref() }));
        outgoing = outgoing.headers(headers);
    }
    outgoing
}

/// A consumer outside of any group, placed on one partition; says when it is at the end.
pub fn reader(address: &str, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let overrides = [
        ("group.id", "unused"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        // A position that is not there any more is a finding, not a reason to start elsewhere.
        ("auto.offset.reset", "error"),
        ("fetch.wait.max.ms", "50"),
    ];
    let consumer: BaseConsumer = config(address, &overrides).create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, from).expect("a valid offset");
    consumer.assign(&assignment).expect("the assignment is taken");
    consumer
}

/// Everything from `from` to the end of the partition, with offsets.
pub fn read(address: &str, topic: &str, partition: i32, from: Offset) -> Vec<(i64, Record)> {
    let consumer = reader(address, topic, partition, from);
    let mut found = Vec::new();
    while let Some(next) = next_or_end(&consumer) {
        found.push(next);
    }
    found
}

/// The next record, or nothing at the end of the partition. Panics on errors and after `STEP` of silence.
pub fn next_or_end<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i64, Record)> {
    let deadline = Instant::now() + STEP;
    loop {
        match consumer.poll(deadline.saturating_duration_since(Instant::now())) {
            Some(Ok(message)) => return Some((message.offset(), Record::from_message(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => return None,
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => panic!("reading: {error}"),
            None => panic!("neither a record nor the end within {STEP:?}"),
        }
    }
}

/// Errors that a client reports while a broker is away and that end by themselves.
pub fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}
