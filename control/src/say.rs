//! Lines to standard output, for whoever reads as much of them as they want.
//!
//! In: what `println!` takes. Out: the line. Where nobody reads any more (`phoenix status | head`), the process ends as one that the signal had ended: quietly, and
//! not with success.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _, stdout};

/// 128 and the number of SIGPIPE, as shells have it.
const BROKEN_PIPE: i32 = 141;

/// Writes a text.
pub fn text(text: Arguments<'_>) {
    match stdout().lock().write_fmt(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => {
            eprintln!("phoenix: standard output: {error}");
            std::process::exit(1);
        }
        Ok(()) => {}
    }
}

/// As `println!`.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::text(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `print!`.
macro_rules! say_on {
    ($($text:tt)*) => { $crate::say::text(format_args!($($text)*)) };
}
