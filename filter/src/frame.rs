//! gRPC messages in a body, and gzip.
//!
//! In: the body of a gRPC request and its `grpc-encoding`. Out: its messages, inflated where they came compressed;
//! and a body again, in which messages that did not change keep their bytes, compressed form included, while
//! changed ones are written uncompressed, which every receiver must accept.
//!
//! A frame is a flag byte (0 plain, 1 compressed), a length of four bytes, big endian, and the message, as the
//! [gRPC protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) has it; a body holds any number.
//!
//! Refused: other flags, bodies that end inside a frame, compressed messages in an encoding other than gzip (the
//! caller passes the body on untouched), and gzip that is malformed or larger than the caller's limit.

mod gzip;

pub use gzip::{GunzipError, GunzipErrorKind, gunzip, gunzip_into};

use crate::wire::Span;

/// Bytes before each message: flag and length.
pub const FRAME_HEADER_BYTES: usize = 5;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// The body ends inside a frame header.
    Truncated,
    /// A frame reaches past the end of the body.
    LengthPastEnd,
    /// A flag byte other than 0 and 1.
    BadFlag,
    /// A compressed message, and an encoding that we do not read, or none.
    UnknownEncoding,
    /// A message that inflates to more than the limit.
    TooLarge,
    /// A compressed message that is not gzip.
    Gunzip(GunzipErrorKind),
    /// A message of 4 GiB or more, which a frame cannot hold.
    Unframable,
}

/// A refusal: what, and at which byte of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What is wrong.
    pub kind: FrameErrorKind,
    /// Offset of the frame, or of the byte in it that could not be read.
    pub at: usize,
}

/// How compressed messages of a body are compressed: the value of `grpc-encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `identity`, or no header: no message may be compressed.
    #[default]
    Identity,
    /// `gzip`.
    Gzip,
    /// Anything else. Plain messages can still be read.
    Unknown,
}

impl Encoding {
    /// Reads the value of the header; `None` if there is none. Case does not matter.
    pub fn of_header(value: Option<&[u8]>) -> Encoding {
        match value.map(<[u8]>::trim_ascii) {
            None | Some(b"") => Encoding::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"gzip") => Encoding::Gzip,
            Some(_) => Encoding::Unknown,
        }
    }
}

/// One message in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole frame, header included.
    pub span: Span,
    /// The message as it came, compressed or not.
    pub payload: Span,
    /// True if the message is compressed.
    pub compressed: bool,
}

impl Frame {
    /// The message: in place if it is plain, else inflated into `scratch`, which is cleared first.
    ///
    /// # Errors
    /// [`FrameErrorKind::UnknownEncoding`], [`FrameErrorKind::TooLarge`] (a compressed message above
    /// `limit_bytes`, for which no more than that is ever allocated) or [`FrameErrorKind::Gunzip`]. A plain message
    /// is in memory already and has no limit here.
    pub fn message<'a>(
        &self,
        body: &'a [u8],
        encoding: Encoding,
        limit_bytes: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FrameError> {
        let payload = self.payload.bytes(body);
        if !self.compressed {
            return Ok(payload);
        }
        if encoding != Encoding::Gzip {
            return Err(FrameError { kind: FrameErrorKind::UnknownEncoding, at: self.span.start });
        }
        scratch.clear();
        match gunzip_into(payload, limit_bytes, scratch) {
            Ok(()) => Ok(scratch),
            Err(GunzipError { kind, at }) => Err(FrameError {
                kind: match kind {
                    GunzipErrorKind::TooLarge => FrameErrorKind::TooLarge,
                    kind => FrameErrorKind::Gunzip(kind),
                },
                at: self.payload.start.saturating_add(at),
            }),
        }
    }

    /// Appends the frame as it came, byte for byte.
    pub fn put_unchanged(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.span.bytes(body));
    }
}

/// The frames of a body, in order.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// Reads `body`. An empty body has no frames.
    pub fn new(body: &'a [u8]) -> Frames<'a> {
        Frames { body, at: 0 }
    }

    /// The next frame, or `None` at the end of the body.
    ///
    /// # Errors
    /// [`FrameErrorKind::Truncated`], [`FrameErrorKind::LengthPastEnd`] or [`FrameErrorKind::BadFlag`], at the
    /// frame; asked again, the same one.
    #[expect(
        clippy::should_implement_trait,
        reason = "`while let Some(frame) = frames.next()?` needs this order"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let start = self.at;
        let rest = self.body.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let fail = |kind| Err(FrameError { kind, at: start });
        let Some([flag, len @ ..]) = rest.first_chunk::<FRAME_HEADER_BYTES>() else {
            return fail(FrameErrorKind::Truncated);
        };
        if *flag > 1 {
            return fail(FrameErrorKind::BadFlag);
        }
        let payload_start = start.saturating_add(FRAME_HEADER_BYTES);
        let len = usize::try_from(u32::from_be_bytes(*len)).ok();
        match len.and_then(|len| payload_start.checked_add(len)) {
            Some(end) if end <= self.body.len() => {
                self.at = end;
                let payload = Span { start: payload_start, end };
                Ok(Some(Frame { span: Span { start, end }, payload, compressed: *flag == 1 }))
            }
            _ => fail(FrameErrorKind::LengthPastEnd),
        }
    }
}

/// Appends the header of a plain frame around `len` bytes, which the caller appends.
///
/// # Errors
/// [`FrameErrorKind::Unframable`]; nothing is written then.
pub fn put_frame_header(out: &mut Vec<u8>, len: usize) -> Result<(), FrameError> {
    let len =
        u32::try_from(len).map_err(|_| FrameError { kind: FrameErrorKind::Unframable, at: out.len() })?;
    out.push(0);
    out.extend_from_slice(&len.to_be_bytes());
    Ok(())
}

/// Appends `message` as a plain frame.
///
/// # Errors
/// [`FrameErrorKind::Unframable`]; nothing is written then.
pub fn put_frame(out: &mut Vec<u8>, message: &[u8]) -> Result<(), FrameError> {
    put_frame_header(out, message.len())?;
    out.extend_from_slice(message);
    Ok(())
}
