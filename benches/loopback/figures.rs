//! Quartiles, and the straight line through points.

use serde_json::{Value, json};

/// Median and quartiles.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// Not a number, if there are no values.
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let place = quantile * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            sorted.get(below).map_or(f64::NAN, |low| low + (sorted[above] - low) * place.fract())
        };
        Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
    }

    pub fn json(self) -> Value {
        json!({ "q1": self.low, "median": self.median, "q3": self.high })
    }
}

/// The line with the smallest sum of squared distances.
#[derive(Clone, Copy)]
pub struct Line {
    pub slope: f64,
    pub at_zero: f64,
    /// The share of the variance that the line explains: 1 if the points are on it.
    pub r_squared: f64,
}

impl Line {
    /// Needs two points with different `x`.
    pub fn through(points: &[(f64, f64)]) -> Option<Line> {
        let count = points.len() as f64;
        let mean_x = points.iter().map(|p| p.0).sum::<f64>() / count;
        let mean_y = points.iter().map(|p| p.1).sum::<f64>() / count;
        let sum = |term: fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|&(x, y)| term(x - mean_x, y - mean_y)).sum()
        };
        let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
        // Without points it is not a number.
        if xx.is_nan() || xx == 0.0 {
            return None;
        }
        let slope = xy / xx;
        let r_squared = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
        Some(Line { slope, at_zero: mean_y - slope * mean_x, r_squared })
    }

    pub fn at(self, x: f64) -> f64 {
        self.at_zero + self.slope * x
    }

    pub fn json(self) -> Value {
        json!({ "slope": self.slope, "at_zero": self.at_zero, "r_squared": self.r_squared })
    }
}
