//! What a broker ends with when its disk fails it: the exit code, and what is there at the next start.
//!
//! What the log does about each failure is `log_crash` and `log_damage`, on a simulated disk; here it is the process.

mod support;

use rdkafka::topic_partition_list::Offset;
use ringlog::base::exit::Exit;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::path::{Path, PathBuf};
use support::clients::{create_topic, produce_values, read};
use support::raw::{Raw, batch, frame, produce};
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
    let name = b"a-topic-to-be-damaged";
    let journal = files(&broker.data_dir().join("journal"));
    let (path, mut bytes, at) = journal
        .into_iter()
        .find_map(|path| {
            let bytes = std::fs::read(&path).expect("a file of ours");
            let at = bytes.windows(name.len()).position(|window| window == name)?;
            Some((path, bytes, at))
        })
        .expect("the name is in the journal");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("a file of ours");
    assert_eq!(broker.start_in_vain().code(), Some(i32::from(Exit::Recovery.code())), "{}", broker.log_tail());

    // As if it had been restored from a backup.
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("a file of ours");
    broker.restart();
    assert_eq!(read(broker.address(), "a-topic-to-be-damaged", 0, Offset::Beginning).len(), 1);
}
