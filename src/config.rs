//! The bounds of the core, each with its default and its reason.

use std::io;
use std::time::Duration;

use crate::placement::Placement;

/// The settings of a server and its reactors. Start from the default and change fields:
///
/// ```
/// let config = reev::Config {
///     reactors: 2,
///     output_max: 64 << 20,
///     ..reev::Config::default()
/// };
/// config.validate()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of reactors, each a thread. 0, the default: one for each core the process may
    /// use, by its affinity mask and its cgroup's CPU quota. At most 1,024.
    pub reactors: usize,
    /// Pin each reactor to a core of the process's affinity mask, in turn. Default true.
    pub pin: bool,
    /// Bytes of the read buffer that all connections of a reactor share; the most that one
    /// `on_read` gets of newly arrived data, but behind more than 4 KiB left untaken, when it may
    /// be as much again as those are. 4 KiB to 16 MiB, default 68 KiB: a message of 64 KiB
    /// comes in one piece with what frames it.
    pub read_buffer: usize,
    /// Bytes a handler may leave untaken in `on_read`; more is [`Close::InputLimit`]. At least
    /// `read_buffer`, default 1 MiB.
    ///
    /// [`Close::InputLimit`]: crate::Close::InputLimit
    pub input_max: usize,
    /// Output at or below this many bytes calls `on_drain` and reads again, after it was above
    /// `output_high`. Default 64 KiB.
    pub output_low: usize,
    /// Output above this many bytes stops reading from the connection. Above `output_low`, or
    /// both 0: then every byte that waits is too much. Default 256 KiB.
    pub output_high: usize,
    /// Output above this many bytes closes with [`Close::SlowConsumer`]. Default 16 MiB.
    ///
    /// [`Close::SlowConsumer`]: crate::Close::SlowConsumer
    pub output_max: usize,
    /// A slice of at least this many bytes is not copied but sent at once, together with what
    /// was written before it. Default 16 KiB: below, a copy costs less than a system call.
    pub direct_write_min: usize,
    /// Events taken from the poller in one turn. 1 to 65,536, default 512: more would delay
    /// timers and mail, fewer would cost system calls.
    pub events_per_turn: usize,
    /// Connections one listener accepts in one turn, so that a burst of connects does not
    /// starve those that are there. Default 64.
    pub accepts_per_turn: usize,
    /// Messages from other threads handled in one turn, so that a flood of them does not starve
    /// the sockets; the rest comes in the next turn, which does not sleep. Default 1,024.
    pub mail_per_turn: usize,
    /// System calls that send one connection's queued output at a time, each of at most 32
    /// pieces, which have 64 KiB where they were copied; then the others have their turn.
    /// Default 16.
    pub sends_per_turn: usize,
    /// Messages that may wait in a reactor's mailbox; more are refused
    /// ([`SendError::Full`](crate::SendError::Full)). Default 65,536.
    pub mailbox_max: usize,
    /// Bytes that may wait in a reactor's mailbox; more are refused, but for one message that
    /// is longer by itself and finds none waiting. Default 64 MiB.
    pub mailbox_bytes_max: usize,
    /// How long `close()` waits for the peer to read the rest of the output. Default 30 s.
    pub close_timeout: Duration,
    /// After the output was sent and the FIN with it, how long to wait for the peer's FIN, its
    /// input discarded, so that no reset destroys what it has not read yet. Zero closes at
    /// once. Default 2 s.
    pub linger_timeout: Duration,
    /// Input discarded while lingering, in bytes; a peer that sends more is cut. Default 1 MiB.
    pub linger_bytes_max: usize,
    /// A poll never sleeps longer than this, whatever the timers say. Default 60 s.
    pub poll_timeout_max: Duration,
    /// How long a reactor goes on looking for events before it sleeps, giving way to others that
    /// want its core. What comes within it costs nobody a wake-up; but the core is busy
    /// meanwhile. Default 0: sleep at once.
    pub spin: Duration,
    /// A listener that is closed goes on accepting connections whose handshake was under way, new
    /// ones being steered away, until none has come for so long (or for ten times as long, if
    /// they do not cease). Should be longer than the clients' round trips. Default 200 ms.
    pub listener_grace: Duration,
    /// How long a graceful shutdown waits for connections to end, where
    /// [`Handle::shutdown`](crate::Handle::shutdown) gives no time of its own. Default 10 s.
    pub shutdown_timeout: Duration,
    /// A callback that takes longer than this is logged as a warning with its handler's name, and
    /// so is a turn as a whole, with its number of events. Default 100 ms.
    pub slow_turn: Duration,
    /// How long a listener rests after `accept` failed for want of a resource. Default 50 ms.
    pub accept_backoff: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            reactors: 0,
            pin: true,
            read_buffer: READ_BUFFER,
            input_max: 1 << 20,
            output_low: OUTPUT_LOW,
            output_high: OUTPUT_HIGH,
            output_max: 16 << 20,
            direct_write_min: 16 << 10,
            events_per_turn: 512,
            accepts_per_turn: 64,
            mail_per_turn: 1024,
            sends_per_turn: FLUSHES_PER_TURN,
            mailbox_max: 65_536,
            mailbox_bytes_max: 64 << 20,
            close_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(2),
            linger_bytes_max: 1 << 20,
            poll_timeout_max: Duration::from_secs(60),
            spin: Duration::ZERO,
            listener_grace: Duration::from_millis(200),
            shutdown_timeout: Duration::from_secs(10),
            slow_turn: Duration::from_millis(100),
            accept_backoff: Duration::from_millis(50),
        }
    }
}

/// More reactors than this are taken for a mistake.
pub(crate) const REACTORS_MAX: usize = 1024;
/// Sockets that a process may be started with; more are taken for a mistake.
pub(crate) const INHERITED_MAX: usize = 1024;
/// Scratch output is sent when it holds this much, not only at the end of a callback.
pub(crate) const SCRATCH_MAX: usize = 64 << 10;
/// Tails up to this size, and up to half of the read buffer, are copied in front of the next
/// read; longer ones are read into.
pub(crate) const TAIL_COPY_MAX: usize = 4 << 10;
/// Output is queued in pieces with room for at least and at most so much.
pub(crate) const CHUNK_MIN: usize = 4 << 10;
pub(crate) const CHUNK_MAX: usize = 64 << 10;
/// The least room of a queue's first piece, which is most often sent before another comes.
pub(crate) const CHUNK_FIRST: usize = 512;
/// Connections that a callback of another has written to, whose output waits to be gathered; with
/// one more, the first is flushed.
pub(crate) const UNFLUSHED_MAX: usize = 128;
/// What a file that waits counts against the output marks, at most.
pub(crate) const FILE_WEIGHT: usize = 64 << 10;
/// Bytes of a file in one `sendfile`.
pub(crate) const SENDFILE_MAX: u64 = 1 << 20;
/// Slices in one `sendmsg`.
pub(crate) const IOVECS_MAX: usize = 32;
/// Datagrams in one `recvmmsg` or `sendmmsg`.
pub(crate) const DATAGRAM_BATCH_MAX: usize = 64;
/// Datagrams in one message that the system cuts up (UDP_SEGMENT; the kernel's own bound).
pub(crate) const SEGMENTS_MAX: usize = 64;
/// The longest UDP datagram, and so the longest such message: 65,535 less both headers.
pub(crate) const UDP_MAX: usize = 65_507;
/// Errors of datagrams that wait to be told.
pub(crate) const DATAGRAM_ERRORS_MAX: usize = 64;
/// System calls to flush one queue at a time; a peer as fast as we are must not starve the others.
pub(crate) const FLUSHES_PER_TURN: usize = 16;
/// Attempts to read, or to write, for one connection of a proactor before others have their turn.
#[cfg(feature = "proactor")]
pub(crate) const ATTEMPTS_MAX: usize = 16;
/// Batches that a proactor's caller takes before it looks at the poller, though something had
/// completed without it.
#[cfg(feature = "proactor")]
pub(crate) const UNPOLLED_MAX: u32 = 16;
/// Events that a proactor takes from its poller at once: so few that what was read is still in the
/// processor's cache when the caller writes it. Those that are left stand in the poller's line.
#[cfg(feature = "proactor")]
pub(crate) const HARVEST_MAX: usize = 16;
/// A proactor's caller that has not come back for so long is taken for busy.
#[cfg(feature = "proactor")]
pub(crate) const ABSENCE: Duration = Duration::from_millis(2);
/// Operations of one direction that an idle connection of a proactor keeps room for.
#[cfg(feature = "proactor")]
pub(crate) const LANE_KEPT: usize = 16;
/// Completions that a proactor keeps room for while nothing completes.
#[cfg(feature = "proactor")]
pub(crate) const BATCH_KEPT: usize = 1024;
/// A rest of the swap buffer that is not worth a read of a proactor.
#[cfg(feature = "proactor")]
pub(crate) const SWAP_READ_MIN: usize = 1 << 10;
/// The size of a proactor's swap buffer.
#[cfg(feature = "proactor")]
pub(crate) const SWAP_BUFFER_MIN: usize = 4 << 10;
#[cfg(feature = "proactor")]
pub(crate) const SWAP_BUFFER_MAX: usize = 1 << 30;

/// Reads of a paired connection of at least this many bytes are large, ...
pub(crate) const SPLICE_MIN: usize = 16 << 10;
/// ... and after so many of them in a row its bytes go through a pipe. By the bench `outbound` that
/// costs no more than copying from 16 KiB on, and half or less from 64 KiB on.
pub(crate) const SPLICE_AFTER: u8 = 4;
/// Bytes that go through the pipe in one pass; what is left of them is queued.
pub(crate) const SPLICE_MAX: usize = 256 << 10;
/// The size of the pipe: a piece of the network's fills a page of it, however small it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const PIPE_SIZE: i32 = 1 << 20;
/// 64 KiB, and room for what is copied in front of them or frames them: a message of 64 KiB with
/// its header comes in one piece.
const READ_BUFFER: usize = (64 << 10) + TAIL_COPY_MAX;
pub(crate) const READ_BUFFER_MIN: usize = 4 << 10;
pub(crate) const READ_BUFFER_MAX: usize = 16 << 20;
const OUTPUT_LOW: usize = 64 << 10;
const OUTPUT_HIGH: usize = 256 << 10;
const EVENTS_MAX: usize = 65_536;
/// What the system allows (tcp(7), MAX_TCP_KEEPIDLE).
const KEEPALIVE_MAX_S: u64 = 32_767;

const _: () = assert!(CHUNK_MIN <= CHUNK_MAX && CHUNK_MAX <= SCRATCH_MAX);
const _: () = assert!(OUTPUT_LOW < OUTPUT_HIGH);
#[cfg(feature = "proactor")]
const _: () = assert!(SWAP_READ_MIN <= SWAP_BUFFER_MIN);
const _: () = assert!(READ_BUFFER_MIN <= READ_BUFFER && READ_BUFFER <= READ_BUFFER_MAX);

impl Config {
    /// Checks every range and relation.
    ///
    /// # Errors
    /// `InvalidInput`, naming the fields, their values and the rule.
    pub fn validate(&self) -> io::Result<()> {
        let rules: [(bool, String); 9] = [
            (
                self.reactors <= REACTORS_MAX,
                format!("reactors is {}; at most {REACTORS_MAX}", self.reactors),
            ),
            (
                (READ_BUFFER_MIN..=READ_BUFFER_MAX).contains(&self.read_buffer),
                format!(
                    "read_buffer is {}; from {READ_BUFFER_MIN} to {READ_BUFFER_MAX}",
                    self.read_buffer
                ),
            ),
            (
                self.input_max >= self.read_buffer,
                format!(
                    "input_max is {}, less than read_buffer with {}",
                    self.input_max, self.read_buffer
                ),
            ),
            (
                self.output_low < self.output_high || (self.output_low, self.output_high) == (0, 0),
                format!(
                    "output_low is {}, not below output_high with {}",
                    self.output_low, self.output_high
                ),
            ),
            (
                self.output_high <= self.output_max,
                format!(
                    "output_high is {}, above output_max with {}",
                    self.output_high, self.output_max
                ),
            ),
            (
                (1..=EVENTS_MAX).contains(&self.events_per_turn),
                format!("events_per_turn is {}; from 1 to {EVENTS_MAX}", self.events_per_turn),
            ),
            (
                self.accepts_per_turn > 0 && self.mail_per_turn > 0 && self.sends_per_turn > 0,
                "accepts_per_turn, mail_per_turn and sends_per_turn have to be at least 1"
                    .to_owned(),
            ),
            (
                self.mailbox_max > 0 && self.mailbox_bytes_max > 0,
                "mailbox_max and mailbox_bytes_max have to be at least 1".to_owned(),
            ),
            (
                !self.poll_timeout_max.is_zero() && !self.accept_backoff.is_zero(),
                "poll_timeout_max and accept_backoff have to be above zero".to_owned(),
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("config: {rule}")))
            }
        }
    }
}

/// The options of one listener and of the connections it accepts.
///
/// ```no_run
/// use std::time::Duration;
/// use reev::{Config, ListenOptions, Placement, Server};
///
/// let mut server = Server::new(Config::default())?;
/// let options = ListenOptions {
///     keepalive: Some(Duration::from_secs(60)),
///     max_connections: Some(10_000),
///     placement: Placement::LeastConnections,
///     ..ListenOptions::default()
/// };
/// let listener = server.listen_with("tcp://:7000", &options)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections the system holds for us until they are accepted; it may cap the number
    /// (`net.core.somaxconn`). Default 4,096.
    pub backlog: i32,
    /// A listening socket for each reactor (SO_REUSEPORT), and the system spreads connections
    /// over them. Otherwise, and where the system does not (macOS, NetBSD, OpenBSD), all reactors
    /// share one. TCP only. Default true.
    pub reuse_port: bool,
    /// With `reuse_port`: other servers of this user may have the port already, and get their
    /// share of the connections; for a successor that takes over. Otherwise that is an error, as
    /// for any port in use. Default false.
    pub share_port: bool,
    /// Send small segments at once (TCP_NODELAY). Default true.
    pub nodelay: bool,
    /// Probe idle connections after this long (SO_KEEPALIVE, TCP_KEEPIDLE), in whole seconds
    /// from 1 to 32,767. Default none.
    pub keepalive: Option<Duration>,
    /// SO_RCVBUF in bytes; the system doubles and caps it. Default: the system's own.
    pub recv_buffer: Option<usize>,
    /// SO_SNDBUF in bytes; the system doubles and caps it. Default: the system's own.
    pub send_buffer: Option<usize>,
    /// SO_LINGER: zero makes every close a reset. More is refused, for close(2) would block the
    /// reactor; [`Config::linger_timeout`] is the framework's own way. Default none.
    pub linger: Option<Duration>,
    /// Connections of this listener that may be open at once, over all reactors; at the limit
    /// new ones wait in the backlog. Default: no limit.
    pub max_connections: Option<usize>,
    /// Which reactor gets a connection. Default: the kernel's choice.
    pub placement: Placement,
    /// With `reuse_port`: give a connection to the reactor that is pinned to the CPU on which
    /// its packets arrive (SO_ATTACH_REUSEPORT_CBPF), so that the data stays in its caches.
    /// Pays where the network card spreads connections over the CPUs. Linux. Default false.
    pub cpu_steering: bool,
    /// Take the first bytes with the SYN from clients that have a cookie (RFC 7413, TCP_FASTOPEN;
    /// Linux, where `net.ipv4.tcp_fastopen` has to allow it with bit 2): at most so many such
    /// connections in the handshake. TCP only. Default none: off.
    pub fast_open: Option<u16>,
    /// Permissions of a Unix socket's path, such as `0o660`. Default: by the umask.
    pub unix_mode: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 4096,
            reuse_port: true,
            share_port: false,
            nodelay: true,
            keepalive: None,
            recv_buffer: None,
            send_buffer: None,
            linger: None,
            max_connections: None,
            placement: Placement::Kernel,
            cpu_steering: false,
            fast_open: None,
            unix_mode: None,
        }
    }
}

impl ListenOptions {
    pub(crate) fn validate(&self) -> io::Result<()> {
        let broken = if self.backlog < 1 {
            "backlog is below 1"
        } else if self.max_connections == Some(0) {
            "max_connections is 0, so that nobody could ever connect"
        } else if self.keepalive.is_some_and(|d| !(1..=KEEPALIVE_MAX_S).contains(&d.as_secs())) {
            "keepalive is not from one second to 32,767"
        } else if self.linger.is_some_and(|d| !d.is_zero()) {
            "linger is above zero, and close(2) would wait; see Config::linger_timeout"
        } else if self.cpu_steering && !cfg!(any(target_os = "linux", target_os = "android")) {
            "cpu_steering needs Linux"
        } else if self.cpu_steering && (!self.reuse_port || self.placement != Placement::Kernel) {
            "cpu_steering needs reuse_port and the kernel's placement"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("listen options: {broken}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn the_default_is_valid() {
        Config::default().validate().unwrap();
        ListenOptions::default().validate().unwrap();
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(refused(|c| c.reactors = 5000).contains("reactors is 5000"));
        assert!(refused(|c| c.read_buffer = 1).contains("read_buffer is 1"));
        assert!(refused(|c| c.input_max = 10).contains("input_max is 10"));
        assert!(refused(|c| c.output_low = c.output_high).contains("output_low"));
        assert!(refused(|c| c.output_high = usize::MAX).contains("output_high"));
        assert!(refused(|c| c.events_per_turn = 0).contains("events_per_turn"));
        assert!(refused(|c| c.mail_per_turn = 0).contains("mail_per_turn"));
        assert!(refused(|c| c.sends_per_turn = 0).contains("sends_per_turn"));
        assert!(refused(|c| c.mailbox_max = 0).contains("mailbox_max"));
        assert!(refused(|c| c.accept_backoff = Duration::ZERO).contains("accept_backoff"));
    }
}
