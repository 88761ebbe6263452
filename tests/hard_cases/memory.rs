//! Case 22: an idle connection owns no buffer, and buffers shrink after a burst.
//!
//! An allocator counts what each thread holds; asked on the reactor's thread, that is what the
//! reactor holds.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;

use reev::sim::Simulation;
use reev::{Config, EvHandler, ListenOptions};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Serving, What, config, each, until, usual};

thread_local!(static HELD: Cell<isize> = const { Cell::new(0) });

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is the system allocator's; a thread-local number is kept besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| held.set(held.get() + layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get() - layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

fn held_by_reactor(serving: &Serving) -> isize {
    serving.ask(|_| HELD.with(Cell::get))
}

const CLIENTS: usize = 50;
/// A request is this long, but for one byte that never comes; the answer is as long.
const BURST: usize = 300_000;

struct Answer;

impl EvHandler for Answer {
    fn on_read(&mut self, cx: &mut reev::Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
        if data.len() < BURST {
            return Ok(0);
        }
        cx.write(&data[..BURST]);
        Ok(BURST)
    }
}

fn exchange(client: &mut TcpStream) {
    client.write_all(&vec![1; BURST]).unwrap();
    let mut answer = vec![0; BURST];
    client.read_exact(&mut answer).unwrap();
}

/// Planted: an emptied queue, or an emptied tail, is kept for the next time.
fn hard_case_22_an_idle_connection_owns_no_buffer(origin: Origin) {
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let serving = Serving::start(config(), "127.0.0.1:0", &options, |_| Answer);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| serving.peer(origin)).collect();
    exchange(&mut clients[0]); // what the reactor itself needs grows with the first
    until("all are accepted", || serving.handle.stats()[0].open == CLIENTS as u64);
    let before = held_by_reactor(&serving);
    for client in &mut clients {
        exchange(client);
    }
    until("all is answered", || {
        serving.handle.stats()[0].bytes_out == ((CLIENTS + 1) * BURST) as u64
    });
    serving.ask(|_| ());
    let growth = held_by_reactor(&serving) - before;
    assert!(growth < 4096, "{growth} bytes more are held after the burst");
}

/// The start of a next message, left untaken, does not hold the memory of the last one.
/// Planted: a tail keeps its capacity when most of it is taken.
fn hard_case_22_a_short_tail_owns_a_short_buffer(origin: Origin) {
    let serving = Serving::tcp(|_| Answer);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| serving.peer(origin)).collect();
    exchange(&mut clients[0]);
    until("all are accepted", || serving.handle.stats()[0].open == CLIENTS as u64);
    let before = held_by_reactor(&serving);
    for client in &mut clients {
        client.write_all(&vec![1; BURST - 1]).unwrap();
    }
    until("all but a byte is read", || {
        serving.handle.stats()[0].bytes_in == ((CLIENTS + 1) * BURST - CLIENTS) as u64
    });
    for client in &mut clients {
        client.write_all(b"0next").unwrap();
        let mut answer = vec![0; BURST];
        client.read_exact(&mut answer).unwrap();
    }
    let held = (held_by_reactor(&serving) - before) / CLIENTS as isize;
    assert!(held < 6000, "{held} bytes are held for each tail of 4");
}

/// Small messages both ways leave nothing behind, not even the first time. Planted: the scratch
/// is sent by way of the connection's queue, which is kept.
fn hard_case_22_small_messages_need_no_buffer(origin: Origin) {
    let config = Config { read_buffer: 64 << 10, ..config() };
    let serving = Serving::start(config, "127.0.0.1:0", &ListenOptions::default(), |_| {
        each(|cx, what| match what {
            What::Read(data) => {
                cx.write(data);
                Ok(data.len())
            }
            other => usual(cx, other),
        })
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| serving.peer(origin)).collect();
    let echo = |client: &mut TcpStream| {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    };
    echo(&mut clients[0]);
    until("all are accepted", || serving.handle.stats()[0].open == CLIENTS as u64);
    let before = held_by_reactor(&serving);
    for client in &mut clients {
        echo(client);
    }
    let growth = held_by_reactor(&serving) - before;
    assert!(growth < 1024, "{growth} bytes for {CLIENTS} connections");
}

/// A message to many has few queues in use at a time, and what is written to one in pieces still
/// arrives in order. Planted: nothing is flushed before all is written.
fn hard_case_22_a_message_to_many_needs_few_queues(origin: Origin) {
    const MANY: usize = 2000;
    let mut sim = Simulation::new(1);
    let listener = origin.listen(&mut sim, |_| each(usual));
    let peers: Vec<_> = (0..MANY).map(|_| listener.connect(&mut sim)).collect();
    sim.settle();
    let ids = sim.reactor().conn_ids();
    assert!(ids.len() >= MANY);
    let before = HELD.with(Cell::get);
    for piece in [&b"a message "[..], b"to all", b", in pieces"] {
        for &id in &ids {
            let mut to = sim.reactor().conn(id).unwrap();
            to.write(piece);
            to.write_owned(piece);
        }
    }
    let held = HELD.with(Cell::get) - before;
    sim.settle();
    for peer in peers {
        assert_eq!(peer.receive(), b"a message a message to allto all, in pieces, in pieces");
    }
    assert!(held < 512 << 10, "{held} bytes for what waits for {MANY}");
}

both_ways!(
    hard_case_22_a_message_to_many_needs_few_queues,
    hard_case_22_an_idle_connection_owns_no_buffer,
    hard_case_22_a_short_tail_owns_a_short_buffer,
    hard_case_22_small_messages_need_no_buffer,
);
