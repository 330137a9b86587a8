//! SIGKILL at random moments under load, again and again; then every promise made to a client is held against the log.
//!
//! `RINGLOG_CRASH_ROUNDS` (3 by default) crashes per test; `RINGLOG_CRASH_SEED` repeats the choices of a run that
//! printed `SEED=…`, though never the exact interleaving of its threads. D1–D4 of ARCHITECTURE.md, section 7.

#[path = "support/history.rs"]
mod history;
#[path = "support/load.rs"]
mod load;
#[path = "support/payload.rs"]
mod payload;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use history::{Final, check};
use load::{Load, Scene};
use payload::split_mix;
use support::clients::{STEP, await_partitions, config, create_topic, read, unique, until};
use support::http::move_partition;
use support::{Broker, Options};

const PARTITIONS: i32 = 6;

/// Cores of the broker.
const CORES: u16 = 2;

/// A round counts only when the broker was at work before it was killed.
const ACKED_PER_ROUND_MIN: u64 = 200;

#[derive(Clone, Copy, PartialEq)]
enum Clients {
    /// The same clients work through all crashes and find the broker again on its port.
    LiveOn,
    /// Clients end with their broker, at the same moment; new ones come to the next.
    NewEachRound,
    /// As `LiveOn`, while partitions move from core to core all the time.
    BesideMoves,
    /// As `LiveOn`, with a broker for which every batch of a kilobyte is large: most go to their segments, and not through the journal.
    LargeBatches,
}

#[test]
fn promises_hold_through_crashes_for_clients_that_live_on() {
    crash_rounds(Clients::LiveOn);
}

#[test]
fn promises_hold_through_crashes_for_new_clients_each_round() {
    crash_rounds(Clients::NewEachRound);
}

#[test]
fn promises_hold_through_crashes_while_partitions_move() {
    crash_rounds(Clients::BesideMoves);
}

#[test]
fn promises_hold_through_crashes_for_batches_that_go_to_their_segments_first() {
    crash_rounds(Clients::LargeBatches);
}

fn crash_rounds(clients: Clients) {
    let rounds = from_env("RINGLOG_CRASH_ROUNDS").unwrap_or(3);
    let seed = from_env("RINGLOG_CRASH_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64
    });
    println!("SEED={seed}");
    let mut random = seed;
    let settings = if clients == Clients::LargeBatches { "core.large.batch.bytes = 1024" } else { "" };
    let options = Options { cores: usize::from(CORES), settings: settings.to_owned(), ..Options::default() };
    let mut broker = Broker::start(options);
    let scene = Scene::new(unique("crash"), PARTITIONS, unique("crash-group"), seed);
    create_topic(broker.address(), &scene.topic, PARTITIONS, &[]);
    let mut load = Load::start(&scene, broker.address());
    for _ in 0..rounds {
        let mover = (clients == Clients::BesideMoves).then(|| Mover::start(&broker, &scene.topic, random));
        scene.await_acked(ACKED_PER_ROUND_MIN);
        mover.iter().for_each(Mover::await_move);
        if clients == Clients::LargeBatches {
            until("a batch goes to its segment first", || (broker.counters().sum("journal.placed") > 0).then_some(()));
        }
        // Not to wait for anything: the moment of the crash is the point of the test.
        std::thread::sleep(Duration::from_millis(split_mix(&mut random) % 1500));
        if clients == Clients::NewEachRound {
            load.wind_down();
        }
        broker.kill9();
        mover.into_iter().for_each(Mover::end);
        if split_mix(&mut random).is_multiple_of(3) {
            broker.start_and_kill(Duration::from_millis(split_mix(&mut random) % 200));
        }
        broker.restart();
        if clients == Clients::NewEachRound {
            load.stop();
            load = Load::start(&scene, broker.address());
        }
    }
    scene.await_acked(ACKED_PER_ROUND_MIN);
    await_group_progress(&scene);
    load.stop();
    judge(&scene, broker.address(), seed);
}

/// Moves partitions of a topic to random cores, one after the other, until its broker is killed.
struct Mover {
    moved: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Mover {
    fn start(broker: &Broker, topic: &str, mut random: u64) -> Mover {
        let (admin, topic) = (broker.admin().expect("it is on by default").to_owned(), topic.to_owned());
        let moved = Arc::new(AtomicU64::new(0));
        let counter = moved.clone();
        let thread = std::thread::spawn(move || {
            loop {
                let partition = (split_mix(&mut random) % PARTITIONS as u64) as i32;
                let core = (split_mix(&mut random) % u64::from(CORES)) as u16;
                let Some((status, text)) = move_partition(&admin, &topic, partition, core) else { return };
                assert_eq!(status, 200, "{text}");
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Mover { moved, thread }
    }

    /// A crash before the first move would show nothing: on a disk that stalls, one can take longer than all else in a round.
    fn await_move(&self) {
        until("a partition moves", || (self.moved.load(Ordering::Relaxed) > 0).then_some(()));
    }

    /// The broker is dead.
    fn end(self) {
        self.thread.join().expect("no move is refused");
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Waits for one more acknowledged commit, so that the group is known to work after the last crash.
fn await_group_progress(scene: &Arc<Scene>) {
    let acked = || scene.history().commits.iter().filter(|c| c.acked).count();
    let before = acked();
    until("the group commits", || (acked() > before).then_some(()));
}

fn judge(scene: &Scene, address: &str, seed: u64) {
    await_partitions(address, &scene.topic, PARTITIONS);
    let mut end = Final { committed: committed(scene, address), ..Final::default() };
    for partition in 0..PARTITIONS {
        for (offset, record) in read(address, &scene.topic, partition, Offset::Beginning) {
            end.log.insert((partition, offset), record.value.unwrap_or_default());
        }
    }
    let history = scene.history();
    println!(
        "acked {}, read {}, in the log {}, commits {}",
        history.acked.len(),
        history.reads.len(),
        end.log.len(),
        history.commits.iter().filter(|c| c.acked).count()
    );
    assert!(!history.reads.is_empty(), "readers took part");
    let faults = check(&history, &end);
    assert!(
        faults.is_empty(),
        "SEED={seed}: {} faults, the first: {:#?}",
        faults.len(),
        &faults[..faults.len().min(10)]
    );
}

/// What a fresh client is told of the group's offsets.
fn committed(scene: &Scene, address: &str) -> HashMap<i32, i64> {
    let consumer: BaseConsumer = config(address, &[("group.id", &scene.group)]).create().expect("a consumer");
    let mut query = TopicPartitionList::new();
    query.add_partition_range(&scene.topic, 0, PARTITIONS - 1);
    let answer = until("the group's offsets", || consumer.committed_offsets(query.clone(), STEP).ok());
    let offset_of = |offset: Offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    answer.elements().iter().filter_map(|e| Some((e.partition(), offset_of(e.offset())?))).collect()
}
