//! The text of a case.
//!
//! ```text
//! # why the case is there
//! @110 batch tenant=acme -> 200
//!   requests{pod=a; route=/cart} cumulative 100..110 5
//! @120 push {"rules": []}
//! @121 emissions -> 503 400
//! @122 tick
//! ```
//!
//! A step begins with its arrival time in seconds. `batch` is one request: over HTTP, or `grpc`; `tenant=` and `sender=` are headers
//! (`x-scope-orgid`, `x-sender`); after `->` the upstream's answer, 200 (for gRPC status 0 in the trailers) when left out. Its points follow, indented, a line each
//! (`cases/points.rs`), or `raw` and bytes in hexadecimal. `push` puts a plan in force: overrides of the case's plan as JSON. `emissions` says how the upstream
//! answers the next attempts to send an emission; after those it answers 200. `tick` lets a tick pass with nothing else.
//! Answers: an HTTP status; `grpc N`, trailers-only; `grpc-trailers N`; `partial N`, success with N rejected points; `gone`, the client leaves before the answer;
//! `broken`, the upstream breaks the connection. Refuses everything else, with file and line.

use super::points;
use anyhow::{Context as _, bail, ensure};

/// One step.
#[derive(Debug)]
pub struct Step {
    /// When, in nanoseconds of event time; embedders with a virtual clock follow it.
    pub at_ns: u64,
    /// Its first line as written, without the indent.
    pub text: String,
    /// What.
    pub action: Action,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    /// A request.
    Batch(Batch),
    /// Overrides of the plan, JSON.
    Push(String),
    /// Answers to the next attempts to send an emission.
    Emissions(Vec<Answer>),
    /// Ticks only.
    Tick,
}

/// A request.
#[derive(Debug, Default)]
pub struct Batch {
    /// The OTLP message.
    pub message: Vec<u8>,
    /// The tenant's header.
    pub tenant: Option<String>,
    /// The sender's header.
    pub sender: Option<String>,
    /// Over gRPC, in one frame.
    pub grpc: bool,
    /// What the upstream says.
    pub answer: Answer,
}

/// What an upstream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// HTTP with this status and an empty body.
    Http(u16),
    /// HTTP 200 with this gRPC status in the headers and nothing else.
    GrpcHeaders(u16),
    /// HTTP 200, an empty message, and this gRPC status in the trailers.
    GrpcTrailers(u16),
    /// Success with this many points rejected.
    Partial(i64),
    /// None: the client leaves before.
    Gone,
    /// None: the upstream breaks the connection.
    Broken,
}

impl Default for Answer {
    fn default() -> Self {
        Self::Http(200)
    }
}

impl Answer {
    fn read(text: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["grpc", status] => Self::GrpcHeaders(status.parse()?),
            ["grpc-trailers", status] => Self::GrpcTrailers(status.parse()?),
            ["partial", count] => Self::Partial(count.parse()?),
            ["gone"] => Self::Gone,
            ["broken"] => Self::Broken,
            [status] => Self::Http(status.parse().context("an answer is an HTTP status or a word")?),
            _ => bail!("unknown answer {text:?}"),
        })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(status) => write!(out, "{status}"),
            Self::GrpcHeaders(status) => write!(out, "grpc {status}"),
            Self::GrpcTrailers(status) => write!(out, "grpc-trailers {status}"),
            Self::Partial(count) => write!(out, "partial {count}"),
            Self::Gone => out.write_str("gone"),
            Self::Broken => out.write_str("broken"),
        }
    }
}

/// Reads a case.
///
/// # Errors
/// A line that the language does not know; the text says which.
pub fn read(text: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
    while let Some((number, line)) = lines.next() {
        if is_silent(line) {
            continue;
        }
        let mut inside = Vec::new();
        while let Some((number, line)) = lines.next_if(|(_, line)| line.starts_with(' ') || is_silent(line)) {
            if !is_silent(line) {
                inside.push((number, line.trim()));
            }
        }
        steps.push(step(line, &inside).with_context(|| format!("line {number}: {line}"))?);
    }
    Ok(steps)
}

fn is_silent(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

fn step(line: &str, inside: &[(usize, &str)]) -> anyhow::Result<Step> {
    let line = line.trim();
    let rest = line.strip_prefix('@').context("a step begins with @ and its time")?;
    let (at, rest) = rest.split_once(' ').context("a step is a time and a verb")?;
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let action = match verb {
        "batch" => Action::Batch(batch(rest, inside)?),
        "push" => Action::Push(rest.to_owned()),
        "emissions" => {
            let list = rest.trim().strip_prefix("->").context("emissions -> answers")?;
            Action::Emissions(list.split_whitespace().map(Answer::read).collect::<Result<_, _>>()?)
        }
        "tick" => Action::Tick,
        _ => bail!("unknown verb {verb:?}; there are batch, push, emissions, tick"),
    };
    ensure!(inside.is_empty() || verb == "batch", "only a batch has indented lines");
    Ok(Step { at_ns: points::read_time(at)?, text: line.to_owned(), action })
}

fn batch(options: &str, inside: &[(usize, &str)]) -> anyhow::Result<Batch> {
    let (options, answer) = options.split_once("->").unwrap_or((options, ""));
    let mut batch = Batch::default();
    for option in options.split_whitespace() {
        match option.split_once('=') {
            Some(("tenant", name)) => batch.tenant = Some(name.to_owned()),
            Some(("sender", name)) => batch.sender = Some(name.to_owned()),
            None if option == "grpc" => batch.grpc = true,
            _ => bail!("unknown option {option:?}; there are tenant=, sender=, grpc"),
        }
    }
    batch.answer = match answer.trim() {
        "" if batch.grpc => Answer::GrpcTrailers(0),
        "" => Answer::Http(200),
        text => Answer::read(text)?,
    };
    let mut list = Vec::new();
    for (number, line) in inside {
        if let Some(hex) = line.strip_prefix("raw ") {
            batch.message.extend(bytes(hex).with_context(|| format!("line {number}"))?);
        } else {
            list.push(points::read(line).with_context(|| format!("line {number}: {line}"))?);
        }
    }
    batch.message.extend(points::encode(&list));
    Ok(batch)
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    ensure!(digits.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    let pair = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::{Action, Answer, read};

    #[test]
    fn a_case_reads_as_written() {
        let steps = read(
            "# why\n@1.5 batch tenant=t grpc -> grpc 14\n  m{} delta -..1 2\n\n@2 emissions -> 503 400\n",
        )
        .unwrap();
        let Action::Batch(batch) = &steps[0].action else { panic!() };
        assert_eq!((steps[0].at_ns, batch.tenant.as_deref(), batch.grpc), (1_500_000_000, Some("t"), true));
        assert_eq!(batch.answer, Answer::GrpcHeaders(14));
        let Action::Emissions(answers) = &steps[1].action else { panic!() };
        assert_eq!(answers, &[Answer::Http(503), Answer::Http(400)]);
    }

    #[test]
    fn what_it_does_not_know_is_refused_with_its_line() {
        for (text, part) in [
            ("batch", "line 1: batch: a step begins with @"),
            ("\n@1 bath", "line 2: @1 bath: unknown verb"),
            ("@1 batch x=y", "unknown option"),
            ("@1 batch -> soon", "an answer is an HTTP status"),
            ("@1 tick\n  m{} delta 0..1 2", "only a batch"),
            ("@1 batch\n  m delta 0..1 2", "line 2: m delta 0..1 2"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
