//! The page of results, in Markdown.

use crate::crowd::{self, Point};
use crate::growth;
use crate::latency::{self, QUANTILES, SHARES};
use crate::measure::{Outcome, Sample, Series};
use crate::plots::{Plot, Topic};
use crate::results::Results;
use crate::servers::{self, Server};
use crate::syscalls::Counted;
use crate::timers::{self, OPERATIONS};
use std::fmt::Write as _;

pub fn text(results: &Results, plots: &[Plot], remarks: &[String]) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `cargo bench --bench loopback`; [how it is measured and read](../benchmarks.md).\n\n\
         {}.\n\n",
        results.machine.line().replace("; ", ";\n")
    );
    if !remarks.is_empty() {
        text.push_str("**Not all is here:**\n\n");
        for remark in remarks {
            let _ = writeln!(text, "- {remark}");
        }
        text.push('\n');
    }
    if !results.throughput.is_empty() {
        headline(&mut text, results);
        show(&mut text, plots, Topic::Throughput);
        for outcome in &results.throughput {
            let counted =
                results.syscalls.iter().find(|c| c.workload.name == outcome.workload.name);
            workload(&mut text, "##", outcome, counted);
        }
    }
    if !results.cores.is_empty() {
        text.push_str(
            "## A thread on every core\n\nThe client shares a core with one of the server's threads: the fewer cores, the less \
             this says.\n\n",
        );
        for outcome in &results.cores {
            workload(&mut text, "###", outcome, None);
        }
    }
    if !results.latency.is_empty() {
        text.push_str(
            "## Latency at a fixed rate\n\nMicroseconds from the moment an operation was due. In brackets: the driver's \
             own share may be more than half\nof it, so it is not to be believed. \"behind\": the server did not keep up \
             with the rate. \"preempted\": how often\nanother process took the server's core; then what is at the right is \
             that process's.\n\n",
        );
        for outcome in &results.latency {
            latencies(&mut text, outcome);
        }
        show(&mut text, plots, Topic::Latency);
    }
    if let Some(growth) = &results.growth {
        connections(&mut text, growth);
        show(&mut text, plots, Topic::Growth);
    }
    if let Some(crowd) = results.crowd.as_ref().filter(|crowd| !crowd.crowds.is_empty()) {
        clients(&mut text, crowd);
        show(&mut text, plots, Topic::Crowd);
    }
    if let Some(timers) = &results.timers {
        timer_queues(&mut text, timers);
        show(&mut text, plots, Topic::Timers);
    }
    system_calls(&mut text, results);
    memory(&mut text, results);
    text
}

fn show(text: &mut String, plots: &[Plot], topic: Topic) {
    for plot in plots.iter().filter(|plot| plot.topic == topic) {
        let _ = writeln!(text, "![{}]({})\n", plot.title, plot.file);
    }
}

/// Cells of one line of a table.
fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

fn header<'a>(text: &mut String, names: impl IntoIterator<Item = &'a str>) {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let rule = names.iter().map(|_| "---".to_owned()).collect::<Vec<_>>();
    row(text, names);
    row(text, rule);
}

/// Ratios to the first server: what is to be looked at first.
fn headline(text: &mut String, results: &Results) {
    let seen =
        |server: &&Server| results.throughput.iter().any(|outcome| outcome.of(server).is_some());
    let servers: Vec<&Server> = servers::ALL.iter().filter(seen).collect();
    let names = || servers.iter().map(|server| server.name);
    let table = |text: &mut String, figure: fn(&Sample) -> f64| {
        header(text, [""].into_iter().chain(names()));
        for outcome in &results.throughput {
            let cell = |server: &&Server| {
                let series = outcome.of(server);
                series.map_or_else(String::new, |series| {
                    format!("{:.2}", series.ratio(&outcome.series[0], figure).median)
                })
            };
            let mark = if outcome.quotable() { "" } else { " \\*" };
            let name = format!("{}{mark}", outcome.workload.name);
            row(text, [name].into_iter().chain(servers.iter().map(cell)));
        }
        text.push('\n');
    };
    text.push_str("## Against the bare loop\n\nOperations per second, as a ratio to `bare`: more is better.\n\n");
    table(text, Sample::rate);
    text.push_str("Processor time per operation, as a ratio to `bare`: less is better.\n\n");
    table(text, Sample::cpu_per_op);
    if results.throughput.iter().any(|outcome| !outcome.quotable()) {
        text.push_str(
            "\\* Other processes took the cores, or the client was what limited: an order, not a figure to quote.\n\n",
        );
    }
}

fn workload(text: &mut String, level: &str, outcome: &Outcome, counted: Option<&Counted>) {
    let _ = writeln!(text, "{level} {}\n\n{}\n", outcome.workload.name, outcome.workload.title);
    let mut names = vec!["", "ops/s", "ratio", "CPU ns/op", "ratio", "busy", "sleeps/kop"];
    names.extend(counted.map(|_| "calls/op"));
    header(text, names);
    let base = &outcome.series[0];
    for series in &outcome.series {
        let ratio = |figure: fn(&Sample) -> f64| {
            let ratio = series.ratio(base, figure);
            format!("{:.3} ({:.3}..{:.3})", ratio.median, ratio.low, ratio.high)
        };
        let median = |figure: fn(&Sample) -> f64| series.spread(figure).median;
        let mut cells = vec![
            series.server.name.to_owned(),
            format!("{:.0}", median(Sample::rate)),
            ratio(Sample::rate),
            format!("{:.0}", median(Sample::cpu_per_op)),
            ratio(Sample::cpu_per_op),
            format!("{:.0} %", median(Sample::busy) * 100.0),
            format!("{:.2}", median(Sample::sleeps)),
        ];
        cells.extend(counted.map(|counted| match counted.total(series.server) {
            total if total.is_nan() => String::new(),
            total => format!("{:.3}", total / outcome.workload.depth as f64),
        }));
        row(text, cells);
    }
    text.push('\n');
}

fn latencies(text: &mut String, outcome: &latency::Outcome) {
    let _ = writeln!(
        text,
        "### {}\n\nShares of the {:.0} operations per second that `bare` reaches in a closed loop.\n",
        outcome.workload.name, outcome.capacity
    );
    let names = QUANTILES.map(|(_, name)| name);
    header(text, ["rate", ""].into_iter().chain(names).chain(["preempted/s"]));
    for (index, share) in SHARES.iter().enumerate() {
        for lane in &outcome.lanes {
            let run = &lane.runs[index];
            let rate = format!("{:.0} %", share * 100.0);
            let figures = QUANTILES.map(|(quantile, _)| match run.kept_up() {
                true => run.shown(quantile),
                false => "behind".to_owned(),
            });
            let preempted = run.preemptions_per_second(share * outcome.capacity);
            let names = [rate, lane.server.name.to_owned()];
            row(text, names.into_iter().chain(figures).chain([format!("{preempted:.0}")]));
        }
    }
    text.push('\n');
}

fn connections(text: &mut String, outcome: &growth::Outcome) {
    text.push_str(
        "## Cost by number of connections\n\nEcho of 128 B, all connections asking all the time: processor time per \
         operation in ns, and the line through it\nover the logarithm of the number: what each doubling adds, and how \
         well the line fits.\n\n",
    );
    let counts: Vec<String> = growth::CONNECTIONS.iter().map(ToString::to_string).collect();
    let names = [""].into_iter().chain(counts.iter().map(String::as_str));
    header(text, names.chain(["each doubling", "R²"]));
    for growth in &outcome.servers {
        let costs = growth.cost();
        let cell = |count: &usize| {
            let cost = costs.iter().find(|(other, _)| other == count);
            cost.map_or_else(String::new, |(_, cost)| format!("{:.0}", cost.median))
        };
        let line = growth.line();
        let line = line.map_or_else(Default::default, |line| {
            [format!("{:+.0}", line.slope), format!("{:.2}", line.r_squared)]
        });
        let name = growth.server.name.to_owned();
        row(text, [name].into_iter().chain(growth::CONNECTIONS.iter().map(cell)).chain(line));
    }
    text.push('\n');
}

fn clients(text: &mut String, outcome: &crowd::Outcome) {
    text.push_str(
        "## Time by number of clients\n\nAll send 1 KiB at once and read it back: milliseconds until the last has it, and \
         the straight line through them: what\none client more takes, and how well the line fits.\n\n",
    );
    let milliseconds = |point: &Point| format!("{:.1}", point.spread().median * 1e3);
    // Every second number is enough to read; the plot has them all.
    let shown = |crowd: &crowd::Crowd, cell: fn(&Point) -> String| -> Vec<String> {
        crowd.points.iter().skip(1).step_by(2).map(cell).collect()
    };
    let counts = shown(&outcome.crowds[0], |point| point.clients.to_string());
    let names = [""].into_iter().chain(counts.iter().map(String::as_str));
    header(text, names.chain(["µs a client", "R²"]));
    for crowd in &outcome.crowds {
        let line = crowd.line().map_or_else(Default::default, |line| {
            [format!("{:.2}", line.slope * 1e6), format!("{:.3}", line.r_squared)]
        });
        let name = crowd.server.name.to_owned();
        row(text, [name].into_iter().chain(shown(crowd, milliseconds)).chain(line));
    }
    text.push('\n');
}

fn timer_queues(text: &mut String, outcome: &timers::Outcome) {
    text.push_str("## Timers\n\nNanoseconds for each, by the number that is pending.\n\n");
    let sizes: Vec<String> =
        outcome.queues[0].sizes.iter().map(|size| size.pending.to_string()).collect();
    header(text, ["", ""].into_iter().chain(sizes.iter().map(String::as_str)));
    for (index, operation) in OPERATIONS.iter().enumerate() {
        for queue in &outcome.queues {
            let cells = queue.sizes.iter().map(|size| format!("{:.0}", size.taken[index].mean()));
            let names = [(*operation).to_owned(), queue.name.to_owned()];
            row(text, names.into_iter().chain(cells));
        }
    }
    text.push('\n');
}

fn system_calls(text: &mut String, results: &Results) {
    if results.syscalls.is_empty() {
        return;
    }
    text.push_str("## System calls\n\nFor each message, counted by strace.\n\n");
    header(text, ["", "", "all", "each kind"]);
    for counted in &results.syscalls {
        for (server, calls) in &counted.servers {
            let mut kinds: Vec<_> = calls.iter().filter(|(_, count)| **count >= 0.005).collect();
            kinds.sort_by(|a, b| b.1.total_cmp(a.1));
            let kinds: Vec<_> =
                kinds.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let names = [counted.workload.name.to_owned(), server.name.to_owned()];
            let total = format!("{:.2}", counted.total(server));
            row(text, names.into_iter().chain([total, kinds.join(", ")]));
        }
    }
    text.push('\n');
}

fn memory(text: &mut String, results: &Results) {
    let Some(footprint) = &results.footprint else { return };
    let _ = writeln!(
        text,
        "## User-space bytes for each connection\n\n{} idle connections that have each sent one message.\n",
        footprint.connections()
    );
    header(text, ["", "", "allocated", "resident"]);
    for (workload, servers) in footprint.workloads() {
        for idle in servers {
            let names = [workload.to_owned(), idle.server.to_owned()];
            let bytes = [idle.allocated, idle.resident].map(|bytes| format!("{bytes:.0}"));
            row(text, names.into_iter().chain(bytes));
        }
    }
}

impl Outcome {
    /// The series of this server, if it was measured.
    pub fn of(&self, server: &Server) -> Option<&Series> {
        self.series.iter().find(|series| series.server.name == server.name)
    }
}
