//! The servers that are compared. Each echoes whatever comes on connections that it is given.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use reev::proactor::{Conn, Deadline, Delegator, Kind, Watcher, WatcherConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A server that runs.
pub trait Host {
    fn serve(&mut self, stream: TcpStream) -> io::Result<()>;
    /// Ends all its threads. The clients have closed by then.
    fn stop(self: Box<Self>);
}

/// Starts a server that reads up to so many bytes at once, pinned to the first core or not.
type Start = fn(usize, bool) -> io::Result<Box<dyn Host>>;

pub struct Server {
    pub name: &'static str,
    pub start: Start,
}

/// The first is what the others are compared with; the second is the same again.
pub const SERVERS: &[Server] = &[
    Server { name: "blocking", start: Blocking::start },
    Server { name: "blocking2", start: Blocking::start },
    Server { name: "reev", start: Reev::start },
    Server { name: "tokio", start: Tokio::start },
];

/// Pins this thread, and those that it starts, to the first core.
pub fn pin() {
    if let Some([first, ..]) = core_affinity::get_core_ids().as_deref() {
        core_affinity::set_for_current(*first);
    }
}

const STACK: usize = 64 << 10;

/// A thread for each connection, which reads and writes.
struct Blocking {
    size: usize,
    pin: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Blocking {
    fn start(size: usize, pin: bool) -> io::Result<Box<dyn Host>> {
        Ok(Box::new(Blocking { size, pin, threads: Vec::new() }))
    }
}

impl Host for Blocking {
    fn serve(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let (size, pinned) = (self.size, self.pin);
        let echo = move || {
            if pinned {
                pin();
            }
            let mut buffer = vec![0; size];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
        };
        self.threads.push(thread::Builder::new().stack_size(STACK).spawn(echo)?);
        Ok(())
    }

    fn stop(self: Box<Self>) {
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// One watcher and one loop that takes completions; each connection has one buffer of its own.
struct Reev {
    size: usize,
    delegator: Delegator<()>,
    conns: Vec<Conn<()>>,
    echo: JoinHandle<()>,
}

impl Reev {
    fn start(size: usize, pinned: bool) -> io::Result<Box<dyn Host>> {
        let core = core_affinity::get_core_ids().and_then(|ids| ids.first().map(|core| core.id));
        let core = core.filter(|_| pinned);
        let mut watcher =
            Watcher::with_config(&WatcherConfig { core, ..WatcherConfig::default() })?;
        let delegator = watcher.delegator();
        let echo = thread::Builder::new().spawn(move || {
            if pinned {
                pin();
            }
            while let Ok(completions) = watcher.wait() {
                for done in completions {
                    let buffer = done.buffer.unwrap_or_default();
                    let _ = match (done.kind, &done.result, done.bytes) {
                        (Kind::Read, Ok(()), n @ 1..) => {
                            done.conn.write_part((), buffer, 0..n, Deadline::None)
                        }
                        (Kind::Write, Ok(()), _) => done.conn.read((), Some(buffer)),
                        _ => {
                            done.conn.free();
                            Ok(())
                        }
                    };
                }
            }
        })?;
        Ok(Box::new(Reev { size, delegator, conns: Vec::new(), echo }))
    }
}

impl Host for Reev {
    fn serve(&mut self, stream: TcpStream) -> io::Result<()> {
        let conn = self.delegator.delegate(stream)?;
        conn.read((), Some(vec![0; self.size]))?;
        self.conns.push(conn);
        Ok(())
    }

    fn stop(self: Box<Self>) {
        self.delegator.close();
        let _ = self.echo.join();
    }
}

/// A runtime on one thread, a task for each connection.
struct Tokio {
    streams: UnboundedSender<TcpStream>,
    runtime: JoinHandle<io::Result<()>>,
}

impl Tokio {
    fn start(size: usize, pinned: bool) -> io::Result<Box<dyn Host>> {
        let (streams, mut given) = unbounded_channel::<TcpStream>();
        let runtime = thread::Builder::new().spawn(move || {
            if pinned {
                pin();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                while let Some(stream) = given.recv().await {
                    stream.set_nonblocking(true)?;
                    let mut stream = tokio::net::TcpStream::from_std(stream)?;
                    tokio::spawn(async move {
                        let mut buffer = vec![0; size];
                        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                            if stream.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                        }
                    });
                }
                Ok(())
            })
        })?;
        Ok(Box::new(Tokio { streams, runtime }))
    }
}

impl Host for Tokio {
    fn serve(&mut self, stream: TcpStream) -> io::Result<()> {
        self.streams.send(stream).map_err(io::Error::other)
    }

    fn stop(self: Box<Self>) {
        drop(self.streams);
        let _ = self.runtime.join();
    }
}
