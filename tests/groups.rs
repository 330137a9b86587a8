//! Consumer groups over the wire, as clients see them: a real broker, our own codec, every served version.
//!
//! What the coordinator decides is tested in `src/group`; here it is the way there and back, and what outlives the process.

mod support;

use ringlog::base::error::ErrorCode;
use ringlog::protocol::messages::delete_groups::DeleteGroupsRequest;
use ringlog::protocol::messages::delete_topics::DeleteTopicsRequest;
use ringlog::protocol::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use ringlog::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ringlog::protocol::messages::heartbeat::HeartbeatRequest;
use ringlog::protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ringlog::protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog::protocol::messages::list_groups::ListGroupsRequest;
use ringlog::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ringlog::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringlog::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringlog::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use std::time::{Duration, Instant};
use support::clients::until;
use support::wire::Wire;
use support::{Broker, Options};

/// A consumer's subscription to "orders", in version 0 of its protocol.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff";
/// The least that the broker allows by default.
const SESSION_TIMEOUT_MS: i32 = 6_000;

const NONE: i16 = ErrorCode::None as i16;

/// A member as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Member {
    group: &'static str,
    id: &'static str,
    instance: Option<&'static str>,
    generation: i32,
}

/// A broker with the topic "orders" and a coordinator for groups.
fn start() -> (Broker, Wire) {
    start_with(Options::default())
}

fn start_with(options: Options) -> (Broker, Wire) {
    let broker = Broker::start(options);
    let mut wire = Wire::connect(broker.address(), "admin");
    let topic = MetadataRequestTopic { name: Some("orders"), ..Default::default() };
    let made = wire
        .ask(4, &MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() });
    assert_eq!(made.topics[0].error_code, NONE);
    let found = wire.ask(2, &FindCoordinatorRequest { key: "any", ..Default::default() });
    assert_eq!(found.error_code, NONE);
    (broker, wire)
}

fn join_request(member: &Member) -> JoinGroupRequest<'static> {
    JoinGroupRequest {
        group_id: member.group,
        session_timeout_ms: SESSION_TIMEOUT_MS,
        rebalance_timeout_ms: 10_000,
        member_id: member.id,
        group_instance_id: member.instance,
        protocol_type: "consumer",
        protocols: vec![JoinGroupRequestProtocol { name: "range", metadata: SUBSCRIPTION }],
        ..Default::default()
    }
}

fn newcomer(group: &'static str) -> Member {
    Member { group, id: "", instance: None, generation: -1 }
}

/// Sends the join that will wait for the generation; before it, where the version has that, fetches a member id.
fn begin_join(wire: &mut Wire, version: i16, member: &mut Member) {
    if version >= 4 && member.instance.is_none() && member.id.is_empty() {
        let reply = wire.ask(version, &join_request(member));
        assert_eq!(reply.error_code, ErrorCode::MemberIdRequired.code());
        member.id = reply.member_id;
        assert!(member.id.starts_with("consumer-"), "{}", member.id);
    }
    wire.send(version, &join_request(member));
}

fn end_join(wire: &mut Wire, version: i16, member: &mut Member) -> JoinGroupResponse<'static> {
    let joined: JoinGroupResponse<'static> = wire.receive(version);
    assert_eq!(joined.error_code, NONE, "{joined:?}");
    (member.id, member.generation) = (joined.member_id, joined.generation_id);
    joined
}

fn sync_request(member: &Member, assignments: &[(&'static str, &'static [u8])]) -> SyncGroupRequest<'static> {
    let assigned = |&(member_id, assignment): &(_, _)| SyncGroupRequestAssignment { member_id, assignment };
    SyncGroupRequest {
        group_id: member.group,
        generation_id: member.generation,
        member_id: member.id,
        group_instance_id: member.instance,
        protocol_type: Some("consumer"),
        protocol_name: Some("range"),
        assignments: assignments.iter().map(assigned).collect(),
    }
}

/// Joins a group of its own and is assigned `mine`.
fn join_alone(wire: &mut Wire, mut member: Member) -> Member {
    begin_join(wire, 9, &mut member);
    let joined = end_join(wire, 9, &mut member);
    assert_eq!(joined.leader, member.id);
    let synced = wire.ask(5, &sync_request(&member, &[(member.id, b"mine")]));
    assert_eq!((synced.error_code, synced.assignment), (NONE, &b"mine"[..]));
    member
}

fn heartbeat(wire: &mut Wire, version: i16, member: &Member) -> i16 {
    let request = HeartbeatRequest {
        group_id: member.group,
        generation_id: member.generation,
        member_id: member.id,
        group_instance_id: member.instance,
    };
    wire.ask(version, &request).error_code
}

/// Commits for partition 0 of each topic; the error of each.
fn commit(wire: &mut Wire, version: i16, member: &Member, offsets: &[(&'static str, i64)]) -> Vec<i16> {
    let topic = |&(name, committed_offset): &(_, _)| OffsetCommitRequestTopic {
        name,
        partitions: vec![OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset,
            committed_leader_epoch: 3,
            committed_metadata: Some("note"),
        }],
    };
    let request = OffsetCommitRequest {
        group_id: member.group,
        generation_id_or_member_epoch: member.generation,
        member_id: member.id,
        group_instance_id: member.instance,
        topics: offsets.iter().map(topic).collect(),
        ..Default::default()
    };
    let reply = wire.ask(version, &request);
    assert_eq!(reply.topics.len(), offsets.len());
    reply.topics.iter().map(|topic| topic.partitions[0].error_code).collect()
}

/// Offset and metadata of partition 0 of "orders".
fn committed(wire: &mut Wire, version: i16, group: &'static str) -> (i64, String) {
    if version >= 8 {
        let topics = vec![OffsetFetchRequestTopics { name: "orders", partition_indexes: vec![0] }];
        let asked = OffsetFetchRequestGroup { group_id: group, topics: Some(topics), ..Default::default() };
        let reply = wire.ask(version, &OffsetFetchRequest { groups: vec![asked], ..Default::default() });
        assert_eq!((reply.groups[0].group_id, reply.groups[0].error_code), (group, NONE));
        let partition = &reply.groups[0].topics[0].partitions[0];
        assert_eq!(partition.error_code, NONE);
        return (partition.committed_offset, partition.metadata.unwrap_or_default().to_owned());
    }
    let topics = vec![OffsetFetchRequestTopic { name: "orders", partition_indexes: vec![0] }];
    let reply = wire.ask(version, &OffsetFetchRequest { group_id: group, topics: Some(topics), ..Default::default() });
    let partition = &reply.topics[0].partitions[0];
    assert_eq!((reply.error_code, partition.error_code), (NONE, NONE));
    (partition.committed_offset, partition.metadata.unwrap_or_default().to_owned())
}

fn leave(wire: &mut Wire, version: i16, member: &Member) -> i16 {
    let identity = MemberIdentity { member_id: member.id, group_instance_id: member.instance, reason: Some("done") };
    let request = LeaveGroupRequest { group_id: member.group, member_id: member.id, members: vec![identity] };
    let reply = wire.ask(version, &request);
    if version >= 3 {
        assert_eq!((reply.error_code, reply.members.len()), (NONE, 1));
        return reply.members[0].error_code;
    }
    reply.error_code
}

fn describe(wire: &mut Wire, version: i16, group: &'static str) -> DescribedGroup<'static> {
    let reply = wire.ask(version, &DescribeGroupsRequest { groups: vec![group], ..Default::default() });
    let described = reply.groups.into_iter().next().expect("one was asked for");
    assert_eq!((described.group_id, described.error_code), (group, NONE));
    described
}

#[test]
fn what_may_be_done_to_a_group_is_told_only_when_asked() {
    let (_broker, mut wire) = start();
    for version in 3..=5 {
        // What Apache Kafka 4.3.1 answers without an authorizer, for a group that is not there as well.
        for (asked_for, told) in [(true, 0xd48), (false, i32::MIN)] {
            let request = DescribeGroupsRequest { groups: vec!["none"], include_authorized_operations: asked_for };
            let reply = wire.ask(version, &request);
            assert_eq!((reply.groups[0].error_code, reply.groups[0].authorized_operations), (NONE, told), "v{version}");
        }
    }
}

fn delete_group(wire: &mut Wire, version: i16, group: &'static str) -> i16 {
    let reply = wire.ask(version, &DeleteGroupsRequest { groups_names: vec![group, group] });
    assert_eq!(reply.results.len(), 1, "named twice, deleted once");
    reply.results[0].error_code
}

#[test]
fn without_a_lookup_there_is_no_coordinator_and_no_offsets_topic() {
    let broker = Broker::start(Options { cores: 2, ..Options::default() });
    let mut wire = Wire::connect(broker.address(), "consumer");
    let not_coordinator = ErrorCode::NotCoordinator.code();

    let refused = wire.ask(3, &join_request(&newcomer("early")));
    assert_eq!((refused.error_code, refused.generation_id), (not_coordinator, -1));
    assert_eq!(heartbeat(&mut wire, 0, &newcomer("early")), not_coordinator);
    let topics = vec![OffsetFetchRequestTopic { name: "orders", partition_indexes: vec![4] }];
    let request = OffsetFetchRequest { group_id: "early", topics: Some(topics), ..Default::default() };
    let fetched = wire.ask(1, &request);
    let partition = &fetched.topics[0].partitions[0];
    assert_eq!((partition.partition_index, partition.error_code), (4, not_coordinator), "v1 tells it per partition");
    let fetched = wire.ask(2, &request);
    assert_eq!((fetched.error_code, fetched.topics.len()), (not_coordinator, 0));
    let described = wire.ask(5, &DescribeGroupsRequest { groups: vec!["early"], include_authorized_operations: true });
    let early = &described.groups[0];
    assert_eq!((early.error_code, early.authorized_operations), (not_coordinator, i32::MIN));
    assert_eq!(delete_group(&mut wire, 2, "early"), not_coordinator);
    let listed = wire.ask(5, &ListGroupsRequest::default());
    assert_eq!((listed.error_code, listed.groups.len()), (NONE, 0));
    let topics = wire.ask(4, &MetadataRequest::default()).topics;
    assert!(topics.is_empty(), "{topics:?}");

    // A lookup makes it, and what was refused is served.
    let keys = vec!["early", "other", "third"];
    let found = wire.ask(4, &FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() });
    for coordinator in &found.coordinators {
        let address = format!("{}:{}", coordinator.host, coordinator.port);
        assert_eq!((coordinator.error_code, address.as_str()), (NONE, broker.address()), "{coordinator:?}");
    }
    assert_eq!(found.coordinators.iter().map(|found| found.key).collect::<Vec<_>>(), ["early", "other", "third"]);
    let topics = wire.ask(4, &MetadataRequest::default()).topics;
    let made: Vec<_> = topics.iter().map(|topic| (topic.name, topic.is_internal, topic.partitions.len())).collect();
    assert_eq!(made, [(Some("__consumer_offsets"), true, 50)]);
    assert_eq!(describe(&mut wire, 5, "early").group_state, "Dead");
}

#[test]
fn transactions_have_no_coordinator_and_clients_are_told_to_give_up() {
    let broker = Broker::start(Options::default());
    let mut wire = Wire::connect(broker.address(), "producer");
    for version in 1..=4 {
        let request = FindCoordinatorRequest { key: "tx", key_type: 1, coordinator_keys: vec!["tx"] };
        let reply = wire.ask(version, &request);
        let (code, message, node) = match reply.coordinators.first() {
            Some(refused) => (refused.error_code, refused.error_message.clone(), refused.node_id),
            None => (reply.error_code, reply.error_message, reply.node_id),
        };
        assert_eq!((code, node), (ErrorCode::TransactionalIdAuthorizationFailed.code(), -1), "v{version}");
        assert!(message.is_some_and(|message| message.contains("transactional.id")), "v{version}");
    }
    let request = FindCoordinatorRequest { key: "share", key_type: 2, ..Default::default() };
    assert_eq!(wire.ask(3, &request).error_code, ErrorCode::InvalidRequest.code());
}

#[test]
fn two_members_share_a_generation_until_one_leaves() {
    let (broker, mut admin) = start();
    let mut wires = [Wire::connect(broker.address(), "consumer"), Wire::connect(broker.address(), "consumer")];
    let mut members = [newcomer("pair"), newcomer("pair")];
    for (wire, member) in wires.iter_mut().zip(&mut members) {
        begin_join(wire, 9, member);
    }
    let joined: Vec<_> = wires.iter_mut().zip(&mut members).map(|(wire, member)| end_join(wire, 9, member)).collect();
    assert_eq!(joined[0].leader, joined[1].leader);
    assert_eq!((members[0].generation, members[1].generation), (1, 1));
    let leader = usize::from(joined[1].leader == members[1].id);
    let follower = 1 - leader;
    assert_eq!((joined[leader].members.len(), joined[follower].members.len()), (2, 0));
    assert!(joined[leader].members.iter().all(|member| member.metadata == SUBSCRIPTION));
    assert_eq!((joined[0].protocol_type, joined[0].protocol_name), (Some("consumer"), Some("range")));

    wires[follower].send(5, &sync_request(&members[follower], &[]));
    let assignments = [(members[leader].id, &b"led"[..]), (members[follower].id, &b"followed"[..])];
    let synced = wires[leader].ask(5, &sync_request(&members[leader], &assignments));
    assert_eq!((synced.error_code, synced.assignment), (NONE, &b"led"[..]));
    let synced: SyncGroupResponse<'_> = wires[follower].receive(5);
    assert_eq!((synced.error_code, synced.assignment), (NONE, &b"followed"[..]));

    let described = describe(&mut admin, 5, "pair");
    assert_eq!((described.group_state, described.protocol_type), ("Stable", "consumer"));
    assert_eq!((described.protocol_data, described.members.len()), ("range", 2));
    for member in &described.members {
        assert_eq!((member.client_id, &*member.client_host), ("consumer", "/127.0.0.1"));
    }
    assert_eq!(described.authorized_operations, i32::MIN);

    for (wire, member) in wires.iter_mut().zip(&members) {
        assert_eq!(heartbeat(wire, 4, member), NONE);
    }
    assert_eq!(delete_group(&mut admin, 2, "pair"), ErrorCode::NonEmptyGroup.code());
    assert_eq!(leave(&mut wires[0], 5, &members[0]), NONE);
    assert_eq!(heartbeat(&mut wires[0], 4, &members[0]), ErrorCode::UnknownMemberId.code());
    assert_eq!(heartbeat(&mut wires[1], 4, &members[1]), ErrorCode::RebalanceInProgress.code());
}

#[test]
fn every_version_takes_a_member_from_joining_to_leaving() {
    let (broker, mut admin) = start();
    let groups = ["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"];
    // All at once: each first generation waits three seconds for more members.
    let mut clients: Vec<(i16, Wire, Member)> = (0..)
        .zip(groups)
        .map(|(version, group)| (version, Wire::connect(broker.address(), "consumer"), newcomer(group)))
        .collect();
    for (version, wire, member) in &mut clients {
        let found = wire.ask((*version).min(3), &FindCoordinatorRequest { key: member.group, ..Default::default() });
        assert_eq!((found.error_code, found.node_id), (NONE, 1));
        begin_join(wire, *version, member);
    }
    for (version, wire, member) in &mut clients {
        let joined = end_join(wire, *version, member);
        assert_eq!(joined.protocol_type, (*version >= 7).then_some("consumer"), "v{version}");
    }
    for (version, wire, member) in &mut clients {
        let version = *version;
        let synced = wire.ask(version.min(5), &sync_request(member, &[(member.id, b"mine")]));
        assert_eq!((synced.error_code, synced.assignment), (NONE, &b"mine"[..]), "v{version}");
        assert_eq!(heartbeat(wire, version.min(4), member), NONE, "v{version}");
        let (commits, fetches) = (version.clamp(2, 8), version.clamp(1, 8));
        assert_eq!(commit(wire, commits, member, &[("orders", 40 + i64::from(version))]), [NONE], "v{version}");
        assert_eq!(committed(wire, fetches, member.group), (40 + i64::from(version), "note".to_owned()), "v{version}");
        assert_eq!(describe(wire, version.min(5), member.group).group_state, "Stable", "v{version}");
        assert_eq!(leave(wire, version.min(5), member), NONE, "v{version}");
        assert_eq!(describe(wire, version.min(5), member.group).group_state, "Empty", "v{version}");
    }
    for version in 0..=5 {
        let mut listed = admin.ask(version, &ListGroupsRequest::default()).groups;
        listed.sort_by_key(|group| group.group_id);
        assert_eq!(listed.iter().map(|group| group.group_id).collect::<Vec<_>>(), groups, "v{version}");
        assert!(listed.iter().all(|group| group.protocol_type == "consumer"), "v{version}");
        assert_eq!(listed[0].group_state, if version >= 4 { "Empty" } else { "" });
        assert_eq!(listed[0].group_type, if version >= 5 { "classic" } else { "" });
    }
    for (version, group) in [(0, "v0"), (1, "v1"), (2, "v2")] {
        assert_eq!(delete_group(&mut admin, version, group), NONE);
        assert_eq!(delete_group(&mut admin, version, group), ErrorCode::GroupIdNotFound.code());
        assert_eq!(committed(&mut admin, 8, group), (-1, String::new()));
    }
}

#[test]
fn lists_are_filtered_by_state_and_type() {
    let (broker, mut admin) = start();
    let mut wire = Wire::connect(broker.address(), "consumer");
    let member = join_alone(&mut wire, newcomer("busy"));
    assert_eq!(commit(&mut admin, 2, &newcomer("idle"), &[("orders", 1)]), [NONE]);

    let mut list = |version, states: &[&'static str], types: &[&'static str]| {
        let request = ListGroupsRequest { states_filter: states.to_vec(), types_filter: types.to_vec() };
        let mut names: Vec<_> = admin.ask(version, &request).groups.iter().map(|group| group.group_id).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(list(5, &[], &[]), ["busy", "idle"]);
    assert_eq!(list(4, &["stable"], &[]), ["busy"]);
    assert_eq!(list(5, &["Empty"], &["Classic"]), ["idle"]);
    assert_eq!(list(5, &[], &["consumer"]), Vec::<&str>::new());
    assert_eq!(leave(&mut wire, 5, &member), NONE);
}

#[test]
fn offsets_are_kept_for_partitions_that_exist() {
    let (_broker, mut wire) = start();
    let (outsider, other) = (newcomer("manual"), newcomer("another"));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let errors = commit(&mut wire, 8, &outsider, &[("gone", 1), ("orders", 7), ("gone-too", 2)]);
    assert_eq!(errors, [unknown, NONE, unknown]);
    assert_eq!(commit(&mut wire, 8, &outsider, &[("gone", 1)]), [unknown]);
    assert_eq!(commit(&mut wire, 8, &other, &[("orders", 9)]), [NONE]);

    // Several groups, whose coordinators are different cores; all their offsets.
    let asked = |group_id| OffsetFetchRequestGroup { group_id, topics: None, ..Default::default() };
    let groups: Vec<_> = ["another", "nobody", "manual"].map(asked).to_vec();
    let reply = wire.ask(8, &OffsetFetchRequest { groups, require_stable: true, ..Default::default() });
    let told = reply.groups.iter().map(|group| {
        let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
        let offsets = partitions.map(|partition| (partition.committed_offset, partition.committed_leader_epoch));
        (group.group_id, group.error_code, offsets.collect())
    });
    let told: Vec<(&str, i16, Vec<_>)> = told.collect();
    assert_eq!(told, [("another", NONE, vec![(9, 3)]), ("nobody", NONE, vec![]), ("manual", NONE, vec![(7, 3)])]);

    let partitions = [0, 5].map(|partition_index| OffsetDeleteRequestPartition { partition_index }).to_vec();
    let topics = vec![OffsetDeleteRequestTopic { name: "orders", partitions }];
    let deleted = wire.ask(0, &OffsetDeleteRequest { group_id: "manual", topics: topics.clone() });
    let errors: Vec<_> =
        deleted.topics[0].partitions.iter().map(|part| (part.partition_index, part.error_code)).collect();
    assert_eq!((deleted.error_code, errors), (NONE, vec![(0, NONE), (5, unknown)]));
    assert_eq!(committed(&mut wire, 8, "manual"), (-1, String::new()));
    assert_eq!(committed(&mut wire, 8, "another").0, 9);
    let deleted = wire.ask(0, &OffsetDeleteRequest { group_id: "nobody", topics });
    assert_eq!((deleted.error_code, deleted.topics.len()), (ErrorCode::GroupIdNotFound.code(), 0));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let (broker, _admin) = start();
    let mut wire = Wire::connect(broker.address(), "consumer");
    let before = join_alone(&mut wire, Member { instance: Some("pod-0"), ..newcomer("static") });

    let mut wire = Wire::connect(broker.address(), "consumer");
    let mut after = Member { id: "", ..before };
    begin_join(&mut wire, 9, &mut after);
    let joined = end_join(&mut wire, 9, &mut after);
    assert_eq!((after.generation, joined.skip_assignment), (before.generation, true));
    assert_ne!(after.id, before.id);
    assert!(after.id.starts_with("pod-0-"), "{}", after.id);
    let synced = wire.ask(5, &sync_request(&after, &[]));
    assert_eq!((synced.error_code, synced.assignment), (NONE, &b"mine"[..]));
    assert_eq!(heartbeat(&mut wire, 4, &after), NONE);
    assert_eq!(heartbeat(&mut wire, 4, &before), ErrorCode::FencedInstanceId.code());

    // An administrator takes it out by its instance.
    assert_eq!(leave(&mut wire, 5, &Member { id: "", ..after }), NONE);
    assert_eq!(describe(&mut wire, 5, "static").group_state, "Empty");
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let (broker, mut admin) = start();
    let mut wire = Wire::connect(broker.address(), "consumer");
    let member = join_alone(&mut wire, newcomer("silent"));
    let synced = Instant::now();
    while describe(&mut admin, 5, "silent").group_state != "Empty" {
        assert!(synced.elapsed() < Duration::from_secs(20), "its session never ends");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The clock of the test starts a little after the broker's.
    let session = Duration::from_millis(SESSION_TIMEOUT_MS as u64);
    assert!(synced.elapsed() > session - Duration::from_millis(500), "{:?}", synced.elapsed());
    assert_eq!(heartbeat(&mut wire, 4, &member), ErrorCode::UnknownMemberId.code());
}

#[test]
fn groups_and_offsets_outlive_a_crash() {
    let (mut broker, _admin) = start();
    let mut wire = Wire::connect(broker.address(), "consumer");
    let member = join_alone(&mut wire, newcomer("lasting"));
    for offset in 1..=20 {
        assert_eq!(commit(&mut wire, 8, &member, &[("orders", offset)]), [NONE]);
    }
    broker.kill9();
    broker.restart();

    let mut wire = Wire::connect(broker.address(), "consumer");
    assert_eq!(committed(&mut wire, 8, "lasting"), (20, "note".to_owned()));
    assert_eq!(heartbeat(&mut wire, 4, &member), NONE, "the generation goes on");
    let described = describe(&mut wire, 5, "lasting");
    assert_eq!((described.group_state, described.members[0].member_assignment), ("Stable", &b"mine"[..]));
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 21)]), [NONE]);
    assert!(broker.terminate().success());
    broker.restart();
    let mut wire = Wire::connect(broker.address(), "consumer");
    assert_eq!(committed(&mut wire, 8, "lasting"), (21, "note".to_owned()));
    assert_eq!(leave(&mut wire, 5, &member), NONE);
}

/// Base offset of the oldest segment of a partition of the broker's own.
fn oldest_segment(broker: &Broker, topic: &str) -> Option<i64> {
    let partitions = std::fs::read_dir(broker.data_dir().join("partitions")).ok()?.flatten();
    let dir = partitions.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains(topic))?;
    let files = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name());
    files.filter_map(|name| name.to_str()?.strip_suffix(".log")?.parse().ok()).min()
}

#[test]
fn the_brokers_own_logs_begin_anew_and_keep_what_counts() {
    let settings = "internal.log.growth.bytes = 4096\noffsets.topic.num.partitions = 1\n\
                    log.retention.check.interval.ms = 100\nlog.segment.delete.delay.ms = 0";
    let (mut broker, mut wire) = start_with(Options { settings: settings.into(), ..Options::default() });
    assert_eq!(commit(&mut wire, 8, &newcomer("early"), &[("orders", 3)]), [NONE]);
    for offset in 1..=400 {
        assert_eq!(commit(&mut wire, 8, &newcomer("busy"), &[("orders", offset)]), [NONE]);
    }
    for _ in 0..100 {
        let topic = MetadataRequestTopic { name: Some("passing"), ..Default::default() };
        let make = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
        assert_eq!(wire.ask(4, &make).topics[0].error_code, NONE);
        let delete = DeleteTopicsRequest { topic_names: vec!["passing"], timeout_ms: 10_000, ..Default::default() };
        assert_eq!(wire.ask(4, &delete).responses[0].error_code, NONE);
    }
    broker.kill9();
    broker.restart();

    let mut wire = Wire::connect(broker.address(), "consumer");
    assert_eq!((committed(&mut wire, 8, "busy").0, committed(&mut wire, 8, "early").0), (400, 3));
    let names: Vec<_> = wire.ask(4, &MetadataRequest::default()).topics.iter().map(|topic| topic.name).collect();
    assert_eq!(names, [Some("__consumer_offsets"), Some("orders")]);
    for topic in ["__consumer_offsets", "__cluster_metadata"] {
        until(topic, || oldest_segment(&broker, topic).filter(|base| *base > 100));
    }
}

/// The setting is for making the topic; were it taken for its number of partitions, groups would be looked for elsewhere.
#[test]
fn groups_are_found_when_the_setting_for_new_offsets_topics_changes() {
    let (mut broker, mut wire) = start();
    let member = newcomer("manual");
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 7)]), [NONE]);
    assert!(broker.terminate().success());
    let path = broker.data_dir().with_file_name("ringlog.toml");
    let settings = std::fs::read_to_string(&path).expect("the configuration is there");
    std::fs::write(&path, settings + "offsets.topic.num.partitions = 3\n").expect("the configuration is written");
    broker.restart();

    let mut wire = Wire::connect(broker.address(), "consumer");
    assert_eq!(committed(&mut wire, 8, "manual").0, 7);
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 8)]), [NONE]);
    assert_eq!(committed(&mut wire, 8, "manual").0, 8);
}

#[test]
fn groups_go_with_the_topic_they_are_kept_in() {
    let (_broker, mut wire) = start();
    let member = newcomer("manual");
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 7)]), [NONE]);
    let request =
        DeleteTopicsRequest { topic_names: vec!["__consumer_offsets"], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(wire.ask(4, &request).responses[0].error_code, NONE);
    let not_coordinator = ErrorCode::NotCoordinator.code();
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 8)]), [not_coordinator]);

    let found = wire.ask(2, &FindCoordinatorRequest { key: "manual", ..Default::default() });
    assert_eq!(found.error_code, NONE);
    assert_eq!(committed(&mut wire, 8, "manual"), (-1, String::new()));
    assert_eq!(commit(&mut wire, 8, &member, &[("orders", 9)]), [NONE]);
    assert_eq!(committed(&mut wire, 8, "manual").0, 9);
}
