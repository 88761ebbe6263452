//! Which reactor gets a connection, where the kernel does not choose.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::Addr;

/// Chooses a reactor from the peer's address and the connections each reactor has from this
/// listener; an index out of range is taken modulo their number.
pub type PlaceFn = dyn Fn(&Addr, &[usize]) -> usize + Send + Sync;

/// How a listener's connections are spread over the reactors.
///
/// All but [`Placement::Kernel`] have one listening socket: the first reactor accepts and hands
/// the connections over, which costs a message for each, and in return the spread is exact.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Placement {
    /// A listening socket for each reactor (SO_REUSEPORT), and the kernel's hash; without
    /// `reuse_port`, whichever reactor is awake. The cheapest, and even for many connections.
    #[default]
    Kernel,
    /// Each in turn.
    RoundRobin,
    /// The reactor with the fewest connections of this listener, the first of equals.
    LeastConnections,
    /// By a hash of the peer's IP address: one client, one reactor. Unix peers, which have none,
    /// all go to one.
    SourceHash,
    /// By a function of yours.
    Custom(Arc<PlaceFn>),
}

impl PartialEq for Placement {
    fn eq(&self, other: &Placement) -> bool {
        match (self, other) {
            (Placement::Custom(a), Placement::Custom(b)) => Arc::ptr_eq(a, b),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Placement::Kernel => "Kernel",
            Placement::RoundRobin => "RoundRobin",
            Placement::LeastConnections => "LeastConnections",
            Placement::SourceHash => "SourceHash",
            Placement::Custom(_) => "Custom",
        })
    }
}

/// A placement at work.
pub(crate) struct Placer {
    placement: Placement,
    turn: AtomicUsize,
    /// Connections of each reactor, those on the way to it included.
    open: Vec<AtomicUsize>,
}

impl Placer {
    /// None where the kernel places.
    pub(crate) fn new(placement: &Placement, reactors: usize) -> Option<Placer> {
        if *placement == Placement::Kernel {
            return None;
        }
        let open = (0..reactors).map(|_| AtomicUsize::new(0)).collect();
        Some(Placer { placement: placement.clone(), turn: AtomicUsize::new(0), open })
    }

    /// The reactor for a connection from `peer`, which is counted there.
    pub(crate) fn place(&self, peer: &Addr) -> usize {
        let count = self.open.len();
        let loads = || self.open.iter().map(|open| open.load(Ordering::Relaxed));
        let chosen = match &self.placement {
            Placement::Kernel => 0,
            Placement::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            Placement::LeastConnections => {
                loads().enumerate().min_by_key(|&(_, open)| open).map_or(0, |(i, _)| i)
            }
            Placement::SourceHash => {
                let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(peer.ip());
                (hash % count as u64) as usize
            }
            Placement::Custom(place) => place(peer, &loads().collect::<Vec<_>>()) % count,
        };
        self.open[chosen].fetch_add(1, Ordering::Relaxed);
        chosen
    }

    /// A connection of `reactor` has ended, or never got there.
    pub(crate) fn leave(&self, reactor: usize) {
        self.open[reactor].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(placement: Placement) -> Vec<usize> {
        let placer = Placer::new(&placement, 4).unwrap();
        for i in 0..32u8 {
            placer.place(&Addr::from(std::net::SocketAddr::from(([10, 0, 0, i], 1))));
        }
        placer.open.iter().map(|open| open.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn hard_case_28_the_spread_of_32_connections_is_exact() {
        assert_eq!(spread(Placement::RoundRobin), [8; 4]);
        assert_eq!(spread(Placement::LeastConnections), [8; 4]);
        let all_on_2 = Placement::Custom(Arc::new(|_, loads| loads.len() + 2));
        assert_eq!(spread(all_on_2), [0, 0, 32, 0]);
        assert!(spread(Placement::SourceHash).iter().all(|&n| n < 32));
    }

    #[test]
    fn least_connections_fills_the_gap_that_an_end_leaves() {
        let placer = Placer::new(&Placement::LeastConnections, 3).unwrap();
        let peer = Addr::unix(None);
        assert_eq!([0; 6].map(|_| placer.place(&peer)), [0, 1, 2, 0, 1, 2]);
        placer.leave(1);
        assert_eq!([0; 2].map(|_| placer.place(&peer)), [1, 0]);
    }

    #[test]
    fn one_source_goes_to_one_reactor() {
        let placer = Placer::new(&Placement::SourceHash, 5).unwrap();
        let from = |port| Addr::from(std::net::SocketAddr::from(([192, 0, 2, 7], port)));
        let first = placer.place(&from(1));
        assert!((2..100).all(|port| placer.place(&from(port)) == first));
    }
}
