//! Any descriptor as a source of events: eventfd, pipe, inotify, a foreign library's socket.

use std::io;
use std::os::fd::OwnedFd;

use crate::addr::Addr;
use crate::conn::{Conn, Flags, Kind, NO_LISTENER};
use crate::core::Core;
use crate::handler::{ConnId, EvHandler};
use crate::sys::{Backend, Event, Interest, Socket};

/// What a source is ready for, or is to be watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// There is something to read, or the other end is closed.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The descriptor has an error or is hung up. Always told, whatever is watched.
    pub error: bool,
}

impl Readiness {
    /// Readable alone.
    pub const READ: Readiness = Readiness { readable: true, writable: false, error: false };
    /// Writable alone.
    pub const WRITE: Readiness = Readiness { readable: false, writable: true, error: false };
    /// Readable and writable.
    pub const BOTH: Readiness = Readiness { readable: true, writable: true, error: false };
    /// Nothing: the source rests, and not even errors are told.
    pub const NONE: Readiness = Readiness { readable: false, writable: false, error: false };

    pub(crate) fn of(event: Event) -> Readiness {
        Readiness {
            readable: event.readable,
            writable: event.writable,
            error: event.error || event.hup,
        }
    }

    /// A resting source is taken out of the poller, for a hang-up could not be masked.
    fn interest(self) -> Interest {
        match (self.readable, self.writable) {
            (false, false) => Interest::UNREGISTERED,
            (true, false) => Interest::READ,
            (false, true) => Interest::WRITE,
            (true, true) => Interest::READ | Interest::WRITE,
        }
    }
}

impl Core {
    /// A descriptor and its handler join; `on_open` comes when the present callback is over.
    pub(crate) fn add_source(
        &mut self,
        net: &mut Backend,
        fd: OwnedFd,
        watch: Readiness,
        handler: Box<dyn EvHandler>,
    ) -> io::Result<ConnId> {
        let id = self.insert(Conn::new(Kind::Source, Addr::NONE, NO_LISTENER));
        net.install(id.index(), Socket::Fd(fd));
        if let Err(error) = self.watch_source(net, id, watch) {
            net.close(id, Interest::UNREGISTERED);
            self.conns.remove(id.0);
            self.shared.counters.open.subtract(1);
            return Err(error);
        }
        self.incoming.push((id, handler));
        self.defer(id, Flags::OPEN_DUE);
        Ok(id)
    }

    pub(crate) fn watch_source(
        &mut self,
        net: &mut Backend,
        id: ConnId,
        watch: Readiness,
    ) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(id.0).filter(|conn| conn.kind == Kind::Source) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a source"));
        };
        let (old, new) = (conn.interest, watch.interest());
        if old != new {
            net.set_interest(id, old, new)?;
            conn.interest = new;
            net.confirm_interest(id).inspect_err(|_| conn.interest = Interest::UNREGISTERED)?;
        }
        Ok(())
    }
}
