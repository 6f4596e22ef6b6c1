//! Top-level protobuf fields of one message, as they lie in the bytes.
//!
//! In: the bytes of one message. Out: its fields in order, each with number, payload and raw record. Why this way: whether
//! a point passed byte for byte cannot be asked of a decoder that normalises. Refuses truncation, groups, field number 0
//! and overlong varints.

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The field number.
    pub number: u64,
    /// What a length prefix encloses, or the bytes of the scalar.
    pub payload: &'a [u8],
    /// Tag, length and payload.
    pub raw: &'a [u8],
}

/// The message is not protobuf: offset of the first byte that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError(pub usize);

/// The fields of `message` in the order of the bytes.
///
/// # Errors
/// The offset of the record that is malformed.
pub fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let (tag, after_tag) = varint(message, at).ok_or(WireError(at))?;
        let (start, end) = match tag & 7 {
            0 => (after_tag, varint(message, after_tag).ok_or(WireError(at))?.1),
            1 => (after_tag, after_tag + 8),
            5 => (after_tag, after_tag + 4),
            2 => {
                let (length, start) = varint(message, after_tag).ok_or(WireError(at))?;
                let length = usize::try_from(length).map_err(|_| WireError(at))?;
                (start, start.checked_add(length).ok_or(WireError(at))?)
            }
            _ => return Err(WireError(at)),
        };
        let payload = message.get(start..end).ok_or(WireError(at))?;
        if tag >> 3 == 0 {
            return Err(WireError(at));
        }
        out.push(Field { number: tag >> 3, payload, raw: &message[at..end] });
        at = end;
    }
    Ok(out)
}

fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}
