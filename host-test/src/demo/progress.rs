//! The live line.
//!
//! In: what the shop, the sink and Envoy say now. Out: one line that repaints itself on a terminal; a plain line every ten seconds elsewhere, so
//! that a log stays readable.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A plain line this often where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The line.
#[derive(Debug)]
pub struct Line {
    bar: Option<ProgressBar>,
    phase: String,
    last_plain: Option<Instant>,
}

impl Line {
    /// A line for a phase of `seconds`.
    pub fn new(phase: &str, seconds: u64) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stdout());
            let style =
                ProgressStyle::with_template("  {prefix:>8.bold} {bar:20.cyan/dim} {pos:>3}/{len} s  {msg}");
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar.set_prefix(phase.to_owned());
            bar
        });
        Self { bar, phase: phase.to_owned(), last_plain: None }
    }

    /// Shows where we are.
    pub fn show(&mut self, seconds: u64, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(seconds);
            bar.set_message(text.to_owned());
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last_plain = Some(Instant::now());
            println!("  {:>8} {seconds:>3} s  {text}", self.phase);
        }
    }

    /// Ends the line.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish();
            println!();
        }
    }
}
