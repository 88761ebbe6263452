//! Sends datagrams back: `cargo run --release --example udp_echo`, then `nc -u 127.0.0.1 7007`.

mod common;

use std::process::ExitCode;

use reev::{Addr, Ctx, DatagramOptions, EvHandler, Server};

struct Echo;

impl EvHandler for Echo {
    fn on_datagram(
        &mut self,
        cx: &mut Ctx<'_>,
        data: &mut [u8],
        from: &Addr,
    ) -> std::io::Result<()> {
        cx.send_to(from, data);
        Ok(())
    }
}

/// A UDP echo server: sends datagrams back to where they came from
#[derive(clap::Parser)]
#[command(name = "udp_echo", version)]
#[command(mut_arg("addr", |arg| common::takes(arg, common::DATAGRAM_ADDRS)))]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// Bytes of the longest datagram that is sent back; longer ones are dropped, unless with --gro
    #[arg(long, default_value_t = 2048, value_name = "BYTES")]
    max: usize,

    /// A system call for each datagram instead of one for many
    #[arg(long)]
    no_batches: bool,

    /// Let the system join datagrams of one peer (UDP_GRO)
    #[arg(long)]
    gro: bool,
}

fn main() -> ExitCode {
    common::run("udp://127.0.0.1:7007", |options: Options| {
        let mut server = Server::new(options.serve.config())?;
        let datagrams = DatagramOptions {
            datagram_max: options.max,
            batches: !options.no_batches,
            gso: !options.no_batches,
            gro: options.gro,
            ..DatagramOptions::default()
        };
        let socket = server.bind_datagrams(&options.serve.datagram_addr(), &datagrams)?;
        let addr = server.datagram_addr(socket);
        reev::stop_on_signals(&server.handle())?;
        let running =
            server.start(move |reactor| reactor.serve_datagrams(socket, Echo).map(drop))?;
        let try_it = match addr.socket_addr().map(common::reached_at) {
            Some(addr) => format!("nc -u {} {}", addr.ip(), addr.port()),
            None => "a client for Unix datagrams".to_owned(),
        };
        common::banner("udp_echo", &addr, try_it);
        running.join()
    })
}
