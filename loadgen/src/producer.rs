//! A producer: makes batches, keeps some requests under way on each connection, and sends again what was not answered.
//!
//! It knows nothing of threads and events; `worker` calls it.

use crate::batch::{Encoder, Numbering};
use crate::host;
use crate::keys;
use crate::link::Link;
use crate::mark::{self, Mark};
use crate::plan::{Phase, Plan};
use crate::scenario::{Acks, Size};
use crate::stats::Stats;
use crate::verify::{AllSent, Sent};
use crate::wire::{self, Produce, Produced, is_retriable};
use std::collections::{HashMap, VecDeque};
use std::io;

/// How long a broker may take for a Produce, as it is told, ms.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Batches that are made once and sent over and over, where sizes vary and nothing else does.
const TEMPLATES: usize = 16;

/// Keys drawn for one batch of a closed loop until one belongs to the broker that is asked.
const KEYS_DRAWN_MAX: usize = 1000;

/// A record of an open loop that waits for its batch.
#[derive(Clone, Copy)]
struct Pending {
    due: u64,
    key: Option<u64>,
}

enum Records {
    /// A closed loop: all of them were due at once, with the same key.
    Same(Pending, usize),
    Each(Vec<Pending>),
}

impl Records {
    fn count(&self) -> usize {
        match self {
            Records::Same(_, count) => *count,
            Records::Each(all) => all.len(),
        }
    }

    fn each(&self) -> impl Iterator<Item = Pending> + '_ {
        let (same, each) = match self {
            Records::Same(record, count) => (Some((*record, *count)), &[][..]),
            Records::Each(all) => (None, &all[..]),
        };
        let same = same.into_iter().flat_map(|(record, count)| std::iter::repeat_n(record, count));
        same.chain(each.iter().copied())
    }
}

/// Records of one partition that are sent together.
struct Batch {
    partition: u32,
    /// Of its first record, counting this producer's in this partition from 0; 0 where nobody counts.
    number: u64,
    records: Records,
    /// Of the values; known once it was encoded.
    value_bytes: u64,
}

struct Request {
    correlation: i32,
    batches: Vec<Batch>,
}

/// What a producer has of one partition.
#[derive(Default)]
struct Stream {
    /// Number of the next record.
    next: u64,
    /// Open loop: not in a batch yet.
    queue: VecDeque<Pending>,
}

/// A connection and what is under way on it.
struct Lane {
    link: Link,
    in_flight: VecDeque<Request>,
}

pub struct Producer {
    /// Counts producers of the run from 0.
    pub index: u32,
    lanes: Vec<Lane>,
    streams: HashMap<u32, Stream>,
    /// Partitions with a queue, those first whose oldest record came first.
    waiting: VecDeque<u32>,
    /// Refused for now: sent again before everything else, once their connection is closed.
    refused: Vec<Batch>,
    /// Sent, and lost with their connection before the answer.
    resend: VecDeque<Batch>,
    /// Round robin over partitions.
    cursor: usize,
    sticky: Option<u32>,
    /// Batches to be used again, for their memory.
    spare: Vec<Vec<Batch>>,
}

/// What the producers of a thread share.
pub struct Kit {
    pub random: fastrand::Rng,
    /// The partitions that each broker leads.
    pub led: Vec<Vec<u32>>,
    /// Who leads each partition.
    pub leaders: Vec<usize>,
    /// Bytes of values that may still be sent, where that is bounded.
    pub bytes_left: Option<u64>,
    encoder: Encoder,
    templates: Vec<(Vec<u8>, u64)>,
    filling: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Kit {
    pub fn new(plan: &Plan, seed: u64, bytes_left: Option<u64>) -> Kit {
        let mut random = fastrand::Rng::with_seed(seed);
        // Words of a small vocabulary, so that it compresses.
        let words: Vec<String> =
            (0..256).map(|_| (0..random.usize(3..9)).map(|_| random.alphanumeric()).collect()).collect();
        let mut filling = Vec::with_capacity(64 << 10);
        while filling.len() < 64 << 10 {
            filling.extend_from_slice(words[random.usize(..words.len())].as_bytes());
            filling.push(b' ');
        }
        let mut kit = Kit {
            random,
            led: Vec::new(),
            leaders: Vec::new(),
            bytes_left,
            encoder: Encoder::new(plan.scenario.compression),
            templates: Vec::new(),
            filling,
            head: Vec::new(),
            body: Vec::new(),
        };
        kit.learn(plan, &plan.cluster.leaders);
        kit.make_templates(plan);
        kit
    }

    /// Takes over who leads what.
    pub fn learn(&mut self, plan: &Plan, leaders: &[usize]) {
        self.leaders = leaders.to_vec();
        self.led = vec![Vec::new(); plan.cluster.brokers.len()];
        for (partition, &leader) in leaders.iter().enumerate() {
            self.led[leader].push(partition as u32);
        }
    }

    /// Makes the batches anew that are sent as they are, with the time of now.
    pub fn make_templates(&mut self, plan: &Plan) {
        let scenario = &plan.scenario;
        if scenario.is_marked() || scenario.idempotent || scenario.is_open_loop() || plan.keys.is_some() {
            return;
        }
        let count = if matches!(scenario.record_bytes, Size::Fixed(_)) { 1 } else { TEMPLATES };
        self.templates = (0..count)
            .map(|_| {
                let mut values = 0;
                for _ in 0..scenario.batch_records {
                    let bytes = scenario.record_bytes.draw(&mut self.random);
                    values += bytes as u64;
                    self.encoder.record(None, bytes, |out| mark::fill(bytes, &self.filling, out));
                }
                let mut out = Vec::new();
                self.encoder.finish(host::wall_ms(), Numbering::NONE, &mut out);
                (out, values)
            })
            .collect();
    }

    /// Encodes `batch` to the end of `body`.
    fn encode(&mut self, batch: &mut Batch, producer: u32, plan: &Plan) {
        let scenario = &plan.scenario;
        let mut values = 0;
        for (number, record) in (batch.number..).zip(batch.records.each()) {
            let bytes = scenario.record_bytes.draw(&mut self.random);
            values += bytes as u64;
            let key = record.key.map(keys::text);
            let filling = &self.filling;
            self.encoder.record(key.as_ref().map(|key| &key[..]), bytes, |out| {
                if scenario.is_marked() {
                    Mark { run: plan.run, producer, number, due: record.due }.append(bytes, filling, out);
                } else {
                    mark::fill(bytes, filling, out);
                }
            });
        }
        let numbering = match plan.producer_ids.get(producer as usize) {
            // Sequences begin anew at 0 after i32::MAX.
            Some(&(producer_id, producer_epoch)) => {
                Numbering { producer_id, producer_epoch, base_sequence: (batch.number & 0x7fff_ffff) as i32 }
            }
            None => Numbering::NONE,
        };
        batch.value_bytes = values;
        self.encoder.finish(host::wall_ms(), numbering, &mut self.body);
    }
}

/// What became of an answer.
pub enum Answered {
    Fine,
    /// The broker could not do it now: the connection is to be closed, and all that is under way on it to be sent again.
    Retry,
    /// It will not do it.
    Refused(String),
}

impl Producer {
    pub fn new(index: u32, brokers: usize) -> Producer {
        let lane = || Lane { link: Link::new(), in_flight: VecDeque::new() };
        Producer {
            index,
            lanes: (0..brokers).map(|_| lane()).collect(),
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            refused: Vec::new(),
            resend: VecDeque::new(),
            // Producers begin at different partitions.
            cursor: index as usize,
            sticky: None,
            spare: Vec::new(),
        }
    }

    pub fn link(&mut self, broker: usize) -> &mut Link {
        &mut self.lanes[broker].link
    }

    /// Whether everything sent was answered, and nothing waits.
    pub fn is_done(&self) -> bool {
        self.resend.is_empty() && self.waiting.is_empty() && self.lanes.iter().all(|lane| lane.in_flight.is_empty())
    }

    /// A record of an open loop is due. Returns whether its partition had none waiting: then a linger begins.
    pub fn offer(&mut self, due: u64, plan: &Plan, kit: &mut Kit) -> bool {
        let key = plan.keys.as_ref().map(|keys| keys.draw(&mut kit.random));
        let partition = match key {
            Some(key) => self.partition_of(key, plan),
            None => self.sticky_partition(plan),
        };
        let queue = &mut self.streams.entry(partition).or_default().queue;
        queue.push_back(Pending { due, key });
        let first = queue.len() == 1;
        if first {
            self.waiting.push_back(partition);
        }
        first
    }

    /// Keys go to a partition of their own; topics take turns.
    fn partition_of(&mut self, key: u64, plan: &Plan) -> u32 {
        let per_topic = plan.cluster.partitions_per_topic;
        self.cursor += 1;
        let topic = self.cursor as u32 % plan.cluster.topics.len() as u32;
        topic * per_topic + keys::partition(&keys::text(key), per_topic)
    }

    /// Without keys a batch is filled before the next partition has its turn (KIP-480).
    fn sticky_partition(&mut self, plan: &Plan) -> u32 {
        if let Some(sticky) = self.sticky {
            let waiting = self.streams.get(&sticky).map_or(0, |stream| stream.queue.len());
            if waiting > 0 && waiting < plan.scenario.batch_records {
                return sticky;
            }
        }
        self.cursor += 1;
        let next = self.cursor as u32 % plan.cluster.partitions();
        self.sticky = Some(next);
        next
    }

    /// Sends what may be sent to `broker`.
    ///
    /// # Errors
    /// Where the connection is gone; `lose` comes next.
    pub fn fill(&mut self, broker: usize, now: u64, plan: &Plan, kit: &mut Kit, stats: &mut Stats) -> io::Result<()> {
        loop {
            let lane = &self.lanes[broker];
            if !lane.link.is_open() || lane.in_flight.len() >= plan.scenario.in_flight {
                return Ok(());
            }
            if self.lanes[broker].link.ready().is_none() {
                return Ok(());
            }
            let mut batches = self.spare.pop().unwrap_or_default();
            self.pick(broker, now, plan, kit, &mut batches);
            if batches.is_empty() {
                self.spare.push(batches);
                return Ok(());
            }
            let lane = &mut self.lanes[broker];
            let correlation = lane.link.next_correlation();
            let sent = send(&mut lane.link, correlation, &mut batches, self.index, plan, kit);
            if let Some(left) = &mut kit.bytes_left {
                *left = left.saturating_sub(batches.iter().map(|batch| batch.value_bytes).sum());
            }
            if plan.scenario.acks == Acks::None {
                batches.drain(..).for_each(|batch| count_ack(&batch, now, plan, stats));
                stats.acked_requests += u64::from(plan.counts(now, now));
                self.spare.push(batches);
            } else {
                // Also where sending failed: then it is sent again with the rest.
                lane.in_flight.push_back(Request { correlation, batches });
            }
            sent?;
        }
    }

    /// The batches of the next request to `broker`: those that are sent again before new ones.
    fn pick(&mut self, broker: usize, now: u64, plan: &Plan, kit: &mut Kit, out: &mut Vec<Batch>) {
        let most = plan.scenario.request_partitions;
        let mut at = 0;
        while out.len() < most && at < self.resend.len() {
            let partition = self.resend[at].partition;
            if kit.leaders[partition as usize] != broker {
                at += 1;
                continue;
            }
            if out.iter().any(|batch| batch.partition == partition) {
                break;
            }
            out.extend(self.resend.remove(at));
        }
        if !out.is_empty() {
            return;
        }
        if plan.scenario.is_open_loop() {
            self.pick_waiting(broker, now, plan, kit, out);
        } else if plan.control.phase() == Phase::Running && now < plan.times().end && kit.bytes_left != Some(0) {
            for _ in 0..most {
                self.pick_new(broker, now, plan, kit, out);
            }
        }
    }

    /// Open loop: the partitions whose records have waited long enough, or fill a batch.
    fn pick_waiting(&mut self, broker: usize, now: u64, plan: &Plan, kit: &Kit, out: &mut Vec<Batch>) {
        let scenario = &plan.scenario;
        let linger = (scenario.linger_ms * 1e6) as u64;
        let in_a_hurry = plan.control.phase() != Phase::Running;
        let mut at = 0;
        while out.len() < scenario.request_partitions && at < self.waiting.len() {
            let partition = self.waiting[at];
            let stream = self.streams.get_mut(&partition).expect("it has records waiting");
            let oldest = stream.queue.front().expect("it has records waiting").due;
            let is_ready = stream.queue.len() >= scenario.batch_records || oldest + linger <= now || in_a_hurry;
            if !is_ready || kit.leaders[partition as usize] != broker {
                at += 1;
                continue;
            }
            let count = stream.queue.len().min(scenario.batch_records);
            let records = Records::Each(stream.queue.drain(..count).collect());
            out.push(Batch { partition, number: stream.next, records, value_bytes: 0 });
            stream.next += count as u64;
            self.waiting.remove(at);
            if !stream.queue.is_empty() {
                // Its next records are younger than those of the others.
                self.waiting.push_back(partition);
            }
        }
    }

    /// Closed loop: a batch that is due now.
    fn pick_new(&mut self, broker: usize, now: u64, plan: &Plan, kit: &mut Kit, out: &mut Vec<Batch>) {
        if kit.led[broker].is_empty() {
            return;
        }
        let Some((partition, key)) = self.choose(broker, plan, kit) else { return };
        if out.iter().any(|batch| batch.partition == partition) {
            return;
        }
        let count = plan.scenario.batch_records;
        let mut number = 0;
        if kit.templates.is_empty() {
            let stream = self.streams.entry(partition).or_default();
            number = stream.next;
            stream.next += count as u64;
        }
        out.push(Batch { partition, number, records: Records::Same(Pending { due: now, key }, count), value_bytes: 0 });
    }

    /// A partition that `broker` leads, and the key that leads to it where there are keys: as many are drawn as it takes, since with
    /// nothing sent nothing would be answered, and the loop would end. `None` where no key seems to lead there.
    fn choose(&mut self, broker: usize, plan: &Plan, kit: &mut Kit) -> Option<(u32, Option<u64>)> {
        let Some(keys) = &plan.keys else {
            self.cursor += 1;
            let led = &kit.led[broker];
            return Some((led[self.cursor % led.len()], None));
        };
        (0..KEYS_DRAWN_MAX).find_map(|_| {
            let key = keys.draw(&mut kit.random);
            let partition = self.partition_of(key, plan);
            (kit.leaders[partition as usize] == broker).then_some((partition, Some(key)))
        })
    }

    /// An answer has come on the connection to `broker`.
    pub fn on_reply(&mut self, broker: usize, frame: &[u8], now: u64, plan: &Plan, stats: &mut Stats) -> Answered {
        let Some(mut request) = self.lanes[broker].in_flight.pop_front() else {
            return Answered::Refused("the broker answers what was not asked".to_owned());
        };
        if frame[..4] != request.correlation.to_be_bytes() {
            return Answered::Refused("the broker answers out of order".to_owned());
        }
        let mut outcome = Answered::Fine;
        let mut failed: Vec<(&[u8], i32)> = Vec::new();
        let mut at = 0;
        let read = wire::produced(&frame[4..], |Produced { topic, partition, error }| {
            at += 1;
            // Sent twice and there once: what it was numbered for.
            const DUPLICATE: i16 = 46;
            // A batch before it was refused for now and is sent again first.
            const OUT_OF_ORDER: i16 = 45;
            if error == 0 || error == DUPLICATE {
                return;
            }
            stats.on_error(error);
            failed.push((topic, partition));
            if is_retriable(error) || error == OUT_OF_ORDER {
                if matches!(outcome, Answered::Fine) {
                    outcome = Answered::Retry;
                }
            } else {
                let topic = String::from_utf8_lossy(topic);
                outcome = Answered::Refused(format!("Produce to {topic}-{partition}: {}", wire::error_name(error)));
            }
        });
        if read.is_err() || at != request.batches.len() {
            return Answered::Refused("an answer to Produce is not as its version says".to_owned());
        }
        if failed.is_empty() {
            stats.acked_requests += u64::from(plan.counts(now, now));
            request.batches.drain(..).for_each(|batch| count_ack(&batch, now, plan, stats));
            self.spare.push(request.batches);
            return outcome;
        }
        let has_failed = |batch: &Batch| {
            let (topic, partition) = plan.cluster.topic_of(batch.partition);
            failed.contains(&(plan.cluster.topics[topic as usize].as_bytes(), partition))
        };
        let (again, done): (Vec<Batch>, Vec<Batch>) = request.batches.into_iter().partition(has_failed);
        done.iter().for_each(|batch| count_ack(batch, now, plan, stats));
        self.refused.extend(again);
        outcome
    }

    /// The connection to `broker` is gone: what was under way on it is to be sent again, in its order.
    pub fn lose(&mut self, broker: usize, now: u64) {
        let lane = &mut self.lanes[broker];
        lane.link.close(now);
        let under_way = lane.in_flight.drain(..).flat_map(|request| request.batches);
        let lost: Vec<Batch> = self.refused.drain(..).chain(under_way).collect();
        for batch in lost.into_iter().rev() {
            self.resend.push_front(batch);
        }
    }

    /// What this producer has sent, by partition, for the verdict.
    pub fn sent(&self, into: &mut AllSent) {
        for (&partition, stream) in &self.streams {
            into.insert((partition, self.index), Sent { count: stream.next, ..Sent::default() });
        }
        let open = self.lanes.iter().flat_map(|lane| &lane.in_flight).flat_map(|request| &request.batches);
        for batch in open.chain(&self.resend) {
            let sent = into.entry((batch.partition, self.index)).or_default();
            sent.unanswered.extend(batch.number..batch.number + batch.records.count() as u64);
        }
    }

    /// Records that nobody answered for.
    pub fn unanswered(&self) -> u64 {
        let open = self.lanes.iter().flat_map(|lane| &lane.in_flight).flat_map(|request| &request.batches);
        let sent: usize = open.chain(&self.resend).map(|batch| batch.records.count()).sum();
        let waiting: usize = self.streams.values().map(|stream| stream.queue.len()).sum();
        (sent + waiting) as u64
    }
}

fn count_ack(batch: &Batch, now: u64, plan: &Plan, stats: &mut Stats) {
    let count = batch.records.count() as u64;
    if plan.scenario.is_open_loop() {
        let mut counted = 0;
        for record in batch.records.each().filter(|record| plan.counts(record.due, now)) {
            stats.on_ack(now - record.due, 1);
            counted += 1;
        }
        stats.acked_records += counted;
        stats.acked_bytes += batch.value_bytes * counted / count;
    } else if plan.counts(now, now) {
        let Records::Same(record, _) = batch.records else { unreachable!("a closed loop") };
        stats.on_ack(now - record.due, count);
        stats.acked_records += count;
        stats.acked_bytes += batch.value_bytes;
    }
}

/// Encodes a Produce of `batches` and sends it.
fn send(
    link: &mut Link,
    correlation: i32,
    batches: &mut [Batch],
    producer: u32,
    plan: &Plan,
    kit: &mut Kit,
) -> io::Result<()> {
    kit.head.clear();
    let mut head = std::mem::take(&mut kit.head);
    let mut produce = Produce::begin(correlation, plan.scenario.acks.wire(), PRODUCE_TIMEOUT_MS, &mut head);
    let mut topic = u32::MAX;
    // Partitions of a topic stand together.
    batches.sort_by_key(|batch| plan.cluster.topic_of(batch.partition).0);
    let last = batches.len() - 1;
    let mut template = None;
    for (at, batch) in batches.iter_mut().enumerate() {
        let (of, partition) = plan.cluster.topic_of(batch.partition);
        if of != topic {
            produce.topic(&plan.cluster.topics[of as usize], &mut head);
            topic = of;
        }
        kit.body.clear();
        if kit.templates.is_empty() {
            kit.encode(batch, producer, plan);
            produce.partition(partition, kit.body.len(), &mut head);
        } else {
            let chosen = if kit.templates.len() == 1 { 0 } else { kit.random.usize(..kit.templates.len()) };
            batch.value_bytes = kit.templates[chosen].1;
            produce.partition(partition, kit.templates[chosen].0.len(), &mut head);
            template = Some(chosen);
        }
        if at < last {
            let body = template.map_or(&kit.body, |chosen| &kit.templates[chosen].0);
            head.extend_from_slice(body);
        }
    }
    let body = template.map_or(&kit.body, |chosen| &kit.templates[chosen].0);
    produce.end(body.len(), &mut head);
    let result = link.ready().expect("it was ready").send(&head, body);
    kit.head = head;
    result
}
