//! Alternating rounds: in each, every server has a fresh thread and fresh connections, and they take turns in slices
//! much shorter than the moods of a shared machine (its speed may change for seconds), so that all meet the same ones.
//! Between its slices a server is idle, and asleep.

use crate::client::{Client, Until};
use crate::host::Host;
use crate::servers::Server;
use crate::site::Usage;
use crate::verify;
use crate::workload::Workload;
use std::io::{self, IsTerminal, Write};
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

/// The samples of one server under one workload, one for each round.
pub struct Series {
    pub server: &'static Server,
    pub samples: Vec<Sample>,
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

pub fn run(
    plan: &Plan,
    servers: &[&'static Server],
    workloads: &[&'static Workload],
) -> io::Result<Vec<Outcome>> {
    let mut progress = Progress { done: 0, of: plan.rounds * workloads.len() };
    let mut outcomes = Vec::new();
    for &workload in workloads {
        let asked = |&server: &&'static Server| Some((server, server.asked(workload)?));
        let servers: Vec<Asked> = servers.iter().filter_map(asked).collect();
        for (server, workload) in &servers {
            progress.show(&format!("{}: {} is checked", workload.name, server.name));
            let host = Host::start(server, workload, plan.server_core)?;
            let verified = verify::thorough(host.addr, workload);
            match (verified, server.flaw) {
                (Err(e), Some(flaw)) => eprintln!("{}: {flaw} ({e})", server.name),
                (verified, _) => verified.map_err(|e| blame(server, workload, e))?,
            }
            host.stop().map_err(|e| blame(server, workload, e))?;
        }
        let mut series: Vec<Series> = servers
            .iter()
            .map(|&(server, _)| Series { server, samples: Vec::with_capacity(plan.rounds) })
            .collect();
        for round in 0..plan.rounds {
            progress.show(&format!("{}: round {} of {}", workload.name, round + 1, plan.rounds));
            for (series, sample) in series.iter_mut().zip(self::round(plan, &servers)?) {
                series.samples.push(sample);
            }
            progress.done += 1;
        }
        outcomes.push(Outcome { workload, series });
    }
    progress.clear();
    Ok(outcomes)
}

/// A server, and the workload as it is put to it.
type Asked = (&'static Server, Workload);

/// A server with its client, on fresh threads, buffers and connections in each round.
struct Pair {
    host: Host,
    client: Client,
    ops: u64,
    wall: Duration,
    usage: Usage,
    client_idle: Duration,
}

fn round(plan: &Plan, servers: &[Asked]) -> io::Result<Vec<Sample>> {
    let start = |(server, workload): &Asked| {
        Pair::start(plan, server, workload).map_err(|e| blame(server, workload, e))
    };
    let mut pairs = servers.iter().map(start).collect::<io::Result<Vec<_>>>()?;
    for slice in 0..plan.slices {
        for index in order(slice, servers.len()) {
            let (server, workload) = &servers[index];
            pairs[index].slice(plan).map_err(|e| blame(server, workload, e))?;
        }
    }
    let finish = |(pair, (server, workload)): (Pair, &Asked)| {
        pair.finish().map_err(|e| blame(server, workload, e))
    };
    pairs.into_iter().zip(servers).map(finish).collect()
}

/// Every slice begins with another server, and every second one runs backwards, so that no server has always the same
/// place or the same predecessor.
fn order(slice: usize, servers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers).map(|place| (place + slice / 2) % servers).collect();
    if slice % 2 == 1 {
        order.reverse();
    }
    order
}

fn blame(server: &Server, workload: &Workload, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} under {}: {error}", server.name, workload.name))
}

impl Pair {
    fn start(plan: &Plan, server: &'static Server, workload: &Workload) -> io::Result<Pair> {
        let host = Host::start(server, workload, plan.server_core)?;
        let answer_size = verify::probe(host.addr, workload)?;
        let client = Client::connect(host.addr, workload, answer_size)?;
        let (wall, client_idle) = (Duration::ZERO, Duration::ZERO);
        Ok(Pair { host, client, ops: 0, wall, usage: Usage::default(), client_idle })
    }

    fn slice(&mut self, plan: &Plan) -> io::Result<()> {
        self.client.start()?;
        self.client.run(Until::Time(Instant::now() + plan.warm_up))?;
        let usage = self.host.usage()?;
        let begin = Instant::now();
        self.ops += self.client.run(Until::Time(begin + plan.interval))?;
        self.wall += begin.elapsed();
        self.usage += self.host.usage()? - usage;
        self.client_idle += self.client.idle();
        self.client.run(Until::Silence).map(drop)
    }

    fn finish(self) -> io::Result<Sample> {
        let Pair { host, client, ops, wall, usage, client_idle } = self;
        let quantile = |q| Duration::from_nanos(client.latency().value_at_quantile(q));
        let (latency_p50, latency_p99) = (quantile(0.5), quantile(0.99));
        drop(client);
        host.stop()?;
        if ops == 0 {
            return Err(io::Error::other("not one operation was finished"));
        }
        Ok(Sample { ops, wall, usage, client_idle, latency_p50, latency_p99 })
    }
}

/// One line that is written over on a terminal; elsewhere every tenth is shown.
struct Progress {
    done: usize,
    of: usize,
}

impl Progress {
    fn show(&self, what: &str) {
        let mut stderr = io::stderr();
        let _ = if stderr.is_terminal() {
            write!(stderr, "\r\x1b[K[{}/{}] {what}", self.done, self.of)
        } else if self.done.is_multiple_of(10) {
            writeln!(stderr, "[{}/{}] {what}", self.done, self.of)
        } else {
            Ok(())
        };
    }

    fn clear(&self) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
