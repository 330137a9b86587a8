//! Reports as one page that needs no network: what was asked, what came of it, drawn over time and by percentile.
//!
//! Pure. Several reports are drawn into the same charts.

use crate::report::{Latency, Point, Report, number};
use std::fmt::Write;

/// Colours in the order of use, for a light and a dark ground; told apart by the colour-blind as well.
const COLOURS: [(&str, &str); 6] = [
    ("#1f6fd1", "#62a8ff"),
    ("#d1580b", "#ff9a4d"),
    ("#0f8a5f", "#45cf9b"),
    ("#a0379e", "#e583e2"),
    ("#8a6d00", "#e0bd3a"),
    ("#555e6b", "#aab4c0"),
];

/// Of a chart, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// Points of a line: more would lie upon each other.
const POINTS_MAX: usize = 360;

struct Line {
    name: String,
    colour: usize,
    is_dashed: bool,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// From 0.
    Linear,
    Log,
}

struct Axis {
    label: &'static str,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Spans `values`, with ticks at round numbers.
    fn spanning(label: &'static str, scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let high = values.clone().fold(f64::MIN, f64::max).max(1e-9);
        match scale {
            Scale::Linear => {
                let low = values.fold(0.0, f64::min);
                let step = round_step((high - low) / 5.0);
                let (from, to) = ((low / step).floor() as i64, (high / step).ceil() as i64);
                let ticks = (from..=to).map(|at| (at as f64 * step, tick_text(at as f64 * step, step))).collect();
                Axis { label, scale, low: from as f64 * step, high: to as f64 * step, ticks }
            }
            Scale::Log => {
                let low = values.filter(|&value| value > 0.0).fold(f64::MAX, f64::min).min(high);
                let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                let to = to.max(from + 1);
                let ticks = (from..=to).map(|power| (10f64.powi(power), number(10f64.powi(power)))).collect();
                Axis { label, scale, low: 10f64.powi(from), high: 10f64.powi(to), ticks }
            }
        }
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at or above `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|round| *round >= step * 0.999).unwrap_or(power)
}

/// With as many digits behind the point as the step has.
fn tick_text(value: f64, step: f64) -> String {
    if step >= 1.0 && value.abs() < 1000.0 { format!("{value:.0}").replace('-', "−") } else { number_signed(value) }
}

fn number_signed(value: f64) -> String {
    if value < 0.0 { format!("−{}", number(-value)) } else { number(value) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn chart(title: &str, about: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let across = |value: f64| LEFT + x.place(value) * inner_width;
    let down = |value: f64| TOP + (1.0 - y.place(value)) * inner_height;
    let mut svg = String::new();
    for (value, text) in &y.ticks {
        let at = down(*value);
        write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        )
        .expect("a string takes all");
    }
    for (value, text) in &x.ticks {
        let at = across(*value);
        write!(
            svg,
            r#"<line class="tick" x1="{at:.1}" x2="{at:.1}" y1="{0}" y2="{1}"/><text x="{at:.1}" y="{2}" text-anchor="middle">{text}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 4.0,
            HEIGHT - BOTTOM + 17.0
        )
        .expect("a string takes all");
    }
    let middle = TOP + inner_height / 2.0;
    write!(
        svg,
        r#"<text class="axis" x="{:.1}" y="{}" text-anchor="middle">{}</text><text class="axis" transform="translate(13 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        LEFT + inner_width / 2.0,
        HEIGHT - 6.0,
        x.label,
        y.label
    )
    .expect("a string takes all");
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let path: Vec<String> =
            line.points.iter().map(|&(at, value)| format!("{:.1},{:.1}", across(at), down(value))).collect();
        let dashed = if line.is_dashed { " dashed" } else { "" };
        write!(svg, r#"<polyline class="line c{}{dashed}" points="{}"/>"#, line.colour, path.join(" "))
            .expect("a string takes all");
        // Where the pointer is, the value is told.
        for &(at, value) in &line.points {
            write!(
                svg,
                r#"<circle class="dot c{}" cx="{:.1}" cy="{:.1}" r="5"><title>{}: {} {} at {}</title></circle>"#,
                line.colour,
                across(at),
                down(value),
                escape(&line.name),
                number(value),
                y.label,
                number_signed(at)
            )
            .expect("a string takes all");
        }
    }
    let mut legend = String::new();
    for line in lines {
        let dashed = if line.is_dashed { " dashed" } else { "" };
        write!(
            legend,
            r#"<li><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><line class="line c{}{dashed}" x1="1" x2="25" y1="4" y2="4"/></svg>{}</li>"#,
            line.colour,
            escape(&line.name)
        )
        .expect("a string takes all");
    }
    format!(
        r#"<figure><figcaption><h2>{title}</h2><p>{about}</p></figcaption><ul class="legend">{legend}</ul><div class="scroll"><svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{svg}</svg></div></figure>"#
    )
}

/// Of more than `POINTS_MAX` points, the lowest and the highest of each few that follow each other: what stands out is kept.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let ends = |few: &[(f64, f64)]| {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (few.iter().min_by(by_value), few.iter().max_by(by_value));
        let mut ends: Vec<_> = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        ends
    };
    points.chunks(points.len().div_ceil(POINTS_MAX / 2)).flat_map(ends).collect()
}

/// Lines of `value` over the seconds of each report; reports where it is never there are left out.
fn over_time(reports: &[Report], what: &str, is_dashed: bool, value: impl Fn(&Point) -> Option<f64>) -> Vec<Line> {
    let line = |(colour, report): (usize, &Report)| {
        let points: Vec<(f64, f64)> =
            report.series.iter().filter_map(|point| Some((point.at as f64, value(point)?))).collect();
        let name = if reports.len() == 1 { what.to_owned() } else { format!("{}: {what}", report.label) };
        points.iter().any(|&(_, value)| value > 0.0).then(|| Line { name, colour, is_dashed, points: thinned(&points) })
    };
    reports.iter().enumerate().filter_map(line).collect()
}

fn time_chart(
    title: &str,
    about: &str,
    label: &'static str,
    scale: Scale,
    mut lines: Vec<Line>,
    single: bool,
) -> String {
    if lines.is_empty() {
        return String::new();
    }
    if single {
        // One report: its lines need not share its colour.
        lines.iter_mut().enumerate().for_each(|(colour, line)| {
            line.colour = colour % COLOURS.len();
            line.is_dashed = false;
        });
    }
    let times = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
    let x = Axis::spanning("seconds, measuring begins at 0", Scale::Linear, times.clone());
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let y = Axis::spanning(label, scale, values.clone());
    chart(title, about, &x, &y, &lines)
}

/// Latency by percentile, nines evenly spaced.
fn percentile_chart(title: &str, reports: &[Report], of: impl Fn(&Report) -> &Latency) -> String {
    // 1 / (1 − share): 50 % is 2, 99 % is 100.
    let nines = |percent: f64| 1.0 / (1.0 - (percent / 100.0)).max(1e-7);
    let lines: Vec<Line> = reports
        .iter()
        .enumerate()
        .filter(|(_, report)| of(report).count > 0)
        .map(|(colour, report)| {
            // What fewer than ten saw has no place on the curve beyond what was measured.
            let most = of(report).count as f64;
            let points = of(report).curve.iter().map(|&(percent, us)| (nines(percent).min(most), us)).collect();
            Line { name: report.label.clone(), colour: colour % COLOURS.len(), is_dashed: false, points }
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let high = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).fold(100.0, f64::max);
    let names = [
        (1.0, "0"),
        (2.0, "50"),
        (10.0, "90"),
        (100.0, "99"),
        (1e3, "99.9"),
        (1e4, "99.99"),
        (1e5, "99.999"),
        (1e6, "99.9999"),
    ];
    let ticks = names.iter().filter(|(at, _)| *at <= high).map(|&(at, name)| (at, name.to_owned())).collect();
    let x = Axis { label: "percent of records that were no slower", scale: Scale::Log, low: 1.0, high, ticks };
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let y = Axis::spanning("µs", Scale::Log, values.clone());
    chart(title, "The whole distribution: the further right, the rarer.", &x, &y, &lines)
}

/// Name, and what a report has there.
type Row = (&'static str, fn(&Report) -> Option<String>);

fn rows() -> Vec<Row> {
    fn some(value: f64) -> Option<String> {
        (value > 0.0).then(|| number(value))
    }
    fn of(latency: &Latency, value: f64) -> Option<String> {
        (latency.count > 0).then(|| number(value))
    }
    vec![
        ("acknowledged, MB/s", |report| some(report.acked_mb_s)),
        ("records/s", |report| some(report.acked_records_s)),
        ("requests/s", |report| some(report.acked_requests_s)),
        ("slowest second, % of the median", |report| some(report.worst_second * 100.0)),
        ("acknowledged after, µs: p50", |report| of(&report.ack, report.ack.p50)),
        ("p99", |report| of(&report.ack, report.ack.p99)),
        ("p99.9", |report| of(&report.ack, report.ack.p999)),
        ("p99.99", |report| of(&report.ack, report.ack.p9999)),
        ("longest", |report| of(&report.ack, report.ack.max)),
        ("read, MB/s", |report| some(report.read_mb_s)),
        ("records read/s", |report| some(report.read_records_s)),
        ("end to end, µs: p50", |report| of(&report.end_to_end, report.end_to_end.p50)),
        ("p99", |report| of(&report.end_to_end, report.end_to_end.p99)),
        ("p99.9", |report| of(&report.end_to_end, report.end_to_end.p999)),
        ("p99.99", |report| of(&report.end_to_end, report.end_to_end.p9999)),
        ("longest", |report| of(&report.end_to_end, report.end_to_end.max)),
        ("broker CPU, % of a core", |report| report.broker_cores.map(|cores| number(cores * 100.0))),
        ("broker CPU, s/GB", |report| report.broker_s_per_gb.map(number)),
        ("broker CPU, µs/request", |report| report.broker_us_per_request.map(number)),
        ("broker memory, MiB", |report| report.broker_mib.map(number)),
        ("this client, % of a core", |report| some(report.client_cores * 100.0)),
        ("errors", |report| (!report.errors.is_empty()).then(|| escape(&report.errors))),
        ("verdict", |report| {
            let verdict = report.verdict.as_ref()?;
            let faults = verdict.lost + verdict.doubled + verdict.reordered + verdict.damaged;
            Some(if verdict.is_clean() {
                format!("clean, {} records", number(verdict.seen as f64))
            } else {
                format!("{faults} faults")
            })
        }),
    ]
}

fn table(reports: &[Report]) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr><th></th>");
    for report in reports {
        write!(out, "<th>{}</th>", escape(&report.label)).expect("a string takes all");
    }
    out.push_str("</tr></thead><tbody>");
    for (name, value) in rows() {
        let cells: Vec<Option<String>> = reports.iter().map(value).collect();
        if cells.iter().any(Option::is_some) {
            write!(out, "<tr><th>{name}</th>").expect("a string takes all");
            cells.iter().for_each(|cell| {
                write!(out, "<td>{}</td>", cell.as_deref().unwrap_or("–")).expect("a string takes all");
            });
            out.push_str("</tr>");
        }
    }
    out + "</tbody></table></div>"
}

/// The page of `reports`, which are of the same scenario.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let single = reports.len() == 1;
    let mut bytes = over_time(reports, "written", false, |point| Some(point.acked_mb));
    bytes.extend(over_time(reports, "read", true, |point| Some(point.read_mb)));
    let mut acks = over_time(reports, "p50", true, |point| point.ack_p50);
    acks.extend(over_time(reports, "p99", false, |point| point.ack_p99));
    let mut ends = over_time(reports, "p50", true, |point| point.end_to_end_p50);
    ends.extend(over_time(reports, "p99", false, |point| point.end_to_end_p99));
    if single {
        acks.extend(over_time(reports, "max", false, |point| point.ack_max));
        ends.extend(over_time(reports, "max", false, |point| point.end_to_end_max));
    }
    let from =
        if first.scenario.is_open_loop() { "From when a record was due." } else { "From when its request was sent." };
    let charts = [
        time_chart(
            "Throughput",
            "Each second, in MB of values written and of batches read.",
            "MB/s",
            Scale::Linear,
            bytes,
            single,
        ),
        time_chart("Time to the acknowledgement", from, "µs", Scale::Log, acks, single),
        percentile_chart("Time to the acknowledgement, by percentile", reports, |report| &report.ack),
        time_chart(
            "End to end",
            "From when a record was due to when a consumer had it.",
            "µs",
            Scale::Log,
            ends,
            single,
        ),
        percentile_chart("End to end, by percentile", reports, |report| &report.end_to_end),
    ];
    let scenario = toml::to_string(&first.scenario).unwrap_or_default();
    let (light, dark): (Vec<String>, Vec<String>) = COLOURS
        .iter()
        .enumerate()
        .map(|(at, (light, dark))| (format!("--c{at}:{light}"), format!("--c{at}:{dark}")))
        .unzip();
    let classes: String = (0..COLOURS.len())
        .map(|at| format!(".line.c{at}{{stroke:var(--c{at})}}.dot.c{at}{{fill:var(--c{at})}}"))
        .collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: {labels}</title>
<style>
:root{{color-scheme:light dark;--ground:#fff;--ink:#1a2028;--soft:#5b6673;--rule:#dfe4ea;{light}}}
@media (prefers-color-scheme:dark){{:root{{--ground:#14181d;--ink:#e8ecf1;--soft:#9ba6b3;--rule:#2d353f;{dark}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:62rem;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}}
h1{{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem}}
h2{{font-size:1.1rem;margin:0}}
p{{margin:.2rem 0;color:var(--soft)}}
figure{{margin:2.2rem 0 0}}
.scroll{{overflow-x:auto}}
.chart{{display:block;width:100%;min-width:36rem;height:auto;font-size:12px}}
text{{fill:var(--soft);font-family:inherit}}
.grid{{stroke:var(--rule)}}
.tick{{stroke:var(--soft)}}
.line{{fill:none;stroke-width:2;stroke-linejoin:round}}
.dashed{{stroke-dasharray:5 4}}
.dot{{fill-opacity:0}}
.dot:hover{{fill-opacity:1}}
{classes}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.5rem 0 .2rem;padding:0;list-style:none;font-size:.9rem}}
.key{{width:26px;height:8px;margin-right:.4rem;vertical-align:middle}}
table{{border-collapse:collapse;margin:1.2rem 0 0;font-variant-numeric:tabular-nums}}
th,td{{padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--rule);text-align:right;vertical-align:top}}
tbody th{{text-align:left;font-weight:400;color:var(--soft)}}
details{{margin-top:2rem}}
pre{{overflow-x:auto;padding:.8rem;border:1px solid var(--rule);font-size:.85rem}}
</style>
</head>
<body>
<h1>{name}</h1>
<p>{shows}</p>
<p>{seconds:.0} s measured after {warmup:.0} s of warm-up. Client: {machine}.</p>
{table}
{charts}
<details><summary>The scenario</summary><pre>{scenario}</pre></details>
</body>
</html>
"#,
        name = escape(&first.name),
        labels = escape(&reports.iter().map(|report| report.label.as_str()).collect::<Vec<_>>().join(", ")),
        light = light.join(";"),
        dark = dark.join(";"),
        shows = escape(&first.scenario.shows),
        seconds = first.seconds,
        warmup = first.scenario.warmup_seconds,
        machine = escape(&first.machine),
        table = table(reports),
        charts = charts.concat(),
        scenario = escape(&scenario),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_hour_every_peak_and_every_dip_is_drawn() {
        let mut points: Vec<(f64, f64)> = (0..3600).map(|second| (f64::from(second), 10.0)).collect();
        points[17].1 = 99.0;
        points[3599].1 = 1.0;
        let drawn = thinned(&points);
        assert!(drawn.len() <= POINTS_MAX && drawn.is_sorted_by(|a, b| a.0 < b.0));
        assert!(drawn.contains(&(17.0, 99.0)) && drawn.contains(&(3599.0, 1.0)) && drawn[0].1 == 10.0);
        assert_eq!(thinned(&points[..POINTS_MAX]), points[..POINTS_MAX]);
    }
}
