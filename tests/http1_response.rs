//! What answers look like on the wire.
#![cfg(feature = "http1")]

use reev::proto::http1::{
    DateCache, Fields, Head, HeadDecoder, HeaderError, HeaderSlots, LengthMismatch, Limits, Reject,
    Reply, ResponseHead, Status, Validators, if_range, not_modified, precondition_failed,
    put_continue, refuse,
};

/// The answer to a request of this method and version, without its Date.
fn answer(
    line: &str,
    connection: &str,
    status: Status,
    write: impl FnOnce(ResponseHead<'_, Vec<u8>>),
) -> String {
    let head = format!("{line}\r\nHost: a:1\r\nConnection: {connection}\r\n\r\n");
    let mut slots = HeaderSlots::new();
    let Ok(Head::Complete { request, .. }) =
        HeadDecoder::default().decode(head.as_bytes(), &mut slots, &Limits::default())
    else {
        panic!("{head:?} is refused")
    };
    raw(status, request.reply(), write).replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
}

fn raw(status: Status, reply: Reply, write: impl FnOnce(ResponseHead<'_, Vec<u8>>)) -> String {
    let mut out = Vec::new();
    write(ResponseHead::start(&mut out, status, reply, &DateCache::new(784_111_777)));
    String::from_utf8(out).unwrap()
}

const GET: &str = "GET / HTTP/1.1";
const GET_10: &str = "GET / HTTP/1.0";
const HEAD: &str = "HEAD / HTTP/1.1";

#[test]
fn whole_answer() {
    let mut reply = Reply::refused();
    reply.close();
    assert!(!reply.keep_alive());
    assert_eq!(
        raw(Status::OK, reply, |head| head.body(b"hi")),
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    );
    const PLAIN: Fields<'static> = Fields::new("Server: reev\r\n");
    let with_fields = answer(GET, "", Status::NOT_FOUND, |mut head| {
        head.fields(PLAIN).header("X-A", "b").unwrap().header("X-C", [0xc3, 0xa9]).unwrap();
        head.body(b"");
    });
    assert_eq!(
        with_fields,
        "HTTP/1.1 404 Not Found\r\nServer: reev\r\nX-A: b\r\nX-C: \u{e9}\r\nContent-Length: 0\r\n\r\n"
    );
    let unnamed = answer(GET, "", Status::new(599).unwrap(), |head| head.body(&[b'x'; 12345]));
    assert!(unnamed.starts_with("HTTP/1.1 599 \r\nContent-Length: 12345\r\n\r\nxx"));
    assert_eq!(Status::new(99), None);
    assert_eq!(Status::new(1000), None);
    let huge = answer(HEAD, "", Status::OK, |head| drop(head.length(u64::MAX)));
    assert!(huge.ends_with("\r\nContent-Length: 18446744073709551615\r\n\r\n"));
}

/// RFC 9112 section 9.3 and appendix C.2.2.
#[test]
fn connection_is_said_where_it_is_not_the_default() {
    for (line, connection, said) in [
        (GET, "", ""),
        (GET, "keep-alive", ""),
        (GET, "close", "Connection: close\r\n"),
        (GET_10, "", "Connection: close\r\n"),
        (GET_10, "keep-alive", "Connection: keep-alive\r\n"),
    ] {
        let expected = format!("HTTP/1.1 200 OK\r\n{said}Content-Length: 1\r\n\r\nx");
        assert_eq!(answer(line, connection, Status::OK, |head| head.body(b"x")), expected);
    }
}

/// RFC 9110 sections 9.3.2, 9.3.6 and 15; RFC 9112 section 6.3.
#[test]
fn answers_without_content() {
    assert_eq!(
        answer(HEAD, "", Status::OK, |head| head.body(b"hi")),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    );
    for (status, line) in
        [(Status::NO_CONTENT, "204 No Content"), (Status::NOT_MODIFIED, "304 Not Modified")]
    {
        assert_eq!(
            answer(GET, "", status, |head| head.body(b"hi")),
            format!("HTTP/1.1 {line}\r\n\r\n")
        );
    }
    assert_eq!(
        answer(GET, "", Status::RESET_CONTENT, |head| head.body(b"hi")),
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"
    );
    let connect = "CONNECT a:1 HTTP/1.1";
    assert_eq!(answer(connect, "", Status::OK, |head| head.body(b"hi")), "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(
        answer(connect, "", Status::FORBIDDEN, |head| head.body(b"hi")),
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nhi"
    );
    assert_eq!(
        raw(Status::EARLY_HINTS, Reply::refused(), |head| head.body(b"")),
        "HTTP/1.1 103 Early Hints\r\n\r\n"
    );
    let mut out = Vec::new();
    put_continue(&mut out);
    assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// RFC 9110 section 7.8.
#[test]
fn upgrades() {
    let switch = answer(GET, "upgrade", Status::SWITCHING_PROTOCOLS, |mut head| {
        head.upgrade("websocket").unwrap();
        head.body(b"");
    });
    assert_eq!(
        switch,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    );
    for (connection, said) in [("", "upgrade"), ("close", "close, upgrade")] {
        let required = answer(GET, connection, Status::UPGRADE_REQUIRED, |mut head| {
            head.upgrade("h2c").unwrap();
            head.body(b"");
        });
        let expected = format!(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: {said}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(required, expected);
    }
}

/// RFC 9110 section 5.5: no header or answer can be forged through a value.
#[test]
fn injection_is_refused_and_writes_nothing() {
    let text = answer(GET, "", Status::OK, |mut head| {
        for value in ["a\r\nb", "a\nb", "a\rb", "\0", "\x7f", "\x1b"] {
            assert_eq!(head.header("A", value).err(), Some(HeaderError::Value));
        }
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
            assert_eq!(head.header(name, "b").err(), Some(HeaderError::Name));
        }
        for name in ["connection", "Content-Length", "TRANSFER-ENCODING", "date", "Keep-Alive"] {
            assert_eq!(head.header(name, "1").err(), Some(HeaderError::Reserved));
        }
        assert_eq!(head.upgrade("a\r\n").err(), Some(HeaderError::Value));
        head.body(b"");
    });
    assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

fn streamed(line: &str, connection: &str) -> (String, bool) {
    let mut body = None;
    let mut text =
        answer(line, connection, Status::OK, |head| body = Some(head.stream())).into_bytes();
    let mut body = body.unwrap();
    assert_eq!(body.has_content(), !line.starts_with("HEAD"));
    for data in ["hello", "", "0123456789abcdef"] {
        body.put(&mut text, data.as_bytes()).unwrap();
    }
    let keep_alive = body.end(&mut text).unwrap();
    (String::from_utf8(text).unwrap(), keep_alive)
}

/// RFC 9110 section 15.3.6. Fault: content that follows the head was announced, and sent.
#[test]
fn reset_content_has_no_content_in_pieces_either() {
    for (line, connection) in [(GET, ""), (HEAD, ""), (GET_10, "keep-alive")] {
        for stream in [false, true] {
            let mut body = None;
            let text = answer(line, connection, Status::RESET_CONTENT, |head| {
                body = Some(if stream { head.stream() } else { head.length(5) });
            });
            assert!(text.ends_with("Content-Length: 0\r\n\r\n"), "{line}: {text}");
            assert!(!text.contains("chunked"), "{line}: {text}");
            let (mut body, mut out) = (body.unwrap(), Vec::new());
            assert!(!body.has_content());
            body.put(&mut out, b"hello").unwrap();
            assert_eq!((body.end(&mut out), out), (Ok(true), Vec::new()), "{line}");
        }
    }
}

/// RFC 9112 sections 6.3 and 7.1.
#[test]
fn streams() {
    let chunks =
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    assert_eq!(streamed(GET, ""), (format!("HTTP/1.1 200 OK\r\n{chunks}"), true));
    assert_eq!(
        streamed(GET, "close"),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{chunks}"), false)
    );
    assert_eq!(
        streamed(GET_10, "keep-alive"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello0123456789abcdef".into(), false)
    );
    assert_eq!(
        streamed(HEAD, ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), true)
    );
}

#[test]
fn announced_length_is_kept() {
    let body_of = |line| {
        let mut body = None;
        drop(answer(line, "", Status::OK, |head| body = Some(head.length(5))));
        body.unwrap()
    };
    let mut out = Vec::new();
    let mut body = body_of(GET);
    body.put(&mut out, b"abc").unwrap();
    assert_eq!(body.put(&mut out, b"def"), Err(LengthMismatch));
    body.skip(2).unwrap();
    assert_eq!(body.skip(1), Err(LengthMismatch));
    assert_eq!(body.end(&mut out), Ok(true));
    assert_eq!(body_of(GET).end(&mut out), Err(LengthMismatch));
    assert_eq!(out, b"abc");
    let mut head = body_of(HEAD);
    head.put(&mut out, b"abcdefgh").unwrap();
    assert_eq!(head.end(&mut out), Ok(true));
    assert_eq!(out, b"abc");
}

#[test]
fn refusals_are_answered_and_close() {
    let mut out = Vec::new();
    refuse(&mut out, Reject::HostMissing, &DateCache::new(784_111_777));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
         Connection: close\r\nContent-Length: 15\r\n\r\nHost is missing"
    );
}

const NOW: u64 = 784_111_777;
const CURRENT: Validators<'static> =
    Validators { etag: Some("\"v,1\""), modified_unix_seconds: Some(NOW) };

fn judged(fields: &str, judge: impl FnOnce(reev::proto::http1::Headers<'_>) -> bool) -> bool {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut slots = HeaderSlots::new();
    match HeadDecoder::default().decode(head.as_bytes(), &mut slots, &Limits::default()) {
        Ok(Head::Complete { request, .. }) => judge(request.headers()),
        other => panic!("{head:?}: {other:?}"),
    }
}

/// RFC 9110 sections 13.1.2, 13.1.3 and 13.2.2.
#[test]
fn conditions() {
    for (fields, expected) in [
        ("", false),
        ("If-None-Match: *\r\n", true),
        ("If-None-Match: \"v,1\"\r\n", true),
        ("If-None-Match: W/\"v,1\"\r\n", true),
        ("If-None-Match: \"a\", W/\"b,c\" ,\"v,1\"\r\n", true),
        ("If-None-Match: \"a\"\r\nIf-None-Match: \"v,1\"\r\n", true),
        ("If-None-Match: \"v\", \"1\"\r\n", false),
        ("If-None-Match: v,1\r\n", false),
        ("If-None-Match: \"v,1\r\n", false),
        ("If-None-Match: \"a\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", false),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", true),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", true),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", true),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", false),
        ("If-Modified-Since: yesterday\r\n", false),
    ] {
        assert_eq!(judged(fields, |headers| not_modified(headers, CURRENT)), expected, "{fields}");
    }
    assert!(!judged("If-None-Match: \"a\"\r\n", |headers| not_modified(
        headers,
        Validators::default()
    )));
}

/// RFC 9110 sections 13.1.1, 13.1.4 and 13.2.2. Planted: a weak comparison; the date looked at
/// though there is an If-Match.
#[test]
fn preconditions() {
    for (fields, expected) in [
        ("", false),
        ("If-Match: *\r\n", false),
        ("If-Match: \"v,1\"\r\n", false),
        ("If-Match: \"a\", \"v,1\"\r\n", false),
        ("If-Match: \"a\"\r\nIf-Match: \"v,1\"\r\n", false),
        ("If-Match: W/\"v,1\"\r\n", true),
        ("If-Match: \"a\"\r\n", true),
        ("If-Match: \"v,1\"\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", false),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", false),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", true),
        ("If-Unmodified-Since: yesterday\r\n", false),
    ] {
        let failed = judged(fields, |headers| precondition_failed(headers, CURRENT));
        assert_eq!(failed, expected, "{fields}");
    }
    let weak = Validators { etag: Some("W/\"v,1\""), ..CURRENT };
    assert!(judged("If-Match: \"v,1\"\r\n", |headers| precondition_failed(headers, weak)));
}

/// RFC 9110 section 13.1.5.
#[test]
fn if_range_is_strong() {
    for (fields, expected) in [
        ("", true),
        ("If-Range: \"v,1\"\r\n", true),
        ("If-Range: W/\"v,1\"\r\n", false),
        ("If-Range: \"a\"\r\n", false),
        ("If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n", true),
        ("If-Range: Sun, 06 Nov 1994 08:49:38 GMT\r\n", false),
        ("If-Range: never\r\n", false),
    ] {
        assert_eq!(judged(fields, |headers| if_range(headers, CURRENT)), expected, "{fields}");
    }
    let weak = Validators { etag: Some("W/\"a\""), modified_unix_seconds: None };
    assert!(!judged("If-Range: W/\"a\"\r\n", |headers| if_range(headers, weak)));
}
