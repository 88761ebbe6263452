//! Hard case 36: a graceful shutdown loses nothing that can be kept, and counts what cannot.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use reev::{Close, Config, Ctx, EvHandler, ListenOptions, Placement, Server};

use crate::origin::{Origin, both_ways};
use crate::support::{
    Echo, Host, PATIENCE, Record, assert_same, config, connect, eventually, in_own_process,
    pattern, ping, read_exactly, read_to_end,
};

const EIGHT_MIB: usize = 8 << 20;

/// What a connection does is chosen by the byte the client sends.
struct Guest(Record);

/// Stays, and takes the default leave.
const IDLE: u8 = b'i';
/// Says goodbye first.
const POLITE: u8 = b'p';
/// Does not heed the shutdown.
const DEAF: u8 = b'd';
/// Gets eight MiB.
const HUNGRY: u8 = b'h';
/// Makes way for a handler that was not there when the shutdown began.
const REPLACED: u8 = b'r';

struct As {
    kind: u8,
    record: Record,
}

impl EvHandler for Guest {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(b"!");
        if data[0] == HUNGRY {
            cx.write(&pattern(EIGHT_MIB));
        }
        cx.replace(As { kind: data[0], record: self.0.clone() });
        Ok(data.len())
    }
}

impl EvHandler for As {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.record.note("shutdown");
        match self.kind {
            DEAF => {}
            REPLACED => cx.replace(As { kind: POLITE, record: self.record.clone() }),
            POLITE => {
                cx.write(b"bye");
                cx.close();
            }
            _ => cx.close(),
        }
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
    }
}

fn guests(config: Config) -> (Host, Record) {
    let record = Record::default();
    let seen = record.clone();
    let config = Config { listener_grace: Duration::from_millis(20), ..config };
    (Host::serve(config, move |_| Guest(seen.clone())), record)
}

fn guest(host: &Host, origin: Origin, kind: u8) -> TcpStream {
    let mut stream: TcpStream = host.peer(origin);
    stream.write_all(&[kind]).unwrap();
    assert_eq!(read_exactly(&mut stream, 1), b"!");
    stream
}

/// Planted: the shutdown is over when the listeners are closed.
fn hard_case_36_eight_mib_in_flight_to_slow_readers_arrive(origin: Origin) {
    let (host, record) = guests(config(2));
    let hungry: Vec<TcpStream> = (0..4).map(|_| guest(&host, origin, HUNGRY)).collect();
    let shutdown = host.handle.shutdown(PATIENCE);
    record.wait_for("shutdown");
    let readers: Vec<_> = hungry
        .into_iter()
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut got = Vec::new();
                let mut piece = vec![0; 100_000];
                loop {
                    match stream.read(&mut piece).unwrap() {
                        0 => return got,
                        n => got.extend_from_slice(&piece[..n]),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    let mut delivered = 0;
    for reader in readers {
        let got = reader.join().unwrap();
        assert_same(&got, &pattern(EIGHT_MIB));
        delivered += got.len();
    }
    assert_eq!(shutdown.wait(), 0);
    println!("{delivered} of {} bytes in flight were delivered", 4 * EIGHT_MIB);
    host.join();
}

/// Planted: `on_shutdown` is not called.
fn hard_case_36_handlers_are_told_and_say_goodbye(origin: Origin) {
    let (host, record) = guests(config(2));
    let mut silent = host.peer::<TcpStream>(origin); // nothing said yet
    eventually("it is there", || host.stats().open == 1);
    let mut idle = guest(&host, origin, IDLE);
    let mut polite = [guest(&host, origin, POLITE), guest(&host, origin, POLITE)];
    let mut replaced = guest(&host, origin, REPLACED);
    let shutdown = host.handle.shutdown(PATIENCE);
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut idle), b"");
    polite.iter_mut().for_each(|stream| assert_eq!(read_to_end(stream), b"bye"));
    // The one put in its place when the shutdown had begun is told too.
    assert_eq!(read_to_end(&mut replaced), b"bye");
    drop((silent, idle, polite, replaced));
    assert_eq!(shutdown.wait(), 0);
    assert_eq!(record.count("shutdown"), 5);
    assert_eq!(record.count("local"), 4);
    assert!(host.handle.stats().iter().all(|stats| stats.open == 0 && stats.timers == 0));
    // A child of another test's, forked a moment ago, may have the listener yet.
    eventually("nobody listens", || {
        let refused = TcpStream::connect(host.socket_addr()).map_err(|error| error.kind());
        refused.is_err_and(|kind| kind == ErrorKind::ConnectionRefused)
    });
    host.join();
}

/// Planted: what is cut is not counted by the reactors but the first.
fn hard_case_36_what_is_left_at_the_deadline_is_cut_and_counted(origin: Origin) {
    let (host, record) = guests(config(2));
    let mut deaf: Vec<TcpStream> = (0..3).map(|_| guest(&host, origin, DEAF)).collect();
    let stuck = guest(&host, origin, HUNGRY); // reads nothing, so its output is not flushed in time
    let mut idle = guest(&host, origin, IDLE);
    let within = Duration::from_millis(300);
    let began = Instant::now();
    let shutdown = host.handle.shutdown(within);
    assert_eq!(read_to_end(&mut idle), b"");
    drop(idle);
    deaf.iter_mut().for_each(ping); // those who stay are served meanwhile
    assert_eq!(shutdown.wait(), 4);
    assert!(began.elapsed() >= within);
    assert_eq!(record.count("stopped"), 4);
    // By a reset, or what was cut short would look whole.
    for mut stream in deaf {
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    drop(stuck);
    host.join();
}

/// Planted: the config's time is not used.
fn hard_case_36_there_is_a_deadline_by_default(origin: Origin) {
    let config = Config { shutdown_timeout: Duration::from_millis(100), ..config(1) };
    let (host, _) = guests(config);
    let _deaf = guest(&host, origin, DEAF);
    assert_eq!(host.handle.shutdown(None).wait(), 1);
    host.join();
}

/// Planted: the second shutdown is not heeded.
#[test]
fn hard_case_36_of_two_shutdowns_the_shorter_counts_and_both_report() {
    let (host, record) = guests(config(2));
    let _deaf = [guest(&host, Origin::Accepted, DEAF), guest(&host, Origin::Accepted, DEAF)];
    let long = host.handle.shutdown(Duration::from_secs(3600));
    record.wait_for("shutdown");
    let short = host.handle.shutdown(Duration::from_millis(50));
    assert_eq!((long.wait(), short.wait()), (2, 2));
    assert_eq!(record.count("shutdown"), 2, "told once each");
    host.join();
}

/// Planted: a stop drops the shutdown's report.
#[test]
fn hard_case_36_a_stop_ends_a_shutdown_at_once_and_is_counted() {
    let (host, record) = guests(config(2));
    let _deaf = [
        guest(&host, Origin::Accepted, DEAF),
        guest(&host, Origin::Accepted, DEAF),
        guest(&host, Origin::Accepted, DEAF),
    ];
    let shutdown = host.handle.shutdown(Duration::from_secs(3600));
    eventually("all are told", || record.count("shutdown") == 3);
    host.handle.stop();
    assert_eq!(shutdown.wait(), 3);
    host.join();
}

/// Whoever was in the queue is served and told, whatever way connections are spread.
///
/// Planted: a connection handed to a reactor that has ended is dropped.
#[test]
fn hard_case_36_a_shutdown_under_load_resets_nobody() {
    for placement in [Placement::Kernel, Placement::RoundRobin, Placement::LeastConnections] {
        let options = ListenOptions { placement, ..ListenOptions::default() };
        let config = Config { listener_grace: Duration::from_millis(100), ..config(3) };
        let host = Host::serve_on("127.0.0.1:0", config, &options, |_| Echo);
        let (to, served) = (host.socket_addr(), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let served = served.clone();
                std::thread::spawn(move || {
                    loop {
                        let Ok(mut stream) = TcpStream::connect(to) else {
                            return;
                        };
                        // The goodbye of an echo is a FIN, perhaps before the byte is answered;
                        // a reset would be an error.
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        stream.write_all(b"x").unwrap();
                        let answer = read_until_closed(&mut stream);
                        assert!(answer == b"x" || answer.is_empty());
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        eventually("some are served", || served.load(Ordering::Relaxed) > 500);
        let shutdown = host.handle.shutdown(PATIENCE);
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(shutdown.wait(), 0);
        let stats = host.stats();
        assert_eq!((stats.open, stats.closed.iter().sum::<u64>()), (0, stats.accepted));
        host.join();
    }
}

/// What a mailbox accepted is opened, be it a connection for a reactor that is about to end for
/// want of any.
///
/// Planted: a reactor without connections ends whatever its mailbox holds.
#[test]
fn hard_case_36_what_comes_in_the_last_turn_is_not_lost() {
    let options = ListenOptions { placement: Placement::RoundRobin, ..ListenOptions::default() };
    let host = Host::serve_on("127.0.0.1:0", config(2), &options, |_| Echo);
    let (free, freed) = mpsc::channel::<()>();
    host.handle.run_on(1, move |_| freed.recv().unwrap_or_default()).unwrap();
    let shutdown = host.handle.shutdown(PATIENCE);
    let (done, is_done) = mpsc::channel();
    let last = move |reactor: &mut reev::Reactor| {
        // It has no connection, has read its mail, and gets this.
        let accepted = reactor.handle().run_on(1, move |_| done.send(()).unwrap());
        accepted.unwrap();
    };
    host.handle.run_on(1, last).unwrap();
    drop(free);
    is_done.recv_timeout(PATIENCE).unwrap();
    assert_eq!(shutdown.wait(), 0);
    host.join();
}

fn read_until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = [0; 2];
    let n = stream.read(&mut answer).unwrap();
    answer[..n].to_vec()
}

/// What the examples do: the first signal shuts down gracefully, the second at once.
///
/// Planted: the second signal is one more graceful shutdown.
#[test]
fn hard_case_36_a_second_signal_stops_at_once() {
    in_own_process("shutdown::hard_case_36_a_second_signal_stops_at_once", || {
        use nix::sys::signal::{Signal, raise};
        let record = Record::default();
        let seen = record.clone();
        let hour = Duration::from_secs(3600);
        let mut server = Server::new(Config { shutdown_timeout: hour, ..config(2) }).unwrap();
        let listener = server.listen("127.0.0.1:0").unwrap();
        reev::stop_on_signals(&server.handle()).unwrap();
        let host = Host::run(server, listener, move |_| Guest(seen.clone()));
        let mut deaf = guest(&host, Origin::Accepted, DEAF);
        let mut hungry = guest(&host, Origin::Accepted, HUNGRY);
        raise(Signal::SIGTERM).unwrap();
        eventually("both are told", || record.count("shutdown") == 2);
        ping(&mut deaf);
        assert_same(&read_to_end(&mut hungry), &pattern(EIGHT_MIB));
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(deaf.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        host.join();
    });
}

/// A reactor that fails does not leave the others behind.
///
/// Planted: they are stopped only by whoever joins the failed one first.
#[test]
fn hard_case_36_a_reactor_that_ends_alone_leaves_no_one_waiting() {
    let host = Host::serve(config(2), |_| Echo);
    host.handle.run_on(1, |reactor| reactor.stop()).unwrap();
    let (gone, goes) = mpsc::channel();
    let handle = host.handle.clone();
    std::thread::spawn(move || {
        while handle.run_on(1, |_| {}).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        gone.send(()).unwrap();
    });
    goes.recv_timeout(PATIENCE).unwrap();
    // All new connections come to the one that is left.
    for _ in 0..20 {
        ping(&mut connect(host.socket_addr()));
    }
    assert_eq!(host.handle.shutdown(Duration::from_millis(1)).wait(), 0);
    host.join();
}

both_ways!(
    hard_case_36_eight_mib_in_flight_to_slow_readers_arrive,
    hard_case_36_handlers_are_told_and_say_goodbye,
    hard_case_36_what_is_left_at_the_deadline_is_cut_and_counted,
    hard_case_36_there_is_a_deadline_by_default,
);
