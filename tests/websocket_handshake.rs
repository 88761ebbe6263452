//! The opening handshake by RFC 6455 section 4, and the negotiation of RFC 7692 section 7.1.
#![cfg(feature = "websocket")]

use reev::websocket::client::{HandshakeError, Key, Request};
use reev::websocket::server::{self, Accept, Options, Reject};
use reev::websocket::{DeflateConfig, DeflateParams, extension};

type Headers<'a> = Vec<(&'a str, &'a str)>;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn good() -> Headers<'static> {
    vec![
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
}

fn bytes<'a>(headers: &'a Headers<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn accept<'a>(headers: &'a Headers<'a>, options: &Options<'_>) -> Result<Accept<'a>, Reject> {
    server::accept(b"GET", 1, bytes(headers), options)
}

fn without(name: &str) -> Headers<'static> {
    good().into_iter().filter(|header| header.0 != name).collect()
}

fn with(name: &'static str, value: &'static str) -> Headers<'static> {
    without(name).into_iter().chain([(name, value)]).collect()
}

fn status(headers: &Headers<'_>) -> Option<u16> {
    let wish = DeflateConfig::default();
    accept(headers, &Options { protocols: &[], deflate: Some(&wish) }).err().map(Reject::status)
}

#[test]
fn the_example_of_section_1_3() {
    let headers = [
        good(),
        vec![("Origin", "http://example.com"), ("Sec-WebSocket-Protocol", "chat, superchat")],
    ]
    .concat();
    let accepted =
        accept(&headers, &Options { protocols: &["superchat", "chat"], deflate: None }).unwrap();
    assert_eq!((accepted.protocol, accepted.deflate), (Some("chat"), None));
    assert_eq!(
        (accepted.origin, accepted.host),
        (Some(&b"http://example.com"[..]), &b"server.example.com"[..])
    );
    let mut out = Vec::new();
    accepted.write(&[("Set-Cookie", "a=b")], &mut out);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn section_4_2_1_requests() {
    assert_eq!(status(&good()), None);
    assert_eq!(status(&with("Upgrade", "WebSocket")), None);
    assert_eq!(status(&with("Upgrade", "h2c, WEBSOCKET")), None);
    assert_eq!(status(&with("Connection", "keep-alive,upgrade")), None);
    assert_eq!(
        status(&[with("Connection", "keep-alive"), vec![("connection", "UPGRADE")]].concat()),
        None
    );
    assert_eq!(status(&with("Sec-WebSocket-Key", "  dGhlIHNhbXBsZSBub25jZQ==\t")), None);

    assert_eq!(status(&without("Upgrade")), Some(426));
    assert_eq!(status(&with("Upgrade", "websockets")), Some(426));
    assert_eq!(status(&without("Connection")), Some(400));
    assert_eq!(status(&with("Connection", "close")), Some(400));
    assert_eq!(status(&without("Host")), Some(400));
    assert_eq!(status(&[good(), vec![("host", "other")]].concat()), Some(400));
    assert_eq!(status(&without("Sec-WebSocket-Key")), Some(400));
    assert_eq!(status(&[good(), vec![("sec-websocket-key", KEY)]].concat()), Some(400));
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "c2hvcnQ=",
        "not base64 not base64 !!",
        "dGhlIHNhbXBsZSBub25jZTEyMzQ=",
    ] {
        assert_eq!(status(&with("Sec-WebSocket-Key", key)), Some(400), "{key}");
    }
    assert_eq!(status(&without("Sec-WebSocket-Version")), Some(400));
    assert_eq!(status(&with("Sec-WebSocket-Version", "8")), Some(426));
    assert_eq!(status(&with("Sec-WebSocket-Version", "14")), Some(426));
    assert_eq!(status(&[good(), vec![("Origin", "a"), ("origin", "b")]].concat()), Some(400));
    assert_eq!(status(&with("Sec-WebSocket-Extensions", "permessage-deflate; =")), Some(400));

    let options = Options::default();
    let headers = good();
    assert_eq!(server::accept(b"POST", 1, bytes(&headers), &options), Err(Reject::Method));
    assert_eq!(server::accept(b"get", 1, bytes(&headers), &options), Err(Reject::Method));
    assert_eq!(server::accept(b"GET", 0, bytes(&headers), &options).unwrap_err().status(), 400);
}

#[test]
fn rejections_say_what_is_needed() {
    let written = |reject: Reject| {
        let mut out = Vec::new();
        reject.write(&mut out);
        String::from_utf8(out).unwrap()
    };
    let version = written(Reject::Version);
    assert!(version.starts_with(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    ));
    assert!(
        written(Reject::Method).starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n")
    );
    assert!(written(Reject::Forbidden).starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert!(written(Reject::BadRequest("why")).ends_with("Content-Length: 3\r\n\r\nwhy"));
}

#[test]
fn subprotocols_in_the_clients_order() {
    let chosen = |asked: &str, spoken: &[&str]| {
        let headers =
            [good(), vec![("Sec-WebSocket-Protocol", "none"), ("sec-websocket-protocol", asked)]]
                .concat();
        accept(&headers, &Options { protocols: spoken, deflate: None })
            .unwrap()
            .protocol
            .map(str::to_owned)
    };
    assert_eq!(chosen("a, b", &["b", "a"]).as_deref(), Some("a"));
    assert_eq!(chosen("x,b", &["b", "a"]).as_deref(), Some("b"));
    assert_eq!(chosen("A", &["a"]), None);
    assert_eq!(chosen("a", &[]), None);
}

/// The answer to an offer: `None` if the extension is declined.
fn negotiate(offer: &str, wish: &DeflateConfig) -> Result<Option<String>, extension::Malformed> {
    Ok(extension::answer([offer.as_bytes()], wish)?.map(|agreed| agreed.header))
}

/// Offers, and the answers of a server without wishes.
const OFFERS: &[(&str, Option<&str>)] = &[
    ("permessage-deflate", Some("permessage-deflate")),
    ("Permessage-Deflate", Some("permessage-deflate")),
    (" , permessage-deflate ,, ", Some("permessage-deflate")),
    ("permessage-deflate; client_max_window_bits", Some("permessage-deflate")),
    (
        "permessage-deflate; client_max_window_bits=10",
        Some("permessage-deflate; client_max_window_bits=10"),
    ),
    (
        "permessage-deflate;server_max_window_bits=10",
        Some("permessage-deflate; server_max_window_bits=10"),
    ),
    (
        "permessage-deflate;server_max_window_bits=15",
        Some("permessage-deflate; server_max_window_bits=15"),
    ),
    (
        "permessage-deflate; server_max_window_bits=\"8\"",
        Some("permessage-deflate; server_max_window_bits=8"),
    ),
    (
        "permessage-deflate; server_max_window_bits = \"1\\1\"",
        Some("permessage-deflate; server_max_window_bits=11"),
    ),
    (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
    ),
    ("x-other, permessage-deflate", Some("permessage-deflate")),
    (
        "x-other; a=\"b\"; c, permessage-deflate; server_max_window_bits=9",
        Some("permessage-deflate; server_max_window_bits=9"),
    ),
    (
        "permessage-deflate; unknown, permessage-deflate; client_no_context_takeover",
        Some("permessage-deflate; client_no_context_takeover"),
    ),
    ("", None),
    ("x-webkit-deflate-frame", None),
    ("permessage-deflate; unknown", None),
    ("permessage-deflate; unknown=1", None),
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=7", None),
    ("permessage-deflate; server_max_window_bits=16", None),
    ("permessage-deflate; server_max_window_bits=08", None),
    ("permessage-deflate; server_max_window_bits=+9", None),
    ("permessage-deflate; client_max_window_bits=7", None),
    ("permessage-deflate; client_max_window_bits=100", None),
    ("permessage-deflate; server_no_context_takeover=1", None),
    ("permessage-deflate; client_no_context_takeover=true", None),
    ("permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
];

#[test]
fn rfc_7692_section_7_1_offers() {
    let free = DeflateConfig::default();
    for (offer, answer) in OFFERS {
        assert_eq!(negotiate(offer, &free), Ok(answer.map(str::to_owned)), "{offer}");
    }
    let many = "x,".repeat(17);
    for malformed in [
        "permessage-deflate;",
        "a b",
        "; a",
        "a; b=",
        "a; b=\"",
        "a; b=\"\"",
        "a; b=\"c d\"",
        "a/b",
        "a=b",
        &many,
    ] {
        assert_eq!(negotiate(malformed, &free), Err(extension::Malformed), "{malformed}");
    }

    let strict = DeflateConfig {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 11,
        client_max_window_bits: 10,
        ..free
    };
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; ";
    let answers = [
        ("permessage-deflate", "server_max_window_bits=11"),
        ("permessage-deflate; server_max_window_bits=9", "server_max_window_bits=9"),
        (
            "permessage-deflate; client_max_window_bits",
            "server_max_window_bits=11; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; client_max_window_bits=12",
            "server_max_window_bits=11; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; client_max_window_bits=9",
            "server_max_window_bits=11; client_max_window_bits=9",
        ),
    ];
    for (offer, answer) in answers {
        assert_eq!(negotiate(offer, &strict), Ok(Some(format!("{both}{answer}"))), "{offer}");
    }
}

#[test]
fn rfc_7692_section_7_1_responses() {
    let free = DeflateConfig::default();
    let check =
        |response: &str, wish: &DeflateConfig| extension::check([response.as_bytes()], Some(wish));
    let plain = DeflateParams {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    assert_eq!(extension::offer(&free), "permessage-deflate; client_max_window_bits");
    assert_eq!(check("", &free), Ok(None));
    assert_eq!(check("permessage-deflate", &free), Ok(Some(plain)));
    let bits = DeflateParams { client_max_window_bits: 9, server_max_window_bits: 8, ..plain };
    let response = "permessage-deflate; server_max_window_bits=8; client_max_window_bits=\"9\"";
    assert_eq!(check(response, &free), Ok(Some(bits)));
    let forgetful = DeflateParams {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        ..plain
    };
    let response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(check(response, &free), Ok(Some(forgetful)));
    for wrong in [
        "x-other",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate, x-other",
        "permessage-deflate; unknown",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate;",
    ] {
        assert_eq!(check(wrong, &free), Err(extension::Malformed), "{wrong}");
    }
    assert_eq!(extension::check([&b"permessage-deflate"[..]], None), Err(extension::Malformed));

    let strict = DeflateConfig {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 10,
        client_max_window_bits: 11,
        ..free
    };
    let offer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
        server_max_window_bits=10; client_max_window_bits=11";
    assert_eq!(extension::offer(&strict), offer);
    assert!(
        check("permessage-deflate; server_no_context_takeover; server_max_window_bits=10", &strict)
            .is_ok()
    );
    for dishonoured in [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12",
    ] {
        assert_eq!(check(dishonoured, &strict), Err(extension::Malformed), "{dishonoured}");
    }
}

#[test]
fn section_4_1_requests() {
    let key = Key::from_nonce(*b"the sample nonce");
    let wish = DeflateConfig::default();
    let request = Request {
        protocols: &["chat", "superchat"],
        deflate: Some(&wish),
        headers: &[("Origin", "http://example.com")],
        ..Request::new("server.example.com", "/chat?a=b")
    };
    let mut out = Vec::new();
    request.write(&key, &mut out).unwrap();
    let expected = "GET /chat?a=b HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://example.com\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_ne!(Key::random().unwrap(), Key::random().unwrap());

    let mut out = Vec::new();
    for (host, target) in [
        ("", "/"),
        ("a b", "/"),
        ("a\r\nb", "/"),
        ("a", ""),
        ("a", "x"),
        ("a", "/ x"),
        ("a", "/\r\n"),
    ] {
        assert_eq!(Request::new(host, target).write(&key, &mut out), Err(HandshakeError::Request));
    }
    let split = Request { headers: &[("X", "a\r\nY: b")], ..Request::new("a", "/") };
    assert_eq!(split.write(&key, &mut out), Err(HandshakeError::Request));
    let spaced = Request { protocols: &["a b"], ..Request::new("a", "/") };
    assert_eq!(spaced.write(&key, &mut out), Err(HandshakeError::Request));
    assert!(out.is_empty());
}

#[test]
fn section_4_1_responses() {
    let key = Key::from_nonce(*b"the sample nonce");
    let wish = DeflateConfig::default();
    let request = Request { protocols: &["chat"], deflate: Some(&wish), ..Request::new("a", "/") };
    let right: Headers<'_> = vec![
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-accept", " s3pPLMBiTxaQ9kYGzzhZRbK+xOo= "),
    ];
    let check = |status, headers: &Headers<'_>| {
        request.check(&key, status, bytes(headers)).map(|ok| ok.protocol.is_some())
    };
    let plus = |name, value| [right.clone(), vec![(name, value)]].concat();
    let less = |index| {
        right.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, header)| *header).collect()
    };
    assert_eq!(check(101, &right), Ok(false));
    assert_eq!(check(101, &plus("Sec-WebSocket-Protocol", "chat")), Ok(true));
    for status in [200, 301, 401, 404, 426, 503] {
        assert_eq!(check(status, &right), Err(HandshakeError::Status(status)));
    }
    assert_eq!(check(101, &less(0)), Err(HandshakeError::Upgrade));
    assert_eq!(check(101, &less(1)), Err(HandshakeError::Upgrade));
    assert_eq!(check(101, &less(2)), Err(HandshakeError::Accept));
    let wrong = |value| [less(2), vec![("Sec-WebSocket-Accept", value)]].concat();
    assert_eq!(check(101, &wrong("S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), Err(HandshakeError::Accept));
    assert_eq!(
        check(101, &plus("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        Err(HandshakeError::Accept)
    );
    for protocol in ["other", "chat, chat", "CHAT"] {
        assert_eq!(
            check(101, &plus("Sec-WebSocket-Protocol", protocol)),
            Err(HandshakeError::Protocol)
        );
    }
    assert_eq!(check(101, &plus("Sec-WebSocket-Extensions", "x")), Err(HandshakeError::Extensions));
}

/// Every wish of one side against every wish of the other: both end up with the same parameters.
#[test]
fn both_sides_agree() {
    let wishes: Vec<DeflateConfig> = (0..64u8)
        .map(|n| DeflateConfig {
            server_no_context_takeover: n & 1 != 0,
            client_no_context_takeover: n & 2 != 0,
            server_max_window_bits: [15, 8, 9, 12][usize::from(n >> 2 & 3)],
            client_max_window_bits: [15, 8, 9, 12][usize::from(n >> 4)],
            ..DeflateConfig::default()
        })
        .collect();
    for client in &wishes {
        for server in &wishes {
            let agreed =
                extension::answer([extension::offer(client).as_bytes()], server).unwrap().unwrap();
            let checked =
                extension::check([agreed.header.as_bytes()], Some(client)).unwrap().unwrap();
            assert_eq!(agreed.params, checked);
            assert!(
                checked.server_max_window_bits
                    <= client.server_max_window_bits.min(server.server_max_window_bits)
            );
            assert!(
                checked.client_max_window_bits
                    <= client.client_max_window_bits.min(server.client_max_window_bits)
            );
        }
    }
}
