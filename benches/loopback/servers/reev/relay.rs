//! A proxy with `Ctx::pair`, as examples/tcp_proxy.rs, with one backend.

use reev::{Close, ConnId, ConnectOptions, Ctx, EvHandler};
use std::io;
use std::net::SocketAddr;

pub struct Client {
    target: SocketAddr,
    backend: Option<ConnId>,
}

impl Client {
    pub fn new(target: SocketAddr) -> Client {
        Client { target, backend: None }
    }
}

impl EvHandler for Client {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.pause_reads(); // until there is somebody to read for
        let backend = Backend { client: cx.id() };
        self.backend = Some(cx.connect(self.target, &ConnectOptions::default(), backend));
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        if let Some(mut backend) = self.backend.and_then(|id| cx.conn(id)) {
            backend.abort(); // still connecting, or else the pair has ended already
        }
    }
}

struct Backend {
    client: ConnId,
}

impl EvHandler for Backend {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if !cx.pair(self.client) {
            cx.abort(); // the client has left
        }
        Ok(())
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, _: io::Error) {
        if let Some(mut client) = cx.conn(self.client) {
            client.abort();
        }
    }
}
