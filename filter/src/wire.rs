//! The protobuf wire format, read in place and written at the end of a buffer.
//!
//! In: the bytes of one message and the [`Span`] of it to read. Out: [`Field`]s that point back into the same
//! bytes, or a [`WireError`] that says what is wrong and at which byte. Nothing is allocated and nothing is copied:
//! a batch passes through mostly untouched, so a reader that materialises it does the work twice.
//!
//! Every offset is absolute in the buffer, at each level of nesting; errors and edits need no translation.
//!
//! Refused: what the [specification](https://protobuf.dev/programming-guides/encoding/) refuses, and groups, which
//! are deprecated and which OTLP never had. An iterator that met an error gives the same error again: malformed
//! data never looks like the end of a message. Padded varints of at most 10 bytes are read, as other parsers do.

/// Bytes of the longest varint: ⌈64 / 7⌉.
pub const VARINT_BYTES_MAX: usize = 10;

/// The greatest field number of the specification, 2²⁹ − 1.
pub const FIELD_NUMBER_MAX: u32 = (1 << 29) - 1;

/// A stretch of the buffer: `start` included, `end` excluded, `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset past the last byte.
    pub end: usize,
}

impl Span {
    /// The span of an absent field: no bytes, at the start of the buffer.
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    /// The whole of `buf`.
    #[inline]
    pub fn all(buf: &[u8]) -> Span {
        Span { start: 0, end: buf.len() }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// True if there are no bytes in it.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The bytes themselves; none if the span is not of this buffer.
    #[inline]
    pub fn bytes(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start..self.end).unwrap_or_default()
    }
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireErrorKind {
    /// The message ends inside a tag, a varint or a fixed-width value.
    Truncated,
    /// A length prefix reaches past the end of the enclosing message.
    LengthPastEnd,
    /// A varint of more than 10 bytes, or of more than 64 bits.
    OverlongVarint,
    /// Wire type 3 or 4.
    Group,
    /// Wire type 6 or 7.
    BadWireType,
    /// Field number 0 or above 2²⁹ − 1.
    ZeroField,
    /// A field of the schema with another wire type than the schema gives it.
    WrongWireType,
    /// Attribute values nested deeper than [`crate::decode::DEPTH_MAX`].
    TooDeep,
    /// A singular message given more than once. A parser merges the two; we do not read them.
    Repeated,
    /// Not UTF-8 where the schema says `string`.
    Utf8,
    /// A key or value given as an index of a string table, which OTLP has for profiles only.
    StringIndex,
}

/// A refusal: what, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What is wrong.
    pub kind: WireErrorKind,
    /// Offset of the item that could not be read: the tag, varint, length prefix or value.
    pub at: usize,
}

impl WireError {
    /// An error of `kind` at byte `at`.
    #[inline]
    pub fn new(kind: WireErrorKind, at: usize) -> WireError {
        WireError { kind, at }
    }
}

/// The value of a field as the wire tells it, before any schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1, little endian.
    Fixed64(u64),
    /// Wire type 5, little endian.
    Fixed32(u32),
    /// Wire type 2, the bytes after the length prefix.
    Bytes(Span),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Field number, 1 to 2²⁹ − 1.
    pub number: u32,
    /// Offset of the tag.
    pub start: usize,
    /// Offset past the tag: of the value, or of the length prefix.
    pub tag_end: usize,
    /// Offset past the field.
    pub end: usize,
    /// The value.
    pub value: Value,
}

impl Field {
    /// The whole field, tag included.
    #[inline]
    pub fn span(&self) -> Span {
        Span { start: self.start, end: self.end }
    }

    /// The bytes after the length prefix.
    ///
    /// # Errors
    /// [`WireErrorKind::WrongWireType`] for another wire type than 2; the same holds for the other readers.
    #[inline]
    pub fn bytes(&self) -> Result<Span, WireError> {
        match self.value {
            Value::Bytes(span) => Ok(span),
            _ => Err(self.wrong()),
        }
    }

    /// The value of a varint field.
    #[inline]
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.wrong()),
        }
    }

    /// The value of a `uint32`: the low 32 bits, as parsers read it.
    #[inline]
    pub fn uint32(&self) -> Result<u32, WireError> {
        // Truncation is the rule of the specification for a varint that is too wide.
        self.varint().map(|value| value as u32)
    }

    /// The value of a `sint32`: zigzag over the low 32 bits.
    #[inline]
    pub fn sint32(&self) -> Result<i32, WireError> {
        let n = self.uint32()?;
        Ok((n >> 1).cast_signed() ^ (n & 1).cast_signed().wrapping_neg())
    }

    /// The value of a 64-bit fixed-width field.
    #[inline]
    pub fn fixed64(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Fixed64(value) => Ok(value),
            _ => Err(self.wrong()),
        }
    }

    #[cold]
    fn wrong(&self) -> WireError {
        WireError::new(WireErrorKind::WrongWireType, self.start)
    }
}

/// The fields of one message, in the order of the bytes.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The buffer up to the end of this message, so that nothing inside can reach past it.
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// Reads the message at `span` of `buf`. A span that reaches past `buf` reads as truncated.
    #[inline]
    pub fn new(buf: &'a [u8], span: Span) -> Fields<'a> {
        Fields { bytes: buf.get(..span.end).unwrap_or(buf), at: span.start, end: span.end }
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// Any of the first six kinds of [`WireErrorKind`]; asked again, the same one.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "`while let Some(field) = fields.next()?` needs this order"
    )]
    pub fn next(&mut self) -> Result<Option<Field>, WireError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let (tag, tag_end) = read_varint(self.bytes, start)?;
        let number = match u32::try_from(tag) {
            Ok(tag) if tag >> 3 != 0 => tag >> 3,
            _ => return Err(WireError::new(WireErrorKind::ZeroField, start)),
        };
        let (value, end) = match tag & 7 {
            0 => {
                let (value, end) = read_varint(self.bytes, tag_end)?;
                (Value::Varint(value), end)
            }
            1 => {
                let (value, end) = self.fixed::<8>(tag_end)?;
                (Value::Fixed64(u64::from_le_bytes(value)), end)
            }
            2 => {
                let (len, start) = read_varint(self.bytes, tag_end)?;
                // A length is up to 64 bits wide and an address may be 32: never truncate it.
                let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
                match end {
                    Some(end) if end <= self.bytes.len() => (Value::Bytes(Span { start, end }), end),
                    _ => return Err(WireError::new(WireErrorKind::LengthPastEnd, tag_end)),
                }
            }
            5 => {
                let (value, end) = self.fixed::<4>(tag_end)?;
                (Value::Fixed32(u32::from_le_bytes(value)), end)
            }
            3 | 4 => return Err(WireError::new(WireErrorKind::Group, start)),
            _ => return Err(WireError::new(WireErrorKind::BadWireType, start)),
        };
        self.at = end;
        Ok(Some(Field { number, start, tag_end, end, value }))
    }

    /// The one-byte tag that comes next and the eight bytes behind it, where there are as many.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> Option<(u8, u64)> {
        let [tag, value @ ..] = self.bytes.get(self.at..)?.first_chunk::<9>()?;
        Some((*tag, u64::from_le_bytes(*value)))
    }

    /// Was the last field the last one?
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Offset of the next field.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Goes over `len` bytes, which the caller knows to be whole fields.
    #[inline(always)]
    pub(crate) fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    /// The next field, if it has this tag of one byte and a length of one or two: most of what is length-delimited. `None` says nothing, and
    /// leaves everything to [`Fields::next`].
    #[inline(always)]
    pub(crate) fn short(&mut self, tag: u8) -> Option<Field> {
        let [found, len, more] = *self.bytes.get(self.at..)?.first_chunk::<3>()?;
        if found != tag || tag & 7 != 2 || (len >= 0x80 && more >= 0x80) {
            return None;
        }
        let tag_end = self.at.wrapping_add(1);
        let (len, start) = match len {
            0..0x80 => (usize::from(len), tag_end.wrapping_add(1)),
            _ => (usize::from(len & 0x7f) | usize::from(more) << 7, tag_end.wrapping_add(2)),
        };
        let end = start.wrapping_add(len);
        if end > self.bytes.len() {
            return None;
        }
        let value = Value::Bytes(Span { start, end });
        let field = Field { number: u32::from(tag >> 3), start: self.at, tag_end, end, value };
        self.at = end;
        Some(field)
    }

    /// Do the next bytes equal these?
    #[inline]
    pub(crate) fn begin_with(&self, bytes: &[u8]) -> bool {
        let next = self.bytes.get(self.at..).and_then(|rest| rest.get(..bytes.len()));
        next.is_some_and(|next| same(next, bytes))
    }

    #[inline]
    fn fixed<const N: usize>(&self, at: usize) -> Result<([u8; N], usize), WireError> {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(value) => Ok((*value, at.wrapping_add(N))),
            None => Err(WireError::new(WireErrorKind::Truncated, at)),
        }
    }
}

/// Reads the varint at `at`: its value and the offset past it.
///
/// # Errors
/// [`WireErrorKind::Truncated`] or [`WireErrorKind::OverlongVarint`], at `at`.
#[inline]
pub fn read_varint(bytes: &[u8], at: usize) -> Result<(u64, usize), WireError> {
    match bytes.get(at) {
        // Tags below 16, flags, and most lengths: one byte.
        Some(&byte) if byte < 0x80 => Ok((u64::from(byte), at.wrapping_add(1))),
        // Lengths of points: two.
        Some(&byte) => match bytes.get(at.wrapping_add(1)) {
            Some(&next) if next < 0x80 => {
                Ok((u64::from(byte & 0x7f) | u64::from(next) << 7, at.wrapping_add(2)))
            }
            _ => read_long_varint(bytes, at),
        },
        None => read_long_varint(bytes, at),
    }
}

#[cold]
fn read_long_varint(bytes: &[u8], at: usize) -> Result<(u64, usize), WireError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let (mut value, mut shift, mut end) = (0_u64, 0_u32, at);
    for &byte in rest.iter().take(VARINT_BYTES_MAX) {
        // The tenth byte holds bit 63 alone.
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        shift = shift.wrapping_add(7);
        end = end.wrapping_add(1);
        if byte < 0x80 {
            return Ok((value, end));
        }
    }
    let kind =
        if rest.len() < VARINT_BYTES_MAX { WireErrorKind::Truncated } else { WireErrorKind::OverlongVarint };
    Err(WireError::new(kind, at))
}

/// Bytes that are compared at once.
const LANE_BYTES: usize = 32;

/// Are these the same bytes? The last ones first: in the attributes of two points these differ, where the first seldom do.
///
/// The library compares slices byte by byte in a wasm module; arrays of a known length become words there and everywhere.
#[inline]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.last_chunk::<LANE_BYTES>(), b.last_chunk::<LANE_BYTES>()) {
        // What is behind the last whole lane lies in the last bytes.
        (Some(last), Some(other)) => last == other && same_chunks::<LANE_BYTES>(a, b),
        _ => match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
            (Some(last), Some(other)) => last == other && same_chunks::<8>(a, b),
            _ => a.iter().zip(b).all(|(byte, other)| byte == other),
        },
    }
}

#[inline(always)]
fn same_chunks<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0).all(|(lane, other)| lane == other)
}

/// The bytes at `span` as text.
///
/// The scan does not check text, since bytes that pass untouched are the backend's to judge; whoever shows or
/// compares text does.
///
/// # Errors
/// [`WireErrorKind::Utf8`] at the first byte that is not UTF-8.
pub fn utf8(buf: &[u8], span: Span) -> Result<&str, WireError> {
    core::str::from_utf8(span.bytes(buf))
        .map_err(|e| WireError::new(WireErrorKind::Utf8, span.start.saturating_add(e.valid_up_to())))
}

/// Bytes of `value` as a varint: 1 to 10.
#[inline]
pub fn varint_len(value: u64) -> usize {
    // ⌈bits / 7⌉ without a division, for 1 to 64 bits: (9 · bits + 64) / 64.
    let bits = 64_u32.wrapping_sub((value | 1).leading_zeros());
    (bits.wrapping_mul(9).wrapping_add(64) >> 6) as usize
}

/// `value` as a varint: the first [`varint_len`] bytes of the array.
#[inline]
pub fn encode_varint(value: u64) -> ([u8; VARINT_BYTES_MAX], usize) {
    let (mut bytes, mut rest, len) = ([0_u8; VARINT_BYTES_MAX], value, varint_len(value));
    for byte in bytes.iter_mut().take(len) {
        *byte = (rest & 0x7f) as u8 | if rest >= 0x80 { 0x80 } else { 0 };
        rest >>= 7;
    }
    (bytes, len)
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of the tag of field `number`.
#[inline]
pub fn tag_len(number: u32) -> usize {
    varint_len(u64::from(number) << 3)
}

/// Bytes of a length-delimited field, tag and prefix included, around `len` bytes.
#[inline]
pub fn bytes_field_len(number: u32, len: usize) -> usize {
    tag_len(number).saturating_add(varint_len(len as u64)).saturating_add(len)
}

/// Bytes of a varint field, tag included.
#[inline]
pub fn varint_field_len(number: u32, value: u64) -> usize {
    tag_len(number).saturating_add(varint_len(value))
}

/// Bytes of a `fixed64`, `sfixed64` or `double` field, tag included.
#[inline]
pub fn fixed64_field_len(number: u32) -> usize {
    tag_len(number).saturating_add(8)
}

/// Appends the tag and length prefix of a length-delimited field; the caller appends the `len` bytes.
#[inline]
pub fn put_prefix(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, (u64::from(number) << 3) | 2);
    put_varint(out, len as u64);
}

/// Appends a length-delimited field. An empty one is written too: whoever wants proto3's rule asks first.
#[inline]
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_prefix(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a varint field.
#[inline]
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a `fixed64` field; an `sfixed64` is `value as u64`.
#[inline]
pub fn put_fixed64_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, (u64::from(number) << 3) | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `double` field.
#[inline]
pub fn put_double_field(out: &mut Vec<u8>, number: u32, value: f64) {
    put_fixed64_field(out, number, value.to_bits());
}

#[cfg(test)]
mod tests {
    use super::WireErrorKind::*;
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Vec<Field>, (WireErrorKind, usize)> {
        let (mut fields, mut all) = (Fields::new(bytes, Span::all(bytes)), vec![]);
        loop {
            match fields.next() {
                Ok(Some(field)) => all.push(field),
                Ok(None) => return Ok(all),
                Err(e) => {
                    assert_eq!(fields.next(), Err(e), "an error repeats");
                    return Err((e.kind, e.at));
                }
            }
        }
    }

    #[track_caller]
    fn one(bytes: &[u8], number: u32, value: Value) {
        let fields = read(bytes).expect("reads");
        assert_eq!(fields.len(), 1);
        assert_eq!((fields[0].number, fields[0].value), (number, value));
        assert_eq!((fields[0].start, fields[0].end), (0, bytes.len()));
    }

    #[track_caller]
    fn refuse(bytes: &[u8], kind: WireErrorKind, at: usize) {
        assert_eq!(read(bytes), Err((kind, at)));
    }

    #[test]
    fn reads() {
        assert_eq!(read(b""), Ok(vec![]));
        one(b"\x08\x00", 1, Value::Varint(0));
        one(b"\x08\x7f", 1, Value::Varint(127));
        one(b"\x08\x80\x01", 1, Value::Varint(128));
        one(b"\x08\x80\x00", 1, Value::Varint(0));
        one(b"\x88\x00\x05", 1, Value::Varint(5));
        one(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1, Value::Varint(u64::MAX));
        one(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 1, Value::Varint(0));
        one(b"\x09\x01\0\0\0\0\0\0\x80", 1, Value::Fixed64(0x8000_0000_0000_0001));
        one(b"\x0d\x01\0\0\x80", 1, Value::Fixed32(0x8000_0001));
        one(b"\x0a\x00", 1, Value::Bytes(Span { start: 2, end: 2 }));
        one(b"\x0a\x02ab", 1, Value::Bytes(Span { start: 2, end: 4 }));
        one(b"\x0a\x82\x00ab", 1, Value::Bytes(Span { start: 3, end: 5 }));
        one(b"\xf8\xff\xff\xff\x0f\x01", FIELD_NUMBER_MAX, Value::Varint(1));
    }

    #[test]
    fn refuses() {
        refuse(b"\x80", Truncated, 0);
        refuse(b"\x08", Truncated, 1);
        refuse(b"\x08\x80", Truncated, 1);
        refuse(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff", Truncated, 1);
        refuse(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", OverlongVarint, 1);
        refuse(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", OverlongVarint, 1);
        refuse(b"\x08\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", OverlongVarint, 2);
        refuse(b"\x09", Truncated, 1);
        refuse(b"\x09\0\0\0\0\0\0\0", Truncated, 1);
        refuse(b"\x0d\0\0\0", Truncated, 1);
        refuse(b"\x0a", Truncated, 1);
        refuse(b"\x0a\x01", LengthPastEnd, 1);
        refuse(b"\x08\x01\x0a\x03ab", LengthPastEnd, 3);
        refuse(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", LengthPastEnd, 1);
        refuse(b"\x0a\x80\x80\x80\x80\x10", LengthPastEnd, 1); // 2³²: a 32-bit address would wrap to 0
        refuse(b"\x0b", Group, 0);
        refuse(b"\x0c", Group, 0);
        refuse(b"\x0e", BadWireType, 0);
        refuse(b"\x0f", BadWireType, 0);
        refuse(b"\x00\x00", ZeroField, 0);
        refuse(b"\x02\x00", ZeroField, 0);
        refuse(b"\x80\x80\x80\x80\x10\x00", ZeroField, 0); // a tag of 33 bits
        refuse(b"\x08\x01\x80\x80\x80\x80\x10\x00", ZeroField, 2);
    }

    #[test]
    fn a_message_ends_where_its_span_ends() {
        let bytes = b"\xff\x0a\x02ab";
        let whole = Fields::new(bytes, Span { start: 1, end: 5 }).next();
        assert_eq!(whole.map(|f| f.map(|f| f.value)), Ok(Some(Value::Bytes(Span { start: 3, end: 5 }))));
        let cut = Fields::new(bytes, Span { start: 1, end: 4 }).next();
        assert_eq!(cut, Err(WireError::new(LengthPastEnd, 2)));
        let past = Fields::new(bytes, Span { start: 5, end: 9 }).next();
        assert_eq!(past, Err(WireError::new(Truncated, 5)));
    }

    #[test]
    fn text() {
        assert_eq!(utf8("xäy".as_bytes(), Span { start: 1, end: 3 }), Ok("ä"));
        assert_eq!(utf8(b"ab\xff", Span { start: 0, end: 3 }), Err(WireError::new(Utf8, 2)));
    }

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = vec![];
            put_varint(&mut out, value);
            let mut oracle = vec![];
            prost::encoding::encode_varint(value, &mut oracle);
            prop_assert_eq!(&out, &oracle);
            prop_assert_eq!(varint_len(value), out.len());
            let (bytes, len) = encode_varint(value);
            prop_assert_eq!(&bytes[..len], &out[..]);
            prop_assert_eq!(read_varint(&out, 0), Ok((value, out.len())));
        }

        #[test]
        fn fields_round_trip(number in 1..=FIELD_NUMBER_MAX, value in any::<u64>(), data in any::<Vec<u8>>()) {
            let mut out = vec![];
            put_varint_field(&mut out, number, value);
            prop_assert_eq!(out.len(), varint_field_len(number, value));
            put_fixed64_field(&mut out, number, value);
            prop_assert_eq!(out.len(), varint_field_len(number, value) + fixed64_field_len(number));
            let before = out.len();
            put_bytes_field(&mut out, number, &data);
            prop_assert_eq!(out.len() - before, bytes_field_len(number, data.len()));
            let fields = read(&out).expect("reads");
            prop_assert!(fields.iter().all(|f| f.number == number));
            prop_assert_eq!(fields[0].value, Value::Varint(value));
            prop_assert_eq!(fields[1].value, Value::Fixed64(value));
            prop_assert_eq!(fields[2].bytes().expect("bytes").bytes(&out), &data[..]);
        }
    }
}
