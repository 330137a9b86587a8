//! Metrics and health over HTTP, as a scraper sees them.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use support::clients::{STEP, create_topic, unique, until};
use support::http::get;
use support::{Broker, Options};

/// The sum of a metric over all samples whose labels contain `label`.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a value")).sum()
}

#[test]
fn a_scraper_sees_what_clients_do() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin().expect("it is on by default").to_owned();
    let (status, before) = get(&admin, "/metrics");
    assert_eq!((status, sum(&before, "ringlog_core_up", "")), (200, 2.0));
    // The broker's own log, at most.
    let own = sum(&before, "ringlog_journal_appends_total", "");
    assert!(!before.contains("api=\"Produce\""), "nobody has asked for it");

    let topic = unique("metrics");
    create_topic(broker.address(), &topic, 4, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .create()
        .expect("a producer");
    for number in 0..100 {
        let (key, value) = (format!("key {number}"), "value".repeat(50));
        producer.send(BaseRecord::to(&topic).key(&key).payload(&value)).expect("the queue has room");
    }
    producer.flush(STEP).expect("all are acknowledged");

    let (_, page) = get(&admin, "/metrics");
    assert!(sum(&page, "ringlog_journal_appends_total", "") >= own + 100.0);
    let commits = sum(&page, "ringlog_journal_commits_total", "");
    assert!(commits >= 1.0);
    assert_eq!(sum(&page, "ringlog_journal_commit_seconds_count", ""), commits);
    assert!(sum(&page, "ringlog_journal_commit_seconds_sum", "") > 0.0);
    let produces = sum(&page, "ringlog_requests_total", "api=\"Produce\"");
    assert!(produces >= 1.0);
    let timed = sum(&page, "ringlog_request_answer_seconds_count", "api=\"Produce\"");
    assert!(timed >= 1.0 && timed <= produces, "{timed} of {produces}");
    assert_eq!(timed, sum(&page, "ringlog_request_local_seconds_count", "api=\"Produce\""));
    assert!(sum(&page, "ringlog_requests_total", "api=\"CreateTopics\"") == 1.0);
    assert_eq!(sum(&page, "ringlog_request_errors_total", "api=\"Produce\""), 0.0);
    assert!(sum(&page, "ringlog_turn_seconds_count", "") == sum(&page, "ringlog_turns_turns_total", ""));
    assert!(sum(&page, "ringlog_send_seconds_count", "") >= 1.0);

    // The topic is there already: an error, and named.
    let admin_client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().expect("a client");
    let again = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    let created = futures_executor::block_on(admin_client.create_topics([&again], &AdminOptions::new()));
    assert!(created.expect("an answer")[0].is_err());
    let (_, page) = get(&admin, "/metrics");
    let error = "api=\"CreateTopics\",error=\"TopicAlreadyExists\"";
    assert_eq!(sum(&page, "ringlog_request_errors_total", error), 1.0, "{page}");
}

#[test]
fn lag_falls_as_a_group_commits() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin().expect("it is on by default").to_owned();
    let topic = unique("lag");
    create_topic(broker.address(), &topic, 1, &[]);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().expect("a producer");
    for _ in 0..10 {
        producer.send(BaseRecord::<(), _>::to(&topic).payload("value")).expect("the queue has room");
    }
    producer.flush(STEP).expect("all are acknowledged");
    let topic_label = format!("topic=\"{topic}\"");
    assert_eq!(sum(&get(&admin, "/metrics/topics").1, "ringlog_partition_end_offset", &topic_label), 10.0);
    assert!(!get(&admin, "/metrics/groups").1.contains(&topic_label), "nobody has committed");

    let group = unique("group");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("group.id", &group)
        .create()
        .expect("a consumer");
    for (committed, lag) in [(4, 6.0), (10, 0.0)] {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&topic, 0, Offset::Offset(committed)).expect("an offset");
        consumer.commit(&offsets, CommitMode::Sync).expect("the group has no members that would mind");
        let page = get(&admin, "/metrics/groups").1;
        assert_eq!(sum(&page, "ringlog_group_lag_records", &format!("group=\"{group}\"")), lag, "{page}");
        assert_eq!(sum(&page, "ringlog_group_committed_offset", &topic_label), committed as f64);
    }
}

#[test]
fn health_follows_the_cores() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin().expect("it is on by default").to_owned();
    assert_eq!(get(&admin, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&admin, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&admin, "/nothing").0, 404);
}

#[test]
fn what_asks_at_once_and_what_sends_nonsense_is_all_answered() {
    let broker = Broker::start(Options { cores: 1, ..Options::default() });
    let admin = broker.admin().expect("it is on by default").to_owned();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(sum(&get(&admin, "/metrics").1, "ringlog_core_up", ""), 1.0));
            scope.spawn(|| {
                let mut stream = TcpStream::connect(&admin).expect("it listens");
                stream.write_all(b"\0\x01nonsense\r\n\r\n").expect("connected");
                let mut answer = Vec::new();
                // Closed or refused; either is an end.
                let _ = stream.read_to_end(&mut answer);
            });
        }
    });
    // SIGUSR1 asks at the same desk.
    let pid = Pid::from_raw(broker.pid() as i32).expect("it runs");
    kill_process(pid, Signal::USR1).expect("our own child");
    assert_eq!(get(&admin, "/healthz").0, 200);
    until("SIGUSR1 is answered too", || broker.log().contains("counters shown cores=1").then_some(()));
}

#[test]
fn the_address_can_be_chosen_or_left_out_and_a_taken_one_is_named() {
    let settings =
        |admin: &str| Options { cores: 1, settings: format!("admin.listen = \"{admin}\""), ..Options::default() };
    let broker = Broker::start(settings("none"));
    assert_eq!(broker.admin(), None);

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut broker = Broker::start(settings("127.0.0.1:0"));
    assert_eq!(get(broker.admin().expect("it was asked for"), "/readyz").0, 200);
    broker.terminate();
    broker.configure(&settings(&address));
    let status = broker.start_in_vain();
    assert_ne!(status.code(), Some(0));
    let log = broker.log();
    assert!(log.contains(&format!("cannot serve metrics on {address}")) && log.contains("--admin none"), "{log}");
}
