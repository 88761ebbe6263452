//! Latency at fixed offered rates: shares of what the first server reaches in a closed loop in the same run. In each
//! round every server has a fresh thread and fresh connections; they take turns at each rate in short slices.

use crate::client::{Client, Until};
use crate::figures::Spread;
use crate::host::Host;
use crate::interrupt;
use crate::measure::order;
use crate::open_loop::{Driver, REQUEST_SIZE_MAX, Run};
use crate::progress::Progress;
use crate::servers::Server;
use crate::verify;
use crate::workload::{Pattern, Workload};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// The workloads of a whole run, the most important first.
pub const WORKLOADS: &[&str] = &["echo-128", "http-1", "ws-128"];
/// Offered rates as shares of the first server's closed loop.
pub const SHARES: [f64; 3] = [0.3, 0.6, 0.8];
/// What is shown of each histogram; 1 is the maximum.
pub const QUANTILES: [(f64, &str); 4] =
    [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")];

const CAPACITY_SLICES: usize = 5;
/// A server that leaves more of what is due unsent than this does not keep up with the rate.
const UNSENT_MAX: f64 = 0.01;
/// A quantile of which the driver's own share may be larger is not to be believed.
const OWN_SHARE_MAX: f64 = 0.5;

pub struct Plan {
    pub rounds: usize,
    pub slices: usize,
    pub warm_up: Duration,
    pub interval: Duration,
    pub server_core: Option<usize>,
}

pub struct Outcome {
    pub workload: &'static Workload,
    /// Operations a second of the first server in a closed loop.
    pub capacity: f64,
    pub lanes: Vec<Lane>,
}

/// One server at each of [`SHARES`].
pub struct Lane {
    pub server: &'static Server,
    /// The workload as it is put to this server.
    asked: Workload,
    pub runs: Vec<Run>,
    failed: bool,
}

/// A server with its driver, on fresh threads and connections in each round.
struct Pair {
    host: Host,
    driver: Driver,
}

impl Plan {
    /// How long one workload takes, without the time to start.
    pub fn duration(&self, servers: usize) -> Duration {
        let slices = self.rounds * self.slices * SHARES.len() * servers + CAPACITY_SLICES;
        (self.warm_up + self.interval) * slices as u32
    }
}

/// The workloads that the driver can offer: an operation is one small request.
pub fn suits(workload: &Workload) -> bool {
    let plain = workload.pattern == Pattern::Closed && !workload.is_large();
    plain && workload.depth == 1 && workload.request(0).len() <= REQUEST_SIZE_MAX
}

/// Whether a second entry of the same code is left out: a latency curve of the noise shows nothing.
pub fn measures(server: &Server, workload: &Workload) -> bool {
    !server.again && server.asked(workload).is_some()
}

pub fn run(
    plan: &Plan,
    servers: &[&'static Server],
    workload: &'static Workload,
    progress: &mut Progress,
) -> io::Result<Outcome> {
    progress.show(&format!("{}: capacity of {}", workload.name, servers[0].name));
    let capacity = capacity(plan, servers[0], workload)?;
    let mut lanes = Vec::new();
    for server in servers.iter().filter(|server| !server.again) {
        let Some(asked) = server.asked(workload) else { continue };
        let runs = SHARES.iter().map(|_| Run::new()).collect::<io::Result<_>>()?;
        lanes.push(Lane { server, asked, runs, failed: false });
    }
    for round in 0..plan.rounds {
        if interrupt::asked() {
            break;
        }
        let place = format!("round {} of {}", round + 1, plan.rounds);
        progress.show(&format!("{}: latency, {place}", workload.name));
        self::round(plan, capacity, &mut lanes, |server, error| {
            progress.problem(format!(
                "latency of {} under {}: left out from {place} on: {error}",
                server.name, workload.name
            ));
        })?;
    }
    lanes.retain(|lane| lane.runs.iter().all(|run| run.due > 0));
    Ok(Outcome { workload, capacity, lanes })
}

/// What the first server does when it is asked as fast as it answers.
fn capacity(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<f64> {
    let asked = server.asked(workload).ok_or(ErrorKind::Unsupported)?;
    let host = Host::start(server, &asked, plan.server_core)?;
    let answer_size = verify::probe(host.addr, &asked)?;
    let mut client = Client::connect(host.addr, &asked, answer_size)?;
    let mut rates = Vec::new();
    for _ in 0..CAPACITY_SLICES {
        client.start()?;
        client.run(Until::Time(Instant::now() + plan.warm_up))?;
        let begin = Instant::now();
        let ops = client.run(Until::Time(begin + plan.interval))?;
        rates.push(ops as f64 / begin.elapsed().as_secs_f64());
        client.run(Until::Silence)?;
    }
    drop(client);
    host.stop()?;
    Ok(Spread::of(rates.into_iter()).median)
}

/// A server that fails is left out of this round and the next ones.
fn round(
    plan: &Plan,
    capacity: f64,
    lanes: &mut [Lane],
    mut failed: impl FnMut(&Server, io::Error),
) -> io::Result<()> {
    let mut seats = Vec::new();
    for lane in lanes.iter_mut().filter(|lane| !lane.failed) {
        match Pair::start(plan, lane.server, &lane.asked) {
            Ok(pair) => {
                let runs = SHARES.iter().map(|_| Run::new()).collect::<io::Result<Vec<_>>>()?;
                seats.push((lane, pair, runs));
            }
            Err(error) => {
                lane.failed = true;
                failed(lane.server, error);
            }
        }
    }
    for (index, share) in SHARES.iter().enumerate() {
        for slice in 0..plan.slices {
            for place in order(slice, seats.len()) {
                let (lane, pair, runs) = &mut seats[place];
                if lane.failed {
                    continue;
                }
                match pair.slice(plan, share * capacity) {
                    Ok(run) => runs[index].add(&run)?,
                    Err(error) => {
                        lane.failed = true;
                        failed(lane.server, error);
                    }
                }
            }
        }
    }
    for (lane, pair, runs) in seats {
        if lane.failed {
            continue;
        }
        drop(pair.driver);
        if let Err(error) = pair.host.stop() {
            lane.failed = true;
            failed(lane.server, error);
            continue;
        }
        for (sum, run) in lane.runs.iter_mut().zip(&runs) {
            sum.add(run)?;
        }
    }
    Ok(())
}

impl Pair {
    fn start(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<Pair> {
        let host = Host::start(server, workload, plan.server_core)?;
        let answer_size = verify::probe(host.addr, workload)?;
        let driver = Driver::connect(host.addr, workload, answer_size)?;
        Ok(Pair { host, driver })
    }

    fn slice(&mut self, plan: &Plan, rate: f64) -> io::Result<Run> {
        let before = self.host.usage()?;
        let mut run = self.driver.run(rate, plan.warm_up, plan.interval)?;
        run.preemptions = (self.host.usage()? - before).preemptions;
        Ok(run)
    }
}

impl Run {
    /// The latency at this quantile, in microseconds.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Whether the driver kept its schedule well enough for this quantile.
    pub fn believable(&self, quantile: f64) -> bool {
        let own = self.own.value_at_quantile(quantile) as f64;
        own <= OWN_SHARE_MAX * self.latency.value_at_quantile(quantile) as f64
            && self.unsent_driver as f64 <= (1.0 - quantile) * self.due as f64
    }

    /// Whether the server answered what was offered.
    pub fn kept_up(&self) -> bool {
        self.unsent_server as f64 <= UNSENT_MAX * self.due as f64
    }

    /// `rate`: what was offered.
    pub fn preemptions_per_second(&self, rate: f64) -> f64 {
        self.preemptions as f64 * rate / self.due as f64
    }

    /// A quantile as it is shown: in brackets if it is not to be believed.
    pub fn shown(&self, quantile: f64) -> String {
        let micros = self.micros(quantile);
        let digits = if micros < 100.0 { 1 } else { 0 };
        if self.believable(quantile) {
            format!("{micros:.digits$}")
        } else {
            format!("({micros:.digits$})")
        }
    }
}

pub fn table(outcome: &Outcome) -> String {
    let workload = outcome.workload;
    let mut text = format!(
        "\n{} ({}): latency in microseconds at fixed rates; closed loop of {}: {:.0} ops/s\n",
        workload.title, workload.name, outcome.lanes[0].server.name, outcome.capacity
    );
    for (index, share) in SHARES.iter().enumerate() {
        let _ = write!(text, "  {:<13}", format!("{:.0} ops/s", share * outcome.capacity));
        for (_, name) in QUANTILES {
            let _ = write!(text, "{name:>11}");
        }
        let _ = writeln!(text, "{:>18}{:>13}", "driver's p99.9", "preempted/s");
        for lane in &outcome.lanes {
            let run = &lane.runs[index];
            let _ = write!(text, "  {:<13}", lane.server.name);
            for (quantile, _) in QUANTILES {
                let _ = write!(text, "{:>11}", run.shown(quantile));
            }
            let own = run.own.value_at_quantile(0.999) as f64 / 1e3;
            let note = if run.kept_up() { "" } else { "  did not keep up" };
            let preempted = run.preemptions_per_second(share * outcome.capacity);
            let _ = writeln!(text, "{own:>18.1}{preempted:>13.1}{note}");
        }
    }
    text
}

pub fn json(outcome: &Outcome) -> Value {
    let rate = |index: usize, share: f64| {
        let servers = outcome.lanes.iter().map(|lane| {
            let run = &lane.runs[index];
            let quantiles = QUANTILES.iter().map(|&(quantile, name)| {
                json!({
                    "quantile": name,
                    "micros": run.micros(quantile),
                    "driver_micros": run.own.value_at_quantile(quantile) as f64 / 1e3,
                    "believable": run.believable(quantile),
                })
            });
            json!({
                "server": lane.server.name,
                "due": run.due,
                "unsent_because_of_the_server": run.unsent_server,
                "unsent_because_of_the_driver": run.unsent_driver,
                "kept_up": run.kept_up(),
                "preemptions_per_second": run.preemptions_per_second(share * outcome.capacity),
                "quantiles": quantiles.collect::<Vec<_>>(),
            })
        });
        json!({
            "share": share,
            "offered_per_second": share * outcome.capacity,
            "servers": servers.collect::<Vec<_>>(),
        })
    };
    let rates = SHARES.iter().enumerate().map(|(index, &share)| rate(index, share));
    json!({
        "workload": outcome.workload.name,
        "closed_loop_per_second": outcome.capacity,
        "rates": rates.collect::<Vec<_>>(),
    })
}
