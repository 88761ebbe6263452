//! The timers of a connection and its idle timeout, as a callback sets them.

use std::time::Duration;

use crate::conn::Flags;
use crate::ctx::Ctx;
use crate::timer::TimerId;

/// Which traffic renews an idle timeout.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// use std::time::Duration;
/// use reev::Traffic;
///
/// struct Session;
///
/// impl EvHandler for Session {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         // However much it is sent, a client has to say something within five minutes.
///         cx.idle_timeout_by(Duration::from_secs(300), Traffic::Reads);
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Traffic {
    /// Bytes read and bytes sent.
    Both,
    /// Bytes read only: cuts a client that takes everything and says nothing.
    Reads,
    /// Bytes sent only: cuts a client that reads nothing.
    Writes,
}

impl Ctx<'_> {
    /// Calls `on_timeout` once, not before `after` has passed since [`Ctx::now`], the time of this
    /// turn, and in a later turn even if `after` is zero. Timers end with their connection. On a
    /// connection that is ending this gives [`TimerId::NONE`].
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.core.set_timer(self.id, after, Duration::ZERO)
    }

    /// Calls `on_timeout` every `period` (at least 1 µs), without drift; periods missed in a
    /// stall are skipped, not made up for.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler, TimerId};
    /// use std::time::Duration;
    ///
    /// /// Says "tick" three times, and goodbye.
    /// #[derive(Default)]
    /// struct Ticker(u32);
    ///
    /// impl EvHandler for Ticker {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
    ///         cx.set_periodic(Duration::from_secs(10));
    ///         Ok(())
    ///     }
    ///
    ///     fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> std::io::Result<()> {
    ///         cx.write(b"tick\n");
    ///         self.0 += 1;
    ///         if self.0 == 3 {
    ///             cx.cancel_timer(timer);
    ///             cx.close();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Ticker::default());
    /// # let peer = sim.connect(listener);
    /// # sim.advance(Duration::from_secs(60));
    /// # assert_eq!(peer.receive(), b"tick\ntick\ntick\n");
    /// # assert!(peer.saw_fin());
    /// ```
    pub fn set_periodic(&mut self, period: Duration) -> TimerId {
        let period = period.max(Duration::from_micros(1));
        self.core.set_timer(self.id, period, period)
    }

    /// Cancels a timer of any connection of this reactor; false if it has fired or is gone.
    /// A periodic timer can be cancelled in its own callback.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.core.cancel_timer(timer)
    }

    /// Moves a pending timer to `after` from now; false if it has fired or is gone.
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler, TimerId};
    /// use std::time::Duration;
    ///
    /// /// Answers when the client has been silent for 20 ms, to all of it at once.
    /// #[derive(Default)]
    /// struct Debounced {
    ///     timer: TimerId,
    ///     bytes: usize,
    /// }
    ///
    /// impl EvHandler for Debounced {
    ///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
    ///         let silence = Duration::from_millis(20);
    ///         if !cx.reset_timer(self.timer, silence) {
    ///             self.timer = cx.set_timer(silence);
    ///         }
    ///         self.bytes += data.len();
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> std::io::Result<()> {
    ///         cx.write(format!("{} bytes\n", std::mem::take(&mut self.bytes)).as_bytes());
    ///         Ok(())
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Debounced::default());
    /// # let peer = sim.connect(listener);
    /// # for _ in 0..3 {
    /// #     peer.send(b"abc");
    /// #     sim.advance(Duration::from_millis(15));
    /// # }
    /// # sim.advance(Duration::from_millis(20));
    /// # assert_eq!(peer.receive(), b"9 bytes\n");
    /// ```
    pub fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        self.core.reset_timer(timer, after)
    }

    /// Ends the connection with `Close::IdleTimeout` when nothing was read or sent for `after`:
    /// at least 1 ms, at most 24 days; `None` switches it off. Traffic costs one store, not a
    /// timer.
    pub fn idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.idle_timeout_by(after, Traffic::Both);
    }

    /// [`Ctx::idle_timeout`], renewed by one direction alone.
    pub fn idle_timeout_by(&mut self, after: impl Into<Option<Duration>>, renewed_by: Traffic) {
        let flags = match renewed_by {
            Traffic::Both => Flags::default(),
            Traffic::Reads => Flags::IDLE_READS,
            Traffic::Writes => Flags::IDLE_WRITES,
        };
        self.core.set_idle(self.id, after.into(), flags);
    }
}
