//! Instructions that a server executes for each operation, counted by callgrind: the same on a busy machine as on an
//! idle one, so that a regression of a few percent shows and fails.
//!
//! The server runs in a child process under valgrind; the client is here, on one connection that waits for each
//! answer, so that the server does the same in every run. Each is counted with two numbers of operations; the
//! difference is free of start-up and stop. Instructions of the kernel are not counted.

mod firing;
#[path = "../loopback/host.rs"]
#[allow(dead_code, reason = "the clock is for loopback")]
mod host;
#[path = "../loopback/servers/mod.rs"]
#[allow(dead_code, reason = "the descriptions are for loopback")]
mod servers;
#[path = "../loopback/site.rs"]
#[allow(dead_code, reason = "the clock is for loopback")]
mod site;
#[path = "../loopback/sys.rs"]
#[allow(dead_code, reason = "the clock and the client's calls are for loopback")]
mod sys;
#[path = "../loopback/verify.rs"]
#[allow(dead_code, reason = "the thorough part is for loopback")]
mod verify;
#[path = "../loopback/websocket.rs"]
#[allow(dead_code, reason = "control frames are for loopback")]
mod websocket;
#[path = "../loopback/workload.rs"]
#[allow(dead_code, reason = "the title and the number of connections are for loopback")]
mod workload;

use host::Host;
use pico_args::Arguments;
use servers::Server;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, error, fs};
use workload::Workload;

const HELP: &str = "\
cargo bench --bench instructions -- [flags]

  --only C,C...       only these cases
  --help

Fails if a case needs more than its bound, which stands in benches/instructions/main.rs. Skipped without valgrind.
";

const TIMEOUT: Duration = Duration::from_secs(20);
/// What a bound leaves for another compiler or C library, and for the clock's rare work.
const SLACK: f64 = 1.04;

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

struct Case {
    name: &'static str,
    what: &'static str,
    kind: Kind,
    /// Operations of the short run; the long one has three times as many.
    operations: u64,
    /// Instructions of reev for each operation, as measured with rustc 1.95 on x86-64.
    measured: f64,
}

enum Kind {
    /// Messages of this workload of the loopback bench.
    Messages(&'static str),
    /// Connect, one message of this workload, close.
    Connections(&'static str),
    /// Timers that fire and are armed again, in the simulator, with so many pending.
    Timers(usize),
}

const CASES: &[Case] = &[
    Case {
        name: "echo-128",
        what: "an echo message of 128 B: one turn",
        kind: Kind::Messages("echo-128"),
        operations: 2000,
        measured: 1_041.0,
    },
    Case {
        name: "echo-64k",
        what: "an echo message of 64 KiB",
        kind: Kind::Messages("echo-64k"),
        operations: 500,
        measured: 1_182.0,
    },
    Case {
        name: "http-1",
        what: "a request: one turn",
        kind: Kind::Messages("http-1"),
        operations: 2000,
        measured: 3_006.0,
    },
    Case {
        name: "http-16",
        what: "16 pipelined requests: one turn",
        kind: Kind::Messages("http-16"),
        operations: 1000,
        measured: 8_813.0,
    },
    Case {
        name: "churn",
        what: "connect, an echo message of 128 B, close",
        kind: Kind::Connections("echo-128"),
        operations: 500,
        // The most seen: a client that is slow to close costs a turn or two more.
        measured: 6_000.0,
    },
    Case {
        name: "timers",
        what: "a timer fires and is armed again, 10,000 pending, simulated",
        kind: Kind::Timers(10_000),
        operations: 20_000,
        measured: 1_436.0,
    },
];

const GATED: &str = "reev";
const COMPARED: [&str; 3] = ["bare", GATED, "mio"];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("\ninstructions: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every case is within its bound.
fn run() -> Result<bool> {
    let mut arguments = Arguments::from_env();
    arguments.contains("--bench");
    if arguments.contains("--help") {
        print!("{HELP}");
        return Ok(true);
    }
    if let Some(name) = arguments.opt_value_from_str::<_, String>("--serve")? {
        let workload: String = arguments.value_from_str("--workload")?;
        return serve(&name, &workload).map(|()| true);
    }
    if let Some(fires) = arguments.opt_value_from_str("--fire")? {
        firing::Firing::new(arguments.value_from_str("--pending")?).fire(fires);
        return Ok(true);
    }
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unknown arguments {rest:?}; --help lists them").into());
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: instructions: valgrind is not installed (apt-get install valgrind)");
        return Ok(true);
    }
    if cfg!(debug_assertions) {
        return Err("built without optimisation: use cargo bench".into());
    }
    let wanted =
        |case: &&Case| only.as_ref().is_none_or(|only| only.split(',').any(|o| o == case.name));
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        return Err("--only: no such case".into());
    }
    println!("instructions for each operation, without the kernel's");
    println!(
        "  {:<10}{:>10}{:>10}{:>10}{:>14}  operation",
        "case", COMPARED[0], COMPARED[1], COMPARED[2], "reev's bound"
    );
    let mut within = true;
    for case in cases {
        within &= compare(case)?;
    }
    Ok(within)
}

fn compare(case: &Case) -> Result<bool> {
    let bound = case.measured * SLACK;
    print!("  {:<10}", case.name);
    let mut gated = f64::NAN;
    for name in COMPARED {
        if name != GATED && matches!(case.kind, Kind::Timers(_)) {
            print!("{:>10}", "");
            continue;
        }
        let figure = steady(case, name).map_err(|e| format!("{name}, {}: {e}", case.name))?;
        if name == GATED {
            gated = figure;
        }
        print!("{figure:>10.1}");
        io::stdout().flush()?;
    }
    println!("{bound:>14.1}  {}", case.what);
    if gated <= bound {
        return Ok(true);
    }
    println!(
        "  FAILED: {} needs {gated:.1} instructions, {:.1} % above what was measured. If that is the price of\n  \
         something worth it, or of another compiler, change `measured` in benches/instructions/main.rs.",
        case.name,
        (gated / case.measured - 1.0) * 100.0
    );
    Ok(false)
}

/// Instructions for each operation, from two runs of different length.
fn steady(case: &Case, server: &str) -> Result<f64> {
    let short = count(case, server, case.operations)?;
    let long = count(case, server, 3 * case.operations)?;
    Ok((long as f64 - short as f64) / (2 * case.operations) as f64)
}

fn count(case: &Case, server: &str, operations: u64) -> Result<u64> {
    let log = env::temp_dir().join(format!("reev-bench-callgrind-{}", process::id()));
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", log.display()))
        .arg(env::current_exe()?);
    let ran = match case.kind {
        Kind::Messages(name) => {
            let workload = Workload::find(name).ok_or("no such workload")?;
            serve_under(command, server, workload, |addr, answer_size| {
                let mut client = Client::connect(addr, workload, answer_size)?;
                (0..operations).try_for_each(|_| client.ask())
            })
        }
        Kind::Connections(name) => {
            let workload = Workload::find(name).ok_or("no such workload")?;
            serve_under(command, server, workload, |addr, answer_size| {
                (0..operations).try_for_each(|_| {
                    Client::connect(addr, workload, answer_size).and_then(|mut c| c.ask())
                })
            })
        }
        Kind::Timers(pending) => {
            let arguments = ["--fire", &operations.to_string(), "--pending", &pending.to_string()];
            succeed(command.args(arguments).spawn()?)
        }
    };
    let collected = collected(&log);
    let _ = fs::remove_file(&log);
    ran?;
    collected
}

/// The figure of the log's line `==1== Collected : 123`.
fn collected(log: &PathBuf) -> Result<u64> {
    let text = fs::read_to_string(log)?;
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    Ok(line.ok_or("valgrind's log has no count")?.1.trim().parse()?)
}

fn serve_under(
    mut command: Command,
    server: &str,
    workload: &Workload,
    load: impl FnOnce(SocketAddr, usize) -> io::Result<()>,
) -> Result<()> {
    let mut child = command
        .args(["--serve", server, "--workload", workload.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let loaded = || -> Result<()> {
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe from the child")?)
            .read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| "the child under valgrind did not start")?;
        let answer_size = verify::probe(addr, workload)?;
        Ok(load(addr, answer_size)?)
    };
    let loaded = loaded();
    drop(child.stdin.take());
    loaded.and(succeed(child))
}

fn succeed(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the child ended with {status}").into()) }
}

/// The child's side: serves until its standard input ends.
fn serve(server: &str, workload: &str) -> Result<()> {
    let server = Server::find(server).ok_or("--serve: no such server")?;
    let workload = Workload::find(workload).ok_or("--workload: no such workload")?;
    let host = Host::start(server, workload, None)?;
    println!("{}", host.addr);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(host.stop()?)
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr, workload: &Workload, answer_size: usize) -> io::Result<Client> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        workload.open(&mut stream)?;
        Ok(Client { stream, request: workload.request(1), answer: vec![0; answer_size] })
    }

    fn ask(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.request)?;
        self.stream.read_exact(&mut self.answer)
    }
}
