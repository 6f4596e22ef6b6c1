//! Lists: a query a line. Empty lines and lines that start with `#` are skipped.
//!
//! Enters: text. Leaves: queries called by their line, counted from 1. Built-in variables and those given by `--var` are put in.

use super::{Kind, Loaded, Query};

/// Reads one list.
pub fn read(file: &str, text: &str, loaded: &mut Loaded) {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            loaded.queries.push(Query::new(file, format!("line {}", index + 1), Kind::Line, line));
        }
    }
}
