//! Stopping on SIGINT and SIGTERM.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::handle::Handle;

/// Shuts the server down when the process gets SIGINT (Ctrl-C) or SIGTERM: gracefully at the
/// first signal, within `Config::shutdown_timeout`; at once at the second; a third ends the
/// process.
///
/// Signals are taken by a thread of their own, from this call on and for the life of the
/// process.
///
/// # Errors
/// What the system says when the signal handlers or the thread cannot be made.
///
/// ```no_run
/// # use reev::{Ctx, EvHandler};
/// # struct Echo;
/// # impl EvHandler for Echo {
/// #     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
/// #         cx.write(data);
/// #         Ok(data.len())
/// #     }
/// # }
/// let mut server = reev::Server::new(reev::Config::default())?;
/// let listener = server.listen("127.0.0.1:7000")?;
/// reev::stop_on_signals(&server.handle())?;
/// server.run(move |reactor| reactor.accept(listener, |_peer| Echo))?;
/// println!("stopped in good order");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stop_on_signals(handle: &Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = handle.clone();
    thread::Builder::new().name("reev-signals".to_owned()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            match count {
                0 => {
                    log::info!("signal {signal}: shutting down; once more to stop at once");
                    handle.shutdown(None);
                }
                1 => {
                    log::warn!("signal {signal} again: stopping at once");
                    handle.stop();
                }
                _ => std::process::exit(128 + signal),
            }
        }
    })?;
    Ok(())
}
