//! The other thread of the workload in which another thread answers: it gets jobs through `std::sync::mpsc` whatever the
//! server, so that only the way back differs.

use crate::site::Site;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// Hands every job to `answer`, until the sender is dropped.
pub fn start<'scope, J: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    site: &'scope Site,
    answer: impl Fn(J) + Send + 'scope,
) -> Sender<J> {
    let (sender, jobs): (Sender<J>, Receiver<J>) = channel();
    scope.spawn(move || -> io::Result<()> {
        site.enter()?;
        jobs.into_iter().for_each(answer);
        Ok(())
    });
    sender
}
