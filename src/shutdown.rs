//! Ending a reactor gracefully: no new connections, goodbyes said, output drained, then the cut.

use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::conn::Flags;
use crate::core::nanos;
use crate::isolate::drop_isolated;
use crate::mail::Mail;
use crate::reactor::Reactor;

/// A reactor that ends when its connections have, or when its time is up.
pub(crate) struct ShuttingDown {
    /// Nanoseconds since the reactor started.
    pub(crate) deadline: u64,
    reports: Vec<Sender<usize>>,
}

impl Reactor {
    pub(crate) fn begin_shutdown(&mut self, within: Option<Duration>, report: Sender<usize>) {
        let core = &self.dispatcher.core;
        let within = within.unwrap_or(core.config.shutdown_timeout);
        // By the clock, not by the turn, which may have begun long before the order came.
        let deadline = self.dispatcher.backend.now().saturating_add(nanos(within));
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.deadline = shutdown.deadline.min(deadline);
            shutdown.reports.push(report);
            return;
        }
        self.shutdown = Some(ShuttingDown { deadline, reports: vec![report] });
        // Handlers that come from now on are told right after their `on_open`.
        self.dispatcher.core.shutting_down = true;
        self.close_listeners();
        for id in self.conn_ids() {
            self.dispatcher.say_goodbye(id);
            self.dispatcher.settle();
        }
        self.dispatcher.cancel_connects();
    }

    /// Whether the shutdown is over: all gone, or out of time.
    pub(crate) fn check_shutdown(&mut self) {
        let core = &self.dispatcher.core;
        let Some(shutdown) = &self.shutdown else {
            return;
        };
        let late = core.now >= shutdown.deadline;
        // What is in the mailbox may be a connection that was accepted for this reactor.
        if late || core.conns.len() == 0 && core.shared.mailbox.close_if_empty() {
            self.running = false;
        }
    }

    /// The end, whether in time, too late or by order: everything is ended; the number of
    /// connections that this cut.
    pub(crate) fn stop_now(&mut self) -> usize {
        for mail in self.dispatcher.core.shared.mailbox.close() {
            if let Mail::Accepted(listener, ..) = &mail {
                self.dispatcher.released.push(*listener); // it was counted as this reactor's
            }
            drop_isolated(mail);
        }
        let conns = &self.dispatcher.core.conns;
        let cut = (0..conns.slots())
            .filter_map(|index| conns.at(index))
            .filter(|conn| conn.kind.has_handler() && !conn.flags.any(Flags::LINGERING))
            .count();
        self.drop_listeners();
        self.dispatcher.stop_all();
        self.resume_acceptors(); // those of other reactors may wait for what was held here
        cut
    }

    /// Tells those who wait for the shutdown, now that the counters are final.
    pub(crate) fn report_shutdown(&mut self, cut: usize) {
        for report in self.shutdown.take().into_iter().flat_map(|shutdown| shutdown.reports) {
            let _ = report.send(cut); // nobody may be waiting
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::cell::Cell;
    use std::io;
    use std::rc::Rc;
    use std::time::Duration;

    use crate::sim::Simulation;
    use crate::{Ctx, EvHandler};

    struct Told(Rc<Cell<u32>>);

    impl EvHandler for Told {
        fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            Ok(data.len())
        }

        fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            self.0.set(self.0.get() + 1);
            cx.close();
            Ok(())
        }
    }

    #[test]
    fn a_handler_that_opens_after_the_shutdown_began_is_told() {
        let mut sim = Simulation::new(1);
        let told = Rc::new(Cell::new(0));
        sim.reactor().add(Told(told.clone()));
        let shutdown = sim.handle().shutdown(Duration::from_secs(10));
        sim.settle();
        assert_eq!(told.get(), 1);
        assert!(!sim.turn(), "the reactor has nothing to wait for");
        drop(sim); // which the reports would wait for
        assert_eq!(shutdown.wait(), 0);
    }

    #[test]
    fn a_handler_that_mail_opens_after_the_shutdown_began_is_told() {
        let mut sim = Simulation::new(1);
        let told = Rc::new(Cell::new(0));
        let id = sim.reactor().add(Told(told.clone()));
        let remote = sim.reactor().conn(id).map(|mut cx| cx.remote()).expect("it was just added");
        sim.handle().shutdown(Duration::from_secs(10));
        remote.notify(1).expect("the mailbox has room");
        sim.settle();
        assert_eq!(told.get(), 1);
    }
}
