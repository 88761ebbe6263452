//! A server: its listeners, its reactors' threads, and the handle that stops them.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::acceptor::{ListenerId, Listening};
use crate::addr::Addr;
use crate::config::{Config, ListenOptions};
use crate::datagram::{self, DatagramId, DatagramOptions, DatagramPart};
use crate::endpoint::Endpoint;
use crate::group::{Group, Spread};
use crate::handle::Handle;
use crate::handler::EvHandler;
use crate::isolate::{drop_isolated, isolated};
use crate::mail::ReactorShared;
use crate::mailbox::Mailbox;
use crate::pin;
use crate::reactor::Reactor;
use crate::stats::Counters;
use crate::sys::listen::{self, Bound};
use crate::sys::{Backend, Native, Socket};

/// Serves `addr` until SIGINT or SIGTERM, with a handler that `factory` makes for each
/// connection from its peer's address: one pinned reactor for each core the process may use.
///
/// # Errors
/// An address that does not parse or cannot be bound, or what [`Server::run`] says.
///
/// ```no_run
/// # struct Echo;
/// # impl reev::EvHandler for Echo {
/// #     fn on_read(&mut self, cx: &mut reev::Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
/// #         cx.write(data);
/// #         Ok(data.len())
/// #     }
/// # }
/// reev::serve("127.0.0.1:7000", |_peer| Echo)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn serve<H: EvHandler>(
    addr: &str,
    factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
) -> io::Result<()> {
    let mut server = Server::new(Config::default())?;
    let listener = server.listen(addr)?;
    crate::stop_on_signals(&server.handle())?;
    let factory = Arc::new(factory);
    server.run(move |reactor| {
        let factory = factory.clone();
        reactor.accept(listener, move |peer| factory(peer))
    })
}

/// A set of reactors and their listeners, before they run.
///
/// Everything that can fail for the world's reasons fails here, on the caller's thread: an
/// address in use, a missing permission, a bound that makes no sense.
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
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use reev::{Config, Server};
///
/// let mut server = Server::new(Config { reactors: 2, pin: false, ..Config::default() })?;
/// let listener = server.listen("tcp4://127.0.0.1:0")?;
/// let addr = server.local_addr(listener).socket_addr().expect("a TCP listener");
/// let running = server.start(move |reactor| reactor.accept(listener, |_peer| Echo))?;
///
/// let mut client = TcpStream::connect(addr)?;
/// client.write_all(b"hello")?;
/// let mut back = [0; 5];
/// client.read_exact(&mut back)?;
/// assert_eq!(&back, b"hello");
///
/// running.handle().stop();
/// running.join()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Server {
    config: Arc<Config>,
    reactors: Vec<(Native, Ending)>,
    handle: Handle,
    listeners: Vec<Listener>,
    /// By `DatagramId`: the address, and a part for each reactor.
    datagrams: Vec<(Addr, Vec<DatagramPart>)>,
}

struct Listener {
    group: Arc<Group>,
    /// A socket or descriptor for each reactor that accepts.
    sockets: Vec<OwnedFd>,
}

impl Server {
    /// Makes the reactors' pollers.
    ///
    /// # Errors
    /// A config that does not validate, or the system's want of descriptors.
    pub fn new(config: Config) -> io::Result<Server> {
        config.validate()?;
        let cores = pin::default_reactors();
        let count = if config.reactors == 0 { cores } else { config.reactors };
        if count > cores {
            log::warn!("{count} reactors on {cores} cores: they will share them");
        }
        let mut reactors = Vec::new();
        for index in 0..count {
            let (native, waker) = Native::new(config.events_per_turn)?;
            let mailbox = Mailbox::new(waker, config.mailbox_max, config.mailbox_bytes_max);
            let counters = Counters::default();
            let shared = Arc::new(ReactorShared::new(index, mailbox, counters));
            reactors.push((native, Ending { shared, handle: None }));
        }
        let handle = Handle::new(reactors.iter().map(|(_, ending)| ending.shared.clone()));
        Ok(Server {
            config: Arc::new(config),
            reactors,
            handle,
            listeners: Vec::new(),
            datagrams: Vec::new(),
        })
    }

    /// Binds `addr` and listens, with the default options; see [`Endpoint`] for its forms.
    /// Connections wait in the backlog until a reactor takes them: see
    /// [`Reactor::accept`](crate::Reactor::accept), which the setup closure calls.
    ///
    /// # Errors
    /// The address and what is wrong with it.
    pub fn listen(&mut self, addr: &str) -> io::Result<ListenerId> {
        self.listen_with(addr, &ListenOptions::default())
    }

    /// [`Server::listen`], with options.
    ///
    /// # Errors
    /// As of [`Server::listen`], and `InvalidInput` for options that make no sense.
    pub fn listen_with(&mut self, addr: &str, options: &ListenOptions) -> io::Result<ListenerId> {
        options.validate()?;
        let endpoint = Endpoint::parse(addr)?.only(false)?;
        let bound = listen::bind(&endpoint, options)?;
        self.add_listener(bound, Some(endpoint), options)
    }

    /// Takes over a listening socket made elsewhere: a `std::net::TcpListener`, a
    /// `UnixListener`, or the descriptor that socket activation hands over. All reactors share
    /// it; `backlog` and `reuse_port` stay as they are.
    ///
    /// # Errors
    /// `InvalidInput` for options that make no sense, or what the system says of the socket.
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
    /// use reev::{Config, ListenOptions, Server};
    ///
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let mut server = Server::new(Config { reactors: 1, ..Config::default() })?;
    /// let listener = server.adopt_listener(socket, &ListenOptions::default())?;
    /// let running = server.start(move |reactor| reactor.accept(listener, |_peer| Echo))?;
    /// # running.handle().stop();
    /// # running.join()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn adopt_listener(
        &mut self,
        listener: impl Into<OwnedFd>,
        options: &ListenOptions,
    ) -> io::Result<ListenerId> {
        options.validate()?;
        let bound = listen::adopt(listener.into(), options)?;
        self.add_listener(bound, None, options)
    }

    fn add_listener(
        &mut self,
        bound: Bound,
        endpoint: Option<Endpoint>,
        options: &ListenOptions,
    ) -> io::Result<ListenerId> {
        let id = u16::try_from(self.listeners.len()).ok().filter(|&id| id < u16::MAX);
        let Some(id) = id else {
            return Err(io::Error::other("a server has at most 65,535 listeners"));
        };
        let Bound { fd, addr, path } = bound;
        let count = self.reactors.len();
        let cpus = pin::allowed_cores();
        let cpus = (0..count).filter_map(|i| Some(cpus.get(i % cpus.len().max(1))?.id as u32));
        let group = Group::new(addr, endpoint, options, path, count, cpus.collect());
        let mut sockets = Vec::new();
        group.joined(0, fd.as_fd())?;
        for reactor in 1..count {
            match group.spread {
                Spread::Each => sockets.push(group.join(reactor)?),
                Spread::Shared => {
                    sockets.push(fd.try_clone()?);
                    group.joined(reactor, fd.as_fd())?;
                }
                Spread::Handed => {}
            }
        }
        sockets.insert(0, fd);
        self.listeners.push(Listener { group: Arc::new(group), sockets });
        Ok(ListenerId(id))
    }

    /// Binds `addr` for datagrams (`udp://…`, `unixgram://…`; see [`Endpoint`]): a socket for each
    /// reactor, and the system chooses by the two addresses of a datagram which one gets it
    /// (SO_REUSEPORT). Reactors share a Unix socket. [`Reactor::serve_datagrams`] takes it. Of
    /// wildcard addresses see [`Ctx::bind_datagrams`](crate::Ctx::bind_datagrams).
    ///
    /// # Errors
    /// The address and what is wrong with it, or `InvalidInput` for options that make no sense.
    pub fn bind_datagrams(
        &mut self,
        addr: &str,
        options: &DatagramOptions,
    ) -> io::Result<DatagramId> {
        let parts = datagram::bind_parts(addr, options, self.reactors.len())?;
        self.datagrams.push(parts);
        Ok(DatagramId(self.datagrams.len() - 1))
    }

    /// The address a datagram socket is bound to, port 0 resolved.
    pub fn datagram_addr(&self, id: DatagramId) -> Addr {
        self.datagrams.get(id.0).map_or(Addr::NONE, |(addr, _)| addr.clone())
    }

    /// The address a listener is bound to, port 0 resolved.
    pub fn local_addr(&self, listener: ListenerId) -> Addr {
        let listener = self.listeners.get(usize::from(listener.0));
        listener.map_or(Addr::NONE, |listener| listener.group.addr.clone())
    }

    /// The number of reactors.
    pub fn reactors(&self) -> usize {
        self.reactors.len()
    }

    /// Controls the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until the server is stopped, also without a listener or a connection; `setup` is
    /// called once on each reactor's thread, and what it builds stays there, so handlers of a
    /// thread may share it by `Rc` and `Cell`.
    ///
    /// # Errors
    /// What `setup` returned on any thread (then no reactor serves), or a poller that failed.
    pub fn run(
        self,
        setup: impl Fn(&mut Reactor) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        self.start(setup)?.join()
    }

    /// Starts the reactors and returns when `setup` has run on all of them.
    ///
    /// # Errors
    /// As of [`Server::run`].
    pub fn start(
        self,
        setup: impl Fn(&mut Reactor) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Running> {
        let setup = Arc::new(setup);
        let (report, reports) = mpsc::channel();
        let cores = if self.config.pin { pin::allowed_cores() } else { Vec::new() };
        let mut parts = share_listeners(self.listeners, self.reactors.len()).into_iter();
        let mut datagrams = datagram::share_parts(self.datagrams, self.reactors.len()).into_iter();
        let mut running = Running { handle: self.handle.clone(), threads: Vec::new() };
        // Each thread serves when it is told to, or ends when its sender is dropped.
        let mut starts = Vec::new();
        for (native, ending) in self.reactors {
            let shared = ending.shared.clone();
            let listeners = parts.next().unwrap_or_default();
            let datagrams = datagrams.next().unwrap_or_default();
            let (config, handle) = (self.config.clone(), self.handle.clone());
            let (setup, report) = (setup.clone(), report.clone());
            let (start, started) = mpsc::channel::<()>();
            let core = cores.get(shared.index % cores.len().max(1)).copied();
            let name = format!("reev-{}", shared.index);
            let thread = thread::Builder::new().name(name).spawn(move || {
                if let Some(core) = core {
                    pin::pin_to(core);
                }
                let mut ending = ending;
                let backend = Backend::Native(native);
                let listeners = listeners.into_iter();
                let listeners =
                    listeners.map(|(group, socket)| Listening::new(group, socket)).collect();
                let mut reactor = Reactor::new(backend, config, shared, handle.clone(), listeners);
                reactor.datagram_sockets = datagrams;
                let _ = report.send(set_up(&mut reactor, &*setup));
                drop((report, setup));
                if started.recv().is_err() {
                    return Ok(()); // a setup has failed
                }
                reactor.warn_of_unaccepted();
                ending.handle = Some(handle);
                reactor.run()?;
                ending.handle = None;
                Ok(())
            });
            running.threads.push(thread?);
            starts.push(start);
        }
        drop(report);
        if let Some(error) = reports.iter().find_map(Result::err) {
            drop(starts);
            return running.join().and(Err(error));
        }
        for start in starts {
            let _ = start.send(()); // every thread waits for it
        }
        Ok(running)
    }
}

/// Runs `setup`; a panic in it is an error like another.
fn set_up(reactor: &mut Reactor, setup: impl Fn(&mut Reactor) -> io::Result<()>) -> io::Result<()> {
    isolated(|| setup(reactor))
        .unwrap_or_else(|message| Err(io::Error::other(format!("setup panicked: {message}"))))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addrs: Vec<&Addr> =
            self.listeners.iter().map(|listener| &listener.group.addr).collect();
        f.debug_struct("Server")
            .field("reactors", &self.reactors.len())
            .field("listeners", &addrs)
            .finish_non_exhaustive()
    }
}

/// Refuses mail to a reactor that never ran, or whose thread has ended, in whatever way; if it is not a good way,
/// `handle` is there to stop the others.
struct Ending {
    shared: Arc<ReactorShared>,
    handle: Option<Handle>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        drop_isolated(self.shared.mailbox.close());
        if let Some(handle) = &self.handle {
            handle.stop();
        }
    }
}

/// A listener as it goes to a reactor's thread.
type Part = (Arc<Group>, Option<Socket>);

/// Each reactor's part of each listener.
fn share_listeners(listeners: Vec<Listener>, reactors: usize) -> Vec<Vec<Part>> {
    let mut parts: Vec<Vec<Part>> = (0..reactors).map(|_| Vec::new()).collect();
    for listener in listeners {
        let mut sockets = listener.sockets.into_iter();
        for part in &mut parts {
            let socket = sockets.next().map(Socket::Fd);
            part.push((listener.group.clone(), socket));
        }
    }
    parts
}

/// A server whose reactors run. Dropping it leaves them running; [`Running::join`] waits.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Controls the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until all reactors have ended, as after [`Handle::stop`].
    ///
    /// # Errors
    /// What a poller failed with. If one reactor fails, the others are stopped.
    pub fn join(self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = match thread.join() {
                Ok(ended) => ended,
                Err(_) => Err(io::Error::other("a reactor's thread panicked")),
            };
            result = result.and(ended);
        }
        result
    }
}
