//! The plots of a run, as SVG.

mod bars;
mod curves;

use crate::results::Results;
use plotters::prelude::RGBColor;
use std::error::Error;

/// Which part of the page it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Throughput,
    Latency,
    Growth,
    Crowd,
    Timers,
}

pub struct Plot {
    pub topic: Topic,
    pub file: String,
    pub title: String,
    pub svg: String,
}

type Drawn = Result<String, Box<dyn Error>>;

/// Of all that is there. A plot that cannot be drawn is named on standard error and left out.
pub fn of(results: &Results) -> Vec<Plot> {
    let mut plots = Vec::new();
    let mut add = |topic, file: String, title: String, drawn: Drawn| match drawn {
        Ok(svg) => plots.push(Plot { topic, file, title, svg }),
        Err(e) => eprintln!("loopback: {file} cannot be drawn: {e}"),
    };
    if !results.throughput.is_empty() {
        for (file, title, figure) in bars::MEASURES {
            let drawn = bars::ratios(title, &results.throughput, *figure);
            add(Topic::Throughput, (*file).to_owned(), (*title).to_owned(), drawn);
        }
    }
    for outcome in results.latency.iter().filter(|outcome| !outcome.lanes.is_empty()) {
        let name = outcome.workload.name;
        let title = format!("{name}: latency by percentile, at fixed rates");
        let drawn = curves::latency(&title, outcome);
        add(Topic::Latency, format!("latency-{name}.svg"), title, drawn);
    }
    if let Some(growth) = results.growth.as_ref().filter(|growth| !growth.servers.is_empty()) {
        let title = "CPU per echo of 128 B by number of connections".to_owned();
        let drawn = curves::growth(&title, growth);
        add(Topic::Growth, "connections.svg".to_owned(), title, drawn);
    }
    if let Some(crowd) = results.crowd.as_ref().filter(|crowd| !crowd.crowds.is_empty()) {
        let title = "Time for all of N clients to be echoed 1 KiB".to_owned();
        let drawn = curves::crowd(&title, crowd);
        add(Topic::Crowd, "crowd.svg".to_owned(), title, drawn);
    }
    if let Some(timers) = results.timers.as_ref().filter(|t| !t.queues[0].sizes.is_empty()) {
        let title = "Timers by number pending".to_owned();
        let drawn = curves::timers(&title, timers);
        add(Topic::Timers, "timers.svg".to_owned(), title, drawn);
    }
    plots
}

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(215, 215, 215);
const FONT: &str = "sans-serif";

/// Every server has the same colour in all plots.
fn colour(name: &str) -> RGBColor {
    match name {
        "reev" => RGBColor(200, 30, 60),
        "bare" => RGBColor(70, 70, 70),
        "bare2" => RGBColor(150, 150, 150),
        "bare-bytes" | "bare-splice" | "bare-mmsg" => RGBColor(110, 110, 110),
        "reev-single" => RGBColor(225, 120, 140),
        "mio" | "BTreeMap" => RGBColor(30, 120, 180),
        "tokio" | "DelayQueue" => RGBColor(70, 140, 50),
        "hyper" | "BinaryHeap" => RGBColor(225, 140, 20),
        "may_minihttp" => RGBColor(130, 90, 170),
        "monoio" => RGBColor(20, 150, 150),
        "fastwebsockets" => RGBColor(160, 110, 60),
        _ => RGBColor(215, 110, 190),
    }
}
