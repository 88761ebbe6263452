//! A soak: random clients of every kind against an echo that counts, for as long as one likes,
//! and then the accounts: every byte, descriptor, handler, timer and buffer.
//!
//! `cargo test` runs it for ten seconds; by hand:
//! `cargo test --release --test soak -- --minutes 30 --seed 7`.

mod clients;
mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clients::Accounts;
use reev::Stats;
use server::EchoServer;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const CLIENTS: usize = 6;
/// What may be there at the end that was not at the beginning: vectors of slots that have grown,
/// and what the standard library keeps for threads.
const MEMORY_SLACK: usize = 64 << 10;
const CALM: Duration = Duration::from_secs(60);

struct Options {
    time: Duration,
    seed: u64,
}

/// None if the test runner was asked for other tests.
fn options() -> Option<Options> {
    let mut options = Options { time: Duration::from_secs(10), seed: fastrand::u64(..) };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| panic!("{argument} wants a number"))
        };
        match argument.as_str() {
            "--minutes" => options.time = Duration::from_secs(60 * number()),
            "--seconds" => options.time = Duration::from_secs(number()),
            "--seed" => options.seed = number(),
            "--list" => return None,
            "--test-threads" | "--skip" => drop(arguments.next()),
            flag if flag.starts_with('-') => {} // the test runner's
            name if !"soak".contains(name) => return None,
            _ => {}
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(Options { time, seed }) = options() else {
        return ExitCode::SUCCESS;
    };
    println!("soak: {time:?}, {CLIENTS} clients; again with --seed {seed}");
    let server = EchoServer::start();
    // All that is made once is made before the accounts are opened.
    run(&server, Duration::from_secs(1), seed, &mut Accounts::default());
    let before = Footprint::take(&server);
    let mut accounts = Accounts::default();
    run(&server, time, seed.wrapping_add(1), &mut accounts);
    let after = Footprint::take(&server);
    println!("{accounts}");
    println!("before: {before:?}\nafter:  {after:?}");
    after.check_against(&before);
    server.check();
    println!("soak: every byte is accounted for");
    ExitCode::SUCCESS
}

/// Clients for so long, and then calm.
fn run(server: &EchoServer, time: Duration, seed: u64, accounts: &mut Accounts) {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS as u64)
        .map(|client| {
            let (addr, stop) = (server.addr(), stop.clone());
            let seed = seed.wrapping_mul(1000).wrapping_add(client);
            std::thread::spawn(move || clients::run(addr, seed, &stop))
        })
        .collect();
    let began = Instant::now();
    let mut told = Instant::now();
    while began.elapsed() < time && !clients.iter().any(|client| client.is_finished()) {
        std::thread::sleep(Duration::from_millis(50));
        let stats = server.stats();
        server.check_bounds(&stats);
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            progress(began.elapsed(), &stats);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        accounts.add(&client.join().expect("a client found a fault"));
    }
    let calm_by = Instant::now() + CALM;
    loop {
        let stats = server.stats();
        if stats.open == 0 && stats.timers == 0 && stats.output_queued == 0 && stats.paused == 0 {
            return;
        }
        assert!(Instant::now() < calm_by, "no calm: {stats:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn progress(elapsed: Duration, stats: &Stats) {
    println!(
        "{:4} s: {} accepted, {} open, {} MB in, {} MB out, {} KB queued, {} KB allocated, {} KB resident",
        elapsed.as_secs(),
        stats.accepted,
        stats.open,
        stats.bytes_in >> 20,
        stats.bytes_out >> 20,
        stats.output_queued >> 10,
        allocated() >> 10,
        resident() >> 10,
    );
}

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// What the process holds.
#[derive(Debug)]
struct Footprint {
    descriptors: usize,
    handlers: usize,
    /// By the allocator's own count: what is resident tells more of the clients' large buffers,
    /// which the allocator keeps.
    allocated: usize,
}

impl Footprint {
    fn take(server: &EchoServer) -> Footprint {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let handlers = server.handlers();
        Footprint { descriptors, handlers, allocated: allocated() }
    }

    fn check_against(&self, before: &Footprint) {
        assert_eq!(self.descriptors, before.descriptors, "descriptors leak");
        assert_eq!(self.handlers, 0, "handlers are left");
        let most = before.allocated + MEMORY_SLACK;
        assert!(self.allocated <= most, "memory leaks: {self:?}, before {before:?}");
    }
}
