//! How servers end: told to, by a failure, before they serve.

use super::*;

fn stop_ends_connections_and_threads(origin: Origin) {
    let (told, events) = mpsc::channel();
    let serving =
        Serving::start(reactors(2), "127.0.0.1:0", &ListenOptions::default(), move |_| {
            let told = told.clone();
            each(move |cx, what| {
                match what {
                    What::Open => told.send("open").unwrap(),
                    What::Close(why) => told.send(why.kind()).unwrap(),
                    other => return usual(cx, other),
                }
                Ok(0)
            })
        });
    let clients: Vec<_> = (0..6).map(|_| serving.peer(origin)).collect();
    for _ in 0..6 {
        assert_eq!(events.recv().unwrap(), "open");
    }
    let (addr, handle) = (serving.socket_addr(), serving.handle.clone());
    drop(serving); // stops and joins
    assert_eq!(events.try_iter().collect::<Vec<_>>(), ["stopped"; 6]);
    for client in clients {
        let (got, error) = read_all(client);
        assert_eq!((got.len(), error), (0, Some(io::ErrorKind::ConnectionReset)));
    }
    nobody_listens(addr);
    let stats = Stats::total(&handle.stats());
    assert_eq!((stats.open, stats.timers), (0, 0));
    let stopped = Close::KIND_NAMES.iter().position(|&name| name == "stopped").unwrap();
    assert_eq!(stats.closed[stopped], 6);
    // All is refused from now on, and nothing waits for ever.
    assert_eq!(handle.broadcast(|_| ()), Err(SendError::Closed));
    assert_eq!(handle.run_on(0, |_| ()), Err(SendError::Closed));
    assert_eq!(handle.run_on(7, |_| ()), Err(SendError::Closed));
    handle.stop();
}

#[test]
fn stop_before_run() {
    let server = Server::new(reactors(2)).unwrap();
    server.handle().stop();
    server.run(|_| Ok(())).unwrap();
}

/// Planted: a reactor serves as soon as its own setup is done.
#[test]
fn a_setup_error_on_one_reactor_ends_all_before_they_serve() {
    for panics in [false, true] {
        let served = Arc::new(AtomicUsize::new(0));
        let (told, set_up) = mpsc::channel();
        let set_up = Mutex::new(set_up);
        let result = {
            let served = served.clone();
            Server::new(reactors(3)).unwrap().run(move |reactor| {
                if reactor.index() == 1 {
                    // The last one fails, when the others have long been ready.
                    for _ in 0..2 {
                        set_up.lock().unwrap().recv().unwrap();
                    }
                    std::thread::sleep(Duration::from_millis(50));
                    assert!(!panics, "as asked");
                    return Err(io::Error::other("as asked"));
                }
                let served = served.clone();
                reactor.add(each(move |_, what| {
                    if let What::Open = what {
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(0)
                }));
                told.send(()).unwrap();
                Ok(())
            })
        };
        let error = result.unwrap_err().to_string();
        assert!(error.contains("as asked"), "{error}");
        assert_eq!(served.load(Ordering::SeqCst), 0, "no reactor serves");
    }
}

/// Planted: a task's panic ends its reactor.
#[test]
fn a_task_that_panics_harms_nobody() {
    let serving = Serving::tcp(|_| Echo);
    serving.handle.run_on(0, |_| panic!("as asked")).unwrap();
    serving.handle.broadcast(|_| panic!("as asked")).unwrap();
    echo_tcp(serving.socket_addr());
}

/// A poller that fails ends all reactors, and is told. Planted: the others run on.
#[test]
#[allow(unsafe_code)]
#[cfg(all(target_os = "linux", not(reev_kqueue_emulation)))]
fn a_reactor_that_fails_stops_the_others() {
    use std::os::fd::{AsFd, AsRawFd};
    if !in_child("ends::a_reactor_that_fails_stops_the_others") {
        return; // it breaks a descriptor
    }
    let server = Server::new(reactors(2)).unwrap();
    let pollers: Vec<i32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let target = fs::read_link(entry.path());
            target.is_ok_and(|target| target.to_string_lossy().contains("eventpoll"))
        })
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let last = *pollers.iter().max().unwrap();
    assert_eq!(pollers.len(), 2);
    let running = server.start(|_| Ok(())).unwrap();
    let handle = running.handle();
    let null = fs::File::open("/dev/null").unwrap();
    // SAFETY: the second reactor's poller is replaced by a file; it goes on to own the
    // number, and closes the file in the end.
    assert_eq!(unsafe { libc::dup2(null.as_fd().as_raw_fd(), last) }, last);
    handle.run_on(1, |_| ()).unwrap(); // wakes it
    let (told, ended) = mpsc::channel();
    std::thread::spawn(move || told.send(running.join().is_err()));
    let failed = ended.recv_timeout(Duration::from_secs(20)).expect("all have ended");
    assert!(failed, "and the error is told");
}

both_ways!(stop_ends_connections_and_threads);
