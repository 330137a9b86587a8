//! Goal: while partitions move between three cores, nothing that is asked of them is refused, and what a client produces is appended in the
//! order in which it asked, however slow one core is to hear what another knows already.
//!
//! Whole shards on a simulated disk, with mail that comes late. A failure prints `SEED=…`; `SEED` repeats one, `SEEDS` says how many are tried.

mod sim;

use ringlog::base::error::ErrorCode;
use ringlog::base::ids::{CoreIndex, Offset, PartitionId};
use ringlog::base::measures::Measures;
use ringlog::base::record::BatchBuilder;
use ringlog::shard::Shard;
use ringlog::shard::commands::{
    Answer, Command, Fetch, FetchPart, ListOffset, OffsetSpec, Origin, ProducePart, RequestId,
};
use ringlog::shard::control::{Control, Controlled, TopicWanted};
use ringlog::shard::startup::{StartBoard, start};
use sim::disk::{SimDisk, SimFile};
use sim::model::for_seeds;
use sim::shards::{outside, settings};
use sim::world::World;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

const CORES: u16 = 3;
const PARTITIONS: i32 = 3;
const CLIENTS: usize = 4;
/// Requests of one client that are under way at once.
const AHEAD: usize = 4;
const MOVES: usize = 12;
const TOPIC: &str = "t";

/// What a request was.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Produce { client: usize, partition: i32 },
    Fetch,
    Move,
    Other,
}

struct Run {
    world: World,
    asked: HashMap<u64, Asked>,
    next_request: u64,
    /// Requests of each client that are not answered.
    ahead: [usize; CLIENTS],
    /// By client and partition: the requests that were answered, and where their batches are.
    appended: BTreeMap<(usize, i32), Vec<(u64, Offset)>>,
    /// What is known to be there, by partition.
    ends: [Offset; PARTITIONS as usize],
    moving: bool,
    moved: usize,
}

impl Run {
    fn start(seed: u64) -> Run {
        let mut world = World::new(seed);
        // Nothing was there before, so that the cores can start one after the other.
        let board = StartBoard::new(1);
        world.shards = (0..CORES).map(|_| Default::default()).collect();
        for core in 0..CORES {
            let outside = outside(&mut world);
            let (disk, place) = (world.disk.of_core(core), world.shards[usize::from(core)].clone());
            let started = world.run(start(disk, settings(core, CORES), outside, board.clone(), place)).expect("starts");
            assert!(started.damaged.is_empty());
        }
        let mut run = Run {
            world,
            asked: HashMap::new(),
            next_request: 1,
            ahead: [0; CLIENTS],
            appended: BTreeMap::new(),
            ends: [0; PARTITIONS as usize],
            moving: false,
            moved: 0,
        };
        let topic = TopicWanted { partition_count: PARTITIONS, ..TopicWanted::by_default(TOPIC.to_owned()) };
        let create = Control::CreateTopics { topics: vec![topic], validate_only: false };
        run.ask(0, CoreIndex(0), Command::Control(create), Asked::Other);
        run.until_answered();
        run
    }

    fn shard(&self, core: u16) -> Rc<RefCell<Shard<SimDisk>>> {
        self.world.shards[usize::from(core)].borrow().clone().expect("started")
    }

    /// As the api layer does: from the core that a client is connected to.
    fn ask(&mut self, from: u16, to: CoreIndex, command: Command, asked: Asked) {
        let request = self.next_request;
        self.next_request += 1;
        self.asked.insert(request, asked);
        let origin = Origin { core: CoreIndex(from), request: RequestId(request) };
        self.shard(from).borrow_mut().dispatch(to, origin, command, self.world.now);
    }

    /// A partition, and who has it as far as this core knows.
    fn partition(&mut self, from: u16) -> (i32, PartitionId, CoreIndex) {
        let index = self.world.rng.below(PARTITIONS as usize) as i32;
        let shard = self.shard(from);
        let shard = shard.borrow();
        let topic = shard.image().topic_by_name(TOPIC).expect("made at the start").id;
        let id = PartitionId { topic, index };
        (index, id, shard.image().partition(id).expect("made at the start").core)
    }

    fn produce(&mut self, client: usize) {
        let from = client as u16 % CORES;
        let (partition, id, core) = self.partition(from);
        let mut builder = BatchBuilder::new(self.world.now.wall_ms);
        let bytes = [10, 300, 30_000][self.world.rng.below(3)];
        builder.push(self.world.now.wall_ms, None, Some(&vec![b'v'; bytes]));
        let part = ProducePart { index: 0, partition: id, records: builder.finish().into() };
        self.ahead[client] += 1;
        self.ask(from, core, Command::Produce(vec![part]), Asked::Produce { client, partition });
    }

    fn fetch(&mut self) {
        let from = self.world.rng.below(usize::from(CORES)) as u16;
        let (partition, id, core) = self.partition(from);
        let end = self.ends[partition as usize];
        let offset = if self.world.rng.one_in(2) { end } else { self.world.rng.below(end as usize + 1) as Offset };
        let part = FetchPart { index: 0, partition: id, offset, bytes_max: 1 << 20, current_leader_epoch: -1 };
        // Longer than any move: it must be answered before, since records go on coming.
        let deadline = self.world.now.mono.plus_ms(1_000_000);
        let fetch = Fetch { parts: vec![part], bytes_min: 1, bytes_max: 1 << 20, deadline };
        self.ask(from, core, Command::Fetch(fetch), Asked::Fetch);
    }

    fn move_one(&mut self) {
        let partition = self.world.rng.below(PARTITIONS as usize) as i32;
        let core = CoreIndex(self.world.rng.below(usize::from(CORES)) as u16);
        let control = Control::MovePartition { topic: TOPIC.to_owned(), partition, core };
        self.moving = true;
        self.ask(0, CoreIndex(0), Command::Control(control), Asked::Move);
    }

    fn turn(&mut self) {
        self.world.turn();
        for (request, answer) in std::mem::take(&mut self.world.answers) {
            let asked = self.asked.remove(&request.0).expect("each request is answered once");
            self.on_answer(request.0, asked, answer);
        }
    }

    fn on_answer(&mut self, request: u64, asked: Asked, answer: Answer<SimFile>) {
        match (asked, answer) {
            (Asked::Produce { client, partition }, Answer::Produce(results)) => {
                assert_eq!(results[0].error, ErrorCode::None, "{asked:?}");
                let offset = results[0].base_offset;
                self.ahead[client] -= 1;
                self.appended.entry((client, partition)).or_default().push((request, offset));
                let end = &mut self.ends[partition as usize];
                *end = (*end).max(offset + 1);
            }
            (Asked::Fetch, Answer::Fetch { parts, .. }) => {
                assert_eq!(parts[0].error, ErrorCode::None, "{asked:?}");
            }
            (Asked::Move, Answer::Control(Controlled::Done(outcomes))) => {
                assert!(outcomes[0].is_ok(), "{outcomes:?}");
                (self.moving, self.moved) = (false, self.moved + 1);
            }
            (Asked::Other, Answer::Control(Controlled::Created(topics))) => assert!(topics[0].1.is_ok()),
            (Asked::Other, Answer::ListOffsets(listed)) => {
                let appended = self.appended.iter().filter(|((_, partition), _)| *partition == listed[0].index as i32);
                let count: usize = appended.map(|(_, batches)| batches.len()).sum();
                assert_eq!((listed[0].error, listed[0].offset), (ErrorCode::None, count as Offset));
            }
            _ => panic!("{asked:?} was answered otherwise"),
        }
    }

    fn until_answered(&mut self) {
        for _ in 0..100_000 {
            if self.asked.is_empty() {
                return;
            }
            self.turn();
        }
        panic!("no answer to {:?}", self.asked);
    }
}

#[test]
fn nothing_is_refused_or_overtaken_between_three_cores() {
    // Batches that went to their segments first, over all seeds.
    let placed = Cell::new(0);
    for_seeds(|seed| {
        let mut run = Run::start(seed);
        while run.moved < MOVES {
            let client = run.world.rng.below(CLIENTS);
            if run.ahead[client] < AHEAD {
                run.produce(client);
            }
            if run.world.rng.one_in(4) {
                run.fetch();
            }
            if !run.moving && run.world.rng.one_in(20) {
                run.move_one();
            }
            run.turn();
        }
        // Who waits for records gets some.
        let waits = |run: &Run| run.asked.values().any(|asked| matches!(asked, Asked::Fetch));
        for _ in 0..10_000 {
            if !waits(&run) {
                break;
            }
            run.produce(0);
            run.turn();
        }
        run.until_answered();
        for ((client, partition), mut batches) in run.appended.clone() {
            batches.sort_unstable();
            let in_order = batches.is_sorted_by(|one, next| one.1 < next.1);
            assert!(in_order, "client {client}, partition {partition}: {batches:?}");
        }
        for index in 0..PARTITIONS {
            let id = PartitionId { index, ..run.partition(0).1 };
            let core = run.shard(0).borrow().image().partition(id).expect("made at the start").core;
            let spec = OffsetSpec::Latest;
            let part = ListOffset { index: index as u32, partition: id, spec, current_leader_epoch: -1 };
            run.ask(0, core, Command::ListOffsets(vec![part]), Asked::Other);
        }
        run.until_answered();
        for core in 0..CORES {
            let mut measures = Measures::default();
            run.shard(core).borrow().count_into(&mut measures);
            placed.set(placed.get() + measures.counters.journal.placed);
        }
    });
    assert!(placed.get() > 0, "moves met none that went to its segment first");
}
