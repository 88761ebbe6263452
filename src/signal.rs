//! Stopping on SIGINT and SIGTERM.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::server::Handle;

/// Stops the server when the process gets SIGINT (Ctrl-C) or SIGTERM. A second signal ends the
/// process at once.
///
/// Signals are taken by a thread of their own, from this call on and for the life of the
/// process.
///
/// # Errors
/// What the system says when the signal handlers or the thread cannot be made.
pub fn stop_on_signals(handle: &Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = handle.clone();
    thread::Builder::new().name("reev-signals".to_owned()).spawn(move || {
        let mut seen = signals.forever();
        if let Some(signal) = seen.next() {
            log::info!("signal {signal}: stopping");
            handle.stop();
        }
        if let Some(signal) = seen.next() {
            log::warn!("signal {signal} again: ending at once");
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
