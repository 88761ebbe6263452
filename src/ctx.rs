//! What a handler may do in a callback.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;

use crate::addr::Addr;
use crate::closing::Detached;
use crate::conn::Flags;
use crate::connector::{ConnectOptions, Target};
use crate::core::Core;
use crate::handle::Handle;
use crate::handler::{ConnId, EvHandler};
use crate::remote::Remote;
use crate::source::Readiness;
use crate::sys::Backend;

/// A connection and its reactor, as a callback sees them.
///
/// Writing, closing and timers neither fail nor block: what is asked for is recorded, and settled
/// when the callback has returned. Sixteen small writes leave as one `send`. The few methods
/// that may fail or wait (for a name, for a disk) say so.
///
/// ```
/// use std::io::{self, Write};
/// use std::time::Duration;
/// use reev::{Ctx, EvHandler};
///
/// /// A protocol of lines; who says nothing for a minute is sent away.
/// struct Lines;
///
/// impl EvHandler for Lines {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
///         cx.idle_timeout(Duration::from_secs(60));
///         let peer = cx.peer();
///         writeln!(cx.out(), "hello {peer}")
///     }
///
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
///         let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
///             return Ok(0); // offered again, with what follows
///         };
///         match &data[..end] {
///             b"bye" => cx.close(),
///             line => cx.write(line),
///         }
///         Ok(end + 1)
///     }
/// }
/// # let mut sim = reev::sim::Simulation::new(1);
/// # let listener = sim.listen(|_peer| Lines);
/// # let peer = sim.connect(listener);
/// # sim.settle();
/// # assert!(peer.receive().starts_with(b"hello "));
/// # sim.advance(Duration::from_secs(61));
/// # assert!(peer.saw_fin());
/// ```
pub struct Ctx<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) net: &'a mut Backend,
    pub(crate) id: ConnId,
}

impl Ctx<'_> {
    /// The connection's name: `Copy`, never reused, good for [`Ctx::conn`].
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The time of this turn of the loop: monotonic, and the same in all callbacks of a turn.
    pub fn now(&self) -> Instant {
        self.core.instant()
    }

    /// The address of the other end; [`Addr::NONE`] of a handler without a socket.
    pub fn peer(&self) -> Addr {
        self.core.conns.get(self.id.0).map_or(Addr::NONE, |conn| conn.peer.clone())
    }

    /// The address of this end. Asks the system.
    ///
    /// # Errors
    /// What `getsockname` says; `NotConnected` of a handler without a socket.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.net.local_addr(self.id.index())
    }

    /// The index of this reactor, from 0.
    pub fn reactor_index(&self) -> usize {
        self.core.shared.index
    }

    /// The server, for any thread.
    pub fn handle(&self) -> Handle {
        self.core.handle.clone()
    }

    /// Writes `data` behind what was written before.
    ///
    /// Small writes are gathered and sent when the callback returns; one of at least
    /// `Config::direct_write_min` bytes is sent at once, without a copy. What the system does
    /// not take is queued. After `close`, and on a connection that has failed, writes do
    /// nothing; the failure itself is told in `on_close`.
    ///
    /// Above `Config::output_high` pending bytes the connection stops reading until `on_drain`;
    /// above `Config::output_max` it ends with `Close::SlowConsumer`.
    #[inline]
    pub fn write(&mut self, data: &[u8]) {
        self.core.write(self.net, self.id, data);
    }

    /// Like [`Ctx::write`], but a large buffer is queued by reference where the system does not
    /// take it: a message for thousands of connections exists once.
    ///
    /// ```
    /// # use reev::{ConnId, Ctx, EvHandler};
    /// #[derive(Default)]
    /// struct Members(Vec<ConnId>);
    ///
    /// struct Member;
    ///
    /// impl EvHandler for Member {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
    ///         let id = cx.id();
    ///         cx.local::<Members>().0.push(id);
    ///         Ok(())
    ///     }
    ///
    ///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    ///         let message = reev::Bytes::copy_from_slice(data); // once, for all
    ///         for id in cx.local::<Members>().0.clone() {
    ///             if let Some(mut other) = cx.conn(id) {
    ///                 other.write_owned(message.clone());
    ///             }
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Member);
    /// # let (a, b) = (sim.connect(listener), sim.connect(listener));
    /// # sim.settle();
    /// # a.send(b"to all");
    /// # sim.settle();
    /// # assert_eq!(b.receive(), b"to all");
    /// ```
    pub fn write_owned(&mut self, data: impl Into<Bytes>) {
        self.core.write_owned(self.net, self.id, data.into());
    }

    /// Sends `part` of a file behind what was written before, without a copy (sendfile(2)). The
    /// file is closed when that is done.
    ///
    /// Each file that waits counts as at most 64 KiB of pending output, however long it is. A
    /// file that turns out shorter than `part` resets the connection, whose `on_close` gets an
    /// `UnexpectedEof`: what was promised cannot be sent. A file that is not in the system's
    /// cache is read from its disk meanwhile, and the reactor waits for that.
    ///
    /// ```no_run
    /// # use reev::{Ctx, EvHandler};
    /// use std::fs::File;
    ///
    /// struct Download;
    ///
    /// impl EvHandler for Download {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
    ///         let file = File::open("/srv/image.iso")?;
    ///         let len = file.metadata()?.len();
    ///         cx.send_file(file, 0..len);
    ///         cx.close(); // when it is sent
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn send_file(&mut self, file: File, part: Range<u64>) {
        self.core.send_file(self.net, self.id, file, part);
    }

    /// The output as [`io::Write`] and [`fmt::Write`], for `write!` and serializers. Never
    /// fails.
    pub fn out(&mut self) -> Out<'_> {
        Out { core: self.core, net: self.net, id: self.id }
    }

    /// Bytes written and not yet taken by the system.
    pub fn pending_output(&self) -> usize {
        self.core.pending_output(self.id)
    }

    /// Bytes kept because the handler did not take them. 0 in `on_read`, whose argument they
    /// are.
    pub fn unread(&self) -> usize {
        self.core.conns.get(self.id.0).map_or(0, |conn| conn.tail_len())
    }

    /// Closes when all that was written is flushed; nothing more is read or written, and
    /// `on_close` follows. A peer that does not read the rest within `Config::close_timeout` is
    /// cut. Harmless when repeated.
    pub fn close(&mut self) {
        self.core.close(self.id);
    }

    /// Drops what is pending and resets the connection; `on_close` follows when the present
    /// callback has returned.
    pub fn abort(&mut self) {
        self.core.doom(self.id, crate::Close::Aborted);
    }

    /// Reads no more until [`Ctx::resume_reads`]; the peer is stopped by its send window. Its
    /// FIN is still noticed when nothing unread is before it, a reset in any case.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler, TimerId};
    /// use std::time::Duration;
    ///
    /// /// Takes one message a second, and lets the others wait at the sender.
    /// struct Slowly;
    ///
    /// impl EvHandler for Slowly {
    ///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    ///         cx.write(b"ok\n");
    ///         cx.pause_reads();
    ///         cx.set_timer(Duration::from_secs(1));
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> std::io::Result<()> {
    ///         cx.resume_reads();
    ///         Ok(())
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Slowly);
    /// # let peer = sim.connect(listener);
    /// # peer.send(b"one");
    /// # sim.settle();
    /// # peer.send(b"two");
    /// # sim.settle();
    /// # assert_eq!(peer.receive(), b"ok\n");
    /// # sim.advance(Duration::from_secs(1));
    /// # assert_eq!(peer.receive(), b"ok\n");
    /// ```
    pub fn pause_reads(&mut self) {
        self.core.pause_reads(self.id);
    }

    /// Whether to go on reading while output is above `Config::output_high`; by default reading
    /// rests then. For protocols whose two directions have nothing to do with each other; the
    /// handler answers for the bound on its output.
    pub fn read_while_blocked(&mut self, on: bool) {
        self.core.read_while_blocked(self.id, on);
    }

    /// Closes, as by [`Ctx::close`], with the stream socket that this handler had to itself.
    #[cfg(feature = "proactor")]
    pub(crate) fn close_own(&mut self, socket: OwnedFd, eof: bool) {
        self.core.close_own(self.net, self.id, socket, eof);
    }

    /// Reads again. What `on_read` left untaken is offered again, even if nothing new arrives.
    pub fn resume_reads(&mut self) {
        self.core.resume_reads(self.id);
    }

    /// Puts another handler in this one's place when the callback has returned: a protocol
    /// upgrade. The old one gets `on_close` with [`Close::Replaced`](crate::Close::Replaced),
    /// the new one `on_open` and then the bytes left untaken, or `on_eof` if the peer's FIN was
    /// read already.
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
    /// /// Wants the word first.
    /// struct Door;
    ///
    /// impl EvHandler for Door {
    ///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    ///         let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
    ///             return Ok(0);
    ///         };
    ///         match &data[..end] {
    ///             b"sesame" => cx.replace(Echo),
    ///             _ => cx.abort(),
    ///         }
    ///         Ok(end + 1) // what stands behind the line is Echo's
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Door);
    /// # let peer = sim.connect(listener);
    /// # peer.send(b"sesame\nhello");
    /// # sim.settle();
    /// # assert_eq!(peer.receive(), b"hello");
    /// ```
    pub fn replace(&mut self, handler: impl EvHandler) {
        self.core.replace(self.id, Box::new(handler));
    }

    /// Adds a handler without a socket, for timers and messages from other threads. It gets
    /// `on_open` soon after this callback, and lives until it calls `close`.
    pub fn add(&mut self, handler: impl EvHandler) -> ConnId {
        self.core.add(Box::new(handler))
    }

    /// Connects to `target` on this reactor, so that the two sides of a proxy never cross
    /// threads. `handler` gets `on_open` when it is connected, or `on_connect_fail` once; what
    /// is written before waits. `close` and `abort` cancel. Names are resolved on other threads,
    /// and every address of a name is tried; see [`ConnectOptions`].
    pub fn connect(
        &mut self,
        target: impl Into<Target>,
        options: &ConnectOptions,
        handler: impl EvHandler,
    ) -> ConnId {
        self.core.connect(target.into(), options.clone(), Box::new(handler))
    }

    /// Takes over a connected stream socket: a `std::net::TcpStream`, a `UnixStream` or their
    /// descriptor. It gets `on_open` soon after this callback. It is made non-blocking, and
    /// SO_LINGER with a time is taken off, for close(2) would wait; its other options stay.
    ///
    /// # Errors
    /// `InvalidInput` for a socket of another kind; what the system says of one that is not
    /// connected, or is no socket.
    pub fn adopt(
        &mut self,
        socket: impl Into<OwnedFd>,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        self.core.adopt(self.net, socket, Box::new(handler))
    }

    /// Has the connection leave the reactor when the present callback is over: `on_close` with
    /// [`Close::Detached`](crate::Close::Detached) comes first, then `then` gets the socket,
    /// with what was not read and not sent. Does nothing on a connection that is ending. If a part
    /// of a file waits to be sent ([`Ctx::send_file`]), which could not be handed over, the
    /// connection ends with [`Close::Error`](crate::Close::Error), and `then` is dropped.
    pub fn detach(&mut self, then: impl FnOnce(Detached) + 'static) {
        self.core.detach(self.id, Box::new(then));
    }

    /// Watches any descriptor that the poller takes (eventfd, pipe, inotify, a socket; not a
    /// regular file), which is owned and closed with its handler. Keep a copy
    /// (`OwnedFd::try_clone`) to read from. `on_ready` tells what it is ready for.
    ///
    /// # Errors
    /// What the poller says: `PermissionDenied` for a regular file.
    ///
    /// ```no_run
    /// # use reev::{Ctx, EvHandler, Readiness};
    /// use std::fs::File;
    /// use std::io::{self, Read};
    /// use std::os::fd::OwnedFd;
    ///
    /// /// Reads from a pipe that `on_ready` has a copy of.
    /// struct Pipe(File);
    ///
    /// impl EvHandler for Pipe {
    ///     fn on_ready(&mut self, cx: &mut Ctx<'_>, _ready: Readiness) -> io::Result<()> {
    ///         let mut some = [0; 4096];
    ///         match self.0.read(&mut some) {
    ///             Ok(0) => cx.close(),
    ///             Ok(n) => log::info!("{} bytes", n),
    ///             Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
    ///             Err(error) => return Err(error),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn watch(cx: &mut Ctx<'_>, pipe: OwnedFd) -> io::Result<()> {
    ///     let copy = File::from(pipe.try_clone()?);
    ///     cx.add_source(pipe, Readiness::READ, Pipe(copy))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn add_source(
        &mut self,
        fd: impl Into<OwnedFd>,
        watch: Readiness,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        self.core.add_source(self.net, fd.into(), watch, Box::new(handler))
    }

    /// Changes what this source is watched for.
    ///
    /// # Errors
    /// `InvalidInput` if this handler is not a source, or what the poller says.
    pub fn watch(&mut self, watch: Readiness) -> io::Result<()> {
        self.core.watch_source(self.net, self.id, watch)
    }

    /// Another connection of this reactor, or this one; `None` if it is gone or ending. What is
    /// written there is gathered and sent when this callback has returned, or earlier if it writes
    /// to many; no callback of it runs before.
    pub fn conn(&mut self, id: ConnId) -> Option<Ctx<'_>> {
        let conn = self.core.conns.get(id.0)?;
        if conn.flags.any(Flags::ENDING) {
            return None;
        }
        Some(Ctx { core: self.core, net: self.net, id })
    }

    /// This connection, for other threads.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler};
    /// /// Has a thread work out the answer.
    /// struct Slow;
    ///
    /// impl EvHandler for Slow {
    ///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    ///         let (remote, question) = (cx.remote(), data.to_vec());
    ///         std::thread::spawn(move || {
    ///             let answer = question.to_ascii_uppercase(); // takes long
    ///             if let Err(error) = remote.write(answer) {
    ///                 log::info!("nobody waits for the answer: {error}");
    ///             }
    ///         });
    ///         Ok(data.len())
    ///     }
    /// }
    /// ```
    pub fn remote(&mut self) -> Remote {
        self.core.remote(self.id)
    }

    /// This reactor's one `T`, made by `T::default()` when it is first asked for: state that
    /// all connections of a thread share without a lock.
    ///
    /// ```
    /// # use reev::{Close, Ctx, EvHandler};
    /// #[derive(Default)]
    /// struct Count {
    ///     now: usize,
    /// }
    ///
    /// struct Counted;
    ///
    /// impl EvHandler for Counted {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
    ///         cx.local::<Count>().now += 1;
    ///         Ok(())
    ///     }
    ///
    ///     fn on_close(&mut self, cx: &mut Ctx<'_>, _why: &Close) {
    ///         cx.local::<Count>().now -= 1;
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Counted);
    /// # let (a, _b) = (sim.connect(listener), sim.connect(listener));
    /// # sim.settle();
    /// # a.close();
    /// # sim.settle();
    /// # assert_eq!(sim.reactor().local::<Count>().now, 1);
    /// ```
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.core.local()
    }
}

impl fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("id", &self.id)
            .field("reactor", &self.reactor_index())
            .finish_non_exhaustive()
    }
}

/// A connection's output as a writer; see [`Ctx::out`].
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// # struct Greet;
/// # impl EvHandler for Greet {
/// #     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
/// use std::io::Write;
/// let reactor = cx.reactor_index(); // before: `out` borrows the whole context
/// writeln!(cx.out(), "reactor {reactor}")?;
/// #         Ok(())
/// #     }
/// # }
/// ```
pub struct Out<'a> {
    core: &'a mut Core,
    net: &'a mut Backend,
    id: ConnId,
}

impl io::Write for Out<'_> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.core.write(self.net, self.id, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Out<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.core.write(self.net, self.id, text.as_bytes());
        Ok(())
    }
}
