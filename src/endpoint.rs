//! Where to listen or to connect, as text: `tcp://host:port`, `unix:///path` and their kin.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Which IP versions a TCP or UDP endpoint is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IpVersion {
    /// As the host says; an IPv6 wildcard (`[::]`) takes IPv4 too.
    Any,
    /// IPv4 only (`tcp4://`).
    V4,
    /// IPv6 only (`tcp6://`).
    V6,
}

/// A parsed address string.
///
/// | text | meaning |
/// |---|---|
/// | `tcp://127.0.0.1:80`, `127.0.0.1:80`, `localhost:80` | TCP |
/// | `tcp://:80`, `tcp://[::]:80` | TCP on every interface, IPv6 and IPv4 |
/// | `tcp4://:80`, `tcp6://:80` | TCP on every interface, that version alone |
/// | `unix:///run/app.sock`, `unix://app.sock` | Unix stream socket at a path |
/// | `unix://@name` | Unix stream socket with an abstract name (Linux) |
/// | `udp://127.0.0.1:53`, `udp4://:53`, `udp6://:53` | UDP, as for TCP |
/// | `unixgram:///run/log.sock`, `unixgram://@name` | Unix datagram socket |
///
/// Port 0 lets the system choose.
///
/// ```
/// use reev::{Endpoint, IpVersion};
///
/// let endpoint: Endpoint = "tcp6://:80".parse()?;
/// let host = String::new();
/// assert_eq!(endpoint, Endpoint::Tcp { host, port: 80, version: IpVersion::V6 });
/// assert_eq!(endpoint.to_string(), "tcp6://:80");
///
/// let error = Endpoint::parse("127.0.0.1").unwrap_err();
/// assert!(error.to_string().contains("no port"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP host and port; an empty host is the wildcard.
    Tcp {
        /// Name or address; empty for every interface.
        host: String,
        /// 0 to 65535; 0 lets the system choose.
        port: u16,
        /// Which IP versions.
        version: IpVersion,
    },
    /// A Unix stream socket in the file system.
    Unix(PathBuf),
    /// A Unix stream socket with an abstract name, without the leading NUL (Linux only).
    UnixAbstract(Vec<u8>),
    /// A UDP host and port, as of TCP.
    Udp {
        /// Name or address; empty for every interface.
        host: String,
        /// 0 to 65535; 0 lets the system choose.
        port: u16,
        /// Which IP versions.
        version: IpVersion,
    },
    /// A Unix datagram socket in the file system.
    UnixDatagram(PathBuf),
    /// A Unix datagram socket with an abstract name, without the leading NUL (Linux only).
    UnixDatagramAbstract(Vec<u8>),
}

impl Endpoint {
    /// Parses an address string.
    ///
    /// # Errors
    /// `InvalidInput`, with the text and what is wrong with it.
    pub fn parse(text: &str) -> io::Result<Endpoint> {
        let fail = |why: &str| {
            let message = format!("address {text:?}: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        let one_word = |rest: &str| !rest.contains(':') && !rest.contains('/');
        let (scheme, rest) = match (text.split_once("://"), text.split_once(':')) {
            (Some(split), _) => split,
            // A host may be called tcp; then there is one colon.
            (None, Some(("tcp" | "udp" | "unix", rest))) if !one_word(rest) => {
                return fail(
                    "a scheme is written with ://, as in tcp://host:port and unix:///path",
                );
            }
            (None, _) if text.contains('/') => {
                return fail("it is neither host:port nor unix:///path");
            }
            (None, _) => ("tcp", text),
        };
        let version = match scheme {
            "tcp" | "udp" => IpVersion::Any,
            "tcp4" | "udp4" => IpVersion::V4,
            "tcp6" | "udp6" => IpVersion::V6,
            "unix" | "unixgram" => {
                let stream = scheme == "unix";
                return match rest.strip_prefix('@').map(|name| name.as_bytes().to_vec()) {
                    _ if rest.contains('\0') => fail("a NUL in the name"),
                    Some(name) if name.is_empty() => fail("an empty abstract name"),
                    Some(name) if stream => Ok(Endpoint::UnixAbstract(name)),
                    Some(name) => Ok(Endpoint::UnixDatagramAbstract(name)),
                    None if rest.is_empty() => fail("an empty path"),
                    None if stream => Ok(Endpoint::Unix(PathBuf::from(rest))),
                    None => Ok(Endpoint::UnixDatagram(PathBuf::from(rest))),
                };
            }
            _ => return fail("the scheme is none of tcp, udp (4, 6), unix, unixgram"),
        };
        let Some((host, port)) = rest.rsplit_once(':') else {
            return fail("no port; write host:port, or :port for every interface");
        };
        let Ok(port) = port.parse::<u16>() else {
            return fail("the port is not a number from 0 to 65535");
        };
        let host = match host.strip_prefix('[') {
            Some(inner) => match inner.strip_suffix(']') {
                Some(inner) => inner,
                None => return fail("a [ without its ]"),
            },
            None if host.contains(':') => return fail("an IPv6 address needs brackets: [::1]:80"),
            None => host,
        };
        let host = host.to_owned();
        Ok(match scheme.starts_with("udp") {
            true => Endpoint::Udp { host, port, version },
            false => Endpoint::Tcp { host, port, version },
        })
    }

    /// Whether it is one of UDP or of a Unix datagram socket.
    pub fn is_datagram(&self) -> bool {
        match self {
            Endpoint::Udp { .. }
            | Endpoint::UnixDatagram(_)
            | Endpoint::UnixDatagramAbstract(_) => true,
            Endpoint::Tcp { .. } | Endpoint::Unix(_) | Endpoint::UnixAbstract(_) => false,
        }
    }

    /// Itself, if it is for datagrams or for streams, as `datagrams` says.
    pub(crate) fn only(self, datagrams: bool) -> io::Result<Endpoint> {
        if self.is_datagram() == datagrams {
            return Ok(self);
        }
        let (is, wanted) =
            if datagrams { ("streams", "datagrams") } else { ("datagrams", "streams") };
        let message = format!("{self} is an address for {is}; one for {wanted} is needed here");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }

    fn ip(&self) -> Option<(&str, u16, IpVersion)> {
        match self {
            Endpoint::Tcp { host, port, version } | Endpoint::Udp { host, port, version } => {
                Some((host, *port, *version))
            }
            _ => None,
        }
    }

    /// The address, if the host is one and not a name, so that nothing has to be resolved.
    pub(crate) fn numeric(&self) -> Option<SocketAddr> {
        let (host, port, version) = self.ip()?;
        // A scope, as in fe80::1%2, belongs to an address with a port.
        let scoped = || format!("[{host}]:{port}").parse().ok().map(SocketAddr::V6);
        let addr = host.parse().ok().map(|ip| SocketAddr::new(ip, port)).or_else(scoped)?;
        match version {
            IpVersion::Any => Some(addr),
            IpVersion::V4 => Some(addr).filter(SocketAddr::is_ipv4),
            IpVersion::V6 => Some(addr).filter(SocketAddr::is_ipv6),
        }
    }

    /// The name of a Unix socket as the kernel has it: an abstract one starts with NUL.
    pub(crate) fn unix_name(&self) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        match self {
            Endpoint::Tcp { .. } | Endpoint::Udp { .. } => None,
            Endpoint::Unix(path) | Endpoint::UnixDatagram(path) => {
                Some(path.as_os_str().as_bytes().to_vec())
            }
            Endpoint::UnixAbstract(name) | Endpoint::UnixDatagramAbstract(name) => {
                Some([b"\0", name.as_slice()].concat())
            }
        }
    }

    /// The IP addresses the host stands for, those of the wrong version left out. Asks the
    /// system's resolver, and so may block, where the host is a name.
    ///
    /// # Errors
    /// What the resolver says; `NotFound` if nothing of the right version is left, which is so
    /// for a Unix endpoint.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = match self.ip() {
            Some(("", port, IpVersion::V4)) => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
            Some(("", port, _)) => vec![(Ipv6Addr::UNSPECIFIED, port).into()],
            Some((host, port, version)) => (host, port)
                .to_socket_addrs()
                .map_err(|e| io::Error::new(e.kind(), format!("cannot resolve {self}: {e}")))?
                .filter(|addr| match version {
                    IpVersion::Any => true,
                    IpVersion::V4 => addr.is_ipv4(),
                    IpVersion::V6 => addr.is_ipv6(),
                })
                .collect(),
            None => {
                let message = format!("{self} is a Unix socket, and has no IP address");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        };
        if found.is_empty() {
            let message = format!("{self} has no IP address of the version asked for");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(found)
    }
}

impl std::str::FromStr for Endpoint {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Endpoint> {
        Endpoint::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port, version } | Endpoint::Udp { host, port, version } => {
                let protocol = if self.is_datagram() { "udp" } else { "tcp" };
                let version = match version {
                    IpVersion::Any => "",
                    IpVersion::V4 => "4",
                    IpVersion::V6 => "6",
                };
                if host.contains(':') {
                    write!(f, "{protocol}{version}://[{host}]:{port}")
                } else {
                    write!(f, "{protocol}{version}://{host}:{port}")
                }
            }
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::UnixAbstract(name) => write!(f, "unix://@{}", name.escape_ascii()),
            Endpoint::UnixDatagram(path) => write!(f, "unixgram://{}", path.display()),
            Endpoint::UnixDatagramAbstract(name) => {
                write!(f, "unixgram://@{}", name.escape_ascii())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses_and_prints_back() {
        for text in [
            "tcp://127.0.0.1:80",
            "tcp://[::1]:80",
            "tcp://[fe80::1%1]:80",
            "tcp4://:0",
            "tcp6://:65535",
            "tcp://localhost:1",
            "unix:///run/x.sock",
            "unix://@name",
            "udp://127.0.0.1:53",
            "udp4://:0",
            "udp6://[::1]:53",
            "unixgram:///run/x.sock",
            "unixgram://@name",
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse(":80").unwrap().to_string(), "tcp://:80");
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_the_message() {
        for text in [
            "",
            "80",
            "tcp://",
            "tcp://host",
            "tcp://host:",
            "tcp://host:65536",
            "tcp://host:-1",
            "ftp://host:1",
            "::1:80",
            "[::1:80",
            "unix://",
            "unix://@",
            "unixgram://@",
            "udp://1",
            "unix://a\0b",
            "tcp://h:+1x",
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    /// Planted: the hints are left out, and a path is told to lack a port.
    #[test]
    fn a_scheme_that_is_nearly_right_is_told_apart() {
        let why = |text: &str| Endpoint::parse(text).unwrap_err().to_string();
        for text in ["tcp:127.0.0.1:80", "udp::53", "unix:/run/x.sock", "unix:x/y"] {
            assert!(why(text).contains("with ://"), "{text}");
        }
        for text in ["/run/x.sock", "./x", "host:80/path"] {
            assert!(why(text).contains("unix:///path"), "{text}");
        }
        assert_eq!(Endpoint::parse("tcp:80").unwrap().to_string(), "tcp://tcp:80");
        let unix = Endpoint::parse("unix://x").unwrap().resolve().unwrap_err();
        assert!(unix.to_string().contains("is a Unix socket"), "{unix}");
    }

    #[test]
    fn versions_filter_what_a_host_stands_for() {
        let of = |text: &str| Endpoint::parse(text).unwrap().resolve();
        assert!(of("tcp://:80").unwrap()[0].is_ipv6());
        assert!(of("tcp4://:80").unwrap()[0].is_ipv4());
        assert_eq!(of("tcp6://127.0.0.1:80").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(of("unix://x").is_err());
    }

    #[test]
    fn a_scope_is_part_of_a_number() {
        let numeric = |text: &str| Endpoint::parse(text).unwrap().numeric();
        let scoped = numeric("udp://[fe80::1%2]:53").unwrap();
        assert!(
            matches!(scoped, SocketAddr::V6(addr) if addr.scope_id() == 2 && addr.port() == 53)
        );
        assert!(numeric("tcp4://[fe80::1%2]:53").is_none());
        assert!(numeric("tcp://localhost:53").is_none());
    }
}
