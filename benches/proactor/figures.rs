//! What is made of the measured numbers.

/// The middle half of some numbers.
#[derive(Clone, Copy)]
pub struct Quartiles {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Quartiles {
    pub fn of(numbers: impl Iterator<Item = f64>) -> Quartiles {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Quartiles { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}

/// The straight line nearest to some points, by least squares.
#[derive(Clone, Copy)]
pub struct Line {
    pub slope: f64,
    pub start: f64,
    /// The share of the variation that the line explains.
    pub r2: f64,
}

impl Line {
    pub fn through(points: &[(usize, f64)]) -> Line {
        let n = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| *x as f64).sum::<f64>() / n;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for &(x, y) in points {
            let (dx, dy) = (x as f64 - mean_x, y - mean_y);
            xx += dx * dx;
            xy += dx * dy;
            yy += dy * dy;
        }
        // A single count has no slope.
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        let r2 = if xx > 0.0 && yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 };
        Line { slope, start: mean_y - slope * mean_x, r2 }
    }

    pub fn at(&self, x: f64) -> f64 {
        self.start + self.slope * x
    }
}

/// One line on where the figures come from.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    format!(
        "{}, {} cores, Linux {}, load average {}",
        cpu.map_or("an unknown processor", |(_, name)| name.trim()),
        std::thread::available_parallelism().map_or(1, usize::from),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("unknown")
    )
}
