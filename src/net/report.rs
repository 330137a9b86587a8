//! The counters of all cores: on stderr when SIGUSR1 asks for them and at an orderly stop, and for `admin` whenever it is asked. And what
//! `admin` wants to have changed, on its way to the controller's core and back.
//!
//! Each core takes its own at the end of a turn and sends them; who asked writes them, since whoever reads them may be slow.

use crate::admin::Source;
use crate::base::counters::CoreCounters;
use crate::base::error::ErrorCode;
use crate::base::ids::CoreIndex;
use crate::base::measures::Measures;
use crate::runtime::doorbell::Doorbell;
use crate::shard::control::{CONTROLLER_CORE, Control, Controlled};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the main thread waits for a core that is asked for its counters. One that takes longer hangs in a turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a move may take: everything that is not in the segments yet is written first.
const MOVE_PATIENCE: Duration = Duration::from_secs(30);
/// Number of the report that a core gives unasked, when it has stopped.
const LAST: u32 = u32::MAX;

/// What the main thread wants of the cores. They look at it once a turn.
#[derive(Default)]
pub struct Orders {
    /// The process is to end.
    stop: AtomicBool,
    /// Number of the report that was asked for last.
    report: AtomicU32,
    /// It is to hold partitions and groups.
    detailed: AtomicBool,
    /// `asks` is not empty, so that the core need not lock it to know.
    asked: AtomicBool,
    /// For the controller's core.
    asks: Mutex<Vec<Ask>>,
}

/// A change that is asked for, and where the answer goes.
struct Ask {
    control: Control,
    answer: Sender<Controlled>,
}

impl Orders {
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

struct Report {
    number: u32,
    core: CoreIndex,
    measures: Box<Measures>,
}

/// A core's end: knows whether a report is due, and sends it.
pub struct Reporter {
    core: CoreIndex,
    orders: Arc<Orders>,
    reports: Sender<Report>,
    given: u32,
    next_ask: u64,
    /// Who waits for an answer of the controller.
    asking: HashMap<u64, Sender<Controlled>>,
}

impl Reporter {
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Whether a report is wanted that was not given yet; true once for each.
    pub fn is_asked(&mut self) -> bool {
        let asked = self.orders.report.load(Ordering::Acquire);
        std::mem::replace(&mut self.given, asked) != asked
    }

    /// Whether it is to hold partitions and groups.
    pub fn is_detailed(&self) -> bool {
        self.orders.detailed.load(Ordering::Relaxed)
    }

    /// Answers the report that was asked for.
    pub fn give(&self, measures: Measures) {
        self.send(self.given, measures);
    }

    /// The changes asked for since, each with the number by which it is answered; for the controller's core.
    pub fn take_asks(&mut self) -> Vec<(u64, Control)> {
        let is_asked = self.core == CONTROLLER_CORE && self.orders.asked.load(Ordering::Relaxed);
        if !is_asked || !self.orders.asked.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let asks = std::mem::take(&mut *self.orders.asks.lock().expect("nobody panics holding it"));
        let numbered = asks.into_iter().map(|Ask { control, answer }| {
            self.next_ask += 1;
            self.asking.insert(self.next_ask, answer);
            (self.next_ask, control)
        });
        numbered.collect()
    }

    /// Tells who asked for a change what became of it.
    pub fn tell(&mut self, number: u64, controlled: Controlled) {
        if let Some(answer) = self.asking.remove(&number) {
            // Whoever asked may have lost patience.
            let _ = answer.send(controlled);
        }
    }

    /// The core has stopped: these are its last.
    pub fn give_last(&self, measures: Measures) {
        self.send(LAST, measures);
    }

    fn send(&self, number: u32, measures: Measures) {
        // Nobody listens any more where the process is already ending without this core.
        let _ = self.reports.send(Report { number, core: self.core, measures: Box::new(measures) });
    }
}

/// The end of those who ask: the main thread and the admin thread.
pub struct Desk {
    orders: Arc<Orders>,
    doorbells: Vec<Doorbell>,
    sender: Sender<Report>,
    /// Whoever asks holds it until all have answered.
    reports: Mutex<Receiver<Report>>,
}

impl Desk {
    pub fn new() -> Desk {
        let (sender, reports) = channel();
        Desk { orders: Arc::default(), doorbells: Vec::new(), sender, reports: Mutex::new(reports) }
    }

    /// The end of the next core, which is woken by `doorbell`.
    pub fn reporter(&mut self, doorbell: Doorbell) -> Reporter {
        let core = CoreIndex(self.doorbells.len() as u16);
        self.doorbells.push(doorbell);
        let (orders, reports) = (self.orders.clone(), self.sender.clone());
        Reporter { core, orders, reports, given: 0, next_ask: 0, asking: HashMap::new() }
    }

    /// Tells all cores to stop.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.doorbells.iter().for_each(Doorbell::ring);
    }

    /// Asks all cores for their counters and writes them to stderr.
    pub fn show(&self) {
        write(&self.measures(false));
    }

    /// Writes what the cores that have stopped counted last.
    pub fn show_last(&self) {
        let mut found = vec![None; self.doorbells.len()];
        let reports = self.reports.lock().expect("nobody panics holding it");
        for report in reports.try_iter().filter(|report| report.number == LAST) {
            found[usize::from(report.core.0)] = Some(*report.measures);
        }
        write(&found);
    }
}

impl Source for Desk {
    /// Asks all cores; `None` for one that does not answer within 2 s, or has stopped.
    fn measures(&self, detailed: bool) -> Vec<Option<Measures>> {
        let reports = self.reports.lock().expect("nobody panics holding it");
        let mut found = vec![None; self.doorbells.len()];
        if self.orders.stops() {
            // What still comes is for `show_last`.
            return found;
        }
        self.orders.detailed.store(detailed, Ordering::Relaxed);
        // Release: a core that sees the number sees what is asked for, too.
        let number = self.orders.report.fetch_add(1, Ordering::Release) + 1;
        self.doorbells.iter().for_each(Doorbell::ring);
        let deadline = Instant::now() + PATIENCE;
        while found.iter().any(Option::is_none) {
            let Ok(report) = reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                break;
            };
            // One that comes too late for its own report is left out of this one.
            if report.number == number {
                found[usize::from(report.core.0)] = Some(*report.measures);
            }
        }
        found
    }

    fn is_serving(&self) -> bool {
        !self.orders.stops()
    }

    fn move_partition(&self, topic: String, partition: i32, core: CoreIndex) -> Result<(), (ErrorCode, String)> {
        if self.orders.stops() {
            return Err((ErrorCode::UnknownServerError, "The broker stops.".to_owned()));
        }
        let (sender, answer) = channel();
        let control = Control::MovePartition { topic, partition, core };
        self.orders.asks.lock().expect("nobody panics holding it").push(Ask { control, answer: sender });
        // Release: a core that sees the flag sees what is asked, too.
        self.orders.asked.store(true, Ordering::Release);
        self.doorbells[usize::from(CONTROLLER_CORE.0)].ring();
        match answer.recv_timeout(MOVE_PATIENCE) {
            Ok(Controlled::Failed(refusal)) => Err((refusal.code, refusal.message)),
            Ok(_) => Ok(()),
            Err(_) => {
                let message =
                    format!("No answer within {} s: /metrics/topics tells where it is.", MOVE_PATIENCE.as_secs());
                Err((ErrorCode::RequestTimedOut, message))
            }
        }
    }
}

/// In one piece, so that no line of the log comes between.
fn write(found: &[Option<Measures>]) {
    // Nobody may be reading stderr; the broker serves all the same.
    let _ = std::io::stderr().write_all(render(found).as_bytes());
}

/// A line for each group of each core, and one that ends the report.
fn render(found: &[Option<Measures>]) -> String {
    let mut text = String::new();
    for (core, measures) in found.iter().enumerate() {
        match measures {
            Some(measures) => render_core(&mut text, core, &measures.counters),
            None => line(&mut text, format_args!("counters core={core}: no answer")),
        }
    }
    line(&mut text, format_args!("counters shown cores={}", found.len()));
    text
}

fn render_core(text: &mut String, core: usize, counters: &CoreCounters) {
    for (group, mut values) in counters.groups() {
        if group == "journal" {
            let journal = counters.journal;
            values.push(("commit_us_mean", journal.commit_ns / 1000 / journal.commits.max(1)));
        }
        let values: Vec<String> = values.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        line(text, format_args!("counters core={core} {group}: {}", values.join(" ")));
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_every_core_has_its_line() {
        let mut counters = CoreCounters::default();
        counters.turns.turns = 7;
        counters.journal.commits = 2;
        counters.journal.commit_ns = 9_000;
        counters.sent.direct_sends = 3;
        let text = render(&[Some(Measures { counters, ..Measures::default() }), None]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), counters.groups().len() + 2);
        assert!(lines[0].starts_with("counters core=0 turns: turns=7 busy_ns=0 "), "{text}");
        let journal = lines.iter().find(|line| line.starts_with("counters core=0 journal: ")).expect("a journal");
        assert!(journal.contains(" commits=2 ") && journal.ends_with(" commit_us_mean=4"), "{journal}");
        assert!(text.contains(" direct_sends=3\n"));
        assert_eq!(lines[lines.len() - 2..], ["counters core=1: no answer", "counters shown cores=2"]);
    }

    #[test]
    fn a_report_is_asked_of_a_core_once() {
        let mut desk = Desk::new();
        let mut reporter = desk.reporter(Doorbell::new().expect("an eventfd"));
        assert!(!reporter.is_asked());
        desk.orders.report.fetch_add(1, Ordering::Relaxed);
        assert!(reporter.is_asked());
        assert!(!reporter.is_asked());
    }
}
