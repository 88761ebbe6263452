//! Datagrams as examples/udp_echo.rs echoes them.

use crate::servers::Socket;
use crate::site::Site;
use reev::{Addr, Config, Ctx, DatagramOptions, EvHandler, Server};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

struct Echo;

impl EvHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
        cx.send_to(from, data);
        Ok(())
    }
}

pub fn run(socket: Socket, site: &Arc<Site>, options: &DatagramOptions) -> io::Result<()> {
    let socket = Mutex::new(Some(socket.datagrams()?));
    let server = Server::new(Config { reactors: 1, pin: false, ..Config::default() })?;
    let handle = server.handle();
    let (served, options) = (Arc::clone(site), options.clone());
    thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            handle.stop();
            stopped
        });
        server.run(move |reactor| {
            served.enter()?;
            let socket = socket.lock().unwrap().take().ok_or(io::ErrorKind::NotFound)?;
            reactor.adopt_datagrams(socket, &options, Echo).map(drop)
        })
    })
}
