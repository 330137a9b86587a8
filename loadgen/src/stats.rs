//! What a run counts: by second, and all of it.

use crate::wire::error_name;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Latencies above this are counted as this, ns.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// Times in ns, kept to a thousandth.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("3 digits are within what it takes");
    histogram.auto(false);
    histogram
}

/// Counts of a stretch of time.
#[derive(Clone)]
pub struct Stats {
    /// Records, bytes of their values, and requests that were acknowledged.
    pub acked_records: u64,
    pub acked_bytes: u64,
    pub acked_requests: u64,
    /// From when a record was due (open loop) or its request was sent (closed) to its acknowledgement.
    pub ack: Histogram<u64>,
    /// Records and bytes of batches that were read, and answers that brought any.
    pub read_records: u64,
    pub read_bytes: u64,
    pub fetches: u64,
    /// From when a record was due to when a consumer had it.
    pub end_to_end: Histogram<u64>,
    /// Answers with an error, by code.
    pub errors: BTreeMap<i16, u64>,
    /// Connections that were lost, and those of them that were there only to be there.
    pub disconnects: u64,
    pub idle_disconnects: u64,
    /// How late this client itself was to send a record, at most, ns.
    pub late_max: u64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            acked_records: 0,
            acked_bytes: 0,
            acked_requests: 0,
            ack: histogram(),
            read_records: 0,
            read_bytes: 0,
            fetches: 0,
            end_to_end: histogram(),
            errors: BTreeMap::new(),
            disconnects: 0,
            idle_disconnects: 0,
            late_max: 0,
        }
    }
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.acked_records += other.acked_records;
        self.acked_bytes += other.acked_bytes;
        self.acked_requests += other.acked_requests;
        self.ack += &other.ack;
        self.read_records += other.read_records;
        self.read_bytes += other.read_bytes;
        self.fetches += other.fetches;
        self.end_to_end += &other.end_to_end;
        for (&code, &count) in &other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.disconnects += other.disconnects;
        self.idle_disconnects += other.idle_disconnects;
        self.late_max = self.late_max.max(other.late_max);
    }

    pub fn on_error(&mut self, code: i16) {
        *self.errors.entry(code).or_default() += 1;
    }

    /// `records` acknowledged after `ns` each.
    pub fn on_ack(&mut self, ns: u64, records: u64) {
        self.ack.saturating_record_n(ns, records);
    }

    pub fn on_end_to_end(&mut self, ns: u64) {
        self.end_to_end.saturating_record(ns);
    }

    /// The errors by name; empty where there were none.
    #[must_use]
    pub fn errors_text(&self) -> String {
        let mut parts: Vec<String> =
            self.errors.iter().map(|(&code, count)| format!("{} × {count}", error_name(code))).collect();
        if self.disconnects > 0 {
            parts.push(format!("connection lost × {}", self.disconnects));
        }
        parts.join(", ")
    }
}
