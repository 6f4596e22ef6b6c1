//! Framing: gzip and gRPC.
//!
//! In: a body as it came over the wire. Out: the protobuf messages in it, and the other way round for clients. Bounded:
//! nothing is inflated past [`INFLATED_MAX_BYTES`]. Refuses truncated frames, unknown flags and bombs. Source: gRPC over
//! HTTP/2, "Length-Prefixed-Message": one flag byte, four bytes of big-endian length.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use std::io::Read;

/// No more than this is inflated: four times the largest body that the shipped gateway accepts.
pub const INFLATED_MAX_BYTES: u64 = 256 << 20;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The frame at this offset ends after the body.
    Truncated(usize),
    /// The frame at this offset has a flag other than 0 and 1.
    Flag(usize),
    /// Not gzip.
    Gzip,
    /// More than [`INFLATED_MAX_BYTES`].
    TooLarge,
}

/// Inflates a gzip body.
///
/// # Errors
/// Not gzip, or too large.
pub fn gunzip(body: &[u8]) -> Result<Bytes, FrameError> {
    let mut out = Vec::new();
    GzDecoder::new(body).take(INFLATED_MAX_BYTES + 1).read_to_end(&mut out).map_err(|_| FrameError::Gzip)?;
    if out.len() as u64 > INFLATED_MAX_BYTES {
        return Err(FrameError::TooLarge);
    }
    Ok(out.into())
}

/// Compresses a body, fast: the load generator shares its cores with what it loads.
pub fn gzip(body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    // Reading from a slice into memory cannot fail.
    let _ = GzEncoder::new(body, Compression::fast()).read_to_end(&mut out);
    out.into()
}

/// The messages of a gRPC body.
///
/// # Errors
/// Truncated, unknown flag, or a compressed message that is not gzip.
pub fn grpc_messages(body: &Bytes) -> Result<Vec<Bytes>, FrameError> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let head: [u8; 5] =
            body.get(at..at + 5).and_then(|head| head.try_into().ok()).ok_or(FrameError::Truncated(at))?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if at + 5 + length > body.len() {
            return Err(FrameError::Truncated(at));
        }
        let message = body.slice(at + 5..at + 5 + length);
        out.push(match head[0] {
            0 => message,
            1 => gunzip(&message)?,
            _ => return Err(FrameError::Flag(at)),
        });
        at += 5 + length;
    }
    Ok(out)
}

/// One gRPC frame around a message.
pub fn grpc_frame(message: &[u8], is_compressed: bool) -> Bytes {
    let packed = if is_compressed { gzip(message) } else { Bytes::copy_from_slice(message) };
    let mut out = BytesMut::with_capacity(packed.len() + 5);
    out.put_u8(u8::from(is_compressed));
    out.put_u32(u32::try_from(packed.len()).unwrap_or(u32::MAX));
    out.put(packed);
    out.freeze()
}
