//! Operations per second and processor time per operation of several servers, side by side.
//!
//! One server at a time, its thread on one core and the client's on another, in alternating rounds on the same work;
//! `--help` for the flags. Figures are ratios to the first server, a bare epoll loop, which runs a second time under
//! another name so that each run shows its own noise.

mod client;
mod host;
mod measure;
mod report;
mod servers;
mod site;
mod sys;
mod syscalls;
mod verify;
mod websocket;
mod workload;

use core_affinity::CoreId;
use measure::Plan;
use pico_args::Arguments;
use report::Machine;
use servers::Server;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{error, fs};
use syscalls::Cores;
use workload::Workload;

const WARM_UP: Duration = Duration::from_millis(15);
const INTERVAL: Duration = Duration::from_millis(60);
/// For all servers of a round and their clients.
const OPEN_FILES: u64 = 8192;

const HELP: &str = "\
cargo bench --bench loopback -- [flags]

  --quick             3 short rounds: a look, not a result
  --rounds N          rounds, each on fresh threads and connections (9)
  --slices N          turns of each server in a round, 60 ms each (8)
  --only W,W...       only these workloads
  --servers S,S...    only these servers (the first, bare, always runs: ratios are to it)
  --cores S,C         the cores of the server and of the client (the last and the first there are)
  --json FILE         write every figure of every round as well
  --syscalls          count system calls with strace instead of measuring time
  --list              the names of the workloads and servers
  --help
";

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

struct Flags {
    plan: Plan,
    client_core: Option<usize>,
    servers: Vec<&'static Server>,
    workloads: Vec<&'static Workload>,
    json: Option<PathBuf>,
    syscalls: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\nloopback: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = Arguments::from_env();
    arguments.contains("--bench");
    if arguments.contains("--help") {
        print!("{HELP}");
        return Ok(());
    }
    if arguments.contains("--list") {
        list();
        return Ok(());
    }
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let workloads = select(only.as_deref(), workload::ALL, Workload::find, "workload")?;
    if let Some(name) = arguments.opt_value_from_str::<_, String>("--serve")? {
        let server = Server::find(&name).ok_or("--serve: no such server")?;
        return Ok(syscalls::serve(server, workloads[0])?);
    }
    let flags = flags(arguments, workloads)?;
    if flags.syscalls {
        if !syscalls::installed() {
            return Err(
                "--syscalls needs strace, which is not installed (apt-get install strace)".into()
            );
        }
        println!("{}", Machine::this().line());
        let cores = Cores { server: flags.plan.server_core, client: flags.client_core };
        return Ok(syscalls::run(&flags.servers, &flags.workloads, cores)?);
    }
    time(&flags)
}

fn time(flags: &Flags) -> Result<()> {
    sys::raise_open_files(OPEN_FILES)?;
    let machine = Machine::this();
    println!("{}", machine.line());
    if cfg!(debug_assertions) {
        println!("built without optimisation: this only shows that everything runs");
    }
    match flags.client_core {
        Some(id) if core_affinity::set_for_current(CoreId { id }) => {
            println!(
                "server on core {}, client on core {id}",
                flags.plan.server_core.unwrap_or_default()
            );
        }
        _ => println!("not pinned: this process may use only one core, so the figures mean little"),
    }
    let seconds = flags.plan.duration(&flags.servers, &flags.workloads).as_secs_f64();
    eprintln!("about {:.0} s", seconds * 1.1);
    let outcomes = measure::run(&flags.plan, &flags.servers, &flags.workloads)?;
    for outcome in &outcomes {
        print!("{}", report::table(outcome));
    }
    println!("{}", report::legend(&flags.plan));
    if let Some(path) = &flags.json {
        let text = format!("{:#}\n", report::json(&machine, &flags.plan, &outcomes));
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

fn flags(mut arguments: Arguments, workloads: Vec<&'static Workload>) -> Result<Flags> {
    let quick = arguments.contains("--quick") || cfg!(debug_assertions);
    let rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(if quick { 3 } else { 9 });
    let slices = arguments.opt_value_from_str("--slices")?.unwrap_or(if quick { 4 } else { 8 });
    if rounds == 0 || slices == 0 {
        return Err("--rounds and --slices must be at least 1".into());
    }
    let named: Option<String> = arguments.opt_value_from_str("--servers")?;
    let mut servers = select(named.as_deref(), servers::ALL, Server::find, "server")?;
    let base = &servers::ALL[0];
    servers.retain(|server| server.name != base.name);
    servers.insert(0, base);
    let (server_core, client_core) = match arguments.opt_value_from_str::<_, String>("--cores")? {
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
    let flags = Flags {
        plan: Plan { rounds, slices, warm_up: WARM_UP, interval: INTERVAL, server_core },
        client_core,
        servers,
        workloads,
        json: arguments.opt_value_from_str("--json")?,
        syscalls: arguments.contains("--syscalls"),
    };
    let rest = arguments.finish();
    if rest.is_empty() {
        Ok(flags)
    } else {
        Err(format!("unknown arguments {rest:?}; --help lists them").into())
    }
}

fn select<T>(
    names: Option<&str>,
    all: &'static [T],
    find: fn(&str) -> Option<&'static T>,
    kind: &str,
) -> Result<Vec<&'static T>> {
    let Some(names) = names else { return Ok(all.iter().collect()) };
    let each = |name| {
        find(name).ok_or_else(|| format!("no {kind} is called {name}; --list shows them").into())
    };
    names.split(',').map(each).collect()
}

fn list() {
    println!("workloads");
    for workload in workload::ALL {
        println!("  {:<13}{}", workload.name, workload.title);
    }
    println!("servers");
    for server in servers::ALL {
        println!("  {:<13}{}", server.name, server.what);
    }
}
