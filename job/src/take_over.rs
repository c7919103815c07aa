//! The shards of other partitions that a coordinator finishes once its own are done.
//!
//! A wrong guess only causes double work: the first commit of a shard stands.

use std::time::Duration;

use crate::{Partition, ShardIndex, ShardSet};

/// Up to this number, all missing shards of a silent partition are taken at once; above it, half of them.
const MAX_TAKEN_WHOLE: usize = 16;

/// A partition that commits shards is helped while it lacks more than this number: fewer are already in
/// flight.
const MIN_MISSING_TO_HELP: usize = 64;

/// The other partitions of a job, as seen by a coordinator without work.
#[derive(Debug)]
pub struct OtherPartitions {
    own: Partition,
    num_shards: u32,
    patience: Duration,
    taken_over: ShardSet,
    /// By partition.
    seen: Vec<Seen>,
}

/// The progress of a partition's own coordinator.
#[derive(Debug, Clone, Copy)]
struct Seen {
    num_committed: u64,
    moved_at: Duration,
}

impl OtherPartitions {
    /// The other partitions of a job with `num_shards` shards. A partition is silent if it commits nothing
    /// for `patience`, counted from `now` at the earliest.
    pub fn new(own: Partition, num_shards: u32, patience: Duration, now: Duration) -> Self {
        let seen = vec![Seen { num_committed: 0, moved_at: now }; own.count() as usize];
        OtherPartitions { own, num_shards, patience, taken_over: ShardSet::default(), seen }
    }

    /// The shards to finish now, given the committed ones. None as long as it is better to wait and look
    /// again.
    ///
    /// A silent partition may come back, and a working one takes its shards from the front. The last half of
    /// the missing shards is therefore taken, and both sides meet in the middle.
    pub fn look(&mut self, committed: &ShardSet, now: Duration) -> ShardSet {
        let count = self.seen.len();
        let mut missing: Vec<Vec<ShardIndex>> = vec![Vec::new(); count];
        let mut num_committed = vec![0; count];
        for shard in (0..self.num_shards).map(ShardIndex).filter(|&shard| !self.own.owns(shard)) {
            let partition = shard.0 as usize % count;
            if !committed.contains(shard) {
                missing[partition].push(shard);
            } else if !self.taken_over.contains(shard) {
                num_committed[partition] += 1;
            }
        }
        let mut taken = ShardSet::default();
        for ((missing, num_committed), seen) in missing.iter().zip(num_committed).zip(&mut self.seen) {
            if num_committed > seen.num_committed {
                *seen = Seen { num_committed, moved_at: now };
            }
            let is_silent = now.saturating_sub(seen.moved_at) >= self.patience;
            let num_taken = match missing.len() {
                number if is_silent && number <= MAX_TAKEN_WHOLE => number,
                number if is_silent || number > MIN_MISSING_TO_HELP => number.div_ceil(2),
                _ => 0,
            };
            for &shard in &missing[missing.len() - num_taken..] {
                taken.insert(shard);
                self.taken_over.insert(shard);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn shards(indices: impl IntoIterator<Item = u32>) -> ShardSet {
        indices.into_iter().map(ShardIndex).collect()
    }

    fn taken(set: &ShardSet) -> Vec<u32> {
        set.iter().map(|shard| shard.0).collect()
    }

    #[test]
    fn a_silent_partition_is_finished_once_patience_is_over() {
        let mut others = OtherPartitions::new(Partition::new(0, 2).unwrap(), 8, PATIENCE, seconds(0));
        let committed = shards([0, 2, 4, 6, 1]);
        assert!(others.look(&committed, seconds(10)).is_empty());
        assert!(others.look(&committed, seconds(69)).is_empty(), "a commit was seen ten seconds in");
        assert_eq!(taken(&others.look(&committed, seconds(70))), [3, 5, 7]);
    }

    #[test]
    fn a_partition_that_commits_keeps_its_last_shards() {
        let mut others = OtherPartitions::new(Partition::new(1, 2).unwrap(), 8, PATIENCE, seconds(0));
        for second in 0..4 {
            let committed = shards((1..8).step_by(2).chain((0..second).map(|index| 2 * index)));
            assert!(others.look(&committed, seconds(59 * u64::from(second))).is_empty());
        }
    }

    #[test]
    fn a_partition_far_behind_is_helped_from_its_end() {
        let mut others = OtherPartitions::new(Partition::new(0, 2).unwrap(), 400, PATIENCE, seconds(0));
        let committed = shards((0..400).step_by(2).chain((1..201).step_by(2)));
        assert_eq!(taken(&others.look(&committed, seconds(1))), Vec::from_iter((301..400).step_by(2)));
    }

    #[test]
    fn commits_of_taken_over_shards_are_no_sign_of_life() {
        let mut others = OtherPartitions::new(Partition::new(0, 2).unwrap(), 100, PATIENCE, seconds(0));
        let own = (0..100).step_by(2);
        assert_eq!(others.look(&shards(own.clone()), seconds(60)).len(), 25);
        let half = shards(own.chain((51..100).step_by(2)));
        assert_eq!(others.look(&half, seconds(61)).len(), 13);
    }
}
