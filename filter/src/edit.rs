//! The output side of a batch: cut fields out, patch the lengths on the path to them, copy the rest.
//!
//! In: while a walk goes down the tree of a message in the order of its bytes, what to remove or replace. Out: the
//! same bytes with that done, in one forward copy, or the list of edits. Everything that is not named stays byte
//! for byte as it came, also fields that nobody here knows.
//!
//! A length prefix must shrink with what it encloses, and may itself get shorter by that, which its own parent has
//! to know. So [`Edits::open`] reserves a slot for the prefix before the walk goes in and [`Edits::close`] fills it
//! when all changes inside are known; a running total makes that constant work per message, however deep.
//!
//! ```
//! # use phoenix_filter::{edit::Edits, wire::{Fields, Span, WireError}};
//! # fn main() -> Result<(), WireError> {
//! let input = b"\x0a\x04\x08\x01\x10\x02"; // 1: { 1: 1, 2: 2 }
//! let mut edits = Edits::default();
//! let mut outer = Fields::new(input, Span::all(input));
//! while let Some(field) = outer.next()? {
//!     let mut inner = Fields::new(input, field.bytes()?);
//!     let token = edits.open(&field);
//!     while let Some(field) = inner.next()? {
//!         if field.number == 1 {
//!             edits.remove(field.span());
//!         }
//!     }
//!     edits.close(token);
//! }
//! let mut out = vec![];
//! assert!(edits.apply(input, &mut out).is_ok());
//! assert_eq!(out, b"\x0a\x02\x10\x02"); // 1: { 2: 2 }
//! # Ok(()) }
//! ```
//!
//! Refused: edits out of order, overlapping, or left open. They are a defect of the walk, not of the data;
//! [`Edits::apply`] then writes nothing and says so, and the caller passes the batch on as it came.

use crate::wire::{Field, Span, Value, encode_varint};

/// Bytes that a replacement can have: more than a varint (10), a tag with a fixed64 (9) or a flag with its tag (2),
/// or the two latter together, which is what rewriting a point needs.
pub const REPLACEMENT_BYTES_MAX: usize = 15;

/// What takes the place of a span: a few bytes, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    bytes: [u8; REPLACEMENT_BYTES_MAX],
    len: u8,
}

impl Replacement {
    fn new(bytes: &[u8]) -> Option<Replacement> {
        let mut it = Replacement { bytes: [0; REPLACEMENT_BYTES_MAX], len: u8::try_from(bytes.len()).ok()? };
        it.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(it)
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// One edit: the bytes from `start` to `end` of the input become `replacement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset of the first byte that goes.
    pub start: usize,
    /// Offset past the last byte that goes.
    pub end: usize,
    /// What comes instead.
    pub replacement: Replacement,
    /// A length prefix whose message is still open.
    open: bool,
}

/// A message that was opened and has to be closed, by [`Edits::close`] or [`Edits::close_removed`].
#[derive(Debug)]
#[must_use = "a message that stays open makes `apply` refuse"]
pub struct Token {
    slot: usize,
    field: Span,
    /// The content, whose length the prefix tells.
    content: Span,
    grown_before: i64,
    end_before: usize,
}

/// A use of [`Edits`] that no walk in order makes: out of order, overlapping, left open, or past the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// Offset of the edit in question.
    pub at: usize,
}

/// The edits of one batch, in the order of its bytes. Reuse it: [`Edits::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Edits {
    list: Vec<Edit>,
    /// Bytes that the output is longer than the input (negative: shorter), over all edits so far.
    grown: i64,
    /// End of the last edit; the next one may not start before it.
    end: usize,
    misuse: Option<Misuse>,
}

impl Edits {
    /// Forgets everything, for the next batch.
    pub fn clear(&mut self) {
        self.list.clear();
        (self.grown, self.end, self.misuse) = (0, 0, None);
    }

    /// True if the output equals the input.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.misuse.is_none()
    }

    /// Bytes that the output is shorter than the input; 0 if it is not.
    #[inline]
    pub fn removed_bytes(&self) -> usize {
        usize::try_from(self.grown.saturating_neg()).unwrap_or(0)
    }

    /// The edits in the order of the bytes. Those of [`Edits::apply`] if it does not refuse.
    pub fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.list.iter()
    }

    /// Goes into the length-delimited `field`, inside of which edits may follow.
    #[inline]
    pub fn open(&mut self, field: &Field) -> Token {
        let content = match field.value {
            Value::Bytes(content) => content,
            _ => {
                self.misused(field.start);
                Span { start: field.end, end: field.end }
            }
        };
        let token = Token {
            slot: self.list.len(),
            field: field.span(),
            content,
            grown_before: self.grown,
            end_before: self.end,
        };
        let prefix = Span { start: field.tag_end, end: content.start };
        self.push(prefix, Replacement::default(), true);
        token
    }

    /// Removes the whole of `span`, as a rule a field. Removals that touch become one edit.
    #[inline]
    pub fn remove(&mut self, span: Span) {
        if span.start == span.end {
            return;
        }
        match self.list.last_mut() {
            Some(last)
                if last.end == span.start && !span.is_empty() && last.replacement.len == 0 && !last.open =>
            {
                last.end = span.end;
                self.end = span.end;
                self.grown = self.grown.saturating_sub(signed(span.len()));
            }
            _ => self.push(span, Replacement::default(), false),
        }
    }

    /// Puts up to [`REPLACEMENT_BYTES_MAX`] bytes in the place of `span`; an empty span is an insertion.
    #[inline]
    pub fn replace(&mut self, span: Span, bytes: &[u8]) {
        match Replacement::new(bytes) {
            Some(replacement) => self.push(span, replacement, false),
            None => self.misused(span.start),
        }
    }

    /// Leaves a message: its length prefix is patched if something inside changed length, and true comes back.
    #[inline]
    pub fn close(&mut self, token: Token) -> bool {
        let grown_inside = self.grown.saturating_sub(token.grown_before);
        if self.list.len() == token.slot.saturating_add(1) {
            // Nothing inside was touched: neither is the prefix.
            self.list.pop();
            self.end = token.end_before;
            return false;
        }
        let len = signed(token.content.len()).saturating_add(grown_inside);
        let (bytes, bytes_len) = encode_varint(u64::try_from(len).unwrap_or(0));
        let replacement = Replacement::new(bytes.get(..bytes_len).unwrap_or_default());
        match (self.list.get_mut(token.slot), replacement) {
            (Some(slot), Some(replacement)) if slot.open && self.end <= token.content.end => {
                let old_len = slot.end.saturating_sub(slot.start);
                slot.replacement = replacement;
                slot.open = false;
                let grown = signed(bytes_len).saturating_sub(signed(old_len));
                self.grown = self.grown.saturating_add(grown);
            }
            _ => self.misused(token.field.start),
        }
        true
    }

    /// Leaves a message and removes the whole field; edits made inside are dropped.
    #[inline]
    pub fn close_removed(&mut self, token: Token) {
        if !self.list.get(token.slot).is_some_and(|slot| slot.open) {
            self.misused(token.field.start);
        }
        self.list.truncate(token.slot);
        self.grown = token.grown_before;
        self.end = token.end_before;
        self.remove(token.field);
    }

    /// Appends the edited `input` to `out`, in one forward copy.
    ///
    /// # Errors
    /// [`Misuse`] if the edits were not made in the order of the bytes of this input; `out` is then as before.
    pub fn apply(&self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Misuse> {
        if let Some(misuse) = self.misuse {
            return Err(misuse);
        }
        if let Some(edit) = self.list.iter().find(|edit| edit.open || edit.end > input.len()) {
            return Err(Misuse { at: edit.start });
        }
        let grown = usize::try_from(self.grown).unwrap_or(0);
        out.reserve(input.len().saturating_sub(self.removed_bytes()).saturating_add(grown));
        let mut at = 0;
        for edit in &self.list {
            out.extend_from_slice(Span { start: at, end: edit.start }.bytes(input));
            out.extend_from_slice(edit.replacement.bytes());
            at = edit.end;
        }
        out.extend_from_slice(Span { start: at, end: input.len() }.bytes(input));
        Ok(())
    }

    #[inline]
    fn push(&mut self, span: Span, replacement: Replacement, open: bool) {
        let Span { start, end } = span;
        if start < self.end || end < start {
            self.misused(start);
        }
        if !open {
            let grown = i64::from(replacement.len).saturating_sub(signed(span.len()));
            self.grown = self.grown.saturating_add(grown);
        }
        self.end = end;
        self.list.push(Edit { start, end, replacement, open });
    }

    #[cold]
    fn misused(&mut self, at: usize) {
        // The first one is the cause.
        self.misuse.get_or_insert(Misuse { at });
    }
}

/// Lengths are those of buffers in memory: at most `isize::MAX`.
#[inline]
fn signed(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, put_bytes_field};

    fn span(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// Field 1 around `content`, `levels` times.
    fn nested(levels: usize, content: &[u8]) -> Vec<u8> {
        (0..levels).fold(content.to_vec(), |inner, _| {
            let mut out = vec![];
            put_bytes_field(&mut out, 1, &inner);
            out
        })
    }

    fn field(buf: &[u8], at: Span) -> Field {
        Fields::new(buf, at).next().unwrap().unwrap()
    }

    fn applied(edits: &Edits, input: &[u8]) -> Result<Vec<u8>, Misuse> {
        let mut out = vec![];
        let result = edits.apply(input, &mut out);
        assert!(result.is_ok() || out.is_empty(), "refuse before write");
        result.map(|()| out)
    }

    /// Edits the innermost of `levels` messages and compares with the nesting of what should come out.
    #[track_caller]
    fn check(levels: usize, content: &[u8], edit: impl Fn(&mut Edits, usize), expected: &[u8]) {
        let buf = nested(levels, content);
        let mut edits = Edits::default();
        let (mut at, mut tokens) = (Span::all(&buf), vec![]);
        for _ in 0..levels {
            let field = field(&buf, at);
            tokens.push(edits.open(&field));
            at = field.bytes().unwrap();
        }
        edit(&mut edits, at.start);
        while let Some(token) = tokens.pop() {
            edits.close(token);
        }
        let out = applied(&edits, &buf).unwrap();
        assert_eq!(out, nested(levels, expected));
        assert_eq!(edits.removed_bytes(), buf.len().saturating_sub(out.len()));
        assert_eq!(edits.is_empty(), content == expected);
    }

    #[test]
    fn nothing_touched() {
        check(2, b"abc", |e, at| e.remove(span(at + 1, at + 1)), b"abc");
        check(0, b"abc", |_, _| {}, b"abc");
        check(9, b"abc", |_, _| {}, b"abc");
        check(9, &[7; 200], |_, _| {}, &[7; 200]);
    }

    #[test]
    fn removed() {
        check(0, b"abcd", |e, at| e.remove(span(at + 1, at + 3)), b"ad");
        check(3, b"abcd", |e, at| e.remove(span(at, at + 4)), b"");
        // From two bytes of prefix to one, at every level and at some.
        check(3, &[7; 128], |e, at| e.remove(span(at, at + 1)), &[7; 127]);
        check(3, &[7; 200], |e, at| e.remove(span(at, at + 199)), &[7; 1]);
        check(9, &[7; 140], |e, at| e.remove(span(at + 50, at + 80)), &[7; 110]);
        check(3, &[7; 17_000], |e, at| e.remove(span(at, at + 16_990)), &[7; 10]);
        check(2, &[7; 16_384], |e, at| e.remove(span(at, at + 1)), &[7; 16_383]);
    }

    #[test]
    fn replaced() {
        check(2, b"abcd", |e, at| e.replace(span(at + 1, at + 2), b"xyz"), b"axyzcd");
        check(2, b"abcd", |e, at| e.replace(span(at + 4, at + 4), b"e"), b"abcde");
        check(2, b"abcd", |e, at| e.replace(span(at, at), b"123456789012345"), b"123456789012345abcd");
        check(3, &[7; 127], |e, at| e.replace(span(at, at), &[7]), &[7; 128]); // one byte to two
        check(
            3,
            b"abcd",
            |e, at| {
                e.remove(span(at, at + 1));
                e.replace(span(at + 1, at + 2), b"B");
                e.remove(span(at + 2, at + 3));
            },
            b"Bd",
        );
        // A replacement of the same length touches, and the lengths stay.
        check(3, b"abcd", |e, at| e.replace(span(at, at + 1), b"A"), b"Abcd");
    }

    #[test]
    fn removals_that_touch_are_one_edit() {
        let mut edits = Edits::default();
        (0..5).for_each(|at| edits.remove(span(at, at + 1)));
        edits.remove(span(6, 7));
        assert_eq!(edits.iter().map(|e| (e.start, e.end)).collect::<Vec<_>>(), [(0, 5), (6, 7)]);
        assert_eq!(edits.removed_bytes(), 6);
    }

    #[test]
    fn a_removed_message_takes_the_edits_inside_with_it() {
        let buf = [nested(1, b"ab"), nested(1, b"cd"), nested(1, b"ef")].concat();
        let mut edits = Edits::default();
        edits.remove(span(0, 4));
        let token = edits.open(&field(&buf, span(4, 12)));
        edits.remove(span(6, 7));
        edits.replace(span(7, 8), b"xyz");
        edits.close_removed(token);
        assert_eq!(applied(&edits, &buf), Ok(nested(1, b"ef")));
        assert_eq!(edits.removed_bytes(), 8);
        assert_eq!(edits.iter().count(), 1);
        edits.clear();
        assert!(edits.is_empty());
        assert_eq!(applied(&edits, &buf), Ok(buf));
    }

    #[test]
    fn a_padded_prefix_that_must_change_becomes_minimal() {
        let buf = b"\x0a\x84\x80\x00abcd";
        let mut edits = Edits::default();
        let token = edits.open(&field(buf, Span::all(buf)));
        edits.remove(span(4, 5));
        assert!(edits.close(token));
        assert_eq!(applied(&edits, buf), Ok(b"\x0a\x03bcd".to_vec()));
        assert_eq!(edits.removed_bytes(), 3);
    }

    #[test]
    fn misuse_is_refused() {
        let buf = [nested(1, b"ab"), nested(1, b"cd")].concat();
        let first = field(&buf, Span::all(&buf));
        let refuse = |edit: &dyn Fn(&mut Edits), at: usize| {
            let mut edits = Edits::default();
            edit(&mut edits);
            assert_eq!(applied(&edits, &buf), Err(Misuse { at }));
            assert!(!edits.is_empty());
            edits.clear();
            assert_eq!(applied(&edits, &buf), Ok(buf.clone()));
        };
        refuse(&|e| (e.remove(span(4, 8)), e.remove(span(0, 4))).1, 0); // backwards
        refuse(&|e| (e.remove(span(0, 4)), e.remove(span(3, 8))).1, 3); // overlapping
        refuse(&|e| e.remove(span(3, 2)), 3);
        refuse(&|e| (e.remove(span(0, 4)), e.remove(span(4, 2))).1, 4);
        refuse(&|e| e.remove(span(7, 9)), 7); // past the end
        refuse(&|e| e.replace(span(0, 1), &[0; 16]), 0); // too long
        refuse(&|e| drop(e.open(&first)), 1); // left open
        refuse(
            &|e| {
                let token = e.open(&first);
                e.remove(span(2, 6)); // leaves the message
                e.close(token);
            },
            0,
        );
        refuse(
            &|e| {
                let (outer, inner) = (e.open(&first), e.open(&first));
                e.close(outer); // closed in the wrong order
                e.close(inner);
            },
            1,
        );
        refuse(
            &|e| {
                let token = e.open(&Field { value: Value::Varint(1), ..first });
                e.close(token);
            },
            0,
        );
    }
}
