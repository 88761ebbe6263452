//! How connections end: flushed, lingering, reset, handed out.

use std::io;
use std::os::fd::OwnedFd;

use crate::close::Close;
use crate::conn::{Conn, Flags, Kind, NO_LISTENER};
use crate::dispatch::Dispatcher;
use crate::handler::ConnId;
use crate::isolate::{drop_isolated, isolated};
use crate::sync::Ordering;
use crate::sys::{Interest, Socket};
use crate::timer::Purpose;

/// A last callback that connects to another server is answered, and may try a third.
const STOP_PASSES: usize = 4;

/// What takes a connection that leaves its reactor.
pub(crate) type DetachFn = Box<dyn FnOnce(Detached)>;

/// A connection that has left its reactor; see [`Ctx::detach`](crate::Ctx::detach).
///
/// ```
/// use std::io::{self, Read, Write};
/// use reev::{Ctx, Detached, EvHandler};
///
/// /// Hands the connection to a thread that may block, when the first line has come.
/// struct UntilFirstLine;
///
/// impl EvHandler for UntilFirstLine {
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
///         if data.contains(&b'\n') {
///             cx.detach(|gone: Detached| {
///                 std::thread::spawn(move || blocking(gone));
///             });
///         }
///         Ok(0) // so that all of it is in `unread`
///     }
/// }
///
/// fn blocking(gone: Detached) -> io::Result<()> {
///     let mut stream = std::net::TcpStream::from(gone.socket);
///     stream.set_nonblocking(false)?;
///     stream.write_all(&gone.unsent)?;
///     let mut input = gone.unread.chain(&stream);
///     let mut all = Vec::new();
///     input.read_to_end(&mut all)?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Detached {
    /// The socket: non-blocking, its options as they were.
    pub socket: OwnedFd,
    /// Bytes that arrived and that `on_read` did not take.
    pub unread: Vec<u8>,
    /// Bytes that were written and that the system did not take yet.
    pub unsent: Vec<u8>,
}

impl Dispatcher {
    /// The output of a closing connection is flushed: send the FIN, and linger if the peer may
    /// still be sending, so that no reset destroys what it has not read.
    pub(crate) fn finish_closing(&mut self, id: ConnId) {
        let linger = self.core.config.linger_timeout;
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        let peer_done = conn.flags.any(Flags::PEER_EOF);
        let why = if peer_done { Close::Peer } else { Close::Local };
        if conn.kind != Kind::Stream || peer_done || linger.is_zero() {
            return self.core.doom(id, why);
        }
        if !conn.flags.any(Flags::FIN_SENT) {
            self.backend.shutdown_write(id.index());
        }
        self.end_handler(id, &why);
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        conn.flags.insert(Flags::LINGERING);
        self.core.set_internal(id, Purpose::Linger, linger, 0);
        self.update_interest(id);
    }

    /// Ends `id`: last callback, then socket and slot.
    pub(crate) fn finish(&mut self, id: ConnId, why: Close) {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.kind == Kind::Connecting {
            let message = "cancelled before it was connected";
            return self
                .connect_failed(id, io::Error::new(io::ErrorKind::ConnectionAborted, message));
        }
        let why = match (why, conn.take_send_error()) {
            (Close::Local | Close::Peer, Some(error)) => Close::Io(error),
            (why, _) => why,
        };
        // A FIN behind output that was cut short would make it look whole.
        let cut = conn.flags.any(Flags::OUT_FAILED);
        self.end_handler(id, &why);
        self.release(id, cut || why.resets());
    }

    /// `on_close`, the end of the timers and of the handler.
    fn end_handler(&mut self, id: ConnId, why: &Close) {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::PAIRED) {
            self.core.end_pair(id, why);
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        let opened = conn.flags.take(Flags::OPENED);
        // Accepted and counted, though its factory panicked.
        let counted = opened || conn.kind == Kind::Stream;
        self.let_go(id);
        if counted {
            self.core.shared.counters.closed[why.index()].add(1);
        }
        if opened {
            self.call(id, |handler, cx| {
                handler.on_close(cx, why);
                Ok(())
            });
            self.core.current = ConnId::NONE;
        }
        self.drop_handler(id);
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.flags.remove(Flags::DOOMED);
        }
    }

    /// Nothing takes effect from here on, nothing is to be sent, and no thread reaches it.
    pub(crate) fn let_go(&mut self, id: ConnId) {
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.flags.insert(Flags::DOOMED);
            self.core.timers.cancel_all(&mut conn.timers);
            conn.out = None;
            conn.take_tail();
            if let Some(remote) = conn.take_remote() {
                remote.open.store(false, Ordering::Release);
            }
        }
    }

    /// Gives socket and slot back; from here on the id finds nothing.
    pub(crate) fn release(&mut self, id: ConnId, reset: bool) {
        let Some(mut conn) = self.core.conns.remove(id.0) else {
            return;
        };
        self.core.timers.cancel_all(&mut conn.timers);
        if reset {
            self.backend.reset(id, conn.interest);
        } else {
            self.backend.close(id, conn.interest);
        }
        self.count_end(&conn);
    }

    fn count_end(&mut self, conn: &Conn) {
        if conn.kind.has_handler() {
            let counters = &self.core.shared.counters;
            counters.open.subtract(1);
            counters.paused.subtract(u64::from(conn.flags.any(Flags::RESTS)));
        }
        if conn.kind == Kind::Stream && conn.listener != NO_LISTENER {
            self.released.push(conn.listener);
        }
    }

    /// Ends everything, as the reactor stops; also what last callbacks ask for, but not what
    /// asks for more without end.
    pub(crate) fn stop_all(&mut self) {
        for _ in 0..STOP_PASSES {
            if self.core.conns.len() > 0 {
                self.stop_those_there();
            }
        }
    }

    fn stop_those_there(&mut self) {
        for index in 0..self.core.conns.slots() {
            let Some(key) = self.core.conns.key_at(index) else {
                continue;
            };
            let id = ConnId(key);
            match self.core.conns.get(key).map(|conn| (conn.kind, conn.flags)) {
                Some((Kind::Listener | Kind::Attempt, _)) => self.release(id, false),
                Some((_, flags)) if flags.any(Flags::LINGERING) => self.release(id, false),
                _ => self.core.doom(id, Close::Stopped),
            }
        }
        self.settle();
    }

    /// Has every connection under way fail, as the reactor shuts down.
    pub(crate) fn cancel_connects(&mut self) {
        let asked_for: Vec<ConnId> = self.core.connects.iter().map(|c| c.id).collect();
        for id in self.connector.under_way().into_iter().chain(asked_for) {
            self.core.doom(id, Close::Stopped);
        }
        self.settle();
    }

    /// A connection leaves the reactor with all that it holds.
    pub(crate) fn hand_out(&mut self, id: ConnId, then: DetachFn) {
        let Some(conn) = self.core.conns.get_mut(id.0).filter(|c| !c.flags.any(Flags::ENDING))
        else {
            return drop_isolated(then);
        };
        if conn.out.as_ref().is_some_and(|out| out.has_file()) {
            let error = io::Error::other("a connection cannot be detached while a file waits");
            self.core.doom(id, Close::Error(error));
            return drop_isolated(then);
        }
        let unread = conn.take_tail().bytes().to_vec();
        let unsent = conn.out.take().map_or_else(Vec::new, |out| out.to_vec());
        self.end_handler(id, &Close::Detached);
        let Some(mut conn) = self.core.conns.remove(id.0) else {
            return;
        };
        self.core.timers.cancel_all(&mut conn.timers);
        if conn.interest != Interest::UNREGISTERED {
            // Cannot fail: the poller knows the socket.
            let _ = self.backend.set_interest(id, conn.interest, Interest::UNREGISTERED);
        }
        let socket = self.backend.take(id.index());
        self.count_end(&conn);
        if let Some(Socket::Fd(socket)) = socket
            && let Err(message) = isolated(|| then(Detached { socket, unread, unsent }))
        {
            log::error!("what took the detached {id:?} panicked: {message}");
        }
    }
}
