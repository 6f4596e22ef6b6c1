//! Sorting in place, small in a wasm module: the standard library's sort is ten kilobytes for each type that it sorts.
//!
//! Heap sort (Williams, 1964): O(n log n) in the worst case, no memory, not stable: whoever needs an order among equals says it in the
//! comparison. About twice as slow as the standard library's, so for lists that are sorted now and then.

use std::cmp::Ordering;

/// What is sorted, by position.
trait Sorted {
    fn len(&self) -> usize;
    fn is_less(&self, a: usize, b: usize) -> bool;
    fn swap(&mut self, a: usize, b: usize);
}

struct Slice<'a, T, F>(&'a mut [T], F);

impl<T, F: Fn(&T, &T) -> Ordering> Sorted for Slice<'_, T, F> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_less(&self, a: usize, b: usize) -> bool {
        match (self.0.get(a), self.0.get(b)) {
            (Some(a), Some(b)) => (self.1)(a, b) == Ordering::Less,
            _ => false,
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a < self.0.len() && b < self.0.len() {
            self.0.swap(a, b);
        }
    }
}

/// Sort by a comparison.
pub fn sort_by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    heap_sort(&mut Slice(list, compare));
}

/// Sort what has an order.
pub fn sort<T: Ord>(list: &mut [T]) {
    sort_by(list, T::cmp);
}

#[inline(never)]
fn heap_sort(list: &mut dyn Sorted) {
    let len = list.len();
    for root in (0..len / 2).rev() {
        sift(list, root, len);
    }
    for end in (1..len).rev() {
        list.swap(0, end);
        sift(list, 0, end);
    }
}

/// Bring what is at `root` down to its place among the first `end`.
fn sift(list: &mut dyn Sorted, mut root: usize, end: usize) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        if left >= end {
            return;
        }
        let right = left.saturating_add(1);
        let child = if right < end && list.is_less(left, right) { right } else { left };
        if !list.is_less(root, child) {
            return;
        }
        list.swap(root, child);
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_list_is_sorted() {
        for len in 0..=6_u32 {
            for code in 0..6_u32.pow(len) {
                let mut list: Vec<u32> = (0..len).map(|n| code / 6_u32.pow(n) % 6).collect();
                let mut expected = list.clone();
                expected.sort();
                sort(&mut list);
                assert_eq!(list, expected);
            }
        }
    }

    #[test]
    fn a_long_list_is_sorted() {
        let mut list: Vec<u64> =
            (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).collect();
        let mut expected = list.clone();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        sort_by(&mut list, |a, b| b.cmp(a));
        assert_eq!(list, expected);
    }
}
