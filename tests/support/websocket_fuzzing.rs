//! Bodies of the WebSocket fuzz targets: plain functions over bytes, for cargo-fuzz and for the property tests alike.
//! Include it with `#[path]`; each panics if what it promises does not hold.

#![allow(dead_code, reason = "each crate that includes this uses a part of it")]

use reev::websocket::{
    Config, Connection, DeflateParams, Event, Header, Kind, Masks, ProtocolError, Role, Sender,
    State, client, server,
};

/// An [`Event`] that owns what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Owned::Text(text.to_owned()),
            Event::Binary(bytes) => Owned::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Owned::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Owned::Pong(bytes.to_vec()),
            Event::Close(close) => {
                Owned::Close(close.code.map(|code| code.0), close.reason.to_owned())
            }
        }
    }
}

/// What a connection made of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub events: Vec<Owned>,
    pub error: Option<ProtocolError>,
    /// How many bytes had arrived when the error was found.
    pub error_at: Option<usize>,
    /// What the connection sent by itself.
    pub out: Vec<u8>,
    pub state: State,
}

/// Everything without compression, or with it and with context takeover.
pub const DEFLATE: DeflateParams = DeflateParams {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

/// Feeds a connection as a reactor does: the unread tail, then what arrives, in pieces whose sizes `cut` chooses.
pub fn feed(connection: &mut Connection, stream: &[u8], mut cut: impl FnMut() -> usize) -> Outcome {
    let (mut events, mut out, mut buffer, mut error) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut at = 0;
    while at < stream.len() && error.is_none() {
        let end = at.saturating_add(cut().max(1)).min(stream.len());
        buffer.extend_from_slice(&stream[at..end]);
        at = end;
        let mut used = 0;
        loop {
            match connection.step(&mut buffer[used..], &mut out) {
                Ok(step) => {
                    used += step.used;
                    match step.event {
                        Some(event) => events.push(event.into()),
                        None => break,
                    }
                }
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        buffer.drain(..used);
        assert!(
            error.is_some() || buffer.len() < 14 + 125,
            "only a header or a control frame may be left over"
        );
    }
    Outcome { events, error, error_at: error.map(|_| at), out, state: connection.state() }
}

/// A connection whose masks repeat.
pub fn connect(role: Role, config: &Config, deflate: Option<&DeflateParams>) -> Connection {
    let mut connection = Connection::new(role, config, deflate);
    connection.sender().set_masks(Masks::seeded(1));
    connection
}

/// A frame by hand, as the other side of `role` sends it: masked for a server.
pub fn frame_for(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = (role == Role::Server).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut frame = Header { first, len: payload.len() as u64, mask }.encode().to_vec();
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Any bytes at all: no panic, memory in bounds, and the same events, error and answers however the stream is cut. The
/// first byte chooses role, compression and the cuts.
pub fn decode(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let deflate = (choice & 2 != 0).then_some(&DEFLATE);
    let config = Config { message_max: 20_000, fragments_max: 50, ..Config::default() };
    differential(role, &config, deflate, stream, u64::from(choice >> 2));
}

/// Whole, byte by byte and in random pieces: all must agree, but for when the error was found.
pub fn differential(
    role: Role,
    config: &Config,
    deflate: Option<&DeflateParams>,
    stream: &[u8],
    seed: u64,
) -> Outcome {
    let whole = feed(&mut connect(role, config, deflate), stream, || usize::MAX);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut pieces = move || 1 + rng.usize(..9) * rng.usize(..9);
    let cuts: [&mut dyn FnMut() -> usize; 2] = [&mut || 1, &mut pieces];
    for cut in cuts {
        let mut other = feed(&mut connect(role, config, deflate), stream, cut);
        other.error_at = whole.error_at;
        assert_eq!(whole, other);
    }
    if let Some(error) = whole.error {
        assert_eq!(whole.state, State::Done);
        assert!(error.close_code().is_on_wire());
    }
    for event in &whole.events {
        if let Owned::Binary(bytes) = event {
            assert!(bytes.len() <= config.message_max);
        }
    }
    whole
}

/// A valid stream of what the bytes choose, then mutated in as many places as the bytes choose: as [`decode`].
pub fn mutate(data: &[u8]) {
    let [choice, mutations, places @ ..] = data else { return };
    let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
    let deflate = (choice & 2 != 0).then_some(&DEFLATE);
    let config = Config { fragment_size: Some(1 + usize::from(choice >> 2)), ..Config::default() };
    let mut sender = Sender::new(role, &config, deflate);
    sender.set_masks(Masks::seeded(u64::from(*choice)));
    let mut stream = Vec::new();
    for (index, chunk) in places.chunks(40).enumerate() {
        let sent = match index % 3 {
            0 => sender.message(Kind::Binary, chunk, Default::default(), &mut stream),
            1 => sender.text(&String::from_utf8_lossy(chunk), &mut stream),
            _ => sender.ping(chunk, &mut stream),
        };
        assert_eq!(sent, Ok(()));
    }
    let mut rng = fastrand::Rng::with_seed(u64::from(*mutations) << 8 | u64::from(*choice));
    for _ in 0..mutations & 3 {
        if let Some(place) = stream.len().checked_sub(1) {
            stream[rng.usize(..=place)] ^= 1 << rng.u8(..8);
        }
    }
    let receiver = if role == Role::Client { Role::Server } else { Role::Client };
    let outcome = differential(receiver, &config, deflate, &stream, u64::from(*mutations));
    assert!(mutations & 3 != 0 || outcome.error.is_none(), "a valid stream: {outcome:?}");
}

/// Any header block: no panic, on either side of the handshake.
pub fn handshake(data: &[u8]) {
    let headers = || {
        data.split(|&byte| byte == b'\n').map(|line| {
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
            (&line[..colon], line.get(colon + 1..).unwrap_or_default())
        })
    };
    let wish = Default::default();
    let options = server::Options { protocols: &["chat"], deflate: Some(&wish) };
    let mut out = Vec::new();
    match server::accept(b"GET", 1, headers(), &options) {
        Ok(accept) => accept.write(&[], &mut out),
        Err(reject) => reject.write(&mut out),
    }
    let request = client::Request { deflate: Some(&wish), ..client::Request::new("host", "/") };
    _ = request.check(&client::Key::from_nonce([0; 16]), 101, headers());
}
