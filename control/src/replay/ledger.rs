//! Everything that is known at the end of a replay, as JSON.
//!
//! Enters: the engine's books, and the counts of what came in and went out. Leaves: `ledger.json`, with the counters of every page, and the verdict. Two
//! things make a metric conserved: the engine's books balance, and the sums in the emissions as they lie on the disk add up to what the books say
//! was sent. Integers must agree exactly, doubles to 10⁻¹² of what came in, the fold's contract.

use super::arguments::Arguments;
use super::engine::{Engine, Unread};
use super::input::Clock;
use crate::otlp::census::{Census, Total};
use anyhow::Result;
use phoenix_filter::amount::Amount;
use phoenix_filter::ledger::{Page, Tally};
use phoenix_plan::Plan;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Doubles agree to this share of what came in.
const DOUBLES_AGREE: f64 = 1e-12;

/// What became of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its folded increments are all accounted for.
    Conserved,
    /// They are, and some still wait in open windows.
    Open,
    /// No point of it folded.
    Untouched,
    /// They are not.
    Lost,
}

impl Verdict {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Conserved => "conserved",
            Verdict::Open => "open",
            Verdict::Untouched => "untouched",
            Verdict::Lost => "LOST",
        }
    }
}

/// One metric.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Distinct streams that came in, and series that went out.
    pub streams: (u64, u64),
    /// Points in and out.
    pub points: (u64, u64),
    /// Bytes in and out.
    pub bytes: (u64, u64),
    /// The engine's page; none if it never met a rule that folds.
    pub page: Option<Page>,
    /// What the emissions on the disk add up to.
    pub written: Total,
    /// What became of it.
    pub verdict: Verdict,
}

/// The books of a replay.
pub struct Ledger<'a> {
    /// Metrics by name.
    pub lines: Vec<Line>,
    /// The engine at its end.
    pub engine: &'a Engine,
    /// Where the arrivals came from.
    pub clock: &'a Clock,
    plan: &'a Plan,
    arguments: &'a Arguments,
    /// All owners: in, out, waiting, open, abandoned.
    balance: [Amount; 5],
}

impl<'a> Ledger<'a> {
    /// Closes the books.
    pub fn of(
        plan: &'a Plan,
        arguments: &'a Arguments,
        clock: &'a Clock,
        came: &Census,
        engine: &'a Engine,
    ) -> Self {
        let mut pages: BTreeMap<String, Page> = BTreeMap::new();
        let mut balance = [Amount::default(); 5];
        for owner in engine.local().owners() {
            for (name, page) in owner.ledger().pages() {
                pages.entry(String::from_utf8_lossy(name).into_owned()).or_default().add(page);
            }
            let (entered, left, waiting, open) = owner.balance();
            let abandoned = owner.ledger().sum().increments_abandoned;
            for (sum, part) in balance.iter_mut().zip([entered, left, waiting, open, abandoned]) {
                sum.merge(&part);
            }
        }
        let went = &engine.out.census;
        let names: BTreeSet<&String> =
            came.metrics.keys().chain(went.metrics.keys()).chain(pages.keys()).collect();
        let is_drained = engine.is_drained();
        let line = |name: &String| {
            let (came, went) = (came.metrics.get(name), went.metrics.get(name));
            let page = pages.get(name).cloned();
            let written = engine.folded.metrics.get(name).map(|counts| counts.total()).unwrap_or_default();
            let pair = |value: fn(&crate::otlp::census::Counts) -> u64| {
                (came.map(value).unwrap_or(0), went.map(value).unwrap_or(0))
            };
            Line {
                name: name.clone(),
                kind: came.or(went).map_or("", |counts| counts.kind),
                streams: pair(|counts| counts.streams()),
                points: pair(|counts| counts.points),
                bytes: pair(|counts| counts.bytes),
                verdict: verdict(page.as_ref(), &written, came.map_or("", |c| c.kind), is_drained),
                page,
                written,
            }
        };
        let lines = names.into_iter().map(line).collect();
        Ledger { lines, engine, clock, plan, arguments, balance }
    }

    /// Is every increment accounted for, in the books of the owners and for each metric?
    pub fn is_conserved(&self) -> bool {
        let [entered, parts @ ..] = &self.balance;
        let mut sum = Amount::default();
        parts.iter().for_each(|part| sum.merge(part));
        agree(entered, &sum) && self.lines.iter().all(|line| line.verdict != Verdict::Lost)
    }

    /// The file.
    pub fn json(&self) -> Result<String> {
        let engine = self.engine;
        let local = engine.local();
        let [entered, left, waiting, open, abandoned] = &self.balance;
        let owners = local.owners();
        let of_owners = |value: fn(&phoenix_filter::ledger::Ledger) -> u64| -> u64 {
            owners.iter().map(|owner| value(owner.ledger())).sum()
        };
        let document = json!({
            "conserved": self.is_conserved(),
            "drained": engine.is_drained(),
            "plan": { "version": self.plan.version, "rules": self.plan.rules.len() },
            "tenant": engine.tenant(),
            "writer": self.plan.writer.as_deref().unwrap_or(&self.arguments.writer),
            "began_ns": engine.began.0.to_string(),
            "ended_ns": engine.now.0.to_string(),
            "requests": {
                "read": self.clock.given + self.clock.guessed,
                "with_time": self.clock.given,
                "without_time": self.clock.guessed,
                "held_back": self.clock.held,
                "gzip": self.clock.gzip,
                "bytes": self.clock.bytes,
                "forwarded_bytes": engine.out.forwarded_bytes,
            },
            "errors": engine.unread.iter().map(unread).collect::<Vec<_>>(),
            "emissions": { "count": engine.out.emissions, "bytes": engine.out.emitted_bytes },
            "streams": owners.iter().map(|owner| owner.streams()).sum::<usize>(),
            "series": owners.iter().map(|owner| owner.series()).sum::<usize>(),
            "tally": tally(local.tally()),
            "balance": {
                "increments_in": amount(entered),
                "increments_out": amount(left),
                "waiting": amount(waiting),
                "open": amount(open),
                "abandoned": amount(abandoned),
            },
            "ledger": {
                "foreign_key": of_owners(|ledger| ledger.foreign_key),
                "unreadable": of_owners(|ledger| ledger.unreadable),
                "emissions_refused": of_owners(|ledger| ledger.emissions_refused),
            },
            "metrics": self.lines.iter().map(line).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }
}

fn verdict(page: Option<&Page>, written: &Total, kind: &str, is_drained: bool) -> Verdict {
    let Some(page) = page.filter(|page| page.records > 0) else { return Verdict::Untouched };
    let mut accounted = page.increments_out;
    accounted.merge(&page.increments_abandoned);
    // What a sum's emissions say can be read back; of other types the books must do.
    if kind.ends_with("sum") && !says(&page.increments_out, written, &page.increments_in) {
        return Verdict::Lost;
    }
    match (agree(&page.increments_in, &accounted), is_drained) {
        (true, _) => Verdict::Conserved,
        (false, false) => Verdict::Open,
        (false, true) => Verdict::Lost,
    }
}

/// Two amounts, the second of which should be the first.
fn agree(one: &Amount, other: &Amount) -> bool {
    one.int() == other.int() && near(one.to_f64(), other.to_f64(), one.to_f64())
}

/// Do the bytes say what the books say? The kinds of numbers may differ: a series with one double in it is written in doubles.
fn says(books: &Amount, written: &Total, scale: &Amount) -> bool {
    let exactly = !books.is_double() && !written.is_double();
    if exactly { books.int() == written.ints } else { near(books.to_f64(), written.value(), scale.to_f64()) }
}

fn near(one: f64, other: f64, scale: f64) -> bool {
    (one - other).abs() <= DOUBLES_AGREE * one.abs().max(other.abs()).max(scale.abs())
}

/// An amount: its integers as text, since a JSON number may lose their last digits, and the whole as a double.
fn amount(amount: &Amount) -> Value {
    json!({ "int": amount.int().to_string(), "value": amount.to_f64() })
}

fn unread(unread: &Unread) -> Value {
    json!({ "request": unread.request, "reason": unread.reason })
}

fn line(line: &Line) -> Value {
    json!({
        "metric": line.name,
        "type": line.kind,
        "verdict": line.verdict.word().to_lowercase(),
        "streams": line.streams.0,
        "series": line.streams.1,
        "points_in": line.points.0,
        "points_out": line.points.1,
        "bytes_in": line.bytes.0,
        "bytes_out": line.bytes.1,
        "page": line.page.as_ref().map(page),
        "written": { "int": line.written.ints.to_string(), "value": line.written.value() },
    })
}

/// `{"name": value, …}` of the fields of a struct, all of them: one that is added and not named here does not compile.
macro_rules! fields {
    ($type:ident, $value:expr, $($counter:ident),+ ; $($amount:ident),*) => {{
        let $type { $($counter,)+ $($amount,)* } = $value;
        let mut map = Map::new();
        $(map.insert(stringify!($counter).to_owned(), json!($counter));)+
        $(map.insert(stringify!($amount).to_owned(), amount($amount));)*
        Value::Object(map)
    }};
}

fn tally(tally: &Tally) -> Value {
    fields!(
        Tally, tally, points, passed, recorded, watched, unaffine, marked, no_value, ahead, unfit, unfoldable,
        unwritable, contained, undeclared, undecided;
    )
}

fn page(page: &Page) -> Value {
    fields!(
        Page, page, records, folded, late, resets, baselines, out_of_order, duplicates, overlaps, carried,
        refused, overflowed, unremembered, late_values, emitted, abandoned;
        increments_in, increments_out, increments_abandoned
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_filter::amount::Number;

    fn ints(value: i64) -> Amount {
        let mut amount = Amount::default();
        amount.add(Number::Int(value));
        amount
    }

    fn page(entered: i64, left: i64) -> Page {
        Page { records: 1, increments_in: ints(entered), increments_out: ints(left), ..Page::default() }
    }

    fn written(value: i128) -> Total {
        let mut total = Total::default();
        total.add_int(value);
        total
    }

    #[test]
    fn a_unit_that_is_missing_anywhere_is_lost() {
        let of = |page: &Page, total: i128, kind: &str, is_drained: bool| {
            verdict(Some(page), &written(total), kind, is_drained)
        };
        assert_eq!(verdict(None, &written(0), "sum", true), Verdict::Untouched);
        assert_eq!(of(&Page::default(), 0, "sum", true), Verdict::Untouched);
        assert_eq!(of(&page(7, 7), 7, "sum", true), Verdict::Conserved);
        assert_eq!(of(&page(7, 6), 6, "sum", true), Verdict::Lost, "the books do not balance");
        assert_eq!(of(&page(7, 6), 6, "sum", false), Verdict::Open, "it may still be in a window");
        assert_eq!(
            of(&page(7, 7), 6, "delta sum", true),
            Verdict::Lost,
            "the bytes hold less than the books say"
        );
        assert_eq!(of(&page(7, 7), 8, "sum", false), Verdict::Lost, "or more");
        assert_eq!(
            of(&page(7, 7), 0, "histogram", true),
            Verdict::Conserved,
            "what is not read back is not judged"
        );
        let abandoned = Page { increments_abandoned: ints(1), ..page(7, 6) };
        assert_eq!(of(&abandoned, 6, "sum", true), Verdict::Conserved, "accounted for, and said");
        let big = 9_007_199_254_740_993;
        assert_eq!(of(&page(big, big), i128::from(big), "sum", true), Verdict::Conserved);
        assert_eq!(
            of(&page(big, big), i128::from(big) - 1, "sum", true),
            Verdict::Lost,
            "beyond 2^53, exactly"
        );
    }

    #[test]
    fn doubles_agree_to_the_contract() {
        let doubles = |value: f64| {
            let mut amount = Amount::default();
            amount.add(Number::Double(value));
            amount
        };
        assert!(agree(&doubles(1e6), &doubles(1e6 + 1e-7)));
        assert!(!agree(&doubles(1e6), &doubles(1e6 + 1e-5)));
    }
}
