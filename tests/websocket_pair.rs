//! What one side sends through the API the other receives: server and client of the layer, each
//! over a simulated kernel where everything goes wrong that may, 1,000 seeds.
#![cfg(all(feature = "websocket", feature = "sim"))]

#[path = "support/websocket_pair.rs"]
mod pair;

use std::time::Duration;

use fastrand::Rng;
use pair::{End, Message, settle};
use reev::Config;
use reev::sim::Faults;
use reev::websocket::{DeflateConfig, Options};

fn deflate(rng: &mut Rng) -> Option<DeflateConfig> {
    rng.bool().then(|| DeflateConfig {
        server_no_context_takeover: rng.bool(),
        client_no_context_takeover: rng.bool(),
        server_max_window_bits: rng.u8(9..=15),
        client_max_window_bits: rng.u8(9..=15),
        level: rng.u8(1..10),
        threshold: rng.usize(..100),
    })
}

fn options(rng: &mut Rng, deflate: Option<DeflateConfig>) -> Options {
    let mut options = Options::default();
    options.codec.deflate = deflate;
    options.codec.fragment_size = [None, Some(1 + rng.usize(..3000))][rng.usize(..2)];
    options
}

/// A message that names its origin: `d` of a callback, `r` of a remote.
fn message(rng: &mut Rng, origin: char, number: usize) -> Message {
    let len = match rng.u8(..20) {
        0 => rng.usize(..70_000),
        1..5 => rng.usize(..3_000),
        _ => rng.usize(..200),
    };
    let mut text = format!("{origin}{number} ");
    while text.len() < len {
        text.push_str(
            ["alpha ", "\u{3b3}\u{3b4}", "\u{1f600}", "again and again "][rng.usize(..4)],
        );
    }
    if rng.bool() { Message::Text(text) } else { Message::Binary(text.into_bytes()) }
}

fn origin(message: &Message) -> u8 {
    match message {
        Message::Text(text) => text.as_bytes()[0],
        Message::Binary(data) => data[0],
    }
}

fn of(origin_wanted: u8, messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|message| origin(message) == origin_wanted).collect()
}

/// One side's messages, by the way they are sent.
struct Plan {
    direct: Vec<Message>,
    remote: Vec<Message>,
    sent: usize,
}

fn plan(rng: &mut Rng, end: &End) -> Plan {
    let mut make = |origin| -> Vec<Message> {
        let count = rng.usize(..8);
        (0..count).map(|number| message(rng, origin, number)).collect()
    };
    let plan = Plan { direct: make('d'), remote: make('r'), sent: 0 };
    end.log.borrow_mut().direct = plan.direct.iter().rev().cloned().collect();
    plan
}

impl Plan {
    fn send_some(&mut self, end: &End) {
        let remote = end.log.borrow().remote.clone();
        if let (Some(remote), Some(message)) = (remote, self.remote.get(self.sent)) {
            self.sent += 1;
            match message.clone() {
                Message::Text(text) => remote.text(text),
                Message::Binary(data) => remote.binary(data),
            }
            .unwrap();
        }
    }

    fn check(&self, seed: u64, sender: &End, receiver: &End) {
        let log = receiver.log.borrow();
        assert_eq!(of(b'r', &log.got), self.remote.iter().collect::<Vec<_>>(), "seed {seed}");
        // A callback sends one message for each it gets, so some may be left.
        let left = sender.log.borrow().direct.len();
        let sent = self.direct.len() - left;
        assert_eq!(of(b'd', &log.got), self.direct[..sent].iter().collect::<Vec<_>>());
        assert!(left == 0 || sender.log.borrow().got.len() < self.direct.len(), "seed {seed}");
    }
}

fn run(seed: u64) {
    let rng = &mut Rng::with_seed(seed);
    let (of_server, of_client) = (deflate(rng), deflate(rng));
    let agreed = of_server.is_some() && of_client.is_some();
    let faults = if rng.u8(..4) == 0 { Faults::default() } else { Faults::hostile() };
    let config = Config {
        output_low: 2_000,
        output_high: 8_000,
        direct_write_min: 4_000,
        read_buffer: [4096, 65_536][rng.usize(..2)],
        ..Config::default()
    };
    let options = |rng: &mut Rng, deflate| options(rng, deflate);
    let mut server = pair::server(seed, faults.clone(), config.clone(), options(rng, of_server));
    let mut client = pair::client(seed + 1, faults, config, options(rng, of_client));
    let mut plans = [plan(rng, &server), plan(rng, &client)];
    for _ in 0..200 {
        match rng.u8(..6) {
            0 => drop(server.sim.turn()),
            1 => drop(client.sim.turn()),
            2 => drop(server.carry_to(&client, 1 + rng.usize(..5_000))),
            3 => drop(client.carry_to(&server, 1 + rng.usize(..5_000))),
            4 => plans[0].send_some(&server),
            _ => plans[1].send_some(&client),
        }
    }
    settle(&mut server, &mut client);
    for _ in 0..8 {
        plans[0].send_some(&server);
        plans[1].send_some(&client);
    }
    settle(&mut server, &mut client);
    for end in [&server, &client] {
        assert_eq!(
            (end.log.borrow().opened, end.log.borrow().deflated),
            (1, agreed),
            "seed {seed}"
        );
    }
    plans[0].check(seed, &server, &client);
    plans[1].check(seed, &client, &server);

    // One of them closes; both see the same end.
    let closing = if rng.bool() { &server } else { &client };
    closing.log.borrow().remote.as_ref().unwrap().notify(4000 + seed % 1000).unwrap();
    settle(&mut server, &mut client);
    for end in [&mut server, &mut client] {
        end.sim.advance(Duration::from_secs(60));
        let log = end.log.borrow();
        assert_eq!(log.closed.len(), 1, "seed {seed}");
        assert_eq!((log.closed[0].0, log.closed[0].2), (4000 + (seed % 1000) as u16, true));
    }
}

#[test]
fn what_one_side_sends_the_other_receives() {
    for seed in 0..1000 {
        run(seed);
    }
}
