//! Socket calls on descriptors: `EINTR` retried, no signals, descriptors close-on-exec.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::addr::Addr;
use crate::endpoint::IpVersion;

/// Runs a system call until it is not interrupted; a negative result is `errno`.
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, into: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a live, exclusively borrowed slice.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags) })
}

/// Reads into the spare capacity of `into`, which must not be empty.
pub(crate) fn recv_spare(fd: BorrowedFd<'_>, into: &mut Vec<u8>) -> io::Result<usize> {
    let spare = into.spare_capacity_mut();
    debug_assert!(!spare.is_empty(), "an empty buffer would read as the peer's FIN");
    // SAFETY: the pointer and the length are those of the vector's spare capacity, to which the
    // kernel only writes.
    let n =
        retry(|| unsafe { libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), 0) })?;
    // SAFETY: the kernel has written the `n` bytes that follow the vector's length, and `n` is
    // at most the spare capacity.
    unsafe { into.set_len(into.len() + n) };
    Ok(n)
}

/// Reads up to `most` bytes behind those of `chunk`, within its capacity; there must be room.
#[cfg(feature = "proactor")]
pub(crate) fn recv_chunk(
    fd: BorrowedFd<'_>,
    chunk: &mut bytes::BytesMut,
    most: usize,
) -> io::Result<usize> {
    let spare = chunk.spare_capacity_mut();
    let most = most.min(spare.len());
    debug_assert!(most > 0, "an empty buffer would read as the peer's FIN");
    // SAFETY: the pointer is that of the chunk's spare capacity, which has at least `most` bytes
    // and to which the kernel only writes.
    let n = retry(|| unsafe { libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), most, 0) })?;
    // SAFETY: the kernel has written the `n` bytes that follow the chunk's length, and `n` is at
    // most the spare capacity.
    unsafe { chunk.set_len(chunk.len() + n) };
    Ok(n)
}

/// Without SIGPIPE. macOS is told so once for each socket, by [`silence`].
#[cfg(not(target_os = "macos"))]
pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
#[cfg(target_os = "macos")]
pub(super) const SEND_FLAGS: libc::c_int = 0;

#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a live slice.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), SEND_FLAGS) })
        .map_err(not_yet)
}

/// A first send with TCP_FASTOPEN_CONNECT whose SYN left without the data says EINPROGRESS.
#[cold]
fn not_yet(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return io::ErrorKind::WouldBlock.into();
    }
    error
}

pub(crate) fn send_vectored(fd: BorrowedFd<'_>, data: &[IoSlice<'_>]) -> io::Result<usize> {
    match data {
        [only] => send(fd, only), // without a message's copy into the kernel
        data => send_message(fd, data, SEND_FLAGS),
    }
}

/// As `send_vectored`, where more follows at once: a last segment that is not full waits for it
/// (MSG_MORE, send(2)), at most 200 ms.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_before_more(fd: BorrowedFd<'_>, data: &[IoSlice<'_>]) -> io::Result<usize> {
    send_message(fd, data, SEND_FLAGS | libc::MSG_MORE)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use send_vectored as send_before_more;

fn send_message(fd: BorrowedFd<'_>, data: &[IoSlice<'_>], flags: i32) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid one: no name, no slices, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is guaranteed to have the layout of `iovec`; sendmsg does not write through it.
    message.msg_iov = data.as_ptr().cast_mut().cast();
    message.msg_iovlen = data.len() as _;
    // SAFETY: the message points at slices that live through the call.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) }).map_err(not_yet)
}

/// Sends up to `len` bytes of a file from `start` on. Unlike `send` this call cannot be told not
/// to raise SIGPIPE, which Rust's runtime ignores from the start.
pub(crate) fn send_file(
    fd: BorrowedFd<'_>,
    file: &File,
    start: u64,
    len: u64,
) -> io::Result<usize> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let start = libc::off_t::try_from(start).map_err(too_large)?;
    let len = usize::try_from(len).map_err(too_large)?;
    if len == 0 {
        return Ok(0); // which to the BSDs and macOS is all there is (sendfile(2))
    }
    retry(|| sendfile(fd, file, start, len))
}

/// sendfile(2), and how much it sent or -1.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sendfile(fd: BorrowedFd<'_>, file: &File, mut start: libc::off_t, len: usize) -> isize {
    // SAFETY: the offset lives through the call, which is all that the call writes to.
    unsafe { libc::sendfile(fd.as_raw_fd(), file.as_raw_fd(), &mut start, len) }
}

/// sendfile(2), which tells of what it sent before it failed.
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
fn sendfile(fd: BorrowedFd<'_>, file: &File, start: libc::off_t, len: usize) -> isize {
    let mut sent = 0;
    let (socket, file, none) = (fd.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: the number sent lives through the call, which is all that the call writes to.
    let done = unsafe { libc::sendfile(file, socket, start, len, none, &mut sent, 0) };
    if done < 0 && sent == 0 { -1 } else { sent as isize }
}

/// sendfile(2), which tells of what it sent before it failed.
#[cfg(target_os = "macos")]
fn sendfile(fd: BorrowedFd<'_>, file: &File, start: libc::off_t, len: usize) -> isize {
    // More than the largest length is as good as the largest.
    let mut sent = libc::off_t::try_from(len).unwrap_or(libc::off_t::MAX);
    let (socket, file, none) = (fd.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: the number sent lives through the call, which is all that the call writes to.
    let done = unsafe { libc::sendfile(file, socket, start, &mut sent, none, 0) };
    if done < 0 && sent == 0 { -1 } else { sent as isize }
}

/// There is no such call: a piece is read, and as much of it sent as the socket takes.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
fn sendfile(fd: BorrowedFd<'_>, file: &File, start: libc::off_t, len: usize) -> isize {
    let mut piece = [0u8; 32 << 10];
    let len = len.min(piece.len());
    // SAFETY: the kernel writes at most as much as the piece has room for, and reads what it has
    // written.
    unsafe {
        let read = libc::pread(file.as_raw_fd(), piece.as_mut_ptr().cast(), len, start);
        match usize::try_from(read) {
            Ok(read) if read > 0 => {
                libc::send(fd.as_raw_fd(), piece.as_ptr().cast(), read, SEND_FLAGS)
            }
            _ => read,
        }
    }
}

/// Has writing to a peer that is gone raise no signal (SO_NOSIGPIPE), where no call can ask that.
pub(crate) fn silence(_fd: &impl AsFd) -> io::Result<()> {
    #[cfg(target_os = "macos")]
    set_option(_fd.as_fd(), libc::SOL_SOCKET, libc::SO_NOSIGPIPE, 1)?;
    Ok(())
}

/// Accepts a connection: non-blocking, close-on-exec.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Addr)> {
    // SAFETY: an all-zero sockaddr_storage is a valid one.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = 0;
    let accepted = retry(|| {
        length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let (fd, name) = (fd.as_raw_fd(), (&raw mut storage).cast());
        #[cfg(not(target_os = "macos"))]
        // SAFETY: the storage is as large as its length says, and both live through the call.
        unsafe {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            libc::accept4(fd, name, &mut length, flags) as isize
        }
        #[cfg(target_os = "macos")]
        // SAFETY: the storage is as large as its length says, and both live through the call.
        unsafe {
            libc::accept(fd, name, &mut length) as isize
        }
    })?;
    // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted as i32) };
    if cfg!(target_os = "macos") {
        // There is no accept4. A process that is made in between inherits the descriptor. A
        // connection that is gone already comes without an address, and takes no option (EINVAL).
        let prepare = || {
            SockRef::from(&accepted).set_cloexec(true)?;
            SockRef::from(&accepted).set_nonblocking(true)?;
            silence(&accepted)
        };
        if length == 0 || prepare().is_err() {
            return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
        }
    }
    Ok((accepted, addr_from(&storage, length as usize)))
}

pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<Addr> {
    name_of(fd, libc::getsockname)
}

pub(crate) fn peer_addr(fd: &impl AsFd) -> io::Result<Addr> {
    name_of(fd.as_fd(), libc::getpeername)
}

type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name_of(fd: BorrowedFd<'_>, call: NameCall) -> io::Result<Addr> {
    // SAFETY: an all-zero sockaddr_storage is a valid one.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is as large as its length says, and both live through the call.
    retry(|| unsafe { call(fd.as_raw_fd(), (&raw mut storage).cast(), &mut length) as isize })?;
    Ok(addr_from(&storage, length as usize))
}

/// The address the kernel wrote into `storage`, `length` bytes of it.
pub(super) fn addr_from(storage: &libc::sockaddr_storage, length: usize) -> Addr {
    match i32::from(storage.ss_family) {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says that the storage holds a sockaddr_in, and it is large and
            // aligned enough for every kind of address.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Addr::from(SocketAddr::from(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Addr::from(SocketAddr::from(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id)))
        }
        libc::AF_UNIX => {
            // SAFETY: as above, for a sockaddr_un.
            let unix = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_un>() };
            let header = std::mem::offset_of!(libc::sockaddr_un, sun_path);
            let used = length.saturating_sub(header).min(unix.sun_path.len());
            let name: Vec<u8> = unix.sun_path[..used].iter().map(|&c| c as u8).collect();
            let name = match name.first() {
                // An abstract name, which Linux alone has; elsewhere an unnamed one.
                Some(0) if !cfg!(any(target_os = "linux", target_os = "android")) => &[],
                None | Some(0) => name.as_slice(),
                Some(_) => name.split(|&c| c == 0).next().unwrap_or(&[]),
            };
            Addr::unix(Some(name))
        }
        _ => Addr::unix(None),
    }
}

pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) {
    // A peer that is gone already has nothing to be told.
    let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Write);
}

/// Has a listening Unix socket refuse connections; those in its queue can still be accepted.
/// Elsewhere than on Linux shutdown(2) of a listener is ENOTCONN, or ends it.
pub(crate) fn refuse_new(fd: BorrowedFd<'_>) -> io::Result<()> {
    match cfg!(any(target_os = "linux", target_os = "android")) {
        true => SockRef::from(&fd).shutdown(std::net::Shutdown::Read),
        false => Err(unsupported("listening Unix socket that refuses")),
    }
}

pub(crate) fn take_error(fd: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&fd).take_error().unwrap_or_else(Some)
}

/// Makes the coming close a reset (TCP: SO_LINGER with zero seconds; no effect elsewhere).
pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_linger(Some(std::time::Duration::ZERO));
}

/// Has close(2) not wait for the peer (SO_LINGER with a time, which on Linux holds up a socket that
/// does not block as well). A time of zero stays: it asks for a reset.
pub(super) fn close_at_once(fd: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(fd);
    match socket.linger()? {
        Some(time) if !time.is_zero() => socket.set_linger(None),
        _ => Ok(()),
    }
}

pub(crate) fn is_stream(fd: &impl AsFd) -> io::Result<bool> {
    Ok(SockRef::from(fd).r#type()? == Type::STREAM)
}

/// A new socket: non-blocking, close-on-exec.
pub(super) fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    #[cfg(not(target_os = "macos"))]
    return Socket::new(domain, kind.nonblocking(), protocol);
    #[cfg(target_os = "macos")]
    {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Whether a socket listens (SO_ACCEPTCONN, which macOS and OpenBSD do not tell).
pub(super) fn is_listener(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match accepts(fd) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => may_listen(fd),
        told => told,
    }
}

/// Whether a socket is a stream without a peer, as one that listens is.
fn may_listen(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let unconnected = |error: io::Error| error.raw_os_error() == Some(libc::ENOTCONN);
    Ok(is_stream(&fd)? && peer_addr(&fd).is_err_and(unconnected))
}

fn accepts(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut listens: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, name, value) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut listens).cast());
    // SAFETY: the value is as large as is said, and both live through the call.
    retry(|| unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &mut len) as isize })?;
    Ok(listens != 0)
}

pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    SockRef::from(fd).set_nonblocking(true)
}

/// The first bytes sent go with the SYN (TCP_FASTOPEN_CONNECT, tcp(7)).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn set_fast_open_connect(fd: &impl AsFd) -> io::Result<()> {
    set_option(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn set_fast_open_connect(_fd: &impl AsFd) -> io::Result<()> {
    Err(unsupported("fast_open of a connection"))
}

/// What this system lacks, as an error.
pub(crate) fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this system has no {what}"))
}

/// A listener takes bytes with the SYN, from at most `waiting` clients at once (TCP_FASTOPEN,
/// tcp(7)).
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd", target_os = "dragonfly")))]
pub(crate) fn set_fast_open(fd: &impl AsFd, waiting: u16) -> io::Result<()> {
    // macOS has a switch alone.
    let value = if cfg!(target_os = "macos") { waiting.min(1) } else { waiting };
    set_option(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, value.into())
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "dragonfly"))]
pub(crate) fn set_fast_open(_fd: &impl AsFd, _waiting: u16) -> io::Result<()> {
    Err(unsupported("fast_open of a listener"))
}

/// A socket of IPv6 can take IPv4 too. On OpenBSD and DragonFly IPV6_V6ONLY cannot be cleared.
pub(crate) const TAKES_BOTH_VERSIONS: bool =
    cfg!(not(any(target_os = "openbsd", target_os = "dragonfly")));

/// Whether a socket for an address of IPv6 is to take IPv6 alone.
pub(crate) fn is_only_v6(addr: SocketAddr, version: IpVersion) -> bool {
    !TAKES_BOTH_VERSIONS || version == IpVersion::V6 || !addr.ip().is_unspecified()
}

/// The system spreads the connections and datagrams of a port over the sockets that share it.
pub(crate) const PORTS_ARE_SPREAD: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "dragonfly"
));

/// Lets a socket share its port (SO_REUSEPORT), and have its part of what comes to it where
/// [`PORTS_ARE_SPREAD`]: FreeBSD has another option for that.
pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "freebsd")]
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT_LB, 1)?;
    #[cfg(not(target_os = "freebsd"))]
    socket.set_reuse_port(true)?;
    Ok(())
}

/// setsockopt(2) with an int.
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd", target_os = "dragonfly")))]
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option value is an int that lives through the call.
    retry(|| unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        ) as isize
    })?;
    Ok(())
}

/// A descriptor to keep in reserve.
pub(crate) fn spare() -> io::Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from)
}

/// A second descriptor of the same socket, close-on-exec.
pub(crate) fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is asked on systems without SO_ACCEPTCONN. Planted: the kind is not looked at; the
    /// peer is not.
    #[test]
    fn a_listener_is_told_from_other_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (pair, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for ask in [is_listener, may_listen] {
            assert!(ask(listener.as_fd()).unwrap());
            for other in [client.as_fd(), pair.as_fd(), datagrams.as_fd()] {
                assert!(!ask(other).unwrap());
            }
            ask(spare().unwrap().as_fd()).unwrap_err();
        }
    }
}
