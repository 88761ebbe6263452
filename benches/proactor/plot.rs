//! Completion times by the number of clients, as a picture.

use std::path::Path;

use plotters::prelude::*;

use crate::figures::Line;

/// One server's times.
pub struct Series {
    pub name: &'static str,
    pub points: Vec<(usize, f64)>,
    pub line: Line,
}

/// Every measured time as a point, and the straight line through them.
pub fn write(path: &Path, series: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let most = points().map(|(n, _)| *n).max().unwrap_or(1) as f64 * 1.05;
    let longest = points().map(|(_, seconds)| *seconds).fold(0.0, f64::max) * 1.1;
    let picture = SVGBackend::new(path, (800, 500)).into_drawing_area();
    picture.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&picture)
        .caption("Echo of 1 KiB to N clients", ("sans-serif", 22))
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(0.0..most, 0.0..longest)?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .y_desc("seconds until all have their echo")
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|seconds| format!("{seconds:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    let colors = [RGBColor(200, 60, 30), RGBColor(40, 90, 180)];
    for (series, color) in series.iter().zip(colors.into_iter().cycle()) {
        let line = series.line;
        chart.draw_series(
            series
                .points
                .iter()
                .map(|&(n, seconds)| Circle::new((n as f64, seconds), 3, color.mix(0.5).filled())),
        )?;
        chart
            .draw_series(LineSeries::new([0.0, most].map(|n| (n, line.at(n))), color))?
            .label(format!(
                "{}: {:.1} us a client, r2 {:.3}",
                series.name,
                line.slope * 1e6,
                line.r2
            ))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    picture.present()?;
    Ok(())
}
