//! gzip and gRPC frames.
//!
//! Enters: a body as it came over the wire or off a disk. Leaves: the message in it, and the other way round for senders. Bounded: nothing
//! is inflated past a limit. Refused, in words for a person: truncated frames, unknown flags, what is not gzip, bombs. Source: gRPC over HTTP/2,
//! "Length-Prefixed-Message": one byte of flag, four bytes of big-endian length.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use std::io::Read;

/// Nothing is inflated past this: the largest body that the shipped gateway accepts.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// What gzip begins with. No protobuf message does: it would be field 3 with the wire type 7, which does not exist.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Flag and length in front of a gRPC message.
const FRAME_HEAD_BYTES: usize = 5;

/// Does it begin as gzip does?
pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&GZIP_MAGIC)
}

/// Inflates a gzip body.
pub fn gunzip(body: &[u8]) -> Result<Vec<u8>, String> {
    let out = gunzip_within(body, BODY_BYTES_MAX)?;
    out.ok_or_else(|| format!("inflates to more than {BODY_BYTES_MAX} bytes"))
}

/// Inflates a gzip body of at most so many bytes; none: it has more.
pub fn gunzip_within(body: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
    let mut out = Vec::new();
    let read = GzDecoder::new(body).take(bytes_max as u64 + 1).read_to_end(&mut out);
    read.map_err(|error| format!("gzip that cannot be inflated: {error}"))?;
    Ok((out.len() <= bytes_max).then_some(out))
}

/// Deflates a body, fast: a load generator shares its cores with what it loads.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // Reading from a slice into memory cannot fail.
    let _ = GzEncoder::new(body, Compression::fast()).read_to_end(&mut out);
    out
}

/// The one message of a unary gRPC body.
pub fn grpc_message(body: &[u8]) -> Result<Vec<u8>, String> {
    let head: [u8; FRAME_HEAD_BYTES] = body
        .get(..FRAME_HEAD_BYTES)
        .and_then(|head| head.try_into().ok())
        .ok_or_else(|| format!("a gRPC frame of {} bytes; it has at least {FRAME_HEAD_BYTES}", body.len()))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let rest = &body[FRAME_HEAD_BYTES..];
    if rest.len() != length {
        return Err(format!("a gRPC frame says {length} bytes and {} follow", rest.len()));
    }
    match head[0] {
        0 => Ok(rest.to_vec()),
        1 => gunzip(rest),
        flag => Err(format!("a gRPC frame with flag {flag}; allowed: 0, 1")),
    }
}

/// One gRPC frame around a message.
pub fn grpc_frame(message: &[u8], is_compressed: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + FRAME_HEAD_BYTES);
    out.put_u8(u8::from(is_compressed));
    // Bodies are far below 4 GiB: see BODY_BYTES_MAX.
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_there_and_back() {
        let message = b"a message".repeat(100);
        assert_eq!(grpc_message(&grpc_frame(&message, false)), Ok(message.clone()));
        let packed = gzip(&message);
        assert!(is_gzip(&packed) && packed.len() < message.len());
        assert_eq!(grpc_message(&grpc_frame(&packed, true)), Ok(message.clone()));
        assert_eq!(gunzip(&packed), Ok(message));
    }

    #[test]
    fn what_is_refused_says_why() {
        assert!(grpc_message(b"\0\0").unwrap_err().contains("frame of 2 bytes"));
        assert!(grpc_message(b"\0\0\0\0\x05abc").unwrap_err().contains("says 5 bytes and 3 follow"));
        assert!(grpc_message(b"\x02\0\0\0\0").unwrap_err().contains("flag 2"));
        assert!(gunzip(&gzip(b"cut short")[..12]).unwrap_err().contains("cannot be inflated"));
        let bomb = gzip(&vec![0; BODY_BYTES_MAX + 1]);
        assert!(gunzip(&bomb).unwrap_err().contains("more than"));
    }
}
