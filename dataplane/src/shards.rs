//! A map of which copies share what neither changes.
//!
//! As [`crate::paged`], for keys: a copy costs a pointer; a change that of the list of shards and of the shard that the key
//! is in, some hundred entries. The hash is for speed and random per map: keys come from the configuration, packets only
//! ask.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Entries of a shard when another shard is due.
const FULL: usize = 256;

/// Entries whose hashes have the same part of the upper half.
type Shard<K, V> = Arc<HashTable<(K, V)>>;

/// Values by key.
#[derive(Clone, Debug)]
pub struct Shards<K, V> {
    hasher: DefaultHashBuilder,
    /// A power of two of them; by the upper half of the hash, as a table goes by both ends.
    shards: Arc<[Shard<K, V>]>,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let shards = Arc::new([Arc::new(HashTable::new())]);
        Self { hasher: DefaultHashBuilder::default(), shards, len: 0 }
    }
}

impl<K, V> Shards<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(key, value)| (key, value))
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

impl<K: Hash + Eq, V> Shards<K, V> {
    /// The value of a key.
    #[inline]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(self.place(hash))?;
        shard.find(hash, |(known, _)| known.borrow() == key).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    #[inline]
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// Sets the value of a key, and returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let at = self.place(hash);
        let hasher = &self.hasher;
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(at)?);
        if let Some((_, known)) = shard.find_mut(hash, |(known, _)| *known == key) {
            return Some(std::mem::replace(known, value));
        }
        shard.insert_unique(hash, (key, value), |(key, _)| hasher.hash_one(key));
        self.len += 1;
        if self.len > self.shards.len() * FULL {
            self.grow();
        }
        None
    }

    /// Takes a key out, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let at = self.place(hash);
        // a key that is not there copies nothing
        self.shards.get(at)?.find(hash, |(known, _)| known == key)?;
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(at)?);
        let ((_, value), _) = shard.find_entry(hash, |(known, _)| known == key).ok()?.remove();
        self.len -= 1;
        Some(value)
    }

    /// Four times the shards; seldom enough that entries are moved less than twice on the average.
    fn grow(&mut self) {
        let count = self.shards.len() * 4;
        let mut shards: Vec<HashTable<(K, V)>> =
            (0..count).map(|_| HashTable::with_capacity(FULL / 2)).collect();
        for entry in self.shards.iter().flat_map(|shard| shard.iter()) {
            let hash = self.hasher.hash_one(&entry.0);
            if let Some(shard) = shards.get_mut((hash >> 32) as usize & (count - 1)) {
                shard.insert_unique(hash, entry.clone(), |(key, _)| self.hasher.hash_one(key));
            }
        }
        self.shards = shards.into_iter().map(Arc::new).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(
            steps in proptest::collection::vec((0u32..3000, proptest::option::weighted(0.7, any::<u8>())), 0..4000)
        ) {
            let (mut map, mut model) = (Shards::default(), HashMap::new());
            let mut copies = Vec::new();
            for (at, (key, value)) in steps.into_iter().enumerate() {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                if at % 1000 == 500 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                let all: HashMap<u32, u8> = map.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert!((0..3000).all(|key| map.get(&key) == model.get(&key)));
                prop_assert_eq!(all, model);
            }
        }
    }
}
