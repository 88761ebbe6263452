//! One table a subject: what RFC 9112 and RFC 9110 accept in a request head, and what each refusal
//! is.
#![cfg(feature = "http1")]

use reev::proto::http1::{
    BodyKind, Head, HeadDecoder, HeaderSlots, Limits, Reject, Request, Version,
};

fn with<R>(
    head: &[u8],
    limits: &Limits,
    look: impl FnOnce(Request<'_>, usize) -> R,
) -> Result<Option<R>, Reject> {
    let mut slots = HeaderSlots::new();
    match HeadDecoder::default().decode(head, &mut slots, limits)? {
        Head::Complete { request, used } => Ok(Some(look(request, used))),
        Head::Partial => Ok(None),
    }
}

/// Looks at a request that must be accepted as a whole.
fn accept<R>(head: &str, look: impl FnOnce(Request<'_>) -> R) -> R {
    let result = with(head.as_bytes(), &Limits::default(), |request, used| {
        assert_eq!(used, head.len(), "{head:?}");
        look(request)
    });
    result
        .unwrap_or_else(|reject| panic!("{head:?} refused: {reject}"))
        .expect("the head is complete")
}

fn refuse(head: impl AsRef<[u8]>, reject: Reject, status: u16) {
    refuse_within(head, &Limits::default(), reject, status);
}

fn refuse_within(head: impl AsRef<[u8]>, limits: &Limits, reject: Reject, status: u16) {
    let head = head.as_ref();
    assert_eq!(with(head, limits, |_, _| ()), Err(reject), "{}", head.escape_ascii());
    assert_eq!(reject.status().code(), status);
    assert!(!reject.reason().is_empty());
}

/// `fields` in an HTTP/1.1 POST with Host.
fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_request_is_given_as_it_was_sent() {
    let head = "PUT /a/b?c=d HTTP/1.1\r\nhOsT: example.com:80\r\nX-Empty:\r\nX-Pad: \t b c \t\r\nX-Pad: 2\r\n\r\n";
    accept(head, |request| {
        assert_eq!((request.method(), request.target()), ("PUT", "/a/b?c=d"));
        assert_eq!((request.path(), request.query()), ("/a/b", Some("c=d")));
        assert_eq!(request.version(), Version::Http11);
        assert_eq!(request.headers().len(), 4);
        assert!(!request.headers().is_empty());
        assert_eq!(request.header("host"), Some(&b"example.com:80"[..]));
        assert_eq!(request.header("x-empty"), Some(&b""[..]));
        assert_eq!(request.headers().all("X-PAD").collect::<Vec<_>>(), [&b"b c"[..], b"2"]);
        assert_eq!(request.headers().iter().next(), Some(("hOsT", &b"example.com:80"[..])));
        assert_eq!(request.authority(), Some(&b"example.com:80"[..]));
        assert_eq!(request.body_kind(), BodyKind::Empty);
        assert!(request.keep_alive());
    });
}

#[test]
fn what_follows_the_head_is_left() {
    let two = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n";
    assert_eq!(
        with(two, &Limits::default(), |request, used| (request.target().to_owned(), used)),
        Ok(Some(("/1".into(), 28)))
    );
}

#[test]
fn rfc9112_2_2_one_empty_line_before_the_request_line() {
    accept("\r\nGET / HTTP/1.0\r\n\r\n", |request| assert_eq!(request.target(), "/"));
    refuse("\r\n\r\nGET / HTTP/1.0\r\n\r\n", Reject::EmptyLines, 400);
    refuse("\nGET / HTTP/1.0\r\n\r\n", Reject::BareLf, 400);
    refuse("\r\n\nGET / HTTP/1.0\r\n\r\n", Reject::EmptyLines, 400);
    for partial in ["", "\r", "\r\n"] {
        assert_eq!(with(partial.as_bytes(), &Limits::default(), |_, _| ()), Ok(None));
    }
}

#[test]
fn rfc9112_2_2_lines_end_in_crlf() {
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a \t\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nX:\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \nHost: a\r\n\r\n",
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.0\r\n\n",
    ] {
        refuse(head, Reject::BareLf, 400);
    }
    for head in [
        "\rGET / HTTP/1.0\r\n\r\n",
        "GET /\r HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\r\n\r\n",
        "GET / HTTP/1.0\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.0\r\nX: a\r\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\r\n\r\n",
        "GET / HTTP/1.0\r\n\rX: a\r\n\r\n",
    ] {
        refuse(head, Reject::BareCr, 400);
    }
}

#[test]
fn rfc9112_3_request_line() {
    for head in [
        "GET\r\n",
        "GET /\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "hello\r\n",
    ] {
        refuse(head, Reject::RequestLine, 400);
    }
    for head in [
        " GET / HTTP/1.1\r\n",
        "G(T / HTTP/1.1\r\n",
        "G\tT / HTTP/1.1\r\n",
        "G\0T / HTTP/1.1\r\n",
        "\u{e9} / HTTP/1.1\r\n",
    ] {
        refuse(head, Reject::Method, 400);
    }
    refuse(format!("{} / HTTP/1.1\r\n", "M".repeat(33)), Reject::MethodTooLong, 501);
    refuse("M".repeat(20_000), Reject::MethodTooLong, 501);
    accept(&format!("{} / HTTP/1.0\r\n\r\n", "M".repeat(32)), |_| ());
}

#[test]
fn rfc9112_3_2_request_target() {
    for head in [
        "GET /\0 HTTP/1.1\r\n",
        "GET /\x7f HTTP/1.1\r\n",
        "GET /\t HTTP/1.1\r\n",
        "GET /#a HTTP/1.1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n",
    ] {
        refuse(head, Reject::Target, 400);
    }
    refuse(b"GET /\xff HTTP/1.1\r\n", Reject::Target, 400);
    for head in [
        "GET * HTTP/1.1\r\n",
        "GET a HTTP/1.1\r\n",
        "GET a:80 HTTP/1.1\r\n",
        "CONNECT / HTTP/1.1\r\n",
        "CONNECT a HTTP/1.1\r\n",
    ] {
        refuse(head, Reject::TargetForm, 400);
    }
    let limits = Limits::default();
    let line = |len: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(len - 1));
    accept(&line(limits.target_bytes_max), |_| ());
    refuse(line(limits.target_bytes_max + 1), Reject::TargetTooLong, 414);
    refuse(format!("GET /{}", "a".repeat(9000)), Reject::TargetTooLong, 414);
    refuse(format!("{} /{}", "M".repeat(32), "a".repeat(9000)), Reject::TargetTooLong, 414);
}

#[test]
fn rfc9112_3_3_authority_and_path_of_each_form() {
    for (line, authority, path, query) in [
        ("GET / HTTP/1.1", "host", "/", None),
        ("GET /a?b?c HTTP/1.1", "host", "/a", Some("b?c")),
        ("GET http://x:1/a?b HTTP/1.1", "x:1", "/a", Some("b")),
        ("GET http://x HTTP/1.1", "x", "/", None),
        ("GET http://x?q HTTP/1.1", "x", "/", Some("q")),
        ("OPTIONS * HTTP/1.1", "host", "*", None),
        ("OPTIONS http://x HTTP/1.1", "x", "/", None),
        ("CONNECT x:1 HTTP/1.1", "x:1", "", None),
    ] {
        accept(&format!("{line}\r\nHost: host\r\n\r\n"), |request| {
            assert_eq!(request.authority(), Some(authority.as_bytes()), "{line}");
            assert_eq!((request.path(), request.query()), (path, query), "{line}");
        });
    }
    accept("GET / HTTP/1.0\r\n\r\n", |request| assert_eq!(request.authority(), None));
}

#[test]
fn rfc9112_2_3_version() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        refuse(format!("GET / {version}\r\n"), Reject::VersionUnsupported, 505);
    }
    refuse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reject::VersionUnsupported, 505);
    for version in [
        "http/1.1",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1,1",
        "HTTPS/1.1",
        "X",
        "HTTP/1.1\t",
    ] {
        refuse(format!("GET / {version}\r\n"), Reject::Version, 400);
    }
}

#[test]
fn rfc9112_5_field_lines() {
    for field in ["Bad Name: a", "No-Colon-But Space"] {
        let reject = if field.contains(':') { Reject::SpaceBeforeColon } else { Reject::FieldName };
        refuse(post(&format!("{field}\r\n")), reject, 400);
    }
    for field in
        [": a", "No-Colon", "Na\0me: a", "Na(me: a", "Na\u{e9}me: a", "Na\x7fme: a", "@: a"]
    {
        refuse(post(&format!("{field}\r\n")), Reject::FieldName, 400);
    }
    for field in ["Name : a", "Name\t: a", "Content-Length : 5", "Transfer-Encoding : chunked"] {
        refuse(post(&format!("{field}\r\n")), Reject::SpaceBeforeColon, 400);
    }
    for fields in ["A: b\r\n c\r\n", "A: b\r\n\tc\r\n", "A:\r\n b\r\n", "A: b\r\n \r\n"] {
        refuse(post(fields), Reject::ObsFold, 400);
    }
    refuse("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Reject::ObsFold, 400);
    for control in (0..=31).chain([127]).filter(|b| !b"\t\r\n".contains(b)) {
        for value in [
            vec![control],
            [b"a", &[control][..], b"b"].concat(),
            [&[b'a'; 40], &[control][..]].concat(),
        ] {
            let head = [b"POST / HTTP/1.1\r\nHost: a\r\nA: ", &value[..], b"\r\n\r\n"].concat();
            refuse(head, Reject::FieldValue, 400);
        }
    }
    let latin = b"GET / HTTP/1.0\r\nA: \xe9\xff \t\x80\r\n\r\n";
    let value =
        with(latin, &Limits::default(), |request, _| request.header("a").map(<[u8]>::to_vec));
    assert_eq!(value, Ok(Some(Some(b"\xe9\xff \t\x80".to_vec()))));
}

#[test]
fn rfc9112_3_2_host() {
    refuse("GET / HTTP/1.1\r\n\r\n", Reject::HostMissing, 400);
    refuse("GET http://a/ HTTP/1.1\r\n\r\n", Reject::HostMissing, 400);
    refuse("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Reject::HostRepeated, 400);
    refuse("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", Reject::HostRepeated, 400);
    for host in ["a b", "a/b", "a:b", "user@a", "a, b", "http://a", "[::1", "\u{e9}"] {
        refuse(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Reject::HostInvalid, 400);
        refuse(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"), Reject::HostInvalid, 400);
    }
    for host in ["", "a", "a.b:80", "[::1]:80", "127.0.0.1"] {
        accept(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), |_| ());
    }
}

#[test]
fn rfc9110_8_6_content_length() {
    for (value, body) in [
        ("5", BodyKind::Length(5)),
        ("0", BodyKind::Empty),
        ("0005", BodyKind::Length(5)),
        (" 7\t", BodyKind::Length(7)),
    ] {
        accept(&post(&format!("Content-Length:{value}\r\n")), |request| {
            assert_eq!(request.body_kind(), body)
        });
    }
    for value in [
        "",
        "+5",
        "-5",
        "5 5",
        "5,5",
        "5, 5",
        "0x5",
        "5.0",
        "5a",
        "a",
        "\u{665}",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        refuse(post(&format!("Content-Length: {value}\r\n")), Reject::LengthInvalid, 400);
    }
    refuse(post("Content-Length: 5\r\nContent-Length: 5\r\n"), Reject::LengthRepeated, 400);
    refuse(post("Content-Length: 5\r\ncontent-length: 6\r\n"), Reject::LengthRepeated, 400);
}

#[test]
fn rfc9112_6_1_transfer_encoding() {
    for value in ["chunked", "Chunked", "CHUNKED \t"] {
        accept(&post(&format!("transfer-encoding: {value}\r\n")), |request| {
            assert_eq!(request.body_kind(), BodyKind::Chunked)
        });
    }
    for (value, reject, status) in [
        ("gzip", Reject::EncodingUnsupported, 501),
        ("identity", Reject::EncodingUnsupported, 501),
        ("gzip, chunked", Reject::EncodingUnsupported, 501),
        ("xchunked", Reject::EncodingUnsupported, 501),
        ("chunked, chunked", Reject::EncodingRepeated, 400),
        ("chunked, gzip", Reject::EncodingNotLast, 400),
        ("", Reject::EncodingInvalid, 400),
        (",chunked", Reject::EncodingInvalid, 400),
        ("chunked,", Reject::EncodingInvalid, 400),
        ("chunked;q=1", Reject::EncodingInvalid, 400),
        ("chun ked", Reject::EncodingInvalid, 400),
        ("\"chunked\"", Reject::EncodingInvalid, 400),
    ] {
        refuse(post(&format!("Transfer-Encoding: {value}\r\n")), reject, status);
    }
    refuse(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        Reject::EncodingRepeated,
        400,
    );
    refuse(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
        Reject::EncodingNotLast,
        400,
    );
    refuse(
        post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        Reject::EncodingUnsupported,
        501,
    );
    refuse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::EncodingOnHttp10, 400);
    refuse(
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        Reject::LengthWithEncoding,
        400,
    );
    refuse(
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        Reject::LengthWithEncoding,
        400,
    );
}

#[test]
fn rfc9110_10_1_1_expect() {
    let wants = |head: &str, arrived| accept(head, |request| request.wants_continue(arrived));
    assert!(wants(&post("Expect: 100-Continue\r\nContent-Length: 5\r\n"), false));
    assert!(wants(&post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"), false));
    assert!(!wants(&post("Expect: 100-continue\r\nContent-Length: 5\r\n"), true));
    assert!(!wants(&post("Expect: 100-continue\r\n"), false));
    assert!(!wants("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", false));
    refuse(post("Expect: tea\r\n"), Reject::Expectation, 417);
    refuse(post("Expect: 100-continue, tea\r\n"), Reject::Expectation, 417);
}

#[test]
fn rfc9112_9_3_persistence() {
    for (version, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo, CLOSE\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: a, keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(accept(&head, |request| request.keep_alive()), keep_alive, "{head}");
    }
}

#[test]
fn rfc9110_7_8_upgrade() {
    for (fields, version, wanted) in [
        ("Connection: Upgrade\r\nUpgrade: WebSocket\r\n", "1.1", true),
        ("Connection: keep-alive, upgrade\r\nUpgrade: h2c, websocket/13\r\n", "1.1", true),
        ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "1.1", true),
        ("Upgrade: websocket\r\n", "1.1", false),
        ("Connection: upgrade\r\n", "1.1", false),
        ("Connection: upgrade\r\nUpgrade: websockets\r\n", "1.1", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", "1.0", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(accept(&head, |request| request.wants_upgrade("websocket")), wanted, "{head}");
    }
    accept(&post("Sec-A: b,\t C\r\n"), |request| {
        assert!(request.headers().has_token("sec-a", "c"))
    });
}

#[test]
fn rfc6585_5_and_rfc9110_15_5_bounds() {
    let mut limits = Limits::default();
    limits.headers_max = 3;
    limits.head_bytes_max = 100;
    limits.body_bytes_max = 10;
    limits.length_required = true;
    let fields = |n: usize| post(&"A: b\r\n".repeat(n));
    assert_eq!(with(fields(2).as_bytes(), &limits, |_, _| ()), Ok(Some(())));
    refuse_within(fields(3), &limits, Reject::TooManyHeaders, 431);
    let sized = |len: usize| post(&format!("A: {}\r\n", "b".repeat(len - post("A: \r\n").len())));
    assert_eq!(with(sized(100).as_bytes(), &limits, |_, used| used), Ok(Some(100)));
    refuse_within(sized(101), &limits, Reject::HeadTooLarge, 431);
    refuse_within(&sized(200)[..100], &limits, Reject::HeadTooLarge, 431);
    assert_eq!(with(&sized(200).as_bytes()[..99], &limits, |_, _| ()), Ok(None));
    assert_eq!(with(post("Content-Length: 10\r\n").as_bytes(), &limits, |_, _| ()), Ok(Some(())));
    refuse_within(post("Content-Length: 11\r\n"), &limits, Reject::BodyTooLarge, 413);
    refuse_within(post("Transfer-Encoding: chunked\r\n"), &limits, Reject::LengthRequired, 411);
}

#[test]
fn more_fields_than_fit_inline() {
    let fields = |n: usize| post(&"A: b\r\n".repeat(n - 1));
    for n in [63, 64, 65, 100] {
        accept(&fields(n), |request| assert_eq!(request.headers().len(), n));
    }
    refuse(fields(101), Reject::TooManyHeaders, 431);
    refuse(fields(99).replace("\r\n\r\n", "\r\nA : b\r\n\r\n"), Reject::SpaceBeforeColon, 400);
    let incomplete = fields(80);
    assert_eq!(
        with(&incomplete.as_bytes()[..incomplete.len() - 1], &Limits::default(), |_, _| ()),
        Ok(None)
    );
}

#[test]
fn a_refusal_is_kept_and_a_partial_head_is_known() {
    let (limits, mut slots, mut decoder) =
        (Limits::default(), HeaderSlots::default(), HeadDecoder::default());
    assert!(matches!(decoder.decode(b"GET / HT", &mut slots, &limits), Ok(Head::Partial)));
    assert!(decoder.is_partial());
    assert!(matches!(
        decoder.decode(b"GET / HTTP/1.0\r\n\r\n", &mut slots, &limits),
        Ok(Head::Complete { used: 18, .. })
    ));
    assert!(!decoder.is_partial());
    assert_eq!(decoder.decode(b"\n", &mut slots, &limits).unwrap_err(), Reject::BareLf);
    assert_eq!(
        decoder.decode(b"GET / HTTP/1.0\r\n\r\n", &mut slots, &limits).unwrap_err(),
        Reject::BareLf
    );
}
