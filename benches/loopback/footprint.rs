//! User-space bytes for each connection, from the bench called memory: another program, because its allocator counts.

use serde_json::Value;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

pub struct Footprint(Value);

impl Footprint {
    /// `file`: where the bench writes its figures.
    pub fn measure(connections: usize, rounds: usize, file: &Path) -> io::Result<Footprint> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let status = Command::new(cargo)
            .args(["bench", "--quiet", "--bench", "memory"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--"])
            .args(["--connections", &connections.to_string()])
            .args(["--rounds", &rounds.to_string(), "--json"])
            .arg(file)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!("cargo bench --bench memory: {status}")));
        }
        Ok(Footprint(serde_json::from_str(&fs::read_to_string(file)?)?))
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "\nbytes of user space for each of {} connections after a message\n",
            self.connections()
        );
        for (workload, servers) in self.workloads() {
            let _ = writeln!(text, "  {workload:<15}{:>11}{:>10}", "allocated", "resident");
            for Idle { server, allocated, resident } in servers {
                let _ = writeln!(text, "    {server:<13}{allocated:>11.1}{resident:>10.1}");
            }
        }
        text
    }

    /// As the bench wrote it.
    pub fn json(&self) -> &Value {
        &self.0
    }

    pub fn connections(&self) -> u64 {
        self.0["connections"].as_u64().unwrap_or_default()
    }

    /// The workloads that were measured, each with its servers.
    pub fn workloads(&self) -> impl Iterator<Item = (&str, Vec<Idle<'_>>)> {
        list(&self.0["workloads"]).iter().map(|workload| {
            let name = workload["workload"].as_str().unwrap_or_default();
            (name, list(&workload["servers"]).iter().map(Idle::of).collect())
        })
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a server has for each connection after its first message.
pub struct Idle<'a> {
    pub server: &'a str,
    pub allocated: f64,
    pub resident: f64,
}

impl<'a> Idle<'a> {
    fn of(server: &'a Value) -> Idle<'a> {
        let bytes = |measure: &str| server["after_message"][measure].as_f64().unwrap_or(f64::NAN);
        Idle {
            server: server["server"].as_str().unwrap_or_default(),
            allocated: bytes("allocated"),
            resident: bytes("resident"),
        }
    }
}
