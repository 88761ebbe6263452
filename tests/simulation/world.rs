//! What is known of a run: its connections, as both sides see them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use reev::{ConnId, ConnectOptions, Remote, Retry, TimerId};

/// One connection, as both sides know it.
#[derive(Default)]
pub(super) struct Line {
    pub(super) id: Option<ConnId>,
    pub(super) remote: Option<Remote>,
    pub(super) timers: Vec<TimerId>,
    /// How often a handler of this connection was opened and closed (by replacement or end).
    pub(super) opened: usize,
    pub(super) closed: usize,
    /// The connection's end was told.
    pub(super) ended: Option<&'static str>,
    /// What the peer sent and the handler has not taken yet.
    pub(super) sent: VecDeque<u8>,
    /// What the handler wrote, and how much of it the peer has received.
    pub(super) written: Vec<u8>,
    pub(super) received: usize,
    pub(super) closing: bool,
    pub(super) peer_finished: bool,
    pub(super) peer_gone: bool,
    /// The reactor connects, and how often that has failed.
    pub(super) dialled: bool,
    pub(super) failed: usize,
    /// Asked for by a line that failed, which was so itself, and so on: so many times.
    pub(super) again: u32,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) lines: Vec<Line>,
    /// The line whose callback runs.
    pub(super) inside: Option<usize>,
    pub(super) wrong: Vec<String>,
}

pub(super) type Shared = Rc<RefCell<World>>;

/// A line that the reactor is to make: its number, its addresses, of which the ports are the
/// number, and how.
pub(super) fn new_dial(world: &Shared) -> Option<(usize, Vec<SocketAddr>, ConnectOptions)> {
    let World { rng, lines, .. } = &mut *world.borrow_mut();
    if lines.len() > 40 {
        return None;
    }
    let me = lines.len();
    lines.push(Line { dialled: true, ..Line::default() });
    let addr = |host| SocketAddr::from(([192, 0, 2, host], me as u16));
    let addrs = (0..rng.u8(1..4)).map(addr).collect();
    let mut up_to = |ms| Duration::from_millis(rng.u64(0..ms));
    let (timeout, stagger, first, max) = (up_to(100), up_to(20), up_to(10), up_to(20));
    let retry = Retry { tries: rng.u32(1..4), first, max };
    let retry = rng.bool().then_some(retry);
    Some((me, addrs, ConnectOptions { timeout, stagger, retry, ..ConnectOptions::default() }))
}

/// Byte `i` of what goes either way on connection `line`.
pub(super) fn stamp(line: usize, i: usize) -> u8 {
    (i.wrapping_mul(31) ^ (i >> 8).wrapping_mul(17) ^ line.wrapping_mul(101)) as u8
}

thread_local! {
    /// The lines of connections that were made and not accepted yet.
    pub(super) static WAITING: RefCell<VecDeque<usize>> = const { RefCell::new(VecDeque::new()) };
    /// The world, for tasks, which must be `Send` though they stay here.
    pub(super) static WORLD: RefCell<Option<Shared>> = const { RefCell::new(None) };
}
