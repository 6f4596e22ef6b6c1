//! What a bench found: figures, their targets, the table and the file.
//!
//! In: named numbers. Out: `NAME.json`, a list of `{figure, value, unit, target, holds}`, and a table of those that have a target.
//! A figure without a target is measured and not yet bound: `target` and `holds` are null. Names read from the general to the
//! particular, parts joined by dots, so that a program can pick them by prefix. Refuses nothing; a value that is not finite
//! becomes null, since JSON has no such number, and never holds.

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is, for example `repeating.wasmtime.fold70`.
    pub figure: String,
    /// How much.
    pub value: f64,
    /// Of what: `ns/point`, `ratio`, `ms`, `bytes` …
    pub unit: &'static str,
    /// What it should be, for example `≤ 200`.
    pub target: Option<String>,
    /// Whether it is.
    pub holds: Option<bool>,
}

/// A bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Not above this.
    AtMost(f64),
    /// Not below this.
    AtLeast(f64),
}

/// All numbers of one bench.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// A figure that is not bound yet.
    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        self.0.push(Figure { figure: figure.into(), value, unit, target: None, holds: None });
    }

    /// A figure with a target.
    pub fn bound(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: Target) {
        let (text, holds) = match target {
            Target::AtMost(most) => (format!("≤ {most}"), value <= most),
            Target::AtLeast(least) => (format!("≥ {least}"), value >= least),
        };
        let figure = figure.into();
        self.0.push(Figure { figure, value, unit, target: Some(text), holds: Some(holds) });
    }

    /// The value of a figure.
    pub fn value(&self, figure: &str) -> Option<f64> {
        self.0.iter().find(|f| f.figure == figure).map(|f| f.value)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    /// The figures that have a target, as a table.
    pub fn table(&self) -> Table {
        let mut table = table(&["figure", "value", "unit", "target", "holds"]);
        for f in self.0.iter().filter(|f| f.target.is_some()) {
            let holds = if f.holds == Some(true) { "yes" } else { "no" };
            table.add_row([
                Cell::new(&f.figure),
                Cell::new(number(f.value)).set_alignment(CellAlignment::Right),
                Cell::new(f.unit),
                Cell::new(f.target.as_deref().unwrap_or_default()),
                Cell::new(holds),
            ]);
        }
        table
    }

    /// Writes `NAME.json` into `folder`; its path.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// An empty table in the one style of all benches.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// A row whose cells but the first are numbers.
pub fn row(name: &str, numbers: &[String]) -> Vec<Cell> {
    let numbers = numbers.iter().map(|n| Cell::new(n).set_alignment(CellAlignment::Right));
    std::iter::once(Cell::new(name)).chain(numbers).collect()
}

/// A number with as many digits as it deserves: three significant ones, and integers whole.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_bind_on_their_side() {
        let mut figures = Figures::default();
        figures.add("free", 1.0, "ns");
        for (name, value, target, holds) in [
            ("most at the bound", 2.0, Target::AtMost(2.0), true),
            ("most above", 2.1, Target::AtMost(2.0), false),
            ("least at the bound", 2.0, Target::AtLeast(2.0), true),
            ("least below", 1.9, Target::AtLeast(2.0), false),
            ("no number", f64::NAN, Target::AtMost(2.0), false),
        ] {
            figures.bound(name, value, "ns", target);
            assert_eq!(figures.iter().last().and_then(|f| f.holds), Some(holds), "{name}");
        }
        assert_eq!(figures.iter().next().map(|f| (f.holds, f.target.clone())), Some((None, None)));
    }

    #[test]
    fn numbers_read_well() {
        let cases = [(0.0, "0"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (99_999.6, "100000")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
