//! Requests against the controller: tables of refusals, and what is accepted applied to the image.

use super::*;
use crate::base::error::ErrorCode::{
    BrokerIdNotRegistered, InvalidConfig, InvalidPartitions, InvalidRegistration, InvalidReplicaAssignment,
    InvalidReplicationFactor, InvalidRequest, InvalidTopic, PolicyViolation, TopicAlreadyExists, TopicDeletionDisabled,
    UnknownServerError, UnknownTopicId, UnknownTopicOrPartition,
};
use crate::base::ids::CoreIndex;
use crate::cluster::configs::Overrides;
use proptest::prelude::*;

const OK: ErrorCode = ErrorCode::None;

/// A cluster, the settings of its processes, and a source of ids.
struct Cluster {
    image: Image,
    statics: Overrides,
    ids: u8,
}

fn broker(core_count: u16) -> Broker {
    Broker { host: "host".to_owned(), port: 9092, core_count, core_ports: vec![], spared_cores: vec![] }
}

impl Cluster {
    fn new(core_counts: &[u16]) -> Cluster {
        let mut cluster = Cluster { image: Image::default(), statics: Overrides::new(), ids: 0 };
        for (node, &core_count) in (0..).zip(core_counts) {
            cluster.register(node, core_count);
        }
        cluster
    }

    fn decide<T>(&self, act: impl FnOnce(&Controller<'_>) -> T) -> T {
        act(&Controller { image: &self.image, broker: self.image.broker_configs(NodeId(0), &self.statics) })
    }

    fn apply(&mut self, commands: &[Command]) {
        for command in commands {
            let decoded = Command::decode(&command.encode()).expect("encoded");
            self.image.apply(&decoded).expect("the controller contradicts nothing");
        }
    }

    fn register(&mut self, node: i32, core_count: u16) -> usize {
        let commands =
            self.decide(|controller| controller.register_broker(NodeId(node), broker(core_count))).expect("sound");
        self.apply(&commands);
        commands.len()
    }

    fn create_all(
        &mut self,
        requests: &[NewTopic<'_>],
        validate_only: bool,
    ) -> Vec<(String, Result<CreatedTopic, Refusal>)> {
        let mut ids = self.ids;
        let decision = self.decide(|controller| {
            let decision = controller.create_topics(requests, validate_only, || {
                ids += 1;
                TopicId([ids; 16])
            });
            let answers = decision.answers.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect();
            Decision { commands: decision.commands, answers }
        });
        self.ids = ids;
        self.apply(&decision.commands);
        decision.answers
    }

    fn create(&mut self, request: NewTopic<'_>) -> Result<CreatedTopic, Refusal> {
        self.create_all(&[request], false).remove(0).1
    }

    fn delete(&mut self, requests: &[TopicRef<'_>]) -> Vec<ErrorCode> {
        let (commands, codes) = self.decide(|controller| {
            let decision = controller.delete_topics(requests);
            (decision.commands, decision.answers.iter().map(code).collect())
        });
        self.apply(&commands);
        codes
    }

    fn add(&mut self, requests: &[NewPartitions<'_>], validate_only: bool) -> Vec<ErrorCode> {
        let decision = self.decide(|controller| controller.create_partitions(requests, validate_only));
        self.apply(&decision.commands);
        decision.answers.iter().map(code).collect()
    }

    fn alter(
        &mut self,
        resource: ConfigResource<'_>,
        changes: &[(&str, ConfigOp, Option<&str>)],
    ) -> Result<(), Refusal> {
        let request = AlterConfigs { resource, changes: changes.to_vec() };
        let mut decision = self.decide(|controller| controller.alter_configs(&[request], false));
        self.apply(&decision.commands);
        decision.answers.remove(0)
    }

    fn config(&self, topic: &str, key: &str) -> Option<&str> {
        self.image.topic_by_name(topic)?.configs.get(key).map(String::as_str)
    }

    fn cores(&self, topic: &str) -> Vec<u16> {
        let topic = self.image.topic_by_name(topic).expect("exists");
        topic.partitions.iter().map(|partition| partition.core.0).collect()
    }
}

fn topic(name: &str) -> NewTopic<'_> {
    NewTopic { name, partition_count: 1, replication_factor: -1, assignments: vec![], configs: vec![] }
}

fn sized(name: &str, partition_count: i32) -> NewTopic<'_> {
    NewTopic { partition_count, ..topic(name) }
}

fn assigned<'a>(name: &'a str, assignments: &[(i32, &[i32])]) -> NewTopic<'a> {
    let nodes = |nodes: &[i32]| nodes.iter().copied().map(NodeId).collect();
    let assignments = assignments.iter().map(|&(index, replicas)| (index, nodes(replicas))).collect();
    NewTopic { partition_count: -1, assignments, ..topic(name) }
}

fn code<T>(answer: &Result<T, Refusal>) -> ErrorCode {
    answer.as_ref().err().map_or(OK, |refusal| refusal.code)
}

#[test]
fn creating_is_held_to_kafkas_rules() {
    let mut cluster = Cluster::new(&[4]);
    cluster.create(topic("taken.one")).expect("new");
    let cases = [
        (topic("ok"), OK),
        (topic(""), InvalidTopic),
        (topic(".."), InvalidTopic),
        (topic("a/b"), InvalidTopic),
        (topic("__cluster_metadata"), InvalidRequest),
        (topic("__consumer_offsets"), OK),
        (topic("taken.one"), TopicAlreadyExists),
        (topic("taken_one"), InvalidTopic),
        (sized("t", 0), InvalidPartitions),
        (sized("t", -2), InvalidPartitions),
        (sized("t", i32::MAX), PolicyViolation),
        (NewTopic { replication_factor: 0, ..topic("t") }, InvalidReplicationFactor),
        (NewTopic { replication_factor: -2, ..topic("t") }, InvalidReplicationFactor),
        (NewTopic { replication_factor: 2, ..topic("t") }, InvalidReplicationFactor),
        (NewTopic { replication_factor: 1, ..topic("one-replica") }, OK),
        (NewTopic { configs: vec![("retention.ms", Some("x"))], ..topic("t") }, InvalidConfig),
        (NewTopic { configs: vec![("retention.ms", None)], ..topic("t") }, InvalidConfig),
        (NewTopic { configs: vec![("retention", Some("1"))], ..topic("t") }, InvalidConfig),
        (NewTopic { configs: vec![("retention.ms", Some("1")); 2], ..topic("t") }, InvalidConfig),
        (NewTopic { configs: vec![("remote.storage.enable", Some("true"))], ..topic("t") }, InvalidConfig),
        (NewTopic { configs: vec![("cleanup.policy", Some("compact"))], ..topic("compacted") }, OK),
        (assigned("by-hand", &[(1, &[0]), (0, &[0])]), OK),
        (assigned("t", &[(0, &[0]), (2, &[0])]), InvalidReplicaAssignment),
        (assigned("t", &[(0, &[0]), (0, &[0])]), InvalidReplicaAssignment),
        (assigned("t", &[(0, &[])]), InvalidReplicaAssignment),
        (assigned("t", &[(0, &[7])]), InvalidReplicaAssignment),
        (assigned("t", &[(0, &[0, 0])]), InvalidReplicaAssignment),
        (NewTopic { partition_count: 1, ..assigned("t", &[(0, &[0])]) }, InvalidRequest),
        (NewTopic { replication_factor: 1, ..assigned("t", &[(0, &[0])]) }, InvalidRequest),
    ];
    for (request, expected) in cases {
        let answer = cluster.create(request.clone());
        assert_eq!(code(&answer), expected, "{request:?} {answer:?}");
    }
    assert!(cluster.image.topic_by_name("t").is_none());
    assert_eq!(cluster.config("compacted", "cleanup.policy"), Some("compact"));
}

#[test]
fn too_many_replicas_are_answered_in_kafkas_words() {
    let refusal = Cluster::new(&[4]).create(NewTopic { replication_factor: 3, ..topic("t") }).unwrap_err();
    let words = "Unable to replicate the partition 3 time(s): only 1 broker(s) are registered.";
    assert_eq!((refusal.code, refusal.message.as_str()), (InvalidReplicationFactor, words));
}

#[test]
fn defaults_come_from_the_broker() {
    let mut cluster = Cluster::new(&[4]);
    cluster.statics.insert("num.partitions".to_owned(), "6".to_owned());
    let created = cluster.create(sized("t", -1)).expect("new");
    assert_eq!((created.partition_count, created.replication_factor), (6, 1));
    cluster.statics.insert("default.replication.factor".to_owned(), "3".to_owned());
    assert_eq!(code(&cluster.create(topic("u"))), InvalidReplicationFactor);
}

#[test]
fn items_of_one_request_see_each_other() {
    let mut cluster = Cluster::new(&[4]);
    let answers = cluster.create_all(&[topic("twice"), topic("a.b"), topic("a_b"), topic("twice"), topic("c")], false);
    let codes: Vec<_> = answers.iter().map(|(name, answer)| (name.as_str(), code(answer))).collect();
    assert_eq!(codes, [("a.b", OK), ("a_b", InvalidTopic), ("c", OK), ("twice", InvalidRequest)]);
    assert_eq!(cluster.image.topics().len(), 2);
}

#[test]
fn a_request_to_validate_changes_nothing() {
    let mut cluster = Cluster::new(&[4]);
    let answers = cluster.create_all(&[sized("t", 3), topic("")], true);
    assert_eq!((code(&answers[0].1), code(&answers[1].1)), (InvalidTopic, OK));
    let created = answers[1].1.as_ref().expect("valid");
    assert_eq!((created.id, created.partition_count, cluster.image.topics().len()), (TopicId::ZERO, 3, 0));

    cluster.create(topic("t")).expect("new");
    assert_eq!(cluster.add(&[NewPartitions { name: "t", partition_count: 5, assignments: None }], true), [OK]);
    assert_eq!(cluster.cores("t").len(), 1);
}

#[test]
fn ids_that_are_taken_or_reserved_are_not_given() {
    let mut cluster = Cluster::new(&[1]);
    let mut ids = [TopicId([7; 16]), TopicId::ZERO, TopicId::METADATA, TopicId([7; 16]), TopicId([8; 16])].into_iter();
    let requests = [topic("a"), topic("b")];
    let commands = cluster
        .decide(|controller| controller.create_topics(&requests, false, || ids.next().expect("enough")).commands);
    cluster.apply(&commands);
    assert_eq!(cluster.image.topic_by_name("b").map(|topic| topic.id), Some(TopicId([8; 16])));
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let mut cluster = Cluster::new(&[4]);
    let a = cluster.create(topic("a")).expect("new").id;
    let b = cluster.create(topic("b")).expect("new").id;
    cluster.create(topic("__consumer_offsets")).expect("new");
    let codes = cluster.delete(&[
        TopicRef::Name("a"),
        TopicRef::Id(b),
        TopicRef::Id(a),
        TopicRef::Name("nope"),
        TopicRef::Id(TopicId([99; 16])),
        TopicRef::Name("__consumer_offsets"),
    ]);
    assert_eq!(codes, [InvalidRequest, OK, InvalidRequest, UnknownTopicOrPartition, UnknownTopicId, OK]);
    cluster.statics.insert("delete.topic.enable".to_owned(), "false".to_owned());
    assert_eq!(cluster.delete(&[TopicRef::Name("a")]), [TopicDeletionDisabled]);
    assert_eq!(cluster.image.topics().len(), 1);
}

#[test]
fn partitions_only_become_more() {
    let mut cluster = Cluster::new(&[4]);
    cluster.create(sized("t", 3)).expect("new");
    let to = |count, assignments: Option<&[i32]>| NewPartitions {
        name: "t",
        partition_count: count,
        assignments: assignments.map(|nodes| nodes.iter().map(|&node| vec![NodeId(node)]).collect()),
    };
    for (request, expected) in [
        (to(3, None), InvalidPartitions),
        (to(2, None), InvalidPartitions),
        (to(-1, None), InvalidPartitions),
        (to(i32::MAX, None), PolicyViolation),
        (to(5, Some(&[0])), InvalidReplicaAssignment),
        (to(4, Some(&[9])), InvalidReplicaAssignment),
        (NewPartitions { name: "u", ..to(4, None) }, UnknownTopicOrPartition),
        (to(5, Some(&[0, 0])), OK),
        (to(8, None), OK),
    ] {
        assert_eq!(cluster.add(std::slice::from_ref(&request), false), [expected], "{request:?}");
    }
    assert_eq!(cluster.add(&[to(9, None), to(10, None)], false), [InvalidRequest; 2]);
    assert_eq!(cluster.cores("t"), [0, 1, 2, 3, 0, 1, 2, 3]);
    // A group is found by the number of partitions there are.
    cluster.create(sized("__consumer_offsets", 3)).expect("new");
    assert_eq!(cluster.add(&[NewPartitions { name: "__consumer_offsets", ..to(4, None) }], false), [InvalidTopic]);
}

#[test]
fn configurations_are_changed_key_by_key() {
    use ConfigOp::{Append, Delete, Set, Subtract};
    let mut cluster = Cluster::new(&[4]);
    cluster.create(topic("t")).expect("new");
    let t = ConfigResource::Topic("t");
    cluster.alter(t, &[("retention.ms", Set, Some("5")), ("flush.messages", Set, Some("10"))]).expect("sound");
    cluster.alter(t, &[("flush.messages", Delete, None)]).expect("sound");
    assert_eq!((cluster.config("t", "retention.ms"), cluster.config("t", "flush.messages")), (Some("5"), None));
    cluster.alter(t, &[("cleanup.policy", Append, Some("compact"))]).expect("a list");
    assert_eq!(cluster.config("t", "cleanup.policy"), Some("delete,compact"), "added to what it falls back to");
    cluster.alter(t, &[("cleanup.policy", Append, Some("compact"))]).expect("it is there already");
    cluster.alter(t, &[("cleanup.policy", Subtract, Some("delete"))]).expect("a list");
    assert_eq!(cluster.config("t", "cleanup.policy"), Some("compact"));

    let version = cluster.image.version();
    for (resource, change, expected) in [
        (t, ("retention.ms", Set, Some("-5")), InvalidConfig),
        (t, ("retention.ms", Set, None), InvalidRequest),
        (t, ("retention.ms", Append, Some("5")), InvalidConfig),
        (t, ("retention", Set, Some("5")), InvalidConfig),
        (t, ("cleanup.policy", Append, Some("keep")), InvalidConfig),
        (t, ("min.compaction.lag.ms", Set, Some("9")), OK),
        (t, ("max.compaction.lag.ms", Set, Some("8")), InvalidConfig),
        (ConfigResource::Topic("u"), ("retention.ms", Set, Some("5")), UnknownTopicOrPartition),
        (ConfigResource::Broker(Some(NodeId(9))), ("message.max.bytes", Set, Some("5")), BrokerIdNotRegistered),
        (ConfigResource::Broker(Some(NodeId(0))), ("num.partitions", Set, Some("5")), InvalidConfig),
        (ConfigResource::Broker(Some(NodeId(0))), ("message.max.bytes", Set, Some("5")), OK),
        (ConfigResource::Broker(None), ("log.cleanup.policy", Append, Some("compact")), OK),
    ] {
        assert_eq!(code(&cluster.alter(resource, &[change])), expected, "{resource:?} {change:?}");
    }
    assert_eq!(cluster.image.version(), version + 3);
    assert_eq!(cluster.image.broker_overrides(None)["log.cleanup.policy"], "delete,compact");
    let twice = [("retention.ms", Set, Some("1")), ("retention.ms", Set, Some("2"))];
    assert_eq!(code(&cluster.alter(t, &twice)), InvalidRequest);
}

#[test]
fn a_resource_named_twice_is_refused_and_others_are_changed() {
    let mut cluster = Cluster::new(&[4]);
    cluster.create(topic("t")).expect("new");
    cluster.create(topic("u")).expect("new");
    let alter = |name| AlterConfigs {
        resource: ConfigResource::Topic(name),
        changes: vec![("retention.ms", ConfigOp::Set, Some("5"))],
    };
    let decision = cluster.decide(|controller| controller.alter_configs(&[alter("t"), alter("u"), alter("t")], false));
    assert_eq!(decision.answers.iter().map(code).collect::<Vec<_>>(), [InvalidRequest, OK, InvalidRequest]);
    assert_eq!(decision.commands.len(), 1);
}

#[test]
fn the_older_request_takes_back_what_it_does_not_name() {
    let mut cluster = Cluster::new(&[4]);
    cluster.create(topic("t")).expect("new");
    for given in [vec![("retention.ms", Some("5")), ("flush.ms", Some("7"))], vec![("flush.ms", Some("7"))]] {
        let request = ReplaceConfigs { resource: ConfigResource::Topic("t"), configs: given };
        let decision = cluster.decide(|controller| controller.replace_configs(&[request], false));
        assert_eq!(decision.answers, [Ok(())]);
        cluster.apply(&decision.commands);
    }
    assert_eq!((cluster.config("t", "retention.ms"), cluster.config("t", "flush.ms")), (None, Some("7")));
}

#[test]
fn partitions_of_cores_that_are_gone_move_and_others_stay() {
    let mut cluster = Cluster::new(&[4]);
    cluster.create(sized("t", 8)).expect("new");
    assert_eq!(cluster.register(0, 4), 0, "nothing has changed");
    assert_eq!(cluster.register(0, 3), 3, "the broker and two partitions");
    assert_eq!(cluster.cores("t"), [0, 1, 2, 0, 0, 1, 2, 1]);
    assert_eq!(cluster.register(0, 8), 1);
    cluster.create(sized("u", 5)).expect("new");
    assert_eq!(cluster.cores("u"), [3, 4, 5, 6, 7], "new partitions use new cores");
    let refused = cluster.decide(|controller| controller.register_broker(NodeId(0), broker(0)));
    assert_eq!(code(&refused), InvalidRegistration);
}

#[test]
fn leaders_and_replicas_take_turns_over_brokers() {
    let mut cluster = Cluster::new(&[2, 2, 2]);
    cluster.create(NewTopic { replication_factor: 2, ..sized("t", 3) }).expect("new");
    let topic = cluster.image.topic_by_name("t").expect("exists");
    let replicas: Vec<Vec<i32>> =
        topic.partitions.iter().map(|partition| partition.replicas.iter().map(|node| node.0).collect()).collect();
    assert_eq!(replicas, [[0, 1], [1, 2], [2, 0]]);
    assert!(topic.partitions.iter().all(|partition| partition.leader == partition.replicas[0]));
}

#[test]
fn spared_cores_are_given_nothing_and_keep_what_they_have() {
    let mut cluster = Cluster::new(&[3]);
    cluster.create(sized("t", 3)).expect("new");
    let register = |cluster: &mut Cluster, core_count, spared_cores: &[u16]| {
        let broker = Broker { spared_cores: spared_cores.to_vec(), ..broker(core_count) };
        let commands = cluster.decide(|controller| controller.register_broker(NodeId(0), broker))?;
        cluster.apply(&commands);
        Ok::<_, Refusal>(())
    };
    register(&mut cluster, 3, &[0, 1]).expect("sound");
    assert_eq!(cluster.cores("t"), [0, 1, 2]);
    cluster.create(sized("u", 2)).expect("new");
    assert_eq!(cluster.cores("u"), [2, 2]);
    // With fewer cores than before, those without one go where the new registration lets them.
    register(&mut cluster, 2, &[1]).expect("sound");
    assert_eq!((cluster.cores("t"), cluster.cores("u")), (vec![0, 1, 0], vec![0, 0]));
    assert_eq!(code(&register(&mut cluster, 2, &[0, 1])), InvalidRegistration);
}

#[test]
fn a_partition_moves_to_another_core_of_its_broker() {
    let mut cluster = Cluster::new(&[2]);
    cluster.create(sized("t", 3)).expect("new");
    cluster.create(sized("__consumer_offsets", 1)).expect("new");
    assert_eq!(cluster.cores("t"), [0, 1, 0]);
    let decide = |cluster: &Cluster, name: &str, index, core| {
        cluster.decide(|controller| controller.move_partition(name, index, CoreIndex(core)))
    };
    for (name, index, core, expected) in [
        ("nobody", 0, 0, UnknownTopicOrPartition),
        ("t", 3, 0, UnknownTopicOrPartition),
        ("t", -1, 0, UnknownTopicOrPartition),
        ("t", 0, 2, InvalidReplicaAssignment),
        ("__consumer_offsets", 0, 1, InvalidRequest),
    ] {
        assert_eq!(code(&decide(&cluster, name, index, core)), expected, "{name} {index} to {core}");
    }
    assert_eq!(decide(&cluster, "t", 0, 0), Ok(None), "it is there");
    let command = decide(&cluster, "t", 0, 1).expect("sound").expect("it is elsewhere");
    cluster.apply(&[command]);
    assert_eq!(cluster.cores("t"), [1, 1, 0]);
}

#[test]
fn producer_ids_come_in_blocks_that_follow_each_other() {
    let mut cluster = Cluster::new(&[1]);
    for first in [0, 1000, 2000] {
        let command = cluster.decide(|controller| controller.allocate_producer_ids()).expect("enough");
        assert_eq!(command, Command::AllocateProducerIds { first, count: 1000 });
        cluster.apply(&[command]);
    }
    let rest = i64::MAX - 3000 - 10;
    cluster.apply(&[Command::AllocateProducerIds { first: 3000, count: rest }]);
    assert_eq!(code(&cluster.decide(|controller| controller.allocate_producer_ids())), UnknownServerError);
}

proptest! {
    /// However topics come, no core of the broker leads more than one partition more than another, overall and of each topic.
    #[test]
    fn partitions_are_spread_evenly(cores in 1..12u16, sizes in prop::collection::vec((1..20i32, 0..20i32), 1..20)) {
        let mut cluster = Cluster::new(&[cores]);
        for (number, (size, more)) in sizes.into_iter().enumerate() {
            let name = format!("t{number}");
            cluster.create(sized(&name, size)).expect("new");
            if more > 0 {
                let request = NewPartitions { name: &name, partition_count: size + more, assignments: None };
                prop_assert_eq!(cluster.add(&[request], false), [OK]);
            }
            let mut of_topic = vec![0; usize::from(cores)];
            cluster.cores(&name).into_iter().for_each(|core| of_topic[usize::from(core)] += 1);
            let all: Vec<u32> = (0..cores).map(|core| cluster.image.core_load(NodeId(0), CoreIndex(core))).collect();
            let spread = |loads: &[u32]| loads.iter().max().expect("cores") - loads.iter().min().expect("cores");
            prop_assert!(spread(&of_topic) <= 1, "{:?}", of_topic);
            prop_assert!(spread(&all) <= 1, "{:?}", all);
        }
    }

    #[test]
    fn no_request_makes_the_image_contradict_itself(
        steps in prop::collection::vec((0..4u8, prop::sample::select(vec!["a.b", "a_b", "c", "", "d-e"]), -2..9i32, 0..5u16), 0..60),
    ) {
        let mut cluster = Cluster::new(&[3, 2]);
        for (step, name, number, cores) in steps {
            match step {
                0 => { let _ = cluster.create(NewTopic { replication_factor: number as i16 / 3, ..sized(name, number) }); }
                1 => { cluster.delete(&[TopicRef::Name(name)]); }
                2 => { cluster.add(&[NewPartitions { name, partition_count: number, assignments: None }], false); }
                _ => { cluster.register(1, cores + 1); }
            }
        }
        for topic in cluster.image.topics() {
            for partition in &topic.partitions {
                let broker = cluster.image.broker(partition.leader).expect("leaders are brokers");
                prop_assert!(partition.core.0 < broker.core_count);
            }
        }
        let rebuilt = Image::from_snapshot(&cluster.image.snapshot(), cluster.image.version());
        prop_assert_eq!(rebuilt.as_ref(), Ok(&cluster.image));
    }
}
