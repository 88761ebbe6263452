//! The results, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::chart;
use crate::load::Plan;
use crate::tally::{Failure, Tally, Times};

/// Of the processor time that its threads could use; above it the load is what limits.
const BUSY: f64 = 0.9;

/// Names and units are those of the JSON.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) mode: &'static str,
    pub(crate) target: String,
    pub(crate) threads: usize,
    pub(crate) connections: Connections,
    pub(crate) depth: usize,
    /// Asked for; null in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup_s: f64,
    /// What was measured: shorter than asked for if it was interrupted.
    pub(crate) measured_s: f64,
    pub(crate) interrupted: bool,
    pub(crate) requests: Requests,
    pub(crate) throughput: Throughput,
    /// From the time a request was due (or sent, in a closed loop).
    pub(crate) latency: Option<Distribution>,
    /// From the time a request was sent; null in a closed loop.
    pub(crate) latency_from_send: Option<Distribution>,
    /// How late requests were sent; null in a closed loop.
    pub(crate) lateness: Option<Distribution>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) errors: BTreeMap<String, Failure>,
    /// Processor time of the load, of what its threads could use: from 0 to 1.
    pub(crate) cpu: f64,
}

#[derive(Serialize)]
pub(crate) struct Connections {
    pub(crate) wanted: usize,
    /// How often one was made.
    pub(crate) opened: u64,
    pub(crate) open_at_end: u64,
    /// Until it was open, with its handshake if it has one.
    pub(crate) time: Option<Distribution>,
}

/// `scheduled = sent + unsent`, `sent = answered + failed + unanswered`.
#[derive(Serialize)]
pub(crate) struct Requests {
    /// Null in a closed loop, as `unsent`.
    pub(crate) scheduled: Option<u64>,
    pub(crate) unsent: Option<u64>,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
}

/// Of the time measured, whenever the requests were sent.
#[derive(Serialize)]
pub(crate) struct Throughput {
    pub(crate) answers: u64,
    pub(crate) answers_per_s: f64,
    pub(crate) bytes_in_per_s: f64,
    pub(crate) bytes_out_per_s: f64,
}

#[derive(Serialize)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) min_ns: u64,
    pub(crate) mean_ns: f64,
    pub(crate) stdev_ns: f64,
    pub(crate) max_ns: u64,
    pub(crate) percentiles_ns: BTreeMap<&'static str, u64>,
    /// Times of up to so many nanoseconds, and above the bar before.
    pub(crate) bars: Vec<chart::Bar>,
}

const PERCENTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("p99.999", 0.99999),
];

impl Distribution {
    fn of(times: &Times) -> Option<Distribution> {
        (!times.is_empty()).then(|| Distribution {
            count: times.len(),
            min_ns: times.min(),
            mean_ns: times.mean(),
            stdev_ns: times.stdev(),
            max_ns: times.max(),
            percentiles_ns: PERCENTILES
                .map(|(name, quantile)| (name, times.value_at_quantile(quantile)))
                .into(),
            bars: chart::bars(times),
        })
    }
}

impl Report {
    pub(crate) fn new(
        mode: &'static str,
        target: &str,
        rate: Option<f64>,
        plan: &Plan,
        tally: Tally,
    ) -> Report {
        let seconds = tally.measured.as_secs_f64();
        let per_s = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let requests = tally.requests;
        let open_loop = rate.map(|_| requests);
        Report {
            mode,
            target: target.to_owned(),
            threads: plan.threads,
            connections: Connections {
                wanted: plan.connections,
                opened: tally.connect.len(),
                open_at_end: tally.open_at_end,
                time: Distribution::of(&tally.connect),
            },
            depth: plan.depth,
            rate,
            warmup_s: plan.warmup.as_secs_f64(),
            measured_s: seconds,
            interrupted: tally.interrupted,
            requests: Requests {
                scheduled: open_loop.map(|requests| requests.scheduled),
                unsent: open_loop.map(|requests| requests.scheduled - requests.sent),
                sent: requests.sent,
                answered: requests.answered,
                failed: requests.failed,
                unanswered: requests.unanswered,
            },
            throughput: Throughput {
                answers: tally.answers,
                answers_per_s: per_s(tally.answers),
                bytes_in_per_s: per_s(tally.bytes_in),
                bytes_out_per_s: per_s(tally.bytes_out),
            },
            latency: Distribution::of(&tally.latency),
            latency_from_send: Distribution::of(&tally.from_send),
            lateness: Distribution::of(&tally.late),
            statuses: tally.statuses,
            errors: tally.failures,
            cpu: tally.cpu.as_secs_f64() / (seconds * plan.threads as f64).max(f64::MIN_POSITIVE),
        }
    }

    fn asks(&self) -> bool {
        self.depth > 0
    }

    /// Why the run was in vain, if it was.
    pub(crate) fn in_vain(&self) -> Option<String> {
        let done = if self.asks() { self.requests.answered } else { self.connections.opened };
        if done > 0 || self.interrupted {
            return None;
        }
        let most = self.errors.iter().max_by_key(|(_, failure)| failure.count);
        let because = most.map(|(kind, failure)| match failure.example.as_str() {
            "" => format!(": {kind} ({} times)", failure.count),
            example => format!(": {kind} ({} times; {example})", failure.count),
        });
        let what = match self.connections.opened {
            0 => "no connection could be made",
            _ => "no request was answered",
        };
        Some(format!("{}: {what}{}", self.target, because.unwrap_or_default()))
    }

    /// The report for people; `width` is the terminal's.
    pub(crate) fn text(&self, width: usize) -> String {
        let mut out = String::new();
        self.write(&mut out, width).expect("a string takes all");
        out
    }

    fn write(&self, out: &mut String, width: usize) -> fmt::Result {
        writeln!(out, "{} {}: {}", self.mode, self.target, self.how())?;
        let until = if self.interrupted { " (interrupted)" } else { "" };
        writeln!(out, "{:.2} s measured{until}\n", self.measured_s)?;
        if self.asks() {
            self.write_requests(out)?;
        }
        let connections = &self.connections;
        write!(
            out,
            "Connections  {} made, {} open at the end",
            thousands(connections.opened),
            thousands(connections.open_at_end)
        )?;
        if let Some(time) = &connections.time {
            let p99 = ns(time.percentiles_ns["p99"]);
            write!(out, "; made in {} (p50), {p99} (p99)", ns(time.percentiles_ns["p50"]))?;
        }
        writeln!(out)?;
        for (i, (kind, failure)) in self.errors.iter().enumerate() {
            let label = if i == 0 { "Errors" } else { "" };
            let example = match failure.example.as_str() {
                "" => String::new(),
                example => format!(" ({example})"),
            };
            writeln!(out, "{label:12} {} {kind}{example}", thousands(failure.count))?;
        }
        let title = match self.rate {
            Some(_) => "Latency from the time a request was due",
            None => "Latency from the time a request was sent",
        };
        self.write_times(out, title, self.latency.as_ref(), width)?;
        if let (Some(sent), Some(late)) = (&self.latency_from_send, &self.lateness) {
            let of = |times: &Distribution, name| ns(times.percentiles_ns[name]);
            writeln!(
                out,
                "\nFrom when it was sent: {} (p50), {} (p99), {} (max)\n\
                 Sent after it was due: {} (p50), {} (p99), {} (max)",
                of(sent, "p50"),
                of(sent, "p99"),
                ns(sent.max_ns),
                of(late, "p50"),
                of(late, "p99"),
                ns(late.max_ns)
            )?;
        }
        self.write_warnings(out)
    }

    fn how(&self) -> String {
        let plural = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{} {one}s", thousands(count as u64)),
        };
        let places = format!(
            "{}, {}",
            plural(self.threads, "thread"),
            plural(self.connections.wanted, "connection")
        );
        match self.rate {
            _ if !self.asks() => places,
            Some(rate) => {
                format!("{places}, {rate} requests a second, at most {} a connection", self.depth)
            }
            None => format!("{places}, each with {} under way", plural(self.depth, "request")),
        }
    }

    fn write_requests(&self, out: &mut String) -> fmt::Result {
        let (requests, throughput) = (&self.requests, &self.throughput);
        writeln!(
            out,
            "Answers      {} a second; {}/s in, {}/s out",
            thousands(throughput.answers_per_s.round() as u64),
            bytes(throughput.bytes_in_per_s),
            bytes(throughput.bytes_out_per_s)
        )?;
        write!(out, "Requests     ")?;
        if let (Some(scheduled), Some(unsent)) = (requests.scheduled, requests.unsent) {
            write!(out, "{} due, {} never sent, ", thousands(scheduled), thousands(unsent))?;
        }
        writeln!(
            out,
            "{} sent, {} answered, {} failed, {} unanswered at the end",
            thousands(requests.sent),
            thousands(requests.answered),
            thousands(requests.failed),
            thousands(requests.unanswered)
        )?;
        if !self.statuses.is_empty() {
            let each = self.statuses.iter();
            let each = each.map(|(status, count)| format!("{status}: {}", thousands(*count)));
            writeln!(out, "Statuses     {}", each.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn write_times(
        &self,
        out: &mut String,
        title: &str,
        times: Option<&Distribution>,
        width: usize,
    ) -> fmt::Result {
        let Some(times) = times else {
            return Ok(());
        };
        writeln!(out, "\n{title}")?;
        let mean = (ns(times.mean_ns as u64), ns(times.stdev_ns as u64));
        let mut cells = vec![("min", ns(times.min_ns)), ("mean", mean.0), ("stdev", mean.1)];
        cells.extend(PERCENTILES.map(|(name, _)| (name, ns(times.percentiles_ns[name]))));
        cells.push(("max", ns(times.max_ns)));
        for row in cells.chunks(6) {
            for (name, _) in row {
                write!(out, "{name:>11}")?;
            }
            writeln!(out)?;
            for (_, value) in row {
                write!(out, "{value:>11}")?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        chart::draw(out, &times.bars, width)
    }

    fn write_warnings(&self, out: &mut String) -> fmt::Result {
        if let Some(unsent) = self.requests.unsent.filter(|&unsent| unsent > 0) {
            writeln!(
                out,
                "\n! {} requests were due and never sent: the server did not keep up, or there were too few\n  \
                 connections. The percentiles leave them out, so the truth is worse.",
                thousands(unsent)
            )?;
        }
        if self.requests.unanswered > 0 && self.rate.is_some() {
            let unanswered = thousands(self.requests.unanswered);
            writeln!(out, "\n! {unanswered} requests had no answer at the end; see --drain.")?;
        }
        if self.cpu > BUSY {
            writeln!(
                out,
                "\n! The load itself used {:.0} % of its threads' time: what was measured may be its limit and\n  \
                 not the server's. Give it more --threads, on cores of their own.",
                self.cpu * 100.0
            )?;
        }
        Ok(())
    }
}

/// Nanoseconds in three digits or so.
pub(crate) fn ns(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

pub(crate) fn time(time: Duration) -> String {
    ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(count: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| count >= (1_u64 << shift) as f64);
    match unit {
        Some((name, shift)) => format!("{:.1} {name}", count / (1_u64 << shift) as f64),
        None => format!("{count:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(thousands));
        let times = [999, 1_234, 12_345, 123_456, 1_234_567, 12_345_678_901].map(ns);
        assert_eq!(times, ["999 ns", "1.23 µs", "12.3 µs", "123 µs", "1.23 ms", "12.3 s"]);
        assert_eq!(["5 B", "1.5 KiB", "2.0 GiB"], [5.0, 1536.0, 2_147_483_648.0].map(bytes));
    }
}
