//! Controlling a running server from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::acceptor::ListenerId;
use crate::connector::{ConnectOptions, Target};
use crate::handler::EvHandler;
use crate::mail::{Mail, ReactorShared};
use crate::mailbox::SendError;
use crate::reactor::Reactor;
use crate::stats::Stats;

/// Controls a server from any thread; cheap to clone.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// # struct Echo;
/// # impl EvHandler for Echo {
/// #     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
/// #         cx.write(data);
/// #         Ok(data.len())
/// #     }
/// # }
/// use std::time::Duration;
/// use reev::{Config, Server, Stats};
///
/// let mut server = Server::new(Config { reactors: 2, pin: false, ..Config::default() })?;
/// let listener = server.listen("127.0.0.1:0")?;
/// let running = server.start(move |reactor| reactor.accept(listener, |_peer| Echo))?;
///
/// let handle = running.handle();
/// handle.broadcast(|reactor| log::info!("reactor {} is there", reactor.index()))?;
/// println!("{} connections", Stats::total(&handle.stats()).open);
///
/// let cut = handle.shutdown(Duration::from_secs(5)).wait();
/// assert_eq!(cut, 0);
/// running.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    reactors: Arc<[Arc<ReactorShared>]>,
}

impl Handle {
    pub(crate) fn new(reactors: impl Iterator<Item = Arc<ReactorShared>>) -> Handle {
        Handle { reactors: reactors.collect() }
    }

    /// Stops all reactors after their present turn. Every connection gets `on_close` with
    /// [`Close::Stopped`](crate::Close::Stopped) and is reset, so that output which the peer has
    /// not got yet may be lost. Harmless when repeated.
    pub fn stop(&self) {
        for reactor in self.reactors.iter() {
            reactor.ask_to_stop();
        }
    }

    /// Shuts down gracefully: the listeners take what is under way and close, every handler gets
    /// `on_shutdown`, output is flushed, and each reactor ends when its last connection has.
    /// What is still there after `within` (`None`: `Config::shutdown_timeout`) is cut, as by
    /// [`Handle::stop`]. Returns at once; [`Shutdown::wait`] gives the number that was cut.
    ///
    /// Repeated, the shorter time counts.
    pub fn shutdown(&self, within: impl Into<Option<Duration>>) -> Shutdown {
        let within = within.into();
        let (report, reports) = mpsc::channel();
        for reactor in self.reactors.iter() {
            let _ = reactor.mailbox.send_urgent(Mail::Shutdown(within, report.clone()));
        }
        Shutdown { reports }
    }

    /// Has every reactor leave `listener` as by
    /// [`Reactor::close_listener`](crate::Reactor::close_listener); connections that are open
    /// stay.
    ///
    /// # Errors
    /// The first refusal of a mailbox; the other reactors still leave.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler};
    /// # struct Echo;
    /// # impl EvHandler for Echo {
    /// #     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    /// #         cx.write(data);
    /// #         Ok(data.len())
    /// #     }
    /// # }
    /// # let mut server = reev::Server::new(reev::Config { reactors: 2, pin: false, ..Default::default() })?;
    /// let admin = server.listen("127.0.0.1:0")?;
    /// let running = server.start(move |reactor| reactor.accept(admin, |_peer| Echo))?;
    /// running.handle().remove_listener(admin)?; // nobody new; who is there stays
    /// # running.handle().shutdown(None).wait();
    /// # running.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove_listener(&self, listener: ListenerId) -> Result<(), SendError> {
        self.broadcast(move |reactor| {
            let _ = reactor.close_listener(listener); // one that does not accept has left
        })
    }

    /// Runs a closure on every reactor's thread, soon: to refresh what handlers share, or to
    /// write to all connections. Not atomic: each reactor runs it in a turn of its own. A panic
    /// in it is logged, and harms nobody.
    ///
    /// # Errors
    /// The first refusal of a mailbox; the other reactors still get the closure.
    pub fn broadcast(
        &self,
        task: impl Fn(&mut Reactor) + Send + Sync + 'static,
    ) -> Result<(), SendError> {
        let task = Arc::new(task);
        let mut result = Ok(());
        for reactor in self.reactors.iter() {
            let task = task.clone();
            let task = Mail::Task(Box::new(move |reactor| task(reactor)));
            result = result.and(reactor.mailbox.send(task));
        }
        result
    }

    /// Runs a closure on the thread of reactor `index`, soon.
    ///
    /// # Errors
    /// [`SendError::Closed`] if there is no such reactor or it has ended, [`SendError::Full`]
    /// if its mailbox is full.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler};
    /// # struct Echo;
    /// # impl EvHandler for Echo {
    /// #     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    /// #         cx.write(data);
    /// #         Ok(data.len())
    /// #     }
    /// # }
    /// use std::net::{TcpListener, TcpStream};
    /// # let server = reev::Server::new(reev::Config { reactors: 2, pin: false, ..Default::default() })?;
    /// # let running = server.start(|_reactor| Ok(()))?;
    /// # let handle = running.handle();
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    ///
    /// // A connection made by hand goes on with reactor 1.
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// handle.run_on(1, |reactor| {
    ///     if let Err(error) = reactor.adopt(stream, Echo) {
    ///         log::warn!("not adopted: {error}");
    ///     }
    /// })?;
    /// # running.handle().stop();
    /// # running.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_on(
        &self,
        index: usize,
        task: impl FnOnce(&mut Reactor) + Send + 'static,
    ) -> Result<(), SendError> {
        self.send_to(index, Mail::Task(Box::new(task)))
    }

    /// Connects to `target` on the reactor that has the fewest connections now; `factory` makes
    /// the handler on that reactor's thread. As [`Ctx::connect`](crate::Ctx::connect), from any
    /// thread: `Ok` says that the reactor will try, the outcome is told to the handler.
    ///
    /// # Errors
    /// [`SendError::Full`] if the reactor's mailbox is full, [`SendError::Closed`] if it has
    /// ended; the factory is not called then.
    pub fn connect<H: EvHandler>(
        &self,
        target: impl Into<Target>,
        options: &ConnectOptions,
        factory: impl FnOnce() -> H + Send + 'static,
    ) -> Result<(), SendError> {
        let idlest = self.reactors.iter().min_by_key(|reactor| reactor.counters.open.value());
        let index = idlest.map_or(0, |reactor| reactor.index);
        let (target, options) = (target.into(), options.clone());
        self.run_on(index, move |reactor| {
            reactor.connect(target, &options, factory());
        })
    }

    pub(crate) fn send_to(&self, index: usize, mail: Mail) -> Result<(), SendError> {
        self.reactors.get(index).ok_or(SendError::Closed)?.mailbox.send(mail)
    }

    /// Sends what must not be lost, whatever waits already.
    pub(crate) fn send_urgent_to(&self, index: usize, mail: Mail) -> Result<(), SendError> {
        self.reactors.get(index).ok_or(SendError::Closed)?.mailbox.send_urgent(mail)
    }

    /// Sends, or gives back what was refused.
    pub(crate) fn hand_over(&self, index: usize, mail: Mail) -> Result<(), (SendError, Mail)> {
        match self.reactors.get(index) {
            Some(reactor) => reactor.mailbox.hand_over(mail),
            None => Err((SendError::Closed, mail)),
        }
    }

    /// What each reactor has done, as of its latest turn. Costs the reactors nothing.
    pub fn stats(&self) -> Vec<Stats> {
        self.reactors.iter().map(|reactor| reactor.counters.snapshot()).collect()
    }

    /// The number of reactors.
    pub fn reactors(&self) -> usize {
        self.reactors.len()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("reactors", &self.reactors.len()).finish()
    }
}

/// A graceful shutdown under way.
#[derive(Debug)]
pub struct Shutdown {
    reports: Receiver<usize>,
}

impl Shutdown {
    /// Waits until all reactors have ended; the number of connections that were cut. Not to be
    /// called on a reactor's thread, which would wait for itself.
    pub fn wait(self) -> usize {
        self.reports.iter().sum()
    }
}
