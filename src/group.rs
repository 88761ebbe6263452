//! What the reactors of a server share of one listener: its address, its limits, and, where
//! each reactor has a listening socket of its own, who is in the SO_REUSEPORT group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::Addr;
use crate::config::ListenOptions;
use crate::endpoint::Endpoint;
use crate::placement::{Placement, Placer};
use crate::sync::{Mutex, lock};
use crate::sys::listen::{self, UnixPath};
use crate::sys::net;
use crate::sys::steer::{self, Steering};

/// How the listening sockets of a group are spread over the reactors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// Each reactor has its own, in one SO_REUSEPORT group.
    Each,
    /// All reactors watch one socket.
    Shared,
    /// The first reactor accepts for all and hands over.
    Handed,
}

pub(crate) struct Group {
    pub(crate) addr: Addr,
    pub(crate) spread: Spread,
    pub(crate) placer: Option<Placer>,
    /// None for a socket made elsewhere, which others may hold too.
    endpoint: Option<Endpoint>,
    options: ListenOptions,
    /// The CPU of each reactor, if connections are steered to it.
    cpus: Vec<u32>,
    open: AtomicUsize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Reactors with a socket in the group, in the kernel's order.
    order: Vec<Member>,
    /// The kernel has a rule of ours for the group.
    steered: bool,
    path: Option<UnixPath>,
}

struct Member {
    reactor: usize,
    /// A copy of the reactor's descriptor: what one of them does to the group has to work
    /// whoever is still there.
    fd: OwnedFd,
    leaving: bool,
}

/// What a reactor that leaves has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parting {
    /// Close at once: others have the same socket.
    Now,
    /// Take what the queue holds, then close: nobody can join it any more.
    WhenEmpty,
    /// Wait for handshakes that are under way, then as `WhenEmpty`.
    AfterGrace,
}

impl Group {
    pub(crate) fn new(
        addr: Addr,
        endpoint: Option<Endpoint>,
        options: &ListenOptions,
        path: Option<UnixPath>,
        reactors: usize,
        cpus: Vec<u32>,
    ) -> Group {
        let own_sockets =
            endpoint.is_some() && options.reuse_port && !addr.is_unix() && net::PORTS_ARE_SPREAD;
        let handed = options.placement != Placement::Kernel;
        let spread = match (handed, own_sockets) {
            (true, _) => Spread::Handed,
            (false, true) => Spread::Each,
            (false, false) => Spread::Shared,
        };
        Group {
            addr,
            spread,
            placer: Placer::new(&options.placement, reactors),
            endpoint,
            cpus: if options.cpu_steering { cpus } else { Vec::new() },
            options: options.clone(),
            open: AtomicUsize::new(0),
            members: Mutex::new(Members { path, ..Members::default() }),
        }
    }

    /// Counts a connection; false if the limit is reached.
    pub(crate) fn acquire(&self) -> bool {
        let Some(max) = self.options.max_connections else {
            return true;
        };
        let taken = self.open.fetch_add(1, Ordering::AcqRel);
        if taken >= max {
            self.open.fetch_sub(1, Ordering::AcqRel);
        }
        taken < max
    }

    /// Counts a connection that is there already, limit or not.
    fn acquire_over_limit(&self) {
        if self.is_limited() {
            self.open.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A connection has ended.
    pub(crate) fn release(&self) {
        if self.is_limited() {
            self.open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.options.max_connections.is_some()
    }

    /// Notes that `reactor` has the next socket of the group.
    pub(crate) fn joined(&self, reactor: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.add(&mut lock(&self.members), reactor, fd)
    }

    /// A new socket for `reactor`, which has none.
    pub(crate) fn join(&self, reactor: usize) -> io::Result<OwnedFd> {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.spread == Spread::Each) else {
            let message = format!("{} has no SO_REUSEPORT group to join again", self.addr);
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        let mut members = lock(&self.members);
        let fd = listen::bind_another(&self.addr, endpoint, &self.options)?;
        self.add(&mut members, reactor, fd.as_fd())?;
        Ok(fd)
    }

    fn add(&self, members: &mut Members, reactor: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
        members.order.push(Member { reactor, fd: net::duplicate(&fd)?, leaving: false });
        let steered = self.steer(members, None);
        if steered.is_err() {
            members.order.pop();
        }
        steered
    }

    /// `reactor` gets connections from now on, where they are handed over.
    pub(crate) fn take_part(&self, reactor: usize) {
        if let Some(placer) = &self.placer {
            placer.open(reactor);
        }
    }

    /// `reactor` gets no more connections. True if its own socket has to go.
    pub(crate) fn take_no_part(&self, reactor: usize) -> bool {
        if let Some(placer) = &self.placer {
            placer.close(reactor);
        }
        self.spread != Spread::Handed
    }

    /// Whether nobody takes the connections that are to be handed over.
    pub(crate) fn is_deserted(&self) -> bool {
        self.placer.as_ref().is_some_and(Placer::is_deserted)
    }

    /// Whether there is still a socket.
    pub(crate) fn is_open(&self) -> bool {
        !lock(&self.members).order.is_empty()
    }

    /// From now on no new connections come to `reactor`'s socket: they go to others, or, if it
    /// is the last, are ignored (TCP, so that clients ask again) or refused (Unix).
    pub(crate) fn begin_leaving(&self, reactor: usize) -> Parting {
        let mut members = lock(&self.members);
        let Some(position) = members.position(reactor) else {
            return Parting::Now;
        };
        members.order[position].leaving = true;
        let others = members.order.iter().any(|member| !member.leaving);
        if self.spread == Spread::Shared && others {
            members.order.remove(position);
            return Parting::Now;
        }
        if let Err(error) = self.steer(&mut members, None) {
            self.complain("cannot steer connections away", &error);
            self.ignore_new(&members, |member| member.reactor == reactor);
        }
        if !others {
            self.ignore_new(&members, |_| true);
        }
        if !self.addr.is_unix() {
            return Parting::AfterGrace;
        }
        members.path = None;
        Parting::WhenEmpty
    }

    /// What leaving could not do; what the system has no way to do is no news.
    fn complain(&self, what: &str, error: &io::Error) {
        let level = match error.kind() {
            io::ErrorKind::Unsupported => log::Level::Debug,
            _ => log::Level::Warn,
        };
        log::log!(level, "{}: {what}: {error}", self.addr);
    }

    /// Has some sockets ignore requests for new connections, or refuse them.
    fn ignore_new(&self, members: &Members, which: impl Fn(&Member) -> bool) {
        for member in members.order.iter().filter(|&member| which(member)) {
            let fd = member.fd.as_fd();
            let ignored = match (self.addr.is_unix(), &self.endpoint) {
                (false, _) => steer::ignore_new(fd),
                (true, None) => Ok(()), // it may be another process's too, and goes on there
                (true, Some(_)) => net::refuse_new(fd),
            };
            if let Err(error) = ignored {
                self.complain("cannot ignore new connections", &error);
            }
        }
    }

    /// The end of `reactor`'s membership. `close` takes the last connections and closes the
    /// socket, before anybody else changes the group; it gets a function to count them by.
    pub(crate) fn leave(&self, reactor: usize, close: impl FnOnce(&dyn Fn())) {
        let mut members = lock(&self.members);
        let position = members.position(reactor);
        if let Err(error) = self.steer(&mut members, position) {
            self.complain("cannot steer connections away", &error);
        }
        // Between the closing and the rule that follows it, the kernel may fall back to its hash,
        // and so to others that leave and are perhaps about to close too.
        self.ignore_new(&members, |member| member.leaving && member.reactor != reactor);
        if let Some(position) = position
            && self.endpoint.is_none()
            && !self.addr.is_unix()
        {
            // Whoever else has the socket goes on with it.
            let _ = steer::heed_new(members.order[position].fd.as_fd());
        }
        close(&|| self.acquire_over_limit());
        if let Some(position) = position {
            members.order.swap_remove(position); // as the kernel does
        }
        if members.order.is_empty() {
            members.path = None;
            members.steered = false;
        } else if let Err(error) = self.steer(&mut members, None) {
            self.complain("cannot steer the connections", &error);
        }
    }

    /// Gives the kernel the rule for the group as it is. With `closing`, the position of a
    /// socket about to be closed, the rule is one that holds before and after: the last socket
    /// moves to that position, so it is left out if there are others.
    fn steer(&self, members: &mut Members, closing: Option<usize>) -> io::Result<()> {
        if self.spread != Spread::Each {
            return Ok(());
        }
        let last = members.order.len().saturating_sub(1);
        let stays = |&(_, member): &(usize, &Member)| !member.leaving;
        let mut stay: Vec<(usize, &Member)> =
            members.order.iter().enumerate().filter(stays).collect();
        let Some(&(_, any)) = stay.first() else {
            return Ok(()); // each of them ignores what is new
        };
        if closing.is_some() && stay.iter().any(|&(position, _)| position != last) {
            stay.retain(|&(position, _)| position != last);
        }
        let free = stay.len() == members.order.len() && self.cpus.is_empty();
        if free && !members.steered {
            return Ok(());
        }
        let index = |position: usize| position as u32;
        let mut by_cpu: Vec<(u32, Vec<u32>)> = Vec::new();
        for &(position, member) in &stay {
            let Some(&cpu) = self.cpus.get(member.reactor) else {
                continue;
            };
            match by_cpu.iter_mut().find(|(known, _)| *known == cpu) {
                Some((_, indexes)) => indexes.push(index(position)),
                None => by_cpu.push((cpu, vec![index(position)])),
            }
        }
        let others = stay.iter().map(|&(position, _)| index(position)).collect();
        let fd = any.fd.as_fd();
        // Without a rule the kernel hashes; where it cannot forget one, the rule is "any".
        let forgotten = free && steer::forget(fd).is_ok();
        if !forgotten {
            steer::steer(fd, &Steering { by_cpu, others })?;
        }
        members.steered = !forgotten;
        Ok(())
    }
}

impl Members {
    fn position(&self, reactor: usize) -> Option<usize> {
        self.order.iter().position(|member| member.reactor == reactor)
    }
}

/// A group, as the parts of a server hold it.
pub(crate) type SharedGroup = Arc<Group>;
