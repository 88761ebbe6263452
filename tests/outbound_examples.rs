//! The examples of connecting out, datagrams and sources, as their users meet them.

#[path = "support/example.rs"]
mod example;
#[path = "support/refusing.rs"]
mod refusing;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use example::{Example, PATIENCE, udp_ask};
use refusing::Refusing;

/// Writes `request`, and reads as many bytes as `expected` has.
#[track_caller]
fn talk(stream: &mut TcpStream, request: &str, expected: &str) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

#[test]
fn udp_echo_answers_with_and_without_batches() {
    for flags in [&[][..], &["--no-batches"], &["--gro"]] {
        let socket = Example::start("udp_echo", flags);
        assert_eq!(udp_ask(&socket.udp(), b"hello"), b"hello");
    }
}

/// Planted: the default bound, whatever the flag says.
#[test]
fn udp_echo_sends_long_datagrams_back() {
    let long = [7; 9000];
    for flags in [&["--max", "9000"][..], &["--max", "9000", "--gro"]] {
        let socket = Example::start("udp_echo", flags);
        assert_eq!(udp_ask(&socket.udp(), &long), long);
    }
}

/// A proxy that prints statistics every second, which are taken from here.
struct Proxy {
    example: Example,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Proxy {
    fn start(backends: &[SocketAddr], flags: &[&str]) -> Proxy {
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let mut all = vec!["--stats-s", "1"];
        all.extend(flags);
        backends.iter().for_each(|backend| all.extend(["--backend", backend]));
        let mut example = Example::start_with("tcp_proxy", &all, Stdio::piped());
        let lines = BufReader::new(example.child.stderr.take().unwrap()).lines();
        Proxy { example, lines }
    }

    /// Waits for a line of statistics with all of these in it.
    #[track_caller]
    fn until(&mut self, wanted: &[&str]) {
        let mut last = String::new();
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            last = self.lines.next().unwrap().unwrap();
            if wanted.iter().all(|part| last.contains(part)) {
                return;
            }
        }
        panic!("{wanted:?} not in {last}");
    }
}

fn backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Which of the backends gets the next connection.
fn accept_any(backends: &[TcpListener]) -> (usize, TcpStream) {
    let began = std::time::Instant::now();
    loop {
        for (i, backend) in backends.iter().enumerate() {
            backend.set_nonblocking(true).unwrap();
            if let Ok((stream, _)) = backend.accept() {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return (i, stream);
            }
        }
        assert!(began.elapsed() < PATIENCE, "no backend is asked");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Planted: the first backend is chosen; the count of open ones is not taken back.
#[test]
fn tcp_proxy_gives_the_next_client_to_the_backend_with_the_fewest() {
    let (listeners, addrs): (Vec<_>, Vec<_>) = (0..3).map(|_| backend()).unzip();
    let mut proxy = Proxy::start(&addrs, &[]);
    let mut open: Vec<(usize, TcpStream, TcpStream)> = Vec::new();
    let connect = |proxy: &Proxy| {
        let client = proxy.example.connect();
        let (i, server) = accept_any(&listeners);
        (i, client, server)
    };
    for _ in 0..6 {
        open.push(connect(&proxy));
    }
    let count = |open: &[(usize, TcpStream, TcpStream)], i| {
        open.iter().filter(|(backend, ..)| *backend == i).count()
    };
    assert_eq!([0, 1, 2].map(|i| count(&open, i)), [2, 2, 2]);
    // The clients of the second leave; the next two are its own again.
    open.retain(|(backend, ..)| *backend != 1);
    proxy.until(&[&format!("{} open 0 served 2 failed 0", addrs[1])]);
    let next = [connect(&proxy), connect(&proxy)];
    assert_eq!([next[0].0, next[1].0], [1, 1]);
    let [(_, mut client, mut server), _] = next;
    talk(&mut client, "question", "");
    server.read_exact(&mut [0; 8]).unwrap();
    talk(&mut server, "an answer", "");
    client.read_exact(&mut [0; 9]).unwrap();
    let shown = [0, 1, 2].map(|i| format!("{} open 2 served {}", addrs[i], [2, 4, 2][i]));
    proxy.until(&[&shown[0], &shown[1], &shown[2], "in 17 out 17", "unserved 0"]);
}

/// A backend that does not answer at all is given up after the time allowed, left alone for a
/// while, and the client is served by the next.
/// Planted: the timeout is not passed on; a backend that has failed does not rest.
#[test]
fn tcp_proxy_passes_over_a_backend_that_does_not_answer() {
    // A queue that is full: the system drops who knocks.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let silent_addr = silent.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&silent_addr, Duration::from_millis(300)) {
        fillers.push(filler);
        assert!(fillers.len() < 64, "the queue is never full");
    }
    let (listener, live_addr) = backend();
    let mut proxy = Proxy::start(
        &[silent_addr, live_addr],
        &["--connect-timeout-ms", "100", "--rest-s", "3600"],
    );
    let mut served = Vec::new();
    for _ in 0..5 {
        let client = proxy.example.connect();
        served.push((client, accept_any(std::slice::from_ref(&listener)).1));
    }
    let silent_shown = format!("{silent_addr} open 0 served 0 failed 1");
    proxy.until(&[&silent_shown, &format!("{live_addr} open 5 served 5 failed 0")]);
}

/// Planted: the connections to backends and the reporter counted too; a rest that goes on beyond
/// the clock.
#[test]
fn tcp_proxy_counts_the_clients_that_are_open() {
    let (listener, addr) = backend();
    let dead = Refusing::new();
    let mut proxy = Proxy::start(&[dead.addr(), addr], &["--rest-s", "18446744073709551615"]);
    let clients = [(); 3].map(|()| {
        let client = proxy.example.connect();
        (client, accept_any(std::slice::from_ref(&listener)).1)
    });
    proxy.until(&["accepted 3 open 3 in", &format!("{addr} open 3 served 3")]);
    drop(clients);
    proxy.until(&["accepted 3 open 0 in", &format!("{addr} open 0 served 3")]);
}

#[test]
fn tcp_proxy_refuses_a_backend_of_datagrams() {
    let output =
        example::command("tcp_proxy").args(["--backend", "udp://127.0.0.1:9"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("udp://127.0.0.1:9") && error.lines().count() == 1, "{error}");
}

/// Planted: no idle timeout.
#[test]
fn tcp_proxy_closes_what_is_idle_in_both_directions() {
    let (listener, addr) = backend();
    let mut proxy = Proxy::start(&[addr], &["--idle-timeout-s", "1"]);
    let mut client = proxy.example.connect();
    let (_, mut server) = accept_any(&[listener]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    proxy.until(&[&format!("{addr} open 0 served 1"), "unserved 0"]);
}

#[test]
fn tcp_proxy_uses_the_backends_that_are_there() {
    let echo = Example::start("echo", &[]);
    let dead = Refusing::new();
    let (dead, live) = (dead.addr().to_string(), echo.addr.to_string());
    let proxy = Example::start("tcp_proxy", &["--backend", &dead, "--backend", &live]);
    for _ in 0..5 {
        let mut client = proxy.connect();
        talk(&mut client, "through", "through");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    drop(echo);
    assert!(proxy.connect().read(&mut [0]).is_err(), "a reset when nobody is left");
}

#[test]
fn redis_answers_byte_for_byte() {
    let redis = Example::start("redis", &[]);
    let mut client = redis.connect();
    talk(&mut client, "PING\r\n", "+PONG\r\n");
    let pipeline = "SET n 41\r\nINCR n\r\nGET n\r\nINCR none\r\nDEL n none x\r\nGET n\r\n";
    talk(&mut client, pipeline, "+OK\r\n:42\r\n$2\r\n42\r\n:1\r\n:2\r\n$-1\r\n");
    talk(&mut client, "*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n");
    talk(&mut client, "LPUSH l a b c\r\nLRANGE l 0 -2\r\n", ":3\r\n*2\r\n$1\r\nc\r\n$1\r\nb\r\n");
    talk(&mut client, "SET t x EX 100\r\nTTL t\r\n", "+OK\r\n:100\r\n");
    talk(&mut client, "SET t x EX 0\r\n", "-ERR invalid expire time in 'set' command\r\n");
    talk(&mut client, "INCR t\r\n", "-ERR value is not an integer or out of range\r\n");
    talk(&mut client, "NONSENSE\r\n", "-ERR unknown command 'NONSENSE'\r\n");
    let mut subscriber = redis.connect();
    talk(&mut subscriber, "SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    talk(&mut client, "PUBLISH news hello\r\n", ":1\r\n");
    talk(&mut subscriber, "", "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    talk(&mut client, "QUIT\r\n", "+OK\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    talk(&mut subscriber, "*1\r\n!\r\n", "-ERR Protocol error: expected '$'\r\n");
}

/// Planted: the end of a range overflows (and the answers before it go to the next client); no
/// answer for UNSUBSCRIBE of nothing; commands behind QUIT are run; a PING with a message is
/// answered as if nothing were subscribed to; numbers are taken in any spelling.
#[test]
fn redis_answers_the_edges_as_redis_does() {
    let redis = Example::start("redis", &[]);
    let mut client = redis.connect();
    talk(&mut client, "LPUSH l a b\r\n", ":2\r\n");
    let (whole, huge) = ("*2\r\n$1\r\nb\r\n$1\r\na\r\n", i64::MAX);
    talk(&mut client, &format!("ECHO x\r\nLRANGE l 0 {huge}\r\n"), &format!("$1\r\nx\r\n{whole}"));
    talk(&mut client, &format!("LRANGE l {} {huge}\r\n", i64::MIN), whole);
    talk(&mut client, &format!("LRANGE l {huge} {}\r\n", i64::MIN), "*0\r\n");
    talk(&mut client, "UNSUBSCRIBE\r\n", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    for number in ["+5", "007", "-0", "-", ""] {
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nn\r\n${}\r\n{number}\r\n", number.len());
        talk(&mut client, &set, "+OK\r\n");
        talk(&mut client, "INCR n\r\n", "-ERR value is not an integer or out of range\r\n");
    }
    talk(&mut client, "SET n -1\r\nINCR n\r\nINCR n\r\n", "+OK\r\n:0\r\n:1\r\n");
    talk(&mut client, "SET n 1 NX XX\r\n", "-ERR syntax error\r\n");
    for (command, name) in [("EXISTS", "exists"), ("DBSIZE x", "dbsize"), ("CONFIG", "config")] {
        let says = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        talk(&mut client, &format!("{command}\r\n"), &says);
    }
    talk(&mut client, "CONFIG SET a b\r\n", "-ERR unknown subcommand 'SET'\r\n");
    talk(&mut client, "SET q 1\r\nQUIT\r\nSET q 2\r\n", "+OK\r\n+OK\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let mut client = redis.connect();
    talk(&mut client, "GET q\r\n", "$1\r\n1\r\n");
    talk(&mut client, "SUBSCRIBE c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    talk(&mut client, "PING hi\r\n", "*2\r\n$4\r\npong\r\n$2\r\nhi\r\n");
    talk(&mut client, "PING\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

/// Planted: a command that the parser allows is above the bound on input, and reset.
#[test]
fn redis_refuses_a_command_that_is_too_long() {
    let redis = Example::start("redis", &[]);
    let push = |lengths: &[usize]| {
        let mut command = format!("*{}\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n", lengths.len() + 2);
        for &length in lengths {
            command += &format!("${length}\r\n{}\r\n", "x".repeat(length));
        }
        command
    };
    let (half, less) = (512 << 10, (512 << 10) - 100);
    let mut client = redis.connect();
    talk(&mut client, &push(&[half, less]), ":2\r\n");
    talk(&mut client, &push(&[half, half, less]), "-ERR Protocol error: too big command\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Planted: 0 reactors are taken for the default.
#[test]
fn redis_has_one_reactor_by_default() {
    let output = example::command("redis").arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let reactors = help.split("--reactors").nth(1).and_then(|rest| rest.split("default: ").nth(1));
    assert!(reactors.is_some_and(|default| default.starts_with("1]")), "{help}");
}

#[test]
fn redis_serves_the_clients_of_the_distribution() {
    let redis = Example::start("redis", &[]);
    let port = redis.addr.port().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(["-p", &port]).args(arguments).output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: no {program} here (package redis-tools)");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if let Some(answer) = run("redis-cli", &["SET", "k", "v"]) {
        assert_eq!(answer, "OK\n");
        assert_eq!(run("redis-cli", &["GET", "k"]).unwrap(), "v\n");
        assert_eq!(run("redis-cli", &["CONFIG", "GET", "save"]).unwrap(), "save\n\n");
    }
    let flags = ["-t", "ping,set,get,incr,lpush", "-P", "16", "-n", "2000", "-q"];
    if let Some(report) = run("redis-benchmark", &flags) {
        assert_eq!(report.matches("requests per second").count(), 6, "{report}");
    }
}

#[test]
fn pool_asks_redis_for_its_clients() {
    let redis = Example::start("redis", &[]);
    talk(&mut redis.connect(), "SET k value\r\n", "+OK\r\n");
    let backend = redis.addr.to_string();
    let pool = Example::start("pool", &["--backend", &backend, "--max", "2"]);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| pool.connect()).collect();
    for client in &mut clients {
        client.write_all(b"k\nnone\nk\n").unwrap();
    }
    for client in &mut clients {
        talk(client, "", "value\r\n(nil)\r\nvalue\r\n");
    }
}

/// A pool of one connection, and a server that the test plays.
fn pool_and_backend() -> (Example, TcpListener) {
    let (listener, addr) = backend();
    let flags = ["--backend", &addr.to_string(), "--max", "1", "--min-idle", "0"];
    (Example::start("pool", &flags), listener)
}

fn accept(listener: &TcpListener) -> TcpStream {
    accept_any(std::slice::from_ref(listener)).1
}

/// What the pool sends for `key`.
fn get(key: &str) -> String {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
}

#[track_caller]
fn expect(stream: &mut TcpStream, expected: &str) {
    talk(stream, "", expected);
}

/// Planted: a question whose connection ends by a reset or an error is not answered; an empty line
/// is taken apart (a panic); the end of a reply is computed from a length that overflows; a reply
/// longer than may wait is waited for.
#[test]
fn pool_tells_a_client_when_the_server_breaks() {
    let (pool, listener) = pool_and_backend();
    let mut client = pool.connect();
    let mut server = None;
    let huge = format!("${}\r\n", i64::MAX);
    for reply in ["", "\r\n", "nonsense\r\n", "$-2\r\n", "$1\r\nvalue", "$1048577\r\n", &huge] {
        client.write_all(b"a\nb\n").unwrap();
        let mut asked = server.take().unwrap_or_else(|| accept(&listener));
        expect(&mut asked, &get("a"));
        let held = if reply.is_empty() {
            // Closed without time to linger: a reset.
            socket2::SockRef::from(&asked).set_linger(Some(Duration::ZERO)).unwrap();
            drop(asked);
            None
        } else {
            asked.write_all(reply.as_bytes()).unwrap();
            Some(asked)
        };
        let mut told = String::new();
        BufReader::new(&client).read_line(&mut told).unwrap();
        assert!(told.starts_with('(') && told.ends_with(")\r\n"), "{reply}: {told}");
        drop(held);
        let mut asked = accept(&listener);
        expect(&mut asked, &get("b"));
        asked.write_all(b"$5\r\nvalue\r\n").unwrap();
        expect(&mut client, "value\r\n");
        server = Some(asked);
    }
}

/// Planted: the client's end closes it while a question is under way.
#[test]
fn pool_answers_clients_that_have_ended() {
    let (pool, listener) = pool_and_backend();
    let mut server = None;
    for keys in [&["a"][..], &["a", "b", "c"]] {
        let mut client = pool.connect();
        client.write_all(format!("{}\n", keys.join("\n")).as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let server = server.get_or_insert_with(|| accept(&listener));
        for key in keys {
            expect(server, &get(key));
            server.write_all(b"+value\r\n").unwrap();
        }
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        assert_eq!(answers, "+value\r\n".repeat(keys.len()));
    }
}
