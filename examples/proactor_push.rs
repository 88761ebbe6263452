//! Sends the time to every connected client once a second, on the proactor:
//! `cargo run --release --example proactor_push`, then `nc 127.0.0.1 7002`.

#[path = "common/blocking.rs"]
mod blocking;
mod common;

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use reev::proactor::{Conn, Deadline, Delegator, Kind, Watcher};

const SECOND: Duration = Duration::from_secs(1);

/// Sends the time to every connected client once a second
#[derive(clap::Parser)]
#[command(name = "proactor_push", version)]
#[command(mut_arg("addr", |arg| common::takes(arg, blocking::ADDRS)))]
#[command(mut_arg("spin_us", |arg| arg.hide(true)))] // watchers do not spin
#[command(mut_arg("reactors", |arg| arg.hide(true)))] // there is one watcher
struct Options {
    #[command(flatten)]
    serve: common::Serve,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7002", |options: Options| {
        let watcher = blocking::watchers(&options.serve)?.swap_remove(0);
        let delegator = watcher.delegator();
        let closing = delegator.clone();
        blocking::on_signal(move || closing.close())?;
        let listener = blocking::listen(&options.serve, "the time once a second")?;
        let (joined, joining) = mpsc::channel();
        thread::Builder::new().spawn(move || accept(&listener, &delegator, &joined))?;
        push(watcher, &joining);
        Ok(())
    })
}

fn accept(listener: &TcpListener, delegator: &Delegator<()>, joined: &Sender<Conn<()>>) {
    blocking::accept_all(listener, |stream| {
        joined.send(delegator.delegate(stream)?).map_err(io::Error::other)
    });
}

/// A client that takes longer than a second for a line is dropped, as is one that has closed.
fn push(mut watcher: Watcher<()>, joining: &Receiver<Conn<()>>) {
    let mut clients: Vec<Conn<()>> = Vec::new();
    let mut next = Instant::now();
    loop {
        let Ok(completions) = watcher.wait_timeout(next.saturating_duration_since(Instant::now()))
        else {
            return; // closed
        };
        for done in completions {
            let over = done.result.is_err() || (done.kind == Kind::Read && done.bytes == 0);
            if over {
                clients.retain(|client| *client != done.conn);
            } else if done.kind == Kind::Read {
                let _ = done.conn.read((), None); // refused: its end comes as a completion
            }
        }
        let now = Instant::now();
        if now < next {
            continue;
        }
        next += SECOND;
        if next < now {
            next = now + SECOND; // what a pause has missed is left out
        }
        for conn in joining.try_iter() {
            if conn.read((), None).is_ok() {
                clients.push(conn);
            }
        }
        let line = format!("{}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        let in_time = Deadline::After(SECOND);
        clients.retain(|client| client.write_by((), line.clone().into_bytes(), in_time).is_ok());
    }
}
