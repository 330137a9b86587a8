//! `ringlog-loadgen`: runs a scenario against a broker, and draws what came of it.

use clap::{Parser, Subcommand};
use ringlog_loadgen::null::serve;
use ringlog_loadgen::page::page;
use ringlog_loadgen::report::{Report, number, progress};
use ringlog_loadgen::run::{Options, run};
use ringlog_loadgen::scenario::{BUILT_IN, Scenario};
use ringlog_loadgen::sweep::{Bound, Measured, sweep};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Records a second that a sweep tries first, where the scenario has no rate.
const SWEEP_FIRST: f64 = 1000.0;

/// Loads any broker that speaks Kafka's protocol, and says what it saw.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario against a broker.
    ///
    /// Exit code 0: it ran (and was clean, where it verifies). 1: it could not run. 2: bad arguments. 3: records were lost, doubled,
    /// out of order or damaged, or no verdict could be had.
    Run {
        /// A built-in scenario (see `list`) or a TOML file.
        scenario: String,
        /// Keys of the scenario to change, e.g. rate=1000 record_bytes=100-2000 (see `keys`).
        overrides: Vec<String>,
        /// HOST:PORT of a broker; several with commas between.
        #[arg(long, short, default_value = "127.0.0.1:9092")]
        brokers: String,
        /// Name of the broker in tables and pages; the address otherwise.
        #[arg(long)]
        label: Option<String>,
        /// CPUs for the threads of the load, e.g. 1 or 1,3; the last ones allowed otherwise.
        #[arg(long, value_delimiter = ',')]
        cpus: Vec<usize>,
        /// The broker's process, for its CPU time; found by its port where it runs on this machine.
        #[arg(long)]
        pid: Option<u32>,
        /// Leaves the topic that the run made.
        #[arg(long)]
        keep_topic: bool,
        /// Finds the highest rate that keeps a bound on the time to the acknowledgement (end to end where there are
        /// consumers), e.g. p99=5ms.
        #[arg(long)]
        sweep: Option<Bound>,
        /// No line each second.
        #[arg(long, short)]
        quiet: bool,
        /// Writes everything to this file, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Draws a page to this file.
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Draws one page of several runs' JSON files.
    Page {
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        #[arg(long)]
        html: PathBuf,
    },
    /// A broker that keeps nothing and acknowledges at once: what a load comes to against it is the most that this client and the sockets
    /// can do. With `--keep` it serves reads too, by bare sendfile, and never waits for more to come: for loads that catch up.
    Null {
        /// HOST:PORT to listen on; port 0 takes a free one, which is printed.
        #[arg(default_value = "127.0.0.1:9092")]
        listen: String,
        /// Keeps what is produced in nameless files on the disk of this directory, unsynced, until the process ends.
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// The scenarios that are built in.
    List,
    /// A scenario with all its keys: what `run` would do.
    Keys { scenario: String, overrides: Vec<String> },
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("ringlog-loadgen: {why}");
            ExitCode::from(1)
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Run { scenario, overrides, brokers, label, cpus, pid, keep_topic, sweep, quiet, json, html } => {
            let (name, scenario) = Scenario::load(&scenario, &overrides)?;
            let label = label.unwrap_or_else(|| brokers.clone());
            let options = Options { brokers, cpus, pid, keep_topic };
            let once = |scenario: &Scenario| {
                let outcome = run(&name, scenario, &options, |second| {
                    if !quiet {
                        println!("{}", progress(second, scenario));
                    }
                })?;
                let report = Report::new(&label, &name, scenario, &outcome);
                print!("{}", report.table());
                Ok::<Report, String>(report)
            };
            let report = match sweep {
                None => once(&scenario)?,
                Some(bound) => sweep_rates(bound, &scenario, once)?,
            };
            if let Some(path) = json {
                let text = serde_json::to_string(&report).map_err(|error| error.to_string())?;
                write(&path, &text)?;
            }
            if let Some(path) = html {
                write(&path, &page(std::slice::from_ref(&report)))?;
            }
            Ok(if report.is_failure() { ExitCode::from(3) } else { ExitCode::SUCCESS })
        }
        Command::Page { reports, html } => {
            let reports = reports.iter().map(|path| read(path)).collect::<Result<Vec<Report>, String>>()?;
            write(&html, &page(&reports))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Null { listen, keep } => {
            let failed = |error: std::io::Error| format!("{listen}: {error}");
            let listener = std::net::TcpListener::bind(&listen).map_err(failed)?;
            println!("ready listen={}", listener.local_addr().map_err(failed)?);
            serve(&listener, keep).map_err(failed)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List => {
            for (name, _) in BUILT_IN {
                println!("{name:<18}{}", Scenario::load(name, &[])?.1.shows);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys { scenario, overrides } => {
            let (_, scenario) = Scenario::load(&scenario, &overrides)?;
            print!("{}", toml::to_string(&scenario).map_err(|error| error.to_string())?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the scenario at one rate after the other; returns the report of the highest that kept the bound (of the last one tried, where
/// none did).
fn sweep_rates(
    bound: Bound,
    scenario: &Scenario,
    mut once: impl FnMut(&Scenario) -> Result<Report, String>,
) -> Result<Report, String> {
    let first = if scenario.rate > 0.0 { scenario.rate } else { SWEEP_FIRST };
    let mut reports: Vec<Report> = Vec::new();
    let best = sweep(bound, first, |rate| {
        println!("\nat {} records/s:", number(rate));
        let report = once(&Scenario { rate, ..scenario.clone() })?;
        let latency = if report.end_to_end.count > 0 { &report.end_to_end } else { &report.ack };
        let us = match bound.percent {
            50.0 => latency.p50,
            90.0 => latency.p90,
            99.0 => latency.p99,
            99.9 => latency.p999,
            _ => latency.p9999,
        };
        let kept = if report.unanswered > 0 { 0.0 } else { report.acked_records_s };
        reports.push(report);
        Ok::<Measured, String>(Measured { kept, us })
    })?;
    match best {
        Some(rate) => {
            println!("\nhighest rate within p{} ≤ {} µs: {} records/s", bound.percent, number(bound.us), number(rate));
            let place = reports.iter().rposition(|report| report.scenario.rate == rate).expect("it was measured");
            Ok(reports.swap_remove(place))
        }
        None => {
            println!(
                "\nno rate from {} records/s down keeps p{} ≤ {} µs",
                number(first),
                bound.percent,
                number(bound.us)
            );
            reports.pop().ok_or_else(|| "nothing was measured".to_owned())
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}; it is no report of this version", path.display()))
}
