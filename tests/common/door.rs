//! Connections to a simulated reactor, of either origin.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of this")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use reev::sim::{Peer, Simulation};
use reev::{Addr, ConnectOptions, EvHandler, ListenerId};

use super::origin::Origin;

/// Where the connections of a test come from.
pub struct Door {
    origin: Origin,
    listener: ListenerId,
    dial: Box<dyn Fn(&mut Simulation)>,
}

impl Origin {
    /// Connections of this origin, with a handler that `factory` makes for each.
    pub fn listen<H: EvHandler>(
        self,
        sim: &mut Simulation,
        factory: impl FnMut(&Addr) -> H + 'static,
    ) -> Door {
        let factory = Rc::new(RefCell::new(factory));
        let same = factory.clone();
        let listener = sim.listen(move |peer| (*same.borrow_mut())(peer));
        let dial = move |sim: &mut Simulation| {
            let to = SocketAddr::from(([192, 0, 2, 1], 80));
            let handler = (*factory.borrow_mut())(&to.into());
            sim.reactor().connect(to, &ConnectOptions::default(), handler);
        };
        Door { origin: self, listener, dial: Box::new(dial) }
    }
}

impl Door {
    /// A new connection: it is opened in one of the next turns.
    pub fn connect(&self, sim: &mut Simulation) -> Peer {
        if self.origin == Origin::Accepted {
            return self.accepted(sim);
        }
        (self.dial)(sim);
        sim.turn(); // in which it is begun
        sim.outgoing().expect("an attempt to connect").accept()
    }

    /// One that is accepted, whatever the others are.
    pub fn accepted(&self, sim: &mut Simulation) -> Peer {
        sim.connect(self.listener)
    }
}
