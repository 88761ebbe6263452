//! Text messages: UTF-8 by RFC 6455 section 8.1, in the manner of the Autobahn test suite's section 6, cut everywhere,
//! and refused at the first byte that cannot be right.
#![cfg(feature = "websocket")]

#[path = "support/websocket_fuzzing.rs"]
mod bodies;

use bodies::{DEFLATE, Owned, connect, feed, frame_for};
use reev::websocket::{Compress, Config, Kind, ProtocolError, Role, State};

const VALID: &[&[u8]] = &[
    b"",
    b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xef\xbf\xbe",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    b"\xf0\x9f\xbf\xbe\xf0\xaf\xbf\xbf",
    b"\xef\xbb\xbfafter a mark",
];

const INVALID: &[&[u8]] = &[
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    b"\xc0 \xc1 ",
    b"\xe0 \xef ",
    b"\xf0 \xf4 ",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xae\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xaf\xbf\xed\xbf\xbf",
];

const UNFINISHED: &[&[u8]] =
    &[b"\xc3", b"\xe0\xa0", b"\xef", b"\xf0\x90\x80", b"\xf4\x8f\xbf", b"\xf4", b"ok \xce"];

/// In two frames cut at `cut`, with a ping between.
fn fragments(role: Role, text: &[u8], cut: usize) -> Vec<u8> {
    let (head, tail) = text.split_at(cut);
    [frame_for(role, 0x01, head), frame_for(role, 0x89, b""), frame_for(role, 0x80, tail)].concat()
}

#[test]
fn valid_text_is_taken_however_it_is_cut() {
    for role in [Role::Server, Role::Client] {
        for text in VALID {
            let padded = [&[b'.'; 70][..], text, &[b'.'; 70]].concat();
            for text in [text.to_vec(), padded] {
                let expected = Owned::Text(String::from_utf8(text.clone()).unwrap());
                for cut in 0..=text.len() {
                    let stream = fragments(role, &text, cut);
                    let outcome =
                        bodies::differential(role, &Config::default(), None, &stream, cut as u64);
                    assert_eq!((outcome.error, outcome.events.last()), (None, Some(&expected)));
                }
                let whole = bodies::differential(
                    role,
                    &Config::default(),
                    None,
                    &frame_for(role, 0x81, &text),
                    1,
                );
                assert_eq!((whole.error, &whole.events[..]), (None, &[expected][..]));
            }
        }
    }
}

#[test]
fn invalid_text_is_refused_however_it_is_cut() {
    for role in [Role::Server, Role::Client] {
        for text in INVALID.iter().chain(UNFINISHED) {
            for pad in [0, 70] {
                let text = [&vec![b'.'; pad][..], text].concat();
                for cut in 0..=text.len() {
                    let stream = fragments(role, &text, cut);
                    let outcome =
                        bodies::differential(role, &Config::default(), None, &stream, cut as u64);
                    assert_eq!(
                        (outcome.error, outcome.state),
                        (Some(ProtocolError::Utf8), State::Done),
                        "{text:x?}"
                    );
                    assert!(!outcome.events.iter().any(|event| matches!(event, Owned::Text(_))));
                }
                let outcome = bodies::differential(
                    role,
                    &Config::default(),
                    None,
                    &frame_for(role, 0x81, &text),
                    1,
                );
                assert_eq!(outcome.error, Some(ProtocolError::Utf8));
                assert!(
                    role == Role::Client || outcome.out.starts_with(&[0x88, 2 + 14, 0x03, 0xef])
                );
            }
        }
    }
}

/// The frame says that more is to come, and more frames after it; the first wrong byte ends it all the same.
#[test]
fn the_first_wrong_byte_fails() {
    for role in [Role::Server, Role::Client] {
        for invalid in INVALID {
            let wrong = (0..invalid.len())
                .find(|&i| matches!(std::str::from_utf8(&invalid[..=i]), Err(e) if e.error_len().is_some()))
                .unwrap();
            for pad in [0, 3, 100] {
                let text = [&vec![b'.'; pad][..], invalid, &[b'.'; 100]].concat();
                let frame = frame_for(role, 0x01, &text);
                let header = frame.len() - text.len();
                let outcome = feed(&mut connect(role, &Config::default(), None), &frame, || 1);
                assert_eq!(outcome.error, Some(ProtocolError::Utf8));
                assert_eq!(outcome.error_at, Some(header + pad + wrong + 1), "{invalid:x?}");
            }
        }
    }
}

/// As much under compression: the check is on what comes out, as it comes out.
#[test]
fn compressed_text_is_checked_as_it_is_inflated() {
    for (texts, valid) in [(VALID, true), (INVALID, false), (UNFINISHED, false)] {
        for text in texts {
            let text = [&[b'.'; 5000][..], text].concat();
            let mut stream = Vec::new();
            let sending = Config { fragment_size: Some(5), ..Config::default() };
            let mut client = connect(Role::Client, &sending, Some(&DEFLATE));
            client.sender().message(Kind::Text, &text, Compress::Always, &mut stream).unwrap();
            let outcome =
                bodies::differential(Role::Server, &Config::default(), Some(&DEFLATE), &stream, 1);
            assert_eq!(outcome.error, (!valid).then_some(ProtocolError::Utf8), "{text:x?}");
        }
    }
    let mut stream = Vec::new();
    let noise: String =
        (0..20_000u32).map(|i| char::from((i.wrapping_mul(2_654_435_761) >> 25) as u8)).collect();
    let text = [b"\xff", noise.as_bytes()].concat();
    let mut client = connect(Role::Client, &Config::default(), Some(&DEFLATE));
    client.sender().message(Kind::Text, &text, Compress::Always, &mut stream).unwrap();
    let mut server = connect(Role::Server, &Config::default(), Some(&DEFLATE));
    let outcome = feed(&mut server, &stream, || 1);
    assert_eq!(outcome.error, Some(ProtocolError::Utf8));
    assert!(
        outcome.error_at < Some(stream.len() / 2),
        "{:?} of {}",
        outcome.error_at,
        stream.len()
    );
}
