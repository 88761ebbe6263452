//! What the figures were taken on.

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, process::Command};

pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    rustc: String,
    commit: String,
    /// Before the run: how many threads wanted to run, on average over a minute.
    load: String,
    time: SystemTime,
}

impl Machine {
    pub fn this() -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let tree = env!("CARGO_MANIFEST_DIR");
        Machine {
            processor: model.map_or("unknown processor", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            rustc: output("rustc", &["--version"]),
            commit: output("git", &["-C", tree, "describe", "--always", "--dirty", "--abbrev=12"]),
            load: load.split(' ').next().unwrap_or("unknown").to_owned(),
            time: SystemTime::now(),
        }
    }

    pub fn line(&self) -> String {
        let Machine { processor, cores, kernel, rustc, commit, load, time } = self;
        let date = httpdate::fmt_http_date(*time);
        format!(
            "{processor}, {cores} cores; Linux {kernel}; {rustc}; commit {commit}; {date}; load average {load}"
        )
    }

    pub fn json(&self) -> Value {
        let seconds = self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        json!({
            "processor": self.processor, "cores": self.cores, "kernel": self.kernel, "rustc": self.rustc,
            "commit": self.commit, "unix_time": seconds, "load_average": self.load,
        })
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| format!("{program} unknown"), |text| text.trim().to_owned())
}
