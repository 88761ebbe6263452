//! What setup closures and tasks do with a reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::acceptor::ListenerId;
use crate::addr::Addr;
use crate::conn::Flags;
use crate::connector::{ConnectOptions, Target};
use crate::ctx::Ctx;
use crate::dispatch::Dispatcher;
use crate::group::Spread;
use crate::handle::Handle;
use crate::handler::{ConnId, EvHandler};
use crate::reactor::Reactor;
use crate::source::Readiness;

impl Reactor {
    /// This reactor's index, from 0.
    pub fn index(&self) -> usize {
        self.dispatcher.core.shared.index
    }

    /// The time of this turn: monotonic.
    pub fn now(&self) -> Instant {
        self.dispatcher.core.instant()
    }

    /// The server, for any thread.
    pub fn handle(&self) -> Handle {
        self.dispatcher.core.handle.clone()
    }

    /// Accepts the connections of `listener` here, with a handler that `factory` makes for each
    /// from the peer's address. To be called on every reactor: each has a socket of its own on a
    /// TCP address, and the system gives it its share of the clients, who would wait for ever (a
    /// warning tells of it).
    ///
    /// # Errors
    /// `NotFound` if `listener` is of another server, `AlreadyExists` if this reactor accepts
    /// from it already or is about to leave it, `Unsupported` if its socket is closed and cannot
    /// be made again (Unix, adopted, handed over), or what the system says.
    pub fn accept<H: EvHandler>(
        &mut self,
        listener: ListenerId,
        mut factory: impl FnMut(&Addr) -> H + 'static,
    ) -> io::Result<()> {
        let name = std::any::type_name_of_val(&factory);
        self.add_acceptor(listener, Box::new(move |peer| Box::new(factory(peer))), name)
    }

    /// After setup: a listening socket without an acceptor has clients all the same.
    pub(crate) fn warn_of_unaccepted(&self) {
        for listening in &self.listeners {
            if listening.socket.is_some() && listening.group.spread == Spread::Each {
                let (addr, index) = (&listening.group.addr, self.index());
                log::warn!("reactor {index} does not accept on {addr}: its clients wait for ever");
            }
        }
    }

    /// Adds a handler without a socket: a timer user, a cron job, the consumer of a queue. Its
    /// `on_open` comes soon; it lives until it calls `close`.
    pub fn add(&mut self, handler: impl EvHandler) -> ConnId {
        self.dispatcher.core.add(Box::new(handler))
    }

    /// Connects to `target`; see [`Ctx::connect`].
    pub fn connect(
        &mut self,
        target: impl Into<Target>,
        options: &ConnectOptions,
        handler: impl EvHandler,
    ) -> ConnId {
        self.dispatcher.core.connect(target.into(), options.clone(), Box::new(handler))
    }

    /// Takes over a connected stream socket; see [`Ctx::adopt`].
    ///
    /// # Errors
    /// As of [`Ctx::adopt`].
    pub fn adopt(
        &mut self,
        socket: impl Into<OwnedFd>,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.adopt(backend, socket, Box::new(handler))
    }

    /// Watches any descriptor; see [`Ctx::add_source`].
    ///
    /// # Errors
    /// As of [`Ctx::add_source`].
    pub fn add_source(
        &mut self,
        fd: impl Into<OwnedFd>,
        watch: Readiness,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.add_source(backend, fd.into(), watch, Box::new(handler))
    }

    /// A connection of this reactor; `None` if it is gone or ending. What is done to it takes
    /// effect when the present setup or task is over.
    pub fn conn(&mut self, id: ConnId) -> Option<Ctx<'_>> {
        let dispatcher = &mut self.dispatcher;
        let conn = dispatcher.core.conns.get(id.0)?;
        if conn.flags.any(Flags::ENDING) || !conn.kind.has_handler() {
            return None;
        }
        Some(Ctx { core: &mut dispatcher.core, net: &mut dispatcher.backend, id })
    }

    /// The ids of all connections and other handlers that are there now.
    pub fn conn_ids(&self) -> Vec<ConnId> {
        let conns = &self.dispatcher.core.conns;
        let keys = (0..conns.slots()).filter_map(|index| conns.key_at(index));
        let live = keys.filter(|&key| {
            conns
                .get(key)
                .is_some_and(|conn| conn.kind.has_handler() && !conn.flags.any(Flags::ENDING))
        });
        live.map(ConnId).collect()
    }

    /// This reactor's one `T`, made by `T::default()` when it is first asked for; handlers find
    /// it with [`Ctx::local`].
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.dispatcher.core.local()
    }

    /// Sets this reactor's one `T`.
    pub fn set_local<T: 'static>(&mut self, value: T) {
        self.dispatcher.core.set_local(value);
    }

    /// Ends this reactor after the present turn; every connection gets `on_close` with
    /// [`Close::Stopped`](crate::Close::Stopped).
    pub fn stop(&mut self) {
        self.running = false;
    }
}
