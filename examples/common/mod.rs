//! What every example that serves has in common: its flags, its banner, its clean end.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, FromArgMatches};
use reev::{Addr, Config, ListenerId, Server};

/// The addresses of datagrams.
#[allow(dead_code, reason = "not every example has datagrams")]
pub(crate) const DATAGRAM_ADDRS: &str = "host:port, udp4://:port, udp6://:port, unixgram:///path";

/// The flags of a server.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Where to listen: host:port, tcp4://:port, tcp6://:port, unix:///path, unix://@name
    ///
    /// Port 0 lets the system choose; the banner says what it chose.
    #[arg(long)]
    pub(crate) addr: String,

    /// Number of reactors, each a thread; 0 is one for each core this process may use
    #[arg(long, default_value_t = 0)]
    pub(crate) reactors: usize,

    /// Leave the reactors' threads unpinned
    #[arg(long)]
    pub(crate) no_pin: bool,

    /// Microseconds to go on looking for events before a reactor sleeps
    #[arg(long)]
    pub(crate) spin_us: Option<u64>,

    /// Set by an example whose answers are longer than the default allows.
    #[arg(skip)]
    pub(crate) output_max: Option<usize>,
}

impl Serve {
    /// The configuration that the flags ask for.
    pub(crate) fn config(&self) -> Config {
        let default = Config::default();
        let output_max = self.output_max.unwrap_or(default.output_max);
        let spin = Duration::from_micros(self.spin_us.unwrap_or(0));
        Config { reactors: self.reactors, pin: !self.no_pin, output_max, spin, ..default }
    }

    /// The address for datagrams: `udp://` where no scheme is given.
    #[allow(dead_code, reason = "not every example has datagrams")]
    pub(crate) fn datagram_addr(&self) -> String {
        match self.addr.contains("://") {
            true => self.addr.clone(),
            false => format!("udp://{}", self.addr),
        }
    }

    /// A server that listens, and stops on SIGINT and SIGTERM.
    #[allow(dead_code, reason = "not every example listens for streams")]
    pub(crate) fn listen(&self) -> io::Result<(Server, ListenerId)> {
        let mut server = Server::new(self.config())?;
        let listener = server.listen(&self.addr)?;
        reev::stop_on_signals(&server.handle())?;
        Ok((server, listener))
    }
}

/// `--addr` of an example that takes these addresses and no others.
#[allow(dead_code, reason = "most examples take those of `Serve`")]
pub(crate) fn takes(arg: Arg, addrs: &str) -> Arg {
    let help = format!("Where to listen: {addrs}");
    let ports = "Port 0 lets the system choose; the banner says what it chose.";
    arg.long_help(format!("{help}\n\n{ports}")).help(help)
}

/// Runs an example with the flags `T`, of which `--addr` defaults to `addr`. What goes wrong is
/// told in one line.
pub(crate) fn run<T>(addr: &'static str, serve: impl FnOnce(T) -> io::Result<()>) -> ExitCode
where
    T: CommandFactory + FromArgMatches,
{
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let command = T::command().mut_arg("addr", |arg| arg.required(false).default_value(addr));
    let name = command.get_name().to_owned();
    let options = match T::from_arg_matches(&command.get_matches()) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The one line on standard output: where the server listens and how to try it. That nobody
/// reads it is no reason not to serve.
pub(crate) fn banner(name: &str, addr: &Addr, try_it: impl Display) {
    let _ = writeln!(io::stdout(), "{name}: listening on {addr}; try: {try_it}");
}

/// Where a client on this machine reaches what listens on `addr`, which may be every address.
#[allow(dead_code, reason = "not every example is for a program that needs it")]
pub(crate) fn reached_at(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

/// How to talk to a server of lines or bytes at `addr`.
#[allow(dead_code, reason = "not every example is for netcat")]
pub(crate) fn how_to_try(addr: &Addr) -> String {
    match (addr.socket_addr(), addr.unix_path()) {
        (Some(addr), _) => {
            let addr = reached_at(addr);
            format!("nc {} {}", addr.ip(), addr.port())
        }
        (None, Some(path)) => format!("nc -U {}", path.display()),
        (None, None) => format!("socat - ABSTRACT-CONNECT:{}", abstract_name(addr)),
    }
}

/// How to get `path` from a server of HTTP at `addr`.
#[allow(dead_code, reason = "not every example is for curl")]
pub(crate) fn curl(addr: &Addr, path: &str) -> String {
    match (addr.socket_addr(), addr.unix_path()) {
        (Some(addr), _) => format!("curl http://{}{path}", reached_at(addr)),
        (None, Some(socket)) => {
            format!("curl --unix-socket {} http://localhost{path}", socket.display())
        }
        (None, None) => {
            format!("curl --abstract-unix-socket {} http://localhost{path}", abstract_name(addr))
        }
    }
}

#[allow(dead_code, reason = "not every example is for netcat or curl")]
fn abstract_name(addr: &Addr) -> String {
    let name = addr.unix_name().unwrap_or_default().strip_prefix(b"\0").unwrap_or_default();
    name.escape_ascii().to_string()
}
