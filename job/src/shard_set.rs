//! A set of shard indices: one bit a shard, in chunks that exist only if they have a shard.

use std::collections::BTreeMap;
use std::fmt;

use crate::ShardIndex;

/// 64-bit words of a chunk, which covers 65,536 shards in 8 KiB.
const CHUNK_NUM_WORDS: usize = 1024;
const CHUNK_NUM_SHARDS: u32 = 64 * CHUNK_NUM_WORDS as u32;

/// A set of a job's shards. 10 million records in shards of 256 take 8 KiB.
#[derive(Clone, Default)]
pub struct ShardSet {
    chunks: BTreeMap<u32, Box<[u64; CHUNK_NUM_WORDS]>>,
    len: u64,
}

impl ShardSet {
    /// Adds a shard; returns false if it was there.
    pub fn insert(&mut self, shard: ShardIndex) -> bool {
        let (chunk, word, bit) = place(shard);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_NUM_WORDS]));
        let is_new = chunk[word] & bit == 0;
        chunk[word] |= bit;
        self.len += u64::from(is_new);
        is_new
    }

    /// Whether the shard is in the set.
    pub fn contains(&self, shard: ShardIndex) -> bool {
        let (chunk, word, bit) = place(shard);
        self.chunks.get(&chunk).is_some_and(|chunk| chunk[word] & bit != 0)
    }

    /// The number of shards in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a set without shards.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every shard of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = ShardIndex> {
        self.chunks.iter().flat_map(|(chunk, words)| {
            let first = chunk * CHUNK_NUM_SHARDS;
            let is_set = |index: &u32| words[*index as usize / 64] & (1 << (index % 64)) != 0;
            (0..CHUNK_NUM_SHARDS).filter(is_set).map(move |index| ShardIndex(first + index))
        })
    }

    /// The last shard of the set.
    pub fn last(&self) -> Option<ShardIndex> {
        let (chunk, words) = self.chunks.last_key_value()?;
        let word = words.iter().rposition(|&word| word != 0)?;
        let bit = 63 - words[word].leading_zeros();
        Some(ShardIndex(chunk * CHUNK_NUM_SHARDS + word as u32 * 64 + bit))
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardSet").field("len", &self.len).field("last", &self.last()).finish()
    }
}

impl FromIterator<ShardIndex> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardIndex>>(shards: I) -> ShardSet {
        let mut set = ShardSet::default();
        set.extend(shards);
        set
    }
}

impl Extend<ShardIndex> for ShardSet {
    fn extend<I: IntoIterator<Item = ShardIndex>>(&mut self, shards: I) {
        shards.into_iter().for_each(|shard| {
            self.insert(shard);
        });
    }
}

fn place(ShardIndex(index): ShardIndex) -> (u32, usize, u64) {
    let in_chunk = index % CHUNK_NUM_SHARDS;
    (index / CHUNK_NUM_SHARDS, in_chunk as usize / 64, 1 << (in_chunk % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(
            indices in proptest::collection::vec(
                prop_oneof![0u32..200, 65_500..65_600u32, any::<u32>()],
                0..120,
            )
        ) {
            let (mut set, mut plain) = (ShardSet::default(), BTreeSet::new());
            for index in indices {
                prop_assert_eq!(set.contains(ShardIndex(index)), plain.contains(&index));
                prop_assert_eq!(set.insert(ShardIndex(index)), plain.insert(index));
                prop_assert_eq!(set.len(), plain.len() as u64);
            }
            prop_assert_eq!(set.last(), plain.last().copied().map(ShardIndex));
            prop_assert!(set.iter().map(|shard| shard.0).eq(plain));
        }
    }

    #[test]
    fn ten_million_records_take_one_chunk() {
        let set: ShardSet = (0..10_000_000 / 256).map(ShardIndex).collect();
        assert_eq!((set.len(), set.chunks.len()), (39_062, 1));
    }
}
