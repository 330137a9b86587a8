//! Partitions move from core to core while clients use them: every record is there once and in order, nobody sees an error, and what cannot be
//! moved is refused with a reason.

mod support;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use ringlog::base::batch::BatchHeader;
use ringlog::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ringlog::protocol::messages::produce::ProduceResponse;
use ringlog::protocol::writer::Records;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use support::clients::{STEP, config, create_topic, produce_values, read, unique, until};
use support::http::{cores, get, move_partition};
use support::raw::{batch, produce};
use support::wire::Wire;
use support::{Broker, Options};

const PARTITIONS: i32 = 4;
const MOVES: u16 = 40;
const VALUE_BYTES: usize = 1000;

fn moved(admin: &str, topic: &str, partition: i32, core: u16) {
    let (status, text) = move_partition(admin, topic, partition, core).expect("the broker runs");
    assert_eq!((status, text), (200, format!("{topic}-{partition} is on core {core}\n")));
}

/// Writes numbers to all partitions in turn until it is told to stop; returns how many each got.
fn write_numbers(address: &str, topic: &str, stop: &AtomicBool) -> u64 {
    let producer: BaseProducer =
        config(address, &[("enable.idempotence", "true"), ("linger.ms", "1")]).create().expect("a producer");
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            // Padded, so that segments fill.
            let text = format!("{number:0>VALUE_BYTES$}");
            let record = || BaseRecord::<(), str>::to(topic).partition(partition).payload(&text);
            until("the queue has room", || {
                producer.poll(std::time::Duration::from_millis(1));
                producer.send(record()).ok()
            });
        }
        number += 1;
    }
    producer.flush(STEP).expect("all are acknowledged");
    number
}

/// Reads on until `end` numbers of each partition have come; they come in order, and none twice.
fn read_numbers(address: &str, topic: &str, end: impl Fn() -> Option<u64>) {
    let consumer: BaseConsumer = config(address, &[("group.id", "none")]).create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("assigned");
    let mut next = [0u64; PARTITIONS as usize];
    until("all numbers", || {
        while let Some(polled) = consumer.poll(std::time::Duration::from_millis(50)) {
            let message = polled.expect("no error that a client shows");
            let expected = &mut next[message.partition() as usize];
            let value = std::str::from_utf8(message.payload().expect("a value")).expect("text");
            assert_eq!(value.parse(), Ok(*expected), "partition {}", message.partition());
            assert_eq!(message.offset(), *expected as i64);
            *expected += 1;
        }
        end().filter(|end| next.iter().all(|next| next == end)).map(drop)
    });
}

/// Moves every partition to and fro beside a producer and a reader, with these further settings.
fn move_beside_clients(settings: &str) -> Broker {
    let broker = Broker::start(Options { data_dirs: 2, settings: settings.to_owned(), ..Options::default() });
    let admin = broker.admin().expect("it is on by default").to_owned();
    let topic = unique("moves");
    // Many segments: some are being written, closed and deleted when their partition leaves.
    create_topic(broker.address(), &topic, PARTITIONS, &[("segment.bytes", "1048576")]);
    assert_eq!(cores(&admin, &topic), [0, 1, 0, 1]);
    let address = broker.address();
    let (stop, written) = (AtomicBool::new(false), OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(|| written.set(write_numbers(address, &topic, &stop)));
        scope.spawn(|| read_numbers(address, &topic, || written.get().copied()));
        for round in 0..MOVES {
            for partition in 0..PARTITIONS {
                moved(&admin, &topic, partition, (round + partition as u16) % 2);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(written.get().is_some_and(|written| *written > 0), "the producer took part");
    // And from the segments, in whichever data directory they are.
    read_numbers(address, &topic, || written.get().copied());
    broker
}

#[test]
fn clients_go_on_while_partitions_move() {
    let broker = move_beside_clients("");
    assert!(!broker.log().contains("ERROR"), "{}", broker.log_tail());
}

#[test]
fn clients_follow_partitions_to_other_core_listeners() {
    move_beside_clients("core.listeners.port = 0\n");
}

/// Produces to all partitions in turn, several requests ahead of the replies; returns how many were appended, each behind the one before it.
fn produce_without_retry(address: &str, topic: &str, stop: &AtomicBool) -> u64 {
    const VERSION: i16 = 11;
    const AHEAD: u64 = 8;
    let mut wire = Wire::connect(address, "no-retry");
    let records = batch(b"value");
    let (mut sent, mut answered, mut last) = (0, 0, [-1; PARTITIONS as usize]);
    while answered < sent || !stop.load(Ordering::Relaxed) {
        if sent < answered + AHEAD && !stop.load(Ordering::Relaxed) {
            wire.send(VERSION, &produce(topic, -1, &[((sent % PARTITIONS as u64) as i32, &records)]));
            sent += 1;
            continue;
        }
        let response: ProduceResponse<'_> = wire.receive(VERSION);
        let part = &response.responses[0].partition_responses[0];
        assert_eq!(part.error_code, 0, "request {answered}, partition {}", part.index);
        let last = &mut last[part.index as usize];
        assert!(part.base_offset > *last, "partition {}: {} after {last}", part.index, part.base_offset);
        *last = part.base_offset;
        answered += 1;
    }
    answered
}

/// A Fetch from these offsets, one for each of the first partitions.
fn fetch<'a>(topic: &'a str, offsets: &[i64], max_wait_ms: i32) -> FetchRequest<'a> {
    let partition = |(partition, &fetch_offset): (i32, &i64)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let partitions = (0..).zip(offsets).map(partition).collect();
    let topics = vec![FetchTopic { topic, partitions, ..FetchTopic::default() }];
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, topics, ..FetchRequest::default() }
}

/// Reads all partitions until there are `end` records in all, a batch each; returns once it has seen them in order.
fn fetch_without_retry(address: &str, topic: &str, end: impl Fn() -> Option<u64>) {
    const VERSION: i16 = 12;
    let mut wire = Wire::connect(address, "no-retry");
    let mut next = [0; PARTITIONS as usize];
    until("all records are read", || {
        let response = wire.ask(VERSION, &fetch(topic, &next, 10_000));
        for part in &response.responses[0].partitions {
            let next = &mut next[part.partition_index as usize];
            assert_eq!(part.error_code, 0, "partition {} from {next}", part.partition_index);
            let Records::Inline(mut records) = part.records else { continue };
            while let Some(header) = BatchHeader::read(records) {
                // An answer may begin a little earlier.
                assert!(header.base_offset <= *next, "{} comes where {next} should", header.base_offset);
                *next = header.next_offset().max(*next);
                records = &records[header.batch_bytes()..];
            }
        }
        (end()? == next.iter().sum::<i64>() as u64).then_some(())
    });
}

/// A client that asks again has its next batch sent before (librdkafka even with one request in flight): so no batch is refused because its
/// partition moves, and consumers need not ask again either. Where there are CPUs for it, batches go between three cores, and none overtakes another.
#[test]
fn nothing_is_refused_or_overtaken_while_partitions_move() {
    let core_count = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(2, 4)) as u16;
    let broker = Broker::start(Options { cores: usize::from(core_count), ..Options::default() });
    let (admin, address) = (broker.admin().expect("it is on by default"), broker.address());
    let topic = unique("moves");
    create_topic(address, &topic, PARTITIONS, &[]);
    let (stop, written) = (AtomicBool::new(false), OnceLock::new());
    std::thread::scope(|scope| {
        let producers = [(); 4].map(|()| scope.spawn(|| produce_without_retry(address, &topic, &stop)));
        for _ in 0..2 {
            scope.spawn(|| fetch_without_retry(address, &topic, || written.get().copied()));
        }
        for round in 0..MOVES {
            for partition in 0..PARTITIONS {
                moved(admin, &topic, partition, (round + partition as u16) % core_count);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let appended = producers.map(|producer| producer.join().expect("no producer panics"));
        written.set(appended.iter().sum()).expect("set once");
    });
    assert!(written.get().is_some_and(|written| *written > 0), "the producers took part");
}

/// Neither kept for ever nor dropped without a word.
#[test]
fn what_was_held_for_a_move_that_fails_is_refused_and_the_partition_goes_on() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin().expect("it is on by default");
    let topic = unique("moves");
    create_topic(broker.address(), &topic, 1, &[("segment.bytes", "1048576")]);
    let values: Vec<String> = (0..60).map(|number| format!("{number:0>60000}")).collect();
    produce_values(broker.address(), &topic, 0, &values);
    // Its core has the files open; the other one does not.
    for file in segment_files(&broker, &topic) {
        std::fs::remove_file(file).expect("removed");
    }
    let (stop, appended) = (AtomicBool::new(false), AtomicI64::new(values.len() as i64));
    let address = broker.address();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut wire = Wire::connect(address, "held");
            let (records, mut codes) = (batch(b"value"), HashSet::new());
            while !stop.load(Ordering::Relaxed) {
                let response: ProduceResponse<'_> = wire.ask(11, &produce(&topic, -1, &[(0, &records)]));
                let code = response.responses[0].partition_responses[0].error_code;
                codes.insert(code);
                appended.fetch_add(i64::from(code == 0), Ordering::Relaxed);
            }
            codes
        });
        let reader = scope.spawn(|| {
            let mut wire = Wire::connect(address, "held");
            let mut codes = HashSet::new();
            while !stop.load(Ordering::Relaxed) {
                // From the end on, and longer than a reply is waited for here: something must end it before.
                let from = [appended.load(Ordering::Relaxed)];
                let response = wire.ask(12, &fetch(&topic, &from, 2 * STEP.as_millis() as i32));
                codes.insert(response.responses[0].partitions[0].error_code);
            }
            codes
        });
        for _ in 0..20 {
            let (status, why) = move_partition(admin, &topic, 0, 1).expect("the broker runs");
            assert_eq!(status, 503, "{why}");
            assert!(why.contains("The partition stays where it was"), "{why}");
        }
        stop.store(true, Ordering::Relaxed);
        let codes = producer.join().expect("the producer is answered");
        assert_eq!(codes, HashSet::from([0, 6]), "appended where it is, refused where it was to go");
        // For a reader that waits.
        produce_values(address, &topic, 0, &["value".to_owned()]);
        let codes = reader.join().expect("the reader is answered");
        assert!(codes.contains(&0) && codes.is_subset(&HashSet::from([0, 6])), "{codes:?}");
    });
    assert_eq!(cores(admin, &topic), [0]);
}

#[test]
fn a_busy_core_gives_partitions_to_an_idle_one_where_that_is_asked_for() {
    let settings = "core.balance.interval.ms = 1000".to_owned();
    let broker = Broker::start(Options { settings, ..Options::default() });
    let admin = broker.admin().expect("it is on by default");
    let topic = unique("moves");
    create_topic(broker.address(), &topic, PARTITIONS, &[]);
    assert_eq!(cores(admin, &topic), [0, 1, 0, 1]);
    let producer: BaseProducer = config(broker.address(), &[]).create().expect("a producer");
    let value = vec![b'x'; 100_000];
    // All the work is on core 0, in two equal parts.
    until("one of the two has moved", || {
        for partition in [0, 2] {
            let record = BaseRecord::<(), [u8]>::to(&topic).partition(partition).payload(&value);
            // A full queue is as good: there is work.
            let _ = producer.send(record);
        }
        producer.poll(std::time::Duration::ZERO);
        // While a partition moves it is on no core.
        let found = <[u16; PARTITIONS as usize]>::try_from(cores(admin, &topic)).ok()?;
        assert_eq!((found[1], found[3]), (1, 1), "the idle ones stay");
        (found[0] != found[2]).then_some(())
    });
    producer.flush(STEP).expect("all are acknowledged");
}

#[test]
fn a_move_outlives_the_process_however_it_ends() {
    let mut broker = Broker::start(Options::default());
    let topic = unique("moves");
    create_topic(broker.address(), &topic, 1, &[]);
    let mut expected = Vec::new();
    for (round, core) in [1, 0, 1, 0, 1].into_iter().enumerate() {
        let values: Vec<String> = (0..50).map(|number| format!("{round}-{number}")).collect();
        assert_eq!(produce_values(broker.address(), &topic, 0, &values), expected.len() as i64);
        expected.extend(values);
        moved(broker.admin().expect("on"), &topic, 0, core);
        if round % 2 == 0 {
            broker.kill9()
        } else {
            assert!(broker.terminate().success())
        }
        broker.restart();
        assert_eq!(cores(broker.admin().expect("on"), &topic), [core]);
        let found = read(broker.address(), &topic, 0, Offset::Beginning);
        let found: Vec<String> = found
            .into_iter()
            .map(|(_, record)| String::from_utf8(record.value.expect("a value")).expect("text"))
            .collect();
        assert_eq!(found, expected);
    }
}

/// All files of partition 0 of a topic.
fn segment_files(broker: &Broker, topic: &str) -> Vec<PathBuf> {
    let partitions = std::fs::read_dir(broker.data_dir().join("partitions")).expect("a directory");
    let name = format!("{topic}-0-");
    let dir = partitions
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)));
    let files = std::fs::read_dir(dir.expect("it has segments")).expect("a directory");
    files.flatten().map(|file| file.path()).collect()
}

#[test]
fn a_partition_that_is_not_served_stays_where_it_is() {
    let mut broker = Broker::start(Options::default());
    let topic = unique("moves");
    create_topic(broker.address(), &topic, 2, &[]);
    for _ in 0..2 {
        for partition in 0..2 {
            produce_values(broker.address(), &topic, partition, &["value".to_owned()]);
        }
        // The first time in order, so that there are segments, the second time not, so that recovery looks at them.
        assert!(broker.terminate().success());
        broker.restart();
    }
    produce_values(broker.address(), &topic, 0, &["value".to_owned()]);
    broker.kill9();
    for file in segment_files(&broker, &topic) {
        std::fs::remove_file(file).expect("removed");
    }
    broker.restart();
    let admin = broker.admin().expect("on");
    let (status, why) = move_partition(admin, &topic, 0, 1).expect("the broker runs");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("The partition stays where it was: it is not served"), "{why}");
    // The one that is served moves, and then the broker does what else is asked of it.
    moved(admin, &topic, 1, 0);
    assert_eq!(cores(admin, &topic), [0], "the damaged one is on no core");
    create_topic(broker.address(), &unique("moves"), 1, &[]);
}

#[test]
fn what_cannot_be_moved_is_refused_with_a_reason() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin().expect("it is on by default");
    let topic = unique("moves");
    create_topic(broker.address(), &topic, 2, &[]);
    let group: BaseConsumer =
        config(broker.address(), &[("group.id", "makes-the-topic")]).create().expect("a consumer");
    group.subscribe(&[&topic]).expect("subscribed");
    until("groups have their topic", || {
        group.poll(std::time::Duration::from_millis(10));
        get(admin, "/metrics/topics").1.contains("__consumer_offsets").then_some(())
    });
    for (path, status, text) in [
        ("/topics/nobody/partitions/0/core/1".to_owned(), 404, "There is no topic nobody."),
        (format!("/topics/{topic}/partitions/2/core/1"), 404, "has no partition 2; it has 0 to 1."),
        (format!("/topics/{topic}/partitions/0/core/2"), 400, "Broker 1 has no core 2; it has 0 to 1."),
        ("/topics/__consumer_offsets/partitions/0/core/1".to_owned(), 400, "groups are coordinated there."),
        (format!("/topics/{topic}/partitions/0/core/70000"), 400, ""),
    ] {
        let (found, body) = support::http::put(admin, &path).expect("the broker runs");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
    assert_eq!(cores(admin, &topic), [0, 1]);

    let ringlog = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringlog")).arg("move").args(args).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let done = ringlog(&[&topic, "0", "1", "--admin", admin]);
    assert_eq!(done, (Some(0), format!("{topic}-0 is on core 1\n"), String::new()));
    assert_eq!(cores(admin, &topic), [1, 1]);
    let (code, _, why) = ringlog(&["nobody", "0", "1", "--admin", admin]);
    assert_eq!((code, &*why), (Some(11), "ringlog: There is no topic nobody.\n"));
    let (code, _, why) = ringlog(&[&topic, "0", "1", "--admin", "127.0.0.1:1"]);
    assert_eq!(code, Some(11));
    assert!(why.contains("no broker answers at 127.0.0.1:1"), "{why}");
}
