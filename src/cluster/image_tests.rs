//! The image against contradictions, and against its own snapshot after random commands.

use super::*;
use proptest::prelude::*;

fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn partition(core: u16) -> Partition {
    let replicas: Box<[NodeId]> = [NodeId(1)].into();
    Partition { leader: NodeId(1), leader_epoch: 0, core: CoreIndex(core), isr: replicas.clone(), replicas }
}

fn create(number: u8, name: &str, cores: &[u16]) -> Command {
    let partitions = cores.iter().map(|&core| partition(core)).collect();
    Command::CreateTopic { id: id(number), name: name.to_owned(), partitions, configs: vec![] }
}

fn register(node: i32, core_count: u16) -> Command {
    let broker = Broker { host: "broker".to_owned(), port: 9092, core_count, core_ports: vec![], spared_cores: vec![] };
    Command::RegisterBroker { node: NodeId(node), broker }
}

fn image(commands: &[Command]) -> Image {
    Image::from_snapshot(&[&[register(1, 4)], commands].concat(), 0).expect("commands follow each other")
}

#[test]
fn with_core_listeners_clients_are_told_of_each_core_as_a_broker() {
    let told = |image: &Image| -> Vec<(i32, u16)> {
        image.advertised_brokers().map(|(node, _, port)| (node.0, port)).collect()
    };
    let mut image = image(&[create(1, "t", &[0, 1])]);
    assert_eq!(told(&image), [(1, 9092)]);
    let partition = |image: &Image, index| image.partition(PartitionId { topic: id(1), index }).unwrap().clone();
    assert_eq!(image.advertised_leader(&partition(&image, 1)), NodeId(1));

    let broker = |core_count, core_ports| Broker {
        host: "broker".to_owned(),
        port: 9092,
        core_count,
        core_ports,
        spared_cores: vec![],
    };
    let with = |broker| Command::RegisterBroker { node: NodeId(1), broker };
    image.apply(&with(broker(2, vec![5000, 6000]))).expect("a port for each core");
    let brokers = told(&image);
    assert_eq!(brokers.iter().map(|(_, port)| *port).collect::<Vec<_>>(), [5000, 6000]);
    for index in [0, 1] {
        let partition = partition(&image, index);
        let leader = image.advertised_leader(&partition);
        assert_eq!(leader.0, brokers[index as usize].0);
        assert_eq!((node_of(leader), image.advertised_replica(&partition, NodeId(1))), (NodeId(1), leader));
    }
    assert_eq!(node_of(NodeId(7)), NodeId(7));
    assert!(image.apply(&with(broker(2, vec![5000]))).is_err(), "a core without a port");
    let node = NodeId(NODE_WITH_CORES_MAX);
    assert!(image.apply(&Command::RegisterBroker { node, broker: broker(1, vec![1]) }).is_err(), "no id is left");
    let node = NodeId(NODE_WITH_CORES_MAX - 1);
    image.apply(&Command::RegisterBroker { node, broker: broker(1024, vec![1; 1024]) }).expect("the last id");
    let last = image.advertised_brokers().last().expect("the last core").0;
    assert_eq!((last, node_of(last)), (NodeId(i32::MAX), node));
}

#[test]
fn topics_are_found_by_name_id_and_partition() {
    let image = image(&[create(1, "a.b", &[0, 1]), create(2, "plain", &[1])]);
    assert_eq!(image.topic_by_name("a.b").map(|topic| topic.id), Some(id(1)));
    assert_eq!(image.topic(id(2)).map(|topic| &*topic.name), Some("plain"));
    assert_eq!(image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["a.b", "plain"]);
    assert_eq!(image.colliding_topic("a_b").map(|topic| topic.id), Some(id(1)));
    assert!(image.colliding_topic("plain").is_none());
    let of = |index| image.partition(PartitionId { topic: id(1), index }).map(|partition| partition.core);
    assert_eq!((of(1), of(2), of(-1)), (Some(CoreIndex(1)), None, None));
    assert_eq!((image.partition_count(), image.core_load(NodeId(1), CoreIndex(1))), (3, 2));
}

#[test]
fn a_deleted_topic_leaves_nothing_and_its_name_is_free() {
    let mut image = image(&[create(1, "a.b", &[0, 1])]);
    image.apply(&Command::DeleteTopic { id: id(1) }).expect("known");
    assert!(image.topic_by_name("a.b").is_none() && image.colliding_topic("a_b").is_none());
    assert_eq!((image.partition_count(), image.core_load(NodeId(1), CoreIndex(0))), (0, 0));
    image.apply(&create(2, "a_b", &[0])).expect("free");
}

#[test]
fn a_command_that_contradicts_the_image_changes_nothing() {
    let changes = vec![("retention.ms".to_owned(), Some("1".to_owned()))];
    let stranger = Partition { replicas: [NodeId(9)].into(), ..partition(0) };
    let astray = Partition { isr: [NodeId(9)].into(), ..partition(0) };
    let with = |partition| Command::AddPartitions { id: id(1), first: 2, partitions: vec![partition] };
    let mut image = image(&[
        Command::InitCluster { cluster_id: "c".to_owned() },
        create(1, "a.b", &[0, 1]),
        Command::AllocateProducerIds { first: 0, count: 1000 },
    ]);
    let before = image.clone();
    for command in [
        Command::InitCluster { cluster_id: "d".to_owned() },
        register(2, 0),
        create(1, "other", &[0]),
        create(2, "a.b", &[0]),
        create(2, "a_b", &[0]),
        create(2, "empty", &[]),
        Command::DeleteTopic { id: id(3) },
        Command::AddPartitions { id: id(1), first: 1, partitions: vec![partition(0)] },
        Command::AddPartitions { id: id(3), first: 0, partitions: vec![partition(0)] },
        with(stranger),
        with(astray),
        Command::MovePartition { id: id(1), partition: 2, core: CoreIndex(0) },
        Command::MovePartition { id: id(1), partition: -1, core: CoreIndex(0) },
        Command::SetTopicConfigs { id: id(3), changes: changes.clone() },
        Command::SetBrokerConfigs { node: Some(NodeId(9)), changes },
        Command::AllocateProducerIds { first: 0, count: 1000 },
        Command::AllocateProducerIds { first: 1000, count: 0 },
        Command::AllocateProducerIds { first: 1000, count: i64::MAX },
    ] {
        assert!(image.apply(&command).is_err(), "{command:?}");
        assert_eq!(image, before, "{command:?}");
    }
}

#[test]
fn configurations_are_set_and_taken_back() {
    let mut image = image(&[create(1, "t", &[0])]);
    let mut set = |node: Option<i32>, name: &str, value: Option<&str>| {
        let changes = vec![(name.to_owned(), value.map(str::to_owned))];
        image.apply(&Command::SetBrokerConfigs { node: node.map(NodeId), changes }).expect("known");
        image.clone()
    };
    set(None, "message.max.bytes", Some("5"));
    let both = set(Some(1), "message.max.bytes", Some("6"));
    let statics = Overrides::new();
    assert_eq!(both.broker_configs(NodeId(1), &statics).number("message.max.bytes"), 6);
    let one = set(Some(1), "message.max.bytes", None);
    assert_eq!(one.broker_configs(NodeId(1), &statics).number("message.max.bytes"), 5);
    let none = set(None, "message.max.bytes", None);
    assert!(none.snapshot().iter().all(|command| !matches!(command, Command::SetBrokerConfigs { .. })));
}

fn any_step() -> impl Strategy<Value = Command> {
    let cores = || prop::collection::vec(0..4u16, 1..4);
    let changes = prop::collection::vec(("[ab]", prop::option::of("[0-9]")), 0..3);
    let name = prop::sample::select(vec!["a.b", "a_b", "c", "d-e", "f.g", "__consumer_offsets"]);
    prop_oneof![
        1 => (0..2i32, 1..5u16).prop_map(|(node, core_count)| register(node, core_count)),
        4 => (0..6u8, name, cores()).prop_map(|(number, name, cores)| create(number, name, &cores)),
        2 => (0..6u8).prop_map(|number| Command::DeleteTopic { id: id(number) }),
        2 => (0..6u8, 0..6i32, cores()).prop_map(|(number, first, cores)| Command::AddPartitions {
            id: id(number),
            first,
            partitions: cores.into_iter().map(partition).collect(),
        }),
        2 => (0..6u8, 0..4i32, 0..4u16).prop_map(|(number, partition, core)| Command::MovePartition {
            id: id(number),
            partition,
            core: CoreIndex(core),
        }),
        1 => (0..6u8, changes.clone()).prop_map(|(number, changes)| Command::SetTopicConfigs { id: id(number), changes }),
        1 => (prop::option::of(0..2i32), changes)
            .prop_map(|(node, changes)| Command::SetBrokerConfigs { node: node.map(NodeId), changes }),
        1 => (0..3i64).prop_map(|block| Command::AllocateProducerIds { first: block * 1000, count: 1000 }),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_rebuilds_the_image(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut image = image(&[Command::InitCluster { cluster_id: "c".to_owned() }]);
        for step in steps {
            let before = image.clone();
            match image.apply(&step) {
                Ok(()) => prop_assert_eq!(image.version(), before.version() + 1),
                Err(_) => prop_assert_eq!(&image, &before),
            }
        }
        let encoded: Vec<Vec<u8>> = image.snapshot().iter().map(Command::encode).collect();
        let decoded: Vec<Command> = encoded.iter().map(|bytes| Command::decode(bytes).expect("encoded")).collect();
        let rebuilt = Image::from_snapshot(&decoded, image.version());
        prop_assert_eq!(rebuilt.as_ref(), Ok(&image));
        let led: u32 = image.core_loads.values().sum();
        prop_assert_eq!(led as usize, image.partition_count());
        prop_assert_eq!(image.topics().map(|topic| topic.partitions.len()).sum::<usize>(), image.partition_count());
    }
}
