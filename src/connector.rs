//! Connecting out: every address of a name, staggered, to one outcome.
//!
//! The connection has its slot and handler from the start. Each attempt has a slot of its own
//! for its socket; the first that succeeds gives its socket to the connection, the others are
//! closed (RFC 8305, "Happy Eyeballs").

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Addr;
use crate::close::Close;
use crate::conn::{Conn, Flags, Kind, NO_LISTENER};
use crate::dispatch::Dispatcher;
use crate::endpoint::Endpoint;
use crate::handler::{ConnId, EvHandler};
use crate::mail::Mail;
use crate::resolver;
use crate::sys::{Event, Interest, Progress};
use crate::timer::Purpose;

/// Where to connect to: an address string (see [`Endpoint`]), an [`Endpoint`], one
/// [`SocketAddr`] or several, which are tried as those of a name are.
///
/// ```
/// use std::net::SocketAddr;
/// use reev::{Endpoint, Target};
///
/// let by_name = Target::from("tcp://db.example.org:5432");
/// let by_path = Target::from(Endpoint::parse("unix:///run/db.sock")?);
/// let addrs: Vec<SocketAddr> = vec![([192, 0, 2, 1], 5432).into(), ([192, 0, 2, 2], 5432).into()];
/// let either = Target::from(addrs);
/// # let _ = (by_name, by_path, either);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Target(io::Result<Place>);

#[derive(Clone, Debug)]
enum Place {
    Endpoint(Endpoint),
    Addrs(Vec<SocketAddr>),
}

impl Target {
    /// A target that leads to `error`.
    pub(crate) fn failed(error: io::Error) -> Target {
        Target(Err(error))
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Target {
        Target(Endpoint::parse(text).and_then(|endpoint| endpoint.only(false)).map(Place::Endpoint))
    }
}

impl From<&String> for Target {
    fn from(text: &String) -> Target {
        Target::from(text.as_str())
    }
}

impl From<Endpoint> for Target {
    fn from(endpoint: Endpoint) -> Target {
        Target(endpoint.only(false).map(Place::Endpoint))
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target(Ok(Place::Addrs(vec![addr])))
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Target {
        match addrs.is_empty() {
            true => Target(Err(io::Error::new(io::ErrorKind::InvalidInput, "no address is given"))),
            false => Target(Ok(Place::Addrs(addrs))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Endpoint(endpoint) => endpoint.fmt(f),
            Place::Addrs(addrs) => match &addrs[..] {
                [addr] => addr.fmt(f),
                addrs => write!(f, "any of {addrs:?}"),
            },
        }
    }
}

/// Trying again after a failure: waits `first`, then twice as long each time up to `max`, each
/// wait shortened at random by up to half, so that clients of a server that comes back do not
/// come back all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; `u32::MAX` for ever. Default 5.
    pub tries: u32,
    /// The first wait. Default 100 ms.
    pub first: Duration,
    /// The longest wait. Default 10 s.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { tries: 5, first: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Retry {
    /// The wait before try number `again`, from 1; `chance` is from 0 to 1.
    fn wait(&self, again: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << (again - 1).min(20)).min(self.max);
        doubled.mul_f64(1.0 - chance / 2.0)
    }
}

/// The options of one connection made by [`Ctx::connect`](crate::Ctx::connect).
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use reev::{ConnectOptions, Ctx, EvHandler, Retry};
///
/// /// Asks another server, and tells the client if it cannot be reached.
/// struct Front;
/// struct Back;
///
/// impl EvHandler for Front {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
///         let options = ConnectOptions {
///             timeout: Duration::from_secs(2),
///             retry: Some(Retry { tries: 2, ..Retry::default() }),
///             ..ConnectOptions::default()
///         };
///         let back = cx.connect("127.0.0.1:7001", &options, Back);
///         if let Some(mut back) = cx.conn(back) {
///             back.write(b"hello\n"); // waits until it is connected
///         }
///         Ok(())
///     }
/// }
///
/// impl EvHandler for Back {
///     fn on_connect_fail(&mut self, _cx: &mut Ctx<'_>, error: io::Error) {
///         log::warn!("no answer from behind: {error}");
///     }
/// }
/// # let mut sim = reev::sim::Simulation::new(1);
/// # let listener = sim.listen(|_peer| Front);
/// # sim.connect(listener);
/// # sim.settle();
/// # let back = sim.outgoing().expect("an attempt").accept();
/// # sim.settle();
/// # assert_eq!(back.receive(), b"hello\n");
/// ```
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// For all of a try: resolving and every address. Default 10 s.
    pub timeout: Duration,
    /// How long the next address waits for the one before. Default 250 ms, as RFC 8305 says.
    pub stagger: Duration,
    /// Try again after a failure. Default no.
    pub retry: Option<Retry>,
    /// The local address; port 0 lets the system choose. Addresses of the other IP version are
    /// left out. Default: the system's choice.
    pub bind: Option<SocketAddr>,
    /// Send small segments at once (TCP_NODELAY). Default true.
    pub nodelay: bool,
    /// Probe an idle connection after this long (SO_KEEPALIVE), in whole seconds.
    pub keepalive: Option<Duration>,
    /// SO_RCVBUF in bytes. Default: the system's own.
    pub recv_buffer: Option<usize>,
    /// SO_SNDBUF in bytes. Default: the system's own.
    pub send_buffer: Option<usize>,
    /// SO_LINGER: zero makes every close a reset; more is `InvalidInput`, for close(2) would
    /// block the reactor. Default none.
    pub linger: Option<Duration>,
    /// Send the first bytes with the SYN where the server's cookie is known (RFC 7413,
    /// TCP_FASTOPEN_CONNECT; Linux): what `on_open` writes, or what was written before. `on_open`
    /// then comes before the server has answered, so that a server that is not there ends the
    /// connection with [`Close::Io`] instead of `on_connect_fail`. Default false.
    pub fast_open: bool,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            timeout: Duration::from_secs(10),
            stagger: Duration::from_millis(250),
            retry: None,
            bind: None,
            nodelay: true,
            keepalive: None,
            recv_buffer: None,
            send_buffer: None,
            linger: None,
            fast_open: false,
        }
    }
}

/// A request to connect, as a callback leaves it.
pub(crate) struct Request {
    pub(crate) id: ConnId,
    pub(crate) target: Target,
    pub(crate) options: ConnectOptions,
}

/// One address of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Ip(SocketAddr),
    Unix(Endpoint),
}

impl Destination {
    pub(crate) fn addr(&self) -> Addr {
        match self {
            Destination::Ip(addr) => Addr::from(*addr),
            Destination::Unix(endpoint) => Addr::unix(endpoint.unix_name().as_deref()),
        }
    }
}

struct Connecting {
    place: Place,
    options: ConnectOptions,
    untried: VecDeque<Destination>,
    attempts: Vec<ConnId>,
    error: Option<io::Error>,
    tries: u32,
    /// A name is being resolved.
    resolving: bool,
}

/// The connections of a reactor that are under way.
#[derive(Default)]
pub(crate) struct Connector {
    connecting: HashMap<ConnId, Connecting>,
    /// The connection that an attempt is for.
    owners: HashMap<ConnId, ConnId>,
}

/// Addresses in the order to try them: the versions in turn, the first one's first (RFC 8305
/// section 4).
fn interleave(addrs: Vec<SocketAddr>) -> VecDeque<Destination> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addrs.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let mut ordered = VecDeque::new();
    while !first.is_empty() || !second.is_empty() {
        ordered.extend(first.pop_front().map(Destination::Ip));
        ordered.extend(second.pop_front().map(Destination::Ip));
    }
    ordered
}

/// What the system said of one address, with the address.
fn unreachable(addr: &Addr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot connect to {addr}: {error}"))
}

impl Connecting {
    fn timed_out(&self) -> io::Error {
        let message = format!("cannot connect to {} within {:?}", self.place, self.options.timeout);
        io::Error::new(io::ErrorKind::TimedOut, message)
    }
}

impl Connector {
    pub(crate) fn under_way(&self) -> Vec<ConnId> {
        self.connecting.keys().copied().collect()
    }
}

impl Dispatcher {
    /// Starts what callbacks asked for: slots and handlers are there. What fails at once and is
    /// asked for again waits for the next turn, or it would be for ever.
    pub(crate) fn begin_connects(&mut self) {
        if self.core.connects.is_empty() {
            return;
        }
        for request in std::mem::take(&mut self.core.connects) {
            self.begin_connect(request);
            self.settle();
        }
    }

    fn begin_connect(&mut self, request: Request) {
        let Request { id, target, options } = request;
        if self.core.conns.get(id.0).is_none() {
            return;
        }
        match target.0 {
            Err(error) => self.connect_failed(id, error),
            Ok(place) => {
                let connecting = Connecting {
                    place,
                    options,
                    untried: VecDeque::new(),
                    attempts: Vec::new(),
                    error: None,
                    tries: 0,
                    resolving: false,
                };
                self.connector.connecting.insert(id, connecting);
                self.try_connect(id);
            }
        }
    }

    /// The first or another try: the clock starts, and the addresses are found.
    pub(crate) fn try_connect(&mut self, id: ConnId) {
        let Some(connecting) = self.connector.connecting.get_mut(&id) else {
            return;
        };
        connecting.error = None;
        let timeout = connecting.options.timeout;
        let found = match &connecting.place {
            Place::Addrs(addrs) => interleave(addrs.clone()),
            Place::Endpoint(endpoint @ (Endpoint::Unix(_) | Endpoint::UnixAbstract(_))) => {
                VecDeque::from([Destination::Unix(endpoint.clone())])
            }
            Place::Endpoint(endpoint) => match endpoint.numeric() {
                Some(addr) => VecDeque::from([Destination::Ip(addr)]),
                None => {
                    connecting.resolving = true;
                    let (endpoint, handle) = (endpoint.clone(), self.core.handle.clone());
                    let tries = connecting.tries;
                    let reactor = self.core.shared.index;
                    resolver::resolve(endpoint, move |found| {
                        // A reactor that has ended needs no answer.
                        let _ = handle.send_urgent_to(reactor, Mail::Resolved(id, tries, found));
                    });
                    VecDeque::new()
                }
            },
        };
        connecting.untried = found;
        self.core.set_internal(id, Purpose::ConnectTimeout, timeout, 0);
        self.next_attempt(id);
    }

    /// The resolver's answer to a try, which may be over by now.
    pub(crate) fn resolved(&mut self, id: ConnId, tries: u32, found: io::Result<Vec<SocketAddr>>) {
        let connecting = self.connector.connecting.get_mut(&id);
        let Some(connecting) = connecting.filter(|c| c.resolving && c.tries == tries) else {
            return;
        };
        connecting.resolving = false;
        match found {
            Ok(addrs) => connecting.untried = interleave(addrs),
            Err(error) => connecting.error = Some(error),
        }
        self.next_attempt(id);
    }

    /// Starts the next address, and the clock for the one after; without one left and none under
    /// way, this try has failed.
    pub(crate) fn next_attempt(&mut self, id: ConnId) {
        loop {
            let Some(connecting) = self.connector.connecting.get_mut(&id) else {
                return;
            };
            let Some(destination) = connecting.untried.pop_front() else {
                if connecting.attempts.is_empty() && !connecting.resolving {
                    self.try_failed(id);
                }
                return;
            };
            let (stagger, more) = (connecting.options.stagger, !connecting.untried.is_empty());
            match self.backend.connect(&destination, &connecting.options) {
                Ok(socket) => {
                    let conn = Conn::new(Kind::Attempt, destination.addr(), NO_LISTENER);
                    let attempt = self.core.insert(conn);
                    self.backend.install(attempt.index(), socket);
                    let watched =
                        self.backend.set_interest(attempt, Interest::UNREGISTERED, Interest::WRITE);
                    if let Some(conn) = self.core.conns.get_mut(attempt.0)
                        && watched.is_ok()
                    {
                        conn.interest = Interest::WRITE;
                    }
                    connecting.attempts.push(attempt);
                    self.connector.owners.insert(attempt, id);
                    if let Err(error) = watched {
                        self.attempt_failed(attempt, error);
                    } else if more {
                        self.core.set_internal(id, Purpose::Stagger, stagger, 0);
                    }
                    return;
                }
                Err(error) => {
                    let why = || unreachable(&destination.addr(), &error);
                    connecting.error.get_or_insert_with(why);
                }
            }
        }
    }

    /// An attempt's socket is writable or has failed: the socket says which.
    pub(crate) fn attempt_ready(&mut self, event: Event) {
        let attempt = event.id;
        if let Some(error) = self.backend.take_error(attempt.index()) {
            return self.attempt_failed(attempt, error);
        }
        let owner = self.connector.owners.get(&attempt);
        let connecting = owner.and_then(|id| self.connector.connecting.get(id));
        let fast_open = connecting.is_some_and(|connecting| connecting.options.fast_open);
        match self.backend.connect_progress(attempt.index()) {
            Progress::Done if event.writable => {}
            // It waits for the first bytes, to send them with the SYN.
            Progress::UnderWay if fast_open && event.writable && !event.hup && !event.error => {}
            Progress::UnderWay if event.hup || event.error => {
                return self.attempt_failed(attempt, io::ErrorKind::NotConnected.into());
            }
            Progress::Done | Progress::UnderWay => return,
            // A client of a port in the ephemeral range can meet itself (RFC 9293 section 3.5).
            Progress::ToItself => {
                return self.attempt_failed(attempt, io::ErrorKind::ConnectionRefused.into());
            }
        }
        let Some(id) = self.connector.owners.remove(&attempt) else {
            return;
        };
        let socket = self.backend.take(attempt.index());
        let interest = self.core.conns.get(attempt.0).map(|conn| conn.interest);
        let winner = self.core.conns.remove(attempt.0);
        self.forget_connecting(id);
        let (Some(conn), Some(socket), Some(winner), Some(interest)) =
            (self.core.conns.get_mut(id.0), socket, winner, interest)
        else {
            return;
        };
        self.backend.install(id.index(), socket);
        conn.kind = Kind::Stream;
        conn.peer = winner.peer;
        conn.interest = interest;
        conn.flags.remove(Flags::BLOCKED);
        self.core.shared.counters.connected.add(1);
        // The poller knows the socket under the attempt's id, which names nothing any more.
        match self.backend.set_interest(id, interest, Interest::READ) {
            Ok(()) => conn.interest = Interest::READ,
            Err(error) => self.core.doom(id, Close::Io(error)),
        }
        self.open(id);
        if fast_open && self.core.conns.get(id.0).is_some_and(|conn| conn.kind == Kind::Stream) {
            let _ = self.backend.send(id.index(), &[]); // sends the SYN where nothing was written
        }
    }

    fn attempt_failed(&mut self, attempt: ConnId, error: io::Error) {
        let owner = self.connector.owners.remove(&attempt);
        let addr = self.core.conns.get(attempt.0).map_or(Addr::NONE, |conn| conn.peer.clone());
        self.release(attempt, false);
        let Some(id) = owner else {
            return;
        };
        if let Some(connecting) = self.connector.connecting.get_mut(&id) {
            connecting.attempts.retain(|&other| other != attempt);
            connecting.error.get_or_insert_with(|| unreachable(&addr, &error));
            self.next_attempt(id);
        }
    }

    /// The time for a try is up.
    pub(crate) fn connect_timed_out(&mut self, id: ConnId) {
        if let Some(connecting) = self.connector.connecting.get_mut(&id) {
            connecting.resolving = false;
            connecting.untried.clear();
            self.try_failed(id);
        }
    }

    /// Every address has failed, or none in time: wait for the next try, or give up.
    fn try_failed(&mut self, id: ConnId) {
        self.close_attempts(id);
        self.core.cancel_internal(id, Purpose::ConnectTimeout);
        self.core.cancel_internal(id, Purpose::Stagger);
        let Some(connecting) = self.connector.connecting.get_mut(&id) else {
            return;
        };
        connecting.tries += 1;
        match &connecting.options.retry {
            Some(retry) if connecting.tries <= retry.tries => {
                let wait = retry.wait(connecting.tries, self.backend.chance());
                self.core.set_internal(id, Purpose::Retry, wait, 0);
            }
            _ => {
                let error = connecting.error.take().unwrap_or_else(|| connecting.timed_out());
                self.connect_failed(id, error);
            }
        }
    }

    /// The one outcome that is not `on_open`.
    pub(crate) fn connect_failed(&mut self, id: ConnId, error: io::Error) {
        self.forget_connecting(id);
        if self.core.conns.get(id.0).is_none() {
            return;
        }
        self.let_go(id);
        self.core.shared.counters.connect_errors.add(1);
        self.call(id, |handler, cx| {
            handler.on_connect_fail(cx, error);
            Ok(())
        });
        self.core.current = ConnId::NONE;
        self.drop_handler(id);
        self.release(id, false);
    }

    fn forget_connecting(&mut self, id: ConnId) {
        self.close_attempts(id);
        self.connector.connecting.remove(&id);
        for purpose in [Purpose::ConnectTimeout, Purpose::Stagger, Purpose::Retry] {
            self.core.cancel_internal(id, purpose);
        }
    }

    fn close_attempts(&mut self, id: ConnId) {
        let connecting = self.connector.connecting.get_mut(&id);
        for attempt in connecting.map(|c| std::mem::take(&mut c.attempts)).unwrap_or_default() {
            self.connector.owners.remove(&attempt);
            self.release(attempt, false);
        }
    }
}

impl crate::core::Core {
    /// A connection that is not there yet: its slot and handler, and the request.
    pub(crate) fn connect(
        &mut self,
        target: Target,
        options: ConnectOptions,
        handler: Box<dyn EvHandler>,
    ) -> ConnId {
        let mut conn = Conn::new(Kind::Connecting, Addr::NONE, NO_LISTENER);
        conn.flags.insert(Flags::BLOCKED); // what is written waits for the connection
        let id = self.insert(conn);
        self.incoming.push((id, handler));
        self.connects.push(Request { id, target, options });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_alternate_from_the_first() {
        let addrs = ["[::1]:1", "[::2]:1", "10.0.0.1:1", "[::3]:1", "10.0.0.2:1"];
        let order = interleave(addrs.map(|addr| addr.parse().unwrap()).to_vec());
        let order: Vec<String> = order
            .into_iter()
            .map(|destination| match destination {
                Destination::Ip(addr) => addr.to_string(),
                Destination::Unix(_) => unreachable!(),
            })
            .collect();
        assert_eq!(order, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_shortened_by_at_most_half() {
        let retry = Retry { tries: 9, ..Retry::default() };
        for (again, longest) in [(1, 100), (2, 200), (4, 800), (8, 10_000), (40, 10_000)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(retry.wait(again, 0.0), longest, "{again}");
            assert_eq!(retry.wait(again, 1.0), longest / 2, "{again}");
        }
    }
}
