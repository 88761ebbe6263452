//! Hard case 14: interrupted system calls.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use reev::{Ctx, EvHandler, ListenOptions, Server, TimerId};

use crate::origin::{Meeting, Origin, both_ways};
use crate::support::{
    Echo, Host, assert_same, config, eventually, in_own_process, in_own_process_traced, pattern,
    ping, read_exactly,
};

/// Sends `n` bytes through an echo, both ways at once.
fn through_the_echo(stream: TcpStream, n: usize) {
    let data = pattern(n);
    let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
    let sent = data.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer
    });
    assert_same(&read_exactly(&mut reader, n), &data);
    drop(writer.join().unwrap());
}

/// A connection that counts its timer.
struct Ticks(Arc<AtomicUsize>);

impl EvHandler for Ticks {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(Duration::from_millis(5));
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn on_timeout(&mut self, _cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The reactors' threads get signals without a pause, whose handler restarts nothing that epoll
/// waits for. Bytes arrive, timers fire, neither early nor never.
///
/// Planted: EINTR of epoll_wait ends the reactor.
fn hard_case_14_a_storm_of_signals(origin: Origin) {
    let test = format!("signals::{origin}::hard_case_14_a_storm_of_signals");
    in_own_process(&test, || {
        let caught = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, caught.clone()).unwrap();
        let threads: Arc<Mutex<Vec<Pthread>>> = Arc::default();
        let began = Instant::now();
        let mut server = Server::new(config(2)).unwrap();
        let listener = server.listen("127.0.0.1:0").unwrap();
        let (seen, ticks) = (threads.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = ticks.clone();
        let (at, options) = (server.local_addr(listener), ListenOptions::default());
        let meeting = Meeting::new(&server.handle(), &at, &options, |_| Echo);
        let host = Host::set_up(server, listener, move |reactor| {
            seen.lock().unwrap().push(pthread_self());
            reactor.add(Ticks(counted.clone()));
            reactor.accept(listener, |_| Echo)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let signals = Arc::new(AtomicUsize::new(0));
        let (stopped, counting) = (stop.clone(), signals.clone());
        let storm = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for &thread in threads.lock().unwrap().iter() {
                    pthread_kill(thread, Signal::SIGUSR1).unwrap();
                }
                counting.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let stream = TcpStream::from(meeting.peer(origin));
                std::thread::spawn(move || through_the_echo(stream, 2_000_000))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        eventually("timers fire", || ticks.load(Ordering::Relaxed) > 40);
        eventually("it was a storm", || signals.load(Ordering::Relaxed) > 1000);
        let fired = ticks.load(Ordering::Relaxed);
        let most = 2 * (began.elapsed().as_millis() as usize / 5);
        assert!(fired <= most, "timers fire early: {fired} times, of {most}");
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        assert!(caught.load(Ordering::Relaxed));
        ping(&mut host.tcp());
    });
}

/// Every other call of each kind is interrupted.
///
/// Planted: a call that was interrupted is not made again.
#[test]
fn hard_case_14_every_call_may_be_interrupted() {
    let calls = "accept4,recvfrom,sendto,sendmsg,epoll_wait,epoll_pwait2";
    let (trace, inject) =
        (format!("trace={calls}"), format!("inject={calls}:error=EINTR:when=1+2"));
    let test = "signals::hard_case_14_every_call_may_be_interrupted";
    in_own_process_traced(&["-e", &trace, "-e", &inject], test, || {
        let host = Host::serve(config(2), |_| Echo);
        for n in [1, 1000, 300_000] {
            through_the_echo(host.tcp(), n);
        }
        let stats = host.stats();
        assert_eq!((stats.accepted, stats.accept_errors), (3, 0));
        assert_eq!((stats.bytes_in, stats.bytes_out), (301_001, 301_001));
    });
}

both_ways!(hard_case_14_a_storm_of_signals,);
