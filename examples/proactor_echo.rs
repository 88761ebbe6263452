//! An echo server on the proactor: `cargo run --release --example proactor_echo`, then
//! `nc 127.0.0.1 7001`. The program accepts by itself and gives each connection to a watcher;
//! each watcher's completions are taken in a loop of their own.

#[path = "common/blocking.rs"]
mod blocking;
mod common;

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use reev::proactor::{Conn, Delegator, Kind, Watcher};

/// An echo server that submits reads and writes and waits for completions
#[derive(clap::Parser)]
#[command(name = "proactor_echo", version)]
#[command(mut_arg("addr", |arg| common::takes(arg, blocking::ADDRS)))]
#[command(mut_arg("spin_us", |arg| arg.hide(true)))] // watchers do not spin
struct Options {
    #[command(flatten)]
    serve: common::Serve,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7001", |options: Options| {
        let watchers = blocking::watchers(&options.serve)?;
        let delegators: Vec<Delegator<()>> = watchers.iter().map(Watcher::delegator).collect();
        let closing = delegators.clone();
        blocking::on_signal(move || closing.iter().for_each(Delegator::close))?;
        let listener = blocking::listen(&options.serve, "echo by completions")?;
        let (joined, joining): (Vec<_>, Vec<_>) = watchers.iter().map(|_| mpsc::channel()).unzip();
        thread::Builder::new().spawn(move || accept(&listener, &delegators, &joined))?;
        let each = watchers.into_iter().zip(joining);
        let loops: Vec<_> =
            each.map(|(watcher, joining)| thread::spawn(move || echo(watcher, &joining))).collect();
        for ended in loops {
            ended.join().map_err(|_| io::Error::other("a loop panicked"))?;
        }
        Ok(())
    })
}

/// Gives connections to the watchers in turn, and asks for the first bytes of each. The handle
/// goes to the watcher's loop: the connection is open as long as somebody has one.
fn accept(listener: &TcpListener, delegators: &[Delegator<()>], joined: &[Sender<Conn<()>>]) {
    let mut turns = (0..delegators.len()).cycle();
    blocking::accept_all(listener, |stream| {
        let turn = turns.next().unwrap_or_default();
        stream.set_nodelay(true)?;
        let conn = delegators[turn].delegate(stream)?;
        joined[turn].send(conn.clone()).map_err(io::Error::other)?;
        Ok(conn.read((), None)?)
    });
}

/// Writes back what was read, and reads again when that is written.
#[expect(clippy::mutable_key_type, reason = "a connection is hashed by its identity")]
fn echo(mut watcher: Watcher<()>, joining: &Receiver<Conn<()>>) {
    let mut open = HashSet::new();
    while let Ok(completions) = watcher.wait() {
        open.extend(joining.try_iter());
        for done in completions {
            let next = match (done.kind, &done.result, done.bytes) {
                (Kind::Read, Ok(()), 1..) => done.conn.write((), done.data().to_vec()),
                (Kind::Write, Ok(()), _) => done.conn.read((), None),
                _ => {
                    open.remove(&done.conn);
                    continue;
                }
            };
            if next.is_err() {
                log::debug!("{:?} was closed meanwhile", done.conn);
            }
        }
    }
}
