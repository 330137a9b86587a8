//! librdkafka, unmodified, against a broker of its own: the calls most clients outside of Java are made of.
//!
//! What other clients do beyond these is in `tests/clients`; crashes are in `tests/crash.rs`.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use support::clients::{
    Record, STEP, admin, admin_options, await_partitions, config, create_topic, is_passing, next_or_end, produce,
    produce_values, read, reader, unique, until,
};
use support::{Broker, Options};

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("value-{n}")).collect()
}

fn values(read: &[(i64, Record)]) -> Vec<String> {
    read.iter().map(|(_, r)| String::from_utf8(r.value.clone().expect("a value")).expect("text")).collect()
}

#[test]
fn every_compression_comes_back_as_it_went() {
    let broker = Broker::start(Options::default());
    let topic = unique("compression");
    create_topic(broker.address(), &topic, 5, &[]);
    for (partition, codec) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let records: Vec<Record> = (0..200).map(|n| Record::of(format!("{codec} {n} ").repeat(40))).collect();
        let overrides = [("compression.type", codec), ("linger.ms", "20")];
        let deliveries = produce(broker.address(), &overrides, &topic, Some(partition), &records);
        for (offset, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery, Ok((partition, offset)), "{codec}");
        }
        let found = read(broker.address(), &topic, partition, Offset::Beginning);
        assert_eq!(found.len(), records.len(), "{codec}");
        for (offset, ((found_offset, found), sent)) in (0..).zip(found.iter().zip(&records)) {
            assert_eq!((*found_offset, &found.value), (offset, &sent.value), "{codec}");
        }
    }
}

#[test]
fn keys_values_headers_and_timestamps_are_kept() {
    let broker = Broker::start(Options::default());
    let topic = unique("shapes");
    create_topic(broker.address(), &topic, 1, &[]);
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let header = |key: &str, value: Option<Vec<u8>>| (key.to_owned(), value);
    let records = [
        Record { key: bytes("k"), value: bytes("v"), timestamp_ms: 1_600_000_000_000, headers: vec![] },
        Record { key: None, value: bytes("no key"), timestamp_ms: 1_600_000_000_001, headers: vec![] },
        Record { key: bytes("tombstone"), value: None, timestamp_ms: 1_600_000_000_002, headers: vec![] },
        Record { key: bytes(""), value: bytes(""), timestamp_ms: 1_600_000_000_003, headers: vec![] },
        Record {
            key: Some(vec![0, 255, 10]),
            value: Some((0..=255).collect()),
            timestamp_ms: 1_600_000_000_004,
            headers: vec![
                header("twice", bytes("one")),
                header("twice", bytes("two")),
                header("empty", bytes("")),
                header("null", None),
            ],
        },
    ];
    for delivery in produce(broker.address(), &[], &topic, Some(0), &records) {
        delivery.expect("acknowledged");
    }
    let found: Vec<Record> =
        read(broker.address(), &topic, 0, Offset::Beginning).into_iter().map(|(_, record)| record).collect();
    assert_eq!(found, records);
}

#[test]
fn records_of_a_mebibyte_pass_once_the_topic_allows_them() {
    let broker = Broker::start(Options::default());
    let topic = unique("large");
    create_topic(broker.address(), &topic, 1, &[]);
    let unbounded = [("message.max.bytes", "4000000")];
    let of_bytes = |count: usize| Record::of(vec![b'x'; count]);
    let below = produce(broker.address(), &unbounded, &topic, Some(0), &[of_bytes((1 << 20) - 200)]);
    assert_eq!(below, vec![Ok((0, 0))], "the default of max.message.bytes is 1 MiB + 12");
    let above = produce(broker.address(), &unbounded, &topic, Some(0), &[of_bytes(1 << 20)]);
    assert_eq!(above, vec![Err(RDKafkaErrorCode::MessageSizeTooLarge)]);

    let raise = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "2000000");
    block_on(admin(broker.address()).alter_configs([&raise], &admin_options())).expect("answered")[0]
        .as_ref()
        .expect("the config is taken");
    let raised = produce(broker.address(), &unbounded, &topic, Some(0), &[of_bytes(1 << 20)]);
    assert_eq!(raised, vec![Ok((0, 1))], "the refused record took no offset");
    let found = read(broker.address(), &topic, 0, Offset::Beginning);
    let sizes: Vec<usize> = found.iter().map(|(_, r)| r.value.as_ref().map_or(0, Vec::len)).collect();
    assert_eq!(sizes, [(1 << 20) - 200, 1 << 20]);
}

#[test]
fn an_idempotent_producer_writes_each_record_once_in_order() {
    let broker = Broker::start(Options::default());
    let topic = unique("idempotent");
    create_topic(broker.address(), &topic, 1, &[]);
    // Small batches, five in flight: many sequences for the broker to check.
    let overrides = [("enable.idempotence", "true"), ("batch.num.messages", "7"), ("linger.ms", "0")];
    let records: Vec<Record> = numbered(2000).into_iter().map(Record::of).collect();
    let deliveries = produce(broker.address(), &overrides, &topic, Some(0), &records);
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery, Ok((0, offset)));
    }
    assert_eq!(values(&read(broker.address(), &topic, 0, Offset::Beginning)), numbered(2000));
}

#[test]
fn records_outlive_a_clean_restart_and_a_crash() {
    let mut broker = Broker::start(Options::default());
    let topic = unique("restart");
    create_topic(broker.address(), &topic, 2, &[]);
    produce_values(broker.address(), &topic, 1, &numbered(100));
    let status = broker.terminate();
    assert!(status.code() == Some(0) || status.code() == Some(143), "a clean stop: {status}");
    assert!(support::has_files(&broker.data_dir()), "the data lies where it was told to");

    broker.restart_elsewhere();
    await_partitions(broker.address(), &topic, 2);
    assert_eq!(values(&read(broker.address(), &topic, 1, Offset::Beginning)), numbered(100));
    assert_eq!(produce_values(broker.address(), &topic, 1, &numbered(100)), 100, "offsets go on");

    broker.kill9();
    broker.restart_elsewhere();
    await_partitions(broker.address(), &topic, 2);
    let twice: Vec<String> = [numbered(100), numbered(100)].concat();
    assert_eq!(values(&read(broker.address(), &topic, 1, Offset::Beginning)), twice);
    assert_eq!(produce_values(broker.address(), &topic, 0, &numbered(3)), 0, "the other partition is still empty");
}

#[test]
fn clients_that_live_on_find_the_broker_after_a_crash() {
    let mut broker = Broker::start(Options::default());
    let topic = unique("live-on");
    create_topic(broker.address(), &topic, 1, &[]);
    let consumer = reader(broker.address(), &topic, 0, Offset::Beginning);
    produce_values(broker.address(), &topic, 0, &["before".into()]);
    let next = || until("a record", || next_or_end(&consumer));
    assert_eq!(next().1.value.as_deref(), Some(&b"before"[..]));
    broker.kill9();
    broker.restart();
    await_partitions(broker.address(), &topic, 1);
    produce_values(broker.address(), &topic, 0, &["after".into()]);
    let (offset, after) = next();
    assert_eq!((offset, after.value.as_deref()), (1, Some(&b"after"[..])));
}

#[test]
fn a_reader_goes_to_any_offset() {
    let broker = Broker::start(Options::default());
    let topic = unique("seek");
    create_topic(broker.address(), &topic, 1, &[]);
    produce_values(broker.address(), &topic, 0, &numbered(1000));
    let consumer = reader(broker.address(), &topic, 0, Offset::Offset(990));
    assert_eq!(next_or_end(&consumer).map(|(offset, _)| offset), Some(990));
    for target in [0, 999, 123, 500] {
        consumer.seek(&topic, 0, Offset::Offset(target), STEP).expect("seek");
        let (offset, record) = until("a record", || next_or_end(&consumer));
        assert_eq!((offset, record.value), (target, Some(format!("value-{target}").into_bytes())));
    }
    assert_eq!(consumer.fetch_watermarks(&topic, 0, STEP).expect("watermarks"), (0, 1000));
    assert_eq!(read(broker.address(), &topic, 0, Offset::OffsetTail(10)).len(), 10);
    assert_eq!(read(broker.address(), &topic, 0, Offset::End).len(), 0);
}

fn offset_for_time(consumer: &BaseConsumer, topic: &str, timestamp_ms: i64) -> Offset {
    let mut query = TopicPartitionList::new();
    query.add_partition_offset(topic, 0, Offset::Offset(timestamp_ms)).expect("a valid query");
    let answer = consumer.offsets_for_times(query, STEP).expect("the broker answers");
    answer.elements()[0].offset()
}

#[test]
fn a_timestamp_finds_the_record_within_a_compressed_batch() {
    let broker = Broker::start(Options::default());
    let consumer: BaseConsumer = config(broker.address(), &[]).create().expect("a consumer");
    let start = 1_700_000_000_000;
    let records: Vec<Record> =
        (0..500).map(|n| Record { timestamp_ms: start + n * 1000, ..Record::of("again and again") }).collect();
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(codec);
        create_topic(broker.address(), &topic, 1, &[]);
        let packing = [("compression.type", codec), ("linger.ms", "100")];
        for delivery in produce(broker.address(), &packing, &topic, Some(0), &records) {
            delivery.expect("acknowledged");
        }
        for n in [0, 1, 250, 499] {
            assert_eq!(offset_for_time(&consumer, &topic, start + n * 1000), Offset::Offset(n), "{codec}");
        }
        assert_eq!(offset_for_time(&consumer, &topic, start + 123_001), Offset::Offset(124), "{codec}");
        assert_eq!(offset_for_time(&consumer, &topic, start + 499_001), Offset::End, "{codec}");
    }
}

#[test]
fn a_timestamp_finds_the_first_record_at_or_after_it() {
    let broker = Broker::start(Options::default());
    let topic = unique("times");
    create_topic(broker.address(), &topic, 1, &[]);
    let start = 1_700_000_000_000;
    for round in 0..10 {
        let records: Vec<Record> =
            (0..10).map(|n| Record { timestamp_ms: start + (round * 10 + n) * 1000, ..Record::of("x") }).collect();
        for delivery in produce(broker.address(), &[], &topic, Some(0), &records) {
            delivery.expect("acknowledged");
        }
    }
    let consumer: BaseConsumer = config(broker.address(), &[]).create().expect("a consumer");
    let offset_for = |timestamp_ms| offset_for_time(&consumer, &topic, timestamp_ms);
    assert_eq!(offset_for(0), Offset::Offset(0));
    assert_eq!(offset_for(start), Offset::Offset(0));
    assert_eq!(offset_for(start + 1), Offset::Offset(1));
    assert_eq!(offset_for(start + 37_000), Offset::Offset(37));
    assert_eq!(offset_for(start + 36_001), Offset::Offset(37));
    assert_eq!(offset_for(start + 99_000), Offset::Offset(99));
    assert_eq!(offset_for(start + 99_001), Offset::End);
}

fn member(address: &str, group: &str, overrides: &[(&str, &str)]) -> BaseConsumer {
    let mut all = vec![
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("fetch.wait.max.ms", "50"),
    ];
    all.extend_from_slice(overrides);
    config(address, &all).create().expect("a consumer")
}

/// Reads one record, commits it as read and returns its offset. No message may outlive its consumer: closing would wait.
fn commit_next(member: &BaseConsumer) -> i64 {
    let message = until("a record", || member.poll(STEP)).expect("a record");
    member.commit_message(&message, CommitMode::Sync).expect("the commit is taken");
    message.offset()
}

/// Polls all members until their assignments satisfy `done`; returns the offsets read meanwhile.
fn poll_until(members: &[&BaseConsumer], done: impl Fn(&[BTreeSet<i32>]) -> bool) -> Vec<(i32, i64)> {
    let mut read = Vec::new();
    let deadline = Instant::now() + STEP;
    loop {
        for member in members {
            match member.poll(Duration::from_millis(20)) {
                Some(Ok(message)) => read.push((message.partition(), message.offset())),
                Some(Err(error)) => assert!(is_passing(&error), "a member: {error}"),
                None => {}
            }
        }
        let assigned: Vec<BTreeSet<i32>> = members.iter().map(|m| assigned(m)).collect();
        if done(&assigned) {
            return read;
        }
        assert!(Instant::now() < deadline, "the members did not settle: {assigned:?}");
    }
}

fn assigned(member: &BaseConsumer) -> BTreeSet<i32> {
    let list = member.assignment().expect("an assignment");
    list.elements().iter().map(|e| e.partition()).collect()
}

fn split_evenly(assigned: &[BTreeSet<i32>], partitions: usize) -> bool {
    let all: BTreeSet<i32> = assigned.iter().flatten().copied().collect();
    let share = partitions / assigned.len();
    all.len() == partitions && assigned.iter().all(|a| a.len() == share)
}

fn two_members_share_and_take_over(strategy: &str) {
    let broker = Broker::start(Options::default());
    let (topic, group) = (unique("shared"), unique("group"));
    create_topic(broker.address(), &topic, 4, &[]);
    let overrides = [("partition.assignment.strategy", strategy)];
    let first = member(broker.address(), &group, &overrides);
    first.subscribe(&[&topic]).expect("subscribe");
    poll_until(&[&first], |a| a[0].len() == 4);

    let second = member(broker.address(), &group, &overrides);
    second.subscribe(&[&topic]).expect("subscribe");
    poll_until(&[&first, &second], |a| split_evenly(a, 4));

    drop(first);
    poll_until(&[&second], |a| a[0].len() == 4);

    for partition in 0..4 {
        produce_values(broker.address(), &topic, partition, &numbered(5));
    }
    let mut read = 0;
    until("all records", || {
        let message = second.poll(STEP)?.expect("a record");
        second.commit_message(&message, CommitMode::Sync).expect("the commit is taken");
        read += 1;
        (read == 20).then_some(())
    });
    let committed = second.committed(STEP).expect("committed offsets");
    assert!(committed.elements().iter().all(|e| e.offset() == Offset::Offset(5)), "{committed:?}");
}

#[test]
fn two_members_share_eagerly_and_one_takes_over() {
    two_members_share_and_take_over("range");
}

#[test]
fn two_members_share_cooperatively_and_one_takes_over() {
    two_members_share_and_take_over("cooperative-sticky");
}

#[test]
fn a_group_goes_on_from_its_commit_after_a_crash_of_the_broker() {
    let mut broker = Broker::start(Options::default());
    let (topic, group) = (unique("resume"), unique("group"));
    create_topic(broker.address(), &topic, 1, &[]);
    produce_values(broker.address(), &topic, 0, &numbered(10));
    let first = member(broker.address(), &group, &[]);
    first.subscribe(&[&topic]).expect("subscribe");
    for expected in 0..4 {
        assert_eq!(commit_next(&first), expected);
    }
    broker.kill9();
    drop(first);
    broker.restart();
    let second = member(broker.address(), &group, &[]);
    second.subscribe(&[&topic]).expect("subscribe");
    let message = until("a record", || second.poll(STEP)?.ok());
    assert_eq!(message.offset(), 4, "offset 3 was committed as read");
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let broker = Broker::start(Options::default());
    let (topic, group) = (unique("static"), unique("group"));
    create_topic(broker.address(), &topic, 4, &[]);
    let new = |instance: &str| {
        let consumer = member(broker.address(), &group, &[("group.instance.id", instance)]);
        consumer.subscribe(&[&topic]).expect("subscribe");
        consumer
    };
    let (one, two) = (new("one"), new("two"));
    poll_until(&[&one, &two], |a| split_evenly(a, 4));
    let (of_one, of_two) = (assigned(&one), assigned(&two));

    // A static member does not say goodbye, so nothing moves while it is away and when it is back.
    drop(two);
    let two = new("two");
    poll_until(&[&one, &two], |a| {
        assert_eq!(a[0], of_one, "the other member keeps what it has");
        a[1] == of_two
    });
    let groups = two.fetch_group_list(Some(&group), STEP).expect("the broker answers");
    let members: Vec<usize> = groups.groups().iter().map(|g| g.members().len()).collect();
    assert_eq!(members, [2]);
}

#[test]
fn an_admin_creates_alters_and_deletes() {
    let broker = Broker::start(Options::default());
    let topic = unique("admin");
    let admin = admin(broker.address());
    create_topic(broker.address(), &topic, 1, &[("retention.ms", "3600000")]);
    let more = NewPartitions::new(&topic, 3);
    assert_eq!(block_on(admin.create_partitions([&more], &admin_options())).expect("answered"), [Ok(topic.clone())]);
    await_partitions(broker.address(), &topic, 3);

    let config_value = |name: &str| {
        let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(&topic)], &admin_options()));
        let resource = described.expect("answered").remove(0).expect("described");
        resource.get(name).expect("every topic config is listed").value.clone()
    };
    assert_eq!(config_value("retention.ms").as_deref(), Some("3600000"));
    assert_eq!(config_value("cleanup.policy").as_deref(), Some("delete"), "defaults are listed as well");
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "7200000");
    block_on(admin.alter_configs([&alter], &admin_options())).expect("answered")[0].as_ref().expect("altered");
    until("the config has changed", || (config_value("retention.ms").as_deref() == Some("7200000")).then_some(()));

    produce_values(broker.address(), &topic, 2, &numbered(10));
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 2, Offset::Offset(6)).expect("a valid offset");
    let deleted = block_on(admin.delete_records(&before, &admin_options())).expect("answered");
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(6));
    assert_eq!(values(&read(broker.address(), &topic, 2, Offset::Beginning)), numbered(10)[6..]);

    let deleted = block_on(admin.delete_topics(&[&topic], &admin_options())).expect("answered");
    assert_eq!(deleted, [Ok(topic.clone())]);
    let again = block_on(admin.delete_topics(&[&topic], &admin_options())).expect("answered");
    assert_eq!(again, [Err((topic.clone(), RDKafkaErrorCode::UnknownTopicOrPartition))]);
}

#[test]
fn an_empty_group_is_listed_and_deleted() {
    let broker = Broker::start(Options::default());
    let (topic, group) = (unique("topic"), unique("group"));
    create_topic(broker.address(), &topic, 1, &[]);
    produce_values(broker.address(), &topic, 0, &numbered(1));
    let consumer = member(broker.address(), &group, &[]);
    consumer.subscribe(&[&topic]).expect("subscribe");
    commit_next(&consumer);

    let admin = admin(broker.address());
    let in_use = block_on(admin.delete_groups(&[&group], &admin_options())).expect("answered");
    assert_eq!(in_use, [Err((group.clone(), RDKafkaErrorCode::NonEmptyGroup))]);
    drop(consumer);
    let client: BaseConsumer = config(broker.address(), &[]).create().expect("a consumer");
    until("the group is empty", || {
        let list = client.fetch_group_list(None, STEP).ok()?;
        let listed = list.groups().iter().find(|g| g.name() == group)?;
        listed.members().is_empty().then_some(())
    });
    assert_eq!(block_on(admin.delete_groups(&[&group], &admin_options())).expect("answered"), [Ok(group.clone())]);
    let list = client.fetch_group_list(None, STEP).expect("the broker answers");
    assert!(list.groups().iter().all(|g| g.name() != group));
}
