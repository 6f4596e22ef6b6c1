//! One series on both sides as SVG: the two lines above, the relative error below. Where nothing can be compared, the series of both sides.
//!
//! Enters: values on common steps. Leaves: an `<svg>` that takes its colours from the page. Long answers are thinned to [`COLUMNS`]: of the steps of a
//! column the one with the worst error stays, so that thinning never hides a difference.

use super::{percent, significant, time};
use crate::verify::arguments::Span;
use crate::verify::compare::{Chart, relative_error};
use std::fmt::Write;

/// Size of the picture, in its own units.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 848.0;
/// The lines' part.
const TOP: f64 = 12.0;
const BOTTOM: f64 = 206.0;
/// The error's part.
const ERROR_TOP: f64 = 236.0;
const ERROR_BOTTOM: f64 = 300.0;
/// Steps drawn at most: two units of width each.
const COLUMNS: usize = 392;

/// One drawn step.
struct Step {
    x: f64,
    full: Option<f64>,
    folded: Option<f64>,
    error: Option<f64>,
}

/// A line's value at a step.
type Value = fn(&Step) -> Option<f64>;
/// The lines, by their class in the page's style.
const LINES: [(&str, Value); 2] = [("full", |step| step.full), ("folded", |step| step.folded)];

/// The picture of one series.
pub fn svg(chart: &Chart, span: &Span, tolerance: f64) -> String {
    let steps = steps(chart);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Both answers over time, and their relative error">"#
    );
    lines(&mut svg, std::slice::from_ref(&steps));
    times(&mut svg, span, HEIGHT);
    errors(&mut svg, &steps, tolerance);
    svg.push_str("</svg>");
    svg
}

/// The picture of series that stand on one side each.
pub fn svg_of_alone(charts: &[Chart], span: &Span) -> String {
    let height = BOTTOM + HEIGHT - ERROR_BOTTOM;
    let mut svg = format!(
        r#"<svg class="alone" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="The series of both answers over time">"#
    );
    lines(&mut svg, &charts.iter().map(steps).collect::<Vec<_>>());
    times(&mut svg, span, height);
    svg.push_str("</svg>");
    svg
}

/// A common scale and the lines of every series on it.
fn lines(svg: &mut String, series: &[Vec<Step>]) {
    let values = series.iter().flatten().flat_map(|step| [step.full, step.folded]).flatten();
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let axis = Axis::new(low, high);
    for tick in axis.ticks() {
        let y = axis.y(tick, TOP, BOTTOM);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            y + 4.0,
            significant(tick, 4)
        );
    }
    for (class, value) in LINES {
        for steps in series.iter().filter(|steps| steps.iter().any(|step| value(step).is_some())) {
            let points =
                steps.iter().map(|step| (step.x, value(step).map(|value| axis.y(value, TOP, BOTTOM))));
            line(svg, class, points);
        }
    }
}

/// The steps that are drawn.
fn steps(chart: &Chart) -> Vec<Step> {
    let count = chart.full.len();
    let per_column = count.div_ceil(COLUMNS).max(1);
    let last = count.saturating_sub(1).max(1) as f64;
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let all: Vec<Step> = (0..count)
        .map(|index| {
            let (full, folded) = (chart.full[index], chart.folded[index]);
            let error = full.zip(folded).map(|(full, folded)| relative_error(full, folded, 0.0));
            Step {
                x: LEFT + (RIGHT - LEFT) * index as f64 / last,
                full: finite(full),
                folded: finite(folded),
                error,
            }
        })
        .collect();
    // A step that one side lacks is worse than any error.
    let badness = |step: &Step| match (step.full, step.folded) {
        (Some(_), Some(_)) => step.error.unwrap_or(0.0),
        (None, None) => -1.0,
        _ => f64::INFINITY,
    };
    let mut drawn = Vec::new();
    let mut rest = all.into_iter().peekable();
    while rest.peek().is_some() {
        drawn.extend(rest.by_ref().take(per_column).max_by(|a, b| badness(a).total_cmp(&badness(b))));
    }
    drawn
}

/// A line with gaps; a lone point is a dot.
fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) {
    let mut path = String::new();
    let mut is_open = false;
    for (x, y) in points {
        match y {
            Some(y) if is_open => _ = write!(path, "L{x:.1} {y:.1}"),
            // A round cap makes a line of no length a dot.
            Some(y) => _ = write!(path, "M{x:.1} {y:.1}h0"),
            None => {}
        }
        is_open = y.is_some();
    }
    let _ = write!(svg, r#"<path class="{class}" d="{path}"/>"#);
}

/// The error's part: bars, and the tolerance as a dashed line.
fn errors(svg: &mut String, steps: &[Step], tolerance: f64) {
    let finite = steps.iter().filter_map(|step| step.error).filter(|error| error.is_finite());
    let high = finite.fold(tolerance * 2.0, f64::max).max(1e-12);
    let y = |error: f64| ERROR_BOTTOM - (ERROR_BOTTOM - ERROR_TOP) * (error / high).min(1.0);
    let _ =
        write!(svg, r#"<path class="grid" d="M{LEFT} {ERROR_BOTTOM}H{RIGHT}M{LEFT} {ERROR_TOP}H{RIGHT}"/>"#);
    for (value, at) in [(high, ERROR_TOP), (0.0, ERROR_BOTTOM)] {
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 4.0,
            percent(value)
        );
    }
    let width = ((RIGHT - LEFT) / steps.len().max(1) as f64 - 0.6).clamp(0.8, 10.0);
    for step in steps {
        let (error, class) = match (step.error, step.full, step.folded) {
            (Some(error), ..) if error <= tolerance => (error, "small"),
            (Some(error), ..) => (error, "large"),
            (None, None, None) => continue,
            (None, ..) => (f64::INFINITY, "gone"),
        };
        let top = y(error);
        if ERROR_BOTTOM - top >= 0.1 {
            let x = (step.x - width / 2.0).clamp(LEFT, RIGHT - width);
            let _ = write!(
                svg,
                r#"<rect class="{class}" x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}"/>"#,
                ERROR_BOTTOM - top
            );
        }
    }
    let _ = write!(svg, r#"<path class="tolerance" d="M{LEFT} {:.1}H{RIGHT}"/>"#, y(tolerance));
}

/// Times under all of it.
fn times(svg: &mut String, span: &Span, height: f64) {
    let range_ms = (span.end_ms - span.start_ms).max(1);
    let form = match range_ms {
        ms if ms < 600_000 => "%H:%M:%S",
        ms if ms < 86_400_000 => "%H:%M",
        _ => "%b %e %H:%M",
    };
    for sixth in 0..=6 {
        let ms = span.start_ms + range_ms * sixth / 6;
        let x = LEFT + (RIGHT - LEFT) * sixth as f64 / 6.0;
        let anchor = if sixth == 6 {
            "end"
        } else if sixth == 0 {
            "start"
        } else {
            "middle"
        };
        let _ = write!(
            svg,
            r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            height - 8.0,
            time(ms, form)
        );
    }
}

/// A vertical scale with round ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    fn new(low: f64, high: f64) -> Axis {
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        // From zero, unless that would flatten what there is to see.
        let low = if low > 0.0 && low < high * 0.7 { 0.0 } else { low };
        let spread = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
        let raw = spread / 4.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= raw)
            .unwrap_or(raw);
        let high = (high / step).ceil() * step;
        let low = (low / step).floor() * step;
        Axis { low, high: if high > low { high } else { low + step }, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let (low, step) = (self.low, self.step);
        let count = ((self.high - low) / step).round().clamp(1.0, 20.0) as u32;
        // A tick of 1e-17 is a zero.
        (0..=count)
            .map(move |n| low + step * f64::from(n))
            .map(move |tick| if tick.abs() < step * 1e-9 { 0.0 } else { tick })
    }

    fn y(&self, value: f64, top: f64, bottom: f64) -> f64 {
        bottom - (bottom - top) * (value - self.low) / (self.high - self.low)
    }
}
