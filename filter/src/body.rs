//! A request's body: one OTLP message over HTTP, or gRPC frames with one each. In: body and how it is framed. Out: the body to
//! forward, and the records to fold once the upstream has accepted it.
//!
//! All or nothing: when one frame cannot be read, the whole body passes as it came and nothing of it is folded.

use crate::flow::{Batch, FlowError, Scratch, flow};
use crate::frame::{Encoding, FrameError, FrameErrorKind, Frames, put_frame};
use crate::ledger::Tally;
use crate::route::Compiled;
use crate::wire::WireError;
use std::rc::Rc;

/// How the body holds OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body is the message.
    Plain,
    /// gRPC frames; compressed ones in this encoding.
    Grpc(Encoding),
}

/// A body after the scan.
#[derive(Default)]
pub struct Scanned {
    /// What to forward; `None`: the body as it came.
    pub body: Option<Vec<u8>>,
    /// Records per shard, in order: fold them when the upstream has accepted the body.
    pub messages: Vec<(usize, Vec<u8>)>,
    /// What was in it.
    pub tally: Tally,
}

/// Why a body passes as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A message is not OTLP.
    Decode(WireError),
    /// The frames are broken.
    Frame(FrameError),
    /// A message is compressed in a way that is broken.
    Gzip(FrameError),
    /// A message is compressed in a way that we do not read.
    Encoding(FrameError),
    /// The body, a message of it when inflated, or its records are over the plan's limits.
    TooLarge,
}

impl From<FlowError> for BodyError {
    fn from(e: FlowError) -> BodyError {
        match e {
            FlowError::Wire(e) => BodyError::Decode(e),
            FlowError::TooManyRecords => BodyError::TooLarge,
        }
    }
}

impl From<FrameError> for BodyError {
    fn from(e: FrameError) -> BodyError {
        match e.kind {
            FrameErrorKind::TooLarge => BodyError::TooLarge,
            FrameErrorKind::Gunzip(_) => BodyError::Gzip(e),
            FrameErrorKind::UnknownEncoding => BodyError::Encoding(e),
            _ => BodyError::Frame(e),
        }
    }
}

/// Scan a whole body.
pub fn scan(
    plan: &Rc<Compiled>,
    framing: Framing,
    batch: &Batch<'_>,
    scratch: &mut Scratch,
) -> Result<Scanned, BodyError> {
    let limit_bytes = usize::try_from(plan.plan.limits.body_bytes_max).unwrap_or(usize::MAX);
    if batch.body.len() > limit_bytes {
        return Err(BodyError::TooLarge);
    }
    match framing {
        Framing::Plain => {
            let mut scanned = Scanned::default();
            scanned.body = message(plan, batch, scratch, &mut scanned)?;
            Ok(scanned)
        }
        Framing::Grpc(encoding) => frames(plan, encoding, limit_bytes, batch, scratch),
    }
}

/// One message: its edited bytes if it was edited; tally and records are added to `scanned`.
fn message(
    plan: &Rc<Compiled>,
    batch: &Batch<'_>,
    scratch: &mut Scratch,
    scanned: &mut Scanned,
) -> Result<Option<Vec<u8>>, BodyError> {
    let tally = flow(plan, batch, scratch)?;
    if scratch.edits().is_empty() {
        // Points that pass may have records too, around a switch.
        scanned.tally.add(&tally);
        scanned.messages.extend(scratch.messages(plan.key, batch.arrived));
        return Ok(None);
    }
    let mut out = Vec::new();
    if scratch.edits().apply(batch.body, &mut out).is_err() {
        // Edits are made in order by construction. Were they not: the message passes, and nothing of it is folded.
        scanned.tally.add(&Tally { points: tally.points, passed: tally.points, ..Tally::default() });
        return Ok(None);
    }
    scanned.tally.add(&tally);
    scanned.messages.extend(scratch.messages(plan.key, batch.arrived));
    Ok(Some(out))
}

fn frames(
    plan: &Rc<Compiled>,
    encoding: Encoding,
    limit_bytes: usize,
    batch: &Batch<'_>,
    scratch: &mut Scratch,
) -> Result<Scanned, BodyError> {
    let mut scanned = Scanned::default();
    let (mut out, mut changed, mut inflated) = (Vec::new(), false, Vec::new());
    let mut left = limit_bytes;
    let mut frames = Frames::new(batch.body);
    while let Some(frame) = frames.next()? {
        let plain = frame.message(batch.body, encoding, left, &mut inflated)?;
        left = left.saturating_sub(plain.len());
        match message(plan, &Batch { body: plain, ..*batch }, scratch, &mut scanned)? {
            Some(edited) => {
                if !changed {
                    out.extend_from_slice(batch.body.get(..frame.span.start).unwrap_or_default());
                    changed = true;
                }
                put_frame(&mut out, &edited)?;
            }
            None if changed => frame.put_unchanged(batch.body, &mut out),
            None => {}
        }
    }
    scanned.body = changed.then_some(out);
    Ok(scanned)
}
