//! Cores that differ: what is set for one core holds for that one alone.

mod support;

use rdkafka::topic_partition_list::Offset;
use std::path::PathBuf;
use support::clients::{create_topic, produce_values, read, unique};
use support::http::{cores, move_partition};
use support::{Broker, Options};

#[test]
fn one_core_can_have_the_connections_and_the_other_the_partitions() {
    let settings = "core.1.accept = false\n\
                    core.0.partitions = false\n\
                    core.1.tail.memory.bytes = \"64MiB\"\n\
                    core.0.journal.bytes = \"320MiB\"\n\
                    core.1.commit.window.us = 500\n\
                    core.1.background.shares = 100\n\
                    core.1.busy.poll.us = 20\n"
        .to_owned();
    let mut broker = Broker::start(Options { settings, data_dirs: 2, ..Options::default() });
    let topic = unique("cores");
    create_topic(broker.address(), &topic, 4, &[]);
    let admin = broker.admin().expect("on").to_owned();
    assert_eq!(cores(&admin, &topic), [1, 1, 1, 1]);
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for partition in 0..4 {
        assert_eq!(produce_values(broker.address(), &topic, partition, &values), 0);
    }
    let counters = broker.counters();
    let accepted = counters.each("connections.accepted");
    assert!(accepted[0] > 0 && accepted[1] == 0, "{accepted:?}");
    // One journal has the metadata alone.
    let appended = counters.each("journal.appends");
    assert!(appended[0] < 10 && appended[1] >= 4, "{appended:?}");
    // Whoever asks for it has it otherwise, and finds it so again.
    assert_eq!(move_partition(&admin, &topic, 2, 0).expect("the broker runs").0, 200);
    broker.kill9();
    broker.restart();
    assert_eq!(cores(broker.admin().expect("on"), &topic), [1, 1, 0, 1]);
    for partition in 0..4 {
        assert_eq!(read(broker.address(), &topic, partition, Offset::Beginning).len(), values.len());
    }
}

#[test]
fn a_core_that_is_given_another_directory_keeps_what_it_has_and_makes_what_is_new_there() {
    let options = Options { data_dirs: 2, ..Options::default() };
    let mut broker = Broker::start(options.clone());
    let dirs: Vec<PathBuf> = broker.data_dirs().collect();
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let mut topics = Vec::new();
    for place in [[0, 1], [1, 0], [1, 1], [0, 1]] {
        let topic = unique("cores");
        create_topic(broker.address(), &topic, 2, &[]);
        for partition in 0..2 {
            assert_eq!(produce_values(broker.address(), &topic, partition, &values), 0);
        }
        topics.push(topic);
        broker.kill9();
        let settings = format!("core.0.data.dir = {:?}\ncore.1.data.dir = {:?}\n", dirs[place[0]], dirs[place[1]]);
        broker.configure(&Options { settings, ..options.clone() });
        broker.restart();
        for topic in &topics {
            for partition in 0..2 {
                assert_eq!(read(broker.address(), topic, partition, Offset::Beginning).len(), values.len(), "{topic}");
            }
        }
        let new = unique("cores");
        create_topic(broker.address(), &new, 2, &[]);
        for partition in 0..2 {
            produce_values(broker.address(), &new, partition, &values);
        }
        // In order, so that there are segments.
        assert!(broker.terminate().success());
        for (core, place) in place.into_iter().enumerate() {
            let prefix = format!("{new}-{core}-");
            let names = std::fs::read_dir(dirs[place].join("partitions")).expect("a directory");
            let is_there = names.flatten().any(|name| name.file_name().to_string_lossy().starts_with(&prefix));
            assert!(is_there, "{prefix} in {}", dirs[place].display());
        }
        broker.restart();
    }
}
