//! Accepting connections: one `Acceptor` for each listener of a reactor.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::addr::Addr;
use crate::close::Close;
use crate::conn::{Conn, Kind};
use crate::handler::{ConnId, EvHandler};
use crate::reactor::Reactor;
use crate::sync::{AtomicUsize, Ordering};
use crate::sys::{Interest, Socket};
use crate::timer::Purpose;

/// Names a listener of a server; see [`Server::listen`](crate::Server::listen).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ListenerId(pub(crate) u16);

/// One reactor's part of a listener, before an acceptor takes it.
pub(crate) struct Listening {
    pub(crate) socket: Socket,
    pub(crate) addr: Addr,
    /// The socket is shared with other reactors.
    pub(crate) shared: bool,
    pub(crate) limit: Option<Arc<Limit>>,
}

/// How many connections of a listener may be open, over all reactors.
pub(crate) struct Limit {
    open: AtomicUsize,
    max: usize,
}

impl Limit {
    pub(crate) fn new(max: usize) -> Limit {
        Limit { open: AtomicUsize::new(0), max }
    }

    fn acquire(&self) -> bool {
        let taken = self.open.fetch_add(1, Ordering::AcqRel);
        if taken >= self.max {
            self.open.fetch_sub(1, Ordering::AcqRel);
        }
        taken < self.max
    }

    fn release(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

type Factory = Box<dyn FnMut(&Addr) -> Box<dyn EvHandler>>;

/// Accepts a listener's connections on one reactor and makes their handlers.
pub(crate) struct Acceptor {
    id: ConnId,
    listener: ListenerId,
    addr: Addr,
    factory: Factory,
    limit: Option<Arc<Limit>>,
    /// What the poller is to watch while it accepts.
    interest: Interest,
    /// It waits for a timer or for the end of a connection.
    resting: bool,
}

/// What a failed `accept` says about the next one.
#[derive(PartialEq, Eq, Debug)]
enum Failure {
    /// Nobody waits.
    Nothing,
    /// That connection is gone; others may wait.
    Connection,
    /// There is no descriptor or memory; it is no use to try again at once.
    Resource,
}

/// accept(2): besides its own errors it passes on those of the connection, which are to be
/// treated like an empty queue, only that the next may be there already.
fn failure(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Failure::Resource,
        Some(
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => Failure::Connection,
        _ if error.kind() == io::ErrorKind::WouldBlock => Failure::Nothing,
        _ => Failure::Resource,
    }
}

impl Reactor {
    pub(crate) fn add_acceptor(
        &mut self,
        listener: ListenerId,
        factory: Factory,
    ) -> io::Result<()> {
        if self.acceptors.iter().any(|acceptor| acceptor.listener == listener) {
            let message = "this reactor accepts from that listener already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let slot = self.listeners.get_mut(usize::from(listener.0)).and_then(Option::take);
        let Some(listening) = slot else {
            let message = "no such listener in this server";
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let index = self.acceptors.len() as u16;
        let dispatcher = &mut self.dispatcher;
        let conn = Conn::new(Kind::Listener, listening.addr.clone(), index);
        let id = dispatcher.core.insert(conn);
        dispatcher.backend.install(id.index(), listening.socket);
        let interest = match listening.shared {
            true => Interest::READ | Interest::EXCLUSIVE,
            false => Interest::READ,
        };
        self.acceptors.push(Acceptor {
            id,
            listener,
            addr: listening.addr,
            factory,
            limit: listening.limit,
            interest,
            resting: true,
        });
        self.watch(index, true)
    }

    /// Has the poller watch a listener, or not.
    fn watch(&mut self, index: u16, on: bool) -> io::Result<()> {
        let acceptor = &mut self.acceptors[usize::from(index)];
        if acceptor.resting != on {
            return Ok(());
        }
        let Some(conn) = self.dispatcher.core.conns.get_mut(acceptor.id.0) else {
            return Ok(());
        };
        let new = if on { acceptor.interest } else { Interest::UNREGISTERED };
        self.dispatcher.backend.set_interest(acceptor.id, conn.interest, new)?;
        conn.interest = new;
        acceptor.resting = !on;
        Ok(())
    }

    pub(crate) fn accept_ready(&mut self, index: u16, id: ConnId) {
        for _ in 0..self.dispatcher.core.config.accepts_per_turn {
            let acceptor = &mut self.acceptors[usize::from(index)];
            if acceptor.limit.as_ref().is_some_and(|limit| !limit.acquire()) {
                return self.rest(index);
            }
            match self.dispatcher.backend.accept(id.index()) {
                Ok((socket, peer)) => self.accepted(index, socket, peer),
                Err(error) => {
                    if let Some(limit) = &acceptor.limit {
                        limit.release();
                    }
                    match failure(&error) {
                        Failure::Nothing => return,
                        Failure::Connection => {}
                        Failure::Resource => {
                            log::warn!("accept on {}: {error}; resting", acceptor.addr);
                            self.dispatcher.core.shared.counters.accept_errors.add(1);
                            return self.rest(index);
                        }
                    }
                }
            }
        }
    }

    fn accepted(&mut self, index: u16, socket: Socket, peer: Addr) {
        let acceptor = &mut self.acceptors[usize::from(index)];
        let made = catch_unwind(AssertUnwindSafe(|| (acceptor.factory)(&peer)));
        let core = &mut self.dispatcher.core;
        core.shared.counters.accepted.add(1);
        let id = core.insert(Conn::new(Kind::Stream, peer, index));
        self.dispatcher.backend.install(id.index(), socket);
        match made {
            Ok(handler) => {
                self.dispatcher.put_handler(id, handler);
                self.dispatcher.open(id);
            }
            Err(_) => {
                log::error!("the factory of {} panicked; connection dropped", acceptor.addr);
                core.doom(id, Close::Panic("in the handler's factory".to_owned()));
                self.dispatcher.settle();
            }
        }
    }

    /// Stops watching a listener until a timer or the end of one of its connections.
    fn rest(&mut self, index: u16) {
        let id = self.acceptors[usize::from(index)].id;
        if let Err(error) = self.watch(index, false) {
            log::error!("cannot let the listener {id:?} rest: {error}");
        }
        let backoff = self.dispatcher.core.config.accept_backoff;
        self.dispatcher.core.set_internal(id, Purpose::Accept, backoff, 0);
    }

    /// The timer of a resting listener.
    pub(crate) fn accept_again(&mut self, id: ConnId) {
        let index = self.acceptors.iter().position(|acceptor| acceptor.id == id);
        if let Some(index) = index
            && let Err(error) = self.watch(index as u16, true)
        {
            log::warn!("cannot watch the listener again: {error}; trying later");
            self.rest(index as u16);
        }
    }

    /// Gives back what ended connections held of their listeners' limits.
    pub(crate) fn resume_acceptors(&mut self) {
        while let Some(index) = self.dispatcher.released.pop() {
            let Some(acceptor) = self.acceptors.get(usize::from(index)) else {
                continue;
            };
            if let Some(limit) = &acceptor.limit {
                limit.release();
                if acceptor.resting {
                    self.dispatcher.core.cancel_internal(acceptor.id, Purpose::Accept);
                    self.accept_again(self.acceptors[usize::from(index)].id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_told_apart() {
        let of = |errno| failure(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EAGAIN), Failure::Nothing);
        assert_eq!(of(libc::ECONNABORTED), Failure::Connection);
        assert_eq!(of(libc::EPERM), Failure::Connection);
        assert_eq!(of(libc::EMFILE), Failure::Resource);
        assert_eq!(of(libc::ENOMEM), Failure::Resource);
    }

    #[test]
    fn a_limit_is_exact() {
        let limit = Limit::new(2);
        assert!(limit.acquire() && limit.acquire());
        assert!(!limit.acquire());
        limit.release();
        assert!(limit.acquire());
    }
}
