//! Sends back what it receives: `cargo run --release --example echo`, then `nc 127.0.0.1 7000`.

mod common;

use std::process::ExitCode;

use reev::{Ctx, EvHandler};

struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

/// An echo server: sends back what it receives
#[derive(clap::Parser)]
#[command(name = "echo", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7000", |options: Options| {
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let running = server.start(move |reactor| reactor.accept(listener, |_peer| Echo))?;
        common::banner("echo", &addr, common::how_to_try(&addr));
        running.join()
    })
}
