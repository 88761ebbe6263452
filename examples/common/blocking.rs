//! What examples have in common that accept by themselves and watch with a proactor.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use reev::proactor::{Watcher, WatcherConfig};
use reev::{Addr, Endpoint};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::common::{self, Serve};

/// The addresses that [`listen`] takes.
pub(crate) const ADDRS: &str = "host:port, tcp4://:port, tcp6://:port";

/// Listens as the flags say, on TCP, and says where.
pub(crate) fn listen(serve: &Serve, what: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(&Endpoint::parse(&serve.addr)?.resolve()?[..])?;
    let addr = Addr::from(listener.local_addr()?);
    common::banner(what, &addr, common::how_to_try(&addr));
    Ok(listener)
}

/// Gives every connection to `take`. While descriptors are short, which is told, clients wait in the
/// system's queue.
pub(crate) fn accept_all(
    listener: &TcpListener,
    mut take: impl FnMut(TcpStream) -> io::Result<()>,
) {
    for stream in listener.incoming() {
        let short = stream.is_err();
        if let Err(error) = stream.and_then(&mut take) {
            log::warn!("a connection was not taken in: {error}");
        }
        if short {
            thread::sleep(Duration::from_millis(10)); // or the same error comes at once
        }
    }
}

/// As many watchers as the flags want reactors, each pinned to a core unless they say no.
pub(crate) fn watchers<T: Send + 'static>(serve: &Serve) -> io::Result<Vec<Watcher<T>>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let wanted = serve.config();
    let count = if wanted.reactors == 0 { cores.len().max(1) } else { wanted.reactors };
    let core = |i: usize| match cores.get(i % cores.len().max(1)) {
        Some(core) if wanted.pin => Some(core.id),
        _ => None,
    };
    let config = |i| WatcherConfig { core: core(i), ..WatcherConfig::default() };
    (0..count).map(|i| Watcher::with_config(&config(i))).collect()
}

/// Calls `stop` at the first SIGINT or SIGTERM; a second one ends the process. To be called before
/// [`listen`]: who reads its banner may send a signal at once.
pub(crate) fn on_signal(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            stop();
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
