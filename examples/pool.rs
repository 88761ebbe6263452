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

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use reev::{Addr, ConnId, Ctx, EvHandler, Pool, PoolOptions};

/// A client: one question at a time, so that its answers come in order.
struct Client {
    pool: Pool,
}

impl EvHandler for Client {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
            return Ok(0);
        };
        let key = data[..end].trim_ascii().to_vec();
        cx.pause_reads(); // the rest is offered again when the answer is there
        self.pool.acquire(cx, Question { client: cx.id(), key, pool: self.pool.clone() });
        Ok(end + 1)
    }
}

/// Lent a connection for one question.
struct Question {
    client: ConnId,
    key: Vec<u8>,
    pool: Pool,
}

impl Question {
    fn answer(&self, cx: &mut Ctx<'_>, text: &[u8]) {
        if let Some(mut client) = cx.conn(self.client) {
            client.write(text);
            client.resume_reads();
        }
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
        let length = std::str::from_utf8(&data[1..line]).ok().and_then(|n| n.parse::<i64>().ok());
        let end = match (data[0], length) {
            (b'$', Some(len)) if len >= 0 => line + 2 + len as usize + 2,
            _ => line + 2,
        };
        if data.len() < end {
            return Ok(0);
        }
        match data[0] {
            b'$' if end > line + 2 => self.answer(cx, &data[line + 2..end]),
            b'$' => self.answer(cx, b"(nil)\r\n"),
            _ => self.answer(cx, &data[..end]),
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
            reactor.accept(listener, move |_: &Addr| Client { pool: pool.clone() })
        })?;
        common::banner("pool", &addr, common::how_to_try(&addr));
        running.join()
    })
}
