//! The watcher: a reactor's thread, and the completions it hands over.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::completion::{Completions, Done};
use super::conn::Conn;
use super::endpoint::Endpoint;
use crate::config::Config;
use crate::handle::Handle;
use crate::pin;
use crate::remote::Remote;
use crate::server::{Running, Server};
use crate::sync::lock_std;

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

/// Where completions wait for the caller.
pub(crate) struct Outbox<T: Send + 'static> {
    batch: Mutex<Batch<T>>,
    filled: Condvar,
}

struct Batch<T: Send + 'static> {
    done: Vec<Done<T>>,
    swap: Vec<u8>,
    swap_max: usize,
    /// Connections whose read waits for room in the swap buffer.
    starved: Vec<Remote>,
    /// The caller sleeps.
    waiting: bool,
    closed: bool,
}

impl<T: Send + 'static> Outbox<T> {
    pub(crate) fn push(&self, done: Done<T>) {
        self.add(lock_std(&self.batch), done);
    }

    /// Whether the swap buffer has room; if not, `remote` is told when it has.
    pub(crate) fn has_room(&self, remote: impl FnOnce() -> Remote) -> bool {
        let mut batch = lock_std(&self.batch);
        let room = batch.swap.len() < batch.swap_max;
        if !room {
            batch.starved.push(remote());
        }
        room
    }

    /// Copies as much of `data` as there is room for into the swap buffer, and adds the
    /// completion that lends it: at once, for the caller takes both together. Gives the bytes
    /// copied.
    pub(crate) fn lend(&self, data: &[u8], done: impl FnOnce(Range<usize>) -> Done<T>) -> usize {
        let mut batch = lock_std(&self.batch);
        let start = batch.swap.len();
        let n = data.len().min(batch.swap_max - start);
        batch.swap.extend_from_slice(&data[..n]);
        self.add(batch, done(start..start + n));
        n
    }

    fn add(&self, mut batch: MutexGuard<'_, Batch<T>>, done: Done<T>) {
        if batch.closed {
            drop(batch); // before `done`, whose connection may lock
            return;
        }
        batch.done.push(done);
        if std::mem::take(&mut batch.waiting) {
            drop(batch);
            self.filled.notify_one();
        }
    }

    fn close(&self) {
        lock_std(&self.batch).closed = true;
        self.filled.notify_all();
    }
}

/// Lives as long as the watcher's reactor: what completes as that ends is still handed over.
struct CloseAtEnd<T: Send + 'static>(Arc<Outbox<T>>);

impl<T: Send + 'static> Drop for CloseAtEnd<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A proactor: one thread that waits for all connections given to it, and the queue of what has
/// completed. See the [module](crate::proactor).
///
/// Dropping it closes every connection, drops what is pending, and ends the thread.
pub struct Watcher<T: Send + 'static> {
    outbox: Arc<Outbox<T>>,
    done: Vec<Done<T>>,
    swap: Vec<u8>,
    delegator: Delegator<T>,
    running: Option<Running>,
}

/// The part of a watcher that other threads may have: it takes connections in.
///
/// ```no_run
/// use std::net::TcpListener;
/// use reev::proactor::Watcher;
///
/// let mut watcher: Watcher<u64> = Watcher::new()?;
/// let (delegator, listener) = (watcher.delegator(), TcpListener::bind("127.0.0.1:7000")?);
/// std::thread::spawn(move || {
///     for (number, stream) in listener.incoming().flatten().enumerate() {
///         let Ok(conn) = delegator.delegate(stream) else { return };
///         let _ = conn.read(number as u64, None); // it may have ended
///     }
/// });
/// for completion in watcher.wait()? {
///     println!("{}: {} bytes", completion.context, completion.bytes);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Delegator<T: Send + 'static> {
    outbox: Arc<Outbox<T>>,
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
        if !(4 << 10..=1 << 30).contains(&config.swap_buffer) {
            let message = format!("swap_buffer is {}; from 4 KiB to 1 GiB", config.swap_buffer);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let core = config.core.map(|id| {
            let allowed = pin::allowed_cores().into_iter().find(|core| core.id == id);
            allowed.ok_or_else(|| {
                let message = format!("core {id} is none that this process may use");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })
        });
        let core = core.transpose()?;
        let server = Server::new(Config {
            reactors: 1,
            pin: false,
            read_buffer: config.read_buffer,
            // Back-pressure is the caller's: a write is handed to the system at once, and what
            // it does not take is told when it is gone.
            output_low: 0,
            output_high: 0,
            output_max: usize::MAX,
            ..Config::default()
        })?;
        let batch = Batch {
            done: Vec::new(),
            swap: Vec::new(),
            swap_max: config.swap_buffer,
            starved: Vec::new(),
            waiting: false,
            closed: false,
        };
        let outbox = Arc::new(Outbox { batch: Mutex::new(batch), filled: Condvar::new() });
        let ends = outbox.clone();
        let running = server.start(move |reactor| {
            reactor.set_local(CloseAtEnd(ends.clone()));
            if let Some(core) = core {
                pin::pin_to(core);
            }
            Ok(())
        })?;
        let delegator = Delegator { outbox: outbox.clone(), handle: running.handle() };
        let (done, swap) = (Vec::new(), Vec::new());
        Ok(Watcher { outbox, done, swap, delegator, running: Some(running) })
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

    /// Waits for completions at most so long; there may be none.
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

    #[expect(clippy::disallowed_methods, reason = "the caller's own wait, on the caller's thread")]
    fn take_batch(&mut self, timeout: Option<Duration>) -> io::Result<Completions<'_, T>> {
        self.swap.clear();
        self.done.clear();
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut batch = lock_std(&self.outbox.batch);
        while batch.done.is_empty() && !batch.closed {
            batch.waiting = true;
            batch = match until.filter(|_| timeout.is_some()) {
                None => self.outbox.filled.wait(batch).unwrap_or_else(|e| e.into_inner()),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.outbox.filled.wait_timeout(batch, left);
                    waited.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        batch.waiting = false;
        if batch.done.is_empty() && batch.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the watcher is closed"));
        }
        std::mem::swap(&mut batch.done, &mut self.done);
        std::mem::swap(&mut batch.swap, &mut self.swap);
        let starved = std::mem::take(&mut batch.starved);
        drop(batch);
        for remote in starved {
            let _ = remote.notify_urgent(0); // refused only if it is closed
        }
        Ok(Completions::new(&mut self.done, &self.swap))
    }
}

impl<T: Send + 'static> Delegator<T> {
    /// Takes a connected stream socket in: a `std::net::TcpStream`, a `UnixStream` or their
    /// descriptor, at any moment, such as after a handshake. Its options stay as they are, but
    /// that it is made non-blocking. Nothing is read before a read is submitted.
    ///
    /// # Errors
    /// `NotConnected` if the watcher is closed, or what the system says of the socket.
    pub fn delegate(&self, socket: impl Into<OwnedFd>) -> io::Result<Conn<T>> {
        let (socket, _) = crate::sys::adopt_stream(socket.into())?;
        let conn = Conn::new();
        let endpoint = Endpoint::new(conn.downgrade(), conn.shared(), self.outbox.clone());
        let sent = self.handle.run_on(0, move |reactor| {
            if let Err(error) = reactor.adopt(socket, endpoint) {
                log::error!("cannot take a connection in: {error}");
            }
        });
        sent.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))?;
        Ok(conn)
    }

    /// Closes the watcher: every connection is closed, and `wait` fails when it has given what
    /// had completed before.
    pub fn close(&self) {
        self.handle.stop();
    }
}

impl<T: Send + 'static> Clone for Delegator<T> {
    fn clone(&self) -> Delegator<T> {
        Delegator { outbox: self.outbox.clone(), handle: self.handle.clone() }
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
        self.outbox.close();
        if let Some(running) = self.running.take() {
            let _ = running.join(); // a reactor that failed has closed everything as well
        }
    }
}
