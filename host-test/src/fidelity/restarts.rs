//! (g) What a restart costs.
//!
//! In: the reports of `crate::restart`. Out: those of their figures that say most, drawn; all others for programs, and one line that counts them, since a
//! person should see that they hold. A figure that must be there and is not is an error, so that nothing is drawn of an answer that was never asked for.

use super::table::Table;
use crate::figure::{Figure, Unit};
use crate::restart::scenes::{BETWEEN, LOST};
use crate::restart::stage::{DELAY, FOLDED, WINDOW};
use crate::restart::traffic::INTERVAL;
use crate::restart::{Report, Restarts, answers};
use anyhow::Context as _;

pub fn figures(found: &Restarts, table: &mut Table) -> anyhow::Result<()> {
    table.title(format!(
        "(g) a restart: windows of {}, delay {}, exports every {}",
        seconds(WINDOW.as_secs_f64()),
        seconds(DELAY.as_secs_f64()),
        seconds(INTERVAL.as_secs_f64())
    ));
    let mut drawn = Vec::new();
    let lost = found.killed.iter().chain([&found.ended, &found.moved]).map(|report| (report, LOST));
    for (report, key) in lost.chain([(&found.moved, BETWEEN)]) {
        let figure = named(report, key)?;
        drawn.push(figure.key.clone());
        table.add(in_section(figure));
    }
    let (mut above, mut bound, mut wrong) = (f64::NEG_INFINITY, None, 0.0);
    for (report, kind) in found.killed.iter().flat_map(|report| FOLDED.map(|kind| (report, kind))) {
        let figure = named(report, &answers::above_key(kind))?;
        (above, bound) = (above.max(figure.value), figure.bound);
        for key in [answers::series_key(kind), answers::resets_key(kind)] {
            wrong += named(report, &key)?.value;
        }
    }
    let what = "killed: increase in Prometheus above the truth, worst step";
    let above = Figure::new("g.kill.increase.above", what, Unit::Percent, above);
    table.add(above.at_most(bound.context("increase is not judged")?));
    let what = "killed: series in Prometheus too many, or that begin anew too often";
    table.add(Figure::new("g.kill.series", what, Unit::Count, wrong).at_most(0.0));
    let others = |report: &Report| {
        let figures: Vec<_> = report.figures.iter().filter(|f| !drawn.contains(&f.key)).cloned().collect();
        figures
    };
    let others: Vec<Figure> = found.all().flat_map(others).collect();
    let judged = others.iter().filter(|figure| figure.bound.is_some()).count();
    let broken = others.iter().filter(|figure| figure.is_broken()).count();
    let what = format!("of {judged} other figures, those that do not hold");
    table.add(Figure::new("g.others", what, Unit::Count, broken as f64).at_most(0.0));
    for figure in &others {
        table.add_undrawn(in_section(figure));
    }
    for report in found.all().filter(|report| !report.broken().is_empty()) {
        table.note(report.to_string());
    }
    Ok(())
}

fn named<'a>(report: &'a Report, key: &str) -> anyhow::Result<&'a Figure> {
    report.figure(key).with_context(|| format!("{}: no figure {key}", report.scene))
}

/// A figure with the section's letter in front of its key, as all of the table have it.
fn in_section(figure: &Figure) -> Figure {
    Figure { key: format!("g.{}", figure.key), ..figure.clone() }
}

fn seconds(value: f64) -> String {
    format!("{value} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(key: &'static str, lost: f64) -> Report {
        let mut report = Report::new(key, key);
        report.at_most(LOST, "requests lost", Unit::Count, lost, 5.0);
        report.shown(BETWEEN, "requests lost between gateways", Unit::Count, 7.0);
        for kind in FOLDED {
            report.at_most(&answers::above_key(kind), "above", Unit::Percent, 0.002, 0.01);
            report.none_of(&answers::series_key(kind), "series", vec![]);
            report.none_of(&answers::resets_key(kind), "resets", vec![]);
        }
        report
    }

    fn restarts() -> Restarts {
        let killed = [report("kill.new", 5.0), report("kill.same", 4.0)];
        Restarts { killed, ended: report("drain.end", 0.0), moved: report("drain.move", 0.0) }
    }

    fn table(restarts: &Restarts) -> Table {
        let mut table = Table::default();
        figures(restarts, &mut table).expect("all are there");
        table
    }

    #[test]
    fn all_figures_are_there_and_some_are_drawn() {
        let table = table(&restarts());
        assert!(table.broken().is_empty(), "{:?}", table.broken());
        let keys: Vec<&str> = table.figures().map(|figure| figure.key.as_str()).collect();
        assert_eq!(keys.len(), 4 * (2 + 3 * FOLDED.len()) + 3);
        assert!(
            keys.contains(&"g.kill.same.lost") && keys.contains(&"g.drain.end.fold_cpu.resets"),
            "{keys:?}"
        );
        // Header and title, each with its lines, and eight figures.
        assert_eq!(table.drawn().row_count(), 9);
    }

    #[test]
    fn what_does_not_hold_is_seen_whether_it_is_drawn_or_not() {
        let mut lost = restarts();
        lost.killed[1] = report("kill.same", 6.0);
        assert_eq!(table(&lost).broken(), ["g.kill.same.lost: 6 is beyond 5"]);
        let mut others = restarts();
        others.moved.none_of("flaws", "flaws", vec!["why".to_owned()]);
        let table = table(&others);
        assert_eq!(table.broken().len(), 2, "the figure, and the line that counts: {:?}", table.broken());
        assert!(table.drawn().to_string().contains("NO") && table.notes()[0].contains("why"));
        let mut above = restarts();
        above.killed[0].figures.retain(|figure| !figure.key.ends_with("increase.all.above"));
        assert!(figures(&above, &mut Table::default()).is_err(), "nothing was asked");
    }
}
