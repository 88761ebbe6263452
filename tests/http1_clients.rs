//! Clients that other people wrote. One that is not installed is skipped, and says so.
#![cfg(feature = "http1")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "support/http1_site.rs"]
mod site;

use site::{BIG, Running};

/// Runs a program with input; None if it is not installed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join().expect("no panic"); // it may have ended without reading all
    Some(output)
}

/// What curl prints: the content, then the status and the version.
fn curl(server: &Running, arguments: &[&str], path: &str, input: &[u8]) -> Option<String> {
    let url = format!("http://{}{path}", server.addr);
    let format = " %{http_code} %{http_version}";
    let usual = ["--silent", "--show-error", "--max-time", "60", "--write-out", format, &url];
    let output = run("curl", &[arguments, &usual].concat(), input)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn curl_of_both_versions() {
    let server = Running::start();
    let Some(answer) = curl(&server, &["--http1.1"], "/hello", b"") else {
        return;
    };
    assert_eq!(answer, "hello 200 1.1");
    assert_eq!(curl(&server, &["--http1.0"], "/hello", b"").unwrap(), "hello 200 1.1");
    for version in ["--http1.0", "--http1.1"] {
        let lines = curl(&server, &[version], "/lines", b"").unwrap();
        assert_eq!(lines.lines().count(), 101, "{version}");
        assert!(lines.ends_with("line 99\n 200 1.1"), "{version}");
    }
    assert_eq!(curl(&server, &[], "/later", b"").unwrap(), "from a thread 200 1.1");
    assert!(curl(&server, &["--head"], "/hello", b"").unwrap().contains("Content-Length: 5\r\n"));
}

#[test]
fn curl_uploads() {
    let server = Running::start();
    let data = vec![b'u'; 500_000];
    let usual = ["--data-binary", "@-"];
    let chunked = ["--data-binary", "@-", "--header", "Transfer-Encoding: chunked"];
    let expect = ["--data-binary", "@-", "--header", "Expect: 100-continue"];
    for arguments in [&usual[..], &chunked, &expect] {
        let Some(answer) = curl(&server, arguments, "/upload", &data) else {
            return;
        };
        assert_eq!(answer, "500000 200 1.1", "{arguments:?}");
        assert_eq!(curl(&server, arguments, "/hello", b"whole").unwrap(), "whole 200 1.1");
    }
    // It waits for 100 a second at most, and says so if it had to.
    let arguments = [&expect[..], &["--expect100-timeout", "50", "--verbose"]].concat();
    assert_eq!(curl(&server, &arguments, "/upload", &data).unwrap(), "500000 200 1.1");
}

#[test]
fn curl_ranges_and_many_requests_on_a_connection() {
    let server = Running::start();
    let Some(part) = curl(&server, &["--range", "2-4"], "/files/a%20b.txt", b"") else {
        return;
    };
    assert_eq!(part, "234 206 1.1");
    let whole = curl(&server, &[], "/files/big.bin", b"").unwrap();
    assert_eq!(whole.len(), BIG + " 200 1.1".len());
    let urls = format!("http://{}/hello", server.addr);
    let output = run("curl", &["--silent", "--verbose", &urls, &urls, &urls], b"").unwrap();
    assert_eq!(output.stdout, b"hellohellohello");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.to_lowercase().matches("re-using").count() == 2, "{log}");
}

#[test]
fn pythons_http_client() {
    let server = Running::start();
    const SCRIPT: &str = r#"
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
def ask(method, path, body=None, **k):
    c.request(method, path, body, **k)
    r = c.getresponse()
    return r.status, r.read()
assert ask("GET", "/hello") == (200, b"hello")
assert ask("HEAD", "/hello") == (200, b"")
assert ask("POST", "/hello", b"x" * 100000) == (200, b"x" * 100000)
assert ask("POST", "/upload", iter([b"a" * 70000] * 5), encode_chunked=True) == (200, b"350000")
status, body = ask("GET", "/lines")
assert status == 200 and body.endswith(b"line 99\n"), body
assert ask("GET", "/files/a%20b.txt", headers={"Range": "bytes=-2"}) == (206, b"89")
assert ask("GET", "/later") == (200, b"from a thread")
assert ask("PUT", "/hello", b"x")[0] == 405
assert len(ask("GET", "/files/big.bin")[1]) == 3000000
print("all", end="")
"#;
    let port = server.addr.port().to_string();
    let Some(output) = run("python3", &["-c", SCRIPT, &port], b"") else {
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"all", "{error}");
}

#[test]
fn wrk_sees_no_errors() {
    let server = Running::start();
    let url = format!("http://{}/hello", server.addr);
    let Some(output) = run("wrk", &["-t1", "-c16", "-d1s", &url], b"") else {
        return;
    };
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("requests in"), "{report}");
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
}

#[test]
fn haproxy_in_front() {
    let server = Running::start();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().unwrap().port();
    let config = format!(
        "defaults\n mode http\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind 127.0.0.1:{port}\n default_backend b\n\
         backend b\n http-reuse always\n server s {}\n",
        server.addr
    );
    let path = std::env::temp_dir().join(format!("reev-haproxy-{}.cfg", std::process::id()));
    std::fs::write(&path, config).expect("a file");
    let mut proxy = match Command::new("haproxy").arg("-db").arg("-f").arg(&path).spawn() {
        Ok(proxy) => proxy,
        Err(_) => return eprintln!("SKIPPED: haproxy is not installed"),
    };
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "haproxy does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let mut answers = Vec::new();
    for (path, input) in
        [("/hello", "".as_bytes()), ("/lines", b""), ("/upload", &[b'u'; 300_000]), ("/later", b"")]
    {
        let mut arguments = vec!["--silent", "--max-time", "60"];
        if !input.is_empty() {
            arguments.extend(["--data-binary", "@-", "--header", "Transfer-Encoding: chunked"]);
        }
        let url = url(path);
        arguments.push(&url);
        answers.push(run("curl", &arguments, input).map(|output| output.stdout));
    }
    proxy.kill().expect("it runs");
    proxy.wait().expect("it ends");
    let _ = std::fs::remove_file(&path);
    let Some(answers) = answers.into_iter().collect::<Option<Vec<_>>>() else {
        return;
    };
    assert_eq!(answers[0], b"hello");
    assert!(answers[1].ends_with(b"line 99\n"));
    assert_eq!(answers[2], b"300000");
    assert_eq!(answers[3], b"from a thread");
}
