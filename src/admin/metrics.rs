//! Measures as Prometheus's text format, version 0.0.4. Pure. docs/metrics.md says what each is.
//!
//! Names follow from those of the counters: `ringlog_<group>_<name>`, times in seconds, `_total` behind what only grows.

use crate::base::error::ErrorCode;
use crate::base::histogram::Histogram;
use crate::base::measures::{ApiMeasures, ListenerMeasures, Measures, PartitionMeasures};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{Display, Write as _};

/// What the page of metrics is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, help and source of a family.
type Family<M, V> = (&'static str, &'static str, fn(&M) -> V);

/// The page. A core that did not answer has `ringlog_core_up` 0 and nothing else.
pub fn render(cores: &[Option<Measures>]) -> String {
    let mut page = Page::default();
    page.family("ringlog_build_info", "gauge", "Constant 1; the version as a label.");
    page.sample("ringlog_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("ringlog_core_up", "gauge", "Whether the core answered when it was asked.");
    for (core, measures) in cores.iter().enumerate() {
        page.sample("ringlog_core_up", &[("core", &core.to_string())], u64::from(measures.is_some()));
    }
    let present: Vec<(String, &Measures)> =
        cores.iter().enumerate().filter_map(|(core, measures)| Some((core.to_string(), measures.as_ref()?))).collect();
    counters(&mut page, &present);
    let histograms: [Family<Measures, Histogram>; 3] = [
        ("ringlog_turn_seconds", "Turns of the core's loop.", |measures| measures.turn),
        ("ringlog_journal_commit_seconds", "Journal writes, from submission to completion.", |measures| {
            measures.commit
        }),
        ("ringlog_send_seconds", "From an answer to when the socket had taken it.", |measures| measures.send),
    ];
    for (name, help, of) in histograms {
        page.family(name, "histogram", help);
        present.iter().for_each(|(core, measures)| page.histogram(name, &[("core", core)], &of(measures)));
    }
    listeners(&mut page, &present);
    apis(&mut page, &present);
    page.text
}

/// The page of partitions: where they begin and end, and what they take.
pub fn render_topics(cores: &[Option<Measures>]) -> String {
    let mut page = Page::default();
    let of_core = |(core, measures)| {
        Option::iter(measures).flat_map(|measures: &Measures| &measures.partitions).map(move |of| (core, of))
    };
    let mut all: Vec<(i64, &PartitionMeasures)> = (0..).zip(cores).flat_map(of_core).collect();
    all.sort_by(|(_, one), (_, other)| (&one.topic, one.index).cmp(&(&other.topic, other.index)));
    page.family("ringlog_partition_core", "gauge", "The core that owns it.");
    for (core, partition) in &all {
        let labels = [("topic", &*partition.topic), ("partition", &partition.index.to_string())];
        page.sample("ringlog_partition_core", &labels, *core);
    }
    let families: [Family<PartitionMeasures, i64>; 3] = [
        ("ringlog_partition_start_offset", "The first offset that is there.", |of| of.start),
        ("ringlog_partition_end_offset", "The high watermark: the offset after the last that consumers see.", |of| {
            of.end
        }),
        ("ringlog_partition_bytes", "Bytes of its segments on disk.", |of| of.bytes as i64),
    ];
    for (name, help, of) in families {
        page.family(name, "gauge", help);
        for (_, partition) in &all {
            page.sample(
                name,
                &[("topic", &partition.topic), ("partition", &partition.index.to_string())],
                of(partition),
            );
        }
    }
    page.text
}

/// The page of consumer groups: what they committed, and how far that is behind.
pub fn render_groups(cores: &[Option<Measures>]) -> String {
    let mut page = Page::default();
    let present = || cores.iter().flatten();
    let ends: HashMap<(&str, i32), i64> = present()
        .flat_map(|measures| &measures.partitions)
        .map(|partition| ((&*partition.topic, partition.index), partition.end))
        .collect();
    let mut all: Vec<_> = present().flat_map(|measures| &measures.committed).collect();
    all.sort_by(|one, other| (&one.group, &one.topic, one.index).cmp(&(&other.group, &other.topic, other.index)));
    page.family("ringlog_group_committed_offset", "gauge", "The offset that the group committed.");
    for of in &all {
        let labels = [("group", &*of.group), ("topic", &of.topic), ("partition", &of.index.to_string())];
        page.sample("ringlog_group_committed_offset", &labels, of.offset);
    }
    page.family(
        "ringlog_group_lag_records",
        "gauge",
        "Offsets between what the group committed and the high watermark.",
    );
    for of in &all {
        // A partition that is gone, or whose core does not answer, has no end to be behind of.
        if let Some(end) = ends.get(&(&*of.topic, of.index)) {
            let labels = [("group", &*of.group), ("topic", &of.topic), ("partition", &of.index.to_string())];
            page.sample("ringlog_group_lag_records", &labels, (end - of.offset).max(0));
        }
    }
    page.text
}

/// The counters of all groups: one family each, a sample for each core.
fn counters(page: &mut Page, present: &[(String, &Measures)]) {
    let groups: Vec<_> = present.iter().map(|(core, measures)| (core, measures.counters.groups())).collect();
    let Some((_, first)) = groups.first() else { return };
    for (at, (group, values)) in first.iter().enumerate() {
        for (place, (counter, _)) in values.iter().enumerate() {
            let Named { name, kind, divisor } = named(group, counter);
            page.family(&name, kind, &format!("{group} {counter}, see docs/counters.md"));
            for (core, groups) in &groups {
                let value = groups[at].1[place].1;
                let labels = [("core", core.as_str())];
                match divisor {
                    1 => page.sample(&name, &labels, value),
                    _ => page.sample(&name, &labels, value as f64 / divisor as f64),
                }
            }
        }
    }
}

/// Requests by API: how many, and where their time went.
fn listeners(page: &mut Page, present: &[(String, &Measures)]) {
    let families: [Family<ListenerMeasures, u64>; 4] = [
        ("ringlog_listener_connections", "Connections that are open.", |of| of.open_now),
        ("ringlog_listener_accepted_total", "Connections that were accepted.", |of| of.accepted),
        ("ringlog_listener_refused_total", "Connections that were closed at once.", |of| of.refused),
        ("ringlog_listener_received_bytes_total", "Bytes that were read.", |of| of.received_bytes),
    ];
    for (name, help, of) in families {
        page.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for (core, measures) in present {
            for listener in &measures.listeners {
                page.sample(name, &[("core", core), ("listener", &listener.address)], of(listener));
            }
        }
    }
}

fn apis(page: &mut Page, present: &[(String, &Measures)]) {
    page.family("ringlog_requests_total", "counter", "Requests that were begun.");
    for (core, measures) in present {
        for (api, of) in &measures.apis {
            page.sample("ringlog_requests_total", &[("core", core), ("api", api)], of.requests);
        }
    }
    page.family(
        "ringlog_request_errors_total",
        "counter",
        "Error codes in replies, one for each partition or topic that has one.",
    );
    for (core, measures) in present {
        for (api, of) in &measures.apis {
            for (&code, &count) in &of.errors {
                let error = ErrorCode::from_code(code).map_or_else(|| code.to_string(), |error| format!("{error:?}"));
                let labels = [("core", core.as_str()), ("api", api), ("error", &error)];
                page.sample("ringlog_request_errors_total", &labels, count);
            }
        }
    }
    let spans: [Family<ApiMeasures, Histogram>; 3] = [
        ("ringlog_request_queue_seconds", "From when a core knew of a request to when it began with it.", |of| {
            of.queue
        }),
        ("ringlog_request_local_seconds", "The core's own work on a request until it waited or was done.", |of| {
            of.local
        }),
        ("ringlog_request_answer_seconds", "From the begin of a request to its answer.", |of| of.answer),
    ];
    for (name, help, of) in spans {
        page.family(name, "histogram", help);
        for (core, measures) in present {
            for (api, measures) in &measures.apis {
                page.histogram(name, &[("core", core), ("api", api)], &of(measures));
            }
        }
    }
}

/// A counter as Prometheus wants it.
struct Named {
    name: String,
    kind: &'static str,
    /// From the counter's unit to the base unit.
    divisor: u64,
}

fn named(group: &str, counter: &str) -> Named {
    let is_gauge = ["_now", "_max", "limit_bytes"].iter().any(|end| counter.ends_with(end));
    let plain = counter.strip_suffix("_now").unwrap_or(counter);
    let (plain, divisor) = match plain {
        plain if plain.ends_with("_ns") => (plain.replace("_ns", "_seconds"), 1_000_000_000),
        plain if plain.contains("_us") => (plain.replace("_us", "_seconds"), 1_000_000),
        plain => (plain.to_owned(), 1),
    };
    let end = if is_gauge { "" } else { "_total" };
    Named { name: format!("ringlog_{group}_{plain}{end}"), kind: if is_gauge { "gauge" } else { "counter" }, divisor }
}

/// Groups may be named as anybody likes.
fn escaped(value: &str) -> Cow<'_, str> {
    match value.contains(['\\', '"', '\n']) {
        true => Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")),
        false => Cow::Borrowed(value),
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        writeln!(self.text, "{name}{{{}}} {value}", labels.join(",")).expect("a string takes all");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (end, count) in histogram.cumulative() {
            let end = end.map_or("+Inf".to_owned(), |ns| (ns as f64 / 1e9).to_string());
            self.sample(&bucket, &[labels, &[("le", &end)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_ns() as f64 / 1e9);
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::measures::Committed;
    use std::collections::BTreeSet;

    fn measures() -> Measures {
        let mut measures = Measures::default();
        measures.counters.turns.busy_ns = 1_500_000_000;
        measures.counters.journal.commit_us_max = 2500;
        measures.counters.connections.open_now = 7;
        measures.commit.record(1_000_000);
        let mut produce = ApiMeasures { requests: 9, ..ApiMeasures::default() };
        produce.answer.record(5_000);
        measures.apis.push(("Produce", produce));
        measures.listeners.push(ListenerMeasures {
            address: "[::1]:9092".to_owned(),
            accepted: 3,
            ..Default::default()
        });
        measures
    }

    #[test]
    fn counters_get_the_names_and_units_of_prometheus() {
        let page = render(&[Some(measures()), None]);
        for line in [
            "ringlog_turns_busy_seconds_total{core=\"0\"} 1.5",
            "# TYPE ringlog_turns_busy_seconds_total counter",
            "ringlog_journal_commit_seconds_max{core=\"0\"} 0.0025",
            "ringlog_connections_open{core=\"0\"} 7",
            "# TYPE ringlog_connections_open gauge",
            "ringlog_memory_tail_limit_bytes{core=\"0\"} 0",
            "ringlog_core_up{core=\"0\"} 1",
            "ringlog_core_up{core=\"1\"} 0",
            "ringlog_listener_accepted_total{core=\"0\",listener=\"[::1]:9092\"} 3",
            "ringlog_requests_total{core=\"0\",api=\"Produce\"} 9",
            "ringlog_journal_commit_seconds_count{core=\"0\"} 1",
            "ringlog_request_answer_seconds_bucket{core=\"0\",api=\"Produce\",le=\"+Inf\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing:\n{page}");
        }
    }

    #[test]
    fn every_family_is_declared_once_and_every_sample_belongs_to_one() {
        let page = render(&[Some(measures()), Some(measures())]);
        let mut families = BTreeSet::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let family = rest.split(' ').next().expect("a name");
                assert!(families.insert(family.to_owned()), "{family} twice");
            } else if !line.starts_with('#') {
                let name = line.split('{').next().expect("a name");
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                assert!(families.contains(name) || families.contains(base), "{line}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            }
        }
    }

    #[test]
    fn lag_is_from_the_commit_to_the_end_wherever_they_are_known() {
        let partition = |index, end| PartitionMeasures { topic: "orders".into(), index, start: 5, end, bytes: 77 };
        let committed =
            |group: &str, index, offset| Committed { group: group.into(), topic: "orders".into(), index, offset };
        let owner = Measures { partitions: vec![partition(0, 100), partition(1, 10)], ..Measures::default() };
        let coordinator = Measures {
            committed: vec![committed("a \"b\"", 0, 90), committed("a \"b\"", 1, 12), committed("a \"b\"", 7, 1)],
            ..Measures::default()
        };
        let cores = [Some(owner), None, Some(coordinator)];
        let page = render_groups(&cores);
        let samples: Vec<&str> = page.lines().filter(|line| line.starts_with("ringlog_group_lag_records{")).collect();
        let labels = |index| {
            format!("ringlog_group_lag_records{{group=\"a \\\"b\\\"\",topic=\"orders\",partition=\"{index}\"}}")
        };
        assert_eq!(samples, [format!("{} 10", labels(0)), format!("{} 0", labels(1))], "the seventh has no end");
        assert!(
            page.contains("ringlog_group_committed_offset{group=\"a \\\"b\\\"\",topic=\"orders\",partition=\"7\"} 1")
        );
        let topics = render_topics(&cores);
        assert!(topics.contains("ringlog_partition_end_offset{topic=\"orders\",partition=\"0\"} 100"), "{topics}");
        assert!(topics.contains("ringlog_partition_bytes{topic=\"orders\",partition=\"1\"} 77"));
    }

    /// docs/metrics.md names every family that is not a counter of docs/counters.md.
    #[test]
    fn every_metric_beyond_the_counters_is_documented() {
        let Ok(text) = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")) else { return };
        let all = [Some(measures())];
        let page = render(&all) + &render_topics(&all) + &render_groups(&all);
        let own = page.lines().filter(|line| line.starts_with("# HELP ") && !line.ends_with("see docs/counters.md"));
        for line in own {
            let name = line.split(' ').nth(2).expect("a name");
            assert!(text.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }

    /// What the dashboard asks for is there: a misspelt metric would only show as an empty panel.
    #[test]
    fn the_dashboard_asks_for_metrics_that_exist() {
        let Ok(dashboard) = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/grafana.json")) else {
            return;
        };
        let page = render(&[Some(measures())]);
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let mut found = 0;
        for (at, _) in dashboard.match_indices("ringlog_") {
            let name = dashboard[at..].split(|letter| !is_part(letter)).next().expect("it begins so");
            assert!(page.lines().any(|line| line.starts_with(&format!("{name}{{"))), "{name} is not served");
            found += 1;
        }
        assert!(found > 20, "{found}");
    }
}
