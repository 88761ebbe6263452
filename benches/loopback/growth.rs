//! How the cost of an operation grows with the number of connections: echo of 128 B with ever more of them, all asking
//! all the time. A round is one server after the other at one number: both ends of all servers' connections at once
//! would be more files than a process is usually allowed.

use crate::figures::{Line, Spread};
use crate::interrupt;
use crate::measure::{self, Plan, Sample};
use crate::progress::Progress;
use crate::servers::Server;
use crate::workload::{Protocol, Workload};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

const BASE: &str = "echo-128";
pub const CONNECTIONS: [usize; 5] = [16, 64, 256, 1024, 4096];
/// About, to connect and close one.
const CONNECT: Duration = Duration::from_micros(60);
/// Descriptors beside those of the connections.
const SPARE_FILES: u64 = 64;

static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    let base = Workload::find(BASE).expect("it is one of the workloads");
    let of = |&count: &usize| Workload { connections: count, active: count, ..*base };
    CONNECTIONS.iter().map(of).collect()
});

pub struct Outcome {
    pub rounds: usize,
    pub servers: Vec<Growth>,
}

pub struct Growth {
    pub server: &'static Server,
    /// At each of [`CONNECTIONS`] the samples of all rounds, until it fails.
    samples: Vec<Vec<Sample>>,
    failed: bool,
}

impl Growth {
    /// Nanoseconds of processor time for each operation, by number of connections.
    pub fn cost(&self) -> Vec<(usize, Spread)> {
        let of = |samples: &Vec<Sample>| Spread::of(samples.iter().map(Sample::cpu_per_op));
        let costs = CONNECTIONS.iter().zip(&self.samples);
        costs.filter(|(_, s)| !s.is_empty()).map(|(&count, s)| (count, of(s))).collect()
    }

    /// Cost against the binary logarithm of the number: its slope is what each doubling adds.
    pub fn line(&self) -> Option<Line> {
        let point = |(count, cost): &(usize, Spread)| ((*count as f64).log2(), cost.median);
        Line::through(&self.cost().iter().map(point).collect::<Vec<_>>())
    }
}

pub fn measures(server: &Server) -> bool {
    !server.again && server.speaks(Protocol::Echo)
}

pub fn duration(plan: &Plan, servers: usize) -> Duration {
    let slices = (plan.warm_up + plan.interval) * (plan.slices * CONNECTIONS.len()) as u32;
    let connecting = CONNECT * CONNECTIONS.iter().sum::<usize>() as u32;
    (slices + connecting) * (plan.rounds * servers) as u32
}

/// `open_files`: how many are allowed, which may be too few for the largest numbers.
pub fn run(
    plan: &Plan,
    servers: &[&'static Server],
    open_files: u64,
    progress: &mut Progress,
) -> Outcome {
    let enough = |workload: &&Workload| 2 * workload.connections as u64 + SPARE_FILES <= open_files;
    let workloads: Vec<&Workload> = WORKLOADS.iter().take_while(enough).collect();
    if workloads.len() < WORKLOADS.len() {
        let least = workloads.last().map_or(0, |most| most.connections);
        progress.remark(format!("only {open_files} open files: not more than {least} connections"));
    }
    let start = |&server: &&'static Server| {
        let samples = CONNECTIONS.iter().map(|_| Vec::new()).collect();
        Growth { server, samples, failed: false }
    };
    let mut grown: Vec<Growth> =
        servers.iter().filter(|server| measures(server)).map(start).collect();
    for round in 0..plan.rounds {
        for (index, workload) in workloads.iter().enumerate() {
            let connections = workload.connections;
            progress.show(&format!(
                "{connections} connections: round {} of {}",
                round + 1,
                plan.rounds
            ));
            for place in measure::order(round, grown.len()) {
                let growth = &mut grown[place];
                if growth.failed || interrupt::asked() {
                    continue;
                }
                match measure::alone(plan, growth.server, workload) {
                    Ok(sample) => growth.samples[index].push(sample),
                    Err(e) => {
                        growth.failed = true;
                        let name = growth.server.name;
                        progress.problem(format!("{name} at {connections} connections: {e}"));
                    }
                }
            }
        }
    }
    grown.retain(|growth| !growth.cost().is_empty());
    Outcome { rounds: plan.rounds, servers: grown }
}

pub fn table(outcome: &Outcome) -> String {
    let mut text = format!(
        "\n{BASE} by number of connections: CPU ns/op, median of {} rounds\n  {:<13}",
        outcome.rounds, "server"
    );
    for connections in CONNECTIONS {
        let _ = write!(text, "{connections:>10}");
    }
    let _ = writeln!(text, "{:>20}{:>8}", "each doubling adds", "R2");
    for growth in &outcome.servers {
        let _ = write!(text, "  {:<13}", growth.server.name);
        for (_, cost) in growth.cost() {
            let _ = write!(text, "{:>10.0}", cost.median);
        }
        if let Some(line) = growth.line() {
            let _ = write!(text, "{:>20.1}{:>8.2}", line.slope, line.r_squared);
        }
        text.push('\n');
    }
    text
}

pub fn json(outcome: &Outcome) -> Value {
    let point =
        |(count, cost): (usize, Spread)| json!({ "connections": count, "cpu_ns": cost.json() });
    let server = |growth: &Growth| {
        json!({
            "server": growth.server.name,
            "points": growth.cost().into_iter().map(point).collect::<Vec<_>>(),
            "line_over_log2": growth.line().map(Line::json),
        })
    };
    json!({
        "workload": BASE,
        "rounds": outcome.rounds,
        "servers": outcome.servers.iter().map(server).collect::<Vec<_>>(),
    })
}
