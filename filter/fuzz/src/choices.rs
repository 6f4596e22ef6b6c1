//! Bytes as a sequence of decisions. In: the fuzzer's bytes. Out: numbers in small ranges; zeros when the bytes are used up, so
//! that every input is a whole script and a prefix of an input is a prefix of its script.

/// Reads decisions from the front.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All decisions are in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// Nothing left to decide?
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: u64) -> u64 {
        u64::from(self.byte()) % n
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.iter_mut().for_each(|b| *b = self.byte());
        u64::from_le_bytes(bytes)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
