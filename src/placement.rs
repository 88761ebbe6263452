//! Which reactor gets a connection, where the kernel does not choose.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::addr::Addr;
use crate::isolate::isolated;

/// Chooses a reactor from the peer's address and the connections each reactor has from this
/// listener; an index out of range is taken modulo their number.
pub type PlaceFn = dyn Fn(&Addr, &[usize]) -> usize + Send + Sync;

/// How a listener's connections are spread over the reactors.
///
/// All but [`Placement::Kernel`] have one listening socket: the first reactor accepts and hands
/// the connections over, which costs a message for each, and in return the spread is exact.
///
/// ```
/// use std::sync::Arc;
/// use reev::{ListenOptions, Placement};
///
/// // Reactor 0 for the machine itself, all others for the rest.
/// let placement = Placement::Custom(Arc::new(|peer, loads| {
///     match peer.ip().is_some_and(|ip| ip.is_loopback()) || loads.len() == 1 {
///         true => 0,
///         false => (1..loads.len()).min_by_key(|&reactor| loads[reactor]).unwrap_or(0),
///     }
/// }));
/// let options = ListenOptions { placement, ..ListenOptions::default() };
/// # let _ = options;
/// ```
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
    reactors: Vec<Place>,
}

/// One reactor, as a placer sees it.
#[derive(Default)]
struct Place {
    /// Connections, those on the way included.
    open: AtomicUsize,
    /// It takes new ones.
    accepts: AtomicBool,
    /// It took new ones once, and would still.
    accepted: AtomicBool,
}

impl Placer {
    /// None where the kernel places. No reactor takes connections yet.
    pub(crate) fn new(placement: &Placement, reactors: usize) -> Option<Placer> {
        if *placement == Placement::Kernel {
            return None;
        }
        let reactors = (0..reactors).map(|_| Place::default()).collect();
        Some(Placer { placement: placement.clone(), turn: AtomicUsize::new(0), reactors })
    }

    /// The reactor for a connection from `peer`, which is counted there: one of those that take
    /// connections, or, if all have left while it was under way, one that did.
    pub(crate) fn place(&self, peer: &Addr) -> usize {
        let accepts = |place: &Place| place.accepts.load(Ordering::Relaxed);
        let accepted = |place: &Place| place.accepted.load(Ordering::Relaxed);
        let mut takers = self.takers(accepts);
        if takers.is_empty() {
            takers = self.takers(accepted);
        }
        let chosen = self.choose(peer, &takers);
        self.enter(chosen);
        chosen
    }

    fn takers(&self, takes: impl Fn(&Place) -> bool) -> Vec<usize> {
        let reactors = self.reactors.iter().enumerate();
        reactors.filter(|(_, place)| takes(place)).map(|(reactor, _)| reactor).collect()
    }

    fn choose(&self, peer: &Addr, takers: &[usize]) -> usize {
        if takers.is_empty() {
            return 0;
        }
        let load = |reactor: usize| self.reactors[reactor].open.load(Ordering::Relaxed);
        let least = || takers.iter().copied().min_by_key(|&reactor| load(reactor)).unwrap_or(0);
        let count = self.reactors.len();
        let wanted = match &self.placement {
            Placement::Kernel => 0,
            Placement::RoundRobin => {
                return takers[self.turn.fetch_add(1, Ordering::Relaxed) % takers.len()];
            }
            Placement::LeastConnections => return least(),
            Placement::SourceHash => {
                let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(peer.ip());
                (hash % count as u64) as usize
            }
            Placement::Custom(place) => {
                let loads: Vec<usize> = (0..count).map(load).collect();
                match isolated(|| place(peer, &loads)) {
                    Ok(wanted) => wanted % count,
                    Err(message) => {
                        log::error!(
                            "the placement of {peer} panicked: {message}; least connections instead"
                        );
                        return least();
                    }
                }
            }
        };
        // One that takes nothing gives way to the next that does; all others keep theirs.
        takers.iter().copied().find(|&taker| taker >= wanted).unwrap_or(takers[0])
    }

    /// `reactor` takes connections.
    pub(crate) fn open(&self, reactor: usize) {
        self.reactors[reactor].accepted.store(true, Ordering::Relaxed);
        self.reactors[reactor].accepts.store(true, Ordering::Relaxed);
    }

    /// `reactor` takes no more, but for those on the way.
    pub(crate) fn close(&self, reactor: usize) {
        self.reactors[reactor].accepts.store(false, Ordering::SeqCst);
    }

    /// Whether no reactor takes connections.
    pub(crate) fn is_deserted(&self) -> bool {
        !self.reactors.iter().any(|place| place.accepts.load(Ordering::SeqCst))
    }

    /// A connection goes to `reactor`.
    pub(crate) fn enter(&self, reactor: usize) {
        self.reactors[reactor].open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of `reactor` has ended, or never got there.
    pub(crate) fn leave(&self, reactor: usize) {
        self.reactors[reactor].open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placer(placement: &Placement, reactors: usize) -> Placer {
        let placer = Placer::new(placement, reactors).unwrap();
        (0..reactors).for_each(|reactor| placer.open(reactor));
        placer
    }

    fn spread(placement: Placement) -> Vec<usize> {
        let placer = placer(&placement, 4);
        for i in 0..32u8 {
            placer.place(&Addr::from(std::net::SocketAddr::from(([10, 0, 0, i], 1))));
        }
        placer.reactors.iter().map(|place| place.open.load(Ordering::Relaxed)).collect()
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
        let placer = placer(&Placement::LeastConnections, 3);
        let peer = Addr::unix(None);
        assert_eq!([0; 6].map(|_| placer.place(&peer)), [0, 1, 2, 0, 1, 2]);
        placer.leave(1);
        assert_eq!([0; 2].map(|_| placer.place(&peer)), [1, 0]);
    }

    #[test]
    fn one_source_goes_to_one_reactor() {
        let placer = placer(&Placement::SourceHash, 5);
        let from = |port| Addr::from(std::net::SocketAddr::from(([192, 0, 2, 7], port)));
        let first = placer.place(&from(1));
        assert!((2..100).all(|port| placer.place(&from(port)) == first));
    }

    #[test]
    fn hard_case_26_those_that_left_get_nothing_while_others_stay() {
        let peer = Addr::unix(None);
        let round = placer(&Placement::RoundRobin, 3);
        round.close(1);
        assert_eq!([0; 4].map(|_| round.place(&peer)), [0, 2, 0, 2]);
        round.open(1);
        assert_eq!([0; 3].map(|_| round.place(&peer)), [1, 2, 0]);
        let fixed = placer(&Placement::Custom(Arc::new(|_, _| 1)), 3);
        fixed.close(1);
        assert_eq!(fixed.place(&peer), 2);
        fixed.close(2);
        assert_eq!(fixed.place(&peer), 0);
        fixed.close(0);
        assert!(fixed.is_deserted());
        assert_eq!(fixed.place(&peer), 1, "one that was under way goes where it would have");
    }

    #[test]
    fn hard_case_35_a_placement_that_panics_places_by_load() {
        let broken = placer(&Placement::Custom(Arc::new(|_, _| panic!("planted"))), 2);
        assert_eq!([0; 4].map(|_| broken.place(&Addr::unix(None))), [0, 1, 0, 1]);
    }
}
