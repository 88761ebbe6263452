//! The command line.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

/// Loads a server and says how it bears it: answers a second, and latency as its users would feel
/// it.
///
/// Without --rate each connection asks again as soon as it is answered (closed loop), which finds
/// the highest throughput. With --rate requests are due at fixed times, whether the server keeps up
/// or not (open loop), and latency counts from the time a request was due, so that a stall shows in
/// all requests it delayed.
#[derive(Parser, Debug)]
#[command(name = "loadgen", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Mode {
    /// Sends bytes and expects the same bytes back
    Echo(Echo),
    /// Sends HTTP/1.1 requests
    Http(Http),
    /// Sends WebSocket messages and expects the same messages back
    Ws(Ws),
    /// Holds connections open and sends nothing
    Idle(Idle),
}

#[derive(Args, Debug)]
pub(crate) struct Echo {
    /// The server: host:port, tcp4://host:port, tcp6://host:port, unix:///path, unix://@name
    pub(crate) target: String,

    /// Bytes of a message
    #[arg(long, default_value = "128", value_name = "BYTES")]
    pub(crate) size: NonZeroUsize,

    #[command(flatten)]
    pub(crate) asking: Asking,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Http {
    /// The server: http://host:port/path, or an address as unix:///path with --path
    pub(crate) target: String,

    /// Path and query, where the target is an address and not a URL
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// Method
    #[arg(long, short = 'X', default_value = "GET")]
    pub(crate) method: String,

    /// A header field, 'Name: value'; may be repeated, and replaces a field of the same name that
    /// would be sent otherwise
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    pub(crate) headers: Vec<String>,

    /// Content of the requests
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    pub(crate) body: Option<String>,

    /// A file with the content of the requests
    #[arg(long, value_name = "FILE")]
    pub(crate) body_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) asking: Asking,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Ws {
    /// The server: ws://host:port/path, or an address as unix:///path with --path
    pub(crate) target: String,

    /// Path and query, where the target is an address and not a URL
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// A header field of the handshake, 'Name: value'; may be repeated
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    pub(crate) headers: Vec<String>,

    /// Bytes of a message
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    pub(crate) size: usize,

    /// Send text messages instead of binary ones
    #[arg(long)]
    pub(crate) text: bool,

    /// Offer permessage-deflate
    #[arg(long)]
    pub(crate) deflate: bool,

    /// Take any message as the answer to the oldest request
    #[arg(long)]
    pub(crate) any_answer: bool,

    #[command(flatten)]
    pub(crate) asking: Asking,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Idle {
    /// The server: host:port, tcp4://host:port, tcp6://host:port, unix:///path, unix://@name
    pub(crate) target: String,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// What the modes have in common that ask.
#[derive(Args, Debug, Clone)]
pub(crate) struct Asking {
    /// Requests a second over all connections, at fixed times; without it a connection asks again
    /// as soon as it is answered
    #[arg(long, short = 'r', value_parser = rate, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,

    /// Requests that may be under way on one connection (pipelining)
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) depth: NonZeroUsize,

    /// Load without counting before the measurement
    #[arg(long, default_value = "1s", value_parser = time, value_name = "TIME")]
    pub(crate) warmup: Duration,

    /// How long answers are waited for after the end
    #[arg(long, default_value = "1s", value_parser = time, value_name = "TIME")]
    pub(crate) drain: Duration,

    /// A connection that owes an answer for so long is given up, and another one made
    #[arg(long, default_value = "10s", value_parser = time, value_name = "TIME")]
    pub(crate) timeout: Duration,

    /// Make a new connection after so many requests; 1 measures connecting too
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_connection: Option<std::num::NonZeroU64>,
}

/// What all modes have in common.
#[derive(Args, Debug, Clone)]
pub(crate) struct Common {
    /// Connections
    #[arg(long, short = 'c', default_value = "64", value_name = "N")]
    pub(crate) connections: NonZeroUsize,

    /// Threads, each with its share of the connections; 0 is one for each core
    #[arg(long, short = 't', default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,

    /// How long to measure, as 10s, 500ms, 2m, or a number of seconds
    #[arg(long, short = 'd', default_value = "10s", value_parser = time, value_name = "TIME")]
    pub(crate) duration: Duration,

    /// How long a connection may take to be made
    #[arg(long, default_value = "5s", value_parser = time, value_name = "TIME")]
    pub(crate) connect_timeout: Duration,

    /// A local IP address to connect from; several are taken in turn, for more connections than one
    /// address has ports
    #[arg(long, value_name = "IP")]
    pub(crate) source: Vec<IpAddr>,

    /// Pin the threads to cores; not where the server's are pinned to the same ones
    #[arg(long)]
    pub(crate) pin: bool,

    /// Write the results as JSON to this file, or to standard output (-) instead of the report
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Show a progress line even if standard error is not a terminal
    #[arg(long, overrides_with = "no_progress")]
    pub(crate) progress: bool,

    /// Show no progress line
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) no_progress: bool,
}

/// The highest rate that can be asked for: the clock counts nanoseconds.
const RATE_MAX: f64 = 1e9;
/// A year is taken for a mistake, and the histograms end somewhere.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

fn rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(rate) if (0.001..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0.001 to 1000000000".to_owned()),
    }
}

/// Seconds, or what humantime takes.
fn time(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|e| e.to_string())?,
    };
    match parsed > TIME_MAX {
        true => Err("longer than 30 days".to_owned()),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("1s 250ms"), Ok(Duration::from_millis(1250)));
        for wrong in ["", "-1", "soon", "NaN", "1e30", "2y"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!(rate("10_000"), Ok(10_000.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "x", "inf", "NaN", "2e9"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
