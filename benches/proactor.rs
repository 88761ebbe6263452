//! The proactor's echo beside a bare blocking one and tokio's, in alternating rounds on the same work.
//!
//! `cargo bench --bench proactor`; `-- --help` for the flags. Figures are ratios to the bare blocking echo, a thread for
//! each connection, which runs a second time under another name so that each run shows its own noise.

#[path = "proactor/clients.rs"]
mod clients;
#[path = "proactor/crowd.rs"]
mod crowd;
#[path = "proactor/figures.rs"]
mod figures;
#[path = "proactor/plot.rs"]
mod plot;
mod root;
#[path = "proactor/servers.rs"]
mod servers;

use std::error;
use std::io::{self, IsTerminal as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use figures::Quartiles;
use pico_args::Arguments;
use servers::{Host, SERVERS, Server};

const HELP: &str = "\
cargo bench --bench proactor -- [flags]

  --quick          few and short rounds: a look, not a result
  --rounds N       rounds of the echoes, each on fresh threads and connections (9)
  --slice MS       milliseconds measured of each server in a round, when all connections have begun (150)
  --sizes B,B...   bytes of a message (128,1024,4096,65536,131072)
  --conns N,N...   connections in parallel (1,128,1024)
  --servers S,S... only these servers (the first, blocking, always runs: ratios are to it)
  --one-core       client and server on one core, where a wake-up costs little and other noise is less
  --crowds N,N...  clients for the completion time (1000 to 12000 by thousands)
  --crowd-rounds N rounds of those (5)
  --only WHAT      echo or crowd: only the throughput or only the completion times
  --plot FILE      write the completion times as an SVG picture
  --help
";

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

struct Flags {
    rounds: usize,
    slice: Duration,
    sizes: Vec<usize>,
    conns: Vec<usize>,
    crowds: Vec<usize>,
    crowd_rounds: usize,
    servers: Vec<&'static Server>,
    pin: bool,
    echo: bool,
    crowd: bool,
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nproactor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is being measured, on a terminal.
fn progress(line: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{line:<60}\r");
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
    if let Some(addr) = arguments.opt_value_from_str(crowd::CHILD)? {
        return Ok(crowd::child(addr, arguments.value_from_str("--clients")?)?);
    }
    let flags = flags(arguments)?;
    let open_files = crowd::raise_open_files()?;
    if cfg!(debug_assertions) {
        println!("built without optimisation: this only shows that everything runs");
    }
    println!("{}", figures::machine());
    if flags.echo {
        for &conns in &flags.conns {
            for &size in &flags.sizes {
                echo(&flags, size, conns)?;
            }
        }
    }
    if flags.crowd {
        crowds(&flags, open_files)?;
    }
    Ok(())
}

fn flags(mut arguments: Arguments) -> Result<Flags> {
    let quick = arguments.contains("--quick") || cfg!(debug_assertions);
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let (echo, crowd) = match only.as_deref() {
        None => (true, true),
        Some("echo") => (true, false),
        Some("crowd") => (false, true),
        Some(other) => return Err(format!("--only {other}: echo or crowd").into()),
    };
    let mut numbers = |name: &'static str, usual: Vec<usize>| -> Result<Vec<usize>> {
        let given: Option<String> = arguments.opt_value_from_str(name)?;
        let Some(given) = given else { return Ok(usual) };
        let parsed: std::result::Result<Vec<usize>, _> = given.split(',').map(str::parse).collect();
        match parsed {
            Ok(parsed) if parsed.iter().all(|&n| n > 0) => Ok(parsed),
            _ => Err(format!("{name} {given}: numbers from 1 on, as in 1,128").into()),
        }
    };
    let crowds = if quick { vec![500, 1000, 1500] } else { (1..=12).map(|n| n * 1000).collect() };
    let conns = if quick { vec![1, 128] } else { vec![1, 128, 1024] };
    let (sizes, conns, crowds) = (
        numbers("--sizes", vec![128, 1024, 4096, 65_536, 131_072])?,
        numbers("--conns", conns)?,
        numbers("--crowds", crowds)?,
    );
    let rounds = arguments.opt_value_from_str("--rounds")?.unwrap_or(if quick { 3 } else { 9 });
    let slice = arguments.opt_value_from_str("--slice")?.unwrap_or(if quick { 40 } else { 150 });
    let crowd_rounds =
        arguments.opt_value_from_str("--crowd-rounds")?.unwrap_or(if quick { 2 } else { 5 });
    let only: Option<String> = arguments.opt_value_from_str("--servers")?;
    let mut servers: Vec<&Server> = SERVERS.iter().collect();
    if let Some(only) = only {
        let wanted: Vec<&str> = only.split(',').collect();
        servers.retain(|server| wanted.contains(&server.name) || server.name == SERVERS[0].name);
    }
    let flags = Flags {
        servers,
        rounds,
        slice: Duration::from_millis(slice),
        sizes,
        conns,
        crowds,
        crowd_rounds,
        pin: arguments.contains("--one-core"),
        echo,
        crowd,
        plot: arguments.opt_value_from_str("--plot")?,
    };
    if rounds == 0 || slice == 0 || crowd_rounds == 0 {
        return Err("--rounds, --slice and --crowd-rounds must be at least 1".into());
    }
    let rest = arguments.finish();
    if rest.is_empty() {
        Ok(flags)
    } else {
        Err(format!("unknown arguments {rest:?}; --help lists them").into())
    }
}

/// Connected pairs: the client's ends, the server's being in `host`'s care.
fn connect(host: &mut dyn Host, count: usize) -> Result<Vec<TcpStream>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        let (served, _) = listener.accept()?;
        served.set_nodelay(true)?;
        host.serve(served)?;
        clients.push(client);
    }
    Ok(clients)
}

/// One server's part of a round.
fn slice(server: &Server, size: usize, conns: usize, flags: &Flags) -> Result<clients::Work> {
    let mut host = (server.start)(size, flags.pin)?;
    let streams = connect(&mut *host, conns)?;
    let work = clients::run(streams, size, flags.slice)?;
    host.stop();
    Ok(work)
}

fn echo(flags: &Flags, size: usize, conns: usize) -> Result<()> {
    if flags.pin {
        servers::pin();
    }
    let servers = &flags.servers;
    let mut all: Vec<Vec<clients::Work>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..flags.rounds {
        for i in 0..servers.len() {
            let at = (i + round) % servers.len();
            progress(&format!(
                "{size} B, {conns} connections, round {round}: {}",
                servers[at].name
            ));
            all[at].push(slice(servers[at], size, conns, flags)?);
        }
    }
    progress("");
    println!("\necho of {size} B, {conns} connections");
    println!("  server         messages/s     MB/s  ratio (quartiles)      CPU us/message");
    for (server, works) in servers.iter().zip(&all) {
        let rate = Quartiles::of(works.iter().map(clients::Work::rate));
        let ratio =
            Quartiles::of(works.iter().zip(&all[0]).map(|(work, bare)| work.rate() / bare.rate()));
        let cpu = Quartiles::of(works.iter().map(clients::Work::cpu_us));
        println!(
            "  {:<12} {:>12.0} {:>8.1}  {:.3} ({:.3}..{:.3})  {:>8.2} ({:.2}..{:.2})",
            server.name,
            rate.median,
            rate.median * size as f64 / 1e6,
            ratio.median,
            ratio.low,
            ratio.high,
            cpu.median,
            cpu.low,
            cpu.high
        );
    }
    Ok(())
}

fn crowds(flags: &Flags, open_files: u64) -> Result<()> {
    // A thread for each of thousands of connections is no contest.
    let mut measured = flags.servers.clone();
    measured.retain(|server| ["reev", "tokio"].contains(&server.name));
    if measured.is_empty() {
        return Ok(());
    }
    let mut times: Vec<Vec<(usize, f64)>> = measured.iter().map(|_| Vec::new()).collect();
    for &count in &flags.crowds {
        if count as u64 + 200 > open_files {
            println!("{count} clients: left out, for this process may open {open_files} files");
            continue;
        }
        for round in 0..flags.crowd_rounds {
            for i in 0..measured.len() {
                let at = (i + round) % measured.len();
                progress(&format!("{count} clients, round {round}: {}", measured[at].name));
                times[at].push((count, crowd::measure(measured[at], count)?));
            }
        }
    }
    progress("");
    println!("\nseconds until N clients that each send {} B have them back", crowd::SIZE);
    print!("  {:>8}", "N");
    measured.iter().for_each(|server| print!("  {:>24}", server.name));
    println!("  (medians, quartiles)");
    let mut counts = flags.crowds.clone();
    counts.retain(|count| times[0].iter().any(|(n, _)| n == count));
    for count in counts {
        print!("  {count:>8}");
        for times in &times {
            let of = times.iter().filter(|(n, _)| *n == count).map(|(_, seconds)| *seconds);
            let Quartiles { low, median, high } = Quartiles::of(of);
            print!("  {:>24}", format!("{median:.4} ({low:.4}..{high:.4})"));
        }
        println!();
    }
    let mut series = Vec::new();
    for (server, times) in measured.iter().zip(times) {
        let line = figures::Line::through(&times);
        println!(
            "  {}: {:.2} us a client {:+.1} ms, r2 {:.4}",
            server.name,
            line.slope * 1e6,
            line.start * 1e3,
            line.r2
        );
        series.push(plot::Series { name: server.name, points: times, line });
    }
    if let Some(path) = &flags.plot {
        plot::write(path, &series)?;
        println!("  written to {}", path.display());
    }
    Ok(())
}
