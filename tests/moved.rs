//! Goal: with another number of cores partitions have other owners, and everything that was acknowledged is still served, wherever it lies.
//!
//! And what belongs to nobody any more goes: directories of deleted topics, journals of cores that are no more.

mod support;

use rdkafka::topic_partition_list::Offset;
use ringlog::base::ids::{PartitionId, TopicId};
use ringlog::log::partition_dir_name;
use ringlog::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ringlog::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog::protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use std::collections::BTreeMap;
use std::path::PathBuf;
use support::clients::{create_topic, produce_values, read, until};
use support::wire::Wire;
use support::{Broker, Options};

const TOPIC: &str = "moving";
const PARTITIONS: i32 = 5;
const GROUPS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

#[derive(Clone, Copy, Debug)]
enum End {
    InOrder,
    Killed,
}

fn options(cores: usize) -> Options {
    Options { cores, data_dirs: 2, settings: "offsets.topic.num.partitions = 4".into(), ..Options::default() }
}

/// What has been acknowledged.
#[derive(Default)]
struct Acknowledged {
    values: BTreeMap<i32, Vec<String>>,
    offset: i64,
}

impl Acknowledged {
    fn add(&mut self, address: &str, stage: usize) {
        for partition in 0..PARTITIONS {
            let values: Vec<String> = (0..20).map(|number| format!("{stage}-{partition}-{number}")).collect();
            let before = self.values.entry(partition).or_default();
            assert_eq!(produce_values(address, TOPIC, partition, &values), before.len() as i64);
            before.extend(values);
        }
        self.offset += 1;
        let mut wire = Wire::connect(address, "consumer");
        for group_id in GROUPS {
            assert_eq!(wire.ask(2, &FindCoordinatorRequest { key: group_id, ..Default::default() }).error_code, 0);
            let partition = OffsetCommitRequestPartition { committed_offset: self.offset, ..Default::default() };
            let topic = OffsetCommitRequestTopic { name: TOPIC, partitions: vec![partition] };
            let commit = OffsetCommitRequest {
                group_id,
                generation_id_or_member_epoch: -1,
                topics: vec![topic],
                ..Default::default()
            };
            assert_eq!(wire.ask(8, &commit).topics[0].partitions[0].error_code, 0);
        }
    }

    fn check(&self, address: &str) {
        for (partition, expected) in &self.values {
            let found = read(address, TOPIC, *partition, Offset::Beginning);
            let found: Vec<String> = found
                .into_iter()
                .map(|(_, record)| String::from_utf8(record.value.expect("a value")).expect("text"))
                .collect();
            assert_eq!(&found, expected, "partition {partition}");
        }
        let mut wire = Wire::connect(address, "consumer");
        for group_id in GROUPS {
            let topics = vec![OffsetFetchRequestTopic { name: TOPIC, partition_indexes: vec![0] }];
            let fetch = OffsetFetchRequest { group_id, topics: Some(topics), ..Default::default() };
            assert_eq!(wire.ask(7, &fetch).topics[0].partitions[0].committed_offset, self.offset, "{group_id}");
        }
    }
}

/// Two cores, one, two again, and so on; before each change the broker ends as `ends` say, in turn.
fn move_about(ends: &[End]) {
    let mut broker = Broker::start(options(2));
    create_topic(broker.address(), TOPIC, PARTITIONS, &[]);
    let mut acknowledged = Acknowledged::default();
    for (stage, cores) in [1, 1, 2, 1, 2, 2].into_iter().enumerate() {
        acknowledged.add(broker.address(), stage);
        match ends[stage % ends.len()] {
            End::InOrder => assert!(broker.terminate().success()),
            End::Killed => broker.kill9(),
        }
        broker.configure(&options(cores));
        broker.restart();
        acknowledged.check(broker.address());
    }
    assert!(!broker.log().contains("no journal knows"), "{}", broker.log_tail());
    // The journal of the second core was not kept while there was one core only, or its space would be lost.
    broker.configure(&options(1));
    assert!(broker.terminate().success());
    broker.restart();
    let other = broker.data_dirs().nth(1).expect("two").join("journal");
    until("the journal of a core that is no more goes", || journals(&other).is_empty().then_some(()));
    acknowledged.check(broker.address());
}

fn journals(dir: &PathBuf) -> Vec<PathBuf> {
    std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()).collect()
}

#[test]
fn all_is_served_after_moves_between_orderly_stops() {
    move_about(&[End::InOrder]);
}

#[test]
fn all_is_served_after_moves_between_crashes() {
    move_about(&[End::Killed]);
}

#[test]
fn all_is_served_after_moves_of_both_kinds() {
    move_about(&[End::Killed, End::InOrder, End::InOrder]);
}

#[test]
fn directories_of_topics_that_are_no_more_go_and_others_stay() {
    let mut broker = Broker::start(options(1));
    create_topic(broker.address(), TOPIC, PARTITIONS, &[]);
    let mut acknowledged = Acknowledged::default();
    acknowledged.add(broker.address(), 0);
    assert!(broker.terminate().success());
    let mut ghosts = Vec::new();
    let mut others = Vec::new();
    for (number, data_dir) in broker.data_dirs().enumerate() {
        let ghost = PartitionId { topic: TopicId([number as u8 + 1; 16]), index: 3 };
        ghosts.push(data_dir.join("partitions").join(partition_dir_name("ghost", ghost)));
        others.push(data_dir.join("partitions").join("ghost-3"));
    }
    for dir in ghosts.iter().chain(&others) {
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(dir.join("00000000000000000000.log"), [0; 5000]).expect("a file");
    }
    broker.restart();
    until("the ghosts go", || ghosts.iter().all(|dir| !dir.exists()).then_some(()));
    assert!(others.iter().all(|dir| dir.exists()), "what has another name is not ours");
    acknowledged.check(broker.address());
}
