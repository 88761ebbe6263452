//! Testing handlers without sockets, threads or clocks.
//!
//! A [`Simulation`] is one reactor on a simulated kernel. The test plays the peers and the
//! clock; a seed decides the order of events and the faults, so every run with the same seed is
//! the same run, and thirty seconds of timeouts take microseconds.
//!
//! ```
//! use reev::sim::Simulation;
//! # struct Echo;
//! # impl reev::EvHandler for Echo {
//! #     fn on_read(&mut self, cx: &mut reev::Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
//! #         cx.write(data);
//! #         Ok(data.len())
//! #     }
//! # }
//! let mut sim = Simulation::new(1);
//! let listener = sim.listen(|_peer| Echo);
//! let peer = sim.connect(listener);
//! peer.send(b"hello");
//! sim.settle();
//! assert_eq!(peer.receive(), b"hello");
//! ```

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::acceptor::{ListenerId, Listening};
use crate::addr::Addr;
use crate::config::{Config, ListenOptions};
use crate::group::Group;
use crate::handle::Handle;
use crate::handler::EvHandler;
use crate::mail::ReactorShared;
use crate::mailbox::Mailbox;
use crate::reactor::Reactor;
use crate::stats::Counters;
pub use crate::sys::sim::Faults;
use crate::sys::sim::{Kernel, SimBackend};
use crate::sys::{Backend, Socket, Waker};

/// Turns without a pause after which [`Simulation::settle`] takes the reactor to be spinning.
const TURNS_MAX: usize = 1_000_000;

/// One reactor on a simulated kernel.
///
/// A kernel with faults, and a clock that the test moves:
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// use std::time::Duration;
/// use reev::Config;
/// use reev::sim::{Faults, Simulation};
///
/// struct Session;
///
/// impl EvHandler for Session {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         cx.idle_timeout(Duration::from_secs(30));
///         Ok(())
///     }
/// }
///
/// for seed in 0..10 {
///     let mut sim = Simulation::with(seed, Faults::hostile(), Config::default());
///     let listener = sim.listen(|_peer| Session);
///     let peer = sim.connect(listener);
///     sim.advance(Duration::from_secs(31));
///     assert!(peer.saw_fin(), "seed {seed}");
/// }
/// ```
pub struct Simulation {
    reactor: Reactor,
    kernel: Rc<RefCell<Kernel>>,
    listeners: Vec<usize>,
    running: bool,
}

impl Simulation {
    /// A kind kernel: sockets take and give all they can, in order.
    pub fn new(seed: u64) -> Simulation {
        Simulation::with(seed, Faults::default(), Config::default())
    }

    /// A kernel with faults.
    ///
    /// # Panics
    /// If `config` does not validate.
    #[allow(
        clippy::disallowed_methods,
        reason = "the epoch has to be some instant, no matter which"
    )]
    pub fn with(seed: u64, faults: Faults, config: Config) -> Simulation {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let kernel = Rc::new(RefCell::new(Kernel::new(seed, faults)));
        let waker = Waker::Sim(kernel.borrow().bell());
        let mailbox = Mailbox::new(waker, config.mailbox_max, config.mailbox_bytes_max);
        let shared = Arc::new(ReactorShared::new(0, mailbox, Counters::default()));
        let handle = Handle::new([shared.clone()].into_iter());
        let backend = SimBackend::new(kernel.clone(), config.events_per_turn, Instant::now());
        let backend = Backend::Sim(backend);
        Simulation {
            reactor: Reactor::new(backend, Arc::new(config), shared, handle, Vec::new()),
            kernel,
            listeners: Vec::new(),
            running: true,
        }
    }

    /// Listens, with a handler that `factory` makes for each connection.
    pub fn listen<H: EvHandler>(
        &mut self,
        factory: impl FnMut(&Addr) -> H + 'static,
    ) -> ListenerId {
        self.listen_limited(None, factory)
    }

    /// Listens for at most `max_connections` at a time.
    ///
    /// # Panics
    /// After 65,535 listeners.
    pub fn listen_limited<H: EvHandler>(
        &mut self,
        max_connections: Option<usize>,
        factory: impl FnMut(&Addr) -> H + 'static,
    ) -> ListenerId {
        let (wire, socket) = {
            let mut kernel = self.kernel.borrow_mut();
            let wire = kernel.add_wire();
            (wire, kernel.open(wire))
        };
        let id = u16::try_from(self.listeners.len()).ok().filter(|&id| id < u16::MAX);
        let id = ListenerId(id.expect("at most 65,535 listeners"));
        self.listeners.push(wire);
        let options = ListenOptions { max_connections, ..ListenOptions::default() };
        let group = Group::new(Addr::unix(None), None, &options, None, 1, Vec::new());
        let listening = Listening::new(Arc::new(group), Some(Socket::Sim(socket)));
        self.reactor.listeners.push(listening);
        self.reactor.accept(id, factory).expect("a new listener has no acceptor yet");
        id
    }

    /// A peer connects; it is accepted in one of the next turns.
    pub fn connect(&mut self, listener: ListenerId) -> Peer {
        let wire = self.kernel.borrow_mut().connect(self.listeners[usize::from(listener.0)]);
        Peer { kernel: self.kernel.clone(), wire }
    }

    /// The next attempt of the reactor to connect, oldest first; it hangs until it is answered.
    pub fn outgoing(&mut self) -> Option<Outgoing> {
        let mut kernel = self.kernel.borrow_mut();
        let (wire, to) = kernel.outgoing.pop_front()?;
        Some(Outgoing(Peer { kernel: self.kernel.clone(), wire }, to.addr()))
    }

    /// The reactor, to add handlers and to look into.
    pub fn reactor(&mut self) -> &mut Reactor {
        &mut self.reactor
    }

    /// The handle, as other threads have it.
    pub fn handle(&self) -> Handle {
        self.reactor.handle()
    }

    /// One turn of the loop. False when the reactor has stopped.
    pub fn turn(&mut self) -> bool {
        if self.running {
            self.running = self.reactor.turn().expect("the simulated poller does not fail");
        }
        self.running
    }

    /// Turns until the reactor would sleep. The clock stands still, but for the faults' jumps.
    ///
    /// # Panics
    /// If it never does: a reactor that spins.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() || self.kernel.borrow().idle.is_some() {
                return;
            }
        }
        panic!("the reactor spins: {TURNS_MAX} turns without rest");
    }

    /// Lets `time` pass: the reactor sleeps and wakes as it would.
    pub fn advance(&mut self, time: Duration) {
        let end = self.kernel.borrow().now + crate::core::nanos(time);
        loop {
            self.settle();
            let mut kernel = self.kernel.borrow_mut();
            let Some(sleep) = kernel.idle.filter(|_| self.running) else {
                return;
            };
            let wake = kernel.now.saturating_add(crate::core::nanos(sleep));
            if wake > end {
                kernel.now = kernel.now.max(end);
                return;
            }
            kernel.now = wake;
        }
    }

    /// Descriptors that the reactor holds, listeners included.
    pub fn open_sockets(&self) -> usize {
        self.kernel.borrow().open_fds()
    }

    /// Changes the faults from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.kernel.borrow_mut().faults = faults;
    }

    /// What the reactor has asked of the kernel so far.
    pub fn calls(&self) -> Calls {
        let kernel = self.kernel.borrow();
        Calls {
            sends: kernel.sends,
            interest_changes: kernel.interest_changes,
            waits: kernel.waits,
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("running", &self.running).finish_non_exhaustive()
    }
}

/// Counts of simulated system calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Calls {
    /// `send` and `sendmsg`.
    pub sends: u64,
    /// `epoll_ctl`.
    pub interest_changes: u64,
    /// `epoll_wait`.
    pub waits: u64,
}

/// An attempt of the reactor to connect that waits for an answer.
///
/// ```
/// # use reev::{ConnectOptions, Ctx, EvHandler};
/// # use reev::sim::Simulation;
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// /// Notes how its connection came out.
/// struct Dialler(Rc<RefCell<String>>);
///
/// impl EvHandler for Dialler {
///     fn on_connect_fail(&mut self, _cx: &mut Ctx<'_>, error: std::io::Error) {
///         *self.0.borrow_mut() = error.kind().to_string();
///     }
/// }
///
/// let (mut sim, outcome) = (Simulation::new(1), Rc::new(RefCell::default()));
/// let options = ConnectOptions::default();
/// sim.reactor().connect("192.0.2.1:80", &options, Dialler(outcome.clone()));
/// sim.settle();
/// let attempt = sim.outgoing().expect("it has begun to connect");
/// assert_eq!(attempt.addr().to_string(), "192.0.2.1:80");
/// assert!(!attempt.is_abandoned());
/// attempt.refuse();
/// sim.settle();
/// assert_eq!(*outcome.borrow(), "connection refused");
/// ```
#[derive(Debug)]
pub struct Outgoing(Peer, Addr);

impl Outgoing {
    /// The address that is connected to.
    pub fn addr(&self) -> &Addr {
        &self.1
    }

    /// Accepts: the connection is made.
    pub fn accept(self) -> Peer {
        self.0.kernel.borrow_mut().wires[self.0.wire].connecting = false;
        self.0
    }

    /// Refuses, as a port does that nobody listens on.
    pub fn refuse(self) {
        self.0.kernel.borrow_mut().refuse(self.0.wire);
    }

    /// Whether the reactor has given up.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_released()
    }
}

/// The far end of a simulated connection.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// # use reev::sim::Simulation;
/// struct Talker;
///
/// impl EvHandler for Talker {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         cx.write(b"who is there?");
///         Ok(())
///     }
/// }
///
/// let mut sim = Simulation::new(1);
/// let listener = sim.listen(|_peer| Talker);
/// let peer = sim.connect(listener);
/// sim.settle();
/// assert_eq!(peer.receive_at_most(3), b"who");
/// peer.reset();
/// sim.settle();
/// assert!(peer.is_released());
/// assert_eq!(sim.open_sockets(), 1, "the listener");
/// assert!(sim.calls().sends > 0);
/// ```
#[derive(Clone)]
pub struct Peer {
    kernel: Rc<RefCell<Kernel>>,
    wire: usize,
}

impl Peer {
    /// Sends bytes; they are there to be read at once.
    pub fn send(&self, data: &[u8]) {
        self.kernel.borrow_mut().wires[self.wire].inbound.extend(data);
    }

    /// Sends a FIN and goes on reading.
    pub fn finish(&self) {
        self.kernel.borrow_mut().wires[self.wire].peer_finished = true;
    }

    /// Closes: sends a FIN and reads no more; what is sent to it fails.
    pub fn close(&self) {
        let wire = &mut self.kernel.borrow_mut().wires[self.wire];
        wire.peer_finished = true;
        wire.peer_gone = true;
    }

    /// Resets the connection; bytes sent before can still be read.
    pub fn reset(&self) {
        self.kernel.borrow_mut().reset_by_peer(self.wire);
    }

    /// Takes all bytes that have come.
    pub fn receive(&self) -> Vec<u8> {
        self.receive_at_most(usize::MAX)
    }

    /// Takes at most `n` bytes of those that have come.
    pub fn receive_at_most(&self, n: usize) -> Vec<u8> {
        let outbound = &mut self.kernel.borrow_mut().wires[self.wire].outbound;
        let n = n.min(outbound.len());
        outbound.drain(..n).collect()
    }

    /// Whether the reactor's FIN has come, after all bytes.
    pub fn saw_fin(&self) -> bool {
        let wire = &self.kernel.borrow().wires[self.wire];
        wire.we_finished && !wire.we_reset && wire.outbound.is_empty()
    }

    /// Whether the reactor has reset the connection.
    pub fn saw_reset(&self) -> bool {
        self.kernel.borrow().wires[self.wire].we_reset
    }

    /// Whether the reactor has given the socket back.
    pub fn is_released(&self) -> bool {
        self.kernel.borrow().wires[self.wire].closed
    }

    /// Bytes sent that the reactor has not read yet.
    pub fn unread(&self) -> usize {
        self.kernel.borrow().wires[self.wire].inbound.len()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("wire", &self.wire).finish_non_exhaustive()
    }
}
