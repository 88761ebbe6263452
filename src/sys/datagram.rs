//! Datagram sockets: making them, and taking and sending many datagrams with one call.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

#[cfg(not(any(target_os = "macos", target_os = "dragonfly")))]
use libc::mmsghdr;
#[cfg(any(target_os = "macos", target_os = "dragonfly"))]
use libc::msghdr;
use libc::{iovec, sockaddr_storage, socklen_t};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::listen::{Bound, UnixPath, bind_first, remove_stale};
use super::net::{self, SEND_FLAGS, addr_from, retry};
use crate::addr::Addr;
use crate::config::DATAGRAM_BATCH_MAX;
use crate::datagram::DatagramOptions;
use crate::endpoint::{Endpoint, IpVersion};

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "datagram/linux.rs"]
mod extras;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "datagram/other.rs"]
mod extras;

pub(crate) use extras::take_errors;

/// The system cuts up what is handed to it as one message (UDP_SEGMENT).
pub(crate) const CUTS_UP: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A message and its length, where the system has no call that takes many.
#[cfg(any(target_os = "macos", target_os = "dragonfly"))]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "the name is the other systems'")]
struct mmsghdr {
    msg_hdr: msghdr,
    msg_len: libc::c_uint,
}

/// Control data of one message: a number and its header, or an ICMP error with the address of
/// who sent it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 128]);

/// A datagram that was received, or several of `segment` bytes each (UDP_GRO, udp(7)).
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) segment: usize,
    pub(crate) truncated: bool,
    pub(crate) from: Addr,
}

/// A datagram to send, or several of `segment` bytes each (UDP_SEGMENT, udp(7)).
pub(crate) struct Sending<'a> {
    pub(crate) to: &'a Addr,
    pub(crate) data: &'a [u8],
    pub(crate) segment: u16,
}

/// The headers of up to `DATAGRAM_BATCH_MAX` messages, kept from call to call.
pub(crate) struct Batch {
    headers: Vec<mmsghdr>,
    slices: Vec<iovec>,
    names: Vec<sockaddr_storage>,
    controls: Vec<Control>,
    pub(crate) received: Vec<Received>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            headers: Vec::new(),
            slices: Vec::new(),
            names: Vec::new(),
            controls: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Makes room for `n` messages, and no fewer than before.
    fn reserve(&mut self, n: usize) {
        if self.headers.len() >= n {
            return;
        }
        // SAFETY: all-zero headers, slices and names are valid ones: nothing is pointed at.
        unsafe {
            self.headers.resize(n, std::mem::zeroed());
            self.slices.resize(n, std::mem::zeroed());
            self.names.resize(n, std::mem::zeroed());
        }
        self.controls.resize(n, Control([0; 128]));
    }

    /// Receives datagrams into `buffer`, each into `slot` bytes of its own, with one call
    /// (recvmmsg(2)) or, if `batches` is false, with a call for each. `received` has what came.
    pub(crate) fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        buffer: &mut [u8],
        slot: usize,
        batches: bool,
    ) -> io::Result<()> {
        self.received.clear();
        let count = (buffer.len() / slot).clamp(1, DATAGRAM_BATCH_MAX);
        self.reserve(count);
        for (i, part) in buffer.chunks_mut(slot).take(count).enumerate() {
            self.slices[i] = iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &mut self.slices[i];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        let headers = &mut self.headers[..count];
        let n = if batches { receive_together(fd, headers)? } else { receive_each(fd, headers)? };
        for i in 0..n {
            let header = &self.headers[i];
            self.received.push(Received {
                len: header.msg_len as usize,
                segment: extras::segment_of(&header.msg_hdr),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                from: addr_from(&self.names[i], header.msg_hdr.msg_namelen as usize),
            });
        }
        Ok(())
    }

    /// Sends datagrams with one call (sendmmsg(2)) or, if `batches` is false, with a call for
    /// each; the number that the system took, at least one. `v6`: the socket is one of IPv6.
    pub(crate) fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        v6: bool,
        messages: impl Iterator<Item = Sending<'a>>,
        batches: bool,
    ) -> io::Result<usize> {
        self.reserve(DATAGRAM_BATCH_MAX);
        let mut count = 0;
        for (i, message) in messages.take(DATAGRAM_BATCH_MAX).enumerate() {
            count += 1;
            let data = message.data;
            self.slices[i] =
                iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
            let name_len = write_name(message.to, v6, &mut self.names[i]);
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &mut self.slices[i];
            header.msg_iovlen = 1;
            header.msg_name = match name_len {
                0 => std::ptr::null_mut(),
                _ => (&raw mut self.names[i]).cast(),
            };
            header.msg_namelen = name_len;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if message.segment > 0 {
                header.msg_control = (&raw mut self.controls[i]).cast();
                let len = extras::write_segment(&mut self.controls[i], message.segment);
                header.msg_controllen = len as _;
            }
        }
        let headers = &mut self.headers[..count];
        if batches { send_together(fd, headers) } else { send_each(fd, headers) }
    }
}

#[cfg(not(any(target_os = "macos", target_os = "dragonfly")))]
fn receive_together(fd: BorrowedFd<'_>, headers: &mut [mmsghdr]) -> io::Result<usize> {
    let count = headers.len() as _;
    // SAFETY: the headers are as many as is said, and each points at a slice, a name and control
    // data, as large as it says, that live through the call and that nobody else borrows.
    retry(|| unsafe {
        let flags = libc::MSG_DONTWAIT;
        let headers = headers.as_mut_ptr();
        libc::recvmmsg(fd.as_raw_fd(), headers, count, flags, std::ptr::null_mut()) as isize
    })
}

#[cfg(any(target_os = "macos", target_os = "dragonfly"))]
use receive_each as receive_together;

/// A call for each datagram, until there is none.
fn receive_each(fd: BorrowedFd<'_>, headers: &mut [mmsghdr]) -> io::Result<usize> {
    for (i, header) in headers.iter_mut().enumerate() {
        // SAFETY: the header points at a slice, a name and control data, as large as it says,
        // that live through the call and that nobody else borrows.
        let received = retry(|| unsafe {
            libc::recvmsg(fd.as_raw_fd(), &mut header.msg_hdr, libc::MSG_DONTWAIT)
        });
        match received {
            Ok(len) => header.msg_len = len as _,
            Err(error) if i == 0 => return Err(error),
            Err(_) => return Ok(i), // an error is told again by the next call
        }
    }
    Ok(headers.len())
}

#[cfg(not(any(target_os = "macos", target_os = "dragonfly")))]
fn send_together(fd: BorrowedFd<'_>, headers: &mut [mmsghdr]) -> io::Result<usize> {
    let count = headers.len() as _;
    let flags = SEND_FLAGS | libc::MSG_DONTWAIT;
    // SAFETY: the headers are as many as is said, and each points at a slice, and perhaps a name
    // and control data, as large as it says, that live through the call.
    retry(|| unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags) as isize })
}

#[cfg(any(target_os = "macos", target_os = "dragonfly"))]
use send_each as send_together;

/// A call for each datagram, until one fails.
fn send_each(fd: BorrowedFd<'_>, headers: &mut [mmsghdr]) -> io::Result<usize> {
    let flags = SEND_FLAGS | libc::MSG_DONTWAIT;
    for (i, header) in headers.iter().enumerate() {
        // SAFETY: the header points at a slice, and perhaps a name and control data, as large as
        // it says, that live through the call.
        match retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &header.msg_hdr, flags) }) {
            Ok(_) => {}
            Err(error) if i == 0 => return Err(error),
            Err(_) => return Ok(i),
        }
    }
    Ok(headers.len())
}

/// Writes an address as the system has it; its length, 0 for no address.
fn write_name(addr: &Addr, v6: bool, name: &mut sockaddr_storage) -> socklen_t {
    let written = match addr.socket_addr() {
        // A socket of IPv6 knows IPv4 addresses as mapped ones.
        Some(SocketAddr::V4(v4)) if v6 => {
            SockAddr::from(SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())))
        }
        Some(addr) => SockAddr::from(addr),
        None => {
            match addr.unix_name().map(|name| SockAddr::unix(std::ffi::OsStr::from_bytes(name))) {
                Some(Ok(addr)) => addr,
                _ => return 0,
            }
        }
    };
    // SAFETY: any address fits into the storage, and the storage of a SockAddr is one.
    *name = unsafe { *written.as_ptr().cast::<sockaddr_storage>() };
    written.len()
}

/// Binds a datagram socket. What fails names the address.
pub(crate) fn bind(endpoint: &Endpoint, options: &DatagramOptions) -> io::Result<Bound> {
    let bound = match endpoint {
        Endpoint::Udp { host, version, .. } => {
            bind_first(&endpoint.resolve()?, host, *version, |addr| {
                bind_udp(addr, *version, options)
            })
        }
        Endpoint::UnixDatagram(path) => bind_path(path, options),
        _ => bind_unix(endpoint, options),
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot bind {endpoint}: {error}")))
}

/// Another socket for the same address, in its SO_REUSEPORT group; of Unix sockets, or where such a
/// group is not spread over, a copy.
pub(crate) fn bind_another(
    bound: &Bound,
    version: IpVersion,
    options: &DatagramOptions,
) -> io::Result<OwnedFd> {
    match bound.addr.socket_addr() {
        // Where one of them would get all, they share one.
        Some(addr) if net::PORTS_ARE_SPREAD => bind_udp(addr, version, options).map(OwnedFd::from),
        _ => bound.fd.try_clone(),
    }
}

fn bind_udp(addr: SocketAddr, version: IpVersion, options: &DatagramOptions) -> io::Result<Socket> {
    let socket = udp(Domain::for_address(addr), options)?;
    if options.reuse_port {
        net::share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(net::is_only_v6(addr, version))?;
    }
    if addr.ip().is_multicast() {
        socket.set_reuse_address(true)?; // several programs may listen to a group's port
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn udp(domain: Domain, options: &DatagramOptions) -> io::Result<Socket> {
    let socket = net::socket(domain, Type::DGRAM, Some(Protocol::UDP))?;
    set_buffers(&socket, options)?;
    let v6 = domain == Domain::IPV6;
    socket.set_broadcast(options.broadcast && !v6)?;
    extras::set_options(socket.as_fd(), v6, options)?;
    let ttl = options.multicast_ttl.unwrap_or(1);
    if v6 {
        socket.set_multicast_loop_v6(options.multicast_loop)?;
        socket.set_multicast_hops_v6(ttl.into())?;
        socket.set_multicast_if_v6(options.multicast_interface)?;
        return Ok(socket);
    }
    // The standard library knows that OpenBSD takes these two as one byte alone (EINVAL).
    let socket = UdpSocket::from(socket);
    socket.set_multicast_loop_v4(options.multicast_loop)?;
    socket.set_multicast_ttl_v4(ttl.into())?;
    let socket = Socket::from(socket);
    if options.multicast_interface != 0 {
        set_multicast_interface(&socket, options.multicast_interface)?;
    }
    Ok(socket)
}

#[cfg(target_os = "netbsd")]
fn set_multicast_interface(_socket: &Socket, _interface: u32) -> io::Result<()> {
    Err(net::unsupported("choice of an interface for IPv4 multicast by its index"))
}

#[cfg(not(target_os = "netbsd"))]
fn set_multicast_interface(socket: &Socket, interface: u32) -> io::Result<()> {
    let choice = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: interface as libc::c_int,
    };
    // SAFETY: the option's value is as large as is said and lives through the call.
    retry(|| unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MULTICAST_IF,
            (&raw const choice).cast(),
            size_of::<libc::ip_mreqn>() as socklen_t,
        ) as isize
    })?;
    Ok(())
}

fn set_buffers(socket: &Socket, options: &DatagramOptions) -> io::Result<()> {
    if let Some(bytes) = options.recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

fn unix_addr(endpoint: &Endpoint) -> io::Result<SockAddr> {
    let name = endpoint.unix_name().ok_or(io::ErrorKind::InvalidInput)?;
    SockAddr::unix(std::ffi::OsStr::from_bytes(&name))
}

fn bind_unix(endpoint: &Endpoint, options: &DatagramOptions) -> io::Result<Bound> {
    let socket = net::socket(Domain::UNIX, Type::DGRAM, None)?;
    set_buffers(&socket, options)?;
    socket.bind(&unix_addr(endpoint)?)?;
    Bound::without_path(socket)
}

fn bind_path(path: &std::path::Path, options: &DatagramOptions) -> io::Result<Bound> {
    use std::os::unix::fs::PermissionsExt;
    let endpoint = Endpoint::UnixDatagram(path.to_owned());
    let bound = match bind_unix(&endpoint, options) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, Type::DGRAM)?;
            bind_unix(&endpoint, options)?
        }
        other => other?,
    };
    if let Some(mode) = options.unix_mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(Bound { path: Some(UnixPath::new(path)?), ..bound })
}

/// A socket for one peer alone, which must not need resolving.
pub(crate) fn connect(endpoint: &Endpoint, options: &DatagramOptions) -> io::Result<Bound> {
    let connected = match endpoint {
        Endpoint::Udp { .. } => endpoint
            .numeric()
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "not a numeric address; resolve it")
            })
            .and_then(|addr| {
                let socket = udp(Domain::for_address(addr), options)?;
                if let Some(bind) = options.bind {
                    socket.bind(&bind.into())?;
                }
                socket.connect(&addr.into())?;
                Ok(socket)
            }),
        _ => unix_addr(endpoint).and_then(|addr| {
            let socket = net::socket(Domain::UNIX, Type::DGRAM, None)?;
            set_buffers(&socket, options)?;
            if cfg!(any(target_os = "linux", target_os = "android")) {
                // A name of the system's choice (unix(7), autobind), so that the peer can answer.
                socket.bind(&SockAddr::unix("")?)?;
            }
            socket.connect(&addr)?;
            Ok(socket)
        }),
    };
    let connected = connected.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot connect to {endpoint}: {error}"))
    })?;
    Bound::without_path(connected)
}

/// Prepares a datagram socket made elsewhere.
pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Bound> {
    let socket = SockRef::from(&fd);
    if socket.r#type()? != Type::DGRAM {
        let message = "only a datagram socket can be adopted as one";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Bound::without_path(fd)
}

/// Whether it is a socket of IPv6.
pub(crate) fn is_v6(fd: &impl AsFd) -> io::Result<bool> {
    Ok(SockRef::from(fd).local_addr()?.domain() == Domain::IPV6)
}

/// Joins a multicast group on an interface, or leaves it. 0 is the system's choice.
pub(crate) fn multicast(
    fd: BorrowedFd<'_>,
    group: IpAddr,
    interface: u32,
    join: bool,
) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    match (group, join) {
        (IpAddr::V4(group), join) => multicast_v4(&socket, group, interface, join),
        (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, interface),
        (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, interface),
    }
}

#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
fn multicast_v4(
    socket: &SockRef<'_>,
    group: Ipv4Addr,
    interface: u32,
    join: bool,
) -> io::Result<()> {
    let interface = socket2::InterfaceIndexOrAddress::Index(interface);
    match join {
        true => socket.join_multicast_v4_n(&group, &interface),
        false => socket.leave_multicast_v4_n(&group, &interface),
    }
}

/// By address, and so by the system's choice alone.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
fn multicast_v4(
    socket: &SockRef<'_>,
    group: Ipv4Addr,
    interface: u32,
    join: bool,
) -> io::Result<()> {
    match (interface, join) {
        (0, true) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        (0, false) => socket.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        _ => Err(net::unsupported("choice of an interface for IPv4 multicast by its index")),
    }
}

/// The index of a network interface.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let c_name = std::ffi::CString::new(name)?;
    // SAFETY: the name ends with a NUL and lives through the call.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(error.kind(), format!("no interface {name}: {error}")))
        }
        index => Ok(index),
    }
}
