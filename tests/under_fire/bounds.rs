//! Hard case 20: a firehose and a crowd do not starve the others.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use reev::{Addr, Config, Ctx, EvHandler, ListenOptions, Server, Stats};

use crate::origin::{Meeting, Origin, both_ways};
use crate::support::{Host, PATIENCE, config, eventually, in_own_process};

const READ: usize = 4096;
const ACCEPTS: usize = 16;
const FIREHOSES: usize = 4;
const CROWD: usize = 10_000;

/// What the reactor had done when a connection was served.
#[derive(Clone)]
struct Served {
    at: Instant,
    stats: Stats,
    /// More was there: the next service is due in the next turn.
    more: bool,
}

struct Polite(Arc<Mutex<Vec<Served>>>);

impl EvHandler for Polite {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let stats = cx.handle().stats().remove(0);
        let served = Served { at: Instant::now(), stats, more: data.len() == READ };
        self.0.lock().unwrap().push(served);
        Ok(data.len())
    }
}

struct Firehose;

impl EvHandler for Firehose {
    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}

/// Is turned out at once: ten thousand that stay would need more descriptors than a test has.
struct Unwelcome;

impl EvHandler for Unwelcome {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.abort();
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}

/// One reactor with a polite connection whose input is always there, four that pour in all they
/// can, and ten thousand clients. Between two services of the polite one lies at most a
/// turn, and in it no more than each budget allows.
///
/// Planted: a connection is read until it is empty. Planted: a listener accepts until its queue
/// is empty.
fn hard_case_20_the_gap_between_two_services_is_bounded(origin: Origin) {
    let test = format!("bounds::{origin}::hard_case_20_the_gap_between_two_services_is_bounded");
    in_own_process(&test, || {
        let config = Config { read_buffer: READ, accepts_per_turn: ACCEPTS, ..config(1) };
        let mut server = Server::new(config).unwrap();
        let roomy = ListenOptions { recv_buffer: Some(4 << 20), ..ListenOptions::default() };
        let polite = server.listen_with("127.0.0.1:0", &roomy).unwrap();
        let firehose = server.listen_with("127.0.0.1:0", &roomy).unwrap();
        let crowd = server.listen("127.0.0.1:0").unwrap();
        let addr = |listener| -> Addr { server.local_addr(listener) };
        let services = Arc::new(Mutex::new(Vec::new()));
        let (handle, seen) = (server.handle(), services.clone());
        let to_polite = Meeting::new(&handle, &addr(polite), &roomy, move |_| Polite(seen.clone()));
        let to_firehose = Meeting::new(&handle, &addr(firehose), &roomy, |_| Firehose);
        let crowd_addr = addr(crowd);
        let seen = services.clone();
        let host = Host::set_up(server, polite, move |reactor| {
            let services = seen.clone();
            reactor.accept(polite, move |_| Polite(services.clone()))?;
            reactor.accept(firehose, |_| Firehose)?;
            reactor.accept(crowd, |_| Unwelcome)
        });
        let mut polite = TcpStream::from(to_polite.peer(origin));
        let firehoses: Vec<TcpStream> =
            (0..FIREHOSES).map(|_| to_firehose.peer(origin).into()).collect();
        eventually("all are there", || host.stats().open == 1 + FIREHOSES as u64);
        // The reactor is kept busy until everything waits at once.
        let (free, freed) = mpsc::channel::<()>();
        let busy = move |_: &mut reev::Reactor| freed.recv().unwrap_or_default();
        host.handle.run_on(0, busy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let pouring: Vec<_> = firehoses
            .into_iter()
            .map(|mut stream| {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    let flood = vec![0; 1 << 20];
                    while !stop.load(Ordering::Relaxed) {
                        stream.write_all(&flood).unwrap();
                    }
                })
            })
            .collect();
        let stopped = stop.clone();
        let polite = std::thread::spawn(move || {
            let piece = vec![0; 99_991]; // no multiple of what one read takes
            while !stopped.load(Ordering::Relaxed) {
                polite.write_all(&piece).unwrap();
            }
        });
        let to = crowd_addr.socket_addr().unwrap();
        let (waiting, all_wait) = mpsc::channel();
        let crowd = std::thread::spawn(move || {
            let mut crowd = Vec::new();
            for i in 0..CROWD {
                match TcpStream::connect(to) {
                    Ok(stream) => crowd.push(stream),
                    // Turned out before it knew that it was in.
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
                }
                if i == 3000 {
                    waiting.send(()).unwrap();
                }
            }
            crowd
        });
        all_wait.recv_timeout(PATIENCE).unwrap();
        drop(free);
        let crowd = crowd.join().unwrap();
        let all = (1 + FIREHOSES + CROWD) as u64;
        eventually("all were there", || host.stats().accepted + host.stats().connected == all);
        stop.store(true, Ordering::Relaxed);
        pouring.into_iter().for_each(|thread| thread.join().unwrap());
        polite.join().unwrap();
        drop(crowd);
        let services = services.lock().unwrap().clone();
        check(&services);
    });
}

fn check(services: &[Served]) {
    let gaps = services.windows(2).filter(|pair| pair[0].more);
    let mut worst = (0, 0, 0, Duration::ZERO);
    let mut count = 0;
    for (before, after) in gaps.map(|pair| (&pair[0], &pair[1])) {
        count += 1;
        let (from, to) = (&before.stats, &after.stats);
        worst.0 = worst.0.max(to.turns - from.turns);
        worst.1 = worst.1.max(to.bytes_in - from.bytes_in);
        worst.2 = worst.2.max(to.accepted - from.accepted);
        worst.3 = worst.3.max(after.at - before.at);
    }
    let (turns, bytes, accepts, time) = worst;
    println!(
        "{count} gaps; the longest: {turns} turns, {bytes} bytes, {accepts} accepts, {time:?}"
    );
    assert!(count >= CROWD / ACCEPTS, "{count} gaps say little");
    assert!(turns <= 2, "{turns} turns");
    let most = 2 * (1 + FIREHOSES) * READ;
    assert!(bytes <= most as u64, "{bytes} bytes, of at most {most}");
    assert!(accepts <= 2 * ACCEPTS as u64, "{accepts} accepts");
}

both_ways!(
    #[cfg_attr(reev_kqueue_emulation, ignore = "the emulation tells fewer events than there are")]
    hard_case_20_the_gap_between_two_services_is_bounded,
);
