//! The trait that users implement, and the name of a connection.

use std::fmt;
use std::io;

use crate::addr::Addr;
use crate::close::Close;
use crate::ctx::Ctx;
use crate::slab::Key;
use crate::source::Readiness;
use crate::timer::TimerId;

/// Names a connection (or any other handler) of one reactor.
///
/// It is never reused: when the connection is gone, its id finds nothing.
///
/// ```
/// # use reev::{ConnId, Ctx, EvHandler};
/// /// Tells another connection of this reactor, if it is still there.
/// struct Teller {
///     other: ConnId,
/// }
///
/// impl EvHandler for Teller {
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
///         match cx.conn(self.other) {
///             Some(mut other) => other.write(data),
///             None => cx.write(b"gone\n"),
///         }
///         Ok(data.len())
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) Key);

impl ConnId {
    /// The id that no connection has.
    pub const NONE: ConnId = ConnId(Key::NONE);

    /// The id as a number, unique within its reactor for the reactor's life; never 0.
    pub fn as_u64(self) -> u64 {
        self.0.bits()
    }

    pub(crate) fn index(self) -> usize {
        self.0.index() as usize
    }
}

impl Default for ConnId {
    /// [`ConnId::NONE`].
    fn default() -> ConnId {
        ConnId::NONE
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({}v{})", self.0.index(), self.0.generation())
    }
}

/// What happens on a connection, as callbacks. Every method has a default.
///
/// A handler lives on one reactor's thread from its creation to its end, so it needs neither
/// `Send` nor locks, and no two of a reactor's callbacks run at once or inside each other. What
/// a handler does through [`Ctx`] is settled after the callback returns.
///
/// Returning an error from a callback resets the connection; `on_close` then gets the error as
/// [`Close::Error`]. A panic does the same with [`Close::Panic`].
///
/// ```
/// use std::io;
/// use reev::{Close, Ctx, EvHandler};
///
/// /// Frames of a length in two bytes and a body: sends each body back.
/// #[derive(Default)]
/// struct Frames {
///     seen: u64,
/// }
///
/// impl EvHandler for Frames {
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
///         let mut taken = 0;
///         while let Some((length, rest)) = data[taken..].split_first_chunk::<2>() {
///             let length = usize::from(u16::from_be_bytes(*length));
///             let Some(body) = rest.get(..length) else {
///                 break; // the rest of it is still under way
///             };
///             cx.write(body);
///             self.seen += 1;
///             taken += 2 + length;
///         }
///         Ok(taken)
///     }
///
///     fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
///         log::info!("{}: {} frames, {why}", cx.peer(), self.seen);
///     }
/// }
/// # let mut sim = reev::sim::Simulation::new(1);
/// # let listener = sim.listen(|_peer| Frames::default());
/// # let peer = sim.connect(listener);
/// # peer.send(b"\0\x02hi\0\x05hel");
/// # sim.settle();
/// # assert_eq!(peer.receive(), b"hi");
/// # peer.send(b"lo");
/// # sim.settle();
/// # assert_eq!(peer.receive(), b"hello");
/// ```
pub trait EvHandler: 'static {
    /// The connection is there: called once, before anything else.
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Bytes have arrived. Returns how many of them were taken.
    ///
    /// What is not taken is kept (at most `Config::input_max` bytes, then
    /// [`Close::InputLimit`]) and offered again, first and in order, together with what arrives
    /// next. So a handler that needs a whole message returns 0, or the length of the whole
    /// messages it found, and keeps no buffer of its own. If it also pauses reading, the rest
    /// is offered when it resumes.
    ///
    /// `data` is never empty, is borrowed for the call, and may be changed in place. The default,
    /// for handlers without a stream, drops it.
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let _ = cx;
        Ok(data.len())
    }

    /// The peer sent its FIN: nothing more will arrive, but it may still read (half-close).
    /// Bytes left untaken are dropped after this call, unless it pairs or detaches the connection;
    /// [`Ctx::unread`] tells how many. The default flushes what is written and closes.
    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.close();
        Ok(())
    }

    /// Output was above `Config::output_high` and is at or below `Config::output_low` again:
    /// once for each such crossing. Time to write more.
    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// A timer of this connection is due; see [`Ctx::set_timer`].
    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        let _ = (cx, timer);
        Ok(())
    }

    /// A [`Remote`](crate::Remote) sent `value` from this or another thread.
    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        let _ = (cx, value);
        Ok(())
    }

    /// The connection asked for with [`Ctx::connect`] could not be made: called once instead of
    /// `on_open`, and the last call. With several addresses and tries, `error` is the first of
    /// the last try; its kind is the system's, its message names the address. Cancelled by
    /// `close` or `abort`, it is `ConnectionAborted`.
    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        let _ = (cx, error);
    }

    /// The descriptor added with [`Ctx::add_source`] is ready. Readiness is told by level, again
    /// and again while it lasts.
    fn on_ready(&mut self, cx: &mut Ctx<'_>, ready: Readiness) -> io::Result<()> {
        let _ = (cx, ready);
        Ok(())
    }

    /// A datagram has come to a socket bound or connected by [`Ctx::bind_datagrams`] and its kin.
    /// It may be empty, and may be changed in place. `from` is [`Addr::NONE`] or unnamed where
    /// the sender has no address.
    ///
    /// Datagrams that came together are told one after another, and what is sent meanwhile
    /// leaves together when the last is done. They are told even if one of these calls pauses.
    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
        let _ = (cx, data, from);
        Ok(())
    }

    /// A datagram was longer than `DatagramOptions::datagram_max`, and this is its beginning: the
    /// rest is lost. The default ignores it.
    fn on_datagram_truncated(
        &mut self,
        cx: &mut Ctx<'_>,
        data: &mut [u8],
        from: &Addr,
    ) -> io::Result<()> {
        let _ = (cx, data, from);
        Ok(())
    }

    /// A datagram for `to` could not be sent, or was answered by an ICMP error such as "port
    /// unreachable" (`ConnectionRefused`). The socket goes on; the default ignores it. `to` is
    /// [`Addr::NONE`] where the system does not say.
    fn on_datagram_error(
        &mut self,
        cx: &mut Ctx<'_>,
        error: io::Error,
        to: &Addr,
    ) -> io::Result<()> {
        let _ = (cx, error, to);
        Ok(())
    }

    /// The server is shutting down gracefully: time to say goodbye and to close. The default
    /// flushes what is written and closes; a handler that goes on is cut when the time is up.
    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.close();
        Ok(())
    }

    /// The end: called exactly once for each `on_open`, as the last call, and never inside
    /// another callback. Writes and timers do nothing here; other connections can be reached.
    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let _ = (cx, why);
    }

    /// The handler's name in logs; by default its type's.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}
