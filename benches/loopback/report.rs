//! The closed loop: medians, ratios to the first server round by round, their spread; as a table and as JSON.

use crate::figures::Spread;
use crate::measure::{Outcome, Plan, Sample, Series};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Below this share of its core, the first server was not what limited.
const BUSY_MIN: f64 = 0.9;

impl Sample {
    pub fn rate(&self) -> f64 {
        self.ops as f64 / self.wall.as_secs_f64()
    }

    pub fn cpu_per_op(&self) -> f64 {
        self.usage.cpu.as_nanos() as f64 / self.ops as f64
    }

    pub fn busy(&self) -> f64 {
        self.usage.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }

    fn client_idle(&self) -> f64 {
        self.client_idle.as_secs_f64() / self.wall.as_secs_f64()
    }

    pub fn sleeps(&self) -> f64 {
        self.usage.sleeps as f64 * 1000.0 / self.ops as f64
    }

    fn preemptions(&self) -> f64 {
        self.usage.preemptions as f64 / self.wall.as_secs_f64()
    }
}

impl Series {
    pub fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(figure))
    }

    /// Each round's figure divided by that of `base` in the same round, so that slow drift of the machine cancels.
    pub fn ratio(&self, base: &Series, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(
            self.samples.iter().zip(&base.samples).map(|(own, base)| figure(own) / figure(base)),
        )
    }
}

impl Outcome {
    /// Whether the first server had its core, so that it was what limited.
    pub fn quotable(&self) -> bool {
        self.series[0].spread(Sample::busy).median >= BUSY_MIN
    }
}

pub fn table(outcome: &Outcome) -> String {
    let mut text = format!("\n{} ({})\n", outcome.workload.title, outcome.workload.name);
    let _ = writeln!(
        text,
        "  {:<13}{:>11}  {:>7}  {:<15}{:>10}  {:>7}  {:<15}{:>6}{:>12}{:>7}{:>9}{:>9}",
        "server",
        "ops/s",
        "ratio",
        "",
        "CPU ns/op",
        "ratio",
        "",
        "busy",
        "sleeps/kop",
        "idle",
        "p50 us",
        "p99 us"
    );
    let base = &outcome.series[0];
    for series in &outcome.series {
        let rate = series.ratio(base, Sample::rate);
        let cpu = series.ratio(base, Sample::cpu_per_op);
        let micros = |figure: fn(&Sample) -> std::time::Duration| {
            series.spread(|sample| figure(sample).as_secs_f64() * 1e6).median
        };
        let _ = writeln!(
            text,
            "  {:<13}{:>11.0}  {:>7.3}  {:<15}{:>10.1}  {:>7.3}  {:<15}{:>5.1}%{:>12.2}{:>6.1}%{:>9.0}{:>9.0}",
            series.server.name,
            series.spread(Sample::rate).median,
            rate.median,
            format!("{:.3}..{:.3}", rate.low, rate.high),
            series.spread(Sample::cpu_per_op).median,
            cpu.median,
            format!("{:.3}..{:.3}", cpu.low, cpu.high),
            series.spread(Sample::busy).median * 100.0,
            series.spread(Sample::sleeps).median,
            series.spread(Sample::client_idle).median * 100.0,
            micros(|sample| sample.latency_p50),
            micros(|sample| sample.latency_p99),
        );
    }
    if !outcome.quotable() {
        text.push_str("  other processes took the cores, or the client was what limited: not figures to quote\n");
    }
    text
}

pub fn legend(plan: &Plan) -> String {
    format!(
        "\nMedians of {} rounds, each of {} slices of {:?}, in which the servers take turns. Ratios: to the first line,\n\
         taken round by round, with their quartiles; a difference within those of bare2 is noise.\n\
         CPU: of the server's own threads. busy: their share of the time (below 99% without sleeps: other processes\n\
         took the core). sleeps: waits of the server in 1,000 operations; above 1, the client was what limited, and the\n\
         CPU per operation contains going to sleep and waking. idle: the client's share of time with nothing to do.\n\
         p50, p99: closed loop, so they mirror ops/s.",
        plan.rounds, plan.slices, plan.interval
    )
}

pub fn json(plan: &Plan, outcome: &Outcome) -> Value {
    let series = |base: &Series, series: &Series| {
        json!({
            "server": series.server.name,
            "what": series.server.what,
            "ops_per_second": series.spread(Sample::rate).json(),
            "ops_ratio": series.ratio(base, Sample::rate).json(),
            "cpu_ns_per_op": series.spread(Sample::cpu_per_op).json(),
            "cpu_ratio": series.ratio(base, Sample::cpu_per_op).json(),
            "busy": series.spread(Sample::busy).json(),
            "client_idle": series.spread(Sample::client_idle).json(),
            "sleeps_per_1000_ops": series.spread(Sample::sleeps).json(),
            "preemptions_per_second": series.spread(Sample::preemptions).json(),
            "rounds": series.samples.iter().map(|sample| json!({
                "ops": sample.ops,
                "wall_ns": sample.wall.as_nanos() as u64,
                "cpu_ns": sample.usage.cpu.as_nanos() as u64,
                "client_idle_ns": sample.client_idle.as_nanos() as u64,
                "sleeps": sample.usage.sleeps,
                "preemptions": sample.usage.preemptions,
                "latency_p50_ns": sample.latency_p50.as_nanos() as u64,
                "latency_p99_ns": sample.latency_p99.as_nanos() as u64,
            })).collect::<Vec<_>>(),
        })
    };
    json!({
        "workload": outcome.workload.name,
        "title": outcome.workload.title,
        "connections": outcome.workload.connections,
        "reactors": outcome.workload.reactors,
        "slices": plan.slices,
        "slice_ms": plan.interval.as_millis() as u64,
        "warm_up_ms": plan.warm_up.as_millis() as u64,
        "series": outcome.series.iter().map(|own| series(&outcome.series[0], own)).collect::<Vec<_>>(),
    })
}
