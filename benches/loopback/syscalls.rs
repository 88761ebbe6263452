//! System calls per message, counted by strace around a server in a process of its own.
//!
//! Each server runs twice, the second time with more messages; the difference is the steady state, without start-up,
//! accepting and stopping. The client waits for all connections before it sends on any again: since strace slows the
//! server, a server that reads until there is nothing would otherwise never leave its first connection.

use crate::client::{Client, Until};
use crate::interrupt;
use crate::progress::Progress;
use crate::servers::Server;
use crate::verify;
use crate::workload::Workload;
use core_affinity::CoreId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::{env, fs, process};

/// The workloads of a whole run, the most important first.
pub const WORKLOADS: &[&str] = &["echo-128", "http-1", "ws-128", "http-16"];
/// `None` where there is only one: nothing is pinned.
#[derive(Clone, Copy)]
pub struct Cores {
    pub server: Option<usize>,
    pub client: Option<usize>,
}

pub type Counts = BTreeMap<String, f64>;

/// Whether strace is there and may trace.
pub fn possible() -> bool {
    let mut tried = Command::new("strace");
    tried.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    tried.status().is_ok_and(|status| status.success())
}

/// System calls for each message under one workload, by server and by name.
pub struct Counted {
    pub workload: &'static Workload,
    pub servers: Vec<(&'static Server, Counts)>,
}

pub fn run(
    servers: &[&'static Server],
    workload: &'static Workload,
    cores: Cores,
    waves: u64,
    progress: &mut Progress,
) -> Counted {
    let mut counted = Counted { workload, servers: Vec::new() };
    for server in servers.iter().filter(|server| !server.again) {
        let Some(asked) = server.asked(workload) else { continue };
        if interrupt::asked() {
            break;
        }
        let what = format!("system calls of {} under {}", server.name, workload.name);
        progress.show(&what);
        match steady(server, &asked, cores, waves) {
            Ok(per_message) => counted.servers.push((server, per_message)),
            Err(e) => progress.problem(format!("{what}: {e}")),
        }
    }
    counted
}

/// A message is what a client sends before it waits: an echo message, or the pipelined requests together.
pub fn table(counted: &Counted) -> String {
    let workload = counted.workload;
    let mut text = format!("\n{} ({}): system calls per message\n", workload.title, workload.name);
    for (server, per_message) in &counted.servers {
        let mut kinds: Vec<_> = per_message.iter().filter(|(_, count)| **count >= 0.0005).collect();
        kinds.sort_by(|a, b| b.1.total_cmp(a.1));
        let kinds: Vec<_> =
            kinds.iter().map(|(name, count)| format!("{name} {count:.3}")).collect();
        let total = counted.total(server);
        let _ = writeln!(text, "  {:<13}{total:>7.3}  {}", server.name, kinds.join(", "));
    }
    text
}

pub fn json(counted: &Counted) -> Value {
    let server =
        |(server, calls): &(&Server, Counts)| json!({ "server": server.name, "calls": calls });
    json!({
        "workload": counted.workload.name,
        "servers": counted.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

impl Counted {
    /// Calls of all kinds; not a number for a server that was not counted.
    pub fn total(&self, server: &Server) -> f64 {
        let found = self.servers.iter().find(|(other, _)| other.name == server.name);
        found.map_or(f64::NAN, |(_, calls)| calls.values().sum())
    }
}

/// `waves`: messages on each connection in the short run; the long one has three times as many.
fn steady(server: &Server, workload: &Workload, cores: Cores, waves: u64) -> io::Result<Counts> {
    let short = count(server, workload, cores, waves)?;
    let mut long = count(server, workload, cores, 3 * waves)?;
    for (name, calls) in &mut long {
        let before = short.get(name).copied().unwrap_or(0.0);
        *calls = (*calls - before) / (2 * waves * workload.connections as u64) as f64;
    }
    Ok(long)
}

fn count(server: &Server, workload: &Workload, cores: Cores, waves: u64) -> io::Result<Counts> {
    let summary = env::temp_dir().join(format!("reev-bench-strace-{}", process::id()));
    pin(cores.server);
    let mut child = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&summary)
        .arg(env::current_exe()?)
        .args(["--serve", server.name, "--only", workload.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    pin(cores.client);
    let mut load = || {
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe to the child"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line
            .trim()
            .parse()
            .map_err(|_| io::Error::other("the child under strace did not start"))?;
        let answer_size = verify::probe(addr, workload)?;
        let mut client = Client::connect(addr, workload, answer_size)?;
        for _ in 0..waves {
            client.start()?;
            client.run(Until::Silence)?;
        }
        Ok(())
    };
    let loaded: io::Result<()> = load();
    drop(child.stdin.take());
    child.wait()?;
    let text = fs::read_to_string(&summary);
    let _ = fs::remove_file(&summary);
    loaded?;
    Ok(parse(&text?))
}

/// Of this thread, and so of the children it starts. A core that does not exist was reported before.
fn pin(core: Option<usize>) {
    if let Some(id) = core {
        core_affinity::set_for_current(CoreId { id });
    }
}

/// Lines of `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(summary: &str) -> Counts {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let calls = columns.get(3)?.parse().ok()?;
        columns.last().filter(|name| **name != "total").map(|name| ((*name).to_owned(), calls))
    };
    summary.lines().filter_map(row).collect()
}
