//! Addresses of either end of a connection, in 24 bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

/// The address of one end of a connection: IP and port, or a Unix socket's name.
///
/// An IPv4 peer of a dual-stack listener is shown as IPv4 (`192.0.2.1:80`, not
/// `[::ffff:192.0.2.1]:80`); the scope id of a link-local IPv6 address is kept
/// (`[fe80::1%2]:80`). Unix peers are mostly unnamed and print as `unix:(unnamed)`.
///
/// ```
/// use reev::Addr;
/// use std::net::SocketAddr;
///
/// let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse()?;
/// let addr = Addr::from(mapped);
/// assert_eq!(addr.to_string(), "192.0.2.1:80");
/// assert_eq!(addr.port(), Some(80));
/// assert_eq!(Addr::unix(None).to_string(), "unix:(unnamed)");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Addr(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    V4 { ip: [u8; 4], port: u16 },
    V6 { ip: [u8; 16], port: u16, scope: u32 },
    Unix(Option<Box<[u8]>>),
    None,
}

const _: () = assert!(size_of::<Addr>() <= 24 && size_of::<Option<Addr>>() <= 24);

impl Addr {
    /// What a handler without a socket has: no address at all.
    pub const NONE: Addr = Addr(Repr::None);

    /// A Unix socket's address; `None` for an unnamed one. An abstract name starts with NUL.
    pub fn unix(name: Option<&[u8]>) -> Addr {
        Addr(Repr::Unix(name.filter(|n| !n.is_empty()).map(Box::from)))
    }

    /// The IP address and port; `None` for a Unix socket.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.0 {
            Repr::V4 { ip, port } => Some(SocketAddr::from((Ipv4Addr::from(ip), port))),
            Repr::V6 { ip, port, scope } => {
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            Repr::Unix(_) | Repr::None => None,
        }
    }

    /// The IP address; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// The port; `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|addr| addr.port())
    }

    /// The path of a Unix socket that has one in the file system.
    pub fn unix_path(&self) -> Option<&Path> {
        use std::os::unix::ffi::OsStrExt;
        match &self.0 {
            Repr::Unix(Some(name)) if name[0] != 0 => {
                Some(Path::new(std::ffi::OsStr::from_bytes(name)))
            }
            _ => None,
        }
    }

    /// The name of a Unix socket that has one, as the system has it: an abstract one starts with
    /// NUL.
    pub fn unix_name(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Unix(name) => name.as_deref(),
            _ => None,
        }
    }

    /// Whether this is a Unix socket's address, named or not.
    pub fn is_unix(&self) -> bool {
        matches!(self.0, Repr::Unix(_))
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Addr {
        let port = addr.port();
        let v4 = |ip: Ipv4Addr| Addr(Repr::V4 { ip: ip.octets(), port });
        match addr {
            SocketAddr::V4(addr) => v4(*addr.ip()),
            SocketAddr::V6(addr) => match addr.ip().to_ipv4_mapped() {
                Some(ip) => v4(ip),
                None => Addr(Repr::V6 { ip: addr.ip().octets(), port, scope: addr.scope_id() }),
            },
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Unix(None) => f.write_str("unix:(unnamed)"),
            Repr::Unix(Some(name)) if name[0] == 0 => {
                write!(f, "unix:@{}", name[1..].escape_ascii())
            }
            Repr::Unix(Some(name)) => write!(f, "unix:{}", String::from_utf8_lossy(name)),
            Repr::None => f.write_str("(no socket)"),
            Repr::V4 { .. } | Repr::V6 { .. } => match self.socket_addr() {
                Some(addr) => addr.fmt(f),
                None => Ok(()),
            },
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Addr::from(text.parse::<SocketAddr>().unwrap()).to_string()
    }

    #[test]
    fn hard_case_38_address_strings() {
        assert_eq!(shown("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(shown("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(shown("[::1]:9"), "[::1]:9");
        assert_eq!(shown("[fe80::1%2]:80"), "[fe80::1%2]:80");
        assert_eq!(Addr::unix(None).to_string(), "unix:(unnamed)");
        assert_eq!(Addr::unix(Some(b"")).to_string(), "unix:(unnamed)");
        assert_eq!(Addr::unix(Some(b"\0name")).to_string(), "unix:@name");
        assert_eq!(Addr::unix(Some(b"/run/x")).to_string(), "unix:/run/x");
        assert_eq!(Addr::unix(Some(b"\0x")).unix_path(), None);
        assert_eq!(Addr::unix(Some(b"/run/x")).unix_path(), Some(Path::new("/run/x")));
    }
}
