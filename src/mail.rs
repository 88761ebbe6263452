//! What other threads can tell a reactor.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;

use crate::addr::Addr;
use crate::handler::ConnId;
use crate::mailbox::{Mailbox, Weight};
use crate::reactor::Reactor;
use crate::remote::RemoteState;
use crate::stats::Counters;
use crate::sync::{AtomicBool, Ordering};
use crate::sys::{Socket, Waker};

pub(crate) enum Mail {
    Write(Arc<RemoteState>, Bytes),
    Notify(ConnId, u64),
    Close(ConnId),
    Abort(ConnId),
    /// A closure for the reactor itself.
    Task(Box<dyn FnOnce(&mut Reactor) + Send>),
    /// A connection of a listener, accepted by another reactor for this one.
    Accepted(u16, Socket, Addr),
    /// The addresses of a name, for a connection under way.
    Resolved(ConnId, u32, io::Result<Vec<SocketAddr>>),
    /// Shut down gracefully within this time, and say how many connections were cut.
    Shutdown(Option<Duration>, Sender<usize>),
    Stop,
}

impl Weight for Mail {
    fn weight(&self) -> usize {
        match self {
            Mail::Write(_, bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// The part of a reactor that all threads see.
pub(crate) struct ReactorShared {
    pub(crate) index: usize,
    pub(crate) mailbox: Mailbox<Mail, Waker>,
    pub(crate) counters: Counters,
    stop_asked: AtomicBool,
}

impl ReactorShared {
    pub(crate) fn new(
        index: usize,
        mailbox: Mailbox<Mail, Waker>,
        counters: Counters,
    ) -> ReactorShared {
        ReactorShared { index, mailbox, counters, stop_asked: AtomicBool::new(false) }
    }

    /// Asks the reactor to stop, whatever waits already; once is enough.
    pub(crate) fn ask_to_stop(&self) {
        if !self.stop_asked.swap(true, Ordering::Relaxed) {
            let _ = self.mailbox.send_urgent(Mail::Stop); // refused only if it has ended
        }
    }
}
