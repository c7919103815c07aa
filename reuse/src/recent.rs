//! A bounded memory of values that were recently made or asked for.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Values by key, in bounded memory. Those that were not asked for in a while are forgotten.
///
/// There are two generations. A value that is made or found is in the young one; when that has half of the
/// room, it becomes the old one, and the previous old one is forgotten. Each step is constant time, without
/// a list of all values in the order of their use.
#[derive(Debug)]
pub struct Recent<K, V> {
    max_num_bytes: usize,
    young: Generation<K, V>,
    old: Generation<K, V>,
}

#[derive(Debug)]
struct Generation<K, V> {
    values: HashMap<K, (V, usize)>,
    num_bytes: usize,
}

impl<K, V> Default for Generation<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), num_bytes: 0 }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// A memory of at most `max_num_bytes`, as the callers of [`Recent::insert`] count them.
    #[must_use]
    pub fn new(max_num_bytes: usize) -> Self {
        Self { max_num_bytes, young: Generation::default(), old: Generation::default() }
    }

    /// The value of a key, if it is remembered.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some((value, _)) = self.young.values.get(key) {
            return Some(value.clone());
        }
        let (key, (value, num_bytes)) = self.old.values.remove_entry(key)?;
        self.old.num_bytes -= num_bytes;
        self.insert(key, value.clone(), num_bytes);
        Some(value)
    }

    /// Remembers a value of `num_bytes`, with its key. One that takes more than half of the room is not kept.
    pub fn insert(&mut self, key: K, value: V, num_bytes: usize) {
        let room = self.max_num_bytes / 2;
        if num_bytes > room {
            return;
        }
        for generation in [&mut self.young, &mut self.old] {
            if let Some((_, replaced)) = generation.values.remove(&key) {
                generation.num_bytes -= replaced;
            }
        }
        if self.young.num_bytes + num_bytes > room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.values.insert(key, (value, num_bytes));
        self.young.num_bytes += num_bytes;
    }

    /// Bytes of all values that are remembered.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.young.num_bytes + self.old.num_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_remembered_while_it_is_asked_for() {
        let mut recent = Recent::new(100);
        recent.insert("kept", 0, 10);
        for number in 1..100 {
            recent.insert(Box::leak(number.to_string().into_boxed_str()), number, 10);
            assert_eq!(recent.get("kept"), Some(0), "after {number}");
            assert!(recent.num_bytes() <= 100);
        }
        assert_eq!(recent.get("1"), None);
        assert_eq!(recent.get("99"), Some(99));
    }

    #[test]
    fn a_value_that_is_replaced_or_too_large_takes_no_room() {
        let mut recent = Recent::new(100);
        for value in 0..20 {
            recent.insert("same", value, 30);
        }
        assert_eq!((recent.get("same"), recent.num_bytes()), (Some(19), 30));
        recent.insert("large", 0, 51);
        assert_eq!((recent.get("large"), recent.num_bytes()), (None, 30));
    }
}
