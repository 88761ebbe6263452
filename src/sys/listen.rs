//! Making listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::net;
use crate::addr::Addr;
use crate::config::ListenOptions;
use crate::endpoint::{Endpoint, IpVersion};

/// A bound and listening socket.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) fd: OwnedFd,
    pub(crate) addr: Addr,
    /// Removes a Unix socket's path when the server ends.
    pub(crate) path: Option<UnixPath>,
}

/// Binds and listens. What fails names the address and what to do about it.
pub(crate) fn bind(endpoint: &Endpoint, options: &ListenOptions) -> io::Result<Bound> {
    let bound = match endpoint {
        Endpoint::Tcp { host, version, .. } => {
            bind_first(&endpoint.resolve()?, host, *version, |addr| {
                bind_tcp(addr, *version, options, options.share_port)
            })
        }
        Endpoint::Unix(path) => bind_path(path, options),
        Endpoint::UnixAbstract(name) => bind_abstract(name, options),
        other => return other.clone().only(false).and(Err(io::ErrorKind::InvalidInput.into())),
    };
    bound.map_err(|error| explain(&format!("cannot listen on {endpoint}"), &error))
}

/// Another socket for the same address, in its SO_REUSEPORT group.
pub(crate) fn bind_another(
    addr: &Addr,
    endpoint: &Endpoint,
    options: &ListenOptions,
) -> io::Result<OwnedFd> {
    let Some(addr) = addr.socket_addr() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let version = match endpoint {
        Endpoint::Tcp { version, .. } => *version,
        _ => IpVersion::Any,
    };
    let socket = bind_tcp(addr, version, options, true)
        .map_err(|error| explain(&format!("cannot listen on {addr} once more"), &error))?;
    Ok(socket.into())
}

/// Prepares a listening socket made elsewhere.
pub(crate) fn adopt(fd: OwnedFd, options: &ListenOptions) -> io::Result<Bound> {
    let addr = {
        let socket = SockRef::from(&fd);
        if !net::is_listener(fd.as_fd()).unwrap_or(false) {
            let message = "cannot adopt a descriptor that is not a listening socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let addr = net::local_addr(fd.as_fd())?;
        set_options(&socket, options, !addr.is_unix())?;
        if !addr.is_unix() {
            set_fast_open(&socket, options)?;
        }
        addr
    };
    Ok(Bound { fd, addr, path: None })
}

fn explain(what: &str, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": the address is in use; stop the other server or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            ": no permission; ports below 1024 and foreign folders need privileges"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::NotFound => ": no such folder or name",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what}{hint} ({error})"))
}

/// Binds the first of a host's addresses that `bind` can.
pub(super) fn bind_first(
    addrs: &[SocketAddr],
    host: &str,
    version: IpVersion,
    bind: impl Fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Bound> {
    let wildcard = host.is_empty() && version == IpVersion::Any;
    let mut first_error = None;
    // Where one socket cannot take both, the wildcard is that of IPv4.
    for &addr in addrs.iter().filter(|_| !wildcard || net::TAKES_BOTH_VERSIONS) {
        match bind(addr) {
            Ok(socket) => return Bound::without_path(socket),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    // A machine without IPv6 still has every IPv4 interface.
    let no_ipv6 = first_error.as_ref().is_none_or(|error| {
        matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
    });
    if let (true, true, Some(addr)) = (wildcard, no_ipv6, addrs.first()) {
        return Bound::without_path(bind(SocketAddr::from(([0, 0, 0, 0], addr.port())))?);
    }
    Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

impl Bound {
    /// A bound socket that leaves nothing behind in a folder.
    pub(super) fn without_path(socket: impl Into<OwnedFd>) -> io::Result<Bound> {
        let fd = socket.into();
        let addr = net::local_addr(fd.as_fd())?;
        Ok(Bound { fd, addr, path: None })
    }
}

/// The first socket of a group is not to find others on its port: with `shared` false it joins
/// in SO_REUSEPORT only when it is bound.
fn bind_tcp(
    addr: SocketAddr,
    version: IpVersion,
    options: &ListenOptions,
    shared: bool,
) -> io::Result<Socket> {
    let socket = net::socket(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Elsewhere than on Linux sockets are spread over by what they were when they were bound.
    let joins_late = cfg!(any(target_os = "linux", target_os = "android"));
    if options.reuse_port && (shared || (net::PORTS_ARE_SPREAD && !joins_late)) {
        net::share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(net::is_only_v6(addr, version))?;
    }
    set_options(&SockRef::from(&socket), options, true)?;
    socket.bind(&addr.into())?;
    if options.reuse_port && !shared && joins_late {
        net::share_port(&socket)?;
    }
    socket.listen(options.backlog)?;
    set_fast_open(&SockRef::from(&socket), options)?;
    Ok(socket)
}

/// Options of the listener, which the connections it accepts inherit (socket(7), tcp(7)).
fn set_options(socket: &SockRef<'_>, options: &ListenOptions, tcp: bool) -> io::Result<()> {
    if let Some(bytes) = options.recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if tcp {
        socket.set_tcp_nodelay(options.nodelay)?;
        if let Some(idle) = options.keepalive {
            let whole_seconds = Duration::from_secs(idle.as_secs());
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(whole_seconds))?;
        }
        if let Some(linger) = options.linger {
            socket.set_linger(Some(linger))?;
        }
    }
    Ok(())
}

/// Of a socket that listens already, as macOS demands.
fn set_fast_open(socket: &SockRef<'_>, options: &ListenOptions) -> io::Result<()> {
    match options.fast_open {
        Some(waiting) => net::set_fast_open(&**socket, waiting),
        None => Ok(()),
    }
}

fn bind_path(path: &Path, options: &ListenOptions) -> io::Result<Bound> {
    let addr = SockAddr::unix(path)?;
    let bound = match bind_unix(&addr, options) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, Type::STREAM)?;
            bind_unix(&addr, options)?
        }
        other => other?,
    };
    if let Some(mode) = options.unix_mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let path = UnixPath::new(path)?;
    Ok(Bound { path: Some(path), ..bound })
}

fn bind_abstract(name: &[u8], options: &ListenOptions) -> io::Result<Bound> {
    use std::os::unix::ffi::OsStrExt;
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return Err(net::unsupported("abstract Unix sockets"));
    }
    let name = [b"\0", name].concat();
    let addr = SockAddr::unix(std::ffi::OsStr::from_bytes(&name))?;
    bind_unix(&addr, options)
}

fn bind_unix(addr: &SockAddr, options: &ListenOptions) -> io::Result<Bound> {
    let socket = net::socket(Domain::UNIX, Type::STREAM, None)?;
    set_options(&SockRef::from(&socket), options, false)?;
    socket.bind(addr)?;
    socket.listen(options.backlog)?;
    Bound::without_path(socket)
}

/// Unlinks the path of a server that is gone: only a socket, and only if nobody listens.
pub(super) fn remove_stale(path: &Path, kind: Type) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        let message = format!("{} exists and is not a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // By a socket of another kind: who is there is of the wrong kind, and is left in peace. One
    // of its own would be refused by a full backlog too, elsewhere than on Linux.
    let other = if kind == Type::STREAM { Type::DGRAM } else { Type::STREAM };
    let probe = net::socket(Domain::UNIX, other, None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// A Unix socket's path that we made: removed at the end, if it is still the same file.
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixPath {
    pub(super) fn new(path: &Path) -> io::Result<UnixPath> {
        let path = std::path::absolute(path)?;
        let made = std::fs::symlink_metadata(&path)?;
        Ok(UnixPath { path, device: made.dev(), inode: made.ino() })
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    /// Planted: the path is asked by a socket of its own kind, which elsewhere than on Linux a
    /// full backlog refuses: it would be taken for stale.
    #[test]
    fn hard_case_27_who_lives_at_a_path_is_not_connected_to() {
        let path = std::env::temp_dir().join(format!("reev-lives-{}", std::process::id()));
        let in_use = |kind| {
            let told = remove_stale(&path, kind).unwrap_err();
            assert_eq!(told.kind(), io::ErrorKind::AddrInUse, "{told}");
        };
        let listener = UnixListener::bind(&path).unwrap();
        in_use(Type::STREAM);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        remove_stale(&path, Type::STREAM).unwrap();
        let datagrams = UnixDatagram::bind(&path).unwrap();
        in_use(Type::DGRAM);
        drop(datagrams);
        remove_stale(&path, Type::DGRAM).unwrap();
        assert!(!path.exists());
    }
}
