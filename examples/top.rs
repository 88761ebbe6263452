//! An echo server that shows what its reactors do, as a table in the terminal and to Prometheus:
//! `cargo run --release --example top`, then `nc 127.0.0.1 7000` and
//! `curl http://127.0.0.1:9100/metrics`.

mod common;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use reev::{Close, Ctx, EvHandler, Handle, Stats};

/// Bytes of a scrape's request; more is not answered.
const REQUEST_MAX: usize = 8 << 10;
const REFRESH: Duration = Duration::from_secs(1);

struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

/// Answers one request for `/metrics`, and closes.
struct Metrics;

impl EvHandler for Metrics {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.idle_timeout(Duration::from_secs(10));
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(data);
        let path = request.path.and_then(|path| path.split('?').next());
        let (status, body) = match parsed {
            Ok(httparse::Status::Partial) if data.len() < REQUEST_MAX => return Ok(0),
            Ok(httparse::Status::Complete(_)) => match (request.method, path) {
                (Some("GET" | "HEAD"), Some("/metrics")) => {
                    ("200 OK", Stats::prometheus(&cx.handle().stats()))
                }
                (Some("GET" | "HEAD"), _) => ("404 Not Found", "it is at /metrics\n".to_owned()),
                _ => ("405 Method Not Allowed\r\nAllow: GET, HEAD", "GET or HEAD\n".to_owned()),
            },
            _ => ("400 Bad Request", "not a request\n".to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        cx.write(head.as_bytes());
        if request.method != Some("HEAD") {
            cx.write(body.as_bytes());
        }
        cx.close();
        Ok(data.len())
    }
}

/// An echo server with a live table of its statistics, which Prometheus can scrape too
#[derive(clap::Parser)]
#[command(name = "top", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// Where `/metrics` is served over HTTP
    #[arg(long, default_value = "127.0.0.1:9100")]
    metrics_addr: String,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7000", |options: Options| {
        let (mut server, echo) = options.serve.listen()?;
        let metrics = server.listen(&options.metrics_addr)?;
        let (echo_addr, metrics_addr) = (server.local_addr(echo), server.local_addr(metrics));
        let title = format!(
            "reev: echo on {echo_addr}, metrics on http://{metrics_addr}/metrics; Ctrl-C shuts down"
        );
        let running = server.start(move |reactor| {
            reactor.accept(echo, |_peer| Echo)?;
            reactor.accept(metrics, |_peer| Metrics)
        })?;
        if !io::stdout().is_terminal() {
            common::banner("top", &echo_addr, format_args!("curl http://{metrics_addr}/metrics"));
            return running.join();
        }
        let (end, ended) = channel::<()>();
        let handle = running.handle();
        let screen = std::thread::spawn(move || show(&title, &handle, &ended));
        let served = running.join();
        drop(end);
        match screen.join() {
            Ok(shown) => served.and(shown),
            Err(_) => Err(io::Error::other("the table's thread panicked")),
        }
    })
}

/// Draws the table once a second until the server has ended.
fn show(title: &str, handle: &Handle, ended: &Receiver<()>) -> io::Result<()> {
    let mut screen = io::stdout();
    execute!(screen, EnterAlternateScreen, Hide)?;
    let (mut before, mut drawn) = (handle.stats(), Instant::now());
    let mut shown = Ok(());
    while shown.is_ok() && ended.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
        let now = handle.stats();
        shown = draw(&mut screen, title, &before, &now, drawn.elapsed());
        (before, drawn) = (now, Instant::now());
    }
    execute!(screen, Show, LeaveAlternateScreen)?;
    shown
}

fn draw(
    screen: &mut impl Write,
    title: &str,
    before: &[Stats],
    now: &[Stats],
    passed: Duration,
) -> io::Result<()> {
    let width = usize::from(terminal::size()?.0);
    let fit = |line: &str| line.chars().take(width).collect::<String>();
    queue!(screen, MoveTo(0, 0), Clear(ClearType::All))?;
    write!(screen, "{}\r\n\r\n", fit(title))?;
    queue!(screen, SetAttribute(Attribute::Reverse))?;
    write!(screen, "{}", fit(&heads()))?;
    queue!(screen, SetAttribute(Attribute::Reset))?;
    for (index, (before, now)) in before.iter().zip(now).enumerate() {
        write!(screen, "\r\n{}", fit(&row(&index.to_string(), before, now, passed)))?;
    }
    let (all_before, all_now) = (Stats::total(before), Stats::total(now));
    queue!(screen, SetAttribute(Attribute::Bold))?;
    write!(screen, "\r\n{}", fit(&row("all", &all_before, &all_now, passed)))?;
    queue!(screen, SetAttribute(Attribute::Reset))?;
    write!(screen, "\r\n\r\n{}", fit(&ends(&all_now)))?;
    screen.flush()
}

const COLUMNS: [&str; 14] = [
    "reactor", "accepted", "open", "closed", "in/s", "out/s", "turns/s", "ev/turn", "mail/s",
    "timers", "paused", "queued", "longest", "recent",
];
const COLUMN: usize = 9;

fn heads() -> String {
    COLUMNS.map(|head| format!("{head:>COLUMN$}")).concat()
}

fn row(name: &str, before: &Stats, now: &Stats, passed: Duration) -> String {
    let seconds = passed.as_secs_f64().max(1e-3);
    let rate = |of: fn(&Stats) -> u64| of(now).saturating_sub(of(before)) as f64 / seconds;
    let turns = rate(|stats| stats.turns);
    let events_per_turn = if turns > 0.0 { rate(|stats| stats.events) / turns } else { 0.0 };
    let cells = [
        name.to_owned(),
        now.accepted.to_string(),
        now.open.to_string(),
        now.closed.iter().sum::<u64>().to_string(),
        short(rate(|stats| stats.bytes_in)),
        short(rate(|stats| stats.bytes_out)),
        short(turns),
        format!("{events_per_turn:.1}"),
        short(rate(|stats| stats.mail)),
        now.timers.to_string(),
        now.paused.to_string(),
        short(now.output_queued as f64),
        format!("{:.1?}", now.turn_longest),
        format!("{:.1?}", now.turn_recent),
    ];
    cells.map(|cell| format!("{cell:>COLUMN$}")).concat()
}

/// A number in at most six characters.
fn short(mut number: f64) -> String {
    let mut unit = "";
    for larger in ["k", "M", "G", "T"] {
        if number < 10_000.0 {
            break;
        }
        number /= 1000.0;
        unit = larger;
    }
    format!("{number:.0}{unit}")
}

/// How connections ended.
fn ends(stats: &Stats) -> String {
    let kinds = Close::KIND_NAMES.iter().zip(stats.closed).filter(|&(_, count)| count > 0);
    kinds.fold("closed:".to_owned(), |mut line, (kind, count)| {
        let _ = write!(line, " {kind} {count}");
        line
    })
}
