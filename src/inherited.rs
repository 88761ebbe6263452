//! Sockets that whoever started the process has opened for it (socket activation).

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use crate::config::INHERITED_MAX;
use crate::sys::inherited;

/// A socket handed over at the start; see [`inherited_sockets`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Inherited {
    /// Its name: of a systemd socket unit, `FileDescriptorName=` or the unit's own name; empty
    /// where none was given.
    pub name: String,
    /// The socket, for [`Server::adopt_listener`](crate::Server::adopt_listener) or
    /// [`Reactor::adopt_datagrams`](crate::Reactor::adopt_datagrams).
    pub socket: OwnedFd,
}

/// The sockets that the process was started with, by the protocol of systemd (sd_listen_fds(3)):
/// descriptors from 3 on, their number in `LISTEN_FDS`, the process they are for in `LISTEN_PID`,
/// their names in `LISTEN_FDNAMES`. Closed on exec from here on.
///
/// The list is empty if there are none, if they are for another process, or at a second call:
/// each has one owner.
///
/// # Errors
/// `InvalidInput` if these variables make no sense, or name descriptors that are not open.
///
/// ```no_run
/// # use reev::{Ctx, EvHandler};
/// # struct Echo;
/// # impl EvHandler for Echo {}
/// use reev::{Config, ListenOptions, Server};
///
/// let mut server = Server::new(Config::default())?;
/// let mut listeners = Vec::new();
/// for inherited in reev::inherited_sockets()? {
///     listeners.push(server.adopt_listener(inherited.socket, &ListenOptions::default())?);
/// }
/// if listeners.is_empty() {
///     listeners.push(server.listen("127.0.0.1:7000")?); // started by hand
/// }
/// reev::stop_on_signals(&server.handle())?;
/// server.run(move |reactor| {
///     listeners.iter().try_for_each(|&listener| reactor.accept(listener, |_peer| Echo))
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn inherited_sockets() -> io::Result<Vec<Inherited>> {
    let variable = |name: &str| env::var(name).ok();
    let pid = variable("LISTEN_PID");
    if pid.is_none_or(|pid| pid != std::process::id().to_string()) {
        return Ok(Vec::new());
    }
    let count = count(&variable("LISTEN_FDS").unwrap_or_default())?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let sockets = inherited::take(count)?;
    Ok(sockets.into_iter().zip(names).map(|(socket, name)| Inherited { name, socket }).collect())
}

fn count(text: &str) -> io::Result<usize> {
    let count = text.parse().ok().filter(|&count: &usize| count <= INHERITED_MAX);
    count.ok_or_else(|| {
        let message = format!("LISTEN_FDS is {text:?}; a number up to {INHERITED_MAX} is expected");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(count("2").unwrap(), 2);
        for text in ["", "-1", "two", "1025", "99999999999999999999"] {
            assert!(count(text).unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_for_another_process_is_left_alone() {
        assert!(env::var("LISTEN_PID").is_err(), "the tests were started by a socket unit");
        assert!(inherited_sockets().unwrap().is_empty());
    }
}
