//! A run as SVG: what the need was, what went out, the budget, and when something was decided.
//!
//! Enters: a [`Run`]. Leaves: one picture that needs nothing else, light and dark by the reader's setting. Above the series, below the embedders and the rules in
//! force; decisions are numbered marks, and their sentences stand under the picture.

use super::run::Run;
use crate::decide::Action;
use std::borrow::Cow;
use std::fmt::Write;
use textwrap::{Options, WordSplitter};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
/// The series' part.
const TOP: f64 = 56.0;
const BOTTOM: f64 = 330.0;
/// The embedders' and rules' part.
const LOW_TOP: f64 = 362.0;
const LOW_BOTTOM: f64 = 430.0;
/// The first sentence, and the height of a line.
const TEXT_TOP: f64 = 478.0;
const LINE: f64 = 17.0;
/// Sentences that are shown, and bytes of a line.
const SENTENCES_MAX: usize = 12;
const LINE_CHARS: usize = 128;

const STYLE: &str = "<style>text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}.grid{stroke:#ddd;fill:none}\
.need{stroke:#c2410c;stroke-dasharray:5 4;fill:none;stroke-width:1.5}.out{stroke:#1d4ed8;fill:none;stroke-width:2}.folded{fill:#1d4ed8;fill-opacity:.18}\
.budget{stroke:#b91c1c;stroke-width:1.5;fill:none}.mark{stroke:#15803d;stroke-width:1}.rules{fill:#15803d;fill-opacity:.35}.embedders{stroke:#6b7280;fill:none;stroke-width:1.5}\
.away{fill:#b91c1c;fill-opacity:.08}.bg{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.bg{fill:#111}.grid{stroke:#333}.out{stroke:#60a5fa}.folded{fill:#60a5fa}\
.need{stroke:#fb923c}.mark{stroke:#4ade80}}</style>";

/// A value of each interval, as the height of a line.
type Heights<'h> = dyn Fn(&super::Interval) -> f64 + 'h;
/// Makes a line of them.
type Line<'l> = dyn Fn(&Heights<'_>) -> String + 'l;

/// The picture.
pub fn svg(run: &Run) -> String {
    let end_s = run.intervals.last().map_or(1, |it| it.at_s).max(1) as f64;
    let x = |at_s: u64| LEFT + (RIGHT - LEFT) * at_s as f64 / end_s;
    let most = run
        .intervals
        .iter()
        .map(|it| it.need.max((it.raw + it.folded) as f64))
        .fold(run.budget as f64, f64::max);
    let high = most * 1.05;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / high).clamp(0.0, 1.0);
    let told: Vec<_> =
        run.decisions.iter().filter(|(_, it)| it.action != Action::Enforce).take(SENTENCES_MAX).collect();
    let lines: Vec<Vec<Cow<'_, str>>> = told.iter().map(|(_, it)| wrapped(&it.sentence)).collect();
    let height = TEXT_TOP + LINE * lines.iter().map(Vec::len).sum::<usize>() as f64;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Series in and out over time, and decisions">{STYLE}<rect class="bg" width="{WIDTH}" height="{height}"/>"#
    );
    let good =
        if run.verdict.failures.is_empty() { "every property held" } else { "not every property held" };
    let _ = write!(
        svg,
        r#"<text class="title" x="{LEFT}" y="24">{}, seed {}, {} embedders: {good}</text>"#,
        run.scenario.name(),
        run.seed,
        run.embedders
    );
    legend(&mut svg);
    for it in run.intervals.iter().filter(|it| !it.has_control) {
        let _ = write!(
            svg,
            r#"<rect class="away" x="{:.1}" y="{TOP}" width="{:.1}" height="{:.1}"/>"#,
            x(it.at_s.saturating_sub(30)),
            x(30) - LEFT,
            BOTTOM - TOP
        );
    }
    for part in 0..=4 {
        let value = high * f64::from(part) / 4.0;
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {0:.1}H{RIGHT}"/><text x="{1:.1}" y="{2:.1}" text-anchor="end">{value:.0}</text>"#,
            y(value),
            LEFT - 8.0,
            y(value) + 4.0
        );
    }
    let line = |values: &Heights<'_>| -> String {
        run.intervals
            .iter()
            .enumerate()
            .map(|(n, it)| format!("{}{:.1} {:.1}", if n == 0 { "M" } else { "L" }, x(it.at_s), values(it)))
            .collect()
    };
    let out = line(&|it| y((it.raw + it.folded) as f64));
    let raw: String =
        run.intervals.iter().rev().map(|it| format!("L{:.1} {:.1}", x(it.at_s), y(it.raw as f64))).collect();
    let _ = write!(svg, r#"<path class="folded" d="{out}{raw}Z"/><path class="out" d="{out}"/>"#);
    let _ = write!(svg, r#"<path class="need" d="{}"/>"#, line(&|it| y(it.need)));
    let _ = write!(svg, r#"<path class="budget" d="M{LEFT} {0:.1}H{RIGHT}"/>"#, y(run.budget as f64));
    lower(&mut svg, run, &x, &line);
    let mut text_y = TEXT_TOP;
    for (number, ((at_s, _), lines)) in told.iter().zip(&lines).enumerate() {
        let mark = number + 1;
        let _ = write!(
            svg,
            r#"<path class="mark" d="M{0:.1} {TOP}V{LOW_BOTTOM}"/><text x="{1:.1}" y="{2:.1}">{mark}</text>"#,
            x(*at_s),
            x(*at_s) + 3.0,
            TOP + 12.0 + 12.0 * (number % 3) as f64
        );
        for (n, text) in lines.iter().enumerate() {
            let head =
                if n == 0 { format!("{mark}. {:02}:{:02}  ", at_s / 60, at_s % 60) } else { String::new() };
            let _ = write!(svg, r#"<text x="{LEFT}" y="{text_y:.1}">{head}{}</text>"#, escaped(text));
            text_y += LINE;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (class, words) in
        [("need", "streams in"), ("out", "series out"), ("budget", "budget"), ("mark", "decision")]
    {
        let _ = write!(
            svg,
            r#"<path class="{class}" d="M{x} 40h22"/><text x="{}" y="44">{words}</text>"#,
            x + 28.0
        );
        x += 110.0;
    }
    let _ = write!(
        svg,
        r#"<rect class="folded" x="{x}" y="34" width="22" height="12"/><text x="{}" y="44">of them folded</text>"#,
        x + 28.0
    );
}

/// Embedders as a line, rules in force as an area, minutes below.
fn lower(svg: &mut String, run: &Run, x: &dyn Fn(u64) -> f64, line: &Line<'_>) {
    let embedders = run.intervals.iter().map(|it| it.embedders).max().unwrap_or(1).max(1) as f64;
    let rules = run.intervals.iter().map(|it| it.rules).max().unwrap_or(1).max(1) as f64;
    let scale = |part: f64| LOW_BOTTOM - (LOW_BOTTOM - LOW_TOP) * part;
    let of_rules = line(&|it| scale(it.rules as f64 / rules / 2.0));
    let _ = write!(svg, r#"<path class="grid" d="M{LEFT} {LOW_BOTTOM}H{RIGHT}"/>"#);
    let _ = write!(
        svg,
        r#"<path class="rules" d="{of_rules}L{RIGHT} {LOW_BOTTOM}L{0:.1} {LOW_BOTTOM}Z"/>"#,
        x(run.intervals.first().map_or(0, |it| it.at_s))
    );
    let _ = write!(
        svg,
        r#"<path class="embedders" d="{}"/>"#,
        line(&|it| scale(it.embedders as f64 / embedders))
    );
    let _ = write!(
        svg,
        r#"<text x="{LEFT}" y="{}">embedders (line, at most {embedders}), metrics that a rule folds (area, at most {rules})</text>"#,
        LOW_TOP - 8.0
    );
    let end_s = run.intervals.last().map_or(0, |it| it.at_s);
    for minute in (0..=end_s / 60).step_by(5) {
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{minute} min</text>"#,
            x(minute * 60),
            LOW_BOTTOM + 18.0
        );
    }
}

/// A sentence in lines.
fn wrapped(text: &str) -> Vec<Cow<'_, str>> {
    let options = Options::new(LINE_CHARS).break_words(false).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
