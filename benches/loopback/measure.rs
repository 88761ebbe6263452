//! Alternating rounds: in each, every server has a fresh thread and fresh connections, and they take turns in slices
//! much shorter than the moods of a shared machine (its speed may change for seconds), so that all meet the same ones.
//! Between its slices a server is idle, and asleep.

use crate::apart::Apart;
use crate::client::{Client, Until};
use crate::host::Host;
use crate::interrupt;
use crate::progress::Progress;
use crate::servers::Server;
use crate::site::Usage;
use crate::verify;
use crate::workload::{Pattern, Workload};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct Plan {
    pub rounds: usize,
    pub slices: usize,
    pub warm_up: Duration,
    pub interval: Duration,
    pub server_core: Option<usize>,
}

/// One server in one round: the sum of its slices.
pub struct Sample {
    pub ops: u64,
    pub wall: Duration,
    pub usage: Usage,
    pub client_idle: Duration,
    pub latency_p50: Duration,
    pub latency_p99: Duration,
}

/// The samples of one server under one workload, one for each round until it fails.
pub struct Series {
    pub server: &'static Server,
    /// The workload as it is put to this server.
    asked: Workload,
    pub samples: Vec<Sample>,
    failed: bool,
}

pub struct Outcome {
    pub workload: &'static Workload,
    pub series: Vec<Series>,
}

impl Plan {
    /// How long the whole will take, without the time to start and to verify.
    pub fn duration(&self, servers: &[&Server], workloads: &[&Workload]) -> Duration {
        let speakers = |w: &&Workload| servers.iter().filter(|s| s.asked(w).is_some()).count();
        let pairs: usize = workloads.iter().map(speakers).sum();
        (self.warm_up + self.interval) * (self.rounds * self.slices * pairs) as u32
    }
}

/// Without the first server there is nothing to compare with, and so no outcome. Another one that fails is left out
/// from there on, which is said.
pub fn run(
    plan: &Plan,
    servers: &[&'static Server],
    workload: &'static Workload,
    progress: &mut Progress,
) -> Option<Outcome> {
    let mut series: Vec<Series> = Vec::new();
    for server in servers {
        let Some(asked) = server.asked(workload) else { continue };
        progress.show(&format!("{}: {} is checked", workload.name, server.name));
        match check(plan, server, &asked) {
            Ok(()) => series.push(Series { server, asked, samples: Vec::new(), failed: false }),
            Err(e) => progress.problem(left_out(server, workload, 0, &e)),
        }
    }
    // To connect so many takes longer than to measure them.
    let rounds = if workload.is_large() { plan.rounds.div_ceil(3) } else { plan.rounds };
    for round in 0..rounds {
        if interrupt::asked() {
            break;
        }
        progress.show(&format!("{}: round {} of {}", workload.name, round + 1, rounds));
        let failed = |server: &Server, e| {
            progress.problem(left_out(server, workload, round, &e));
        };
        if workload.is_large() {
            one_by_one(plan, round, &mut series, failed);
        } else {
            self::round(plan, &mut series, failed);
        }
    }
    series.retain(|series| !series.samples.is_empty());
    let base = series.first().is_some_and(|first| first.server.name == servers[0].name);
    base.then_some(Outcome { workload, series })
}

fn left_out(server: &Server, workload: &Workload, rounds: usize, error: &io::Error) -> String {
    format!("{} under {} is left out after {rounds} rounds: {error}", server.name, workload.name)
}

fn check(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<()> {
    let host = Host::start(server, workload, plan.server_core)?;
    match (verify::thorough(host.addr, workload), server.flaw) {
        (Err(e), Some(flaw)) => eprintln!("{}: {flaw} ({e})", server.name),
        (verified, _) => verified?,
    }
    host.stop()
}

/// Where a server runs.
enum Place {
    Here(Host),
    Apart(Apart),
}

impl Place {
    fn start(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<Place> {
        let core = plan.server_core;
        Ok(if workload.is_large() {
            Place::Apart(Apart::start(server, workload, core)?)
        } else {
            Place::Here(Host::start(server, workload, core)?)
        })
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Place::Here(host) => host.addr,
            Place::Apart(apart) => apart.addr,
        }
    }

    fn usage(&mut self) -> io::Result<Usage> {
        match self {
            Place::Here(host) => host.usage(),
            Place::Apart(apart) => apart.usage(),
        }
    }

    fn stop(self) -> io::Result<()> {
        match self {
            Place::Here(host) => host.stop(),
            Place::Apart(apart) => apart.stop(),
        }
    }
}

/// A server with its client, on fresh threads, buffers and connections in each round.
struct Pair {
    place: Place,
    pattern: Pattern,
    client: Client,
    ops: u64,
    wall: Duration,
    usage: Usage,
    client_idle: Duration,
}

/// Large workloads: one server after the other, with all its slices.
fn one_by_one(
    plan: &Plan,
    round: usize,
    series: &mut [Series],
    mut failed: impl FnMut(&Server, io::Error),
) {
    for index in order(round, series.len()) {
        let series = &mut series[index];
        if series.failed {
            continue;
        }
        match alone(plan, series.server, &series.asked) {
            Ok(sample) => series.samples.push(sample),
            Err(e) => {
                series.failed = true;
                failed(series.server, e);
            }
        }
    }
}

/// Adds a sample to each series, but for those that have failed.
fn round(plan: &Plan, series: &mut [Series], mut failed: impl FnMut(&Server, io::Error)) {
    let mut pairs = Vec::new();
    for series in series.iter_mut().filter(|series| !series.failed) {
        match Pair::start(plan, series.server, &series.asked) {
            Ok(pair) => pairs.push((series, pair)),
            Err(e) => {
                series.failed = true;
                failed(series.server, e);
            }
        }
    }
    for slice in 0..plan.slices {
        for index in order(slice, pairs.len()) {
            let (series, pair) = &mut pairs[index];
            if series.failed {
                continue;
            }
            if let Err(e) = pair.slice(plan) {
                series.failed = true;
                failed(series.server, e);
            }
        }
    }
    for (series, pair) in pairs.into_iter().filter(|(series, _)| !series.failed) {
        match pair.finish() {
            Ok(sample) => series.samples.push(sample),
            Err(e) => {
                series.failed = true;
                failed(series.server, e);
            }
        }
    }
}

/// A round of one server by itself.
pub fn alone(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<Sample> {
    let mut pair = Pair::start(plan, server, workload)?;
    for _ in 0..plan.slices {
        pair.slice(plan)?;
    }
    pair.finish()
}

/// Every slice begins with another server, and every second one runs backwards, so that no server has always the same
/// place or the same predecessor.
pub fn order(slice: usize, servers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers).map(|place| (place + slice / 2) % servers).collect();
    if slice % 2 == 1 {
        order.reverse();
    }
    order
}

impl Pair {
    fn start(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<Pair> {
        let place = Place::start(plan, server, workload)?;
        let answer_size = verify::probe(place.addr(), workload)?;
        let client = Client::connect(place.addr(), workload, answer_size)?;
        Ok(Pair {
            place,
            pattern: workload.pattern,
            client,
            ops: 0,
            wall: Duration::ZERO,
            usage: Usage::default(),
            client_idle: Duration::ZERO,
        })
    }

    /// As long as planned, or until something was answered.
    fn slice(&mut self, plan: &Plan) -> io::Result<()> {
        if self.pattern == Pattern::Fan {
            return self.whole(plan);
        }
        self.client.start()?;
        self.client.run(Until::Time(Instant::now() + plan.warm_up))?;
        let usage = self.place.usage()?;
        let begin = Instant::now();
        let mut ops = self.client.run(Until::Time(begin + plan.interval))?;
        while ops == 0 {
            ops = self.client.run(Until::Time(Instant::now() + plan.interval))?;
        }
        self.ops += ops;
        self.wall += begin.elapsed();
        self.usage += self.place.usage()? - usage;
        self.client_idle += self.client.idle();
        self.client.run(Until::Silence).map(drop)
    }

    /// A slice from silence to silence: a few long operations, of which none may be counted by halves.
    fn whole(&mut self, plan: &Plan) -> io::Result<()> {
        self.client.start()?;
        self.client.run(Until::Silence)?;
        let usage = self.place.usage()?;
        let begin = Instant::now();
        self.client.start()?;
        self.ops += self.client.run(Until::Time(begin + plan.interval))?;
        self.client_idle += self.client.idle();
        self.ops += self.client.run(Until::Silence)?;
        self.client_idle += self.client.idle();
        self.wall += begin.elapsed();
        self.usage += self.place.usage()? - usage;
        Ok(())
    }

    fn finish(self) -> io::Result<Sample> {
        let Pair { place, mut client, ops, wall, usage, client_idle, .. } = self;
        let quantile = |q| Duration::from_nanos(client.latency().value_at_quantile(q));
        let [latency_p50, latency_p99] = [0.5, 0.99].map(quantile);
        drop(client);
        place.stop()?;
        Ok(Sample { ops, wall, usage, client_idle, latency_p50, latency_p99 })
    }
}
