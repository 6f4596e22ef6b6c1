//! gzip, inflated under a hard limit.
//!
//! In: one or more members as [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952) has them. Out: the data, whose
//! CRC-32 and length were checked, or a refusal with a byte offset. DEFLATE itself is `miniz_oxide`'s, whose own
//! gzip is in no release; the wrapping around it is small.
//!
//! Refused: anything that is not a member, trailing bytes included; reserved flags; more output than the limit,
//! past which nothing is allocated, so that a bomb costs no more than the largest honest body.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GunzipErrorKind {
    /// The data end inside a member, or there is none.
    Truncated,
    /// Not a member: wrong magic, a method other than DEFLATE, reserved flags, or a wrong header checksum.
    BadHeader,
    /// Not DEFLATE.
    BadData,
    /// The CRC-32 of the trailer is not that of the data.
    BadChecksum,
    /// The length of the trailer is not that of the data.
    BadLength,
    /// More output than the limit.
    TooLarge,
}

/// A refusal: what, and at which byte of the compressed input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GunzipError {
    /// What is wrong.
    pub kind: GunzipErrorKind,
    /// Offset of the part that could not be read: header, data or trailer.
    pub at: usize,
}

/// First guess of the ratio of output to input: OTLP metrics shrink 5 to 20 fold, and a wrong guess costs a copy.
const GUESSED_RATIO: usize = 8;

/// The least output to allocate, so that tiny input does not grow by doubling from nothing.
const FIRST_OUTPUT_BYTES: usize = 4096;

/// Bytes of a header without optional parts.
const HEADER_BYTES: usize = 10;

/// Bytes of a trailer: CRC-32 and length modulo 2³², little endian.
const TRAILER_BYTES: usize = 8;

/// The data of all members of `input`, at most `limit_bytes`.
///
/// # Errors
/// See [`GunzipErrorKind`].
pub fn gunzip(input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, GunzipError> {
    let mut out = Vec::new();
    gunzip_into(input, limit_bytes, &mut out)?;
    Ok(out)
}

/// As [`gunzip`], appended to `out`; the limit is that of what is appended. After an error `out` is as before.
///
/// # Errors
/// See [`GunzipErrorKind`].
pub fn gunzip_into(input: &[u8], limit_bytes: usize, out: &mut Vec<u8>) -> Result<(), GunzipError> {
    let before = out.len();
    let end_max = before.saturating_add(limit_bytes);
    let mut at = 0;
    loop {
        match member(input, at, end_max, out) {
            Ok(end) if end >= input.len() => return Ok(()),
            Ok(end) => at = end,
            Err(e) => {
                out.truncate(before);
                return Err(e);
            }
        }
    }
}

/// Inflates the member at `at` and returns the offset past it.
fn member(input: &[u8], at: usize, end_max: usize, out: &mut Vec<u8>) -> Result<usize, GunzipError> {
    let fail = |kind, at| Err(GunzipError { kind, at });
    let data_at = match header_len(input.get(at..).unwrap_or_default()) {
        Ok(len) => at.saturating_add(len),
        Err(kind) => return fail(kind, at),
    };
    let start = out.len();
    let trailer_at = match inflate(input.get(data_at..).unwrap_or_default(), end_max, out) {
        Ok(len) => data_at.saturating_add(len),
        Err(kind) => return fail(kind, data_at),
    };
    let data = out.get(start..).unwrap_or_default();
    let Some([c0, c1, c2, c3, l0, l1, l2, l3]) =
        input.get(trailer_at..).and_then(|rest| rest.first_chunk::<TRAILER_BYTES>()).copied()
    else {
        return fail(GunzipErrorKind::Truncated, trailer_at);
    };
    if u32::from_le_bytes([c0, c1, c2, c3]) != crc32(data) {
        return fail(GunzipErrorKind::BadChecksum, trailer_at);
    }
    // The trailer has the length modulo 2³².
    if u32::from_le_bytes([l0, l1, l2, l3]) != data.len() as u32 {
        return fail(GunzipErrorKind::BadLength, trailer_at);
    }
    Ok(trailer_at.saturating_add(TRAILER_BYTES))
}

/// Length of the header of a member, optional parts included.
fn header_len(input: &[u8]) -> Result<usize, GunzipErrorKind> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    use GunzipErrorKind::{BadHeader, Truncated};

    let expected = [0x1f, 0x8b, 8];
    if input.iter().zip(expected).any(|(&is, expected)| is != expected) {
        return Err(BadHeader);
    }
    let [_, _, _, flags, ..] = *input.first_chunk::<HEADER_BYTES>().ok_or(Truncated)?;
    if flags & RESERVED != 0 {
        return Err(BadHeader);
    }
    let mut len = HEADER_BYTES;
    let u16_at =
        |at: usize| input.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied().map(u16::from_le_bytes);
    if flags & EXTRA != 0 {
        let extra = u16_at(len).ok_or(Truncated)?;
        len = len.saturating_add(2).saturating_add(usize::from(extra));
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let text = input.get(len..).unwrap_or_default();
            let text_len = text.iter().position(|&byte| byte == 0).ok_or(Truncated)?;
            len = len.saturating_add(text_len).saturating_add(1);
        }
    }
    if flags & HEADER_CRC != 0 {
        let crc = u16_at(len).ok_or(Truncated)?;
        // The low half of the checksum, as the RFC says.
        if crc != crc32(input.get(..len).unwrap_or_default()) as u16 {
            return Err(BadHeader);
        }
        len = len.saturating_add(2);
    }
    if len > input.len() { Err(Truncated) } else { Ok(len) }
}

/// Appends the DEFLATE stream at the start of `input` to `out` and returns its length in bytes. `out` grows to
/// `end_max` bytes at most, in capacity too.
fn inflate(mut input: &[u8], end_max: usize, out: &mut Vec<u8>) -> Result<usize, GunzipErrorKind> {
    let (all, start) = (input.len(), out.len());
    let mut state = Box::<DecompressorOxide>::default();
    let mut written = 0_usize;
    let mut room = input.len().saturating_mul(GUESSED_RATIO).max(FIRST_OUTPUT_BYTES);
    loop {
        let end = start.saturating_add(room).min(end_max).max(start);
        out.reserve_exact(end.saturating_sub(out.len()));
        out.resize(end, 0);
        let target = out.get_mut(start..).unwrap_or_default();
        let (status, used, more) =
            decompress(&mut state, input, target, written, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        written = written.saturating_add(more);
        input = input.get(used..).unwrap_or_default();
        match status {
            TINFLStatus::Done => {
                out.truncate(start.saturating_add(written));
                return Ok(all.saturating_sub(input.len()));
            }
            TINFLStatus::HasMoreOutput if end < end_max => room = room.saturating_mul(2),
            TINFLStatus::HasMoreOutput => return Err(GunzipErrorKind::TooLarge),
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(GunzipErrorKind::Truncated);
            }
            _ => return Err(GunzipErrorKind::BadData),
        }
    }
}

/// CRC-32 of ISO 3309, reflected polynomial 0xEDB88320: eight bytes a step by eight tables (Kounavis and Berry,
/// "Novel table lookup-based algorithms for high-performance CRC generation", 2008), 8 KiB of constants.
fn crc32(data: &[u8]) -> u32 {
    let look = |table: &[u32; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or_default();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &CRC_TABLES;
    let mut crc = u32::MAX;
    let (blocks, rest) = data.as_chunks::<8>();
    for [b0, b1, b2, b3, b4, b5, b6, b7] in blocks {
        let [c0, c1, c2, c3] = crc.to_le_bytes();
        crc = look(t7, b0 ^ c0)
            ^ look(t6, b1 ^ c1)
            ^ look(t5, b2 ^ c2)
            ^ look(t4, b3 ^ c3)
            ^ look(t3, *b4)
            ^ look(t2, *b5)
            ^ look(t1, *b6)
            ^ look(t0, *b7);
    }
    for byte in rest {
        crc = look(t0, byte ^ crc.to_le_bytes()[0]) ^ (crc >> 8);
    }
    !crc
}

static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler alone"
)]
const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut step = 1;
    while step < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[step - 1][byte];
            tables[step][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        step += 1;
    }
    tables
}
