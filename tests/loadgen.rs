//! The load generator as its users meet it: run as a program against the examples that serve, and
//! against servers that misbehave. No test waits for a number of answers in a given time: the load
//! is stopped by Ctrl-C when there are some.

// The parts of the generator, for their own tests: `cargo test` builds an example as a program or
// as tests, and the program is wanted below.
#[allow(dead_code)]
#[path = "../examples/loadgen/chart.rs"]
mod chart;
#[allow(dead_code)]
#[path = "../examples/loadgen/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../examples/loadgen/conductor.rs"]
mod conductor;
#[allow(dead_code)]
#[path = "../examples/loadgen/echo.rs"]
mod echo;
#[allow(dead_code)]
#[path = "../examples/loadgen/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../examples/loadgen/line.rs"]
mod line;
#[allow(dead_code)]
#[path = "../examples/loadgen/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../examples/loadgen/options.rs"]
mod options;
#[allow(dead_code)]
#[path = "../examples/loadgen/progress.rs"]
mod progress;
#[allow(dead_code)]
#[path = "../examples/loadgen/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../examples/loadgen/schedule.rs"]
mod schedule;
#[allow(dead_code)]
#[path = "../examples/loadgen/tally.rs"]
mod tally;
#[allow(dead_code)]
#[path = "../examples/loadgen/target.rs"]
mod target;
#[allow(dead_code)]
#[path = "../examples/loadgen/ws.rs"]
mod ws;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// The folder of built examples. `cargo test` builds them; `cargo test --test loadgen` does not.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    path
}

/// An example that serves, and ends with the test.
struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(name: &str) -> Server {
        Server::at(name, "127.0.0.1:0")
    }

    fn at(name: &str, addr: &str) -> Server {
        let mut command = Command::new(example(name));
        command.args(["--addr", addr, "--reactors", "2", "--no-pin"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the example starts");
        let mut banner = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut banner).expect("a banner");
        let addr = banner.split("listening on ").nth(1).and_then(|rest| rest.split(';').next());
        let addr = addr.expect("a banner with an address").to_owned();
        Server { child, addr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load, with its results as JSON.
struct Load {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

struct Results {
    json: Value,
    stderr: String,
    success: bool,
}

impl Load {
    fn start(arguments: &[&str]) -> Load {
        let mut command = Command::new(example("loadgen"));
        command.args(arguments).args(["--json", "-", "--progress"]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Load { child, stderr }
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
    }

    /// Ctrl-C when the progress line has what `part` says.
    fn until(mut self, part: &str) -> Results {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).expect("text");
            assert!(read > 0, "no {part:?} in its progress: {seen}");
            if line.contains(part) {
                break;
            }
            seen.push_str(&line);
        }
        self.interrupt();
        let results = self.finish();
        assert_eq!(results.json["interrupted"], true);
        results
    }

    fn finish(mut self) -> Results {
        let mut stderr = String::new();
        let reading = thread::spawn(move || {
            self.stderr.read_to_string(&mut stderr).expect("text");
            stderr
        });
        let Output { status, stdout, .. } = self.child.wait_with_output().expect("it ends");
        let stderr = reading.join().expect("read");
        let json = match stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&stdout).expect("JSON"),
        };
        Results { json, stderr, success: status.success() }
    }
}

/// Loads until some answers have come.
fn until_answered(arguments: &[&str]) -> Value {
    let forever = ["--duration", "10m", "--warmup", "0"];
    let results = Load::start(&[arguments, &forever].concat()).until("answers a second");
    assert!(results.success, "{}", results.stderr);
    check_accounts(&results.json);
    assert!(number(&results.json, "/requests/answered") > 0);
    results.json
}

#[track_caller]
fn number(json: &Value, pointer: &str) -> u64 {
    let found = json.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {pointer}: {json:#}"))
}

/// Every request is accounted for, and the times are those of the answers.
#[track_caller]
fn check_accounts(json: &Value) {
    let of = |name: &str| number(json, &format!("/requests/{name}"));
    assert_eq!(of("sent"), of("answered") + of("failed") + of("unanswered"), "{json:#}");
    if json["rate"].is_null() {
        assert!(json["requests"]["scheduled"].is_null() && json["lateness"].is_null());
    } else {
        assert_eq!(of("scheduled"), of("sent") + of("unsent"), "{json:#}");
    }
    if of("answered") > 0 {
        for times in ["latency", "latency_from_send", "lateness"] {
            if !json[times].is_null() {
                assert_eq!(number(json, &format!("/{times}/count")), of("answered"));
            }
        }
        let times = |name: &str| number(json, &format!("/latency/{name}"));
        let p = |name: &str| times(&format!("percentiles_ns/{name}"));
        let ordered = [times("min_ns"), p("p50"), p("p90"), p("p99"), p("p99.9"), times("max_ns")];
        assert!(ordered.is_sorted(), "{ordered:?}");
        let bars = json["latency"]["bars"].as_array().expect("bars");
        let in_bars: u64 = bars.iter().map(|bar| number(bar, "/count")).sum();
        assert_eq!(in_bars, of("answered"));
    }
}

#[test]
fn echo_in_a_closed_loop() {
    let server = Server::start("echo");
    let flags = ["-c", "5", "--threads", "2", "--depth", "3", "--size", "100"];
    let json = until_answered(&[&["echo", server.addr.as_str()], &flags[..]].concat());
    assert_eq!((&json["mode"], &json["target"]), (&"echo".into(), &server.addr.as_str().into()));
    assert_eq!((number(&json, "/threads"), number(&json, "/depth")), (2, 3));
    assert_eq!(number(&json, "/connections/opened"), 5);
    assert_eq!(number(&json, "/connections/open_at_end"), 5);
    assert_eq!(number(&json, "/connections/time/count"), 5);
    assert_eq!(json["errors"], serde_json::json!({}));
    assert!(json["throughput"]["answers_per_s"].as_f64().expect("a number") > 0.0);
    assert!(json["throughput"]["bytes_in_per_s"].as_f64().expect("a number") > 0.0);
}

/// A message above every mark and buffer, both ways at once.
#[test]
fn echo_of_long_messages() {
    let server = Server::start("echo");
    let flags = ["echo", &server.addr, "-c", "2", "--size", "3000000", "--depth", "2"];
    assert_eq!(until_answered(&flags)["errors"], serde_json::json!({}));
}

#[test]
fn names_and_unix_sockets_are_targets() {
    let server = Server::start("echo");
    let named = server.addr.replace("127.0.0.1", "localhost");
    until_answered(&["echo", &named]);
    let path = std::env::temp_dir().join(format!("reev-loadgen-{}.sock", std::process::id()));
    let target = format!("unix://{}", path.display());
    let _server = Server::at("http_plaintext", &target);
    let json = until_answered(&["http", &target, "--path", "/plaintext"]);
    assert_eq!(number(&json, "/statuses/200"), number(&json, "/requests/answered"));
    std::fs::remove_file(path).unwrap(); // its server is killed, and leaves it
}

#[test]
fn http_counts_statuses() {
    let server = Server::start("http_plaintext");
    for (path, more, status) in [
        ("/plaintext", &["--depth", "16"][..], 200),
        ("/json", &["-X", "HEAD", "-H", "X-Y: z"], 200),
        ("/none", &["--rate", "200"], 404),
        ("/plaintext", &["-X", "POST", "--body", "some", "--depth", "2"], 405),
    ] {
        let url = format!("http://{}{path}", server.addr);
        let json = until_answered(&[&["http", url.as_str(), "-c", "3"], more].concat());
        let answered = number(&json, "/requests/answered");
        assert_eq!(json["statuses"], serde_json::json!({ status.to_string(): answered }), "{path}");
        assert_eq!(json["errors"], serde_json::json!({}), "{path}");
    }
}

#[test]
fn http_makes_new_connections_if_it_is_told_to() {
    let server = Server::start("http_plaintext");
    let url = format!("http://{}/plaintext", server.addr);
    let json = until_answered(&["http", &url, "-c", "2", "--requests-per-connection", "1"]);
    assert!(number(&json, "/connections/opened") >= number(&json, "/requests/answered"));
    assert_eq!(json["errors"], serde_json::json!({}));
}

#[test]
fn ws_sends_messages_of_both_kinds() {
    let server = Server::start("ws_echo");
    let url = format!("ws://{}/", server.addr);
    for more in [&["--depth", "4"][..], &["--text", "--deflate"], &["--rate", "300"]] {
        let json = until_answered(&[&["ws", url.as_str(), "-c", "3"], more].concat());
        assert_eq!(number(&json, "/connections/opened"), 3);
        assert_eq!(json["errors"], serde_json::json!({}), "{more:?}");
    }
}

#[test]
fn ws_tells_why_a_handshake_failed() {
    let server = Server::start("ws_echo");
    let url = format!("ws://{}/none", server.addr);
    let results = Load::start(&["ws", &url, "-c", "2", "-d", "10m"]).finish();
    assert!(!results.success);
    assert!(results.stderr.contains("404"), "{}", results.stderr);
    assert_eq!(number(&results.json, "/connections/opened"), 0);
}

#[test]
fn idle_holds_connections() {
    let server = Server::start("echo");
    let flags = ["idle", &server.addr, "-c", "200", "-t", "2", "-d", "10m"];
    let results = Load::start(&flags).until("200 connections");
    assert!(results.success, "{}", results.stderr);
    assert_eq!(number(&results.json, "/connections/opened"), 200);
    assert_eq!(number(&results.json, "/connections/open_at_end"), 200);
    assert_eq!(number(&results.json, "/requests/sent"), 0);
}

/// What is due depends on rate and time alone, not on how fast machine and server are.
#[test]
fn a_fixed_rate_has_its_requests_whether_they_are_sent_or_not() {
    let server = Server::start("echo");
    for (rate, time, due) in [("500", "400ms", 200), ("20", "250ms", 5), ("100000", "50ms", 5000)] {
        let flags = ["--rate", rate, "-d", time, "--warmup", "100ms", "-c", "7", "-t", "2"];
        let results = Load::start(&[&["echo", server.addr.as_str()], &flags[..]].concat()).finish();
        check_accounts(&results.json);
        assert_eq!(number(&results.json, "/requests/scheduled"), due, "{rate} for {time}");
        assert_eq!(results.json["interrupted"], false);
    }
}

/// Where a connection may have any number of requests under way, all that are due can be sent, those
/// too whose timers come after the end.
/// Planted: nothing is sent after the end, though it was due before.
#[test]
fn what_is_due_in_the_last_moment_is_sent() {
    let server = Server::start("echo");
    let flags = ["--rate", "20000", "-d", "300ms", "--warmup", "0", "-c", "7", "--depth", "6000"];
    let target = ["echo", server.addr.as_str()];
    let results = Load::start(&[&target[..], &flags].concat()).finish();
    check_accounts(&results.json);
    assert_eq!(number(&results.json, "/requests/scheduled"), 6000);
    assert_eq!(number(&results.json, "/requests/unsent"), 0, "{:#}", results.json);
}

/// Planted: a number of spare descriptors that does not grow with the threads.
#[test]
fn many_threads_have_descriptors_enough() {
    let server = Server::start("echo");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64 && exec \"$0\" \"$@\""]).arg(example("loadgen"));
    command.args(["idle", &server.addr, "-c", "60", "-t", "60", "-d", "100ms"]);
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("60 made"), "{output:?}");
}

/// Planted: the file opened after the run.
#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("an address").to_string();
    let mut command = Command::new(example("loadgen"));
    command.args(["idle", &target, "-d", "100ms", "--json", "/none/report.json"]);
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("/none/report.json"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    listener.set_nonblocking(true).expect("it can be");
    assert!(listener.accept().is_err(), "nothing was run");
}

/// A server on a thread: `serve` has each connection in turn.
fn scripted(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.expect("a connection"));
        }
    });
    addr
}

/// Coordinated omission: requests that were due while the server stalled count from then on.
#[test]
fn a_stall_shows_in_every_request_it_delayed() {
    const STALL: Duration = Duration::from_millis(400);
    let (tell, told) = mpsc::channel();
    let addr = scripted(move |mut stream| {
        let mut message = [0; 128];
        for count in 0.. {
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            if count == 0 {
                thread::sleep(STALL);
            }
            if count == 50 {
                tell.send(()).expect("the test waits");
            }
            let _ = stream.write_all(&message);
        }
    });
    let load = Load::start(&["echo", &addr, "-c", "1", "--rate", "100", "--warmup", "0"]);
    told.recv().expect("requests come");
    load.interrupt();
    let json = load.finish().json;
    check_accounts(&json);
    // The first took the stall, those of the next 400 ms what was left of it.
    let slow = |times: &str| -> u64 {
        let bars = json[times]["bars"].as_array().expect("bars").iter();
        let above = bars.skip_while(|bar| number(bar, "/up_to_ns") <= 100_000_000);
        above.map(|bar| number(bar, "/count")).sum()
    };
    assert!(number(&json, "/latency/max_ns") >= 395_000_000, "{json:#}");
    assert!(number(&json, "/lateness/max_ns") >= 385_000_000, "{json:#}");
    assert!(slow("latency") >= 25, "{json:#}");
}

#[test]
fn a_server_that_refuses_is_told_in_a_line() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    let bound = socket.local_addr().expect("an address").as_socket().expect("of IP");
    let target = bound.to_string();
    for mode in ["echo", "http", "ws", "idle"] {
        let results = Load::start(&[mode, &target, "-c", "3", "-d", "10m"]).finish();
        assert!(!results.success);
        let lines = results.stderr.lines();
        let said: Vec<&str> = lines.filter(|line| !line.starts_with("connecting")).collect();
        let [said] = said[..] else { panic!("not one line: {}", results.stderr) };
        assert!(said.contains("connection refused") && said.contains(&target), "{said}");
        let refused = &results.json["errors"]["connect: connection refused"];
        assert_eq!(number(refused, "/count"), 3);
        assert_eq!(number(&results.json, "/connections/opened"), 0);
    }
}

/// Reads one request's head.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

#[test]
fn http_takes_answers_of_every_framing() {
    for (answer, connections) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 2),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", 2),
    ] {
        let stays = connections == 1;
        let addr = scripted(move |mut stream| {
            while read_head(&mut stream) {
                let _ = stream.write_all(answer.as_bytes());
                if !stays {
                    return;
                }
            }
        });
        let json = until_answered(&["http", &addr, "-c", "1"]);
        assert_eq!(number(&json, "/statuses/200"), number(&json, "/requests/answered"));
        assert_eq!(json["errors"], serde_json::json!({}), "{answer:?}");
        assert!(number(&json, "/connections/opened") >= connections, "{answer:?}");
    }
}

/// The error's kind, when the progress line has told of errors.
fn error_of(mode: &str, flags: &[&str], serve: impl Fn(TcpStream) + Send + 'static) -> Value {
    let addr = scripted(serve);
    let flags = [&[mode, &addr, "-c", "2", "-d", "10m", "--warmup", "0"], flags].concat();
    let results = Load::start(&flags).until("errors");
    check_accounts(&results.json);
    assert_eq!(number(&results.json, "/requests/answered"), 0);
    results.json["errors"].clone()
}

#[test]
fn errors_are_counted_by_kind() {
    let errors = error_of("http", &[], |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"SSH-2.0-nonsense\r\n\r\n");
    });
    assert!(number(&errors, "/not an HTTP answer/count") > 0, "{errors}");
    let errors = error_of("http", &[], |mut stream| {
        read_head(&mut stream);
    });
    assert!(number(&errors, "/closed by the server before it answered/count") > 0, "{errors}");
    let errors = error_of("echo", &[], |mut stream| {
        let mut message = [0; 128];
        if stream.read_exact(&mut message).is_ok() {
            let _ = stream.write_all(&[b'x'; 128]);
        }
        let _ = stream.read(&mut message);
    });
    assert!(number(&errors, "/not an echo/count") > 0, "{errors}");
    let (keep, _kept) = mpsc::channel();
    let errors = error_of("echo", &["--timeout", "20ms"], move |stream| {
        let _ = keep.send(stream); // open, and without an answer
    });
    assert!(number(&errors, "/no answer in time/count") > 0, "{errors}");
}

#[test]
fn a_server_that_never_answers_is_told() {
    let (keep, _kept) = mpsc::channel();
    let addr = scripted(move |stream| {
        let _ = keep.send(stream);
    });
    let flags = ["-c", "2", "-d", "300ms", "--warmup", "0", "--drain", "0", "--rate", "100"];
    let results = Load::start(&[&["echo", addr.as_str()], &flags[..]].concat()).finish();
    assert!(!results.success);
    assert!(results.stderr.contains("no request was answered"), "{}", results.stderr);
    check_accounts(&results.json);
    assert_eq!(number(&results.json, "/requests/scheduled"), 30);
    assert_eq!(number(&results.json, "/requests/answered"), 0);
    assert!(number(&results.json, "/requests/unsent") >= 28);
}

#[test]
fn the_report_is_for_people_and_the_json_goes_to_a_file() {
    let server = Server::start("http_plaintext");
    let path = std::env::temp_dir().join(format!("reev-loadgen-{}.json", std::process::id()));
    let url = format!("http://{}/plaintext", server.addr);
    let mut command = Command::new(example("loadgen"));
    command.args(["http", &url, "-d", "300ms", "--warmup", "0", "--rate", "100", "--json"]);
    let output = command.arg(&path).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["Answers", "30 due", "Connections  64 made", "Requests"] {
        assert!(text.contains(part), "no {part:?}: {text}");
    }
    let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    std::fs::remove_file(path).expect("it is there");
    check_accounts(&json);
    assert!(output.stderr.is_empty(), "no progress where there is no terminal");
}

#[test]
fn what_makes_no_sense_is_told_in_a_line() {
    for (arguments, says) in [
        (&["http", "https://127.0.0.1:1/"][..], "TLS"),
        (&["http", "127.0.0.1:1", "-H", "nonsense"], "write 'Name: value'"),
        (&["ws", "127.0.0.1:1", "--path", "x"], "begins with /"),
        (&["echo", "nonsense"], "no port"),
        (&["echo", "udp://127.0.0.1:1"], "not for datagrams"),
        (&["idle", "127.0.0.1:1", "-c", "5000000000"], "ulimit"),
        (&["idle", "127.0.0.1:1", "-c", "18446744073709551615"], "ulimit"),
        (&["echo", "127.0.0.1:1", "-d", "0"], "--duration is 0"),
        (&["echo", "127.0.0.1:1", "--timeout", "0"], "--timeout is 0"),
    ] {
        let output = Command::new(example("loadgen")).args(arguments).output().expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let output = Command::new(example("loadgen")).args(["echo", "--help"]).output();
    let help = String::from_utf8_lossy(&output.expect("it starts").stdout).into_owned();
    for word in ["--rate", "--depth", "--connections", "--duration", "[default: 10s]", "--json"] {
        assert!(help.contains(word), "--help lacks {word}: {help}");
    }
}
