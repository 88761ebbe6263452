//! Medians, ratios to the first server round by round, their spread; as a table and as JSON.

use crate::measure::{Outcome, Plan, Sample, Series};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, process::Command};

/// Below this share of its core, the first server was not what limited.
const BUSY_MIN: f64 = 0.9;

/// Median and quartiles.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let place = quantile * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            sorted.get(below).map_or(f64::NAN, |low| low + (sorted[above] - low) * place.fract())
        };
        Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
    }

    fn json(self) -> Value {
        json!({ "q1": self.low, "median": self.median, "q3": self.high })
    }
}

impl Sample {
    fn rate(&self) -> f64 {
        self.ops as f64 / self.wall.as_secs_f64()
    }

    fn cpu_per_op(&self) -> f64 {
        self.usage.cpu.as_nanos() as f64 / self.ops as f64
    }

    fn busy(&self) -> f64 {
        self.usage.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }

    fn client_idle(&self) -> f64 {
        self.client_idle.as_secs_f64() / self.wall.as_secs_f64()
    }

    fn sleeps(&self) -> f64 {
        self.usage.sleeps as f64 * 1000.0 / self.ops as f64
    }

    fn preemptions(&self) -> f64 {
        self.usage.preemptions as f64 / self.wall.as_secs_f64()
    }
}

impl Series {
    fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(figure))
    }

    /// Each round's figure divided by that of `base` in the same round, so that slow drift of the machine cancels.
    fn ratio(&self, base: &Series, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(
            self.samples.iter().zip(&base.samples).map(|(own, base)| figure(own) / figure(base)),
        )
    }
}

/// What the figures were taken on.
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    rustc: String,
    commit: String,
    time: SystemTime,
}

impl Machine {
    pub fn this() -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let tree = env!("CARGO_MANIFEST_DIR");
        Machine {
            processor: model.map_or("unknown processor", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            rustc: output("rustc", &["--version"]),
            commit: output("git", &["-C", tree, "describe", "--always", "--dirty", "--abbrev=12"]),
            time: SystemTime::now(),
        }
    }

    pub fn line(&self) -> String {
        let Machine { processor, cores, kernel, rustc, commit, time } = self;
        let date = httpdate::fmt_http_date(*time);
        format!("{processor}, {cores} cores; Linux {kernel}; {rustc}; commit {commit}; {date}")
    }

    fn json(&self) -> Value {
        let seconds = self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        json!({
            "processor": self.processor, "cores": self.cores, "kernel": self.kernel, "rustc": self.rustc,
            "commit": self.commit, "unix_time": seconds,
        })
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| format!("{program} unknown"), |text| text.trim().to_owned())
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
    if base.spread(Sample::busy).median < BUSY_MIN {
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

pub fn json(machine: &Machine, plan: &Plan, outcomes: &[Outcome]) -> Value {
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
        "machine": machine.json(),
        "slices": plan.slices,
        "slice_ms": plan.interval.as_millis() as u64,
        "warm_up_ms": plan.warm_up.as_millis() as u64,
        "workloads": outcomes.iter().map(|outcome| json!({
            "name": outcome.workload.name,
            "title": outcome.workload.title,
            "connections": outcome.workload.connections,
            "series": outcome.series.iter().map(|own| series(&outcome.series[0], own)).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}
