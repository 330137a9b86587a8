//! What a run says: a line each second, a table at the end, and a file for other programs.
//!
//! Pure. Times are µs here, as people compare them.

use crate::run::{Outcome, Second};
use crate::scenario::Scenario;
use crate::stats::Stats;
use crate::verify::Verdict;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Percentiles that are named in tables.
const NAMED: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// Latencies of one kind, µs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    /// The whole distribution as steps: percent, and the latency that so many stay within.
    pub curve: Vec<(f64, f64)>,
}

/// A second, for drawing. `None` where nothing was counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Point {
    pub at: i64,
    pub acked_mb: f64,
    pub acked_records: u64,
    pub acked_requests: u64,
    pub read_mb: f64,
    pub read_records: u64,
    pub ack_p50: Option<f64>,
    pub ack_p99: Option<f64>,
    pub ack_max: Option<f64>,
    pub end_to_end_p50: Option<f64>,
    pub end_to_end_p99: Option<f64>,
    pub end_to_end_max: Option<f64>,
}

/// Everything a run says, as `--json` writes it. Rates are per second of the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which broker, where several are compared; else the address.
    pub label: String,
    pub name: String,
    pub scenario: Scenario,
    pub machine: String,
    /// Seconds since 1970 at the end.
    pub unix_time: u64,
    pub seconds: f64,
    pub acked_mb_s: f64,
    pub acked_records_s: f64,
    pub acked_requests_s: f64,
    pub ack: Latency,
    pub read_mb_s: f64,
    pub read_records_s: f64,
    pub fetches_s: f64,
    pub end_to_end: Latency,
    /// CPU of the broker: cores busy, s a GB of values written and batches read, µs a Produce. Missing where its process is not known.
    pub broker_cores: Option<f64>,
    pub broker_s_per_gb: Option<f64>,
    pub broker_us_per_request: Option<f64>,
    pub broker_mib: Option<f64>,
    pub client_cores: f64,
    /// The slowest measured second, as a share of the median: of bytes written, or read where none were.
    pub worst_second: f64,
    /// How late this client itself was, at most, µs: with a fixed rate, what it adds to latencies.
    pub client_late_us: f64,
    pub errors: String,
    pub idle_lost: u64,
    pub unanswered: u64,
    pub is_read_short: bool,
    pub verdict: Option<Verdict>,
    pub series: Vec<Point>,
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |percent| us(histogram.value_at_percentile(percent));
    let mut curve: Vec<(f64, f64)> = Vec::new();
    for step in histogram.iter_quantiles(5) {
        let point = (step.quantile_iterated_to() * 100.0, us(step.value_iterated_to()));
        if curve.last().is_none_or(|last| *last != point) {
            curve.push(point);
        }
    }
    Latency {
        count: histogram.len(),
        mean: histogram.mean() / 1e3,
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        p9999: at(99.99),
        max: us(histogram.max()),
        curve: if histogram.is_empty() { Vec::new() } else { curve },
    }
}

fn point(second: &Second) -> Point {
    let stats = &second.stats;
    let of = |histogram: &Histogram<u64>, percent: f64| {
        (!histogram.is_empty()).then(|| us(histogram.value_at_percentile(percent)))
    };
    Point {
        at: second.at,
        acked_mb: stats.acked_bytes as f64 / 1e6,
        acked_records: stats.acked_records,
        acked_requests: stats.acked_requests,
        read_mb: stats.read_bytes as f64 / 1e6,
        read_records: stats.read_records,
        ack_p50: of(&stats.ack, 50.0),
        ack_p99: of(&stats.ack, 99.0),
        ack_max: of(&stats.ack, 100.0),
        end_to_end_p50: of(&stats.end_to_end, 50.0),
        end_to_end_p99: of(&stats.end_to_end, 99.0),
        end_to_end_max: of(&stats.end_to_end, 100.0),
    }
}

/// The slowest second as a share of the median one; 0 where there are none.
fn worst_second(series: &[Point]) -> f64 {
    let measured = series.iter().filter(|point| point.at > 0);
    let wrote = series.iter().any(|point| point.acked_mb > 0.0);
    let mut bytes: Vec<f64> = measured.map(|point| if wrote { point.acked_mb } else { point.read_mb }).collect();
    bytes.sort_by(f64::total_cmp);
    match bytes.get(bytes.len() / 2) {
        Some(&median) if median > 0.0 => bytes[0] / median,
        _ => 0.0,
    }
}

impl Report {
    #[must_use]
    pub fn new(label: &str, name: &str, scenario: &Scenario, outcome: &Outcome) -> Report {
        let (total, seconds) = (&outcome.total, outcome.measured_seconds);
        let gigabytes = (total.acked_bytes + total.read_bytes) as f64 / 1e9;
        let series: Vec<Point> = outcome.seconds.iter().map(point).collect();
        let per = |amount: f64| move |cpu: f64| (amount > 0.0).then(|| cpu / amount);
        Report {
            label: label.to_owned(),
            name: name.to_owned(),
            scenario: scenario.clone(),
            machine: crate::host::description(),
            unix_time: (crate::host::wall_ms() / 1000) as u64,
            seconds,
            acked_mb_s: total.acked_bytes as f64 / 1e6 / seconds,
            acked_records_s: total.acked_records as f64 / seconds,
            acked_requests_s: total.acked_requests as f64 / seconds,
            ack: latency(&total.ack),
            read_mb_s: total.read_bytes as f64 / 1e6 / seconds,
            read_records_s: total.read_records as f64 / seconds,
            fetches_s: total.fetches as f64 / seconds,
            end_to_end: latency(&total.end_to_end),
            broker_cores: outcome.broker_cpu.map(|cpu| cpu / seconds),
            broker_s_per_gb: outcome.broker_cpu.and_then(per(gigabytes)),
            broker_us_per_request: outcome.broker_cpu.and_then(per(total.acked_requests as f64 / 1e6)),
            broker_mib: outcome.broker_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            client_cores: outcome.client_cpu / seconds,
            worst_second: worst_second(&series),
            client_late_us: us(total.late_max),
            errors: total.errors_text(),
            idle_lost: total.idle_disconnects,
            unanswered: outcome.unanswered,
            is_read_short: outcome.is_read_short,
            verdict: outcome.verdict.clone(),
            series,
        }
    }

    /// Whether the run is a failure: something was lost or wrong, or a verdict could not be had.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match &self.verdict {
            Some(verdict) => !verdict.is_clean(),
            None => self.scenario.verify,
        }
    }

    /// The table at the end.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| writeln!(out, "{name:<22}{value}").expect("a string takes all");
        line("scenario", format!("{} on {}, {:.1} s", self.name, self.label, self.seconds));
        if self.scenario.producers > 0 {
            line(
                "acknowledged",
                format!(
                    "{} MB/s, {} records/s, {} requests/s; slowest second {:.0} % of the median",
                    number(self.acked_mb_s),
                    number(self.acked_records_s),
                    number(self.acked_requests_s),
                    self.worst_second * 100.0
                ),
            );
        }
        if self.scenario.consumers > 0 {
            let (mb, records, answers) = (number(self.read_mb_s), number(self.read_records_s), number(self.fetches_s));
            line("read", format!("{mb} MB/s, {records} records/s, {answers} answers/s"));
        }
        let kinds = [("acknowledged after", &self.ack), ("end to end", &self.end_to_end)];
        for (name, latency) in kinds.into_iter().filter(|(_, latency)| latency.count > 0) {
            line(name, latency.text());
        }
        if let Some(cores) = self.broker_cores {
            let mut text = format!("{:.0} % of a core", cores * 100.0);
            for (value, unit) in [(self.broker_s_per_gb, "s/GB"), (self.broker_us_per_request, "µs/request")] {
                if let Some(value) = value {
                    write!(text, ", {value:.2} {unit}").expect("a string takes all");
                }
            }
            if let Some(mib) = self.broker_mib {
                write!(text, "; {mib:.0} MiB resident").expect("a string takes all");
            }
            line("broker CPU", text);
        }
        let mut client = format!("{:.0} % of a core", self.client_cores * 100.0);
        if self.scenario.is_open_loop() {
            write!(client, "; late by up to {} µs", number(self.client_late_us)).expect("a string takes all");
        }
        line("this client", client);
        if !self.errors.is_empty() {
            line("errors", self.errors.clone());
        }
        if self.scenario.idle_connections + self.scenario.slow_connections > 0 {
            line("idle connections", format!("{} lost", self.idle_lost));
        }
        if self.unanswered > 0 {
            line("unanswered", format!("{} records had no answer when the run gave up", self.unanswered));
        }
        if self.is_read_short {
            line("not read", "consumers did not get to the end of the log in time".to_owned());
        }
        if self.scenario.verify {
            line("verdict", self.verdict_text());
        }
        out
    }

    fn verdict_text(&self) -> String {
        let Some(verdict) = &self.verdict else {
            return "none: the broker was not back, or not read to its end, in time (patience_seconds)".to_owned();
        };
        let mut text = format!(
            "{}: {} read, {} lost, {} doubled, {} out of order, {} damaged",
            if verdict.is_clean() { "clean" } else { "FAULTS" },
            verdict.seen,
            verdict.lost,
            verdict.doubled,
            verdict.reordered,
            verdict.damaged
        );
        if verdict.unanswered > 0 {
            write!(text, ", {} never acknowledged nor read", verdict.unanswered).expect("a string takes all");
        }
        for example in &verdict.examples {
            write!(text, "\n{:22}{example}", "").expect("a string takes all");
        }
        text
    }
}

impl Latency {
    fn text(&self) -> String {
        let values = [self.p50, self.p90, self.p99, self.p999, self.p9999, self.max];
        let parts: Vec<String> = NAMED
            .iter()
            .zip(values)
            .map(|(percent, value)| match *percent {
                100.0 => format!("max {}", number(value)),
                percent => format!("p{percent} {}", number(value)),
            })
            .collect();
        parts.join("  ") + " µs"
    }
}

/// A number as people read it: three figures, thousands apart.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = if value >= 100.0 || value == 0.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A second as it ends.
#[must_use]
pub fn progress(second: &Second, scenario: &Scenario) -> String {
    let stats: &Stats = &second.stats;
    let mut out = if second.at > 0 { format!("{:>5} s", second.at) } else { "warm-up".to_owned() };
    if scenario.producers > 0 {
        let (records, mb) = (number(stats.acked_records as f64), number(stats.acked_bytes as f64 / 1e6));
        write!(out, "  {records} records  {mb} MB").expect("a string takes all");
    }
    if scenario.consumers > 0 {
        write!(out, "  read {} MB", number(stats.read_bytes as f64 / 1e6)).expect("a string takes all");
    }
    for (name, histogram) in [("ack", &stats.ack), ("end to end", &stats.end_to_end)] {
        if !histogram.is_empty() {
            let at = |percent| number(us(histogram.value_at_percentile(percent)));
            write!(out, "  {name} p50 {} p99 {} max {} µs", at(50.0), at(99.0), at(100.0)).expect("a string takes all");
        }
    }
    let errors = stats.errors_text();
    if !errors.is_empty() {
        write!(out, "  {errors}").expect("a string takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn numbers_are_grouped_and_short() {
        for (value, text) in
            [(0.0, "0"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1\u{202f}234"), (1e6, "1\u{202f}000\u{202f}000")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn latencies_are_those_of_the_histogram() {
        let mut times = histogram();
        (1..=10_000u64).for_each(|us| times.record(us * 1000).expect("in range"));
        let latency = latency(&times);
        for (found, expected) in
            [(latency.p50, 5000.0), (latency.p99, 9900.0), (latency.p9999, 9999.0), (latency.max, 10_000.0)]
        {
            assert!((found - expected).abs() < expected / 500.0, "{found} {expected}");
        }
        assert!(latency.curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1));
        assert!((latency.curve.last().expect("steps").0 - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_slowest_second_is_a_share_of_the_median() {
        let point = |at, acked_mb| Point { at, acked_mb, ..Point::default() };
        let series: Vec<Point> = [(0, 1.0), (1, 10.0), (2, 8.0), (3, 12.0)].map(|(at, mb)| point(at, mb)).to_vec();
        assert_eq!(worst_second(&series), 0.8, "the warm-up does not count");
        assert_eq!(worst_second(&[]), 0.0);
    }
}
