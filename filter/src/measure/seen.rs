//! Which streams came in this generation already: sixteen bits each, in rows of one cache line.
//!
//! Says "seen" wrongly about once in two thousand times (up to 32 prints of 16 bits in a row), which an estimate with two percent of error does
//! not notice; never "new" for what is in it, unless its row overflowed or the set grew twice since, which only costs time. Nothing that is enforced relies on it.

/// Words of a row: 64 bytes.
const ROW: usize = 8;
const ROW_BYTES: usize = 8 * ROW;
/// Prints of a row.
const PRINTS: usize = 4 * ROW;
/// Rows at first: 4 KiB.
const ROWS_MIN: usize = 64;
/// A one in each print of a word, and the uppermost bit of each.
const ONES: u64 = 0x0001_0001_0001_0001;
const TOPS: u64 = ONES << 15;

/// Four prints in a word; a free place is zero, and places are taken from the first on.
type Row = [u64; ROW];

/// The set.
#[derive(Default)]
pub struct Seen {
    rows: Vec<Row>,
    /// What was in it when it grew, to look into alone.
    before: Vec<Row>,
    len: usize,
    rows_max: usize,
}

impl Seen {
    /// Take up to `bytes_max` bytes, and a quarter more in the generation in which it grows.
    pub fn set_max(&mut self, bytes_max: usize) {
        let rows = (bytes_max / ROW_BYTES).max(ROWS_MIN);
        self.rows_max = (rows.checked_next_power_of_two().unwrap_or(ROWS_MIN) / 2).max(ROWS_MIN);
    }

    /// Forget all, and keep the room.
    pub fn clear(&mut self) {
        self.rows.fill([0; ROW]);
        self.before = Vec::new();
        self.len = 0;
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity().saturating_add(self.before.capacity()).saturating_mul(ROW_BYTES)
    }

    /// Did it come already?
    #[inline]
    pub fn has(&self, key: u64) -> bool {
        let print = print(key);
        row(&self.rows, key).is_some_and(|row| find(row, print).is_none())
            || row(&self.before, key).is_some_and(|row| find(row, print).is_none())
    }

    /// Is it new? From now on it is not.
    #[inline]
    pub fn is_new(&mut self, key: u64) -> bool {
        if self.len >= self.rows.len().saturating_mul(PRINTS / 2) {
            self.grow();
        }
        let print = print(key);
        let at = (key as usize) & self.rows.len().wrapping_sub(1);
        let Some(row_of) = self.rows.get_mut(at) else { return true };
        let Some(free) = find(row_of, print) else { return false };
        // A row that is full loses one of its prints: that stream is new once more.
        let place = if free < PRINTS { free } else { (key >> 32) as usize % PRINTS };
        if let Some(word) = row_of.get_mut(place / 4) {
            let shift = (place % 4).wrapping_mul(16) as u32;
            *word = (*word & !0xffff_u64.wrapping_shl(shift)) | print.wrapping_shl(shift);
        }
        self.len = self.len.saturating_add(1);
        row(&self.before, key).is_none_or(|row| find(row, print).is_some())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let rows_max = self.rows_max.max(ROWS_MIN);
        if self.rows.len() >= rows_max {
            return;
        }
        let rows = self.rows.len().saturating_mul(4).clamp(ROWS_MIN, rows_max);
        // A print does not say where it belongs in a larger set: what is in it stays where it is.
        self.before = core::mem::replace(&mut self.rows, vec![[0; ROW]; rows]);
        self.len = 0;
    }
}

/// Sixteen bits of a key, none of which says its row; never zero.
#[inline(always)]
fn print(key: u64) -> u64 {
    key >> 48 | 1
}

#[inline(always)]
fn row(rows: &[Row], key: u64) -> Option<&Row> {
    rows.get((key as usize) & rows.len().wrapping_sub(1))
}

/// Nothing where the print is in the row, else the first free place; [`PRINTS`] where there is none.
#[inline(always)]
fn find(row: &Row, print: u64) -> Option<usize> {
    // The lowest bit that is set is that of a zero; above it there may be more than are true.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let wanted = print.wrapping_mul(ONES);
    for (at, word) in row.iter().enumerate() {
        if zeros(word ^ wanted) != 0 {
            return None;
        }
        let free = zeros(*word);
        if free != 0 {
            return Some(at.saturating_mul(4).saturating_add(free.trailing_zeros() as usize / 16));
        }
    }
    Some(PRINTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_seen_and_nearly_nothing_else() {
        let mut seen = Seen::default();
        seen.set_max(1 << 20);
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 17);
        let mix = |n: u64| key(key(n).rotate_left(31));
        for n in 0..50_000 {
            seen.is_new(mix(n));
        }
        let again = (0..50_000).filter(|n| seen.is_new(mix(*n))).count();
        assert!(again < 5_500, "what came before the last growth but one is new once more: {again}");
        let third = (0..50_000).filter(|n| seen.is_new(mix(*n))).count();
        assert!(third < 50, "{third} of 50,000 are new a third time");
        assert!((0..50_000).all(|n| seen.has(mix(n)) || seen.is_new(mix(n))), "both say the same");
        let wrong = (1_000_000..1_010_000).filter(|n| !seen.is_new(mix(*n))).count();
        assert!(wrong < 20, "{wrong} of 10,000 were taken for seen");
        seen.clear();
        assert!(seen.is_new(mix(1)));
    }
}
