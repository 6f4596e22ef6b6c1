//! The table of figures.
//!
//! In: figures as they are found. Out: a table for people, figures for programs, and whether all that are judged hold. A scene with more figures than a
//! person reads draws those that say most; all of them are for programs, and all are judged.

use crate::figure::Figure;
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table as Drawn, presets};

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
    Undrawn(Figure),
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

    /// One more figure, for programs alone.
    pub fn add_undrawn(&mut self, figure: Figure) {
        self.lines.push(Line::Undrawn(figure));
    }

    /// What a person should know who looks for the reason of a figure.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// All figures.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.lines.iter().filter_map(|line| match line {
            Line::Figure(figure) | Line::Undrawn(figure) => Some(figure),
            Line::Title(_) => None,
        })
    }

    /// The notes.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Those beyond their bounds, in words; empty when all hold.
    pub fn broken(&self) -> Vec<String> {
        let broken = self.figures().filter(|figure| figure.is_broken());
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
lost              counted by clients, in what some gateway took, and not at the backend. At most: what of it no accepted emission had carried at
                  the kill, and what was counted until the next gateway saw each stream
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
                Line::Undrawn(_) => {}
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
    use crate::figure::Unit;

    #[test]
    fn what_is_not_drawn_is_judged_all_the_same() {
        let mut table = Table::default();
        table.add(Figure::new("a", "a drawn one", Unit::Count, 1.0).at_most(1.0));
        table.add_undrawn(Figure::new("b", "one that is not drawn", Unit::Count, 2.0).at_most(1.0));
        assert_eq!(table.broken(), ["b: 2 is beyond 1"]);
        assert_eq!(table.figures().count(), 2);
        let drawn = table.drawn().to_string();
        assert!(drawn.contains("a drawn one") && !drawn.contains("not drawn"), "{drawn}");
    }
}
