//! Entries of the log of admissions, and its pages.
//!
//! An entry is 24 bytes: kind, level, a rest of 16 bits, a word of 32, two of 64, little-endian. A page is its place in the log (epoch, and the worker
//! that began it) and up to [`PAGE_ENTRIES`] entries. Nothing in either is a reference: whoever reads all of a log knows all that it says.

/// Entries of a page: 12 KiB, which a worker copies out of shared data and back when it appends.
pub const PAGE_ENTRIES: usize = 512;
const ENTRY_BYTES: usize = 24;
const HEAD_BYTES: usize = 16;

/// What the log says, one thing after the other. Series, metrics, tenants and labels by the halves of their identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named by the type's own words")]
pub enum Entry {
    /// A metric of a tenant comes into being.
    Metric { metric: u64, tenant: u64 },
    /// A stream is raw. `rest`: what the last level would leave of it ([`super::rests`]).
    Admit { series: u64, metric: u64, rest: u16 },
    /// A folded series is there, of this level.
    Folded { series: u64, metric: u64, level: u8, rest: u16 },
    /// From now on new streams of a metric fold without this label too (0: without all that are not protected), and so from level to level.
    Contain { metric: u64, label: u64, level: u8, at_s: u32 },
    /// Streams of the metric are raw again from `at_s` on, in event time; it was said at `said_s`.
    Release { metric: u64, at_s: u32, said_s: u32 },
    /// Streams of this metric that were raw may be forgotten by now, if they have been silent since before `at_s`; with 0 for a metric: those
    /// of all metrics that are not in the log any more.
    Forgot { metric: u64, at_s: u32 },
    /// The stream is raw from `at_s` on; before, it folded.
    Promote { series: u64, metric: u64, at_s: u32, rest: u16 },
    /// The stream folds from `at_s` on; before, it was raw.
    Demote { series: u64, metric: u64, at_s: u32 },
    /// The log goes on in another place.
    Sealed { place: Place },
}

/// Where a log is: its epoch, and who began it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Counts compactions.
    pub epoch: u64,
    /// The worker that began it; in the upper half, in which attempt.
    pub worker: u64,
}

impl Place {
    /// Key of a page. Two epochs of a worker take turns, so that what is live is never overwritten and nothing grows.
    pub fn key(self, page: usize) -> String {
        format!("{}.{}/{page}", self.epoch & 1, self.worker & 0xffff_ffff)
    }

    fn bytes(self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        let (a, b) = out.split_at_mut(8);
        a.copy_from_slice(&self.epoch.to_le_bytes());
        b.copy_from_slice(&self.worker.to_le_bytes());
        out
    }

    /// Read a place.
    pub fn read(bytes: &[u8]) -> Option<Place> {
        let (epoch, rest) = bytes.split_first_chunk::<8>()?;
        Some(Place {
            epoch: u64::from_le_bytes(*epoch),
            worker: u64::from_le_bytes(*rest.first_chunk::<8>()?),
        })
    }

    /// As shared data holds it.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes().to_vec()
    }
}

impl Entry {
    fn parts(self) -> (u8, u8, u16, u32, u64, u64) {
        match self {
            Entry::Metric { metric, tenant } => (1, 0, 0, 0, metric, tenant),
            Entry::Admit { series, metric, rest } => (2, 0, rest, 0, series, metric),
            Entry::Folded { series, metric, level, rest } => (3, level, rest, 0, series, metric),
            Entry::Contain { metric, label, level, at_s } => (4, level, 0, at_s, label, metric),
            Entry::Release { metric, at_s, said_s } => (5, 0, 0, at_s, u64::from(said_s), metric),
            Entry::Forgot { metric, at_s } => (6, 0, 0, at_s, 0, metric),
            Entry::Promote { series, metric, at_s, rest } => (7, 0, rest, at_s, series, metric),
            Entry::Demote { series, metric, at_s } => (8, 0, 0, at_s, series, metric),
            Entry::Sealed { place } => (9, 0, 0, 0, place.epoch, place.worker),
        }
    }

    fn put(self, out: &mut Vec<u8>) {
        let (kind, level, rest, word, a, b) = self.parts();
        out.extend_from_slice(&[kind, level]);
        out.extend_from_slice(&rest.to_le_bytes());
        out.extend_from_slice(&word.to_le_bytes());
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Entry> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [kind, level, low, high] = *head;
        let rest_of = u16::from_le_bytes([low, high]);
        let (word, rest) = rest.split_first_chunk::<4>()?;
        let (a, rest) = rest.split_first_chunk::<8>()?;
        let at_s = u32::from_le_bytes(*word);
        let (a, b) = (u64::from_le_bytes(*a), u64::from_le_bytes(*rest.first_chunk::<8>()?));
        Some(match kind {
            1 => Entry::Metric { metric: a, tenant: b },
            2 => Entry::Admit { series: a, metric: b, rest: rest_of },
            3 => Entry::Folded { series: a, metric: b, level, rest: rest_of },
            4 => Entry::Contain { metric: b, label: a, level, at_s },
            5 => Entry::Release { metric: b, at_s, said_s: u32::try_from(a).unwrap_or(u32::MAX) },
            6 => Entry::Forgot { metric: b, at_s },
            7 => Entry::Promote { series: a, metric: b, at_s, rest: rest_of },
            8 => Entry::Demote { series: a, metric: b, at_s },
            9 => Entry::Sealed { place: Place { epoch: a, worker: b } },
            _ => return None,
        })
    }
}

/// A page, as it was read.
#[derive(Clone, Debug, Default)]
pub struct Page {
    bytes: Vec<u8>,
}

impl Page {
    /// A page without entries.
    pub fn new(place: Place) -> Page {
        Page { bytes: place.to_vec() }
    }

    /// Take a value for a page of this place; none: it belongs to another, or is no page.
    pub fn read(bytes: Vec<u8>, place: Place) -> Option<Page> {
        (Place::read(&bytes) == Some(place)).then_some(Page { bytes })
    }

    /// Entries on it.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD_BYTES) / ENTRY_BYTES
    }

    /// No room for another entry.
    pub fn is_full(&self) -> bool {
        self.len() >= PAGE_ENTRIES
    }

    /// Entries from the one at `from` on; what cannot be read is skipped.
    pub fn entries(&self, from: usize) -> impl Iterator<Item = Entry> + '_ {
        let start = HEAD_BYTES.saturating_add(from.saturating_mul(ENTRY_BYTES));
        let rest = self.bytes.get(start..).unwrap_or_default();
        rest.chunks_exact(ENTRY_BYTES).filter_map(Entry::read)
    }

    /// Add an entry.
    pub fn push(&mut self, entry: Entry) {
        entry.put(&mut self.bytes);
    }

    /// As shared data holds it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let place = Place { epoch: 7, worker: 3 };
        let all = [
            Entry::Metric { metric: 1, tenant: 2 },
            Entry::Admit { series: 3, metric: 1, rest: 0x1234 },
            Entry::Folded { series: 4, metric: 1, level: 2, rest: u16::MAX },
            Entry::Contain { metric: 1, label: 9, level: 1, at_s: 100 },
            Entry::Release { metric: 1, at_s: 200, said_s: 150 },
            Entry::Forgot { metric: 1, at_s: 250 },
            Entry::Promote { series: 3, metric: 1, at_s: 300, rest: 7 },
            Entry::Demote { series: 4, metric: 1, at_s: 300 },
            Entry::Sealed { place },
        ];
        let mut page = Page::new(place);
        all.iter().for_each(|entry| page.push(*entry));
        let back = Page::read(page.bytes().to_vec(), place).unwrap();
        assert_eq!(back.entries(0).collect::<Vec<_>>(), all);
        assert_eq!(back.entries(7).collect::<Vec<_>>(), all[7..]);
        assert!(Page::read(page.bytes().to_vec(), Place { epoch: 8, worker: 3 }).is_none());
        assert_eq!(back.len(), 9);
    }
}
