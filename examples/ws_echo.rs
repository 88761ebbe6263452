//! An echo of WebSocket messages at `/`, for benchmark and conformance clients:
//! `cargo run --release --example ws_echo`, then `npx wscat -c ws://127.0.0.1:7001/`.
//!
//! Text and binary come back as they came; permessage-deflate is offered; any page may connect.

mod common;

use std::process::ExitCode;

use clap::Parser;
use reev::http1::Http1;
use reev::websocket::{DeflateConfig, Handler, Options, Origins, WebSocket, WebSockets};

/// What the longest message takes of the output beside itself: some pipelined ones.
const OUTPUT_SPARE: usize = 16 << 20;

/// A WebSocket echo server: text and binary come back as they came
#[derive(Parser)]
#[command(name = "ws_echo", version)]
struct Flags {
    #[command(flatten)]
    serve: common::Serve,

    /// Longest message, in bytes; longer ones close with 1009
    #[arg(long, default_value_t = 64 << 20)]
    max_message: usize,

    /// Do not offer permessage-deflate
    #[arg(long)]
    no_deflate: bool,
}

struct Echo;

impl Handler for Echo {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let _ = ws.text(text); // nothing is sent after the close frame
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        let _ = ws.binary(data);
    }
}

fn options(flags: &Flags) -> Options {
    let mut options = Options::default();
    options.codec.message_max = flags.max_message;
    options.codec.fragments_max = 100_000;
    options.codec.deflate = (!flags.no_deflate).then(DeflateConfig::default);
    options.origins = Origins::Any;
    options
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7001", |flags: Flags| {
        let options = options(&flags);
        let output_max = flags.max_message.saturating_mul(2).saturating_add(OUTPUT_SPARE);
        let serve = common::Serve { output_max: Some(output_max), ..flags.serve };
        let (server, listener) = serve.listen()?;
        let addr = server.local_addr(listener);
        let running = server.start(move |reactor| {
            let (http, sockets) =
                (Http1::new(Default::default()), WebSockets::new(options.clone()));
            reactor.accept(listener, move |_peer| http.connection(sockets.path("/", || Echo)))
        })?;
        let url = match addr.unix_path() {
            Some(path) => format!("ws+unix://{}:/", path.display()),
            None => format!("ws://{addr}/"),
        };
        common::banner("ws_echo", &addr, format_args!("npx wscat -c {url}"));
        running.join()
    })
}
