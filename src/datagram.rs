//! Datagrams: UDP over IPv4 and IPv6, and Unix datagram sockets.
//!
//! A datagram socket has one handler for all its peers. What arrives together is taken with one
//! call (recvmmsg(2)), what the handler sends meanwhile leaves with one (sendmmsg(2)). Nothing
//! that goes wrong with one datagram ends the socket: it is told in `on_datagram_error`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::addr::Addr;
use crate::conn::{Conn, Flags, Kind, NO_LISTENER};
use crate::core::Core;
use crate::ctx::Ctx;
use crate::datagram_queue::Datagrams;
use crate::dispatch::Dispatcher;
use crate::endpoint::{Endpoint, IpVersion};
use crate::handler::{ConnId, EvHandler};
use crate::reactor::Reactor;
use crate::sys::datagram;
use crate::sys::listen::{Bound, UnixPath};
use crate::sys::{Backend, Socket};

/// Names a datagram socket of a server; see [`Server::bind_datagrams`].
///
/// [`Server::bind_datagrams`]: crate::Server::bind_datagrams
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DatagramId(pub(crate) usize);

/// The options of a datagram socket.
///
/// ```no_run
/// # use reev::{Addr, Ctx, EvHandler};
/// use reev::{Config, DatagramOptions, Server};
///
/// struct Echo;
///
/// impl EvHandler for Echo {
///     fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> std::io::Result<()> {
///         cx.send_to(from, data);
///         Ok(())
///     }
/// }
///
/// let mut server = Server::new(Config::default())?;
/// let options = DatagramOptions { datagram_max: 1400, ..DatagramOptions::default() };
/// let socket = server.bind_datagrams("udp://127.0.0.1:7000", &options)?;
/// server.run(move |reactor| reactor.serve_datagrams(socket, Echo).map(drop))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DatagramOptions {
    /// Bytes of the longest datagram that is received whole; of a longer one the handler gets
    /// the beginning, in `on_datagram_truncated`. `Config::read_buffer` divided by it is the
    /// number of datagrams in one call, at most 64. 1 to 65,535, default 2,048.
    pub datagram_max: usize,
    /// Bytes that may wait to be sent; a datagram beyond is dropped and counted. Default 1 MiB.
    pub output_max: usize,
    /// Several sockets may share the address, one for each reactor (SO_REUSEPORT). Not of Unix
    /// sockets. Default true.
    pub reuse_port: bool,
    /// Receive and send many datagrams with one call where the system can. Default true.
    pub batches: bool,
    /// Hand datagrams of one size for one peer to the system as one message, to be cut up late
    /// (UDP_SEGMENT, udp(7)); switched off by itself where the system refuses. Linux, UDP.
    /// Default true.
    pub gso: bool,
    /// Let the system join datagrams of one peer as they arrive, to be cut up for the handler
    /// (UDP_GRO, udp(7)). Pays with senders of streams of datagrams, such as QUIC. Linux, UDP.
    /// Default false.
    pub gro: bool,
    /// Be told of ICMP errors of any peer (IP_RECVERR, ip(7)), not only of a connected one.
    /// Linux. Default true.
    pub icmp_errors: bool,
    /// The local address of a connected UDP socket. Default: the system's choice.
    pub bind: Option<SocketAddr>,
    /// Allow sending to broadcast addresses (SO_BROADCAST). Default false.
    pub broadcast: bool,
    /// Own multicast datagrams come back to members on this machine. Default true.
    pub multicast_loop: bool,
    /// How many routers a multicast datagram passes, and one more. Default 1: none.
    pub multicast_ttl: Option<u8>,
    /// The interface that multicast datagrams leave by ([`interface_index`]); 0, the default,
    /// is the system's choice.
    pub multicast_interface: u32,
    /// SO_RCVBUF in bytes. Default: the system's own.
    pub recv_buffer: Option<usize>,
    /// SO_SNDBUF in bytes. Default: the system's own.
    pub send_buffer: Option<usize>,
    /// Permissions of a Unix socket's path, such as `0o660`. Default: by the umask.
    pub unix_mode: Option<u32>,
}

impl Default for DatagramOptions {
    fn default() -> DatagramOptions {
        DatagramOptions {
            datagram_max: 2048,
            output_max: 1 << 20,
            reuse_port: true,
            batches: true,
            gso: true,
            gro: false,
            icmp_errors: true,
            bind: None,
            broadcast: false,
            multicast_loop: true,
            multicast_ttl: None,
            multicast_interface: 0,
            recv_buffer: None,
            send_buffer: None,
            unix_mode: None,
        }
    }
}

impl DatagramOptions {
    fn validate(&self) -> io::Result<()> {
        if (1..=SLOT_MAX).contains(&self.datagram_max) {
            return Ok(());
        }
        let message =
            format!("datagram options: datagram_max is {}; from 1 to 65,535", self.datagram_max);
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// What the length of a datagram can be at most, and of several that were joined.
pub(crate) const SLOT_MAX: usize = 65_535;

/// The index of the network interface `name`, such as `eth0`, for multicast.
///
/// # Errors
/// What the system says, with the name: mostly that there is none.
///
/// ```no_run
/// # use reev::{Ctx, EvHandler};
/// struct Members;
///
/// impl EvHandler for Members {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         let interface = reev::interface_index("eth0")?;
///         cx.join_multicast([239, 0, 0, 1].into(), interface)
///     }
/// }
/// ```
pub fn interface_index(name: &str) -> io::Result<u32> {
    datagram::interface_index(name)
}

/// A datagram socket as it goes to a reactor.
pub(crate) struct DatagramPart {
    fd: OwnedFd,
    path: Option<Arc<UnixPath>>,
    options: DatagramOptions,
    peer: Addr,
}

/// A socket for each of `count` reactors.
pub(crate) fn bind_parts(
    addr: &str,
    options: &DatagramOptions,
    count: usize,
) -> io::Result<(Addr, Vec<DatagramPart>)> {
    options.validate()?;
    let endpoint = Endpoint::parse(addr)?.only(true)?;
    let mut options = options.clone();
    options.reuse_port |= count > 1;
    let version = match &endpoint {
        Endpoint::Udp { version, .. } => *version,
        _ => IpVersion::Any,
    };
    let bound = datagram::bind(&endpoint, &options)?;
    let mut fds = Vec::new();
    for _ in 1..count {
        fds.push(datagram::bind_another(&bound, version, &options)?);
    }
    let Bound { fd, addr, path } = bound;
    fds.insert(0, fd);
    let path = path.map(Arc::new);
    let part =
        |fd| DatagramPart { fd, path: path.clone(), options: options.clone(), peer: Addr::NONE };
    Ok((addr, fds.into_iter().map(part).collect()))
}

/// Each reactor's part of each datagram socket.
pub(crate) fn share_parts(
    all: Vec<(Addr, Vec<DatagramPart>)>,
    reactors: usize,
) -> Vec<Vec<Option<DatagramPart>>> {
    let mut shares: Vec<Vec<_>> = (0..reactors).map(|_| Vec::new()).collect();
    for (_, parts) in all {
        let mut parts = parts.into_iter();
        for share in &mut shares {
            share.push(parts.next());
        }
    }
    shares
}

fn part_of(bound: Bound, options: &DatagramOptions, peer: Addr) -> DatagramPart {
    let path = bound.path.map(Arc::new);
    DatagramPart { fd: bound.fd, path, options: options.clone(), peer }
}

fn bound_part(addr: &str, options: &DatagramOptions) -> io::Result<DatagramPart> {
    options.validate()?;
    let endpoint = Endpoint::parse(addr)?.only(true)?;
    Ok(part_of(datagram::bind(&endpoint, options)?, options, Addr::NONE))
}

fn connected_part(addr: &str, options: &DatagramOptions) -> io::Result<DatagramPart> {
    options.validate()?;
    let endpoint = Endpoint::parse(addr)?.only(true)?;
    let peer = match endpoint.numeric() {
        Some(addr) => Addr::from(addr),
        None => Addr::unix(endpoint.unix_name().as_deref()),
    };
    Ok(part_of(datagram::connect(&endpoint, options)?, options, peer))
}

fn adopted_part(fd: OwnedFd, options: &DatagramOptions) -> io::Result<DatagramPart> {
    options.validate()?;
    let peer = crate::sys::net::peer_addr(&fd).unwrap_or(Addr::NONE);
    Ok(part_of(datagram::adopt(fd)?, options, peer))
}

impl Core {
    fn add_datagrams(
        &mut self,
        net: &mut Backend,
        part: DatagramPart,
        handler: Box<dyn EvHandler>,
    ) -> io::Result<ConnId> {
        if !net.is_native() {
            let message = "the simulated kernel has no datagrams";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let DatagramPart { fd, path, options, peer } = part;
        let local = crate::sys::net::local_addr(std::os::fd::AsFd::as_fd(&fd))?;
        let v6 = datagram::is_v6(&fd)?;
        let datagrams = Datagrams::new(options, v6, local.is_unix(), &peer, path);
        let mut conn = Conn::new(Kind::Datagram, peer, NO_LISTENER);
        conn.extra_mut().datagrams = Some(Box::new(datagrams));
        let id = self.insert(conn);
        net.install(id.index(), Socket::Fd(fd));
        self.incoming.push((id, handler));
        self.defer(id, Flags::OPEN_DUE);
        Ok(id)
    }
}

impl Reactor {
    /// Serves a datagram socket of the server with `handler`, which gets what comes to this
    /// reactor.
    ///
    /// # Errors
    /// `NotFound` if `socket` is of another server or served here already.
    pub fn serve_datagrams(
        &mut self,
        socket: DatagramId,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Some(part) = self.datagram_sockets.get_mut(socket.0).and_then(Option::take) else {
            let message = "no such datagram socket in this server, or it is served already";
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.add_datagrams(backend, part, Box::new(handler))
    }

    /// Binds a datagram socket on this reactor alone; see [`Ctx::bind_datagrams`].
    ///
    /// # Errors
    /// As of [`Ctx::bind_datagrams`].
    pub fn bind_datagrams(
        &mut self,
        addr: &str,
        options: &DatagramOptions,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.add_datagrams(backend, bound_part(addr, options)?, Box::new(handler))
    }

    /// Makes a datagram socket for one peer; see [`Ctx::connect_datagrams`].
    ///
    /// # Errors
    /// As of [`Ctx::connect_datagrams`].
    pub fn connect_datagrams(
        &mut self,
        addr: &str,
        options: &DatagramOptions,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.add_datagrams(backend, connected_part(addr, options)?, Box::new(handler))
    }

    /// Takes over a datagram socket made elsewhere: a `std::net::UdpSocket`, a `UnixDatagram` or
    /// their descriptor. Of the options, those that are set when a socket is made stay as they
    /// are.
    ///
    /// # Errors
    /// `InvalidInput` for a socket of another kind, or what the system says.
    pub fn adopt_datagrams(
        &mut self,
        socket: impl Into<OwnedFd>,
        options: &DatagramOptions,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        core.add_datagrams(backend, adopted_part(socket.into(), options)?, Box::new(handler))
    }
}

/// Datagrams.
impl Ctx<'_> {
    /// Sends a datagram to `to`, together with others of this callback. It may be empty. False
    /// if it is dropped: this is no datagram socket, it is ending, or more than
    /// `DatagramOptions::output_max` bytes wait. That it could not be sent later is told in
    /// [`EvHandler::on_datagram_error`].
    pub fn send_to(&mut self, to: &Addr, data: &[u8]) -> bool {
        self.core.send_to(self.id, to, data)
    }

    /// Sends a datagram to the peer of a connected socket, as [`Ctx::send_to`]; [`Ctx::write`]
    /// does the same with what is not empty.
    pub fn send(&mut self, data: &[u8]) -> bool {
        self.core.send_to(self.id, &Addr::NONE, data)
    }

    /// Datagrams of this socket that were dropped instead of sent.
    pub fn dropped_datagrams(&mut self) -> u64 {
        let conn = self.core.conns.get_mut(self.id.0);
        conn.and_then(Conn::datagrams).map_or(0, |datagrams| datagrams.dropped)
    }

    /// Binds a datagram socket on this reactor: `udp://host:port`, `unixgram:///path` and their
    /// kin. The handler gets `on_open` soon, and then every datagram that comes.
    ///
    /// On a wildcard address the system chooses which address an answer comes from, which may be
    /// another than the one that was asked. On a host with several, bind each by itself.
    ///
    /// # Errors
    /// `InvalidInput` for an address or options that make no sense, or what the system says,
    /// with the address. A name is resolved at once, which may block.
    pub fn bind_datagrams(
        &mut self,
        addr: &str,
        options: &DatagramOptions,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        self.core.add_datagrams(self.net, bound_part(addr, options)?, Box::new(handler))
    }

    /// Makes a datagram socket for one peer, whose datagrams alone it gets. A Unix socket gets
    /// an abstract name, so that the peer can answer.
    ///
    /// # Errors
    /// `InvalidInput` for a name instead of an IP address, or what the system says.
    pub fn connect_datagrams(
        &mut self,
        addr: &str,
        options: &DatagramOptions,
        handler: impl EvHandler,
    ) -> io::Result<ConnId> {
        self.core.add_datagrams(self.net, connected_part(addr, options)?, Box::new(handler))
    }

    /// Joins a multicast group on the interface with this index ([`interface_index`]); 0 is the
    /// system's choice.
    ///
    /// # Errors
    /// What the system says: `InvalidInput` for an address that is no group, `AddrInUse` if it
    /// is joined already.
    pub fn join_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        datagram::multicast(self.net.descriptor(self.id.index())?, group, interface, true)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// What the system says: `AddrNotAvailable` if it is not joined.
    pub fn leave_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        datagram::multicast(self.net.descriptor(self.id.index())?, group, interface, false)
    }
}
