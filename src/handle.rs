//! Controlling a running server from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::acceptor::ListenerId;
use crate::mail::{Mail, ReactorShared};
use crate::mailbox::SendError;
use crate::reactor::Reactor;
use crate::stats::Stats;

/// Controls a server from any thread; cheap to clone.
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
            let _ = reactor.mailbox.send_urgent(Mail::Stop); // refused only if it has ended
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
    pub fn run_on(
        &self,
        index: usize,
        task: impl FnOnce(&mut Reactor) + Send + 'static,
    ) -> Result<(), SendError> {
        self.send_to(index, Mail::Task(Box::new(task)))
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
