//! Loads a server and says how it bears it: `cargo run --release --example loadgen -- http
//! http://127.0.0.1:8080/plaintext`. The modes are echo, http, ws and idle; `docs/loadgen.md` tells
//! what is measured and how.
//!
//! Each thread is a reactor whose connections share a [`load::Load`]; a [`conductor::Conductor`],
//! a handler without a socket, leads them through the run.

mod chart;
mod client;
mod conductor;
mod echo;
mod http;
mod line;
mod load;
mod options;
mod progress;
mod report;
mod schedule;
mod tally;
mod target;
mod ws;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
#[cfg(target_os = "linux")]
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use reev::{Config, Handle, Reactor, Remote, Server, Stats};

use client::Client;
use conductor::{Conductor, GIVE_UP, START};
use load::{Dial, Load, Plan, Report as Told};
use options::{Asking, Common, Mode, Options};
use progress::Progress;
use report::Report;
use schedule::Schedule;
use tally::Tally;
use target::{Place, Url, invalid};

/// Descriptors that a process needs beside its connections: files and attempts, and pollers and
/// pipes for each thread.
const DESCRIPTORS_SPARE: usize = 64;
const DESCRIPTORS_OF_THREAD: usize = 6;
/// How late the system may fire the threads' timers.
#[cfg(target_os = "linux")]
const TIMER_SLACK_NS: u64 = 1;
/// How long the connections may take to close when it is over.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Output that may wait beside the requests themselves.
const OUTPUT_SPARE: usize = 1 << 20;

/// A run as the command line wants it.
struct Run {
    mode: &'static str,
    target: String,
    rate: Option<f64>,
    plan: Plan,
    request_len: usize,
    speak: Speak,
    common: Common,
}

/// What goes over the connections.
#[derive(Clone)]
enum Speak {
    Echo(Arc<[u8]>),
    Http(Arc<http::Request>),
    Ws(ws::Talk),
    Nothing,
}

impl Speak {
    /// Called once on each thread.
    fn dial(&self, place: Place) -> Dial {
        match self.clone() {
            Speak::Echo(message) => Box::new(move |cx, line, options| {
                let handler = Client::new(line, echo::Echo::new(message.clone()));
                Ok(cx.connect(place.target(), options, handler))
            }),
            Speak::Http(request) => Box::new(move |cx, line, options| {
                let handler = Client::new(line, http::Http::new(request.clone()));
                Ok(cx.connect(place.target(), options, handler))
            }),
            Speak::Ws(talk) => {
                let sockets = talk.sockets();
                Box::new(move |cx, line, options| {
                    Ok(cx.connect(place.target(), options, sockets.dial(line)?))
                })
            }
            Speak::Nothing => Box::new(move |cx, line, options| {
                Ok(cx.connect(place.target(), options, Client::new(line, echo::Silent)))
            }),
        }
    }
}

fn plan(place: Place, common: &Common, asking: Option<&Asking>) -> Plan {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = if common.threads == 0 { cores() } else { common.threads };
    let zero = Duration::ZERO;
    Plan {
        place,
        connections: common.connections.get(),
        threads: threads.min(common.connections.get()),
        schedule: asking.and_then(|asking| asking.rate).map(Schedule::new),
        depth: asking.map_or(0, |asking| asking.depth.get()),
        warmup: asking.map_or(zero, |asking| asking.warmup),
        duration: common.duration,
        drain: asking.map_or(zero, |asking| asking.drain),
        timeout: asking.map_or(zero, |asking| asking.timeout),
        connect_timeout: common.connect_timeout,
        requests_per_connection: asking
            .and_then(|asking| asking.requests_per_connection)
            .map(Into::into),
        sources: common.source.clone(),
        progress: common.progress || !common.no_progress && io::stderr().is_terminal(),
    }
}

impl Run {
    fn new(mode: Mode) -> io::Result<Run> {
        let (mode, target, address, speak, asking, common) = match mode {
            Mode::Echo(options) => {
                let speak = Speak::Echo(echo::message(options.size.get()).into());
                let address = options.target.clone();
                ("echo", options.target, address, speak, Some(options.asking), options.common)
            }
            Mode::Http(options) => {
                let url = Url::parse(&options.target, "http", options.path.as_deref())?;
                let speak = Speak::Http(Arc::new(http::Request::new(&options, &url)?));
                ("http", options.target, url.address, speak, Some(options.asking), options.common)
            }
            Mode::Ws(options) => {
                let url = Url::parse(&options.target, "ws", options.path.as_deref())?;
                let address = url.address.clone();
                let speak = Speak::Ws(ws::Talk::new(&options, url)?);
                ("ws", options.target, address, speak, Some(options.asking), options.common)
            }
            Mode::Idle(options) => {
                let address = options.target.clone();
                ("idle", options.target, address, Speak::Nothing, None, options.common)
            }
        };
        let request_len = match &speak {
            Speak::Echo(message) => message.len(),
            Speak::Http(request) => request.bytes.len(),
            Speak::Ws(talk) => talk.message_len(),
            Speak::Nothing => 0,
        };
        let plan = plan(Place::resolve(&address)?, &common, asking.as_ref());
        if plan.duration.is_zero() {
            return Err(invalid("--duration is 0: nothing would be measured".to_owned()));
        }
        if asking.as_ref().is_some_and(|asking| asking.timeout.is_zero()) {
            return Err(invalid("--timeout is 0: no answer could come in time".to_owned()));
        }
        let rate = asking.and_then(|asking| asking.rate);
        Ok(Run { mode, target, rate, plan, request_len, speak, common })
    }

    fn config(&self) -> Config {
        let default = Config::default();
        let pending = self.request_len.saturating_mul(self.plan.depth).saturating_mul(2);
        Config {
            reactors: self.plan.threads,
            pin: self.common.pin,
            output_max: default.output_max.max(pending.saturating_add(OUTPUT_SPARE)),
            // After Ctrl-C: the drain, and the connections' ends.
            shutdown_timeout: self.plan.drain + 2 * CLOSE_WITHIN,
            slow_turn: Duration::from_secs(1), // thousands of connections at once take their time
            ..default
        }
    }
}

/// Lets the process have as many descriptors as it may.
fn raise_descriptors(connections: usize, threads: usize) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let spare = threads.saturating_mul(DESCRIPTORS_OF_THREAD).saturating_add(DESCRIPTORS_SPARE);
    let needed = connections.saturating_add(spare) as rlim_t;
    if needed > hard {
        return Err(invalid(format!(
            "{connections} connections need {needed} descriptors, and {hard} are allowed; see ulimit -Hn"
        )));
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?;
    }
    Ok(())
}

/// Runs the load to its end, and adds up what the threads have counted.
fn run(run: Run) -> io::Result<Report> {
    raise_descriptors(run.plan.connections, run.plan.threads)?;
    let config = run.config();
    let plan = Arc::new(run.plan);
    let server = Server::new(config)?;
    reev::stop_on_signals(&server.handle())?;
    let (sender, reports) = channel();
    let start = Arc::new(OnceLock::new());
    let running = server.start({
        let (plan, start, speak) = (plan.clone(), start.clone(), run.speak);
        let sender: Mutex<Sender<Told>> = Mutex::new(sender);
        move |reactor: &mut Reactor| {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Timers may else be 50 µs late, to save wake-ups. A kernel that refuses only costs that.
            #[cfg(target_os = "linux")]
            let _ = prctl::set_timerslack(TIMER_SLACK_NS);
            let dial = speak.dial(plan.place.clone());
            let load = Load::new(plan.clone(), reactor.index(), sender, dial);
            reactor.add(Conductor::new(load, start.clone()));
            Ok(())
        }
    })?;
    let handle = running.handle();
    let tally = conduct(&plan, &handle, &reports, &start);
    handle.shutdown(CLOSE_WITHIN).wait();
    running.join()?;
    Ok(Report::new(run.mode, &run.target, run.rate, &plan, tally))
}

/// Begins the load when all threads are ready, shows how it goes, and waits for the results.
fn conduct(
    plan: &Plan,
    handle: &Handle,
    reports: &Receiver<Told>,
    start: &OnceLock<Instant>,
) -> Tally {
    let mut progress = Progress::new(plan.progress, plan.warmup + plan.duration);
    let mut tally = Tally::default();
    let mut ready: Vec<Remote> = Vec::new();
    let (mut open, mut done, mut intervals) = (0, 0, 0);
    while done < plan.threads {
        match reports.recv_timeout(progress::EVERY) {
            Ok(Told::Settled(conductor, opened)) => {
                ready.push(conductor);
                open += opened;
                if ready.len() == plan.threads {
                    let now = Instant::now();
                    start.get_or_init(|| now);
                    progress.begin(now);
                    for conductor in &ready {
                        // One that is gone has been told to stop.
                        let _ = conductor.notify(if open > 0 { START } else { GIVE_UP });
                    }
                }
            }
            Ok(Told::Interval(interval)) => {
                progress.add(&interval);
                intervals += 1;
                if intervals % plan.threads == 0 {
                    let open = Stats::total(&handle.stats()).open;
                    // The conductors are counted as open, and are no connections.
                    progress.loading(open.saturating_sub(plan.threads as u64));
                }
            }
            Ok(Told::Done(one)) => {
                tally.add(*one);
                done += 1;
            }
            Err(RecvTimeoutError::Timeout) if start.get().is_none() => {
                let made = Stats::total(&handle.stats()).connected;
                progress.connecting(made, plan.connections);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break, // joining tells why
        }
    }
    progress.clear();
    tally
}

/// Where the JSON goes. It is opened before the run, which would else be in vain.
fn open(json: &Path) -> io::Result<Box<dyn Write>> {
    if json == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(json)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", json.display())))?;
    Ok(Box::new(file))
}

fn load() -> io::Result<()> {
    let wanted = Run::new(Options::parse().mode)?;
    let path = wanted.common.json.clone();
    let json = path.as_deref().map(open).transpose()?;
    let report = run(wanted)?;
    if path.is_none_or(|path| path != Path::new("-")) {
        let columns = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
        io::stdout().write_all(report.text(columns).as_bytes())?;
    }
    if let Some(mut json) = json {
        json.write_all((serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
    }
    report.in_vain().map_or(Ok(()), |why| Err(io::Error::other(why)))
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match load() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}
