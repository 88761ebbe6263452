//! Files and routes over real sockets.
#![cfg(feature = "http1")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[path = "support/http1_site.rs"]
mod site;

use site::{BIG, Running};

/// Sends one request and reads to the end.
fn ask(server: &Running, method: &str, path: &str, fields: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.addr).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and a FIN");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

fn status(head: &str) -> &str {
    &head[9..12]
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn nothing_outside_the_folder_is_served() {
    let server = Running::start();
    for path in [
        "/files/../secret",
        "/files/%2e%2e/secret",
        "/files/..%2fsecret",
        "/files/%2e%2e%2fsecret",
        "/files/sub/../../secret",
        "/files/sub/%2e%2e/%2e%2e/secret",
        "/files/..%5csecret",
        "/files//etc/passwd",
        "/files/out",
        "/files/passwd",
        "/files/sub/up/../secret",
        "/files/sub/up/out",
        "/files/.hidden",
        "/files/%2ehidden",
        "/files/a%00b",
        "/files/none",
        "/files/index.html/",
        "/files/%zz",
    ] {
        let (head, body) = ask(&server, "GET", path, "");
        assert_eq!(status(&head), "404", "{path}");
        assert_eq!(body, "not found\n", "{path}");
    }
}

#[test]
fn files_folders_and_types() {
    let server = Running::start();
    for (path, kind, content) in [
        ("/files/", "text/html; charset=utf-8", "<p>index"),
        ("/files/sub/", "text/html; charset=utf-8", "<p>sub"),
        ("/files/sub/up/index.html", "text/html; charset=utf-8", "<p>index"),
        ("/files/a%20b.txt?x", "text/plain; charset=utf-8", "0123456789"),
    ] {
        let (head, body) = ask(&server, "GET", path, "");
        assert_eq!((status(&head), body.as_str()), ("200", content), "{path}");
        assert_eq!(field(&head, "Content-Type"), Some(kind), "{path}");
        let (head, body) = ask(&server, "HEAD", path, "");
        assert_eq!(field(&head, "Content-Length"), Some(content.len().to_string().as_str()));
        assert_eq!(body, "");
    }
    let (head, body) = ask(&server, "GET", "/files/big.bin", "");
    assert_eq!((field(&head, "Content-Length"), body.len()), (Some("3000000"), BIG));
    let (head, _) = ask(&server, "GET", "/files/sub?q", "");
    assert_eq!((status(&head), field(&head, "Location")), ("301", Some("/files/sub/?q")));
}

#[test]
fn ranges_and_conditions() {
    let server = Running::start();
    let path = "/files/a%20b.txt";
    for (range, expected, content_range, content) in [
        ("bytes=2-5", "206", Some("bytes 2-5/10"), "2345"),
        ("bytes=-3", "206", Some("bytes 7-9/10"), "789"),
        ("bytes=8-99", "206", Some("bytes 8-9/10"), "89"),
        ("bytes=10-", "416", Some("bytes */10"), "no such range\n"),
        ("bytes=1-2,4-5", "200", None, "0123456789"),
        ("lines=1-2", "200", None, "0123456789"),
    ] {
        let (head, body) = ask(&server, "GET", path, &format!("Range: {range}\r\n"));
        assert_eq!((status(&head), body.as_str()), (expected, content), "{range}");
        assert_eq!(field(&head, "Content-Range"), content_range, "{range}");
    }
    let (head, body) = ask(&server, "GET", "/files/big.bin", "Range: bytes=5-2999990\r\n");
    assert_eq!((status(&head), body.len()), ("206", 2_999_986));
    let (head, _) = ask(&server, "GET", path, "");
    let (etag, date) = (field(&head, "ETag").unwrap(), field(&head, "Last-Modified").unwrap());
    for (condition, expected) in [
        (format!("If-None-Match: {etag}\r\n"), "304"),
        (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {date}\r\n"), "200"),
        (format!("If-Modified-Since: {date}\r\n"), "304"),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(), "200"),
        (format!("If-Range: {etag}\r\nRange: bytes=0-1\r\n"), "206"),
        ("If-Range: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), "200"),
        // A download that goes on, of a file that is another by now.
        ("If-Match: \"other\"\r\nRange: bytes=1-\r\n".to_owned(), "412"),
        (format!("If-Match: {etag}\r\nRange: bytes=1-\r\n"), "206"),
        (format!("If-Match: \"other\"\r\nIf-None-Match: {etag}\r\n"), "412"),
        (format!("If-Match: {etag}\r\nIf-None-Match: {etag}\r\n"), "304"),
        (format!("If-Unmodified-Since: {date}\r\n"), "200"),
    ] {
        let (head, body) = ask(&server, "GET", path, &condition);
        assert_eq!(status(&head), expected, "{condition}");
        assert_eq!(body.is_empty(), expected == "304");
    }
}

#[test]
fn paths_and_methods_without_a_route() {
    let server = Running::start();
    assert_eq!(status(&ask(&server, "GET", "/none", "").0), "404");
    for (method, path, expected, allow) in [
        ("DELETE", "/hello", "405", Some("GET, POST, HEAD, OPTIONS")),
        ("OPTIONS", "/hello", "204", Some("GET, POST, HEAD, OPTIONS")),
        ("POST", "/lines", "405", Some("GET, HEAD, OPTIONS")),
        ("HEAD", "/hello", "200", None),
        ("OPTIONS", "*", "204", None),
    ] {
        let (head, _) = ask(&server, method, path, "");
        assert_eq!((status(&head), field(&head, "Allow")), (expected, allow), "{method} {path}");
    }
    let _ = site::shared().service(());
}
