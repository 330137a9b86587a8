//! A run: topics, threads, phases, and what came of it.

use crate::admin::{self, Admin, Cluster};
use crate::host::{self, Clock};
use crate::keys::Keys;
use crate::plan::{Control, Phase, Plan, TICK_NS, Times};
use crate::scenario::{Scenario, Start};
use crate::stats::Stats;
use crate::verify::{AllSent, Verdict};
use crate::worker::{self, Report};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads start their load together, so long after they were made.
const HEAD_START_NS: u64 = 20_000_000;
/// Prefilling ends when it ends.
const FOR_EVER_NS: u64 = u64::MAX / 4;
/// Files this process needs besides connections.
const FILES_BESIDES: u64 = 64;

/// Where and how a scenario runs; none of it changes what the load is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// HOST:PORT, several with commas between.
    pub brokers: String,
    /// CPUs for the threads, in turn; empty: the last ones this process may use.
    pub cpus: Vec<usize>,
    /// The broker's process, where it is on this machine; found by its port where it is not said.
    pub pid: Option<u32>,
    /// Leaves the topic that was made.
    pub keep_topic: bool,
}

/// A second of a run.
#[derive(Clone)]
pub struct Second {
    /// From when measuring began; negative in the warm-up.
    pub at: i64,
    pub stats: Stats,
}

/// What came of a run.
pub struct Outcome {
    pub seconds: Vec<Second>,
    /// All that counts together.
    pub total: Stats,
    /// How long it took, s.
    pub measured_seconds: f64,
    /// CPU time of the broker and of this client meanwhile, s.
    pub broker_cpu: Option<f64>,
    pub client_cpu: f64,
    /// Resident memory of the broker at the end.
    pub broker_bytes: Option<u64>,
    /// Records that nobody had answered for when the run gave up waiting.
    pub unanswered: u64,
    /// Consumers that did not get to the end of the log in time.
    pub is_read_short: bool,
    pub verdict: Option<Verdict>,
}

/// Runs `scenario`; `progress` gets each second as it ends.
///
/// # Errors
/// What went wrong, in words.
pub fn run(
    name: &str,
    scenario: &Scenario,
    options: &Options,
    mut progress: impl FnMut(&Second),
) -> Result<Outcome, String> {
    let run = fastrand::u32(1..);
    check_descriptors(scenario)?;
    let mut admin = Admin::connect(&options.brokers)?;
    let prefix = if scenario.topic.is_empty() { format!("loadgen-{name}-{run:08x}") } else { scenario.topic.clone() };
    let topics: Vec<String> = match scenario.topics {
        1 => vec![prefix],
        count => (0..count).map(|index| format!("{prefix}-{index}")).collect(),
    };
    let cluster = admin.prepare(topics, scenario)?;
    let result =
        prefill(scenario, &cluster, options).and_then(|()| load(scenario, &cluster, run, None, options, &mut progress));
    if scenario.topic.is_empty() && !options.keep_topic {
        let deleted = admin.reconnect().and_then(|()| admin.delete(&cluster.topics));
        // The figures are worth more than the topic.
        if let (Err(error), Ok(_)) = (deleted, &result) {
            eprintln!("the topic stays: {error}");
        }
    }
    result
}

fn check_descriptors(scenario: &Scenario) -> Result<(), String> {
    let connections = u64::from(scenario.producers)
        + u64::from(scenario.groups) * u64::from(scenario.consumers)
        + u64::from(scenario.idle_connections)
        + u64::from(scenario.slow_connections);
    let most = host::raise_descriptor_limit();
    if connections + FILES_BESIDES > most {
        return Err(format!("{connections} connections, and only {most} open files allowed: raise `ulimit -n`"));
    }
    Ok(())
}

/// Produces what consumers are to find there, unless the topic has it already.
fn prefill(scenario: &Scenario, cluster: &Cluster, options: &Options) -> Result<(), String> {
    let wanted = scenario.prefill_mb * 1e6;
    if wanted <= 0.0 {
        return Ok(());
    }
    let (first, end) = (admin::offsets(cluster, Start::Earliest)?, admin::offsets(cluster, Start::Latest)?);
    let records: i64 = end.iter().sum::<i64>() - first.iter().sum::<i64>();
    let missing = wanted - records as f64 * scenario.record_bytes.mean();
    if missing < wanted / 100.0 {
        return Ok(());
    }
    let batch = (256 << 10) / scenario.record_bytes.mean().max(1.0) as usize;
    let fill = Scenario {
        producers: scenario.partitions.min(8),
        consumers: 0,
        rate: 0.0,
        in_flight: 4,
        batch_records: batch.clamp(1, 10_000),
        verify: false,
        warmup_seconds: 0.0,
        idle_connections: 0,
        slow_connections: 0,
        threads: 1,
        ..scenario.clone()
    };
    load(&fill, cluster, fastrand::u32(1..), Some(missing as u64), options, &mut |_| ()).map(drop)
}

fn load(
    scenario: &Scenario,
    cluster: &Cluster,
    run: u32,
    bytes_max: Option<u64>,
    options: &Options,
    progress: &mut impl FnMut(&Second),
) -> Result<Outcome, String> {
    let clock = Clock::new();
    let partitions = cluster.leaders.len();
    let (first, latest) = match scenario.consumers {
        0 => (vec![0; partitions], vec![0; partitions]),
        _ => (admin::offsets(cluster, Start::Earliest)?, admin::offsets(cluster, Start::Latest)?),
    };
    let reads_to_the_end = scenario.start == Start::Earliest && (scenario.repeat || scenario.producers == 0);
    let producer_ids =
        if scenario.idempotent { admin::producer_ids(cluster, scenario.producers as usize)? } else { Vec::new() };
    let keys = (scenario.keys > 0).then(|| Keys::new(scenario.keys, scenario.key_skew));
    let plan = Arc::new(Plan {
        scenario: scenario.clone(),
        cluster: cluster.clone(),
        run,
        producer_ids,
        keys,
        starts: if scenario.start == Start::Earliest { first } else { latest.clone() },
        ends: if reads_to_the_end { latest } else { vec![i64::MAX; partitions] },
        bytes_max,
        clock,
        times: OnceLock::new(),
        control: Control::default(),
    });
    let pid = options.pid.or_else(|| host::listener_of(cluster.brokers[0]));
    let threads = Threads::start(&plan, options)?;
    Conductor::new(plan, threads, pid).conduct(progress)
}

/// The threads of a run, and the ways to and from them.
struct Threads {
    handles: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
    sent: Vec<Sender<Arc<AllSent>>>,
}

impl Threads {
    fn start(plan: &Arc<Plan>, options: &Options) -> Result<Threads, String> {
        let count = plan.scenario.threads;
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        let cpus: Vec<usize> = match options.cpus.is_empty() {
            false => options.cpus.clone(),
            true => allowed.iter().rev().take(count).map(|core| core.id).collect(),
        };
        let (sender, reports) = channel();
        let (mut handles, mut sent) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (plan, sender) = (plan.clone(), sender.clone());
            let (to_worker, all_sent) = channel();
            let cpu = cpus.get(index % cpus.len().max(1)).copied();
            let body = move || {
                // A CPU that may not be used is no reason to stop.
                let _ = cpu.is_none_or(|id| core_affinity::set_for_current(core_affinity::CoreId { id }));
                if let Err(why) = worker::run(plan.clone(), index as u32, count as u32, &sender, &all_sent) {
                    plan.control.fail(why);
                }
            };
            let handle = std::thread::Builder::new().name(format!("load-{index}")).spawn(body);
            handles.push(handle.map_err(|error| format!("a thread: {error}"))?);
            sent.push(to_worker);
        }
        Ok(Threads { handles, reports, sent })
    }
}

/// Leads the threads through the phases of a run and gathers what they report.
struct Conductor {
    plan: Arc<Plan>,
    threads: Threads,
    pid: Option<u32>,
    /// Ticks that not all threads have reported, and how many have.
    open: BTreeMap<u64, (usize, Stats)>,
    seconds: Vec<Second>,
    total: Stats,
    sent: AllSent,
    connected: usize,
    producers_done: usize,
    readers_done: usize,
    unanswered: u64,
    verdict: Option<Verdict>,
}

impl Conductor {
    fn new(plan: Arc<Plan>, threads: Threads, pid: Option<u32>) -> Conductor {
        Conductor {
            plan,
            threads,
            pid,
            open: BTreeMap::new(),
            seconds: Vec::new(),
            total: Stats::default(),
            sent: AllSent::new(),
            connected: 0,
            producers_done: 0,
            readers_done: 0,
            unanswered: 0,
            verdict: None,
        }
    }

    fn conduct(mut self, progress: &mut impl FnMut(&Second)) -> Result<Outcome, String> {
        let plan = self.plan.clone();
        let (scenario, count, clock) = (&plan.scenario, plan.scenario.threads, plan.clock);
        self.gather(FOR_EVER_NS, progress, |conductor| conductor.connected == count);
        let start = clock.now() + HEAD_START_NS;
        let begin = start + (scenario.warmup_seconds * 1e9) as u64;
        let end = if plan.bytes_max.is_some() { FOR_EVER_NS } else { begin + (scenario.seconds * 1e9) as u64 };
        plan.times.set(Times { start, begin, end }).expect("set here alone");
        self.gather(begin, progress, |_| false);
        let (broker_before, client_before) = (self.broker_cpu(), client_cpu());
        let began = clock.now();
        let only_reads = scenario.producers == 0;
        self.gather(end, progress, |conductor| match plan.bytes_max {
            Some(_) => conductor.producers_done == count,
            None => only_reads && conductor.readers_done == count,
        });
        let measured_seconds = (clock.now() - began) as f64 / 1e9;
        let broker_cpu = self.broker_cpu().zip(broker_before).map(|(after, before)| after - before);
        let client_cpu = client_cpu() - client_before;
        let broker_bytes = self.pid.and_then(host::resident_bytes);

        let patience = Duration::from_secs_f64(scenario.patience_seconds);
        let mut is_read_short = false;
        if !only_reads {
            plan.control.advance(Phase::Draining);
            self.gather(deadline(clock, patience), progress, |conductor| conductor.producers_done == count);
        }
        if scenario.is_marked() {
            is_read_short = self.read_to_the_end(patience, progress);
        }
        let sent = Arc::new(std::mem::take(&mut self.sent));
        if scenario.verify && self.producers_done == count && !is_read_short {
            for to_worker in &self.threads.sent {
                // A thread that has ended has said why.
                let _ = to_worker.send(sent.clone());
            }
        }
        plan.control.advance(Phase::Stopped);
        for handle in std::mem::take(&mut self.threads.handles) {
            handle.join().map_err(|_| "a thread of the load panicked".to_owned())?;
        }
        self.gather(clock.now(), progress, |_| false);
        if let Some(why) = plan.control.failure() {
            return Err(why);
        }
        Ok(Outcome {
            seconds: self.seconds,
            total: self.total,
            measured_seconds,
            broker_cpu,
            client_cpu,
            broker_bytes,
            unanswered: self.unanswered,
            is_read_short,
            verdict: self.verdict,
        })
    }

    /// Has consumers read up to where the log ends now that producers are done; true where they did not get there.
    fn read_to_the_end(&mut self, patience: Duration, progress: &mut impl FnMut(&Second)) -> bool {
        let plan = self.plan.clone();
        let until = Instant::now() + patience;
        // The broker may be away just now.
        let targets = loop {
            match admin::offsets(&plan.cluster, Start::Latest) {
                Ok(targets) => break targets,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                Err(_) => return true,
            }
        };
        plan.control.targets.set(targets).expect("set here alone");
        self.readers_done = 0;
        plan.control.advance(Phase::Reading);
        // Threads without consumers have nothing to say.
        let readers = (plan.scenario.groups * plan.scenario.consumers) as usize;
        let count = plan.scenario.threads.min(readers);
        self.gather(deadline(plan.clock, patience), progress, |conductor| conductor.readers_done == count);
        self.readers_done < count
    }

    fn broker_cpu(&self) -> Option<f64> {
        self.pid.and_then(host::cpu_time).map(|time| time.as_secs_f64())
    }

    /// Takes reports until the run's clock shows `until`, or `is_enough`, or the run has failed.
    fn gather(&mut self, until: u64, progress: &mut impl FnMut(&Second), is_enough: impl Fn(&Conductor) -> bool) {
        let clock = self.plan.clock;
        loop {
            let now = clock.now();
            let left = Duration::from_nanos(until.saturating_sub(now).min(TICK_NS / 10));
            match self.threads.reports.recv_timeout(left) {
                Ok(report) => self.take(report, progress),
                Err(RecvTimeoutError::Timeout) if now >= until => return,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let is_stopped = self.plan.control.failure().is_some() && !self.threads.handles.is_empty();
            if is_enough(self) || is_stopped {
                return;
            }
        }
    }

    fn take(&mut self, report: Report, progress: &mut impl FnMut(&Second)) {
        match report {
            Report::Tick(tick, stats) => self.take_tick(tick, &stats, progress),
            Report::ProducersDone(sent) => {
                self.producers_done += 1;
                self.sent.extend(sent);
            }
            Report::Connected => self.connected += 1,
            Report::ReadersDone => self.readers_done += 1,
            Report::Ended { rest, unanswered, verdict } => {
                self.total.add(&rest);
                self.unanswered += unanswered;
                if let Some(verdict) = verdict {
                    self.verdict.get_or_insert_default().add(verdict);
                }
            }
        }
    }

    fn take_tick(&mut self, tick: u64, stats: &Stats, progress: &mut impl FnMut(&Second)) {
        let warmup = self.plan.warmup_ticks();
        if tick > warmup {
            self.total.add(stats);
        }
        let (threads, sum) = self.open.entry(tick).or_default();
        *threads += 1;
        sum.add(stats);
        // What comes in after the end is in the total, and no second of the run.
        let is_within = self.plan.tick_end(tick) <= self.plan.times().end;
        if *threads == self.plan.scenario.threads
            && let Some((_, stats)) = self.open.remove(&tick)
            && is_within
        {
            let second = Second { at: tick as i64 - warmup as i64, stats };
            progress(&second);
            self.seconds.push(second);
        }
    }
}

fn deadline(clock: Clock, patience: Duration) -> u64 {
    clock.now() + patience.as_nanos() as u64
}

fn client_cpu() -> f64 {
    host::cpu_time(std::process::id()).map_or(0.0, |time| time.as_secs_f64())
}
