//! What administrators ask of a broker, in each version that is served: topics, configurations, disk usage, producer ids.
//!
//! Speaks the wire through our own codec, so that codes and texts can be looked at; that real clients get along is in
//! `tests/rdkafka.rs` and `tests/clients`.

mod support;

use ringlog::base::error::ErrorCode;
use ringlog::base::ids::TopicId;
use ringlog::protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use ringlog::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use support::wire::Wire;
use support::{Broker, Options};

/// The id that a broker gives itself.
const NODE: i32 = 1;

fn start() -> (Broker, Wire) {
    let broker = Broker::start(Options::default());
    let wire = Wire::connect(broker.address());
    (broker, wire)
}

fn topic(name: &str, partitions: i32) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions: partitions, replication_factor: 1, ..Default::default() }
}

/// Makes a topic and returns its id.
fn create(wire: &mut Wire, name: &str, partitions: i32) -> TopicId {
    let request = CreateTopicsRequest { topics: vec![topic(name, partitions)], ..Default::default() };
    let answer = wire.call(7, &request);
    let response: CreateTopicsResponse<'_> = answer.read();
    let result = &response.topics[0];
    assert_eq!((result.name, result.error_code), (name, 0), "{:?}", result.error_message);
    result.topic_id
}

/// How many partitions the metadata shows, or the error.
fn partitions(wire: &mut Wire, name: &str) -> Result<usize, i16> {
    let asked = vec![MetadataRequestTopic { name: Some(name), ..Default::default() }];
    let request = MetadataRequest { topics: Some(asked), allow_auto_topic_creation: false, ..Default::default() };
    let answer = wire.call(12, &request);
    let response: MetadataResponse<'_> = answer.read();
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
        let answer = wire.call(version, &request);
        let response: CreateTopicsResponse<'_> = answer.read();
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
    let answer = wire.call(7, &CreateTopicsRequest { topics, ..Default::default() });
    let response: CreateTopicsResponse<'_> = answer.read();
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
    let answer = wire.call(7, &request);
    let response: CreateTopicsResponse<'_> = answer.read();
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 2));
    assert_eq!(response.topics[0].topic_id, TopicId::ZERO);
    assert_eq!(partitions(&mut wire, "new"), Err(ErrorCode::UnknownTopicOrPartition.code()));

    let more = vec![CreatePartitionsTopic { name: "there", count: 4, assignments: None }];
    let request = CreatePartitionsRequest { topics: more, validate_only: true, ..Default::default() };
    let answer = wire.call(3, &request);
    assert_eq!(answer.read::<CreatePartitionsResponse<'_>>().results[0].error_code, 0);
    assert_eq!(partitions(&mut wire, "there"), Ok(1));
}

#[test]
fn topics_are_deleted_by_name_in_every_version_and_by_id_from_v6() {
    let (_broker, mut wire) = start();
    for version in 1..=6 {
        create(&mut wire, "doomed", 2);
        let topics = vec![DeleteTopicState { name: Some("doomed"), topic_id: TopicId::ZERO }];
        let request = DeleteTopicsRequest { topics, topic_names: vec!["doomed"], ..Default::default() };
        let answer = wire.call(version, &request);
        let response: DeleteTopicsResponse<'_> = answer.read();
        assert_eq!(response.responses.len(), 1, "v{version}");
        assert_eq!((response.responses[0].name, response.responses[0].error_code), (Some("doomed"), 0), "v{version}");
        assert_eq!(partitions(&mut wire, "doomed"), Err(ErrorCode::UnknownTopicOrPartition.code()));
        let answer = wire.call(version, &request);
        let again: DeleteTopicsResponse<'_> = answer.read();
        assert_eq!(again.responses[0].error_code, ErrorCode::UnknownTopicOrPartition.code(), "v{version}");
    }
    let id = create(&mut wire, "doomed", 2);
    let states = [(None, id), (None, TopicId([9; 16])), (Some("never"), TopicId::ZERO), (Some("doomed"), id)];
    let topics = states.map(|(name, topic_id)| DeleteTopicState { name, topic_id }).to_vec();
    let answer = wire.call(6, &DeleteTopicsRequest { topics, ..Default::default() });
    let response: DeleteTopicsResponse<'_> = answer.read();
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
        let answer = wire.call(version, &CreatePartitionsRequest { topics, ..Default::default() });
        let response: CreatePartitionsResponse<'_> = answer.read();
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
        let answer = wire.call(3, &CreatePartitionsRequest { topics, ..Default::default() });
        let response: CreatePartitionsResponse<'_> = answer.read();
        let result = &response.results[0];
        assert_eq!(result.error_code, code.code(), "{name} {count}: {:?}", result.error_message);
    }
    assert_eq!(partitions(&mut wire, "growing"), Ok(6));
}
