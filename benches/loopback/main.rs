//! Several servers side by side: operations per second and processor time, latency at fixed rates, the cost of more
//! connections, system calls, memory; and timers beside other queues.
//!
//! One server at a time, its thread on one core and the client's on another, in alternating rounds on the same work;
//! `--help` for the flags. Figures are ratios to the first server, a bare epoll loop, which runs a second time under
//! another name so that each run shows its own noise.

mod apart;
mod churn;
mod client;
mod closed;
mod crowd;
mod datagrams;
mod fan;
mod figures;
#[path = "../instructions/firing.rs"]
mod firing;
mod footprint;
mod growth;
mod host;
mod interrupt;
mod latency;
mod machine;
mod measure;
mod open_loop;
mod page;
mod plots;
mod progress;
mod report;
mod results;
#[path = "../root.rs"]
mod root;
mod scale;
mod servers;
mod site;
mod sys;
mod syscalls;
mod timers;
mod verify;
mod websocket;
mod workload;

use core_affinity::CoreId;
use footprint::Footprint;
use machine::Machine;
use pico_args::Arguments;
use progress::Progress;
use results::Results;
use scale::Scale;
use servers::Server;
use std::error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use syscalls::Cores;
use workload::Workload;

/// For all servers of a round and their clients.
const OPEN_FILES: u64 = 13_000;
/// Of the part called cores.
const SPREAD_WORKLOADS: &[&str] = &["echo-128", "http-16", "ws-128"];
/// About, for one server under one workload.
const SYSCALLS_TIME: Duration = Duration::from_millis(1500);
const MEMORY_TIME: Duration = Duration::from_secs(30);

const HELP: &str = "\
cargo bench --bench loopback -- [flags]

  --quick             short rounds: a look, not a result
  --tiny              only to see that it runs
  --parts P,P...      only these parts of the whole
  --only W,W...       only these workloads
  --servers S,S...    only these servers (the first, bare, always runs: ratios are to it)
  --rounds N          rounds of the part called throughput, each on fresh threads and connections
  --slices N          turns of each server in such a round
  --reactors N        threads of each server, or cores; of servers and workloads for which that means something
  --cores S,C         the cores of the server and of the client (the last and the first there are)
  --out DIR           where the results are written (docs/bench; target/bench, if not all is measured)
  --list              the names of the parts, the workloads and the servers
  --help
";

/// In this order: memory is measured before this thread is pinned.
const PARTS: &[Part] = &[
    Part { name: "memory", what: "user-space bytes for each idle connection", kind: Kind::Memory },
    Part {
        name: "throughput",
        what: "operations per second and processor time",
        kind: Kind::Throughput,
    },
    Part {
        name: "cores",
        what: "the same with a thread of each server on every core",
        kind: Kind::Cores,
    },
    Part { name: "latency", what: "latency at fixed rates, open loop", kind: Kind::Latency },
    Part { name: "connections", what: "cost by number of connections", kind: Kind::Growth },
    Part { name: "crowd", what: "seconds until N clients are answered", kind: Kind::Crowd },
    Part { name: "timers", what: "timers beside other queues", kind: Kind::Timers },
    Part {
        name: "syscalls",
        what: "system calls for each message, by strace",
        kind: Kind::Syscalls,
    },
];

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

struct Part {
    name: &'static str,
    what: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Throughput,
    Cores,
    Latency,
    Growth,
    Crowd,
    Timers,
    Syscalls,
}

struct Flags {
    scale: &'static Scale,
    parts: Vec<&'static Part>,
    throughput: scale::Size,
    spread: scale::Size,
    cores: Cores,
    servers: Vec<&'static Server>,
    workloads: Vec<&'static Workload>,
    spread_workloads: Vec<&'static Workload>,
    latency_workloads: Vec<&'static Workload>,
    syscalls_workloads: Vec<&'static Workload>,
    out: PathBuf,
    /// How many are allowed.
    open_files: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("loopback: not all was measured, see above");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("\nloopback: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all that was asked for was measured.
fn run() -> Result<bool> {
    root::enter()?;
    let mut arguments = Arguments::from_env();
    arguments.contains("--bench");
    if arguments.contains("--help") {
        print!("{HELP}");
        return Ok(true);
    }
    if arguments.contains("--list") {
        list();
        return Ok(true);
    }
    if let Some(name) = arguments.opt_value_from_str::<_, String>("--serve")? {
        let server = Server::find(&name).ok_or("--serve: no such server")?;
        let workload: String = arguments.value_from_str("--only")?;
        let workload = Workload::find(&workload).ok_or("--serve: no such workload")?;
        let core = arguments.opt_value_from_str("--core")?;
        let reactors = arguments.opt_value_from_str("--reactors")?.unwrap_or(1);
        apart::serve(server, &Workload { reactors, ..*workload }, core, OPEN_FILES)?;
        return Ok(true);
    }
    let mut flags = flags(arguments)?;
    interrupt::listen()?;
    let machine = Machine::this();
    println!("{}", machine.line());
    if cfg!(debug_assertions) {
        println!("built without optimisation: this only shows that everything runs");
    }
    let [plan, cores_plan] =
        [flags.throughput, flags.spread].map(|size| size.closed_loop(flags.cores.server));
    let mut results = Results::new(machine, plan, cores_plan);
    let mut progress =
        Progress::new(flags.parts.iter().map(|part| flags.duration(part.kind)).sum());
    flags.servers.retain(|server| match (server.available)() {
        Ok(()) => true,
        Err(why) => {
            progress.remark(format!("{} is left out: {why}", server.name));
            false
        }
    });
    for part in &flags.parts {
        if part.kind != Kind::Memory {
            flags.pin();
        }
        part.kind.measure(&flags, &mut results, &mut progress);
        if interrupt::asked() {
            progress.problem(format!("interrupted during {}", part.name));
        }
        results.write(&flags.out, progress.remarks())?;
        if interrupt::asked() {
            break;
        }
    }
    progress.clear();
    println!("\nwritten to {}", flags.out.display());
    Ok(!progress.failed())
}

impl Kind {
    fn measure(self, flags: &Flags, results: &mut Results, progress: &mut Progress) {
        let Flags { scale, servers, cores, .. } = flags;
        match self {
            Kind::Memory => memory(flags, results, progress),
            Kind::Throughput => {
                results.throughput = throughput(&results.plan, servers, &flags.workloads, progress);
            }
            Kind::Cores => {
                results.cores =
                    throughput(&results.cores_plan, servers, &flags.spread_workloads, progress);
            }
            Kind::Latency => latencies(flags, results, progress),
            Kind::Growth => {
                let plan = scale.growth.closed_loop(cores.server);
                let outcome = growth::run(&plan, servers, flags.open_files, progress);
                progress.clear();
                print!("{}", growth::table(&outcome));
                results.growth = Some(outcome);
            }
            Kind::Crowd => {
                let outcome = crowd::run(&scale.crowd, cores.server, servers, progress);
                progress.clear();
                print!("{}", crowd::table(&outcome));
                results.crowd = Some(outcome);
            }
            Kind::Timers => {
                let outcome = timers::run(&scale.timers, progress);
                progress.clear();
                print!("{}", timers::table(&outcome));
                results.timers = Some(outcome);
            }
            Kind::Syscalls => system_calls(flags, results, progress),
        }
    }
}

fn memory(flags: &Flags, results: &mut Results, progress: &mut Progress) {
    let scale::Memory { connections, rounds } = flags.scale.memory;
    if rounds == 0 {
        return;
    }
    progress.show("memory: cargo bench --bench memory");
    let file = target().join("memory.json");
    match Footprint::measure(connections, rounds, &file) {
        Ok(footprint) => {
            progress.clear();
            print!("{}", footprint.table());
            results.footprint = Some(footprint);
        }
        Err(e) => progress.problem(format!("no memory: {e}")),
    }
}

fn throughput(
    plan: &measure::Plan,
    servers: &[&'static Server],
    workloads: &[&'static Workload],
    progress: &mut Progress,
) -> Vec<measure::Outcome> {
    let mut outcomes = Vec::new();
    for &workload in workloads {
        if interrupt::asked() {
            return outcomes;
        }
        let Some(outcome) = measure::run(plan, servers, workload, progress) else {
            progress.problem(format!("{}: nothing to compare with", workload.name));
            continue;
        };
        progress.clear();
        print!("{}", report::table(&outcome));
        outcomes.push(outcome);
    }
    if !outcomes.is_empty() {
        println!("{}", report::legend(plan));
    }
    outcomes
}

fn latencies(flags: &Flags, results: &mut Results, progress: &mut Progress) {
    let plan = flags.scale.latency.open_loop(flags.cores.server);
    for &workload in &flags.latency_workloads {
        if interrupt::asked() {
            return;
        }
        match latency::run(&plan, &flags.servers, workload, progress) {
            Ok(outcome) => {
                progress.clear();
                print!("{}", latency::table(&outcome));
                results.latency.push(outcome);
            }
            Err(e) => progress.problem(format!("latency under {}: {e}", workload.name)),
        }
    }
}

fn system_calls(flags: &Flags, results: &mut Results, progress: &mut Progress) {
    if !syscalls::possible() {
        progress.remark(
            "no system calls: strace is not there (apt-get install strace), or may not trace",
        );
        return;
    }
    for &workload in &flags.syscalls_workloads {
        if interrupt::asked() {
            return;
        }
        let waves = flags.scale.waves;
        let counted = syscalls::run(&flags.servers, workload, flags.cores, waves, progress);
        progress.clear();
        print!("{}", syscalls::table(&counted));
        results.syscalls.push(counted);
    }
}

impl Flags {
    /// How long a part takes, about.
    fn duration(&self, part: Kind) -> Duration {
        let Flags { scale, servers, workloads, cores, .. } = self;
        let count = |kept: &dyn Fn(&Server) -> bool| servers.iter().filter(|s| kept(s)).count();
        match part {
            Kind::Memory if scale.memory.rounds > 0 => MEMORY_TIME,
            Kind::Memory => Duration::ZERO,
            Kind::Throughput => {
                self.throughput.closed_loop(cores.server).duration(servers, workloads).mul_f64(1.1)
            }
            Kind::Cores => {
                self.spread.closed_loop(cores.server).duration(servers, &self.spread_workloads)
            }
            Kind::Latency => {
                let plan = scale.latency.open_loop(cores.server);
                let each = |w: &&Workload| plan.duration(count(&|s| latency::measures(s, w)));
                self.latency_workloads.iter().map(each).sum()
            }
            Kind::Growth => {
                growth::duration(&scale.growth.closed_loop(cores.server), count(&growth::measures))
            }
            Kind::Crowd => scale.crowd.duration(count(&crowd::measures)),
            Kind::Timers => scale.timers.duration(),
            Kind::Syscalls if !syscalls::possible() => Duration::ZERO,
            Kind::Syscalls => {
                let each = |w: &&Workload| count(&|s| latency::measures(s, w));
                SYSCALLS_TIME * self.syscalls_workloads.iter().map(each).sum::<usize>() as u32
            }
        }
    }

    /// This thread, which is the client; servers pin themselves.
    fn pin(&self) {
        match self.cores.client {
            Some(id) if core_affinity::set_for_current(CoreId { id }) => {}
            _ => eprintln!(
                "not pinned: this process may use only one core, so the figures mean little"
            ),
        }
    }
}

/// Where results go that are not to replace those of a whole run.
fn target() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).join("bench")
}

fn flags(mut arguments: Arguments) -> Result<Flags> {
    let quick = arguments.contains("--quick") || cfg!(debug_assertions);
    let scale = match (arguments.contains("--tiny"), quick) {
        (true, _) => &scale::TINY,
        (_, true) => &scale::QUICK,
        (_, false) => &scale::FULL,
    };
    let named: Option<String> = arguments.opt_value_from_str("--parts")?;
    let mut chosen = named.is_some();
    let find = |name: &str| PARTS.iter().find(|part| part.name == name);
    let parts = select(named.as_deref(), PARTS, find, "part")?;
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    chosen |= only.is_some();
    let workloads = select(only.as_deref(), workload::ALL, Workload::find, "workload")?;
    let reactors = reactors(arguments.opt_value_from_str("--reactors")?)?;
    chosen |= reactors > 1;
    let workloads = if reactors > 1 { with_reactors(&workloads, reactors) } else { workloads };
    let threads = thread::available_parallelism()?.get();
    // Of the workloads that are measured, some are enough for the slower parts, if nobody names any.
    let some = |names: &[&str]| -> Vec<&'static Workload> {
        let names = &names[..names.len().min(scale.some)];
        let kept = |w: &&&Workload| only.is_some() || names.contains(&w.name);
        workloads.iter().filter(kept).copied().collect()
    };
    let mut latency_workloads = some(latency::WORKLOADS);
    latency_workloads.retain(|workload| latency::suits(workload));
    let spread_workloads = match reactors {
        1 if threads > 1 => with_reactors(&some(SPREAD_WORKLOADS), threads),
        _ => Vec::new(),
    };
    let syscalls_workloads = some(syscalls::WORKLOADS);
    let named: Option<String> = arguments.opt_value_from_str("--servers")?;
    chosen |= named.is_some();
    let mut servers = select(named.as_deref(), servers::ALL, Server::find, "server")?;
    let base = &servers::ALL[0];
    servers.retain(|server| server.name != base.name);
    servers.insert(0, base);
    let asked = |w: &&Workload| servers.iter().filter(|s| s.asked(w).is_some()).count();
    let series = workloads.iter().map(asked).sum();
    let mut throughput = scale.throughput.within(scale.throughput_time, series);
    throughput.rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(throughput.rounds);
    throughput.slices = arguments.opt_value_from_str("--slices")?.unwrap_or(throughput.slices);
    if throughput.rounds == 0 || throughput.slices == 0 {
        return Err("--rounds and --slices must be at least 1".into());
    }
    let cores = cores(arguments.opt_value_from_str("--cores")?)?;
    let whole = !chosen && scale.name == scale::FULL.name;
    let results = root::folder().join("docs/bench");
    let out = arguments
        .opt_value_from_str("--out")?
        .unwrap_or_else(|| if whole { results } else { target() });
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unknown arguments {rest:?}; --help lists them").into());
    }
    Ok(Flags {
        scale,
        parts,
        throughput,
        spread: scale.spread,
        cores,
        servers,
        workloads,
        spread_workloads,
        latency_workloads,
        syscalls_workloads,
        out,
        open_files: sys::raise_open_files(OPEN_FILES)?,
    })
}

fn reactors(named: Option<String>) -> Result<usize> {
    match named.as_deref() {
        None => Ok(1),
        Some("cores") => Ok(thread::available_parallelism()?.get()),
        Some(number) => Ok(number.parse::<NonZero<usize>>()?.get()),
    }
}

/// They live as long as the process, like the others.
fn with_reactors(workloads: &[&Workload], reactors: usize) -> Vec<&'static Workload> {
    let more = |workload: &&Workload| {
        let title = format!("{}; {reactors} threads", workload.title);
        let more = Workload { reactors, title: String::leak(title), ..**workload };
        servers::ALL[0].asked(&more).is_some().then(|| &*Box::leak(more.into()))
    };
    workloads.iter().filter_map(more).collect()
}

fn cores(named: Option<String>) -> Result<Cores> {
    let (server, client) = match named {
        Some(text) => {
            let (server, client) =
                text.split_once(',').ok_or("--cores: expected two numbers, as in 1,0")?;
            (Some(server.parse()?), Some(client.parse()?))
        }
        None => match core_affinity::get_core_ids().as_deref() {
            Some([first, .., last]) => (Some(last.id), Some(first.id)),
            _ => (None, None),
        },
    };
    Ok(Cores { server, client })
}

fn select<T>(
    names: Option<&str>,
    all: &'static [T],
    find: impl Fn(&str) -> Option<&'static T>,
    kind: &str,
) -> Result<Vec<&'static T>> {
    let Some(names) = names else { return Ok(all.iter().collect()) };
    let each = |name| {
        find(name).ok_or_else(|| format!("no {kind} is called {name}; --list shows them").into())
    };
    names.split(',').map(each).collect()
}

fn list() {
    println!("parts");
    for part in PARTS {
        println!("  {:<13}{}", part.name, part.what);
    }
    println!("workloads");
    for workload in workload::ALL {
        println!("  {:<13}{}", workload.name, workload.title);
    }
    println!("servers");
    for server in servers::ALL {
        println!("  {:<13}{}", server.name, server.what);
    }
}
