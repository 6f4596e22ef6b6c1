//! The books of a run: what was made, exactly, and what became of it.
//!
//! Enters: requests as they are made, answers as they come. Leaves: per metric points, distinct streams, bytes and the total of the increments as they were drawn. A request that was
//! not sent is not in the books of what was made; what a cumulative stream grew by in it comes with its next point, and a delta is lost with it.

use super::encode::Part;
use super::scenario::{Kind, Metric, Number, Scenario, Temporality};
use super::schedule::Made;
use crate::otlp::census::Total;
use std::collections::BTreeMap;

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Success, with the points that `partial_success` rejected and its message.
    Accepted(i64, String),
    /// Another answer: why.
    Refused(String),
    /// None: why.
    Unanswered(String),
}

/// Points by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fates {
    /// In requests that were accepted.
    pub accepted: u64,
    /// In requests that were refused.
    pub refused: u64,
    /// In requests without an answer.
    pub unanswered: u64,
}

/// The books of one metric.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Points made.
    pub points: u64,
    /// Distinct streams.
    pub streams: u64,
    /// Bytes of `Metric` messages.
    pub bytes: u64,
    /// What sums grew by.
    pub total: Total,
    /// Observations.
    pub observations: u64,
    /// Their sum.
    pub observed: Total,
    /// What became of the points.
    pub points_by: Fates,
}

/// The books of a run.
#[derive(Debug, Default)]
pub struct Truth {
    /// In the order of the scenario.
    pub metrics: Vec<Book>,
    /// Requests made and sent, or written.
    pub requests: u64,
    /// Bytes of their bodies, protobuf.
    pub bytes: u64,
    /// Bytes that went over the wire: compressed and framed.
    pub wire_bytes: u64,
    /// What became of the requests.
    pub requests_by: Fates,
    /// Points rejected by `partial_success`.
    pub rejected: i64,
    /// Requests answered with `partial_success`.
    pub partial: u64,
    /// Why requests were refused, not answered or partly rejected: how many of each.
    pub reasons: BTreeMap<String, u64>,
    /// Requests sent later than they were due.
    pub late: u64,
    /// The longest of these delays.
    pub late_max_ns: u64,
    /// Requests that were not sent, since too many were on their way.
    pub unsent: u64,
    /// Points in them.
    pub unsent_points: u64,
    /// How long answers took, microseconds.
    pub answers_us: Vec<u32>,
    /// Nanoseconds of the run that are done.
    pub done_ns: u64,
    /// Somebody ended it before its time.
    pub is_interrupted: bool,
}

/// Different reasons that are kept apart; the rest are counted together.
const REASONS_MAX: usize = 20;

impl Truth {
    /// Nothing yet.
    pub fn new(scenario: &Scenario) -> Truth {
        Truth { metrics: vec![Book::default(); scenario.metrics.len()], ..Truth::default() }
    }

    /// A request that was sent or written, with its size on the wire.
    pub fn made(&mut self, made: &Made, wire_bytes: u64) {
        self.requests += 1;
        self.bytes += made.body.len() as u64;
        self.wire_bytes += wire_bytes;
        self.done_ns = self.done_ns.max(made.at_ns);
        for part in &made.parts {
            let book = &mut self.metrics[part.metric];
            book.points += part.points;
            book.streams += part.streams;
            book.bytes += part.bytes;
            book.total.add(&part.total);
            book.observations += part.observations;
            book.observed.add(&part.observed);
        }
    }

    /// A request that was not sent.
    pub fn unsent(&mut self, made: &Made) {
        self.unsent += 1;
        self.unsent_points += made.points();
        self.done_ns = self.done_ns.max(made.at_ns);
    }

    /// The answer to a request.
    pub fn answered(&mut self, parts: &[Part], answer: &Answer) {
        let count: fn(&mut Fates) -> &mut u64 = match answer {
            Answer::Accepted(..) => |fates| &mut fates.accepted,
            Answer::Refused(_) => |fates| &mut fates.refused,
            Answer::Unanswered(_) => |fates| &mut fates.unanswered,
        };
        *count(&mut self.requests_by) += 1;
        for part in parts {
            *count(&mut self.metrics[part.metric].points_by) += part.points;
        }
        match answer {
            Answer::Accepted(0, message) if message.is_empty() => {}
            Answer::Accepted(rejected, message) => {
                self.partial += 1;
                self.rejected += rejected;
                self.reason(format!("partial_success: {message}"));
            }
            Answer::Refused(why) | Answer::Unanswered(why) => self.reason(why.clone()),
        }
    }

    fn reason(&mut self, why: String) {
        let why = if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&why) {
            why
        } else {
            "(other)".to_owned()
        };
        *self.reasons.entry(why).or_default() += 1;
    }

    /// Was everything sent, and accepted whole? `sends`: answers are expected.
    pub fn is_good(&self, sends: bool) -> bool {
        let all = !sends || self.requests_by.accepted == self.requests;
        all && self.unsent == 0 && self.rejected == 0
    }
}

/// The type of a metric in words.
pub fn kind(metric: &Metric) -> String {
    let is_delta = metric.temporality == Temporality::Delta;
    let name = match metric.kind {
        Kind::Sum => "sum",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::ExponentialHistogram => "exponential histogram",
        Kind::Summary => "summary",
    };
    let has_number = matches!(metric.kind, Kind::Sum | Kind::UpDownCounter | Kind::Gauge);
    let number = if has_number && metric.number == Number::Double { ", double" } else { "" };
    format!("{}{name}{number}", if is_delta { "delta " } else { "" })
}
