//! The statistics as text for Prometheus.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::close::Close;
use crate::stats::Stats;

/// One number of each reactor.
struct Metric {
    name: &'static str,
    help: &'static str,
    value: fn(&Stats) -> u64,
}

const COUNTERS: [Metric; 14] = [
    Metric {
        name: "reev_accepted_total",
        help: "Connections accepted.",
        value: |stats| stats.accepted,
    },
    Metric {
        name: "reev_accept_errors_total",
        help: "Calls of accept that failed for want of a resource.",
        value: |stats| stats.accept_errors,
    },
    Metric {
        name: "reev_turned_away_total",
        help: "Clients turned away because there was no descriptor for them.",
        value: |stats| stats.turned_away,
    },
    Metric {
        name: "reev_connected_total",
        help: "Connections made to others.",
        value: |stats| stats.connected,
    },
    Metric {
        name: "reev_connect_errors_total",
        help: "Connections to others that failed or were cancelled.",
        value: |stats| stats.connect_errors,
    },
    Metric {
        name: "reev_received_bytes_total",
        help: "Bytes read.",
        value: |stats| stats.bytes_in,
    },
    Metric {
        name: "reev_sent_bytes_total",
        help: "Bytes the system took for sending.",
        value: |stats| stats.bytes_out,
    },
    Metric {
        name: "reev_spliced_bytes_total",
        help: "Of the bytes sent, those that went through a pipe of the kernel.",
        value: |stats| stats.bytes_spliced,
    },
    Metric {
        name: "reev_received_datagrams_total",
        help: "Datagrams received.",
        value: |stats| stats.datagrams_in,
    },
    Metric {
        name: "reev_sent_datagrams_total",
        help: "Datagrams the system took for sending.",
        value: |stats| stats.datagrams_out,
    },
    Metric {
        name: "reev_dropped_datagrams_total",
        help: "Datagrams that were not sent.",
        value: |stats| stats.datagrams_dropped,
    },
    Metric { name: "reev_turns_total", help: "Turns of the loop.", value: |stats| stats.turns },
    Metric {
        name: "reev_events_total",
        help: "Events from the poller.",
        value: |stats| stats.events,
    },
    Metric {
        name: "reev_mail_total",
        help: "Messages from other threads.",
        value: |stats| stats.mail,
    },
];

const GAUGES: [Metric; 4] = [
    Metric {
        name: "reev_open",
        help: "Connections and other handlers that are there.",
        value: |stats| stats.open,
    },
    Metric { name: "reev_timers", help: "Timers pending.", value: |stats| stats.timers },
    Metric {
        name: "reev_paused",
        help: "Connections that are not read from.",
        value: |stats| stats.paused,
    },
    Metric {
        name: "reev_output_queued_bytes",
        help: "Output that waits for peers.",
        value: |stats| stats.output_queued,
    },
];

/// A time of each reactor.
type Time = (&'static str, &'static str, fn(&Stats) -> Duration);

const TIMES: [Time; 2] = [
    ("reev_turn_longest_seconds", "The longest turn, without the wait in the poller.", |stats| {
        stats.turn_longest
    }),
    ("reev_turn_recent_seconds", "A moving average of the turns of late.", |stats| {
        stats.turn_recent
    }),
];

impl Stats {
    /// The statistics of the reactors, as [`Handle::stats`](crate::Handle::stats) gives them, in
    /// the text format of Prometheus (version 0.0.4), each number labelled with its reactor's
    /// index, ends of connections with their kind. The answer to a scrape, to be sent as
    /// `text/plain; version=0.0.4`.
    ///
    /// ```
    /// let text = reev::Stats::prometheus(&[reev::Stats::default()]);
    /// assert!(text.contains("\nreev_accepted_total{reactor=\"0\"} 0\n"));
    /// ```
    pub fn prometheus(reactors: &[Stats]) -> String {
        let mut text = Text(String::new());
        for Metric { name, help, value } in &COUNTERS {
            text.family(name, "counter", help);
            text.samples(name, reactors, value);
        }
        text.family("reev_closed_total", "counter", "Connections ended, by the reason.");
        for (index, stats) in reactors.iter().enumerate() {
            for (kind, count) in Close::KIND_NAMES.iter().zip(stats.closed) {
                let labels = format_args!("reactor=\"{index}\",kind=\"{kind}\"");
                text.sample("reev_closed_total", labels, count);
            }
        }
        for Metric { name, help, value } in &GAUGES {
            text.family(name, "gauge", help);
            text.samples(name, reactors, value);
        }
        for (name, help, time) in &TIMES {
            text.family(name, "gauge", help);
            text.samples(name, reactors, |stats| time(stats).as_secs_f64());
        }
        text.0
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn samples<V: Display>(&mut self, name: &str, all: &[Stats], value: impl Fn(&Stats) -> V) {
        for (index, stats) in all.iter().enumerate() {
            self.sample(name, format_args!("reactor=\"{index}\""), value(stats));
        }
    }

    fn sample(&mut self, name: &str, labels: impl Display, value: impl Display) {
        self.line(format_args!("{name}{{{labels}}} {value}"));
    }

    fn line(&mut self, line: impl Display) {
        let _ = writeln!(self.0, "{line}"); // a String takes everything
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn stats() -> Vec<Stats> {
        let mut first = Stats {
            accepted: u64::MAX,
            bytes_in: 3,
            turn_longest: Duration::from_micros(1500),
            ..Stats::default()
        };
        first.closed[5] = 7;
        vec![first, Stats { open: 9, ..Stats::default() }]
    }

    #[test]
    fn the_numbers_are_those_of_the_reactors() {
        let text = Stats::prometheus(&stats());
        for line in [
            "# HELP reev_accepted_total Connections accepted.",
            "# TYPE reev_accepted_total counter",
            "reev_accepted_total{reactor=\"0\"} 18446744073709551615",
            "reev_received_bytes_total{reactor=\"0\"} 3",
            "reev_received_bytes_total{reactor=\"1\"} 0",
            "reev_closed_total{reactor=\"0\",kind=\"panic\"} 7",
            "reev_closed_total{reactor=\"1\",kind=\"panic\"} 0",
            "# TYPE reev_open gauge",
            "reev_open{reactor=\"1\"} 9",
            "reev_turn_longest_seconds{reactor=\"0\"} 0.0015",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
        }
    }

    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>: lines end in a line feed;
    /// HELP and TYPE come once for each name, before its samples, which form one group; names
    /// and labels have a certain form; a line for each combination of labels.
    #[test]
    fn the_text_keeps_to_the_format() {
        let text = Stats::prometheus(&stats());
        assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains("\n\n"));
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let (mut helped, mut kinds) = (HashSet::new(), HashMap::new());
        let (mut seen, mut current) = (HashSet::new(), "");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(is_name(name) && helped.insert(name) && !help.is_empty(), "{line}");
                current = name;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(name == current && kinds.insert(name, kind).is_none(), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(matches!(kind, "counter" | "gauge"), "{line}");
            } else {
                let (name, rest) = line.split_once('{').unwrap();
                assert!(name == current && kinds.contains_key(name), "{line}");
                let (labels, value) = rest.split_once("} ").unwrap();
                for label in labels.split(',') {
                    let (label, value) = label.split_once('=').unwrap();
                    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                    assert!(is_name(label) && !inner.contains(['"', '\\', '\n']), "{line}");
                }
                value.parse::<f64>().unwrap();
                assert!(seen.insert((name, labels)), "twice: {line}");
            }
        }
        assert_eq!(helped.len(), kinds.len());
        assert_eq!(seen.len(), 2 * (kinds.len() - 1 + Close::KIND_NAMES.len()));
    }
}
