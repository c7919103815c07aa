//! A set of shard indices that stays small when they arrive almost in order.

use std::collections::BTreeSet;

use crate::ShardIndex;

/// All indices below a low-water mark, and a few above it. The few are bounded by how far work runs ahead of the
/// slowest shard, not by the corpus.
#[derive(Debug, Default)]
pub(crate) struct ShardSet {
    /// Every index below it is in the set.
    low_water_mark: u64,
    above: BTreeSet<u64>,
}

impl ShardSet {
    /// Adds an index; false if it was there.
    pub(crate) fn insert(&mut self, shard: ShardIndex) -> bool {
        let index = u64::from(shard.0);
        if index < self.low_water_mark || !self.above.insert(index) {
            return false;
        }
        while self.above.remove(&self.low_water_mark) {
            self.low_water_mark += 1;
        }
        true
    }

    pub(crate) fn contains(&self, shard: ShardIndex) -> bool {
        let index = u64::from(shard.0);
        index < self.low_water_mark || self.above.contains(&index)
    }

    pub(crate) fn len(&self) -> u64 {
        self.low_water_mark + self.above.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(indices in proptest::collection::vec(0u32..40, 0..120)) {
            let (mut set, mut plain) = (ShardSet::default(), BTreeSet::new());
            for index in indices {
                prop_assert_eq!(set.insert(ShardIndex(index)), plain.insert(index));
                prop_assert_eq!(set.len(), plain.len() as u64);
            }
            for index in 0..41 {
                prop_assert_eq!(set.contains(ShardIndex(index)), plain.contains(&index));
            }
        }
    }

    #[test]
    fn indices_in_order_leave_nothing_above_the_mark() {
        let mut set = ShardSet::default();
        for index in [1, 0, 3, 2, u32::MAX] {
            set.insert(ShardIndex(index));
        }
        assert_eq!((set.low_water_mark, set.above.len()), (4, 1));
    }
}
