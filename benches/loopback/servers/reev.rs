//! reev: one reactor, a zero-sized handler for echo, one of the HTTP rules for the rest.

use super::http::Response;
use crate::site::Site;
use crate::workload::Protocol;
use reev::{Config, Ctx, EvHandler, ListenOptions, Server, TimerId};
use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

thread_local! {
    static RESPONSE: RefCell<Response> = RefCell::new(Response::new(1));
    static ANSWERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The same httparse loop as the other servers'.
struct Http;

impl EvHandler for Http {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        ANSWERS.with_borrow_mut(|answers| {
            answers.clear();
            let used = RESPONSE.with_borrow(|response| response.answer(data, answers))?;
            cx.write(answers);
            Ok(used)
        })
    }
}

struct Refresh;

impl EvHandler for Refresh {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(Duration::from_millis(500));
        Ok(())
    }

    fn on_read(&mut self, _: &mut Ctx<'_>, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn on_timeout(&mut self, _: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        RESPONSE.with_borrow_mut(Response::refresh);
        Ok(())
    }
}

pub fn run(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    let config = Config { reactors: 1, pin: false, ..Config::default() };
    let mut server = Server::new(config)?;
    let listener = server.adopt_listener(listener.try_clone()?, &ListenOptions::default())?;
    let handle = server.handle();
    let served = Arc::clone(site);
    thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            handle.stop();
            stopped
        });
        server.run(move |reactor| {
            served.enter()?;
            match served.protocol {
                Protocol::Echo => reactor.accept(listener, |_| Echo),
                Protocol::Http => {
                    reactor.add(Refresh);
                    reactor.accept(listener, |_| Http)
                }
            }
        })
    })
}
