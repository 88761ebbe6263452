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
    order: Vec<usize>,
    /// Those of them that take no new connections.
    leaving: Vec<usize>,
    path: Option<UnixPath>,
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
        let own_sockets = endpoint.is_some() && options.reuse_port && !addr.is_unix();
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

    /// A connection has ended.
    pub(crate) fn release(&self) {
        if self.options.max_connections.is_some() {
            self.open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.options.max_connections.is_some()
    }

    /// Notes that `reactor` has the next socket of the group.
    pub(crate) fn joined(&self, reactor: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut members = lock(&self.members);
        members.order.push(reactor);
        self.apply(&members, fd)
    }

    /// A new socket for `reactor`, which has none.
    pub(crate) fn join(&self, reactor: usize) -> io::Result<OwnedFd> {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.spread == Spread::Each) else {
            let message = format!("{} has no SO_REUSEPORT group to join again", self.addr);
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        let mut members = lock(&self.members);
        let fd = listen::bind_another(&self.addr, endpoint, &self.options)?;
        members.order.push(reactor);
        self.apply(&members, fd.as_fd())?;
        Ok(fd)
    }

    /// From now on the kernel gives `reactor`'s socket no new connections.
    pub(crate) fn begin_leaving(&self, reactor: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut members = lock(&self.members);
        if !members.leaving.contains(&reactor) {
            members.leaving.push(reactor);
        }
        self.apply(&members, fd)
    }

    /// The end of `reactor`'s membership: the rule is applied once more, and `drain` accepts
    /// what is left and closes the socket, all before anybody else changes the group.
    pub(crate) fn finish_leaving(&self, reactor: usize, fd: OwnedFd, drain: impl FnOnce(OwnedFd)) {
        let mut members = lock(&self.members);
        if let Err(error) = self.apply(&members, fd.as_fd()) {
            log::warn!("cannot steer connections away from {}: {error}", self.addr);
        }
        drain(fd);
        members.leaving.retain(|&leaving| leaving != reactor);
        if let Some(position) = members.order.iter().position(|&member| member == reactor) {
            members.order.swap_remove(position); // as the kernel does
        }
        if members.order.is_empty() {
            members.path = None;
        }
    }

    /// Whether `reactor` is the last with a descriptor of a shared socket.
    pub(crate) fn is_last(&self, reactor: usize) -> bool {
        lock(&self.members).order.iter().all(|&member| member == reactor)
    }

    fn apply(&self, members: &Members, fd: BorrowedFd<'_>) -> io::Result<()> {
        let staying = |reactor: &usize| !members.leaving.contains(reactor);
        if self.addr.is_unix() || (members.leaving.is_empty() && self.cpus.is_empty()) {
            return Ok(());
        }
        let indexed = members.order.iter().enumerate().filter(|(_, reactor)| staying(reactor));
        let stays: Vec<(u32, usize)> = indexed.map(|(i, &reactor)| (i as u32, reactor)).collect();
        if stays.is_empty() || self.spread != Spread::Each {
            return match self.spread == Spread::Shared && !stays.is_empty() {
                true => Ok(()),
                false => steer::ignore_new(fd),
            };
        }
        let by_cpu = stays
            .iter()
            .filter_map(|&(index, reactor)| self.cpus.get(reactor).map(|&cpu| (cpu, index)));
        let steering = Steering {
            by_cpu: by_cpu.collect(),
            others: stays.iter().map(|&(index, _)| index).collect(),
        };
        steer::steer(fd, Some(&steering))
    }
}

/// A group, as the parts of a server hold it.
pub(crate) type SharedGroup = Arc<Group>;
