//! What administrators ask of a broker, in each version that is served: topics, configurations, disk usage, producer ids.
//!
//! Speaks the wire through our own codec, so that codes and texts can be looked at; that real clients get along is in
//! `tests/rdkafka.rs` and `tests/clients`.

mod support;

use ringlog::base::batch::batches;
use ringlog::base::error::ErrorCode;
use ringlog::base::ids::TopicId;
use ringlog::protocol::messages::alter_configs::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
use ringlog::protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use ringlog::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use ringlog::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog::protocol::messages::describe_cluster::DescribeClusterRequest;
use ringlog::protocol::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use ringlog::protocol::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use ringlog::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ringlog::protocol::messages::incremental_alter_configs as incremental;
use ringlog::protocol::messages::init_producer_id::InitProducerIdRequest;
use ringlog::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ringlog::protocol::writer::Records;
use std::collections::BTreeSet;
use support::clients::produce_values;
use support::wire::Wire;
use support::{Broker, Options};

/// The id that a broker gives itself.
const NODE: i32 = 1;

fn start() -> (Broker, Wire) {
    let broker = Broker::start(Options::default());
    let wire = Wire::connect(broker.address(), "tests");
    (broker, wire)
}

fn topic(name: &str, partitions: i32) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions: partitions, replication_factor: 1, ..Default::default() }
}

/// Makes a topic and returns its id.
fn create(wire: &mut Wire, name: &str, partitions: i32) -> TopicId {
    let request = CreateTopicsRequest { topics: vec![topic(name, partitions)], ..Default::default() };
    let response = wire.ask(7, &request);
    let result = &response.topics[0];
    assert_eq!((result.name, result.error_code), (name, 0), "{:?}", result.error_message);
    result.topic_id
}

/// How many partitions the metadata shows, or the error.
fn partitions(wire: &mut Wire, name: &str) -> Result<usize, i16> {
    let asked = vec![MetadataRequestTopic { name: Some(name), ..Default::default() }];
    let request = MetadataRequest { topics: Some(asked), allow_auto_topic_creation: false, ..Default::default() };
    let response = wire.ask(12, &request);
    match response.topics[0].error_code {
        0 => Ok(response.topics[0].partitions.len()),
        code => Err(code),
    }
}

#[test]
fn topics_are_created_in_every_version() {
    let (_broker, mut wire) = start();
    for version in 2..=7 {
        let name = format!("topic-v{version}");
        let config = CreatableTopicConfig { name: "retention.ms", value: Some("60000") };
        let wanted = CreatableTopic { configs: vec![config], ..topic(&name, 3) };
        let request = CreateTopicsRequest { topics: vec![wanted], ..Default::default() };
        let response = wire.ask(version, &request);
        let [result] = &response.topics[..] else { panic!("one topic was asked for") };
        assert_eq!((result.name, result.error_code), (&*name, 0), "v{version}: {:?}", result.error_message);
        assert_eq!(result.topic_id != TopicId::ZERO, version >= 7, "v{version}");
        if version >= 5 {
            assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
            let configs = result.configs.as_ref().expect("nobody hides them");
            let retention = configs.iter().find(|config| config.name == "retention.ms").expect("a topic's key");
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("60000"), 1));
        }
        assert_eq!(partitions(&mut wire, &name), Ok(3));
    }
}

#[test]
fn each_topic_of_a_request_has_its_own_result() {
    let (_broker, mut wire) = start();
    create(&mut wire, "there", 1);
    let stranger = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![99] };
    let own = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![NODE] };
    let unknown = CreatableTopicConfig { name: "retention.msec", value: Some("1") };
    let assigned =
        |name, assignment| CreatableTopic { assignments: vec![assignment], replication_factor: -1, ..topic(name, -1) };
    let cases = [
        (topic("new", 2), ErrorCode::None),
        (topic("there", 1), ErrorCode::TopicAlreadyExists),
        (topic("no/name", 1), ErrorCode::InvalidTopic),
        (topic("none", 0), ErrorCode::InvalidPartitions),
        (CreatableTopic { replication_factor: 2, ..topic("alone", 1) }, ErrorCode::InvalidReplicationFactor),
        (CreatableTopic { configs: vec![unknown], ..topic("mistyped", 1) }, ErrorCode::InvalidConfig),
        (assigned("assigned", own), ErrorCode::None),
        (assigned("elsewhere", stranger), ErrorCode::InvalidReplicaAssignment),
        (CreatableTopic { replication_factor: -1, ..topic("by-default", -1) }, ErrorCode::None),
    ];
    let topics = cases.iter().map(|(topic, _)| topic.clone()).collect();
    let response = wire.ask(7, &CreateTopicsRequest { topics, ..Default::default() });
    assert_eq!(response.topics.len(), cases.len());
    for (topic, code) in &cases {
        let result = response.topics.iter().find(|result| result.name == topic.name).expect("has a result");
        assert_eq!(result.error_code, code.code(), "{}: {:?}", topic.name, result.error_message);
        assert_eq!(result.error_message.is_some(), code.is_error(), "{}", topic.name);
        assert_eq!(partitions(&mut wire, topic.name).is_ok(), !code.is_error() || topic.name == "there");
    }
}

#[test]
fn what_is_only_validated_changes_nothing() {
    let (_broker, mut wire) = start();
    create(&mut wire, "there", 1);
    let request = CreateTopicsRequest { topics: vec![topic("new", 2)], validate_only: true, ..Default::default() };
    let response = wire.ask(7, &request);
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 2));
    assert_eq!(response.topics[0].topic_id, TopicId::ZERO);
    assert_eq!(partitions(&mut wire, "new"), Err(ErrorCode::UnknownTopicOrPartition.code()));

    let more = vec![CreatePartitionsTopic { name: "there", count: 4, assignments: None }];
    let request = CreatePartitionsRequest { topics: more, validate_only: true, ..Default::default() };
    let response = wire.ask(3, &request);
    assert_eq!(response.results[0].error_code, 0);
    assert_eq!(partitions(&mut wire, "there"), Ok(1));
}

#[test]
fn topics_are_deleted_by_name_in_every_version_and_by_id_from_v6() {
    let (_broker, mut wire) = start();
    for version in 1..=6 {
        create(&mut wire, "doomed", 2);
        let topics = vec![DeleteTopicState { name: Some("doomed"), topic_id: TopicId::ZERO }];
        let request = DeleteTopicsRequest { topics, topic_names: vec!["doomed"], ..Default::default() };
        let response = wire.ask(version, &request);
        assert_eq!(response.responses.len(), 1, "v{version}");
        assert_eq!((response.responses[0].name, response.responses[0].error_code), (Some("doomed"), 0), "v{version}");
        assert_eq!(partitions(&mut wire, "doomed"), Err(ErrorCode::UnknownTopicOrPartition.code()));
        let again = wire.ask(version, &request);
        assert_eq!(again.responses[0].error_code, ErrorCode::UnknownTopicOrPartition.code(), "v{version}");
    }
    let id = create(&mut wire, "doomed", 2);
    let states = [(None, id), (None, TopicId([9; 16])), (Some("never"), TopicId::ZERO), (Some("doomed"), id)];
    let topics = states.map(|(name, topic_id)| DeleteTopicState { name, topic_id }).to_vec();
    let response = wire.ask(6, &DeleteTopicsRequest { topics, ..Default::default() });
    let results: Vec<_> = response.responses.iter().map(|result| (result.name, result.error_code)).collect();
    let expected = [
        (Some("doomed"), ErrorCode::None),
        (None, ErrorCode::UnknownTopicId),
        (Some("never"), ErrorCode::UnknownTopicOrPartition),
        (Some("doomed"), ErrorCode::InvalidRequest),
    ];
    assert_eq!(results, expected.map(|(name, code)| (name, code.code())));
    assert_eq!((response.responses[0].topic_id, response.responses[1].topic_id), (id, TopicId([9; 16])));
}

#[test]
fn partitions_are_added_in_every_version() {
    let (_broker, mut wire) = start();
    create(&mut wire, "growing", 1);
    for version in 0..=3 {
        let count = i32::from(version) + 2;
        let topics = vec![CreatePartitionsTopic { name: "growing", count, assignments: None }];
        let response = wire.ask(version, &CreatePartitionsRequest { topics, ..Default::default() });
        assert_eq!((response.results[0].name, response.results[0].error_code), ("growing", 0), "v{version}");
        assert_eq!(partitions(&mut wire, "growing"), Ok(count as usize));
    }
    let on = |nodes: &[i32]| Some(vec![CreatePartitionsAssignment { broker_ids: nodes.to_vec() }]);
    for (name, count, assignments, code) in [
        ("growing", 5, None, ErrorCode::InvalidPartitions),
        ("growing", 4, None, ErrorCode::InvalidPartitions),
        ("growing", 6, on(&[99]), ErrorCode::InvalidReplicaAssignment),
        ("growing", 7, on(&[NODE]), ErrorCode::InvalidReplicaAssignment),
        ("nowhere", 2, None, ErrorCode::UnknownTopicOrPartition),
        ("growing", 6, on(&[NODE]), ErrorCode::None),
    ] {
        let topics = vec![CreatePartitionsTopic { name, count, assignments }];
        let response = wire.ask(3, &CreatePartitionsRequest { topics, ..Default::default() });
        let result = &response.results[0];
        assert_eq!(result.error_code, code.code(), "{name} {count}: {:?}", result.error_message);
    }
    assert_eq!(partitions(&mut wire, "growing"), Ok(6));
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn resource<'a>(resource_type: i8, resource_name: &'a str, keys: Option<Vec<&'a str>>) -> DescribeConfigsResource<'a> {
    DescribeConfigsResource { resource_type, resource_name, configuration_keys: keys }
}

/// The value of one key and where it comes from, as Kafka numbers sources.
fn config(wire: &mut Wire, resource_type: i8, name: &str, key: &str) -> (Option<String>, i8) {
    let resources = vec![resource(resource_type, name, Some(vec![key]))];
    let response = wire.ask(4, &DescribeConfigsRequest { resources, ..Default::default() });
    let result = &response.results[0];
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let [config] = &result.configs[..] else { panic!("{key} was asked for, not {:?}", result.configs) };
    (config.value.as_deref().map(str::to_owned), config.config_source)
}

/// Changes one resource by IncrementalAlterConfigs; returns the error code.
fn alter(wire: &mut Wire, version: i16, on: (i8, &str), change: (&str, i8, Option<&str>), validate_only: bool) -> i16 {
    let (resource_type, resource_name) = on;
    let (name, config_operation, value) = change;
    let configs = vec![incremental::AlterableConfig { name, config_operation, value }];
    let resources = vec![incremental::AlterConfigsResource { resource_type, resource_name, configs }];
    let response = wire.ask(version, &incremental::IncrementalAlterConfigsRequest { resources, validate_only });
    let result = &response.responses[0];
    assert_eq!((result.resource_type, result.resource_name), on);
    assert_eq!(result.error_message.is_some(), result.error_code != 0, "an error has a message");
    result.error_code
}

#[test]
fn configurations_are_described_in_every_version() {
    let (_broker, mut wire) = start();
    create(&mut wire, "described", 1);
    let node = NODE.to_string();
    for version in 1..=4 {
        let resources = vec![
            resource(TOPIC, "described", None),
            resource(TOPIC, "described", Some(vec!["retention.ms"])),
            resource(BROKER, &node, Some(vec!["num.partitions", "no.such.key"])),
            resource(BROKER, "", None),
        ];
        let request = DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
        let response = wire.ask(version, &request);
        assert!(response.results.iter().all(|result| result.error_code == 0), "v{version}: {response:?}");
        let configs: Vec<_> = response.results.iter().map(|result| &result.configs).collect();
        assert!(configs[0].len() > 20);
        let [retention] = &configs[1][..] else { panic!("one key was asked for") };
        assert_eq!((retention.name, retention.value.as_deref()), ("retention.ms", Some("604800000")));
        assert_eq!((retention.config_source, retention.read_only), (5, false));
        assert_eq!(retention.synonyms[0].name, "log.retention.hours");
        assert_eq!(
            (retention.config_type, retention.documentation.is_some()),
            if version >= 3 { (5, true) } else { (0, false) }
        );
        let [partitions] = &configs[2][..] else { panic!("one of the keys is known") };
        assert_eq!((partitions.name, partitions.read_only), ("num.partitions", true));
        assert!(configs[3].is_empty(), "nothing was set for all brokers");
    }
}

#[test]
fn a_broker_describes_what_is_in_effect() {
    let (broker, mut wire) = start();
    let node = NODE.to_string();
    let set = |value: String| (Some(value), 4);
    assert_eq!(config(&mut wire, BROKER, &node, "node.id"), set(node.clone()));
    for key in ["listeners", "advertised.listeners"] {
        assert_eq!(config(&mut wire, BROKER, &node, key), set(format!("PLAINTEXT://{}", broker.address())));
    }
    let (dirs, _) = config(&mut wire, BROKER, &node, "log.dirs");
    assert!(std::path::Path::new(&dirs.expect("always set")).is_dir());
    // Nothing is compacted, so no key may say how.
    let all = vec![resource(BROKER, &node, None)];
    let response = wire.ask(4, &DescribeConfigsRequest { resources: all, ..Default::default() });
    assert!(response.results[0].configs.len() > 20);
    assert!(response.results[0].configs.iter().all(|config| !config.name.starts_with("log.cleaner.")));
}

#[test]
fn resources_without_a_configuration_are_refused() {
    let (_broker, mut wire) = start();
    let asked = [
        (TOPIC, "nowhere", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "no/name", ErrorCode::InvalidTopic),
        (BROKER, "99", ErrorCode::InvalidRequest),
        (BROKER, "one", ErrorCode::InvalidRequest),
        (8, "1", ErrorCode::InvalidRequest),
        (77, "x", ErrorCode::InvalidRequest),
    ];
    let resources = asked.iter().map(|(kind, name, _)| resource(*kind, name, None)).collect();
    let response = wire.ask(4, &DescribeConfigsRequest { resources, ..Default::default() });
    assert_eq!(response.results.len(), asked.len());
    for ((kind, name, code), result) in asked.iter().zip(&response.results) {
        assert_eq!((result.resource_type, result.resource_name), (*kind, *name));
        assert_eq!(result.error_code, code.code(), "{kind} {name}");
        assert!(result.error_message.is_some() && result.configs.is_empty(), "{kind} {name}");
    }
    for (kind, name, code) in [
        (TOPIC, "nowhere", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "", ErrorCode::InvalidRequest),
        (BROKER, "99", ErrorCode::InvalidRequest),
        (8, "1", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(
            alter(&mut wire, 1, (kind, name), ("retention.ms", 0, Some("1")), false),
            code.code(),
            "{kind} {name}"
        );
    }
}

#[test]
fn single_keys_are_changed_and_stay_changed() {
    let (mut broker, mut wire) = start();
    create(&mut wire, "changed", 1);
    let on = (TOPIC, "changed");
    let value = |value: &str, source| (Some(value.to_owned()), source);
    assert_eq!(alter(&mut wire, 0, on, ("retention.ms", 0, Some("7000")), false), 0);
    assert_eq!(alter(&mut wire, 1, on, ("cleanup.policy", 2, Some("compact")), false), 0);
    assert_eq!(alter(&mut wire, 1, on, ("retention.ms", 0, Some("8000")), true), 0);
    assert_eq!(config(&mut wire, TOPIC, "changed", "retention.ms"), value("7000", 1));
    assert_eq!(config(&mut wire, TOPIC, "changed", "cleanup.policy"), value("delete,compact", 1));
    for (change, code) in [
        (("retention.ms", 0, Some("soon")), ErrorCode::InvalidConfig),
        (("retention.msec", 0, Some("1")), ErrorCode::InvalidConfig),
        (("retention.ms", 2, Some("1")), ErrorCode::InvalidConfig),
        (("retention.ms", 0, None), ErrorCode::InvalidRequest),
        (("retention.ms", 9, Some("1")), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(alter(&mut wire, 1, on, change, false), code.code(), "{change:?}");
    }
    let node = NODE.to_string();
    assert_eq!(alter(&mut wire, 1, (BROKER, ""), ("log.retention.ms", 0, Some("5000")), false), 0);
    assert_eq!(alter(&mut wire, 1, (BROKER, &node), ("message.max.bytes", 0, Some("2000000")), false), 0);
    assert_eq!(
        alter(&mut wire, 1, (BROKER, &node), ("num.partitions", 0, Some("2")), false),
        ErrorCode::InvalidConfig.code()
    );

    broker.terminate();
    broker.restart();
    let mut wire = Wire::connect(broker.address(), "tests");
    assert_eq!(config(&mut wire, TOPIC, "changed", "retention.ms"), value("7000", 1));
    assert_eq!(config(&mut wire, BROKER, "", "log.retention.ms"), value("5000", 3));
    assert_eq!(config(&mut wire, BROKER, &node, "message.max.bytes"), value("2000000", 2));
    assert_eq!(config(&mut wire, TOPIC, "changed", "max.message.bytes"), value("2000000", 2));
    assert_eq!(alter(&mut wire, 1, on, ("retention.ms", 1, None), false), 0);
    assert_eq!(config(&mut wire, TOPIC, "changed", "retention.ms"), value("5000", 3));
}

#[test]
fn the_older_call_takes_back_what_it_does_not_name() {
    let (_broker, mut wire) = start();
    create(&mut wire, "replaced", 1);
    for version in 0..=2 {
        assert_eq!(alter(&mut wire, 1, (TOPIC, "replaced"), ("retention.ms", 0, Some("7000")), false), 0);
        let segment_ms = (60_000 + i32::from(version)).to_string();
        let configs = vec![AlterableConfig { name: "segment.ms", value: Some(&segment_ms) }];
        let resources = vec![
            AlterConfigsResource { resource_type: TOPIC, resource_name: "replaced", configs },
            AlterConfigsResource { resource_type: TOPIC, resource_name: "nowhere", configs: vec![] },
            AlterConfigsResource { resource_type: 8, resource_name: "1", configs: vec![] },
        ];
        let response = wire.ask(version, &AlterConfigsRequest { resources, validate_only: false });
        let codes: Vec<_> = response.responses.iter().map(|result| result.error_code).collect();
        let expected = [ErrorCode::None, ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidRequest];
        assert_eq!(codes, expected.map(ErrorCode::code), "v{version}");
        assert_eq!(config(&mut wire, TOPIC, "replaced", "segment.ms"), (Some(segment_ms), 1));
        assert_eq!(config(&mut wire, TOPIC, "replaced", "retention.ms").1, 5, "v{version}");
    }
}

#[test]
fn the_cluster_is_described() {
    let (broker, mut wire) = start();
    for version in 0..=1 {
        let request =
            DescribeClusterRequest { include_cluster_authorized_operations: version == 1, ..Default::default() };
        let response = wire.ask(version, &request);
        assert_eq!((response.error_code, response.controller_id), (0, NODE));
        assert!(!response.cluster_id.is_empty());
        let [only] = &response.brokers[..] else { panic!("one broker runs") };
        assert_eq!((only.broker_id, format!("{}:{}", only.host, only.port)), (NODE, broker.address().to_owned()));
        assert_eq!(response.cluster_authorized_operations, if version == 1 { 0x1fa0 } else { i32::MIN });
    }
    let response = wire.ask(1, &DescribeClusterRequest { endpoint_type: 2, ..Default::default() });
    assert_eq!(response.error_code, ErrorCode::MismatchedEndpointType.code());
}

#[test]
fn metadata_tells_what_may_be_done_only_when_asked() {
    let (_broker, mut wire) = start();
    create(&mut wire, "there", 1);
    for version in 8..=12 {
        for asked_for in [false, true] {
            let name = |name| MetadataRequestTopic { name: Some(name), ..Default::default() };
            let request = MetadataRequest {
                topics: Some(vec![name("there"), name("not-there")]),
                allow_auto_topic_creation: false,
                include_cluster_authorized_operations: asked_for && version <= 10,
                include_topic_authorized_operations: asked_for,
            };
            let response = wire.ask(version, &request);
            let told: Vec<i32> = response.topics.iter().map(|topic| topic.topic_authorized_operations).collect();
            // What Apache Kafka 4.3.1 answers without an authorizer.
            assert_eq!(told, [if asked_for { 0xdf8 } else { i32::MIN }, i32::MIN], "v{version}");
            let cluster = if asked_for && version <= 10 { 0x1fa0 } else { i32::MIN };
            assert_eq!(response.cluster_authorized_operations, cluster, "v{version}");
        }
    }
}

/// Asks for this many producer ids on a connection of its own, one after the other.
fn producer_ids(address: &str, count: usize) -> Vec<i64> {
    let mut wire = Wire::connect(address, "tests");
    let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
    let one = |_| {
        let response = wire.ask(4, &request);
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        response.producer_id
    };
    (0..count).map(one).collect()
}

#[test]
fn producer_ids_are_never_handed_out_twice() {
    let (mut broker, _) = start();
    // Blocks have 1000 ids: several are used up, on both cores as connections fall on them.
    let at_once = |address: &str| -> Vec<i64> {
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| producer_ids(address, 600))).collect();
            asking.into_iter().flat_map(|asking| asking.join().expect("every producer gets ids")).collect()
        })
    };
    let mut ids = at_once(broker.address());
    broker.kill9();
    broker.restart();
    ids.extend(at_once(broker.address()));
    let distinct: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (2 * 8 * 600, 2 * 8 * 600));
    assert!(ids.iter().all(|id| *id >= 0));
}

#[test]
fn producers_get_ids_in_every_version_and_transactions_are_refused() {
    let (_broker, mut wire) = start();
    let idempotent = InitProducerIdRequest::default();
    let bump = InitProducerIdRequest { producer_id: 5, producer_epoch: 3, ..idempotent.clone() };
    let half = InitProducerIdRequest { producer_id: 5, ..idempotent.clone() };
    let transactional = InitProducerIdRequest { transactional_id: Some("t"), ..idempotent.clone() };
    for version in 0..=4 {
        let mut code = |request: &InitProducerIdRequest<'_>| {
            let response = wire.ask(version, request);
            assert_eq!(
                (response.producer_id >= 0, response.producer_epoch == 0),
                (response.error_code == 0, response.error_code == 0)
            );
            response.error_code
        };
        assert_eq!(code(&idempotent), 0, "v{version}");
        assert_eq!(code(&bump), 0, "v{version}");
        assert_eq!(code(&half), if version >= 3 { ErrorCode::InvalidRequest.code() } else { 0 }, "v{version}");
        assert_eq!(code(&transactional), ErrorCode::TransactionalIdAuthorizationFailed.code(), "v{version}");
    }
}

#[test]
fn every_core_tells_what_its_partitions_take_of_the_disk() {
    let (broker, mut wire) = start();
    create(&mut wire, "full", 3);
    create(&mut wire, "empty", 1);
    for partition in 0..3 {
        let count = 10 * (partition + 1);
        produce_values(broker.address(), "full", partition, &vec!["x".repeat(1000); count as usize]);
    }
    for version in 1..=4 {
        let response = wire.ask(version, &DescribeLogDirsRequest { topics: None });
        let [dir] = &response.results[..] else { panic!("there is one data directory") };
        assert_eq!((dir.error_code, dir.log_dir), (0, broker.data_dir().to_str().expect("a text")));
        assert_eq!(dir.usable_bytes > 0, version >= 4);
        let names: Vec<_> = dir.topics.iter().map(|topic| (topic.name, topic.partitions.len())).collect();
        assert_eq!(names, [("empty", 1), ("full", 3)], "v{version}");
        for (index, partition) in (0..).zip(&dir.topics[1].partitions) {
            let least = 10_000 * (i64::from(index) + 1);
            assert_eq!((partition.partition_index, partition.offset_lag, partition.is_future_key), (index, 0, false));
            assert!((least..least * 2).contains(&partition.partition_size), "{partition:?}");
        }
        assert_eq!(dir.topics[0].partitions[0].partition_size, 0);
    }
    let asked = |topic, partitions: &[i32]| DescribableLogDirTopic { topic, partitions: partitions.to_vec() };
    let topics = Some(vec![asked("full", &[2, 2, 9]), asked("nowhere", &[0])]);
    let response = wire.ask(4, &DescribeLogDirsRequest { topics });
    let [full] = &response.results[0].topics[..] else { panic!("one of the topics is there") };
    assert_eq!(full.partitions.iter().map(|partition| partition.partition_index).collect::<Vec<_>>(), [2]);
}

/// Deletes records of partition 0; returns the error code and where it starts now.
fn delete_records(wire: &mut Wire, version: i16, name: &str, offset: i64) -> (i16, i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name, partitions }];
    let response = wire.ask(version, &DeleteRecordsRequest { topics, ..Default::default() });
    let result = &response.topics[0].partitions[0];
    (result.error_code, result.low_watermark)
}

/// Reads partition 0 from `offset` on; returns the error code and the offsets found, those before `offset` left out.
fn fetch(wire: &mut Wire, topic: &str, offset: i64) -> (i16, Vec<i64>) {
    let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let topics = vec![FetchTopic { topic, partitions: vec![partition], ..Default::default() }];
    let response = wire.ask(12, &FetchRequest { topics, max_bytes: 1 << 20, ..Default::default() });
    let part = &response.responses[0].partitions[0];
    let Records::Inline(bytes) = part.records else { panic!("what was received is inline") };
    let offsets = batches(bytes).flat_map(|(header, _)| header.base_offset..header.next_offset());
    (part.error_code, offsets.filter(|found| *found >= offset).collect())
}

#[test]
fn deleted_records_stay_deleted_after_a_crash() {
    let (mut broker, mut wire) = start();
    create(&mut wire, "trimmed", 1);
    let values: Vec<String> = (0..10).map(|n| format!("value-{n}")).collect();
    produce_values(broker.address(), "trimmed", 0, &values);
    assert_eq!(delete_records(&mut wire, 0, "trimmed", 3), (0, 3));
    assert_eq!(delete_records(&mut wire, 1, "trimmed", 2), (0, 3), "it starts later already");
    assert_eq!(delete_records(&mut wire, 2, "trimmed", 11), (ErrorCode::OffsetOutOfRange.code(), -1));
    assert_eq!(delete_records(&mut wire, 2, "nowhere", 0), (ErrorCode::UnknownTopicOrPartition.code(), -1));
    broker.kill9();
    broker.restart();
    let mut wire = Wire::connect(broker.address(), "tests");
    assert_eq!(fetch(&mut wire, "trimmed", 2), (ErrorCode::OffsetOutOfRange.code(), vec![]));
    assert_eq!(fetch(&mut wire, "trimmed", 3), (0, (3..10).collect()));
    assert_eq!(delete_records(&mut wire, 2, "trimmed", -1), (0, 10));
    assert_eq!(fetch(&mut wire, "trimmed", 9), (ErrorCode::OffsetOutOfRange.code(), vec![]));
    assert_eq!(produce_values(broker.address(), "trimmed", 0, &values[..1]), 10);
    assert_eq!(fetch(&mut wire, "trimmed", 10), (0, vec![10]));
}

#[test]
fn records_of_a_topic_that_is_only_compacted_are_not_deleted() {
    let (_broker, mut wire) = start();
    create(&mut wire, "compacted", 1);
    assert_eq!(alter(&mut wire, 1, (TOPIC, "compacted"), ("cleanup.policy", 0, Some("compact")), false), 0);
    assert_eq!(delete_records(&mut wire, 2, "compacted", -1), (ErrorCode::PolicyViolation.code(), -1));
}

/// The metadata log is read back from segments, memory and the journal, whichever way the broker ended.
#[test]
fn metadata_outlives_any_number_of_ends() {
    let (mut broker, mut wire) = start();
    let mut made = 0;
    for round in 0..6 {
        // Some 60 bytes each: the log grows over several blocks, and each round ends in the middle of one.
        for _ in 0..70 {
            create(&mut wire, &format!("topic-number-{made}"), 1);
            made += 1;
        }
        match round % 2 {
            0 => broker.kill9(),
            _ => assert!(broker.terminate().success()),
        }
        broker.restart();
        wire = Wire::connect(broker.address(), "tests");
        let request = MetadataRequest { topics: None, ..Default::default() };
        let response = wire.ask(12, &request);
        assert_eq!(response.topics.len(), made, "after round {round}");
    }
}
