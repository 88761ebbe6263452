//! A histogram as bars: one for each range of times, ranges that grow by a factor.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::report::{ns, thousands};
use crate::tally::Times;

/// More bars than this are too many to look at.
const BARS_MAX: usize = 20;
/// The upper ends of the bars of a decade, from fine to coarse.
const STEPS: [&[u64]; 4] = [
    &[10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82],
    &[10, 15, 20, 30, 50, 70],
    &[10, 20, 50],
    &[10],
];
/// What stands beside a bar.
const LABELS: usize = 36;

/// Times above the bar before, up to `up_to_ns`.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bar {
    pub(crate) up_to_ns: u64,
    pub(crate) count: u64,
}

/// As fine as there is room for.
pub(crate) fn bars(times: &Times) -> Vec<Bar> {
    let mut bars = Vec::new();
    for steps in STEPS {
        let ends = ends(steps, times.min(), times.max());
        if ends.len() > BARS_MAX && steps.len() > 1 {
            continue;
        }
        let mut below = 0;
        for up_to_ns in ends {
            // Values are kept to three digits; one on the border goes below it.
            let up_to = times.iter_recorded();
            let up_to = up_to.take_while(|value| value.value_iterated_to() <= up_to_ns);
            let total: u64 = up_to.map(|value| value.count_at_value()).sum();
            bars.push(Bar { up_to_ns, count: total - below });
            below = total;
        }
        break;
    }
    bars
}

/// The ends of the bars from the one that has `min` to the one that has `max`.
fn ends(steps: &[u64], min: u64, max: u64) -> Vec<u64> {
    let decades = (0..18).map(|exponent| 10_u64.pow(exponent));
    let all = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
    let mut ends = Vec::new();
    for end in all.filter(|&end| end >= min) {
        ends.push(end);
        if end > max {
            break;
        }
    }
    ends
}

/// A line for each bar.
pub(crate) fn draw(out: &mut String, bars: &[Bar], width: usize) -> fmt::Result {
    let total: u64 = bars.iter().map(|bar| bar.count).sum();
    let highest = bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let room = width.saturating_sub(LABELS).clamp(8, 60);
    for bar in bars {
        let percent = bar.count as f64 / total.max(1) as f64 * 100.0;
        let drawn = blocks(bar.count as f64 / highest as f64 * room as f64);
        let (label, count) = (ns(bar.up_to_ns), thousands(bar.count));
        let line = format!("  ≤ {label:>8} {percent:>6.2} % {count:>13} {drawn}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A bar of that many characters, to an eighth; one that is not empty can be seen.
fn blocks(length: f64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (length * 8.0).round() as usize;
    let eighths = if length > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::times;

    #[test]
    fn every_time_is_in_one_bar() {
        for values in [
            vec![1],
            vec![20_000; 5],
            (1..5000).map(|i| i * 997).collect::<Vec<u64>>(),
            vec![1, 1_000_000, 3_000_000_000_000],
        ] {
            let mut times = times();
            values.iter().for_each(|&value| times.saturating_record(value));
            let bars = bars(&times);
            let counted: u64 = bars.iter().map(|bar| bar.count).sum();
            assert_eq!(counted, values.len() as u64, "{bars:?}");
            assert!(bars.len() <= BARS_MAX, "{bars:?}");
            assert!(bars.is_sorted_by_key(|bar| bar.up_to_ns));
            assert!(bars[0].count > 0);
        }
        assert_eq!(bars(&times()), [Bar { up_to_ns: 10, count: 0 }]);
    }

    #[test]
    fn bars_are_as_long_as_their_counts() {
        assert_eq!([blocks(0.0), blocks(0.001), blocks(1.5)], ["", "▏", "█▌"]);
        let mut out = String::new();
        let bars = [Bar { up_to_ns: 20_000, count: 3 }, Bar { up_to_ns: 50_000, count: 1 }];
        draw(&mut out, &bars, 0).unwrap();
        let expected = "  ≤  20.0 µs  75.00 %             3 ████████\n  \
                        ≤  50.0 µs  25.00 %             1 ██▋\n";
        assert_eq!(out, expected);
    }
}
