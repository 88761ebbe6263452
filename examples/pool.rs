//! Asks a Redis-like server over a pool of connections, for every client of this server: each
//! line is a key, each answer its value.
//!
//! ```sh
//! cargo run --release --example redis &
//! cargo run --release --example pool -- --backend 127.0.0.1:6379
//! printf 'greeting\n' | nc 127.0.0.1 7020
//! ```
//!
//! Thousands of clients need no more than `--max` connections to the server on each reactor.

mod common;

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use reev::{Addr, Close, ConnId, Ctx, EvHandler, Pool, PoolOptions};

/// A longer reply is refused: `Config::input_max` lets no more than this wait.
const REPLY_MAX: usize = 1 << 20;

/// A client: one question at a time, so that its answers come in order.
struct Client {
    pool: Pool,
    turn: Rc<Turn>,
}

/// What a client and its question tell each other.
#[derive(Default)]
struct Turn {
    /// A question is under way.
    asking: Cell<bool>,
    /// The client has sent its FIN, and asks no more.
    ended: Cell<bool>,
}

impl EvHandler for Client {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
            return Ok(0);
        };
        let key = data[..end].trim_ascii().to_vec();
        cx.pause_reads(); // the rest is offered again when the answer is there
        self.turn.asking.set(true);
        let (client, turn, pool) = (cx.id(), self.turn.clone(), self.pool.clone());
        self.pool.acquire(cx, Question { client, turn, key, pool, answered: false });
        Ok(end + 1)
    }

    /// Comes behind all lines: while some wait for their turn, the FIN waits too.
    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.turn.ended.set(true);
        if !self.turn.asking.get() {
            cx.close();
        }
        Ok(())
    }
}

/// Lent a connection for one question.
struct Question {
    client: ConnId,
    turn: Rc<Turn>,
    key: Vec<u8>,
    pool: Pool,
    answered: bool,
}

impl Question {
    fn answer(&mut self, cx: &mut Ctx<'_>, text: &[u8]) {
        self.answered = true;
        self.turn.asking.set(false);
        if let Some(mut client) = cx.conn(self.client) {
            client.write(text);
            match self.turn.ended.get() {
                true => client.close(),
                false => client.resume_reads(),
            }
        }
    }
}

/// Where the text for the client begins in a reply whose first line ends at `line`, and where the
/// reply ends; `None` if this is no reply to GET.
fn reply(data: &[u8], line: usize) -> Option<(usize, usize)> {
    let next = line + 2;
    match data[..line].split_first()? {
        (b'+' | b'-' | b':', _) | (b'$', b"-1") => Some((0, next)),
        (b'$', digits) => {
            let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
            let end = next.checked_add(length)?.checked_add(2)?;
            let fits = end <= REPLY_MAX && (data.len() < end || data[..end].ends_with(b"\r\n"));
            fits.then_some((next, end))
        }
        _ => None,
    }
}

impl EvHandler for Question {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        use io::Write;
        write!(cx.out(), "*2\r\n$3\r\nGET\r\n${}\r\n", self.key.len())?;
        cx.write(&self.key);
        cx.write(b"\r\n");
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let Some(line) = data.windows(2).position(|two| two == b"\r\n") else {
            return Ok(0);
        };
        let Some((from, end)) = reply(data, line) else {
            let message = "the server's reply is broken or too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        if data.len() < end {
            return Ok(0);
        }
        match data.starts_with(b"$-1") {
            true => self.answer(cx, b"(nil)\r\n"),
            false => self.answer(cx, &data[from..end]),
        }
        self.pool.release(cx);
        Ok(end)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.answer(cx, b"(the server closed the connection)\r\n");
        cx.close();
        Ok(())
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        self.answer(cx, format!("({error})\r\n").as_bytes());
    }

    /// However the connection ends, its client is not left waiting.
    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        if !self.answered {
            self.answer(cx, format!("({why})\r\n").as_bytes());
        }
    }
}

/// Asks a Redis-like server over a pool of connections
#[derive(clap::Parser)]
#[command(name = "pool", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// A server to ask; may be repeated
    #[arg(long, required = true, value_name = "ADDR")]
    backend: Vec<String>,

    /// Connections of each reactor at most
    #[arg(long, default_value_t = 8)]
    max: usize,

    /// Idle connections of each reactor that are kept
    #[arg(long, default_value_t = 1)]
    min_idle: usize,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7020", |options: Options| {
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let bounds = PoolOptions {
            max: options.max,
            min_idle: options.min_idle,
            max_age: Some(Duration::from_secs(600)),
            ..PoolOptions::default()
        };
        let backends = options.backend;
        let running = server.start(move |reactor| {
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            let pool = reactor.pool(&backends, bounds.clone())?;
            reactor.accept(listener, move |_: &Addr| Client {
                pool: pool.clone(),
                turn: Rc::default(),
            })
        })?;
        common::banner("pool", &addr, common::how_to_try(&addr));
        running.join()
    })
}
