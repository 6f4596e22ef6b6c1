//! The books of a replay for people.
//!
//! Enters: the ledger. Leaves: a line a metric, a line for all, and beneath them what a reader must know to believe the table: where the arrivals came from,
//! what could not be read, what is still open.

use super::arguments::Arguments;
use super::ledger::{Ledger, Line};
use crate::otlp::census::Total;
use crate::show::{bytes, change, count, counted, double, table, total};
use phoenix_filter::amount::Amount;
use std::fmt::Write;

const HEADER: [&str; 10] = [
    "metric",
    "streams",
    "series",
    "points in",
    "out",
    "bytes in",
    "out",
    "increments in",
    "increments out",
    "verdict",
];
/// The columns with text.
const LEFT: [usize; 2] = [0, 9];
/// Requests that could not be read are listed up to here; ledger.json has all.
const UNREAD_SHOWN: usize = 10;

/// The table and what stands beneath it.
pub fn render(ledger: &Ledger<'_>, arguments: &Arguments) -> String {
    let lines = &ledger.lines;
    let rows = lines.iter().map(row).collect();
    let mut text = table(&HEADER, &LEFT, rows, sums(lines));
    let (clock, engine) = (ledger.clock, ledger.engine);
    let read = clock.given + clock.guessed;
    let out = &engine.out;
    let mut say = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    say(format!(
        "{} of {} in, {} forwarded, {} of {} out.",
        counted(read, "request"),
        bytes(clock.bytes),
        bytes(out.forwarded_bytes),
        counted(out.emissions, "emission"),
        bytes(out.emitted_bytes),
    ));
    if clock.guessed > 0 {
        say(format!(
            "{} of {} had no .time file and arrived at the newest timestamp in {}.",
            count(clock.guessed),
            counted(read, "request"),
            if clock.guessed == 1 { "it" } else { "them" },
        ));
    }
    if clock.held > 0 {
        say(format!(
            "{} would have arrived before the one in front: held back to its time.",
            counted(clock.held, "request")
        ));
    }
    for unread in engine.unread.iter().take(UNREAD_SHOWN) {
        say(format!("{}: passed as it came: {}", unread.request, unread.reason));
    }
    if engine.unread.len() > UNREAD_SHOWN {
        say(format!("… and {} more that passed as they came", engine.unread.len() - UNREAD_SHOWN));
    }
    let sum = engine.local().page();
    if sum.baselines > 0 {
        let note = "their first points are where counting begins, as after a start of Envoy (--began-before)";
        let older = if sum.baselines == 1 { "stream is" } else { "streams are" };
        say(format!("{} {older} older than the replay: {note}.", count(sum.baselines)));
    }
    if !engine.is_drained() {
        say("Windows are still open: under `clock: event` they close by points, and there were none behind the last."
            .to_owned());
    }
    say(format!("Books: {}", arguments.out.join(super::LEDGER).display()));
    text
}

fn row(line: &Line) -> Vec<String> {
    let (before, after) = match &line.page {
        Some(page) if page.records > 0 => (amount(&page.increments_in), amount(&page.increments_out)),
        _ => ("-".to_owned(), "-".to_owned()),
    };
    vec![
        line.name.clone(),
        count(line.streams.0),
        count(line.streams.1),
        count(line.points.0),
        count(line.points.1),
        bytes(line.bytes.0),
        bytes(line.bytes.1),
        before,
        after,
        line.verdict.word().to_owned(),
    ]
}

fn amount(amount: &Amount) -> String {
    if amount.is_double() {
        return double(amount.to_f64());
    }
    let mut ints = Total::default();
    ints.add_int(amount.int());
    total(&ints)
}

/// All metrics, and how much less went out than came in.
fn sums(lines: &[Line]) -> Vec<Vec<String>> {
    let add = |value: fn(&Line) -> (u64, u64)| {
        lines.iter().map(value).fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
    };
    let (streams, points, size) = (add(|l| l.streams), add(|l| l.points), add(|l| l.bytes));
    let none = String::new;
    let all = vec![
        "all".to_owned(),
        count(streams.0),
        count(streams.1),
        count(points.0),
        count(points.1),
        bytes(size.0),
        bytes(size.1),
    ];
    let changes = vec![
        none(),
        none(),
        change(streams.0, streams.1),
        none(),
        change(points.0, points.1),
        none(),
        change(size.0, size.1),
    ];
    vec![all, changes]
}
