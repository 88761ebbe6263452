//! User-space memory of a server for each idle connection.
//!
//! The server runs in a child process of this same program, whose allocator counts; the clients are here. Two
//! measures of the child, which should agree: bytes that its allocator has handed out and not got back, and the growth
//! of its resident set (`Rss` of /proc/self/smaps_rollup, which is exact where statm lags). Sockets live in the kernel
//! and are in neither.

#[path = "loopback/host.rs"]
#[allow(dead_code, reason = "the clock is for loopback")]
mod host;
mod root;
#[path = "loopback/servers/mod.rs"]
#[allow(dead_code, reason = "the descriptions are for loopback")]
mod servers;
#[path = "loopback/site.rs"]
#[allow(dead_code, reason = "the clock is for loopback")]
mod site;
#[path = "loopback/sys.rs"]
#[allow(dead_code, reason = "the clock and the client's calls are for loopback")]
mod sys;
#[path = "loopback/verify.rs"]
#[allow(dead_code, reason = "the thorough part is for loopback")]
mod verify;
#[path = "loopback/websocket.rs"]
#[allow(dead_code, reason = "control frames are for loopback")]
mod websocket;
#[path = "loopback/workload.rs"]
#[allow(dead_code, reason = "the requests are for loopback")]
mod workload;

use host::Host;
use pico_args::Arguments;
use serde_json::{Value, json};
use servers::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, error, fs, thread};
use workload::{Protocol, Workload};

const HELP: &str = "\
cargo bench --bench memory -- [flags]

  --connections N     idle connections (10000)
  --rounds N          processes for each server; the median is shown (3)
  --only P            only this protocol: echo, http or ws
  --servers S,S...    only these servers
  --quick             one round
  --json FILE         write the figures as well
  --help
";

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WORKLOADS: [&str; 3] = ["echo-128", "http-1", "ws-128"];
/// Descriptors beside those of the connections.
const SPARE_FILES: u64 = 64;
const ANSWER_MAX: usize = 1024;
const WARM_CONNECTIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Until three readings in a row, this far apart, are the same.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_READINGS_MAX: usize = 250;

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

/// Memory of the child in bytes.
#[derive(Clone, Copy, PartialEq)]
struct Reading {
    live: i64,
    resident: i64,
}

/// Growth in bytes for each connection.
struct Growth {
    /// Accepted, and nothing sent yet.
    accepted: Reading,
    /// After one message or request each, answered.
    spoken: Reading,
    /// After all are closed.
    closed: Reading,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\nmemory: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    root::enter()?;
    let mut arguments = Arguments::from_env();
    arguments.contains("--bench");
    if arguments.contains("--help") {
        print!("{HELP}");
        return Ok(());
    }
    let quick = arguments.contains("--quick") || cfg!(debug_assertions);
    let connections = arguments.opt_value_from_str("--connections")?.unwrap_or(10_000);
    let rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(if quick { 1 } else { 3 });
    if connections == 0 || rounds == 0 {
        return Err("--connections and --rounds must be at least 1".into());
    }
    let wanted = connections as u64 + SPARE_FILES;
    let open_files = sys::raise_open_files(wanted)?;
    if open_files < wanted {
        let most = open_files.saturating_sub(SPARE_FILES);
        return Err(
            format!("only {open_files} open files are allowed: try --connections {most}").into()
        );
    }
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let wanted = |w: &&Workload| only.as_ref().is_none_or(|only| w.name.starts_with(only));
    let workloads: Vec<&Workload> =
        WORKLOADS.iter().filter_map(|name| Workload::find(name)).filter(wanted).collect();
    let first = workloads.first().ok_or("--only: echo, http or ws")?;
    if let Some(name) = arguments.opt_value_from_str::<_, String>("--serve")? {
        let server = Server::find(&name).ok_or("--serve: no such server")?;
        return serve(server, &server.asked(first).ok_or("--serve: another protocol")?);
    }
    let named: Option<String> = arguments.opt_value_from_str("--servers")?;
    let json: Option<PathBuf> = arguments.opt_value_from_str("--json")?;
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unknown arguments {rest:?}; --help lists them").into());
    }
    let servers: Vec<&Server> = match &named {
        None => servers::ALL.iter().filter(|server| !server.again).collect(),
        Some(names) => {
            let each =
                |name| Server::find(name).ok_or_else(|| format!("no server is called {name}"));
            names.split(',').map(each).collect::<std::result::Result<_, _>>()?
        }
    };
    let available = |server: &&Server| match (server.available)() {
        Ok(()) => true,
        Err(why) => {
            eprintln!("memory: {} is left out: {why}", server.name);
            false
        }
    };
    let servers: Vec<&Server> = servers.into_iter().filter(available).collect();
    let mut figures = Vec::new();
    for workload in workloads {
        let able: Vec<&Server> =
            servers.iter().filter(|s| s.asked(workload).is_some()).copied().collect();
        let measured = measure(&able, workload, connections, rounds)?;
        figures.push(json!({ "workload": workload.name, "servers": measured }));
    }
    if let Some(path) = &json {
        let text = format!(
            "{:#}\n",
            json!({ "connections": connections, "rounds": rounds, "workloads": figures })
        );
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

fn measure(
    servers: &[&Server],
    workload: &Workload,
    connections: usize,
    rounds: usize,
) -> Result<Vec<Value>> {
    println!(
        "\nbytes of user space for each of {connections} idle connections, median of {rounds} processes"
    );
    let spoken = match workload.protocol {
        Protocol::Http => "after a request",
        Protocol::WebSocket => "after 128 B, open",
        _ => "after 128 B of echo",
    };
    println!("  {:<13}{:>21}{:>26}{:>26}", "", "accepted", spoken, "kept after closing");
    let pair = ["allocated", "resident"];
    println!(
        "  {:<13}{:>11}{:>10}{:>16}{:>10}{:>16}{:>10}",
        "server", pair[0], pair[1], pair[0], pair[1], pair[0], pair[1]
    );
    let mut figures = Vec::new();
    for server in servers {
        let growths = (0..rounds)
            .map(|_| {
                growth(server, workload, connections).map_err(|e| format!("{}: {e}", server.name))
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let median = |figure: fn(&Growth) -> i64| {
            let mut sorted: Vec<i64> = growths.iter().map(figure).collect();
            sorted.sort_unstable();
            sorted[sorted.len() / 2] as f64 / connections as f64
        };
        let columns = [
            median(|growth| growth.accepted.live),
            median(|growth| growth.accepted.resident),
            median(|growth| growth.spoken.live),
            median(|growth| growth.spoken.resident),
            median(|growth| growth.closed.live),
            median(|growth| growth.closed.resident),
        ];
        let [a, b, c, d, e, f] = columns;
        println!("  {:<13}{a:>11.1}{b:>10.1}{c:>16.1}{d:>10.1}{e:>16.1}{f:>10.1}", server.name);
        figures.push(json!({
            "server": server.name,
            "accepted": { "allocated": a, "resident": b },
            "after_message": { "allocated": c, "resident": d },
            "after_close": { "allocated": e, "resident": f },
        }));
    }
    Ok(figures)
}

/// The child's side: a reading for each line of standard input, until that ends.
fn serve(server: &'static Server, workload: &Workload) -> Result<()> {
    let host = Host::start(server, workload, None)?;
    println!("{}", host.addr);
    for line in io::stdin().lines() {
        line?;
        let stats = ALLOCATOR.stats();
        let live = stats.bytes_allocated as i64 - stats.bytes_deallocated as i64;
        println!("{live} {}", resident()?);
    }
    Ok(host.stop()?)
}

fn resident() -> Result<i64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .ok_or("no Rss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<i64>()? * 1024)
}

fn growth(server: &Server, workload: &Workload, connections: usize) -> Result<Growth> {
    let workload = &server.asked(workload).ok_or("another protocol")?;
    let mut probe = Probe::start(server, workload, connections)?;
    let request = workload.request(7);
    let answer_size = verify::probe(probe.addr, workload)?;
    let ask = |stream: &mut TcpStream| -> io::Result<()> {
        stream.write_all(&request)?;
        stream.read_exact(&mut [0; ANSWER_MAX][..answer_size])
    };
    for _ in 0..WARM_CONNECTIONS {
        ask(&mut connect(probe.addr, workload)?)?;
    }
    let before = probe.settled()?;
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(connect(probe.addr, workload)?);
    }
    let last = streams.last_mut().ok_or("no connection")?;
    ask(last)?;
    let accepted = probe.settled()?;
    streams.iter_mut().try_for_each(ask)?;
    let spoken = probe.settled()?;
    drop(streams);
    let closed = probe.settled()?;
    let since = |now: Reading| Reading {
        live: now.live - before.live,
        resident: now.resident - before.resident,
    };
    Ok(Growth { accepted: since(accepted), spoken: since(spoken), closed: since(closed) })
}

fn connect(addr: SocketAddr, workload: &Workload) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    workload.open(&mut stream)?;
    Ok(stream)
}

/// The child process, which is killed when this goes out of scope.
struct Probe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Probe {
    fn start(server: &Server, workload: &Workload, connections: usize) -> Result<Probe> {
        let mut child = Command::new(env::current_exe()?)
            .args(["--serve", server.name, "--only", workload.name])
            .args(["--connections", &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe to the child")?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no pipe from the child")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| "the child did not start")?;
        Ok(Probe { child, input, output, addr })
    }

    fn reading(&mut self) -> Result<Reading> {
        writeln!(self.input)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let (live, resident) = line.trim().split_once(' ').ok_or("the child has ended")?;
        Ok(Reading { live: live.parse()?, resident: resident.parse()? })
    }

    /// A reading once the child has worked off what it was sent.
    fn settled(&mut self) -> Result<Reading> {
        let mut last = self.reading()?;
        let mut same = 0;
        for _ in 0..SETTLE_READINGS_MAX {
            thread::sleep(SETTLE);
            let reading = self.reading()?;
            same = if reading == last { same + 1 } else { 0 };
            last = reading;
            if same == 2 {
                return Ok(reading);
            }
        }
        Err("the child's memory does not settle".into())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
