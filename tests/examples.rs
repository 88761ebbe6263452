//! The examples as their users meet them: started as programs, asked over sockets, stopped by
//! signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a busy machine; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of built examples. `cargo test` builds them; `cargo test --test examples` does not.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    path
}

/// A running example, which ends with the test.
struct Example {
    child: Child,
    banner: String,
}

impl Example {
    fn start(name: &str, flags: &[&str]) -> Example {
        Example::start_at("127.0.0.1:0", name, flags)
    }

    fn start_at(addr: &str, name: &str, flags: &[&str]) -> Example {
        let mut command = Command::new(example(name));
        command.args(["--addr", addr, "--reactors", "2", "--no-pin"]).args(flags);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the example starts");
        let mut banner = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut banner).expect("a banner");
        Example { child, banner }
    }

    fn addr(&self) -> SocketAddr {
        let after = self.banner.split("listening on ").nth(1).expect("a banner with an address");
        let addr = after.split(';').next().expect("an address");
        addr.parse().unwrap_or_else(|_| panic!("not an address: {}", self.banner))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).expect("the example accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        kill(pid, signal).expect("the example runs");
        self.child.wait().expect("the example ends")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended already in a test that passed
        let _ = self.child.wait();
    }
}

fn http() -> Example {
    Example::start("http_plaintext", &[])
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The value of a header, whose name has to be spelt as the server does.
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads one answer, to the last byte of its body and no further.
fn read_answer(from: &mut impl BufRead, has_body: bool) -> Answer {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        assert!(from.read_line(&mut line).expect("an answer") > 0, "cut short: {head:?}");
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let status = head.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
    let mut answer = Answer { status, head, body: String::new() };
    let length: usize = answer.header("Content-Length").expect("a length").parse().expect("digits");
    if has_body {
        let mut body = vec![0; length];
        from.read_exact(&mut body).expect("the whole body");
        answer.body = String::from_utf8(body).expect("text");
    }
    answer
}

fn ask(server: &Example, request: &str) -> Answer {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).expect("sent");
    read_answer(&mut BufReader::new(stream), !request.starts_with("HEAD"))
}

/// Sends `request` and reads to the end: the first answer, and whether anything follows it.
fn ask_to_the_end(server: &Example, request: &[u8]) -> (Answer, String) {
    let mut stream = server.connect();
    stream.write_all(request).expect("sent");
    let mut reader = BufReader::new(stream);
    let answer = read_answer(&mut reader, true);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("a FIN, not a reset");
    (answer, rest)
}

/// Planted: the address as it is printed, behind socat's ABSTRACT-CONNECT.
#[cfg(target_os = "linux")]
#[test]
fn the_banner_names_an_abstract_socket_as_socat_does() {
    let name = format!("reev-banner-{}", std::process::id());
    let server = Example::start_at(&format!("unix://@{name}"), "echo", &[]);
    let ends = format!("try: socat - ABSTRACT-CONNECT:{name}\n");
    assert!(server.banner.ends_with(&ends), "{}", server.banner);
}

/// Planted: the address as it is printed, behind http://.
#[test]
fn the_banners_of_unix_sockets_say_what_curl_takes() {
    for (name, path) in [
        ("http_plaintext", "/plaintext"),
        ("offload", "/hash/1000000"),
        ("static_files", "/FILE, with a FILE of ."),
        ("websocket", "/"),
    ] {
        let socket = format!("reev-banner-{}-{name}", std::process::id());
        let socket = std::env::temp_dir().join(socket).display().to_string();
        let server = Example::start_at(&format!("unix://{socket}"), name, &[]);
        let ends = format!("try: curl --unix-socket {socket} http://localhost{path}\n");
        assert!(server.banner.ends_with(&ends), "{}", server.banner);
        assert!(server.stop(Signal::SIGTERM).success());
    }
}

/// Planted: the address as it is bound.
#[test]
fn the_banners_of_wildcards_name_an_address_to_ask() {
    for (addr, name, says) in [
        ("0.0.0.0:0", "echo", "try: nc 127.0.0.1 "),
        ("0.0.0.0:0", "proactor_echo", "try: nc 127.0.0.1 "),
        ("0.0.0.0:0", "udp_echo", "try: nc -u 127.0.0.1 "),
        ("0.0.0.0:0", "dns_stub", "try: dig @127.0.0.1 -p "),
        ("0.0.0.0:0", "websocket", "try: open http://127.0.0.1:"),
        ("0.0.0.0:0", "static_files", "try: curl http://127.0.0.1:"),
        ("[::1]:0", "dns_stub", "try: dig @::1 -p "),
    ] {
        let server = Example::start_at(addr, name, &[]);
        assert!(server.banner.contains(says), "{}", server.banner);
    }
}

#[test]
fn echo_sends_back_what_it_gets_and_then_the_end() {
    let server = Example::start("echo", &[]);
    assert!(server.banner.contains("try: nc 127.0.0.1"), "{}", server.banner);
    let mut stream = server.connect();
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut writer = stream.try_clone().expect("a clone");
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write_all(&sent).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half-closed");
        }
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("all of it");
    writing.join().expect("written");
    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
    assert!(server.stop(Signal::SIGTERM).success());
}

/// Each connection has had an answer when the signal comes: one that still waits to be accepted is
/// reset by the kernel with its listener.
#[test]
fn signals_end_the_examples_cleanly_with_connections_open() {
    const GET: &str = "GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, signal, asks, answers) in [
        ("echo", Signal::SIGINT, "x", "x"),
        ("http_plaintext", Signal::SIGTERM, GET, "Hello, World!"),
        ("proactor_echo", Signal::SIGINT, "x", "x"),
        ("proactor_echo", Signal::SIGTERM, "x", "x"),
        ("proactor_push", Signal::SIGTERM, "", "GMT\r\n"),
    ] {
        let server = Example::start(name, &[]);
        let mut client = server.connect();
        client.write_all(asks.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(answers.as_bytes()) {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        let reader =
            std::thread::spawn(move || client.read_to_end(&mut Vec::new()).expect("a FIN"));
        assert!(server.stop(signal).success(), "{name}");
        let read = reader.join().expect("read");
        assert!(read == 0 || name == "proactor_push", "{name} sent {read} bytes");
    }
}

/// Who reads the banner may stop the server at once.
/// Planted: the banner before the signals' handlers.
#[test]
fn a_signal_straight_after_the_banner_ends_the_proactor_examples_cleanly() {
    for name in ["proactor_echo", "proactor_push"].into_iter().cycle().take(40) {
        let status = Example::start(name, &[]).stop(Signal::SIGTERM);
        assert!(status.success(), "{name}: {status}");
    }
}

#[test]
fn help_names_the_flags_and_their_defaults() {
    for (name, default) in [
        ("echo", "127.0.0.1:7000"),
        ("http_plaintext", "127.0.0.1:8080"),
        ("static_files", "127.0.0.1:8081"),
        ("offload", "127.0.0.1:8082"),
        ("proactor_echo", "127.0.0.1:7001"),
        ("proactor_push", "127.0.0.1:7002"),
    ] {
        let output = Command::new(example(name)).arg("--help").output().expect("it starts");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        for word in ["--addr", "--no-pin", default] {
            assert!(help.contains(word), "{name} --help lacks {word}: {help}");
        }
    }
}

/// Planted: the help of the servers of streams for all.
#[test]
fn help_promises_nothing_that_is_refused() {
    for (name, has, lacks) in [
        ("proactor_echo", "tcp4://:port", &["unix:", "--spin-us"][..]),
        ("proactor_push", "tcp4://:port", &["unix:", "--spin-us", "--reactors"]),
        ("udp_echo", "unixgram:///path", &["tcp", "unix:"]),
        ("dns_stub", "unixgram:///path", &["tcp", "unix:"]),
    ] {
        for flag in ["--help", "-h"] {
            let output = Command::new(example(name)).arg(flag).output().expect("it starts");
            let help = String::from_utf8_lossy(&output.stdout);
            assert!(help.contains(has), "{name} {flag}: {help}");
            for word in lacks {
                assert!(!help.contains(word), "{name} {flag} has {word}: {help}");
            }
        }
    }
}

#[test]
fn what_cannot_be_served_is_told_in_a_line() {
    let taken = Example::start("echo", &[]);
    let taken_addr = taken.addr().to_string();
    // Only members of the same process's group share a port; a plain socket is refused.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let plain_addr = plain.local_addr().expect("an address").to_string();
    for (addr, says) in [("nonsense", "no port"), (plain_addr.as_str(), "in use")] {
        let output = Command::new(example("echo")).args(["--addr", addr]).output();
        let output = output.expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(error.contains(says) && error.contains(addr), "{addr}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(TcpStream::connect(taken_addr).is_ok());
}

#[test]
fn proactor_echo_serves_each_client_what_it_sent() {
    let server = Example::start("proactor_echo", &[]);
    assert!(server.banner.contains("try: nc 127.0.0.1"), "{}", server.banner);
    let clients: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    std::thread::scope(|scope| {
        for (i, mut client) in clients.iter().enumerate() {
            let sent: Vec<u8> = (0..500_000).map(|n| (n * 7 + i * 31 + n / 251) as u8).collect();
            scope.spawn(move || {
                std::thread::scope(|scope| {
                    scope.spawn(|| (&*client).write_all(&sent).expect("it is read"));
                    let mut echo = vec![0; sent.len()];
                    client.read_exact(&mut echo).expect("an echo");
                    assert!(echo == sent, "client {i} got something else");
                });
                client.shutdown(Shutdown::Write).expect("a FIN");
                assert_eq!(client.read(&mut [0]).expect("its FIN"), 0);
            });
        }
    });
    assert!(server.stop(Signal::SIGINT).success());
}

#[test]
fn proactor_push_tells_all_clients_the_time() {
    let server = Example::start("proactor_push", &[]);
    let clients: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    drop(server.connect()); // one that has left harms nobody
    for client in &clients {
        let mut lines = BufReader::new(client).lines();
        let mut time = || {
            let line = lines.next().expect("a line").expect("in time");
            httpdate::parse_http_date(&line).expect("a date")
        };
        let first = time();
        assert!(time() >= first);
    }
    assert!(server.stop(Signal::SIGINT).success());
}

/// Lines are a second apart, less what one of them is late: three never have the same date.
/// Planted: what a pause left out is sent at once.
#[test]
fn proactor_push_leaves_out_what_a_pause_has_missed() {
    const PAUSE: Duration = Duration::from_secs(5); // five lines, at least three of one second
    let server = Example::start("proactor_push", &[]);
    let mut lines = BufReader::new(server.connect()).lines();
    let mut line = || lines.next().expect("a line").expect("in time");
    line();
    let pid = Pid::from_raw(server.child.id().try_into().expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("it runs");
    std::thread::sleep(PAUSE);
    kill(pid, Signal::SIGCONT).expect("it runs");
    let after: Vec<String> = (0..5).map(|_| line()).collect();
    assert!(after.windows(3).all(|three| three[0] != three[2]), "{after:?}");
    assert!(server.stop(Signal::SIGINT).success());
}

#[test]
fn plaintext_and_json_follow_the_rules() {
    let server = http();
    let plain = ask(&server, "GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((plain.status, plain.body.as_str()), (200, "Hello, World!"));
    assert_eq!(plain.header("Content-Type"), Some("text/plain"));
    assert_eq!(plain.header("Connection"), None);
    let json = ask(&server, "GET /json?queries=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((json.status, json.body.as_str()), (200, r#"{"message":"Hello, World!"}"#));
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    for answer in [plain, json] {
        assert!(answer.head.starts_with("HTTP/1.1 "));
        assert_eq!(answer.header("Server"), Some("reev"));
        let date = answer.header("Date").expect("a date");
        let told = httpdate::parse_http_date(date).expect("an HTTP date");
        let off = told.elapsed().unwrap_or_default();
        assert!(off < PATIENCE, "the date {date} is {off:?} old");
    }
}

#[test]
fn the_date_moves_on() {
    let server = http();
    let mut reader = BufReader::new(server.connect());
    let mut date = || {
        let request = b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n";
        reader.get_mut().write_all(request).expect("sent");
        read_answer(&mut reader, true).header("Date").map(str::to_owned).expect("a date")
    };
    let first = date();
    let started = std::time::Instant::now();
    while date() == first {
        assert!(started.elapsed() < PATIENCE, "still {first}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn paths_and_methods_get_their_status() {
    let server = http();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET http://x/json HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("\r\nGET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /plaintext/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("DELETE /plaintext HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ] {
        let answer = ask(&server, request);
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.header("Allow").is_some(), status == 405, "{request:?}");
        assert_eq!(answer.header("Connection"), None, "{request:?}");
    }
    let root = ask(&server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").body;
    assert!(root.contains("/plaintext") && root.contains("/json") && root.lines().count() == 1);
}

#[test]
fn head_is_get_without_the_body() {
    let server = http();
    for path in ["/plaintext", "/json", "/", "/other"] {
        let mut stream = server.connect();
        let pair = format!(
            "HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        stream.write_all(pair.as_bytes()).expect("sent");
        let mut reader = BufReader::new(stream);
        let head = read_answer(&mut reader, false);
        let get = read_answer(&mut reader, true);
        assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
        assert_eq!((head.status, head.head.len()), (get.status, get.head.len()), "{path}");
    }
}

#[test]
fn sixteen_pipelined_requests_are_answered_in_order() {
    let server = http();
    let paths = ["/plaintext", "/json", "/", "/other"];
    let request = |i: usize| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", paths[i % 4]);
    let bodies =
        paths.map(|path| ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).body);
    let mut stream = server.connect();
    let all: String = (0..16).map(request).collect();
    stream.write_all(all.as_bytes()).expect("sent");
    let mut reader = BufReader::new(stream);
    for i in 0..16 {
        assert_eq!(read_answer(&mut reader, true).body, bodies[i % 4], "answer {i}");
    }
}

#[test]
fn requests_may_come_byte_by_byte() {
    let server = http();
    let mut stream = server.connect();
    for _ in 0..2 {
        for byte in b"GET /json HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n" {
            stream.write_all(&[*byte]).expect("sent");
        }
        let answer = read_answer(&mut BufReader::new(&mut stream), true);
        assert_eq!((answer.status, answer.body.len()), (200, 27));
    }
}

#[test]
fn connections_stay_and_end_as_the_client_asks() {
    let server = http();
    for (request, connection, stays) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n", None, true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n", None, true),
        ("GET / HTTP/1.1\r\nHost: x\r\nconnection: foo, CLOSE\r\n", Some("close"), false),
        ("GET / HTTP/1.0\r\n", Some("close"), false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", Some("keep-alive"), true),
    ] {
        let mut stream = server.connect();
        stream.write_all(format!("{request}\r\n").repeat(2).as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half-closed");
        let mut reader = BufReader::new(stream);
        assert_eq!(read_answer(&mut reader, true).header("Connection"), connection, "{request:?}");
        if stays {
            assert_eq!(read_answer(&mut reader, true).status, 200, "{request:?}");
        }
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("a FIN");
        assert_eq!(rest, "", "{request:?}");
    }
}

#[test]
fn bad_requests_are_refused_and_the_connection_closed() {
    let server = http();
    for request in [
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTX/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let after = "GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n";
        let (answer, rest) = ask_to_the_end(&server, format!("{request}{after}").as_bytes());
        assert_eq!((answer.status, rest.as_str()), (400, ""), "{request:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{request:?}");
    }
}

#[test]
fn static_files_serves_its_folder_and_nothing_else() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    let server = Example::start("static_files", &["--root", root]);
    let page = ask(&server, "GET /design.md HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(page.header("Content-Type"), Some("text/markdown; charset=utf-8"));
    assert_eq!(page.body, std::fs::read_to_string(format!("{root}/design.md")).expect("it"));
    let part = "GET /design.md HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\n\r\n";
    assert_eq!((ask(&server, part).status, ask(&server, part).body.len()), (206, 4));
    for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml"] {
        assert_eq!(ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).status, 404);
    }
    let missing = Command::new(example("static_files")).args(["--root", "/none"]).output();
    let missing = missing.expect("it starts");
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/none"));
}

#[test]
fn offload_answers_from_its_pool_in_order() {
    let server = Example::start("offload", &["--threads", "2", "--queue", "8"]);
    let mut stream = server.connect();
    let paths = ["/hash/3000000", "/hash/0", "/", "/hash/1", "/none"];
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
    }
    let mut reader = BufReader::new(stream);
    let answers: Vec<Answer> = paths.iter().map(|_| read_answer(&mut reader, true)).collect();
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 200, 200, 404]);
    assert_eq!(answers[1].body, "cbf29ce484222325\n");
    assert_ne!(answers[0].body, answers[3].body);
}

/// Planted: a pool of no threads, whose jobs wait for ever.
#[test]
fn offload_refuses_a_pool_of_no_threads() {
    let server = Example::start("offload", &["--threads", "0"]);
    assert_eq!(server.banner, "");
}

#[test]
fn headers_above_the_bounds_are_refused() {
    let server = http();
    let head = "GET / HTTP/1.1\r\nHost: x\r\n";
    let of_size = |size: usize| {
        let fill = size - head.len() - "Fill: \r\n\r\n".len();
        format!("{head}Fill: {}\r\n\r\n", "x".repeat(fill))
    };
    assert_eq!(ask(&server, &of_size(8192)).status, 200);
    let many = |n: usize| format!("{head}{}\r\n", "A: b\r\n".repeat(n - 1));
    assert_eq!(ask(&server, &many(64)).status, 200);
    let endless_name = "GET /".to_owned() + &"x".repeat(10_000);
    for (request, status) in
        [(of_size(8193), 431), (of_size(100_000), 431), (many(65), 431), (endless_name, 414)]
    {
        let (answer, rest) = ask_to_the_end(&server, request.as_bytes());
        assert_eq!((answer.status, rest.as_str()), (status, ""));
        assert_eq!(answer.header("Connection"), Some("close"));
    }
}

#[test]
fn bodies_are_skipped_and_the_next_request_is_found() {
    let server = http();
    let mut stream = server.connect();
    let looks_like_one = "GET /json HTTP/1.1\r\nHost: x\r\n\r\n";
    for length in [0, 1, 33, 70_000, 1 << 20] {
        let body: String = looks_like_one.chars().cycle().take(length).collect();
        let request = format!(
            "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}\
             GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reader = BufReader::new(&mut stream);
        assert_eq!(read_answer(&mut reader, true).status, 405, "{length}");
        assert_eq!(read_answer(&mut reader, true).body, "Hello, World!", "{length}");
    }
}

#[test]
fn a_body_that_is_refused_ends_the_connection() {
    let server = http();
    let after = "0\r\n\r\nGET /json HTTP/1.1\r\nHost: x\r\n\r\n";
    for (header, status) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        ("Transfer-Encoding: gzip", 501),
        ("Expect: more\r\nContent-Length: 3", 417),
        ("Content-Length: 1048577", 413),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n{after}");
        let (answer, rest) = ask_to_the_end(&server, request.as_bytes());
        assert_eq!((answer.status, rest.as_str()), (status, ""), "{header:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{header:?}");
    }
}

#[test]
fn curl_agrees() {
    let server = http();
    let curl = |flags: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(flags);
        command.arg(format!("http://{}{path}", server.addr())).output()
    };
    let Ok(plain) = curl(&[], "/plaintext") else {
        return eprintln!("skipped: no curl here");
    };
    let text = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(text(plain), "Hello, World!");
    let json = text(curl(&["--http1.0"], "/json").expect("curl"));
    assert_eq!(json, r#"{"message":"Hello, World!"}"#);
    assert!(text(curl(&["--head"], "/plaintext").expect("curl")).contains("Content-Length: 13"));
    assert!(!curl(&[], "/other").expect("curl").status.success());
}

/// Planted: the counters of the second reactor are left out.
#[test]
fn top_tells_prometheus_what_its_echo_did() {
    let top = Example::start("top", &["--metrics-addr", "127.0.0.1:0"]);
    for _ in 0..20 {
        let mut stream = top.connect();
        stream.write_all(b"hello").expect("it reads");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).expect("it answers");
        assert_eq!(&echo, b"hello");
    }
    let metrics = top.banner.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let ask = |method: &str, target: &str| -> String {
        let mut stream = TcpStream::connect(metrics.expect("an address")).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answer = ask("GET", "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let sum = |name: &str| -> u64 {
        let lines = answer.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let values = lines.filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().expect("a number")).sum()
    };
    assert_eq!(sum("reev_accepted_total"), 21, "{answer}");
    assert_eq!(sum("reev_sent_bytes_total"), 100, "{answer}");
    assert!(ask("GET", "/metrics?x=1").starts_with("HTTP/1.1 200 "));
    assert!(ask("GET", "/").starts_with("HTTP/1.1 404 "));
    let head = ask("HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let refused = ask("POST", "/metrics");
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"));
    assert!(top.stop(Signal::SIGTERM).success());
}
