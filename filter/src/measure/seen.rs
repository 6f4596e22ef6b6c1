//! Which streams came in this generation already: sixteen bits each, in rows of one cache line.
//!
//! Says "seen" wrongly about once in two thousand times (up to 32 prints of 16 bits in a row), which an estimate with two percent of error does
//! not notice; never "new" for what is in it, unless its row overflowed, which only costs time. Nothing that is enforced relies on it.

/// Prints of a row: 64 bytes.
const ROW: usize = 32;
/// Rows at first: 4 KiB.
const ROWS_MIN: usize = 64;

/// The set.
#[derive(Default)]
pub struct Seen {
    prints: Vec<u16>,
    len: usize,
    rows_max: usize,
}

impl Seen {
    /// Take up to `bytes_max` bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.rows_max =
            (bytes_max / (2 * ROW)).max(ROWS_MIN).checked_next_power_of_two().unwrap_or(ROWS_MIN) / 2;
        self.rows_max = self.rows_max.max(ROWS_MIN);
    }

    /// Forget all, and keep the room.
    pub fn clear(&mut self) {
        self.prints.fill(0);
        self.len = 0;
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.prints.capacity().saturating_mul(2)
    }

    /// Did it come already?
    #[inline]
    pub fn has(&self, key: u64) -> bool {
        let rows = self.prints.len() / ROW;
        let start = ((key as usize) & rows.wrapping_sub(1)).saturating_mul(ROW);
        let row = self.prints.get(start..start.saturating_add(ROW));
        row.is_some_and(|row| row.contains(&((key >> 48) as u16 | 1)))
    }

    /// Is it new? From now on it is not.
    #[inline]
    pub fn is_new(&mut self, key: u64) -> bool {
        let rows = self.prints.len() / ROW;
        if self.len >= rows.saturating_mul(ROW / 2) && rows < self.rows_max.max(ROWS_MIN) {
            // What was in it is new once more: that costs an update each, and nothing else.
            let rows = rows.saturating_mul(4).clamp(ROWS_MIN, self.rows_max.max(ROWS_MIN));
            self.prints.clear();
            self.prints.resize(rows.saturating_mul(ROW), 0);
            self.len = 0;
        }
        let rows = self.prints.len() / ROW;
        let row = (key as usize) & rows.wrapping_sub(1);
        let print = (key >> 48) as u16 | 1;
        let start = row.saturating_mul(ROW);
        let Some(row) = self.prints.get_mut(start..start.saturating_add(ROW)) else { return true };
        if row.contains(&print) {
            return false;
        }
        let at = row.iter().position(|p| *p == 0).unwrap_or((key >> 32) as usize % ROW);
        if let Some(place) = row.get_mut(at) {
            *place = print;
        }
        self.len = self.len.saturating_add(1);
        true
    }
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
        assert!(again < 40_000, "after growth at most what came before is new once more: {again}");
        let third = (0..50_000).filter(|n| seen.is_new(mix(*n))).count();
        assert!(third < 500, "{third} of 50,000 are new a third time");
        let wrong = (1_000_000..1_010_000).filter(|n| !seen.is_new(mix(*n))).count();
        assert!(wrong < 20, "{wrong} of 10,000 were taken for seen");
        seen.clear();
        assert!(seen.is_new(mix(1)));
    }
}
