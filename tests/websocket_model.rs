//! What one side sends through the API the other receives: real handshakes with random wishes, random messages both
//! ways in random pieces, compression with all parameters, 1,000 seeds. A failure names its seed.
#![cfg(feature = "websocket")]

#[path = "support/websocket_fuzzing.rs"]
mod bodies;

use bodies::{Owned, connect, feed};
use fastrand::Rng;
use reev::websocket::{
    CloseCode, Compress, Config, Connection, DeflateConfig, DeflateParams, Kind, Prepared, Role,
    State, extension,
};

fn config(rng: &mut Rng) -> Config {
    let deflate = rng.u8(..4) > 0;
    Config {
        message_max: 100_000,
        fragment_size: [None, Some(1 + rng.usize(..2000))][rng.usize(..2)],
        answer_close: true,
        answer_pings: rng.bool(),
        deflate: deflate.then(|| DeflateConfig {
            server_no_context_takeover: rng.bool(),
            client_no_context_takeover: rng.bool(),
            server_max_window_bits: rng.u8(8..=15),
            client_max_window_bits: rng.u8(8..=15),
            level: rng.u8(..10),
            threshold: rng.usize(..100),
        }),
        ..Config::default()
    }
}

fn negotiate(client: &Config, server: &Config) -> Option<DeflateParams> {
    let (client, server) = (client.deflate.as_ref()?, server.deflate.as_ref()?);
    let agreed = extension::answer([extension::offer(client).as_bytes()], server).unwrap().unwrap();
    let checked = extension::check([agreed.header.as_bytes()], Some(client)).unwrap().unwrap();
    assert_eq!(agreed.params, checked);
    Some(checked)
}

fn text(rng: &mut Rng) -> String {
    let len = match rng.u8(..20) {
        0 => rng.usize(..70_000),
        1..5 => rng.usize(..5_000),
        _ => rng.usize(..300),
    };
    let words = [
        "alpha ",
        "beta ",
        "\u{3b3}\u{3b4} ",
        "\u{20ac}",
        "\u{1f600}",
        "0",
        "the same words again ",
    ];
    let mut text = String::new();
    while text.len() < len {
        text.push_str(words[rng.usize(..words.len())]);
        if rng.u8(..8) == 0 {
            text.push(rng.char(..));
        }
    }
    text
}

/// Sends something, and says what the peer is to receive.
fn send(rng: &mut Rng, role: Role, from: &mut Connection, out: &mut Vec<u8>) -> Owned {
    let sender = from.sender();
    let compress = [Compress::Auto, Compress::Always, Compress::Never][rng.usize(..3)];
    let text = text(rng);
    match rng.u8(..10) {
        0 | 1 if text.len() <= 125 => {
            sender.ping(text.as_bytes(), out).unwrap();
            Owned::Ping(text.into())
        }
        2 if text.len() <= 125 => {
            sender.pong(text.as_bytes(), out).unwrap();
            Owned::Pong(text.into())
        }
        3 if role == Role::Server => {
            let message = Prepared::with_deflate(Kind::Text, text.as_bytes(), rng.u8(..10));
            out.extend_from_slice(sender.prepared(&message).unwrap());
            Owned::Text(text)
        }
        4 if role == Role::Server => {
            let header = sender.plain_header(Kind::Binary, text.len()).unwrap().unwrap();
            out.extend_from_slice(&header);
            out.extend_from_slice(text.as_bytes());
            Owned::Binary(text.into())
        }
        5 => {
            let bytes: Vec<u8> = text.bytes().map(|_| rng.u8(..)).collect();
            sender.message(Kind::Binary, &bytes, compress, out).unwrap();
            Owned::Binary(bytes)
        }
        6 => {
            sender.binary(text.as_bytes(), out).unwrap();
            Owned::Binary(text.into())
        }
        _ => {
            sender.message(Kind::Text, text.as_bytes(), compress, out).unwrap();
            Owned::Text(text)
        }
    }
}

/// Delivers, and checks: the events are what was sent, in order; the answers go back.
fn deliver(rng: &mut Rng, to: &mut Connection, stream: &[u8], expected: &[Owned]) -> Vec<u8> {
    let most = 1 << rng.u32(..17);
    let mut cuts = rng.fork();
    let outcome = feed(to, stream, || 1 + cuts.usize(..most));
    assert_eq!(outcome.error, None);
    assert!(outcome.events == expected);
    outcome.out
}

fn run(seed: u64) {
    let rng = &mut Rng::with_seed(seed);
    let (client_config, server_config) = (config(rng), config(rng));
    let params = negotiate(&client_config, &server_config);
    let mut client = connect(Role::Client, &client_config, params.as_ref());
    let mut server = connect(Role::Server, &server_config, params.as_ref());
    for _ in 0..rng.usize(1..5) {
        for role in [Role::Client, Role::Server] {
            let (from, to, answers) = match role {
                Role::Client => (&mut client, &mut server, server_config.answer_pings),
                Role::Server => (&mut server, &mut client, client_config.answer_pings),
            };
            let mut stream = Vec::new();
            let sent: Vec<Owned> =
                (0..rng.usize(..6)).map(|_| send(rng, role, from, &mut stream)).collect();
            let back = deliver(rng, to, &stream, &sent);
            let pings = sent.into_iter().filter(|_| answers).filter_map(|event| match event {
                Owned::Ping(payload) => Some(Owned::Pong(payload)),
                _ => None,
            });
            let none = deliver(rng, from, &back, &pings.collect::<Vec<_>>());
            assert_eq!(none, b"");
        }
    }
    let code = CloseCode([1000, 1001, 1011, 3000, 4999][rng.usize(..5)]);
    let (first, second) =
        if rng.bool() { (&mut client, &mut server) } else { (&mut server, &mut client) };
    let mut stream = Vec::new();
    first.sender().close(code, "done", &mut stream).unwrap();
    let back = deliver(rng, second, &stream, &[Owned::Close(Some(code.0), "done".into())]);
    let none = deliver(rng, first, &back, &[Owned::Close(Some(code.0), String::new())]);
    assert_eq!((none.len(), first.state(), second.state()), (0, State::Done, State::Done));
    assert_eq!(
        (first.sender().close_code(), second.sender().close_code()),
        (Some(code), Some(code))
    );
}

#[test]
fn a_thousand_seeds() {
    for seed in 0..1000 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
