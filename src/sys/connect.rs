//! Making sockets that connect out.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::connector::{ConnectOptions, Destination};

/// A non-blocking socket on its way to `destination`.
pub(crate) fn begin(destination: &Destination, options: &ConnectOptions) -> io::Result<OwnedFd> {
    let (domain, addr) = match destination {
        Destination::Ip(addr) => (Domain::for_address(*addr), SockAddr::from(*addr)),
        Destination::Unix(endpoint) => {
            use std::os::unix::ffi::OsStrExt;
            let name = endpoint.unix_name().unwrap_or_default();
            (Domain::UNIX, SockAddr::unix(std::ffi::OsStr::from_bytes(&name))?)
        }
    };
    let protocol = (domain != Domain::UNIX).then_some(Protocol::TCP);
    let socket = super::net::socket(domain, Type::STREAM, protocol)?;
    set_options(&socket, options, protocol.is_some())?;
    if let (Some(bind), Destination::Ip(addr)) = (options.bind, destination) {
        if bind.is_ipv4() != addr.is_ipv4() {
            let message = format!("{addr} cannot be reached from {bind}: another IP version");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
        }
        socket.bind(&bind.into())?;
    }
    match socket.connect(&addr) {
        Ok(()) => Ok(socket.into()),
        // Interrupted, it goes on all the same, and must not be issued again (connect(2)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(socket.into())
        }
        Err(error) => Err(error),
    }
}

fn set_options(socket: &Socket, options: &ConnectOptions, tcp: bool) -> io::Result<()> {
    if let Some(bytes) = options.recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if tcp {
        socket.set_tcp_nodelay(options.nodelay)?;
        if let Some(idle) = options.keepalive {
            let whole_seconds = Duration::from_secs(idle.as_secs().max(1));
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(whole_seconds))?;
        }
        if let Some(linger) = options.linger {
            if !linger.is_zero() {
                let message = "linger is above zero, and close(2) would wait";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            socket.set_linger(Some(linger))?;
        }
        if options.fast_open {
            super::net::set_fast_open_connect(socket)?;
        }
    }
    Ok(())
}

/// How far connecting has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It is not connected, whatever the poller says of writing.
    UnderWay,
    Done,
    /// A connection whose two ends have one address.
    ToItself,
}

pub(crate) fn progress(fd: BorrowedFd<'_>) -> Progress {
    let socket = SockRef::from(&fd);
    let Ok(peer) = socket.peer_addr() else {
        return Progress::UnderWay; // ENOTCONN
    };
    match socket.local_addr() {
        Ok(local) if peer.as_socket().is_some() && local == peer => Progress::ToItself,
        _ => Progress::Done,
    }
}
