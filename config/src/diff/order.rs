//! Matching two lists by key, and finding what moved.

use std::collections::HashMap;
use std::hash::Hash;

/// How the items of an old list are found in a new one. All numbers are indices.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Matched {
    /// In the old list alone.
    pub removed: Vec<usize>,
    /// In both: (old, new), in the order of the new list.
    pub kept: Vec<(usize, usize)>,
    /// In the new list alone.
    pub added: Vec<usize>,
    /// Of the new list: the fewest kept items that, put elsewhere, give the new order.
    pub moved: Vec<usize>,
}

/// Matches two lists whose keys are unique.
///
/// Cost: O(n log n).
pub(super) fn matched<K: Eq + Hash>(old: impl Iterator<Item = K>, new: impl Iterator<Item = K>) -> Matched {
    let mut places: HashMap<K, usize> = old.enumerate().map(|(index, key)| (key, index)).collect();
    let mut result = Matched::default();
    for (index, key) in new.enumerate() {
        match places.remove(&key) {
            Some(before) => result.kept.push((before, index)),
            None => result.added.push(index),
        }
    }
    result.removed = places.into_values().collect();
    result.removed.sort_unstable();
    result.moved = moved(&result.kept);
    result
}

/// The new indices that are outside a longest run of kept items whose order is still the old one.
fn moved(kept: &[(usize, usize)]) -> Vec<usize> {
    // Patience sorting: `tails[n]` ends the best ascending run of n + 1 items; `before` links each run backwards.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(kept.len());
    for (at, (old, _)) in kept.iter().enumerate() {
        let length = tails.partition_point(|tail| kept[*tail].0 < *old);
        before.push(length.checked_sub(1).map(|shorter| tails[shorter]));
        match tails.get_mut(length) {
            Some(tail) => *tail = at,
            None => tails.push(at),
        }
    }
    let mut stays = vec![false; kept.len()];
    let mut next = tails.last().copied();
    while let Some(at) = next {
        stays[at] = true;
        next = before[at];
    }
    kept.iter().zip(stays).filter(|(_, stays)| !stays).map(|((_, new), _)| *new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(old: &str, new: &str) -> Matched {
        matched(old.chars(), new.chars())
    }

    #[test]
    fn what_is_gone_new_and_kept_is_told_apart() {
        let result = of("abc", "xcb");
        assert_eq!(result.removed, [0]);
        assert_eq!(result.added, [0]);
        assert_eq!(result.kept, [(2, 1), (1, 2)]);
    }

    #[test]
    fn the_fewest_items_move() {
        assert_eq!(of("abcd", "abcd").moved, []);
        assert_eq!(of("abcd", "dabc").moved, [0]);
        assert_eq!(of("abcd", "bcda").moved, [3]);
        assert_eq!(of("abcd", "dcba").moved.len(), 3);
        assert_eq!(of("abcd", "xbycz").moved, [], "what comes and goes moves nobody");
    }
}
