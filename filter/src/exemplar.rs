//! Exemplars: single observations that a folded point shows (DESIGN §3.2).
//!
//! In: `Exemplar` messages whose `filtered_attributes` already name what was folded away. Out: the few of a window that are kept, those
//! of the greatest value: the slow request is what a person looks for. The choice depends on the set of what came and not on its
//! order, so every embedder makes the same one. Equal bytes count once. Wrong where a uniform sample is wanted.

use crate::units::UnixNanos;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// What was observed.
    pub value: f64,
    /// When.
    pub time: UnixNanos,
    /// The body of its message.
    pub bytes: Box<[u8]>,
}

/// The kept ones of a window, greatest first. A word each while there are none.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::box_collection, reason = "nearly every window has none: a word instead of three")]
pub struct Exemplars(Option<Box<Vec<Exemplar>>>);

impl Exemplars {
    /// Keep it, if it is among the `max` greatest.
    pub fn offer(&mut self, it: Exemplar, max: usize) {
        if max == 0 || !it.value.is_finite() {
            return;
        }
        let list = self.0.get_or_insert_default();
        let before = |a: &Exemplar, b: &Exemplar| {
            let order = a.value.total_cmp(&b.value).then(a.time.cmp(&b.time)).then(a.bytes.cmp(&b.bytes));
            order.is_gt()
        };
        let at = list.partition_point(|other| before(other, &it));
        if list.get(at) == Some(&it) || at >= max {
            return;
        }
        list.insert(at, it);
        list.truncate(max);
    }

    /// Keep those of another window too.
    pub fn merge(&mut self, other: Exemplars, max: usize) {
        other.0.into_iter().flat_map(|list| *list).for_each(|it| self.offer(it, max));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Exemplar> {
        self.0.iter().flat_map(|list| list.iter())
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.iter()
            .fold(0, |sum, it| sum.saturating_add(it.bytes.len()).saturating_add(size_of::<Exemplar>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f64, time: u64, bytes: &[u8]) -> Exemplar {
        Exemplar { value, time: UnixNanos(time), bytes: bytes.into() }
    }

    #[test]
    fn the_greatest_stay_whatever_the_order() {
        let all =
            [one(1.0, 5, b"a"), one(9.0, 1, b"b"), one(3.0, 2, b"c"), one(9.0, 2, b"d"), one(9.0, 2, b"d")];
        let mut orders = vec![all.to_vec(), all.iter().rev().cloned().collect()];
        orders[0].rotate_left(2);
        for order in orders {
            let mut kept = Exemplars::default();
            order.into_iter().for_each(|it| kept.offer(it, 3));
            let bytes: Vec<&[u8]> = kept.iter().map(|it| &*it.bytes).collect();
            assert_eq!(bytes, [b"d", b"b", b"c"], "greatest, then newest, each once");
        }
        let mut none = Exemplars::default();
        none.offer(one(1.0, 1, b"a"), 0);
        none.offer(one(f64::NAN, 1, b"a"), 3);
        assert_eq!(none.iter().count(), 0);
    }

    #[test]
    fn none_costs_a_word() {
        assert_eq!(size_of::<Exemplars>(), size_of::<usize>());
    }
}
