//! What goes on, on standard error: a line that is written over on a terminal, elsewhere a line now and then. And what
//! went wrong, which is said at once and kept for the results.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines that are not on a terminal.
const PAUSE: Duration = Duration::from_secs(10);

pub struct Progress {
    begin: Instant,
    /// How long all will take, about.
    total: Duration,
    shown: Option<Instant>,
    remarks: Vec<String>,
    failed: bool,
}

impl Progress {
    pub fn new(total: Duration) -> Progress {
        Progress { begin: Instant::now(), total, shown: None, remarks: Vec::new(), failed: false }
    }

    pub fn show(&mut self, what: &str) {
        let mut stderr = io::stderr();
        let now = Instant::now();
        let line = format!("[{} of about {}] {what}", clock(now - self.begin), clock(self.total));
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K{line}");
        } else if self.shown.is_none_or(|shown| now - shown >= PAUSE) {
            let _ = writeln!(stderr, "{line}");
            self.shown = Some(now);
        }
    }

    /// Something went wrong, so that it is missing from the results.
    pub fn problem(&mut self, what: impl Display) {
        self.failed = true;
        self.remark(what);
    }

    /// Something was left out from the start.
    pub fn remark(&mut self, what: impl Display) {
        self.clear();
        eprintln!("loopback: {what}");
        self.remarks.push(what.to_string());
    }

    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Whether there was a problem.
    pub fn failed(&self) -> bool {
        self.failed
    }

    pub fn clear(&self) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
