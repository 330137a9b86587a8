//! Core listeners: clients are told of each core as of a broker of its own, connect to the owner of a partition, and no request
//! changes cores. Whoever asks another core is served all the same.

mod support;

use futures_executor::block_on;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;
use ringlog::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog::protocol::messages::produce::ProduceResponse;
use std::collections::{BTreeMap, BTreeSet};
use support::clients::{STEP, admin, admin_options, config, create_topic, produce_values, read, unique, until};
use support::http::get;
use support::raw::{batch, produce};
use support::wire::Wire;
use support::{Broker, Options};

const PARTITIONS: i32 = 6;

fn start() -> Broker {
    Broker::start(Options { cores: 2, settings: "core.listeners.port = 0\n".to_owned(), ..Options::default() })
}

/// The addresses of the brokers that a client is told of, by node id, and the leader of each partition of `topic`.
fn told(broker: &Broker, topic: &str) -> (BTreeMap<i32, String>, Vec<i32>) {
    let mut wire = Wire::connect(broker.address(), "told");
    let topics = Some(vec![MetadataRequestTopic { name: Some(topic), ..Default::default() }]);
    let response: MetadataResponse<'_> = wire.ask(9, &MetadataRequest { topics, ..Default::default() });
    let brokers: BTreeMap<i32, String> =
        response.brokers.iter().map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port))).collect();
    let mut partitions = response.topics[0].partitions.clone();
    partitions.sort_by_key(|partition| partition.partition_index);
    for partition in &partitions {
        assert_eq!(partition.replica_nodes, [partition.leader_id], "a replica is known to clients as its leader is");
        assert_eq!(partition.isr_nodes, [partition.leader_id]);
    }
    assert!(brokers.contains_key(&response.controller_id));
    (brokers, partitions.iter().map(|partition| partition.leader_id).collect())
}

fn write(wire: &mut Wire, topic: &str, partition: i32) {
    let batch = batch(b"value");
    let response: ProduceResponse<'_> = wire.ask(9, &produce(topic, -1, &[(partition, &batch)]));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn a_request_to_the_owner_stays_on_its_core_and_one_to_another_is_served_too() {
    let broker = start();
    let topic = unique("cores");
    create_topic(broker.address(), &topic, PARTITIONS, &[]);
    let (brokers, leaders) = told(&broker, &topic);
    assert_eq!(brokers.len(), 2);
    assert!(
        !brokers.values().any(|address| address == broker.address()),
        "each core has a port of its own: {brokers:?}"
    );
    assert_eq!(leaders.iter().copied().collect::<BTreeSet<_>>(), brokers.keys().copied().collect(), "both cores lead");

    let mut wires: BTreeMap<i32, Wire> =
        brokers.iter().map(|(&node, address)| (node, Wire::connect(address, "owner"))).collect();
    let before = broker.counters();
    for (partition, leader) in (0..).zip(&leaders) {
        write(wires.get_mut(leader).expect("one for each broker"), &topic, partition);
    }
    let owned = broker.counters();
    assert_eq!(owned.since(&before, "mailbox.sent"), 0, "nothing changes cores");
    for (partition, leader) in (0..).zip(&leaders) {
        let (_, other) = wires.iter_mut().find(|(node, _)| *node != leader).expect("two");
        write(other, &topic, partition);
    }
    let page = get(broker.admin().expect("on"), "/metrics").1;
    for address in brokers.values() {
        let label = format!("listener=\"{address}\"}} ");
        let accepted = page.lines().filter(|line| line.starts_with("ringlog_listener_accepted_total{"));
        let accepted = accepted.filter_map(|line| line.split_once(&label)?.1.parse::<u64>().ok());
        assert!(accepted.sum::<u64>() > 0, "{label} in {page}");
    }
    // There and back for each.
    assert!(broker.counters().since(&owned, "mailbox.sent") >= 2 * PARTITIONS as u64);
}

#[test]
fn clients_produce_consume_group_and_administer() {
    let mut broker = start();
    let topic = unique("cores");
    create_topic(broker.address(), &topic, PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        produce_values(broker.address(), &topic, partition, &[format!("value {partition}")]);
    }
    let group = unique("group");
    let settings = [("group.id", group.as_str()), ("auto.offset.reset", "earliest"), ("enable.auto.commit", "false")];
    let consumer: BaseConsumer = config(broker.address(), &settings).create().expect("a consumer");
    consumer.subscribe(&[&topic]).expect("a subscription");
    let mut seen = BTreeSet::new();
    until("a group reads all partitions", || {
        while let Some(Ok(message)) = consumer.poll(std::time::Duration::from_millis(100)) {
            seen.insert(rdkafka::Message::partition(&message));
        }
        (seen.len() == PARTITIONS as usize).then_some(())
    });
    consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).expect("offsets are committed");
    drop(consumer);

    let admin = admin(broker.address());
    for node in told(&broker, &topic).0.into_keys() {
        let asked = [ResourceSpecifier::Broker(node)];
        let described = block_on(admin.describe_configs(&asked, &admin_options())).expect("the broker answers");
        let described = described[0].as_ref().expect("a core is asked about by the id that clients know");
        assert!(described.get("log.retention.ms").is_some());
    }

    // Another start has other ports; without core listeners the broker is one again.
    assert!(broker.terminate().success());
    broker.configure(&Options { cores: 2, ..Options::default() });
    broker.restart();
    let (brokers, leaders) = told(&broker, &topic);
    assert_eq!(brokers.values().collect::<Vec<_>>(), [broker.address()]);
    assert!(leaders.iter().all(|leader| brokers.contains_key(leader)));
    let kept = read(broker.address(), &topic, 3, Offset::Beginning);
    assert_eq!(kept[0].1.value.as_deref(), Some(&b"value 3"[..]));
    let consumer: BaseConsumer = config(broker.address(), &settings).create().expect("a consumer");
    let mut places = rdkafka::TopicPartitionList::new();
    places.add_partition(&topic, 3);
    let committed = consumer.committed_offsets(places, STEP).expect("the group is found");
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(1));
}
