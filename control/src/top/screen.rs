//! Keys: what is shown, and in which order.
//!
//! Enters: keys and what is known. Leaves: the state from which the screen is drawn. The chosen metric is remembered by its name, not its line: lines change places every
//! second.

use super::heard::Snapshot;
use crate::report::choice::{Choice, Row};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::sync::Arc;

/// Lines that a page key goes.
const PAGE: usize = 10;
/// A filter longer than any metric's name finds nothing.
const FILTER_CHARS_MAX: usize = 256;

/// Tenant, name and type of a metric.
pub type Name = (String, String, String);

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// Which metrics, in which order.
    pub choice: Choice,
    /// The chosen metric; none: the first.
    pub chosen: Option<Name>,
    /// Its details are shown, from this line on.
    pub detail: Option<usize>,
    /// The filter is being typed.
    pub is_typing: bool,
    /// What was known when somebody asked for a pause.
    pub paused: Option<Arc<Snapshot>>,
    /// Over.
    pub is_over: bool,
}

impl Screen {
    /// A screen with these metrics.
    pub fn new(choice: Choice) -> Screen {
        Screen { choice: Choice { limit: usize::MAX, ..choice }, ..Screen::default() }
    }

    /// The lines of the table, and which one is chosen.
    pub fn rows<'v>(&self, known: &'v Snapshot) -> (Vec<Row<'v>>, usize) {
        let rows = self.choice.rows(&known.view);
        let chosen = self.chosen.as_ref().and_then(|chosen| rows.iter().position(|row| name(row) == *chosen));
        (rows, chosen.unwrap_or(0))
    }

    /// A key; `known` is what the screen shows.
    pub fn press(&mut self, key: KeyEvent, known: &Arc<Snapshot>) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            self.is_over |= key.code == KeyCode::Char('c');
            return;
        }
        if self.is_typing {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Char('s') => self.choice.sort = self.choice.sort.next(),
            KeyCode::Char('r') => self.choice.is_reversed = !self.choice.is_reversed,
            KeyCode::Char('/') => (self.is_typing, self.detail) = (true, None),
            KeyCode::Char('t') => self.next_tenant(known),
            KeyCode::Char('p') => {
                self.paused = if self.paused.is_some() { None } else { Some(known.clone()) };
            }
            KeyCode::Esc if self.detail.is_some() => self.detail = None,
            KeyCode::Esc => self.choice.contains.clear(),
            KeyCode::Enter | KeyCode::Right if self.detail.is_none() => self.open(known),
            KeyCode::Enter | KeyCode::Left | KeyCode::Backspace => self.detail = None,
            KeyCode::Up | KeyCode::Char('k') => self.go(known, |line| line.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(known, |line| line + 1),
            KeyCode::PageUp => self.go(known, |line| line.saturating_sub(PAGE)),
            KeyCode::PageDown => self.go(known, |line| line + PAGE),
            KeyCode::Home => self.go(known, |_| 0),
            KeyCode::End => self.go(known, |_| usize::MAX),
            _ => {}
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        let filter = &mut self.choice.contains;
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(c) if filter.chars().count() < FILTER_CHARS_MAX => filter.push(c),
            _ => {}
        }
    }

    /// All tenants, then one after the other.
    fn next_tenant(&mut self, known: &Snapshot) {
        let mut names: Vec<&String> = known.view.tenants.iter().map(|tenant| &tenant.name).collect();
        names.sort();
        let next = match &self.choice.tenant {
            None => names.first(),
            Some(tenant) => names.iter().find(|name| **name > tenant),
        };
        (self.choice.tenant, self.detail) = (next.map(|name| (*name).clone()), None);
    }

    fn open(&mut self, known: &Snapshot) {
        let (rows, chosen) = self.rows(known);
        if let Some(row) = rows.get(chosen) {
            (self.chosen, self.detail) = (Some(name(row)), Some(0));
        }
    }

    /// To another line: of the table, or of the details.
    fn go(&mut self, known: &Snapshot, to: impl Fn(usize) -> usize) {
        if let Some(line) = &mut self.detail {
            *line = to(*line).min(usize::from(u16::MAX));
            return;
        }
        let (rows, chosen) = self.rows(known);
        let last = rows.len().saturating_sub(1);
        if let Some(row) = rows.get(to(chosen).min(last)) {
            self.chosen = Some(name(row));
        }
    }
}

fn name(row: &Row<'_>) -> Name {
    (row.tenant.name.clone(), row.metric.name.clone(), row.metric.r#type.clone())
}
