//! N clients that each send 1 KiB and read it back, once, all at the same time: how long that takes, for ever larger N.
//! The first of gaio's benchmarks, with the server in a process of its own.

use crate::apart::Apart;
use crate::client::{Client, Until};
use crate::closed::Closed;
use crate::figures::{Line, Spread};
use crate::interrupt;
use crate::measure;
use crate::progress::Progress;
use crate::servers::Server;
use crate::verify;
use crate::workload::Workload;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

const WORKLOAD: &str = "echo-1k";
/// Numbers of clients: this many times the step of the plan.
const STEPS: usize = 12;
/// About: to connect one client, and for one message.
const CONNECT: Duration = Duration::from_micros(60);
const MESSAGE: Duration = Duration::from_micros(12);

#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// How often all clients ask, at each number of them.
    pub waves: usize,
    pub step: usize,
}

pub struct Outcome {
    pub plan: Plan,
    pub crowds: Vec<Crowd>,
}

pub struct Crowd {
    pub server: &'static Server,
    /// By number of clients, from the smallest.
    pub points: Vec<Point>,
}

pub struct Point {
    pub clients: usize,
    /// Of each wave: from the first byte sent to the last received, and the server's processor time.
    pub seconds: Vec<f64>,
    pub cpu_seconds: Vec<f64>,
}

impl Plan {
    pub fn duration(&self, servers: usize) -> Duration {
        let asked: usize = (1..=STEPS).map(|count| count * self.step).sum();
        let once = CONNECT * (STEPS * self.step) as u32 + MESSAGE * (asked * self.waves) as u32;
        once * (self.rounds * servers) as u32
    }
}

impl Crowd {
    /// Median seconds over the number of clients: the slope is what one client more takes.
    pub fn line(&self) -> Option<Line> {
        let point = |point: &Point| (point.clients as f64, point.spread().median);
        Line::through(&self.points.iter().map(point).collect::<Vec<_>>())
    }
}

impl Point {
    /// Of the seconds.
    pub fn spread(&self) -> Spread {
        Spread::of(self.seconds.iter().copied())
    }
}

/// Whether a second entry of the same code is left out: the scatter around the line shows the noise.
pub fn measures(server: &Server) -> bool {
    !server.again
        && Workload::find(WORKLOAD).is_some_and(|workload| server.asked(workload).is_some())
}

pub fn run(
    plan: &Plan,
    core: Option<usize>,
    servers: &[&'static Server],
    progress: &mut Progress,
) -> Outcome {
    let point =
        |count| Point { clients: count * plan.step, seconds: Vec::new(), cpu_seconds: Vec::new() };
    let crowd =
        |&server: &&'static Server| Crowd { server, points: (1..=STEPS).map(point).collect() };
    let mut crowds: Vec<Crowd> = servers.iter().filter(|s| measures(s)).map(crowd).collect();
    for round in 0..plan.rounds {
        for place in measure::order(round, crowds.len()) {
            let crowd = &mut crowds[place];
            if interrupt::asked() || crowd.points[0].seconds.len() < round * plan.waves {
                continue;
            }
            let name = crowd.server.name;
            progress.show(&format!("crowd: {name}, round {} of {}", round + 1, plan.rounds));
            if let Err(e) = grow(plan, core, crowd) {
                progress.problem(format!("a crowd of clients of {name}: {e}"));
            }
        }
    }
    crowds.retain(|crowd| crowd.points.iter().all(|point| !point.seconds.is_empty()));
    Outcome { plan: *plan, crowds }
}

/// One round: clients are added, none leaves.
fn grow(plan: &Plan, core: Option<usize>, crowd: &mut Crowd) -> io::Result<()> {
    let workload = Workload::find(WORKLOAD).ok_or(io::ErrorKind::NotFound)?;
    let mut server = Apart::start(crowd.server, workload, core)?;
    let answer_size = verify::probe(server.addr, workload)?;
    let none = Workload { connections: 0, active: 0, ..*workload };
    let mut client = Client::of(Closed::connect(server.addr, &none, answer_size)?);
    for point in &mut crowd.points {
        client.load.grow(server.addr, workload, plan.step)?;
        client.start()?;
        client.run(Until::Silence)?;
        for _ in 0..plan.waves {
            let cpu = server.usage()?.cpu;
            let begin = Instant::now();
            client.start()?;
            client.run(Until::Silence)?;
            point.seconds.push(begin.elapsed().as_secs_f64());
            point.cpu_seconds.push((server.usage()?.cpu - cpu).as_secs_f64());
        }
    }
    drop(client);
    server.stop()
}

pub fn table(outcome: &Outcome) -> String {
    let mut text = format!(
        "\nN clients send 1 KiB each and read it back, in ms: median of {} waves in {} rounds\n  {:<13}",
        outcome.plan.waves, outcome.plan.rounds, "server"
    );
    for count in 1..=STEPS {
        let _ = write!(text, "{:>8}", count * outcome.plan.step);
    }
    let _ = writeln!(text, "{:>14}{:>7}", "us a client", "R2");
    for crowd in &outcome.crowds {
        let _ = write!(text, "  {:<13}", crowd.server.name);
        for point in &crowd.points {
            let _ = write!(text, "{:>8.1}", point.spread().median * 1e3);
        }
        if let Some(line) = crowd.line() {
            let _ = write!(text, "{:>14.2}{:>7.3}", line.slope * 1e6, line.r_squared);
        }
        text.push('\n');
    }
    text
}

pub fn json(outcome: &Outcome) -> Value {
    let point = |point: &Point| {
        json!({
            "clients": point.clients,
            "seconds": point.spread().json(),
            "waves": { "seconds": point.seconds, "cpu_seconds": point.cpu_seconds },
        })
    };
    let crowd = |crowd: &Crowd| {
        json!({
            "server": crowd.server.name,
            "points": crowd.points.iter().map(point).collect::<Vec<_>>(),
            "line": crowd.line().map(Line::json),
        })
    };
    json!({
        "workload": WORKLOAD,
        "rounds": outcome.plan.rounds,
        "waves": outcome.plan.waves,
        "servers": outcome.crowds.iter().map(crowd).collect::<Vec<_>>(),
    })
}
