//! The peers' and the other threads' part of a run.

use std::time::Duration;

use reev::sim::{Outgoing, Peer, Simulation};
use reev::{Ctx, ListenerId};

use super::inside::Chaos;
use super::world::{Line, Shared, WAITING, WORLD, new_dial};

pub(super) struct Outside {
    pub(super) world: Shared,
    pub(super) peers: Vec<(usize, Peer)>,
    /// The reactor's attempts to connect that nobody has answered, and their lines.
    pub(super) attempts: Vec<(usize, Outgoing)>,
    pub(super) listener: ListenerId,
}

impl Outside {
    pub(super) fn roll(&self, sides: u32) -> u32 {
        self.world.borrow_mut().rng.u32(0..sides)
    }

    /// What has become of the reactor's attempts to connect.
    pub(super) fn watch_attempts(&mut self, sim: &mut Simulation) {
        while let Some(attempt) = sim.outgoing() {
            self.attempts.push((attempt.addr().port().unwrap().into(), attempt));
        }
        self.attempts.retain(|(_, attempt)| !attempt.is_abandoned());
        // Answered, and given up by then: as if it had never been.
        let lines = &mut self.world.borrow_mut().lines;
        self.peers.retain(|&(me, ref peer)| {
            let line = &mut lines[me];
            let lost = line.dialled && line.opened == 0 && peer.is_released();
            if lost {
                line.sent.clear();
                (line.peer_finished, line.peer_gone) = (false, false);
            }
            !lost
        });
    }

    /// Answers an attempt, but no two of one line with yes.
    fn answer(&mut self) {
        if self.attempts.is_empty() {
            return;
        }
        let which = self.world.borrow_mut().rng.usize(..self.attempts.len());
        let me = self.attempts[which].0;
        if self.peers.iter().any(|&(other, _)| other == me) {
            return;
        }
        let (_, attempt) = self.attempts.swap_remove(which);
        match self.roll(3) {
            0 => attempt.refuse(),
            _ => self.peers.push((me, attempt.accept())),
        }
    }

    fn dial(&self, sim: &mut Simulation) {
        let Some((me, to, options)) = new_dial(&self.world) else {
            return;
        };
        let id = sim.reactor().connect(to, &options, Chaos::new(me, &self.world, true));
        let remote = sim.reactor().conn(id).map(|mut cx| cx.remote());
        let line = &mut self.world.borrow_mut().lines[me];
        (line.id, line.remote) = (Some(id), remote);
    }

    /// Descriptors of connections that were accepted.
    pub(super) fn accepted_sockets(&self) -> usize {
        let lines = &self.world.borrow().lines;
        let accepted = |line: &Line| !line.dialled && line.opened > 0;
        let there = |(me, peer): &&(usize, Peer)| accepted(&lines[*me]) && !peer.is_released();
        self.peers.iter().filter(there).count()
    }

    pub(super) fn act(&mut self, sim: &mut Simulation) {
        self.watch_attempts(sim);
        match self.roll(10) {
            0 => self.dial(sim),
            1..4 => self.answer(),
            _ => {}
        }
        if self.peers.is_empty() || self.peers.len() < 12 && self.roll(12) == 0 {
            // The lines of accepted connections are made in the order of their connects.
            let me = {
                let mut world = self.world.borrow_mut();
                world.lines.push(Line::default());
                world.lines.len() - 1
            };
            WAITING.with(|waiting| waiting.borrow_mut().push_back(me));
            self.peers.push((me, sim.connect(self.listener)));
            return;
        }
        let which = self.world.borrow_mut().rng.usize(..self.peers.len());
        let (me, peer) = (self.peers[which].0, self.peers[which].1.clone());
        match self.roll(24) {
            0..9 => self.send(me, &peer),
            9..16 => {
                let most = self.world.borrow_mut().rng.usize(0..5000);
                self.receive(me, &peer, most);
            }
            16 if self.roll(3) == 0 => {
                peer.finish();
                self.world.borrow_mut().lines[me].peer_finished = true;
            }
            17 if self.roll(4) == 0 => {
                self.receive(me, &peer, usize::MAX);
                peer.close();
                let line = &mut self.world.borrow_mut().lines[me];
                (line.peer_finished, line.peer_gone) = (true, true);
            }
            18 if self.roll(4) == 0 => {
                peer.reset();
                let line = &mut self.world.borrow_mut().lines[me];
                (line.peer_finished, line.peer_gone) = (true, true);
            }
            19 | 20 => self.remote(sim),
            21 => sim.advance(Duration::from_micros(self.roll(5000).into())),
            _ => {}
        }
    }

    /// All peers finish, those that were never answered too, and take what there is.
    pub(super) fn finish(&mut self, sim: &mut Simulation) {
        self.watch_attempts(sim);
        self.answer();
        for (me, peer) in &self.peers {
            peer.finish();
            self.world.borrow_mut().lines[*me].peer_finished = true;
            self.receive(*me, peer, usize::MAX);
        }
    }

    fn send(&self, me: usize, peer: &Peer) {
        let world = &mut *self.world.borrow_mut();
        let n = match world.rng.u32(0..10) {
            0 => world.rng.usize(0..9000),
            _ => world.rng.usize(0..200),
        };
        let line = &mut world.lines[me];
        if line.peer_finished {
            return;
        }
        let data: Vec<u8> = (0..n).map(|_| world.rng.u8(..)).collect();
        line.sent.extend(&data);
        peer.send(&data);
    }

    pub(super) fn receive(&self, me: usize, peer: &Peer, most: usize) {
        let got = peer.receive_at_most(most);
        let world = &mut *self.world.borrow_mut();
        let line = &mut world.lines[me];
        let expected = line.written.get(line.received..line.received + got.len());
        if expected != Some(&got) {
            world.wrong.push(format!("the peer of {me} got wrong bytes at {}", line.received));
        }
        line.received += got.len();
    }

    fn remote(&self, sim: &Simulation) {
        let (target, remote) = {
            let world = &mut *self.world.borrow_mut();
            let target = world.rng.usize(..world.lines.len());
            (target, world.lines[target].remote.clone())
        };
        let Some(remote) = remote else {
            return;
        };
        // Writing and closing as a task, so that they are noted when they are done.
        let id = remote.id();
        let task = |todo: fn(&Shared, &mut Ctx<'_>, usize)| {
            let task = move |reactor: &mut reev::Reactor| {
                if let Some(mut cx) = reactor.conn(id) {
                    WORLD.with(|world| todo(world.borrow().as_ref().unwrap(), &mut cx, target));
                }
            };
            sim.handle().run_on(0, task).unwrap();
        };
        match self.roll(8) {
            0 => task(|world, cx, target| {
                cx.close();
                world.borrow_mut().lines[target].closing = true;
            }),
            1 if self.roll(2) == 0 => drop(remote.abort()),
            2 => task(|world, cx, target| Chaos::new(target, world, true).write(cx, target)),
            3 => task(|world, cx, target| {
                let dialled = world.borrow().lines[target].dialled;
                let socket = dialled || cx.peer() != reev::Addr::NONE;
                cx.replace(Chaos::new(target, world, socket));
            }),
            _ => drop(remote.notify(self.roll(100).into())),
        }
    }
}
