//! What it costs to know: the counting and timing of one request, and of one turn, which many requests share.

use criterion::{BenchmarkId, Criterion};
use ringlog::net::spans::Spans;
use ringlog::protocol::messages::ApiKey;
use ringlog::runtime::clock::mono;
use ringlog::runtime::meter::Meter;

pub fn measuring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics");
    for api in [ApiKey::Produce, ApiKey::Heartbeat] {
        let mut spans = Spans::default();
        let (key, known) = (api as i16, mono());
        group.bench_function(BenchmarkId::new("request", api.name()), |bencher| {
            bencher.iter(|| {
                if let Some(began) = spans.begin(key, known) {
                    spans.worked(key, began);
                    let answered = spans.answered(key, began);
                    spans.sent(answered);
                }
            });
        });
    }
    let mut meter = Meter::new(mono());
    group.bench_function("turn", |bencher| {
        bencher.iter(|| {
            let entered = mono();
            meter.enters(entered);
            meter.begins(Some(entered), mono());
            meter.ends(mono());
        });
    });
    group.finish();
}
