//! The server's address, from an address string or a URL.

use std::io;
use std::net::SocketAddr;

use reev::{Endpoint, Target};

/// Where to connect to. A name has been resolved once, and not for each connection.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Ip(Vec<SocketAddr>),
    Unix(Endpoint),
}

impl Place {
    pub(crate) fn resolve(address: &str) -> io::Result<Place> {
        let endpoint = Endpoint::parse(address)?;
        match endpoint {
            Endpoint::Unix(_) | Endpoint::UnixAbstract(_) => Ok(Place::Unix(endpoint)),
            _ if endpoint.is_datagram() => {
                Err(invalid(format!("{address}: the load is for streams, not for datagrams")))
            }
            _ => Ok(Place::Ip(endpoint.resolve()?)),
        }
    }

    pub(crate) fn target(&self) -> Target {
        match self {
            Place::Ip(addrs) => addrs.clone().into(),
            Place::Unix(endpoint) => endpoint.clone().into(),
        }
    }
}

/// What a URL, or an address and a path, say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub(crate) address: String,
    /// For the `Host` field.
    pub(crate) host: String,
    /// Path and query, from `/` on.
    pub(crate) path: String,
}

impl Url {
    /// Parses `text`: a URL of `scheme`, or an address to which `path` belongs.
    pub(crate) fn parse(text: &str, scheme: &str, path: Option<&str>) -> io::Result<Url> {
        let (given, rest) = text.split_once("://").unwrap_or(("", text));
        if given == format!("{scheme}s") {
            return Err(invalid(format!("{text}: there is no TLS here; use {scheme}://")));
        }
        if given != scheme {
            let path = path.unwrap_or("/").to_owned();
            // A Unix socket has no name that a Host field could tell.
            let host = if given == "unix" { "localhost" } else { rest }.to_owned();
            return Url { address: text.to_owned(), host, path }.checked(text);
        }
        if path.is_some() {
            return Err(invalid(format!("{text}: a URL has its path; leave out --path")));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // A colon inside brackets is part of an IPv6 address.
        let has_port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        Url { address, host: host.to_owned(), path }.checked(text)
    }

    fn checked(self, text: &str) -> io::Result<Url> {
        let visible = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
        if self.host.is_empty() || self.host.contains('@') {
            return Err(invalid(format!("{text}: host:port is needed, without a user")));
        }
        if !self.path.starts_with('/') || !visible(&self.path) || !visible(&self.host) {
            let why = "a path begins with / and is of visible ASCII; encode the rest with %";
            return Err(invalid(format!("{text}: {why}")));
        }
        Ok(self)
    }
}

pub(crate) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses() {
        let parse = |text, path| {
            let url = Url::parse(text, "http", path).unwrap();
            (url.address, url.host, url.path)
        };
        let url = |address: &str, host: &str, path: &str| {
            (address.to_owned(), host.to_owned(), path.to_owned())
        };
        assert_eq!(parse("http://h:81/a?b=c#d", None), url("h:81", "h:81", "/a?b=c"));
        assert_eq!(parse("http://h", None), url("h:80", "h", "/"));
        assert_eq!(parse("http://h?q", None), url("h:80", "h", "/?q"));
        assert_eq!(parse("http://[::1]/", None), url("[::1]:80", "[::1]", "/"));
        assert_eq!(parse("http://[::1]:81/", None), url("[::1]:81", "[::1]:81", "/"));
        assert_eq!(parse("h:81", Some("/x")), url("h:81", "h:81", "/x"));
        assert_eq!(parse("unix:///run/s", None), url("unix:///run/s", "localhost", "/"));
    }

    #[test]
    fn what_is_no_url_is_told() {
        for (text, path, says) in [
            ("https://h/", None, "TLS"),
            ("http:///x", None, "host:port"),
            ("http://u@h/", None, "without a user"),
            ("http://h/", Some("/x"), "leave out"),
            ("http://h/a b", None, "encode"),
            ("h:80", Some("x"), "begins with /"),
        ] {
            let error = Url::parse(text, "http", path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(text), "{error}");
        }
        assert!(Place::resolve("udp://127.0.0.1:1").is_err());
    }
}
