//! Accepting connections: one `Acceptor` for each listener of a reactor.

use std::io;
use std::time::Duration;

use crate::addr::Addr;
use crate::close::Close;
use crate::conn::{Conn, Kind};
use crate::core::nanos;
use crate::group::{Parting, SharedGroup, Spread};
use crate::handler::{ConnId, EvHandler};
use crate::isolate::isolated;
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
    /// The type of the factory, for the log.
    factory_name: &'static str,
    /// It waits for a timer or for the end of a connection.
    resting: bool,
    /// It takes what is under way and then closes its socket. Where connections are handed
    /// over, it stays like that for those on the way.
    leaving: bool,
    /// When it closes although connections still come, in nanoseconds.
    leave_by: u64,
}

/// What one try to accept came to.
#[derive(PartialEq, Eq, Debug)]
enum Attempt {
    /// A connection was taken, or one that failed is out of the way.
    Taken,
    /// Nobody waits.
    Empty,
    /// The limit is reached, or a resource is missing: the listener rests.
    Stuck,
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
        factory_name: &'static str,
    ) -> io::Result<()> {
        let reactor = self.index();
        let listening = self.listening(listener.0).ok_or_else(no_listener)?;
        let handed = listening.group.spread == Spread::Handed;
        match &mut listening.acceptor {
            Some(acceptor) if handed && acceptor.leaving && listening.group.is_open() => {
                acceptor.factory = factory;
                acceptor.factory_name = factory_name;
                acceptor.leaving = false;
                listening.group.take_part(reactor);
                return Ok(());
            }
            Some(acceptor) => {
                let message = match acceptor.leaving {
                    true => "this reactor is about to leave that listener",
                    false => "this reactor accepts from that listener already",
                };
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            None => {}
        }
        let mut acceptor = Acceptor {
            id: ConnId::NONE,
            factory,
            factory_name,
            resting: true,
            leaving: false,
            leave_by: 0,
        };
        let socket = match listening.socket.take() {
            Some(socket) => socket,
            None if handed && reactor != 0 && listening.group.is_open() => {
                listening.group.take_part(reactor);
                listening.acceptor = Some(acceptor);
                return Ok(());
            }
            None => Socket::Fd(listening.group.join(reactor)?),
        };
        listening.group.take_part(reactor);
        let conn = Conn::new(Kind::Listener, listening.group.addr.clone(), listener.0);
        acceptor.id = self.dispatcher.core.insert(conn);
        self.dispatcher.backend.install(acceptor.id.index(), socket);
        if let Some(listening) = self.listening(listener.0) {
            listening.acceptor = Some(acceptor);
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
        let confirmed = self.dispatcher.backend.confirm_interest(acceptor.id);
        confirmed.inspect_err(|_| conn.interest = Interest::UNREGISTERED)?;
        acceptor.resting = !on;
        Ok(())
    }

    /// Accepts what waits, up to the turn's budget.
    pub(crate) fn accept_ready(&mut self, index: u16, id: ConnId) {
        for _ in 0..self.dispatcher.core.config.accepts_per_turn {
            if self.accept_one(index, id) != Attempt::Taken {
                return;
            }
        }
    }

    fn accept_one(&mut self, index: u16, id: ConnId) -> Attempt {
        let Some(listening) = self.listeners.get_mut(usize::from(index)) else {
            return Attempt::Empty;
        };
        if !listening.group.acquire() {
            self.rest(index);
            return Attempt::Stuck;
        }
        let error = match self.dispatcher.backend.accept(id.index()) {
            Ok((socket, peer)) => {
                self.place(index, socket, peer);
                self.stay_longer(index);
                return Attempt::Taken;
            }
            Err(error) => error,
        };
        listening.group.release();
        // unix(7): the end of the queue of a socket that refuses connections.
        let refusing = listening.acceptor.as_ref().is_some_and(|acceptor| acceptor.leaving);
        if refusing && error.raw_os_error() == Some(libc::EINVAL) {
            return Attempt::Empty;
        }
        let error = match failure(&error) {
            Failure::Nothing => return Attempt::Empty,
            Failure::Connection => return Attempt::Taken,
            Failure::Resource => error,
            // accept(2) wants a descriptor before it looks whether anybody waits.
            Failure::Descriptors => match self.dispatcher.backend.turn_away(id.index()) {
                Ok(()) => {
                    let counters = &self.dispatcher.core.shared.counters;
                    counters.accept_errors.add(1);
                    counters.turned_away.add(1);
                    return Attempt::Taken;
                }
                Err(none) if none.kind() == io::ErrorKind::WouldBlock => return Attempt::Empty,
                Err(_) => error,
            },
        };
        self.dispatcher.core.shared.counters.accept_errors.add(1);
        log::warn!("accept on {}: {error}; resting", listening.group.addr);
        self.rest(index);
        Attempt::Stuck
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
        let Err((error, mail)) = self.dispatcher.core.handle.hand_over(reactor, handed) else {
            return;
        };
        // It has ended, or is swamped: a client that waits already is served here instead.
        log::debug!("{}: reactor {reactor} takes no connection: {error}", group.addr);
        if let Some(placer) = &group.placer {
            placer.leave(reactor);
            placer.enter(here);
        }
        if let Mail::Accepted(_, socket, peer) = mail {
            self.accepted(index, socket, peer);
        }
    }

    /// A connection of listener `index` joins this reactor.
    pub(crate) fn accepted(&mut self, index: u16, socket: Socket, peer: Addr) {
        let core = &mut self.dispatcher.core;
        core.shared.counters.accepted.add(1);
        let id = core.insert(Conn::new(Kind::Stream, peer.clone(), index));
        self.dispatcher.backend.install(id.index(), socket);
        match self.make_handler(index, &peer) {
            Ok(handler) => {
                self.dispatcher.put_handler(id, handler);
                self.dispatcher.open(id);
            }
            Err(why) => {
                self.dispatcher.core.doom(id, why);
                self.dispatcher.settle();
            }
        }
    }

    fn make_handler(&mut self, index: u16, peer: &Addr) -> Result<Box<dyn EvHandler>, Close> {
        let Some(acceptor) = self.acceptor(index) else {
            log::error!("{peer} came by listener {index}, from which this reactor does not accept");
            return Err(Close::Stopped);
        };
        isolated(|| (acceptor.factory)(peer)).map_err(|message| {
            log::error!("{} panicked for {peer}: {message}", acceptor.factory_name);
            Close::Panic(message)
        })
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

    /// Stops accepting from `listener` on this reactor, without a reset for any client. Those
    /// whose connections are under way are served for `Config::listener_grace`, then the socket
    /// is closed; connections that are open stay. [`Reactor::accept`] joins again later.
    ///
    /// New connections go to the other reactors. With none left, TCP requests are ignored during
    /// the grace, so that clients ask again and find the port closed or a successor's; a Unix
    /// socket's path is removed and connections are refused at once. A listening socket made
    /// elsewhere stays in order for others that have it.
    ///
    /// Steering counts on the group's sockets being all of this server: a second server on the
    /// same port (by SO_REUSEPORT) may get more or fewer connections than its share meanwhile.
    ///
    /// # Errors
    /// `NotFound` if this reactor does not accept from `listener`, or leaves already.
    pub fn close_listener(&mut self, listener: ListenerId) -> io::Result<()> {
        let reactor = self.index();
        let listening = self.listening(listener.0).ok_or_else(no_listener)?;
        let Some(acceptor) = listening.acceptor.as_mut().filter(|acceptor| !acceptor.leaving)
        else {
            return Err(no_listener());
        };
        acceptor.leaving = true;
        match listening.group.take_no_part(reactor) {
            true => self.begin_leaving(listener.0),
            // Here or elsewhere, the one that accepts for all goes with the last.
            false if listening.group.is_deserted() => {
                let leave = Mail::Task(Box::new(move |reactor| reactor.leave_deserted(listener.0)));
                let _ = self.dispatcher.core.handle.send_urgent_to(0, leave); // or it has ended
            }
            false => {}
        }
        Ok(())
    }

    fn leave_deserted(&mut self, index: u16) {
        if self.listening(index).is_some_and(|listening| listening.group.is_deserted()) {
            self.begin_leaving(index);
        }
    }

    /// Has the group's socket of this reactor leave it.
    fn begin_leaving(&mut self, index: u16) {
        let reactor = self.index();
        let Some(id) = self.acceptor(index).map(|acceptor| acceptor.id) else {
            return;
        };
        let Some(group) = self.listening(index).map(|listening| listening.group.clone()) else {
            return;
        };
        match group.begin_leaving(reactor) {
            Parting::Now => {
                // No more wake-ups come here, which others would miss; a few may have.
                if let Err(error) = self.watch(index, false) {
                    log::warn!("cannot stop watching {}: {error}", group.addr);
                }
                self.accept_ready(index, id);
                self.end_acceptor(index, id);
            }
            Parting::WhenEmpty => self.finish_leaving(id),
            Parting::AfterGrace => {
                let core = &mut self.dispatcher.core;
                let grace = core.config.listener_grace;
                let leave_by = core.now.saturating_add(nanos(grace).saturating_mul(GRACES_MAX));
                core.set_internal(id, Purpose::Leave, grace, 0);
                if let Some(acceptor) = self.acceptor(index) {
                    acceptor.leave_by = leave_by;
                }
            }
        }
    }

    /// A connection has come to a leaving listener, so others may be under way as well: the
    /// grace begins anew.
    fn stay_longer(&mut self, index: u16) {
        let now = self.dispatcher.core.now;
        let grace = self.dispatcher.core.config.listener_grace;
        let acceptor = self.acceptor(index).filter(|acceptor| acceptor.leaving);
        if let Some(id) = acceptor.filter(|acceptor| acceptor.leave_by > now).map(|a| a.id) {
            self.dispatcher.core.set_internal(id, Purpose::Leave, grace, 0);
        }
    }

    /// The grace of a leaving listener is over: accept what is left, close.
    pub(crate) fn finish_leaving(&mut self, id: ConnId) {
        let Some(index) = self.dispatcher.core.conns.get(id.0).map(|conn| conn.listener) else {
            return;
        };
        let Some(group) = self.listening(index).map(|listening| listening.group.clone()) else {
            return;
        };
        let mut attempt = Attempt::Taken;
        for _ in 0..self.dispatcher.core.config.accepts_per_turn {
            attempt = self.accept_one(index, id);
            if attempt != Attempt::Taken {
                break;
            }
        }
        if attempt != Attempt::Empty {
            // A full house, or more than a turn's share: whoever waits is not to be reset.
            let later = match attempt {
                Attempt::Stuck => self.dispatcher.core.config.accept_backoff,
                _ => Duration::ZERO,
            };
            return self.dispatcher.core.set_internal(id, Purpose::Leave, later, 0);
        }
        let mut last = Vec::new();
        group.leave(self.index(), |count| {
            while let Ok(accepted) = self.dispatcher.backend.accept(id.index()) {
                count();
                last.push(accepted);
            }
            self.dispatcher.release(id, false);
        });
        for (socket, peer) in last {
            self.place(index, socket, peer);
        }
        self.end_acceptor(index, id);
    }

    fn end_acceptor(&mut self, index: u16, id: ConnId) {
        self.dispatcher.release(id, false);
        if let Some(listening) = self.listening(index) {
            listening.acceptor = None;
        }
    }

    /// Gives up the listening sockets, as the reactor stops.
    pub(crate) fn drop_listeners(&mut self) {
        let reactor = self.index();
        for index in 0..self.listeners.len() as u16 {
            let Some(listening) = self.listening(index) else {
                continue;
            };
            listening.socket = None;
            let group = listening.group.clone();
            let id = self.acceptor(index).map_or(ConnId::NONE, |acceptor| acceptor.id);
            group.take_no_part(reactor);
            group.leave(reactor, |_| self.dispatcher.release(id, false));
        }
    }

    /// Has every listener leave, as the server shuts down.
    pub(crate) fn close_listeners(&mut self) {
        for index in 0..self.listeners.len() as u16 {
            let _ = self.close_listener(ListenerId(index)); // one that is not there is closed
        }
    }
}

/// A leaving listener to which connections keep coming, because nothing steers them away, goes
/// after so many times its grace.
const GRACES_MAX: u64 = 10;

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
