//! Accepting connections: one `Acceptor` for each listener of a reactor.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::addr::Addr;
use crate::close::Close;
use crate::conn::{Conn, Kind};
use crate::group::{SharedGroup, Spread};
use crate::handler::{ConnId, EvHandler};
use crate::mail::Mail;
use crate::reactor::Reactor;
use crate::sys::{Interest, Socket};
use crate::timer::Purpose;

/// Names a listener of a server; see [`Server::listen`](crate::Server::listen).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ListenerId(pub(crate) u16);

/// One reactor's part of a listener.
pub(crate) struct Listening {
    pub(crate) group: SharedGroup,
    /// A listening socket that no acceptor has taken yet.
    pub(crate) socket: Option<Socket>,
    acceptor: Option<Acceptor>,
}

impl Listening {
    pub(crate) fn new(group: SharedGroup, socket: Option<Socket>) -> Listening {
        Listening { group, socket, acceptor: None }
    }
}

type Factory = Box<dyn FnMut(&Addr) -> Box<dyn EvHandler>>;

/// Accepts a listener's connections on one reactor and makes their handlers.
struct Acceptor {
    /// The listening socket's slot; `NONE` where another reactor accepts and hands over.
    id: ConnId,
    factory: Factory,
    /// It waits for a timer or for the end of a connection.
    resting: bool,
    /// It takes what is under way and then closes its socket.
    leaving: bool,
}

/// What a failed `accept` says about the next one.
#[derive(PartialEq, Eq, Debug)]
enum Failure {
    /// Nobody waits.
    Nothing,
    /// That connection is gone; others may wait.
    Connection,
    /// There is no descriptor; one kept for the purpose can be used to turn the client away.
    Descriptors,
    /// There is no memory, or something unknown; it is no use to try again at once.
    Resource,
}

/// accept(2): besides its own errors it passes on those of the connection, which are to be
/// treated like an empty queue, only that the next may be there already.
fn failure(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Failure::Descriptors,
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

fn no_listener() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such listener in this server")
}

impl Reactor {
    fn listening(&mut self, index: u16) -> Option<&mut Listening> {
        self.listeners.get_mut(usize::from(index))
    }

    fn acceptor(&mut self, index: u16) -> Option<&mut Acceptor> {
        self.listening(index)?.acceptor.as_mut()
    }

    pub(crate) fn add_acceptor(
        &mut self,
        listener: ListenerId,
        factory: Factory,
    ) -> io::Result<()> {
        let reactor = self.index();
        let listening = self.listening(listener.0).ok_or_else(no_listener)?;
        if listening.acceptor.is_some() {
            let message = "this reactor accepts from that listener already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let socket = match listening.socket.take() {
            Some(socket) => socket,
            None if listening.group.spread == Spread::Handed && reactor != 0 => {
                let acceptor =
                    Acceptor { id: ConnId::NONE, factory, resting: true, leaving: false };
                listening.acceptor = Some(acceptor);
                return Ok(());
            }
            None => Socket::Fd(listening.group.join(reactor)?),
        };
        let conn = Conn::new(Kind::Listener, listening.group.addr.clone(), listener.0);
        let id = self.dispatcher.core.insert(conn);
        self.dispatcher.backend.install(id.index(), socket);
        if let Some(listening) = self.listening(listener.0) {
            listening.acceptor = Some(Acceptor { id, factory, resting: true, leaving: false });
        }
        self.watch(listener.0, true)
    }

    /// Has the poller watch a listener, or not.
    fn watch(&mut self, index: u16, on: bool) -> io::Result<()> {
        let Some(listening) = self.listeners.get_mut(usize::from(index)) else {
            return Ok(());
        };
        let Some(acceptor) = listening.acceptor.as_mut().filter(|acceptor| acceptor.resting == on)
        else {
            return Ok(());
        };
        let Some(conn) = self.dispatcher.core.conns.get_mut(acceptor.id.0) else {
            return Ok(());
        };
        let new = match (on, listening.group.spread) {
            (false, _) => Interest::UNREGISTERED,
            (true, Spread::Shared) => Interest::READ | Interest::EXCLUSIVE,
            (true, _) => Interest::READ,
        };
        self.dispatcher.backend.set_interest(acceptor.id, conn.interest, new)?;
        conn.interest = new;
        acceptor.resting = !on;
        Ok(())
    }

    /// Accepts what waits, up to the turn's budget.
    pub(crate) fn accept_ready(&mut self, index: u16, id: ConnId) {
        for _ in 0..self.dispatcher.core.config.accepts_per_turn {
            if !self.accept_one(index, id) {
                return;
            }
        }
    }

    /// False when there is nothing more to accept for now.
    fn accept_one(&mut self, index: u16, id: ConnId) -> bool {
        let Some(listening) = self.listeners.get_mut(usize::from(index)) else {
            return false;
        };
        if !listening.group.acquire() {
            self.rest(index);
            return false;
        }
        let error = match self.dispatcher.backend.accept(id.index()) {
            Ok((socket, peer)) => {
                self.place(index, socket, peer);
                return true;
            }
            Err(error) => error,
        };
        listening.group.release();
        match failure(&error) {
            Failure::Nothing => false,
            Failure::Connection => true,
            failure => {
                let counters = &self.dispatcher.core.shared.counters;
                counters.accept_errors.add(1);
                if failure == Failure::Descriptors && self.dispatcher.backend.turn_away(id.index())
                {
                    counters.turned_away.add(1);
                    return true;
                }
                log::warn!("accept on {}: {error}; resting", listening.group.addr);
                self.rest(index);
                false
            }
        }
    }

    /// Gives a new connection to the reactor that is to have it.
    fn place(&mut self, index: u16, socket: Socket, peer: Addr) {
        let Some(listening) = self.listeners.get_mut(usize::from(index)) else {
            return;
        };
        let here = self.dispatcher.core.shared.index;
        let reactor = match &listening.group.placer {
            Some(placer) => placer.place(&peer),
            None => here,
        };
        if reactor == here {
            return self.accepted(index, socket, peer);
        }
        let group = listening.group.clone();
        let handed = Mail::Accepted(index, socket, peer);
        if let Err(error) = self.dispatcher.core.handle.send_to(reactor, handed) {
            log::warn!("{}: reactor {reactor} takes no connection: {error}", group.addr);
            group.release();
            if let Some(placer) = &group.placer {
                placer.leave(reactor);
            }
        }
    }

    /// A connection of listener `index` joins this reactor.
    pub(crate) fn accepted(&mut self, index: u16, socket: Socket, peer: Addr) {
        let core = &mut self.dispatcher.core;
        let listening = self.listeners.get_mut(usize::from(index));
        let factory = listening.and_then(|listening| listening.acceptor.as_mut());
        let made = factory.map(|acceptor| {
            catch_unwind(AssertUnwindSafe(|| (acceptor.factory)(&peer)))
                .map_err(|_| Close::Panic("in the handler's factory".to_owned()))
        });
        core.shared.counters.accepted.add(1);
        let id = core.insert(Conn::new(Kind::Stream, peer, index));
        self.dispatcher.backend.install(id.index(), socket);
        match made {
            Some(Ok(handler)) => {
                self.dispatcher.put_handler(id, handler);
                self.dispatcher.open(id);
            }
            refused => {
                log::error!("{id:?} of listener {index} got no handler and is dropped");
                core.doom(id, refused.and_then(Result::err).unwrap_or(Close::Stopped));
                self.dispatcher.settle();
            }
        }
    }

    /// Stops watching a listener until a timer or the end of one of its connections.
    fn rest(&mut self, index: u16) {
        if let Err(error) = self.watch(index, false) {
            log::error!("cannot let listener {index} rest: {error}");
        }
        let backoff = self.dispatcher.core.config.accept_backoff;
        if let Some(id) = self.acceptor(index).map(|acceptor| acceptor.id) {
            self.dispatcher.core.set_internal(id, Purpose::Accept, backoff, 0);
        }
    }

    /// The timer of a resting listener, or another reason to go on.
    pub(crate) fn accept_again(&mut self, id: ConnId) {
        let Some(index) = self.dispatcher.core.conns.get(id.0).map(|conn| conn.listener) else {
            return;
        };
        if let Err(error) = self.watch(index, true) {
            log::warn!("cannot watch listener {index} again: {error}; trying later");
            self.rest(index);
        }
    }

    /// Gives back what ended connections held of their listeners' limits and placements.
    pub(crate) fn resume_acceptors(&mut self) {
        let here = self.dispatcher.core.shared.index;
        while let Some(index) = self.dispatcher.released.pop() {
            let Some(listening) = self.listeners.get(usize::from(index)) else {
                continue;
            };
            listening.group.release();
            if let Some(placer) = &listening.group.placer {
                placer.leave(here);
            }
            let resting = listening.acceptor.as_ref().filter(|acceptor| acceptor.resting);
            if let Some(id) = resting.map(|acceptor| acceptor.id)
                && listening.group.is_limited()
            {
                self.dispatcher.core.cancel_internal(id, Purpose::Accept);
                self.accept_again(id);
            }
        }
    }

    /// Stops accepting from `listener` on this reactor, without a reset for any client: new
    /// connections go to the other reactors of the SO_REUSEPORT group (with none left, requests
    /// are ignored, so that clients ask again), those under way are accepted for
    /// `Config::listener_grace`, then the socket is closed. Connections that are open stay.
    /// [`Reactor::accept`] joins again later.
    ///
    /// # Errors
    /// `NotFound` if this reactor does not accept from `listener`.
    pub fn close_listener(&mut self, listener: ListenerId) -> io::Result<()> {
        let reactor = self.index();
        let listening = self.listening(listener.0).ok_or_else(no_listener)?;
        let Some(acceptor) = listening.acceptor.as_mut().filter(|acceptor| !acceptor.leaving)
        else {
            return Err(no_listener());
        };
        acceptor.leaving = true;
        let (id, group) = (acceptor.id, listening.group.clone());
        if id == ConnId::NONE {
            listening.acceptor = None;
            return Ok(());
        }
        if group.spread == Spread::Shared && !group.is_last(reactor) {
            self.finish_leaving(id);
            return Ok(());
        }
        if let Some(fd) = self.dispatcher.backend.descriptor(id.index())
            && let Err(error) = group.begin_leaving(reactor, fd)
        {
            log::warn!("cannot steer connections away from {}: {error}", group.addr);
        }
        let grace = self.dispatcher.core.config.listener_grace;
        self.dispatcher.core.set_internal(id, Purpose::Leave, grace, 0);
        Ok(())
    }

    /// The grace of a leaving listener is over: accept what is left, close.
    pub(crate) fn finish_leaving(&mut self, id: ConnId) {
        let Some(index) = self.dispatcher.core.conns.get(id.0).map(|conn| conn.listener) else {
            return;
        };
        let Some(listening) = self.listening(index) else {
            return;
        };
        let group = listening.group.clone();
        let reactor = self.index();
        let fd = self.dispatcher.backend.descriptor(id.index());
        let Some(fd) = fd.and_then(|fd| fd.try_clone_to_owned().ok()) else {
            return self.end_acceptor(index, id);
        };
        group.finish_leaving(reactor, fd, |fd| {
            // The copy keeps the socket open until the queue is empty and the slot given back.
            for _ in 0..ACCEPTS_AT_END {
                if !self.accept_one(index, id) {
                    break;
                }
            }
            self.end_acceptor(index, id);
            drop(fd);
        });
    }

    fn end_acceptor(&mut self, index: u16, id: ConnId) {
        self.dispatcher.release(id, false);
        if let Some(listening) = self.listening(index) {
            listening.acceptor = None;
        }
    }

    /// Has every listener leave, as the server shuts down.
    pub(crate) fn close_listeners(&mut self) {
        for index in 0..self.listeners.len() as u16 {
            let _ = self.close_listener(ListenerId(index)); // one that is not there is closed
        }
    }
}

/// Connections taken from a leaving listener's queue at its end, at most.
const ACCEPTS_AT_END: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_case_24_errors_of_accept_are_told_apart() {
        let of = |errno| failure(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EAGAIN), Failure::Nothing);
        assert_eq!(of(libc::ECONNABORTED), Failure::Connection);
        assert_eq!(of(libc::EPROTO), Failure::Connection);
        assert_eq!(of(libc::EPERM), Failure::Connection);
        assert_eq!(of(libc::EMFILE), Failure::Descriptors);
        assert_eq!(of(libc::ENFILE), Failure::Descriptors);
        assert_eq!(of(libc::ENOMEM), Failure::Resource);
        assert_eq!(of(libc::ENOBUFS), Failure::Resource);
    }
}
