//! The table of figures.
//!
//! In: figures as they are found. Out: a table for people, figures for programs, and whether all that are judged hold. A value that is no number holds no
//! bound.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table as Drawn, presets};

/// One line.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: parts from the general to the particular, joined by dots.
    pub key: String,
    /// For people.
    pub what: String,
    /// What was found.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// The most that it may be; none: shown and not judged.
    pub bound: Option<f64>,
    /// What the fold at arrival gives.
    pub at_arrival: Option<f64>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share of one, read as per cent.
    Percent,
    /// A relative difference that should be rounding and nothing else.
    Relative,
    /// A number of things.
    Count,
}

/// The figures, as they come.
#[derive(Clone, Debug, Default)]
pub struct Table {
    lines: Vec<Line>,
    notes: Vec<String>,
}

#[derive(Clone, Debug)]
enum Line {
    Title(String),
    Figure(Figure),
}

impl Figure {
    /// One that is shown and not judged.
    pub fn new(key: impl Into<String>, what: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure { key: key.into(), what: what.into(), value, unit, bound: None, at_arrival: None }
    }

    /// Judged: at most so much.
    #[must_use]
    pub fn at_most(mut self, bound: f64) -> Figure {
        self.bound = Some(bound);
        self
    }

    /// Beside what the fold at arrival gives.
    #[must_use]
    pub fn beside(mut self, at_arrival: f64) -> Figure {
        self.at_arrival = Some(at_arrival);
        self
    }

    /// None if it is not judged.
    pub fn holds(&self) -> Option<bool> {
        self.bound.map(|bound| self.value <= bound)
    }
}

impl Unit {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Percent => "%",
            Unit::Relative => "relative",
            Unit::Count => "count",
        }
    }

    /// In this unit.
    pub fn scaled(self, value: f64) -> f64 {
        if self == Unit::Percent { value * 100.0 } else { value }
    }

    fn text(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{:.2} %", value * 100.0),
            Unit::Relative if value == 0.0 => "0".to_owned(),
            Unit::Relative => format!("{value:.0e}"),
            Unit::Count => format!("{value}"),
        }
    }
}

impl Table {
    /// What follows is about this.
    pub fn title(&mut self, title: impl Into<String>) {
        self.lines.push(Line::Title(title.into()));
    }

    /// One more figure.
    pub fn add(&mut self, figure: Figure) {
        self.lines.push(Line::Figure(figure));
    }

    /// What a person should know who looks for the reason of a figure.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// All figures.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.lines.iter().filter_map(|line| match line {
            Line::Figure(figure) => Some(figure),
            Line::Title(_) => None,
        })
    }

    /// The notes.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Those beyond their bounds, in words; empty when all hold.
    pub fn broken(&self) -> Vec<String> {
        let broken = self.figures().filter(|figure| figure.holds() == Some(false));
        broken
            .map(|figure| {
                let bound = figure.unit.text(figure.bound.unwrap_or_default());
                format!("{}: {} is beyond {bound}", figure.key, figure.unit.text(figure.value))
            })
            .collect()
    }

    /// What the words of the table mean.
    pub const LEGEND: &str = "\
on the grid       asked at multiples of 15 s, as dashboards ask; beside it: 2.5, 5, 7.5, 10 and 12.5 s later
switched          raw → folded, folded → folded, folded → raw, five minutes apart; raw and folded series alike
fold at arrival   each increment in the window in which it arrives, windows on the grid; a switch hands nothing over.
                  On the grid each of its windows of 15 s holds one export of every pod, so that its sum is that of raw
shown             not judged";

    /// For people.
    pub fn drawn(&self) -> Drawn {
        let mut table = Drawn::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.set_header([
            Cell::new("figure"),
            right("Phoenix".into()),
            right("at most".into()),
            Cell::new("holds"),
            right("fold at arrival".into()),
        ]);
        for line in &self.lines {
            match line {
                Line::Title(title) => {
                    table.add_row([Cell::new(title).add_attribute(Attribute::Bold)]);
                }
                Line::Figure(figure) => {
                    let text =
                        |value: Option<f64>| right(value.map_or_else(String::new, |v| figure.unit.text(v)));
                    let holds = match figure.holds() {
                        Some(true) => Cell::new("yes"),
                        Some(false) => Cell::new("NO").fg(Color::Red).add_attribute(Attribute::Bold),
                        None => Cell::new("shown"),
                    };
                    table.add_row([
                        Cell::new(format!("  {}", figure.what)),
                        text(Some(figure.value)),
                        text(figure.bound),
                        holds,
                        text(figure.at_arrival),
                    ]);
                }
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_holds_no_bound() {
        for (value, holds) in
            [(0.0, true), (0.5, true), (0.6, false), (f64::NAN, false), (f64::INFINITY, false)]
        {
            let figure = Figure::new("a", "a", Unit::Count, value).at_most(0.5);
            assert_eq!(figure.holds(), Some(holds), "{value}");
            let mut table = Table::default();
            table.add(figure);
            assert_eq!(table.broken().is_empty(), holds);
        }
        assert_eq!(Figure::new("a", "a", Unit::Count, f64::NAN).holds(), None);
    }

    #[test]
    fn values_read_as_their_unit() {
        let cases = [
            (Unit::Percent, 0.0249, "2.49 %"),
            (Unit::Relative, 0.0, "0"),
            (Unit::Relative, 2.2e-16, "2e-16"),
            (Unit::Count, 12.0, "12"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.text(value), text);
        }
    }
}
