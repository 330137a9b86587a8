//! The load generator against a broker: every scenario that it has, a verified run through a crash, and a broker that forgets.
//!
//! How fast anything is, is not asked here.

mod support;

use ringlog_loadgen::page::page;
use ringlog_loadgen::report::Report;
use ringlog_loadgen::run::{Options as LoadOptions, run};
use ringlog_loadgen::scenario::{BUILT_IN, Scenario};
use support::clients::until;
use support::{Broker, Options};

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs of a scenario before it is said to measure nothing.
const RUNS_MAX: usize = 20;

/// The scenario as it is, but short, and small enough for a machine that does other things meanwhile.
fn scenario(name: &str, overrides: &[&str]) -> Scenario {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Scenario::load(name, &overrides).expect("a built-in scenario").1
}

fn load(broker: &str, name: &str, scenario: &Scenario, on_second: impl FnMut()) -> Result<Report, String> {
    let options = LoadOptions { brokers: broker.to_owned(), ..LoadOptions::default() };
    let mut on_second = on_second;
    let outcome = run(name, scenario, &options, |_| on_second())?;
    Ok(Report::new("ringlog", name, scenario, &outcome))
}

#[test]
fn every_scenario_runs_and_its_page_holds_what_it_measured() {
    // To a client these are two brokers.
    let broker = Broker::start(Options { settings: "core.listeners.port = 0\n".to_owned(), ..Options::default() });
    for (name, _) in BUILT_IN {
        let mut scenario = scenario(name, &["seconds=1", "warmup_seconds=0.2"]);
        scenario.partitions = scenario.partitions.min(200);
        scenario.producers = scenario.producers.min(50);
        scenario.rate = scenario.rate.min(2000.0);
        scenario.prefill_mb = scenario.prefill_mb.min(10.0);
        scenario.idle_connections = scenario.idle_connections.min(100);
        scenario.slow_connections = scenario.slow_connections.min(20);
        // A disk may stand still for longer than the run takes: that is no answer yet, and the next run has another second.
        scenario.patience_seconds = 100.0;
        let measured = |report: &Report| {
            (scenario.producers == 0 || report.acked_records_s > 0.0)
                && (scenario.consumers == 0 || report.read_records_s > 0.0)
        };
        let mut runs = (0..RUNS_MAX).map(|_| {
            let report = load(broker.address(), name, &scenario, || ()).expect(name);
            assert_eq!(report.errors, "", "{name}");
            let left = (report.unanswered, report.is_read_short, report.idle_lost);
            if left != (0, false, 0) {
                // They are in the broker's log then, which a failure shows.
                broker.counters();
            }
            assert_eq!(left, (0, false, 0), "{name}: {}\n{:?}", report.table(), report.series);
            report
        });
        let report = runs.find(measured).expect(name);
        drop(runs);
        assert_eq!(report.acked_records_s > 0.0, scenario.producers > 0, "{name}: {}", report.table());
        assert_eq!(report.read_records_s > 0.0, scenario.consumers > 0, "{name}: {}", report.table());
        if name == &"end-to-end" {
            assert!(report.end_to_end.count > 0 && report.end_to_end.p50 > 0.0, "{}", report.table());
        }
        assert!(!report.is_failure(), "{name}: {}", report.table());
        let page = page(&[report.clone(), report]);
        assert!(page.contains("<polyline") && page.contains(&scenario.shows), "{name}");
        assert!(!page.contains("NaN") && !page.contains("http://") && !page.contains("https://"), "{name}");
    }
}

#[test]
fn every_compression_and_several_topics_and_threads_are_verified() {
    let broker = Broker::start(Options::default());
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let compression = format!("compression={compression}");
        let changes = [
            "seconds=0.5",
            "warmup_seconds=0",
            "rate=5000",
            "topics=3",
            "partitions=4",
            "threads=2",
            "groups=2",
            &compression,
        ];
        let scenario = scenario("verify", &changes);
        let report = load(broker.address(), "verify", &scenario, || ()).expect("a run");
        let verdict = report.verdict.as_ref().expect("a verdict");
        assert!(verdict.is_clean() && verdict.seen > 0 && verdict.unanswered == 0, "{compression}: {}", report.table());
        // Each group sees each record.
        assert!(verdict.seen.is_multiple_of(2), "{}", report.table());
    }
}

#[test]
fn a_verified_run_is_clean_though_its_broker_is_killed_and_started_again() {
    let mut broker = Broker::start(Options::default());
    let address = broker.address().to_owned();
    let seconds = AtomicU64::new(0);
    let scenario = scenario("verify", &["seconds=6", "warmup_seconds=0", "rate=3000", "producers=4"]);
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| load(&address, "verify", &scenario, || _ = seconds.fetch_add(1, Ordering::Relaxed)));
        for second in [1, 3] {
            until("the run is under way", || (seconds.load(Ordering::Relaxed) >= second).then_some(()));
            broker.kill9();
            broker.restart();
        }
        run.join().expect("it does not panic").expect("a run")
    });
    assert!(report.errors.contains("connection lost"), "it was not noticed at all: {}", report.table());
    let verdict = report.verdict.as_ref().expect("a verdict");
    assert!(verdict.is_clean() && verdict.seen > 1000, "{}", report.table());
}

#[test]
fn a_broker_that_forgets_is_no_clean_run() {
    let mut broker = Broker::start(Options::default());
    let address = broker.address().to_owned();
    let seconds = AtomicU64::new(0);
    let changes = ["seconds=4", "warmup_seconds=0", "rate=1000", "idempotent=false", "patience_seconds=3"];
    let scenario = scenario("verify", &changes);
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| load(&address, "verify", &scenario, || _ = seconds.fetch_add(1, Ordering::Relaxed)));
        until("the run is under way", || (seconds.load(Ordering::Relaxed) >= 1).then_some(()));
        broker.kill9();
        // All that was acknowledged is gone, and the topic with it.
        std::fs::remove_dir_all(broker.data_dir()).expect("it is there");
        broker.restart();
        run.join().expect("it does not panic")
    });
    match report {
        Ok(report) => assert!(report.is_failure(), "{}", report.table()),
        Err(why) => assert!(!why.is_empty()),
    }
}

#[test]
fn a_broker_that_keeps_nothing_acknowledges_what_is_produced() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    // Serves until the process of the tests ends.
    std::thread::spawn(move || ringlog_loadgen::null::serve(&listener, None));
    for change in ["idempotent=false", "idempotent=true"] {
        let scenario = scenario("request-rate", &["seconds=1", "warmup_seconds=0.2", "producers=50", change]);
        let report = load(&address, "request-rate", &scenario, || ()).expect("it runs");
        assert!(report.acked_records_s > 0.0 && report.errors.is_empty(), "{}", report.table());
        assert!(!report.is_failure(), "{}", report.table());
    }
}

#[test]
fn what_the_null_broker_keeps_is_read_back_whole() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    // Serves until the process of the tests ends.
    std::thread::spawn(move || ringlog_loadgen::null::serve(&listener, Some(std::env::temp_dir())));
    let changes = ["seconds=1", "warmup_seconds=0.2", "prefill_mb=20"];
    let report = load(&address, "catch-up", &scenario("catch-up", &changes), || ()).expect("it runs");
    assert!(report.read_mb_s > 0.0 && report.errors.is_empty(), "{}", report.table());
}

#[test]
fn what_cannot_be_run_is_said_before_it_is_tried() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = load(&free.to_string(), "produce", &scenario("produce", &[]), || ()).expect_err("nobody listens");
    assert!(error.contains("is the broker running?"), "{error}");
    let broker = Broker::start(Options::default());
    let refused = scenario("produce", &["topic_config.no.such.key=1"]);
    let error = load(broker.address(), "produce", &refused, || ()).expect_err("the broker refuses");
    assert!(error.contains("no.such.key") || error.contains("InvalidConfig"), "{error}");
}
