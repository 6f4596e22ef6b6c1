//! The report as one page that needs nothing else: no network, no fonts, no libraries. Light and dark by the reader's setting.
//!
//! Enters: the report. Leaves: HTML. A card with a chart for each query that is not good, then a table of all, which sorts by a click on a
//! heading and filters by text and verdict. Everything from files and servers is escaped; the page has no inline handlers.

use super::{Report, Row, chart, labels, percent, significant, time};
use crate::verify::compare::{Comparison, Sides};
use crate::verify::verdict::Verdict;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Most cards with a chart: a page of more is no help and some 30 KiB each. The table has all.
const CARDS_MAX: usize = 200;

/// The page.
pub fn render(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str(r#"<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">"#);
    let _ = write!(
        page,
        "<title>Phoenix verify: {}</title><style>{STYLE}</style></head><body><main>",
        escaped(&report.headline())
    );
    head(&mut page, report);
    complaints(&mut page, report);
    let mut cards: Vec<(usize, &Row)> =
        report.rows.iter().enumerate().filter(|(_, row)| has_card(row)).collect();
    cards.sort_by_key(|(_, row)| row.outcome.verdict);
    if !cards.is_empty() {
        let _ = write!(
            page,
            "<h2>Changed answers</h2><p class=\"legend\">{}</p>",
            [
                ("full", "full".to_owned()),
                ("folded", "folded".to_owned()),
                ("large", "relative error".to_owned()),
                ("tolerance", format!("tolerance {}", percent(report.tolerance))),
                ("gone", "one side has no point".to_owned()),
            ]
            .map(|(class, text)| format!("<span><i class=\"key {class}\"></i>{}</span>", escaped(&text)))
            .concat()
        );
        for (index, row) in cards.iter().take(CARDS_MAX) {
            card(&mut page, report, *index, row);
        }
        if cards.len() > CARDS_MAX {
            let _ = write!(page, "<p>{} more stand in the table.</p>", cards.len() - CARDS_MAX);
        }
    }
    table(&mut page, report);
    foot(&mut page, report);
    let _ = writeln!(page, "</main><script>{SCRIPT}</script></body></html>");
    page
}

fn head(page: &mut String, report: &Report) {
    let (good, all) = report.score();
    let share = report.share().map_or_else(|| "–".to_owned(), percent);
    let passed = if report.passes() { "passed" } else { "failed" };
    let _ = write!(
        page,
        r#"<header><p class="brand">Phoenix verify</p><div class="score {passed}"><strong>{share}</strong><span>{good} of {all} queries give the same answer on folded data.<br>Threshold {}: {passed}.</span></div>"#,
        percent(report.fail_below)
    );
    page.push_str("<ul class=\"counts\">");
    for verdict in Verdict::ALL.iter().rev() {
        let count = report.count(*verdict);
        if count > 0 {
            let _ = write!(
                page,
                r#"<li><button type="button" class="pill {}" data-verdict="{}"><b>{count}</b> {}</button></li>"#,
                class(*verdict),
                verdict.words(),
                verdict.words()
            );
        }
    }
    page.push_str("</ul>");
    for why in &report.down {
        let _ = write!(page, "<p class=\"alarm\">{}</p>", escaped(why));
    }
    for line in report.affinity.lines() {
        let class = if report.affinity.holds() { "calm" } else { "alarm" };
        let _ = write!(page, "<p class=\"{class}\">{}</p>", escaped(&line));
    }
    page.push_str("</header>");
}

fn complaints(page: &mut String, report: &Report) {
    if report.complaints.is_empty() {
        return;
    }
    page.push_str("<h2>Files that could not be read</h2><ul class=\"complaints\">");
    for complaint in &report.complaints {
        let _ = write!(
            page,
            "<li><b>{}</b> {} <span>{}</span></li>",
            escaped(&complaint.file),
            escaped(&complaint.place),
            escaped(&complaint.text)
        );
    }
    page.push_str("</ul>");
}

/// Changed answers have one; a query that was not run shows all it has in the table.
fn has_card(row: &Row) -> bool {
    matches!(row.outcome.verdict, Verdict::Differs | Verdict::CannotBeAnswered)
        && row.outcome.comparison.is_some()
}

fn card(page: &mut String, report: &Report, index: usize, row: &Row) {
    let _ = write!(
        page,
        r#"<article class="card" id="q{index}"><h3>{} <span class="pill {}">{}</span></h3><p class="file">{}</p><pre>{}</pre>"#,
        escaped(&row.query.place),
        class(row.outcome.verdict),
        row.outcome.verdict.words(),
        escaped(&row.query.file),
        escaped(&row.query.text)
    );
    reasons(page, row);
    if let Some(comparison) = &row.outcome.comparison {
        if !comparison.alone.is_empty() {
            let _ = write!(
                page,
                "<figure>{}<figcaption>{}</figcaption></figure>",
                chart::svg_of_alone(&comparison.alone, &report.span),
                escaped(&alone(comparison))
            );
        } else if let Some(chart) = &comparison.chart {
            let which = if comparison.worst.is_some() {
                "Series with the worst point"
            } else {
                "A series of one side"
            };
            let _ = write!(
                page,
                "<figure>{}<figcaption>{which}: <code>{}</code></figcaption></figure>",
                chart::svg(chart, &report.span, report.tolerance),
                escaped(&labels(&chart.labels))
            );
        }
        figures(page, comparison);
    }
    page.push_str("</article>");
}

/// What the picture of series without a counterpart shows, and how many more there are.
fn alone(comparison: &Comparison) -> String {
    let counted = |count: u64| if count == 1 { "1 series".to_owned() } else { format!("{count} series") };
    let Sides { full, folded } = comparison.series;
    let shown = comparison.alone.len() as u64;
    let more = if shown < full + folded { format!("; {shown} are drawn") } else { String::new() };
    format!(
        "{} of the full side, {} of the folded one, and none with the same labels{more}",
        counted(full),
        counted(folded)
    )
}

fn reasons(page: &mut String, row: &Row) {
    if !row.outcome.reasons.is_empty() || !row.query.notes.is_empty() {
        page.push_str("<ul class=\"reasons\">");
        for reason in &row.outcome.reasons {
            let _ = write!(page, "<li>{}</li>", escaped(reason));
        }
        for note in &row.query.notes {
            let _ = write!(page, "<li class=\"note\">{}</li>", escaped(note));
        }
        page.push_str("</ul>");
    }
}

fn figures(page: &mut String, comparison: &Comparison) {
    let mut facts = Vec::new();
    if let Some(worst) = &comparison.worst {
        let values = format!(
            "{} → {} at {}",
            significant(worst.full, 6),
            significant(worst.folded, 6),
            time(worst.time_ms, "%T")
        );
        facts.push(("worst error", format!("{} ({values})", percent(worst.error))));
        facts.push(("mean error", percent(comparison.mean_error().unwrap_or_default())));
    }
    facts.push(("points compared", comparison.points.to_string()));
    if comparison.points > 0 {
        facts.push(("outside tolerance", comparison.outside.to_string()));
    }
    for (name, sides) in [
        ("missing (full, folded)", comparison.missing),
        ("at edges (full, folded)", comparison.edge),
        ("series (full, folded)", comparison.series),
    ] {
        if sides.sum() > 0 {
            facts.push((name, format!("{}, {}", sides.full, sides.folded)));
        }
    }
    page.push_str("<dl>");
    for (name, value) in facts {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
    }
    page.push_str("</dl>");
}

fn table(page: &mut String, report: &Report) {
    page.push_str(r#"<h2>All queries</h2><div class="filter"><input type="search" id="filter" placeholder="Filter by query, place or reason" aria-label="Filter"><span id="shown"></span></div><div class="scroll"><table id="queries"><thead><tr><th data-type="rank">Answer</th><th>Query</th><th data-type="number">Worst error</th><th data-type="number">Mean</th><th data-type="number">Points</th></tr></thead><tbody>"#);
    for (index, row) in report.rows.iter().enumerate() {
        let comparison = row.outcome.comparison.as_ref();
        let worst = comparison.and_then(|comparison| comparison.worst.as_ref()).map(|worst| worst.error);
        let rank =
            Verdict::ALL.iter().position(|verdict| *verdict == row.outcome.verdict).unwrap_or_default();
        let place = escaped(&row.query.place);
        let place = if has_card(row) { format!("<a href=\"#q{index}\">{place}</a>") } else { place };
        let words = row.outcome.verdict.words();
        let _ = write!(
            page,
            r#"<tr data-verdict="{words}"><td data-value="{rank}"><span class="pill {}">{words}</span></td><td><div class="place">{place}</div><code>{}</code>"#,
            class(row.outcome.verdict),
            escaped(&row.query.text)
        );
        reasons(page, row);
        let points = comparison.map_or(0, |comparison| comparison.points);
        let mean = comparison.and_then(Comparison::mean_error);
        let _ = write!(
            page,
            r#"</td><td class="number" data-value="{}">{}</td><td class="number" data-value="{}">{}</td><td class="number" data-value="{points}">{points}</td></tr>"#,
            worst.map_or(-1.0, |error| if error.is_finite() { error } else { f64::MAX }),
            worst.map(percent).unwrap_or_default(),
            mean.unwrap_or(-1.0),
            mean.map(percent).unwrap_or_default()
        );
    }
    page.push_str("</tbody></table></div>");
}

fn foot(page: &mut String, report: &Report) {
    let plan = report.plan.as_ref().map(|(file, version)| format!("{}, version {version}", file.display()));
    let facts = [
        ("full", report.urls[0].clone()),
        ("folded", report.urls[1].clone()),
        ("from", time(report.span.start_ms, "%F %T UTC")),
        ("to", time(report.span.end_ms, "%F %T UTC")),
        ("step", format!("{} s", report.span.step_ms as f64 / 1000.0)),
        ("tolerance", percent(report.tolerance)),
        ("points allowed outside", percent(report.outliers)),
        ("edge", format!("{} s", report.span.edge_ms as f64 / 1000.0)),
        ("plan", plan.unwrap_or_else(|| "none given".to_owned())),
        ("targets of other data sources", report.foreign.to_string()),
    ];
    page.push_str("<footer><dl>");
    for (name, value) in facts {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
    }
    page.push_str("</dl></footer>");
}

/// The colour of a verdict.
fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal | Verdict::WithinTolerance => "good",
        Verdict::NoData => "empty",
        Verdict::Differs | Verdict::CannotBeAnswered => "bad",
        Verdict::CannotBeRead | Verdict::CannotBeRun => "broken",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace(" %", "&nbsp;%")
}
