//! A consumer: one Fetch at a time on each connection, from where it is; looks at what it reads as far as the scenario wants.
//!
//! It knows nothing of threads and events; `worker` calls it.

use crate::batch;
use crate::link::Link;
use crate::mark;
use crate::plan::{Phase, Plan};
use crate::stats::Stats;
use crate::verify::{AllSent, Check, Verdict};
use crate::wire::{self, FetchBounds, Wanted, error_name, is_retriable};
use std::collections::BTreeMap;
use std::io;

/// Bytes of one answer at most, as Kafka's consumers ask for (`fetch.max.bytes`).
const ANSWER_BYTES_MAX: i32 = 50 << 20;

struct Lane {
    link: Link,
    /// The Fetch under way.
    asked: Option<i32>,
}

pub struct Reader {
    lanes: Vec<Lane>,
    /// The partitions it reads, and where it is in each.
    offsets: BTreeMap<u32, i64>,
    /// Looks at marks and checksums, where the run is verified.
    check: Option<Check>,
    /// Partitions begin in turn, so that none is always last where an answer has no room for all.
    turn: usize,
    wanted: Vec<Wanted>,
    frame: Vec<u8>,
    scratch: Vec<u8>,
}

/// What became of an answer.
pub enum Answered {
    Fine,
    /// The broker could not do it now, or somebody else leads: the connection is to be closed and the leaders asked for.
    Retry,
    /// Where it is the log does not begin yet, or not any more.
    OutOfRange,
    Refused(String),
}

impl Reader {
    /// The `member`-th of the consumers of a group.
    pub fn new(member: u32, plan: &Plan) -> Reader {
        let lanes = plan.cluster.brokers.iter().map(|_| Lane { link: Link::new(), asked: None });
        let mine = (0..plan.cluster.partitions()).filter(|partition| partition % plan.scenario.consumers == member);
        Reader {
            lanes: lanes.collect(),
            offsets: mine.map(|partition| (partition, plan.starts[partition as usize])).collect(),
            check: plan.scenario.verify.then(|| Check::new(plan.run)),
            turn: 0,
            wanted: Vec::new(),
            frame: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn link(&mut self, broker: usize) -> &mut Link {
        &mut self.lanes[broker].link
    }

    /// Whether it has read all up to `ends`.
    pub fn has_reached(&self, ends: &[i64]) -> bool {
        self.offsets.iter().all(|(&partition, &offset)| offset >= ends[partition as usize])
    }

    /// Whether it has read all that the scenario wants of it.
    pub fn is_done(&self, plan: &Plan) -> bool {
        !plan.scenario.repeat && self.has_reached(&plan.ends)
    }

    /// Asks `broker` for more, unless it was asked already.
    ///
    /// # Errors
    /// Where the connection is gone; `lose` comes next.
    pub fn ask(&mut self, broker: usize, plan: &Plan, leaders: &[usize]) -> io::Result<()> {
        let lane = &mut self.lanes[broker];
        if lane.asked.is_some() || lane.link.ready().is_none() {
            return Ok(());
        }
        let phase = plan.control.phase();
        let ends = match plan.control.targets.get() {
            Some(targets) if phase >= Phase::Reading => targets,
            _ if plan.scenario.repeat => return self.send(broker, plan, leaders, |_, _| true),
            _ => &plan.ends,
        };
        self.send(broker, plan, leaders, |partition, offset| offset < ends[partition as usize])
    }

    fn send(
        &mut self,
        broker: usize,
        plan: &Plan,
        leaders: &[usize],
        is_wanted: impl Fn(u32, i64) -> bool,
    ) -> io::Result<()> {
        self.wanted.clear();
        for (&partition, &offset) in &self.offsets {
            if leaders[partition as usize] == broker && is_wanted(partition, offset) {
                let (topic, partition) = plan.cluster.topic_of(partition);
                self.wanted.push(Wanted { topic, partition, offset });
            }
        }
        if self.wanted.is_empty() {
            return Ok(());
        }
        // Within one topic in turn; several topics stay together, as the format wants them.
        if plan.cluster.topics.len() == 1 {
            self.turn = (self.turn + 1) % self.wanted.len();
            self.wanted.rotate_left(self.turn);
        }
        let scenario = &plan.scenario;
        let bounds = FetchBounds {
            wait_ms: scenario.fetch_wait_ms,
            min_bytes: scenario.fetch_min_bytes,
            partition_bytes: scenario.fetch_bytes,
            total_bytes: ANSWER_BYTES_MAX.max(scenario.fetch_bytes),
        };
        let lane = &mut self.lanes[broker];
        let correlation = lane.link.next_correlation();
        self.frame.clear();
        wire::fetch(correlation, bounds, &plan.cluster.topics, &self.wanted, &mut self.frame);
        lane.asked = Some(correlation);
        lane.link.ready().expect("it was ready").send(&self.frame, &[])
    }

    /// An answer of `broker` has come.
    pub fn on_reply(&mut self, broker: usize, frame: &[u8], now: u64, plan: &Plan, stats: &mut Stats) -> Answered {
        let asked = self.lanes[broker].asked.take();
        if asked.is_none_or(|correlation| frame[..4] != correlation.to_be_bytes()) {
            return Answered::Refused("the broker answers what was not asked".to_owned());
        }
        let mut outcome = Answered::Fine;
        let mut brought = 0;
        let mut names = plan.cluster.topics.iter().enumerate().cycle();
        let mut topic = names.next().expect("a topic");
        let read = wire::fetched(&frame[4..], |part| {
            let topics = plan.cluster.topics.len();
            for _ in 0..topics {
                if topic.1.as_bytes() == part.topic {
                    break;
                }
                topic = names.next().expect("it goes round");
            }
            let partition = topic.0 as u32 * plan.cluster.partitions_per_topic + part.partition as u32;
            if part.error != 0 {
                stats.on_error(part.error);
                const OUT_OF_RANGE: i16 = 1;
                outcome = match part.error {
                    OUT_OF_RANGE => Answered::OutOfRange,
                    error if is_retriable(error) => Answered::Retry,
                    error => {
                        Answered::Refused(format!("Fetch of {}-{}: {}", topic.1, part.partition, error_name(error)))
                    }
                };
                return;
            }
            brought += part.records.len();
            self.take(partition, part.records, now, plan, stats);
        });
        match read {
            Ok(0) => {}
            Ok(error) if is_retriable(error) => {
                stats.on_error(error);
                return Answered::Retry;
            }
            Ok(error) => return Answered::Refused(format!("Fetch: {}", error_name(error))),
            Err(wire::Short) => {
                return Answered::Refused("an answer to Fetch is not as its version says".to_owned());
            }
        }
        if plan.counts(now, now) && brought > 0 {
            stats.fetches += 1;
            stats.read_bytes += brought as u64;
        }
        outcome
    }

    /// Walks the records that have come of `partition`.
    fn take(&mut self, partition: u32, records: &[u8], now: u64, plan: &Plan, stats: &mut Stats) {
        let Some(offset) = self.offsets.get_mut(&partition) else { return };
        let is_marked = plan.scenario.is_marked();
        let mut count = 0;
        for batch in batch::batches(records) {
            if batch.last_offset < *offset {
                continue;
            }
            let wanted_from = std::mem::replace(offset, batch.last_offset + 1);
            count += batch.records as u64;
            if !is_marked {
                continue;
            }
            let check = &mut self.check;
            if let Some(check) = check
                && !batch.is_whole()
            {
                check.on_damage(partition, batch.base_offset, "the batch's checksum does not fit");
                continue;
            }
            let result = batch.values(&mut self.scratch, |offset, value| {
                if offset < wanted_from {
                    return;
                }
                let mark = match check {
                    Some(check) => check.on_value(partition, offset, value),
                    None => match mark::read(value, false) {
                        mark::Read::Whole(mark) if mark.run == plan.run => Some(mark),
                        _ => None,
                    },
                };
                if let Some(mark) = mark
                    && plan.counts(mark.due, now)
                {
                    stats.on_end_to_end(now.saturating_sub(mark.due));
                }
            });
            if let (Err(why), Some(check)) = (result, check) {
                check.on_damage(partition, batch.base_offset, why);
            }
        }
        if plan.counts(now, now) {
            stats.read_records += count;
        }
        if plan.scenario.repeat && *offset >= plan.ends[partition as usize] {
            *offset = plan.starts[partition as usize];
        }
    }

    /// The log goes from `first` to `end` now: what was before is gone, and what was behind too.
    pub fn keep_within(&mut self, first: &[i64], end: &[i64]) {
        for (&partition, offset) in &mut self.offsets {
            *offset = (*offset).clamp(first[partition as usize], end[partition as usize]);
        }
    }

    /// The connection to `broker` is gone.
    pub fn lose(&mut self, broker: usize, now: u64) {
        let lane = &mut self.lanes[broker];
        lane.link.close(now);
        lane.asked = None;
    }

    /// What has become of the records of its partitions.
    pub fn verdict(&mut self, sent: &AllSent) -> Option<Verdict> {
        let mine: AllSent = sent
            .iter()
            .filter(|((partition, _), _)| self.offsets.contains_key(partition))
            .map(|(&key, sent)| (key, sent.clone()))
            .collect();
        self.check.take().map(|check| check.finish(&mine))
    }
}
