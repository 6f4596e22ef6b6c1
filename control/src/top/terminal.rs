//! The terminal: keys in, frames out.
//!
//! Enters: what the port heard. Leaves: a frame every second and after each key, until somebody quits. The terminal is as before
//! afterwards, also after a panic.

use super::screen::Screen;
use super::{Shared, draw, snapshot};
use crate::report::choice::Choice;
use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often the screen is drawn when no key is pressed.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows the screen until somebody quits.
pub fn run(heard: &Shared, address: SocketAddr, choice: Choice) -> Result<()> {
    let mut terminal = ratatui::try_init().context("no terminal")?;
    let mut screen = Screen::new(choice);
    let outcome = (|| {
        while !screen.is_over {
            let known = screen.paused.clone().unwrap_or_else(|| snapshot(heard));
            let now = crate::report::now_unix_nano();
            terminal.draw(|frame| draw::draw(frame, &screen, &known, address, now))?;
            let drawn = Instant::now();
            // All keys that wait, and then a frame.
            while event::poll(REFRESH.saturating_sub(drawn.elapsed()))? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        screen.press(key, &known);
                        break;
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
        Ok(())
    })();
    ratatui::restore();
    outcome
}
