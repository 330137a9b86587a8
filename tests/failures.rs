//! What a broker ends with when its disk fails it: the exit code, and what is there at the next start.
//!
//! What the log does about each failure is `log_crash` and `log_damage`, on a simulated disk; here it is the process.

mod support;

use rdkafka::topic_partition_list::Offset;
use ringlog::base::exit::Exit;
use ringlog::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::path::{Path, PathBuf};
use support::clients::{create_topic, produce_values, read};
use support::raw::{Raw, batch, frame, produce};
use support::wire::Wire;
use support::{Broker, Options};

/// Of Produce; one whose topics have names.
const VERSION: i16 = 9;

fn start() -> Broker {
    Broker::start(Options { cores: 1, ..Options::default() })
}

/// Files below `dir`, at any depth.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A bit of the journal that is not what it was.
struct Flipped {
    path: PathBuf,
    bytes: Vec<u8>,
    at: usize,
}

impl Flipped {
    /// The first bit of where `text` stands.
    fn in_journal(broker: &Broker, text: &[u8]) -> Flipped {
        let found = files(&broker.data_dir().join("journal")).into_iter().find_map(|path| {
            let bytes = std::fs::read(&path).expect("a file of ours");
            let at = bytes.windows(text.len()).position(|window| window == text)?;
            Some(Flipped { path, bytes, at })
        });
        let mut flipped = found.expect("it is in the journal");
        flipped.flip();
        flipped
    }

    fn flip(&mut self) {
        self.bytes[self.at] ^= 1;
        std::fs::write(&self.path, &self.bytes).expect("a file of ours");
    }

    /// As if it had been restored from a backup.
    fn mend(mut self) {
        self.flip();
    }
}

/// A limit on the size of files fails writes as a broken disk does, for this process alone.
#[test]
fn a_failed_write_ends_with_10_and_what_was_acknowledged_is_there_at_the_next_start() {
    let mut broker = start();
    create_topic(broker.address(), "kept", 1, &[]);
    produce_values(broker.address(), "kept", 0, &["acknowledged".to_owned()]);
    let mut raw = Raw::connect(broker.address());
    // Room for the broker's own log, and none in the journal for the batch that follows.
    let limit = Rlimit { current: Some(256 << 10), maximum: Some(256 << 10) };
    let pid = Pid::from_raw(broker.pid() as i32).expect("no process has id 0");
    prlimit(Some(pid), Resource::Fsize, limit).expect("a child may be limited");
    let over = batch(&vec![b'v'; 900 << 10]);
    raw.send(&frame(1, VERSION, &produce("kept", -1, &[(0, &over)])));
    raw.closed("a batch that could not be written");
    assert_eq!(broker.ended().code(), Some(i32::from(Exit::DiskFailed.code())), "{}", broker.log_tail());
    assert!(broker.log().contains("nothing is acknowledged after a failed write"), "{}", broker.log_tail());

    broker.restart();
    let kept = read(broker.address(), "kept", 0, Offset::Beginning);
    let values: Vec<_> = kept.into_iter().map(|(offset, record)| (offset, record.value)).collect();
    assert_eq!(values, [(0, Some(b"acknowledged".to_vec()))]);
}

#[test]
fn damaged_metadata_ends_with_9_and_is_left_as_it_was() {
    let mut broker = start();
    create_topic(broker.address(), "a-topic-to-be-damaged", 1, &[]);
    // What follows in the journal tells damage from a write that was cut short.
    produce_values(broker.address(), "a-topic-to-be-damaged", 0, &["after".to_owned()]);
    broker.kill9();
    let damaged = Flipped::in_journal(&broker, b"a-topic-to-be-damaged");
    assert_eq!(broker.start_in_vain().code(), Some(i32::from(Exit::Recovery.code())), "{}", broker.log_tail());

    damaged.mend();
    broker.restart();
    assert_eq!(read(broker.address(), "a-topic-to-be-damaged", 0, Offset::Beginning).len(), 1);
}

#[test]
fn a_damaged_partition_stays_as_it_is_over_any_number_of_starts() {
    let mut broker = start();
    create_topic(broker.address(), "damaged", 1, &[]);
    create_topic(broker.address(), "whole", 1, &[]);
    let values = ["before".to_owned(), "the-one-that-is-damaged".to_owned(), "after".to_owned()];
    for value in &values {
        produce_values(broker.address(), "damaged", 0, std::slice::from_ref(value));
    }
    produce_values(broker.address(), "whole", 0, &values);
    broker.kill9();
    let damaged = Flipped::in_journal(&broker, values[1].as_bytes());
    // Of the first start, which replays, and of one after an orderly end, which has nothing of its own to replay.
    for _ in 0..2 {
        broker.restart();
        assert!(broker.log().contains("damaged"), "the damage is named: {}", broker.log_tail());
        let mut wire = Wire::connect(broker.address(), "failures");
        let latest = ListOffsetsPartition { timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: "damaged", partitions: vec![latest] }];
        let asked = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let answered = wire.ask(4, &asked).topics[0].partitions[0].error_code;
        assert_ne!(answered, 0, "a partition that lacks a batch is not served");
        assert_eq!(read(broker.address(), "whole", 0, Offset::Beginning).len(), values.len());
        assert!(broker.terminate().success());
    }
    damaged.mend();
    broker.restart();
    let all = read(broker.address(), "damaged", 0, Offset::Beginning);
    let all: Vec<_> = all.into_iter().map(|(_, record)| record.value.expect("a value")).collect();
    assert_eq!(all, values.map(String::into_bytes));
}
