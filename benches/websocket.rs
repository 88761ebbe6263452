//! `cargo bench --bench websocket`: unmasking in GB/s, and the echo of messages through the codec alone.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reev::websocket::{
    Config, Connection, DeflateConfig, DeflateParams, Event, Kind, Masks, Prepared, Role, Sender,
    mask,
};

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for len in [16, 128, 1024, 65536, 16 << 20] {
        let mut data = vec![7; len + 1];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("aligned", len), |b| {
            b.iter(|| mask::apply(&mut data[..len], [1, 2, 3, 4]))
        });
        group.bench_function(BenchmarkId::new("odd", len), |b| {
            b.iter(|| mask::apply(&mut data[1..], [1, 2, 3, 4]))
        });
    }
    group.finish();
}

fn echo(server: &mut Connection, data: &mut [u8], out: &mut Vec<u8>) {
    let mut used = 0;
    loop {
        let step = server.step(&mut data[used..], out).expect("valid frames");
        used += step.used;
        match step.event {
            Some(Event::Text(text)) => step.sender.text(text, out).expect("an open connection"),
            Some(Event::Binary(bytes)) => {
                step.sender.binary(bytes, out).expect("an open connection")
            }
            Some(_) => {}
            None => return,
        }
    }
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    let params = DeflateParams {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    let deflating = Config { deflate: Some(DeflateConfig::default()), ..Config::default() };
    for len in [128, 1024, 65536] {
        group.throughput(Throughput::Bytes(len as u64));
        for (name, kind, params) in [
            ("text", Kind::Text, None),
            ("binary", Kind::Binary, None),
            ("deflate", Kind::Text, Some(&params)),
        ] {
            let mut client = Sender::new(Role::Client, &deflating, params);
            client.set_masks(Masks::seeded(1));
            let mut frame = Vec::new();
            let text = "the quick brown fox jumps over ".repeat(len / 31 + 1);
            client
                .message(kind, &text.as_bytes()[..len], Default::default(), &mut frame)
                .expect("an open connection");
            let mut server = Connection::new(Role::Server, &deflating, params);
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter_batched_ref(
                    || frame.clone(),
                    |data| {
                        out.clear();
                        echo(&mut server, data, &mut out);
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn prepared(c: &mut Criterion) {
    let mut server = Sender::new(Role::Server, &Config::default(), None);
    let message = Prepared::text(&"x".repeat(128));
    let mut out = Vec::new();
    c.bench_function("prepared/128", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(server.prepared(&message).expect("an open connection"));
        });
    });
}

criterion_group!(benches, unmask, messages, prepared);
criterion_main!(benches);
