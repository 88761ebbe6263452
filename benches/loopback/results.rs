//! All that a run has measured so far, and the folder it is written to: a page, its plots, every figure as JSON.

use crate::footprint::Footprint;
use crate::machine::Machine;
use crate::measure::{self, Plan};
use crate::syscalls::Counted;
use crate::{crowd, growth, latency, page, plots, report, syscalls, timers};
use serde_json::json;
use std::error::Error;
use std::fs;
use std::path::Path;

pub struct Results {
    pub machine: Machine,
    pub plan: Plan,
    pub cores_plan: Plan,
    pub throughput: Vec<measure::Outcome>,
    /// With a thread of each server on every core.
    pub cores: Vec<measure::Outcome>,
    pub latency: Vec<latency::Outcome>,
    pub growth: Option<growth::Outcome>,
    pub crowd: Option<crowd::Outcome>,
    pub timers: Option<timers::Outcome>,
    pub syscalls: Vec<Counted>,
    pub footprint: Option<Footprint>,
}

impl Results {
    pub fn new(machine: Machine, plan: Plan, cores_plan: Plan) -> Results {
        Results {
            machine,
            plan,
            cores_plan,
            throughput: Vec::new(),
            cores: Vec::new(),
            latency: Vec::new(),
            growth: None,
            crowd: None,
            timers: None,
            syscalls: Vec::new(),
            footprint: None,
        }
    }

    /// What was written before is replaced, so it may be called again with more. `remarks`: what is missing and why.
    pub fn write(&self, folder: &Path, remarks: &[String]) -> Result<(), Box<dyn Error>> {
        let named = |path: &Path, e: &dyn Error| format!("cannot write {}: {e}", path.display());
        fs::create_dir_all(folder).map_err(|e| named(folder, &e))?;
        let mut shown = Vec::new();
        for plot in plots::of(self) {
            let path = folder.join(&plot.file);
            fs::write(&path, &plot.svg).map_err(|e| named(&path, &e))?;
            shown.push(plot);
        }
        let path = folder.join("README.md");
        fs::write(&path, page::text(self, &shown, remarks)).map_err(|e| named(&path, &e))?;
        let path = folder.join("results.json");
        fs::write(&path, format!("{:#}\n", self.json(remarks))).map_err(|e| named(&path, &e))?;
        Ok(())
    }

    fn json(&self, remarks: &[String]) -> serde_json::Value {
        let outcomes = |plan: &Plan, outcomes: &[measure::Outcome]| -> Vec<_> {
            outcomes.iter().map(|outcome| report::json(plan, outcome)).collect()
        };
        json!({
            "machine": self.machine.json(),
            "remarks": remarks,
            "throughput": outcomes(&self.plan, &self.throughput),
            "cores": outcomes(&self.cores_plan, &self.cores),
            "latency": self.latency.iter().map(latency::json).collect::<Vec<_>>(),
            "growth": self.growth.as_ref().map(growth::json),
            "crowd": self.crowd.as_ref().map(crowd::json),
            "timers": self.timers.as_ref().map(timers::json),
            "system_calls": self.syscalls.iter().map(syscalls::json).collect::<Vec<_>>(),
            "memory": self.footprint.as_ref().map(Footprint::json),
        })
    }
}
