//! The watcher: a reactor's thread, and the completions it hands over.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::completion::Completions;
use super::conn::Conn;
use super::endpoint::{CloseAtEnd, Endpoint};
use super::link::Link;
use super::outbox::Taken;
use super::porter::Porter;
use super::shared::Shared;
use crate::config::{Config, READ_BUFFER_MAX, READ_BUFFER_MIN, SWAP_BUFFER_MAX, SWAP_BUFFER_MIN};
use crate::handle::Handle;
use crate::mail::Mail;
use crate::pin;
use crate::reactor::Reactor;
use crate::server::{Running, Server};
use crate::source::Readiness;
use crate::stats::Stats;

/// The settings of a watcher.
///
/// ```
/// use reev::proactor::{Watcher, WatcherConfig};
///
/// let config = WatcherConfig { swap_buffer: 1 << 20, ..WatcherConfig::default() };
/// let watcher: Watcher<u64> = Watcher::with_config(&config)?;
/// # let _ = watcher;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WatcherConfig {
    /// The core to pin the watcher's thread to, as numbered by the system. Default none.
    pub core: Option<usize>,
    /// Bytes of the buffer that reads without one of their own share, between two waits. 4 KiB
    /// to 1 GiB, default 256 KiB. A read that finds no room waits for the next `wait`.
    pub swap_buffer: usize,
    /// Bytes read at once. 4 KiB to 16 MiB, default 64 KiB.
    pub read_buffer: usize,
}

impl Default for WatcherConfig {
    fn default() -> WatcherConfig {
        WatcherConfig { core: None, swap_buffer: 256 << 10, read_buffer: 64 << 10 }
    }
}

/// A proactor: one thread that waits for all connections given to it, and the queue of what has
/// completed. See the [module](crate::proactor).
///
/// Dropping it closes every connection, drops what is pending, and ends the thread. Handles of
/// connections that live on refuse, and keep six descriptors of the watcher's until the last is
/// dropped.
pub struct Watcher<T: Send + 'static> {
    taken: Taken<T>,
    delegator: Delegator<T>,
    running: Option<Running>,
}

/// The part of a watcher that other threads may have: it takes connections in.
///
/// ```no_run
/// use std::net::TcpStream;
/// use reev::proactor::Watcher;
///
/// let mut watcher: Watcher<u64> = Watcher::new()?;
/// let delegator = watcher.delegator();
/// let connecting = std::thread::spawn(move || {
///     let conn = delegator.delegate(TcpStream::connect("127.0.0.1:7000")?)?;
///     conn.read(1, None)?;
///     std::io::Result::Ok(conn)
/// });
/// for completion in watcher.wait()? {
///     println!("{}: {} bytes", completion.context, completion.bytes);
/// }
/// let conn = connecting.join().unwrap()?; // its last handle closes it
/// # drop(conn);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Delegator<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    handle: Handle,
}

impl<T: Send + 'static> Watcher<T> {
    /// A watcher with the default settings.
    ///
    /// # Errors
    /// The system's want of descriptors or threads.
    pub fn new() -> io::Result<Watcher<T>> {
        Watcher::with_config(&WatcherConfig::default())
    }

    /// A watcher with settings.
    ///
    /// # Errors
    /// As of [`Watcher::new`]; `InvalidInput` for a setting out of its range, or a core that the
    /// process may not use.
    pub fn with_config(config: &WatcherConfig) -> io::Result<Watcher<T>> {
        if !(SWAP_BUFFER_MIN..=SWAP_BUFFER_MAX).contains(&config.swap_buffer) {
            let message = format!("swap_buffer is {}; from 4 KiB to 1 GiB", config.swap_buffer);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if !(READ_BUFFER_MIN..=READ_BUFFER_MAX).contains(&config.read_buffer) {
            let message = format!("read_buffer is {}; from 4 KiB to 16 MiB", config.read_buffer);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let core = config.core.map(allowed_core).transpose()?;
        let server = Server::new(Config {
            reactors: 1,
            pin: false,
            // Only what still comes for connections that are closed is read into it.
            read_buffer: READ_BUFFER_MIN,
            ..Config::default()
        })?;
        let shared = Arc::new(Shared::new(config.swap_buffer, config.read_buffer)?);
        let ends = shared.clone();
        let running = server.start(move |reactor| {
            reactor.set_local(CloseAtEnd(ends.clone()));
            let poller = ends.registrar().descriptor()?;
            reactor.add_source(poller, Readiness::NONE, Porter::new(ends.clone()))?;
            if let Some(core) = core {
                pin::pin_to(core);
            }
            Ok(())
        })?;
        let delegator = Delegator { shared, handle: running.handle() };
        Ok(Watcher { taken: Taken::new(), delegator, running: Some(running) })
    }

    /// Takes a connected stream socket in: see [`Delegator::delegate`].
    ///
    /// # Errors
    /// As of [`Delegator::delegate`].
    pub fn delegate(&self, socket: impl Into<OwnedFd>) -> io::Result<Conn<T>> {
        self.delegator.delegate(socket)
    }

    /// For other threads.
    pub fn delegator(&self) -> Delegator<T> {
        self.delegator.clone()
    }

    /// Waits for completions: at least one.
    ///
    /// # Errors
    /// `NotConnected` if the watcher was closed and nothing is left.
    pub fn wait(&mut self) -> io::Result<Completions<'_, T>> {
        self.take_batch(None)
    }

    /// Waits for completions at most so long; there may be none. A time that no clock reaches, such
    /// as `Duration::MAX`, is no bound.
    ///
    /// # Errors
    /// As of [`Watcher::wait`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Completions<'_, T>> {
        self.take_batch(Some(timeout))
    }

    /// Takes the completions that are there; there may be none.
    ///
    /// # Errors
    /// As of [`Watcher::wait`].
    pub fn try_wait(&mut self) -> io::Result<Completions<'_, T>> {
        self.take_batch(Some(Duration::ZERO))
    }

    fn take_batch(&mut self, timeout: Option<Duration>) -> io::Result<Completions<'_, T>> {
        self.taken.empty();
        match self.delegator.shared.take(timeout, &mut self.taken)? {
            Some(()) => Ok(Completions::new(&mut self.taken.done, &self.taken.lent)),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the watcher is closed")),
        }
    }

    /// Moves the watcher's thread to a core, as numbered by the system, soon.
    ///
    /// # Errors
    /// `InvalidInput` for a core that the process may not use, `NotConnected` if the watcher is
    /// closed.
    pub fn pin(&self, core: usize) -> io::Result<()> {
        let core = allowed_core(core)?;
        self.delegator.tell(move |_| pin::pin_to(core))
    }

    /// What the watcher's thread has done. Bytes count only what it read after closing: the
    /// rest is the caller's to count.
    pub fn stats(&self) -> Stats {
        Stats::total(&self.delegator.handle.stats())
    }
}

fn allowed_core(id: usize) -> io::Result<core_affinity::CoreId> {
    pin::allowed_cores().into_iter().find(|core| core.id == id).ok_or_else(|| {
        let message = format!("core {id} is none that this process may use");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

impl<T: Send + 'static> Delegator<T> {
    /// Takes a connected stream socket in: a `std::net::TcpStream`, a `UnixStream` or their
    /// descriptor, at any moment, such as after a handshake. Nothing is read before a read is
    /// submitted.
    ///
    /// Its options stay as they are, with two exceptions: it is made non-blocking, and so are its
    /// copies (`try_clone`); and SO_LINGER with a time is taken off, for close(2) would wait and
    /// hold up all others.
    ///
    /// # Errors
    /// `NotConnected` if the watcher is closed, or the socket has no peer, as one that listens or
    /// was reset already; `InvalidInput` for a socket of another kind, such as one of datagrams;
    /// or what else the system says of it. The socket is closed then.
    pub fn delegate(&self, socket: impl Into<OwnedFd>) -> io::Result<Conn<T>> {
        let (socket, peer) = crate::sys::adopt_stream(socket.into())?;
        let link = Link::new(socket, peer, self.shared.clone())?;
        let conn = link.handle();
        let endpoint = Endpoint::new(link);
        self.tell(move |reactor| {
            reactor.add(endpoint);
        })?;
        Ok(conn)
    }

    /// Runs something on the watcher's thread, however much waits there: the caller's
    /// descriptors are the bound.
    fn tell(&self, task: impl FnOnce(&mut Reactor) + Send + 'static) -> io::Result<()> {
        let sent = self.handle.send_urgent_to(0, Mail::Task(Box::new(task)));
        sent.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))
    }

    /// Closes the watcher: every connection is closed, what is pending completes with
    /// `ConnectionAborted`, and `wait` fails when it has given all that. From any thread; harmless
    /// when repeated.
    pub fn close(&self) {
        self.handle.stop();
    }
}

impl<T: Send + 'static> Clone for Delegator<T> {
    fn clone(&self) -> Delegator<T> {
        Delegator { shared: self.shared.clone(), handle: self.handle.clone() }
    }
}

impl<T: Send + 'static> fmt::Debug for Delegator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegator").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> fmt::Debug for Watcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.delegator.handle.stop();
        self.delegator.shared.outbox.close();
        if let Some(running) = self.running.take() {
            let _ = running.join(); // a reactor that failed has closed everything as well
        }
        self.delegator.shared.outbox.clear();
    }
}
