//! Lines over logarithmic axes: latency by percentile, cost by number of connections, timers by number pending.

use super::{Drawn, FAINT, FONT, INK, colour};
use crate::crowd;
use crate::figures::Spread;
use crate::growth;
use crate::latency::{self, SHARES};
use crate::timers::{self, OPERATIONS};
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use std::error::Error;

const PANEL: (u32, u32) = (400, 330);
const TITLE_HEIGHT: u32 = 40;
const LEGEND_HEIGHT: u32 = 34;
/// Points of a latency curve in each decade.
const POINTS_PER_DECADE: i32 = 12;
/// The next server's points are so much farther to the right.
const ASIDE: f64 = 1.05;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome = Result<(), Box<dyn Error>>;

/// A title, a row of panels, and what the colours mean.
fn page(
    title: &str,
    panels: usize,
    width: u32,
    names: &[&str],
    draw: impl FnOnce(&[Area<'_>]) -> Outcome,
) -> Drawn {
    let mut svg = String::new();
    {
        let size = (width * panels as u32, TITLE_HEIGHT + PANEL.1 + LEGEND_HEIGHT);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(title.to_owned(), (12, 12), (FONT, 18).into_font().color(&INK)))?;
        let (_, body) = root.split_vertically(TITLE_HEIGHT);
        let (body, foot) = body.split_vertically(PANEL.1);
        draw(&body.split_evenly((1, panels)))?;
        let mut x = 16;
        for name in names {
            let ink = colour(name).stroke_width(3);
            foot.draw(&PathElement::new([(x, 16), (x + 18, 16)], ink))?;
            let font = (FONT, 13).into_font().color(&INK);
            foot.draw(&Text::new((*name).to_owned(), (x + 23, 9), font))?;
            x += 45 + 8 * name.len() as i32;
        }
        root.present()?;
    }
    Ok(svg)
}

/// A power of ten as a mark of a logarithmic axis; nothing for what is between.
fn power(value: f64) -> String {
    let exponent = value.log10();
    match exponent.round() {
        whole if (whole - exponent).abs() > 1e-6 => String::new(),
        whole if (0.0..6.0).contains(&whole) => format!("{value:.0}"),
        whole if whole >= 6.0 => format!("{}M", value / 1e6),
        _ => format!("{value}"),
    }
}

pub fn latency(title: &str, outcome: &latency::Outcome) -> Drawn {
    let names: Vec<&str> = outcome.lanes.iter().map(|lane| lane.server.name).collect();
    let kept = || {
        let lanes = outcome.lanes.iter();
        lanes.flat_map(|lane| lane.runs.iter().filter(|run| run.kept_up()))
    };
    let low = kept().map(|run| run.micros(0.0)).fold(f64::INFINITY, f64::min);
    let high = kept().map(|run| run.micros(1.0)).fold(0.0, f64::max);
    let count = kept().map(|run| run.latency.len()).max().unwrap_or(1);
    if low > high {
        return Err("no server kept up".into());
    }
    let y = (low.max(0.1) * 0.8)..(high * 1.3);
    let decades = (count as f64).log10().clamp(1.0, 5.0);
    page(title, SHARES.len(), PANEL.0, &names, |panels| {
        for (index, area) in panels.iter().enumerate() {
            let rate = SHARES[index] * outcome.capacity;
            let caption = format!("{:.0} % of bare: {rate:.0}/s", SHARES[index] * 100.0);
            let mut chart = ChartBuilder::on(area)
                .caption(caption, (FONT, 14).into_font().color(&INK))
                .margin(10)
                .x_label_area_size(38)
                .y_label_area_size(52)
                .build_cartesian_2d(
                    (1.0..10f64.powf(decades)).log_scale(),
                    y.clone().log_scale(),
                )?;
            chart
                .configure_mesh()
                .max_light_lines(1)
                .light_line_style(FAINT.mix(0.3))
                .bold_line_style(FAINT)
                .x_label_formatter(&|one_in: &f64| percentile(*one_in))
                .y_label_formatter(&|micros: &f64| power(*micros))
                .x_desc("percentile")
                .y_desc("µs from when it was due")
                .draw()?;
            for lane in outcome.lanes.iter().filter(|lane| lane.runs[index].kept_up()) {
                let run = &lane.runs[index];
                let steps = (decades * f64::from(POINTS_PER_DECADE)) as i32;
                let ink = colour(lane.server.name);
                let points: Vec<(f64, f64, bool)> = (0..=steps)
                    .map(|step| 10f64.powf(f64::from(step) / f64::from(POINTS_PER_DECADE)))
                    .map(|one_in| (one_in, 1.0 - 1.0 / one_in))
                    .map(|(one_in, q)| (one_in, run.micros(q).max(0.1), run.believable(q)))
                    .collect();
                for pair in points.windows(2) {
                    let share = if pair.iter().all(|point| point.2) { 1.0 } else { 0.25 };
                    let line = pair.iter().map(|&(x, y, _)| (x, y));
                    chart.draw_series(LineSeries::new(line, ink.mix(share).stroke_width(2)))?;
                }
            }
        }
        Ok(())
    })
}

/// One in ten is above the percentile 90, and so on.
fn percentile(one_in: f64) -> String {
    if power(one_in).is_empty() {
        return String::new();
    }
    let digits = (one_in.log10().round() as usize).saturating_sub(2);
    format!("{:.digits$}", 100.0 - 100.0 / one_in)
}

pub fn growth(title: &str, outcome: &growth::Outcome) -> Drawn {
    let names: Vec<&str> = outcome.servers.iter().map(|growth| growth.server.name).collect();
    let points = || outcome.servers.iter().flat_map(growth::Growth::cost);
    let most = points().map(|(_, cost)| cost.high).fold(0.0, f64::max);
    let first = growth::CONNECTIONS[0] as f64;
    let last = growth::CONNECTIONS[growth::CONNECTIONS.len() - 1] as f64;
    page(title, 1, 2 * PANEL.0, &names, |panels| {
        let x = (first / 1.3..last * 1.3).log_scale().base(2.0);
        let mut chart = ChartBuilder::on(&panels[0])
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(60)
            .build_cartesian_2d(x, 0.0..most * 1.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(FAINT.mix(0.3))
            .bold_line_style(FAINT)
            .y_max_light_lines(1)
            .x_label_formatter(&|count: &f64| format!("{count:.0}"))
            .y_label_formatter(&|nanos: &f64| format!("{nanos:.0}"))
            .x_desc("connections")
            .y_desc("CPU ns per operation")
            .draw()?;
        for (index, growth) in outcome.servers.iter().enumerate() {
            // Side by side, so that equal ones are seen.
            let aside = |count: usize| count as f64 * ASIDE.powi(index as i32);
            let dots = growth.cost().into_iter().map(|(count, cost)| (aside(count), cost));
            let line = growth.line();
            let ends = line.map(|line| [first, last].map(|count| (count, line.at(count.log2()))));
            fitted(&mut chart, colour(growth.server.name), dots, ends)?;
        }
        Ok(())
    })
}

pub fn crowd(title: &str, outcome: &crowd::Outcome) -> Drawn {
    let names: Vec<&str> = outcome.crowds.iter().map(|crowd| crowd.server.name).collect();
    let points = || outcome.crowds.iter().flat_map(|crowd| &crowd.points);
    let slowest = points().map(|point| point.spread().high).fold(0.0, f64::max);
    let most = points().map(|point| point.clients).max().unwrap_or_default() as f64;
    page(title, 1, 2 * PANEL.0, &names, |panels| {
        let mut chart = ChartBuilder::on(&panels[0])
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..most * 1.05, 0.0..slowest * 1.1)?;
        chart
            .configure_mesh()
            .light_line_style(FAINT.mix(0.3))
            .bold_line_style(FAINT)
            .max_light_lines(1)
            .x_label_formatter(&|count: &f64| format!("{count:.0}"))
            .y_label_formatter(&|seconds: &f64| format!("{:.1}", seconds * 1e3))
            .x_desc("clients")
            .y_desc("milliseconds")
            .draw()?;
        for crowd in &outcome.crowds {
            let dots = crowd.points.iter().map(|point| (point.clients as f64, point.spread()));
            let ends = crowd.line().map(|line| [0.0, most].map(|count| (count, line.at(count))));
            fitted(&mut chart, colour(crowd.server.name), dots, ends)?;
        }
        Ok(())
    })
}

/// Points with their quartiles, and the line through them.
fn fitted<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    ink: RGBColor,
    points: impl Iterator<Item = (f64, Spread)>,
    line: Option<[(f64, f64); 2]>,
) -> Outcome
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    if let Some(ends) = line {
        chart.draw_series(LineSeries::new(ends, ink.mix(0.6).stroke_width(2)))?;
    }
    for (x, spread) in points {
        let quartiles = [(x, spread.low), (x, spread.high)];
        chart.draw_series([PathElement::new(quartiles, ink)])?;
        chart.draw_series([Circle::new((x, spread.median), 4, ink.filled())])?;
    }
    Ok(())
}

pub fn timers(title: &str, outcome: &timers::Outcome) -> Drawn {
    let names: Vec<&str> = outcome.queues.iter().map(|queue| queue.name).collect();
    let sizes = || outcome.queues.iter().flat_map(|queue| &queue.sizes);
    let all = || sizes().flat_map(|size| size.taken.iter().map(timers::Taken::mean));
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let pending = || sizes().map(|size| size.pending as f64);
    let (fewest, most) = (pending().fold(f64::INFINITY, f64::min), pending().fold(0.0, f64::max));
    page(title, OPERATIONS.len(), PANEL.0, &names, |panels| {
        for (index, area) in panels.iter().enumerate() {
            let x = (fewest / 1.3..most * 1.3).log_scale();
            let y = (low * 0.7..high * 1.4).log_scale();
            let mut chart = ChartBuilder::on(area)
                .caption(OPERATIONS[index], (FONT, 14).into_font().color(&INK))
                .margin(10)
                .x_label_area_size(38)
                .y_label_area_size(52)
                .build_cartesian_2d(x, y)?;
            chart
                .configure_mesh()
                .max_light_lines(1)
                .light_line_style(FAINT.mix(0.3))
                .bold_line_style(FAINT)
                .x_label_formatter(&|count: &f64| power(*count))
                .y_label_formatter(&|nanos: &f64| power(*nanos))
                .x_desc("pending")
                .y_desc("ns")
                .draw()?;
            for queue in &outcome.queues {
                let ink = colour(queue.name);
                let points: Vec<(f64, f64)> = queue
                    .sizes
                    .iter()
                    .map(|size| (size.pending as f64, size.taken[index].mean()))
                    .collect();
                let dots = points.iter().map(|&point| Circle::new(point, 3, ink.filled()));
                chart.draw_series(dots)?;
                chart.draw_series(LineSeries::new(points, ink.stroke_width(2)))?;
            }
        }
        Ok(())
    })
}
