//! Bars of ratios with their quartiles, a panel for each workload.

use super::{Drawn, FAINT, FONT, INK, colour};
use crate::figures::Spread;
use crate::measure::{Outcome, Sample};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

type Measure = (&'static str, &'static str, fn(&Sample) -> f64);

pub const MEASURES: &[Measure] = &[
    ("rate.svg", "Operations per second, as a ratio to bare (more is better)", Sample::rate),
    (
        "cpu.svg",
        "Processor time per operation, as a ratio to bare (less is better)",
        Sample::cpu_per_op,
    ),
];

const COLUMNS: usize = 2;
const PANEL_WIDTH: u32 = 470;
const TITLE_HEIGHT: u32 = 40;
const BAR_HEIGHT: i32 = 20;
/// Of a panel, above its bars and below them.
const HEAD: i32 = 30;
const FOOT: i32 = 26;
/// Left of the bars, for names, and right of them, for figures.
const NAMES: i32 = 115;
const FIGURES: i32 = 60;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub fn ratios(title: &str, outcomes: &[Outcome], figure: fn(&Sample) -> f64) -> Drawn {
    let rows = outcomes.len().div_ceil(COLUMNS);
    let most = outcomes.iter().map(|outcome| outcome.series.len()).max().unwrap_or_default();
    let panel_height = (HEAD + FOOT + BAR_HEIGHT * most as i32) as u32;
    let size = (PANEL_WIDTH * COLUMNS as u32, TITLE_HEIGHT + panel_height * rows as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(title.to_owned(), (12, 12), (FONT, 18).into_font().color(&INK)))?;
        let (_, body) = root.split_vertically(TITLE_HEIGHT);
        for (outcome, panel) in outcomes.iter().zip(body.split_evenly((rows, COLUMNS))) {
            let base = &outcome.series[0];
            let bars: Vec<(&str, Spread)> = outcome
                .series
                .iter()
                .map(|series| (series.server.name, series.ratio(base, figure)))
                .collect();
            self::panel(&panel, outcome.workload.title, &bars)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn panel(area: &Area<'_>, title: &str, bars: &[(&str, Spread)]) -> Result<(), Box<dyn Error>> {
    let most = bars.iter().map(|(_, ratio)| ratio.high).fold(1.0, f64::max);
    let width = PANEL_WIDTH as i32 - NAMES - FIGURES;
    let x = |ratio: f64| NAMES + (ratio / most * f64::from(width)) as i32;
    let bottom = HEAD + BAR_HEIGHT * bars.len() as i32;
    let font = (FONT, 12).into_font().color(&INK);
    let at = |h, v| font.pos(Pos::new(h, v));
    area.draw(&Text::new(title.to_owned(), (12, 8), (FONT, 13).into_font().color(&INK)))?;
    let step = if most > 4.0 { 1.0 } else { 0.5 };
    for mark in (0..).map(|index| f64::from(index) * step).take_while(|mark| *mark <= most) {
        let ink = if mark == 1.0 { &INK } else { &FAINT };
        area.draw(&PathElement::new([(x(mark), HEAD - 4), (x(mark), bottom + 2)], ink))?;
        let text = format!("{mark}");
        area.draw(&Text::new(text, (x(mark), bottom + 5), at(HPos::Center, VPos::Top)))?;
    }
    for (index, (name, ratio)) in bars.iter().enumerate() {
        let top = HEAD + BAR_HEIGHT * index as i32;
        let middle = top + BAR_HEIGHT / 2;
        let label = at(HPos::Right, VPos::Center);
        area.draw(&Text::new((*name).to_owned(), (NAMES - 6, middle), label))?;
        if ratio.median.is_nan() {
            continue;
        }
        let corners = [(x(0.0), top + 3), (x(ratio.median), top + BAR_HEIGHT - 3)];
        area.draw(&Rectangle::new(corners, colour(name).mix(0.75).filled()))?;
        let (low, high) = (x(ratio.low), x(ratio.high));
        area.draw(&PathElement::new([(low, middle), (high, middle)], INK))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(end, middle - 3), (end, middle + 3)], INK))?;
        }
        let place = (high.max(x(ratio.median)) + 6, middle);
        let text = format!("{:.2}", ratio.median);
        area.draw(&Text::new(text, place, at(HPos::Left, VPos::Center)))?;
    }
    Ok(())
}
