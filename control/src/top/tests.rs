//! The screen on a terminal of so many columns and lines that only exists in memory: what is drawn, and what keys do to it.

use super::draw::draw;
use super::heard::{Heard, Snapshot};
use super::screen::Screen;
use crate::report::choice::Choice;
use prost::Message;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use reports::T0;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../../tests/tools/reports.rs"]
mod reports;

const NOW: u64 = T0 + 5_000_000_000;
const INTERVAL: Duration = Duration::from_secs(10);

/// What is known after all reports, and the moment.
fn heard() -> (Heard, Instant) {
    let (mut heard, at) = (Heard::new(INTERVAL), Instant::now());
    for report in reports::all() {
        heard.take(&report.encode_to_vec(), NOW, at).unwrap();
    }
    (heard, at)
}

fn known() -> Arc<Snapshot> {
    let (mut heard, at) = heard();
    heard.snapshot(at)
}

struct Shown {
    terminal: Terminal<TestBackend>,
    screen: Screen,
    known: Arc<Snapshot>,
}

impl Shown {
    fn new(width: u16, height: u16, known: Arc<Snapshot>) -> Shown {
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        Shown { terminal, screen: Screen::new(Choice::default()), known }
    }

    fn press(&mut self, keys: &[KeyCode]) {
        for key in keys {
            self.screen.press(KeyEvent::new(*key, KeyModifiers::NONE), &self.known);
        }
    }

    /// The lines of the screen.
    fn lines(&mut self) -> Vec<String> {
        let (screen, known) = (&self.screen, &self.known);
        let address = "127.0.0.1:4320".parse().unwrap();
        self.terminal.draw(|frame| draw(frame, screen, known, address, NOW)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let line = |row: u16| {
            (0..buffer.area.width).map(|column| buffer[(column, row)].symbol()).collect::<String>()
        };
        (0..buffer.area.height).map(|row| line(row).trim_end().to_owned()).collect()
    }

    /// The metrics of the table, from above.
    fn metrics(&mut self) -> Vec<String> {
        let lines = self.lines();
        let names = ["http.server.requests", "http.server.duration", "db.queries"];
        lines
            .iter()
            .filter_map(|line| names.iter().find(|name| line.starts_with(*name)))
            .map(|name| (*name).to_owned())
            .collect()
    }

    /// The metric of the line that stands out.
    fn chosen(&mut self) -> String {
        let lines = self.lines();
        let buffer = self.terminal.backend().buffer();
        let is_reversed = |row: &u16| buffer[(0, *row)].modifier.contains(Modifier::REVERSED);
        let row = (0..buffer.area.height).find(is_reversed).unwrap();
        lines[usize::from(row)].split(' ').next().unwrap().to_owned()
    }
}

#[test]
fn header_table_and_keys() {
    let mut shown = Shown::new(140, 10, known());
    let lines = shown.lines();
    assert!(
        lines[0].starts_with("phoenix top 127.0.0.1:4320: 2 processes, 3 workers, 2 tenants, ≤ "),
        "{lines:#?}"
    );
    assert!(lines[0].ends_with(" active series, plan 7, newest report 4 s ago"), "{lines:#?}");
    assert_eq!(lines[1], "by active");
    let heads: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(heads[..5], ["metric", "tenant", "type", "active↓", "growth"], "{lines:#?}");
    let cells: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(
        cells,
        ["http.server.requests", "team-a", "sum", "120", "50", "80", "100", "%", "77", "3", "1,800"]
    );
    assert!(lines[9].starts_with("q quit  s sort  r reverse  / filter"), "{lines:#?}");
    let buffer = shown.terminal.backend().buffer();
    assert_eq!(buffer[(0, 3)].fg, Color::Red, "something of it is folded");
    assert_eq!(buffer[(0, 4)].fg, Color::Reset);
}

#[test]
fn a_narrow_terminal_keeps_names_and_active_streams() {
    for (width, height) in [(60, 8), (40, 8), (20, 4), (3, 2), (1, 1)] {
        let mut shown = Shown::new(width, height, known());
        let lines = shown.lines();
        if width >= 40 {
            assert!(lines[..2].join(" ").ends_with("report 4 s ago") == (width == 60), "{lines:#?}");
            let cells: Vec<&str> = lines[4].split_whitespace().collect();
            assert!(cells[0] == "http.server.requests" && cells.contains(&"120"), "{lines:#?}");
        }
        shown.press(&[KeyCode::Enter]);
        shown.lines();
    }
}

#[test]
fn s_and_r_change_the_order() {
    let mut shown = Shown::new(130, 10, known());
    let by_active = ["http.server.requests", "http.server.duration", "db.queries"];
    assert_eq!(shown.metrics(), by_active);
    shown.press(&[KeyCode::Char('r')]);
    assert_eq!(shown.metrics(), ["db.queries", "http.server.duration", "http.server.requests"]);
    assert_eq!(shown.lines()[1], "by active, reversed");
    shown.press(&[KeyCode::Char('r')]);
    let titles: Vec<String> = (0..7)
        .map(|_| {
            shown.press(&[KeyCode::Char('s')]);
            shown.lines()[1].clone()
        })
        .collect();
    assert_eq!(
        titles,
        ["by growth", "by share", "by admitted", "by folded", "by points", "by metric", "by active"]
    );
    shown.press(&[KeyCode::Char('s'); 6]);
    assert_eq!(shown.metrics(), ["db.queries", "http.server.duration", "http.server.requests"]);
}

#[test]
fn slash_filters_while_it_is_typed_and_escape_ends_it() {
    let mut shown = Shown::new(130, 10, known());
    shown.press(&"/DUR".chars().map(KeyCode::Char).collect::<Vec<_>>());
    assert_eq!(shown.metrics(), ["http.server.duration"], "large or small letters");
    assert_eq!(shown.lines()[1], "by active, with /DUR▏");
    // Letters that are keys elsewhere are letters here.
    shown.press(&[KeyCode::Char('q'), KeyCode::Enter]);
    assert!(!shown.screen.is_over);
    assert_eq!(shown.lines()[2].trim(), "no such metric");
    shown.press(&[KeyCode::Char('/'), KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(shown.metrics(), ["http.server.duration"]);
    shown.press(&[KeyCode::Esc]);
    assert_eq!(shown.metrics().len(), 3);
}

#[test]
fn t_goes_through_the_tenants() {
    let mut shown = Shown::new(130, 10, known());
    shown.press(&[KeyCode::Char('t')]);
    assert_eq!(shown.lines()[1], "by active, tenant team-a");
    assert_eq!(shown.metrics(), ["http.server.requests", "http.server.duration"]);
    shown.press(&[KeyCode::Char('t')]);
    assert_eq!(shown.metrics(), ["db.queries"]);
    shown.press(&[KeyCode::Char('t')]);
    assert_eq!(shown.metrics().len(), 3);
}

#[test]
fn the_chosen_metric_stays_chosen_when_lines_change_places() {
    let mut shown = Shown::new(130, 10, known());
    assert_eq!(shown.chosen(), "http.server.requests");
    shown.press(&[KeyCode::Down]);
    assert_eq!(shown.chosen(), "http.server.duration");
    shown.press(&[KeyCode::End]);
    assert_eq!(shown.chosen(), "db.queries");
    shown.press(&[KeyCode::Char('r')]);
    assert_eq!(shown.metrics()[0], "db.queries");
    assert_eq!(shown.chosen(), "db.queries");
    shown.press(&[KeyCode::Up]);
    assert_eq!(shown.chosen(), "db.queries", "nothing is above the first");
    // Two lines of table: the chosen one is in sight.
    let mut small = Shown::new(130, 6, known());
    small.press(&[KeyCode::End]);
    assert_eq!(small.chosen(), "db.queries");
}

#[test]
fn enter_shows_a_metric_with_all_it_has() {
    let mut shown = Shown::new(150, 40, known());
    shown.press(&[KeyCode::Enter]);
    let lines = shown.lines();
    let text = lines.join("\n");
    for part in [
        "user.id",
        "k8s.pod.name",
        "resource",
        "protected",
        "4711",
        "contained",
        reports::SENTENCE,
        "gateway-a@1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("http.server.duration"), "{text}");
    assert!(lines[39].contains("back"), "{text}");
    shown.press(&[KeyCode::Enter]);
    assert_eq!(shown.metrics().len(), 3);
    // On a small screen it scrolls, and not past its end.
    let mut small = Shown::new(150, 10, known());
    small.press(&[KeyCode::Enter, KeyCode::End]);
    let text = small.lines().join("\n");
    assert!(text.contains(reports::SENTENCE) && !text.contains("distinct values"), "{text}");
}

#[test]
fn p_holds_what_is_shown() {
    let mut shown = Shown::new(130, 10, known());
    shown.press(&[KeyCode::Char('p')]);
    assert!(shown.lines()[1].ends_with("PAUSED"));
    assert_eq!(shown.screen.paused.as_deref(), Some(&*known()));
    shown.press(&[KeyCode::Char('p')]);
    assert!(shown.screen.paused.is_none() && !shown.lines()[1].contains("PAUSED"));
}

#[test]
fn q_and_control_c_end_it() {
    let known = known();
    for (code, modifiers, ends) in [
        (KeyCode::Char('q'), KeyModifiers::NONE, true),
        (KeyCode::Char('c'), KeyModifiers::CONTROL, true),
        (KeyCode::Char('c'), KeyModifiers::NONE, false),
    ] {
        let mut screen = Screen::new(Choice::default());
        screen.press(KeyEvent::new(code, modifiers), &known);
        assert_eq!(screen.is_over, ends, "{code:?} {modifiers:?}");
    }
}

#[test]
fn the_silent_are_stale_after_three_intervals_and_gone_after_ten() {
    let (mut heard, start) = heard();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    assert!(heard.snapshot(at(30)).stale.is_empty());
    // Worker 0 of gateway a speaks again: worker 1 alone is silent, so the process is not.
    let mut one = reports::all()[0].clone();
    one.sequence = 2;
    heard.take(&one.encode_to_vec(), NOW, at(25)).unwrap();
    // Who repeats itself says nothing.
    heard.take(&reports::all()[2].encode_to_vec(), NOW, at(29)).unwrap();
    let known = heard.snapshot(at(31));
    assert_eq!(known.stale.iter().collect::<Vec<_>>(), ["gateway-b@1"]);
    assert_eq!(known.view.processes.len(), 2, "what it said last still counts");
    let mut shown = Shown::new(130, 10, known);
    let lines = shown.lines();
    assert!(lines[0].contains("2 processes (1 stale)") && lines[2] == "stale: gateway-b@1", "{lines:#?}");
    let known = heard.snapshot(at(101));
    assert_eq!(
        known.view.processes.iter().map(|one| one.workers).collect::<Vec<_>>(),
        [1],
        "worker 0 is left"
    );
    assert_eq!(heard.snapshot(at(126)).view.processes.len(), 0);
}

#[test]
fn nothing_yet_and_what_was_refused() {
    let mut heard = Heard::new(INTERVAL);
    heard.take(b"\xff", NOW, Instant::now()).unwrap_err();
    let mut shown = Shown::new(110, 8, heard.snapshot(Instant::now()));
    let lines = shown.lines();
    assert!(lines[0].ends_with("0 active series, plan -, no report yet"), "{lines:#?}");
    assert!(lines[2].starts_with("1 refused, the last one: report: Truncated at byte 0"), "{lines:#?}");
    assert_eq!(lines[3].trim(), "no report yet");
    shown.press(&[KeyCode::Enter, KeyCode::Down, KeyCode::End, KeyCode::Char('t')]);
    shown.lines();
}
