//! The share of a job that one of several coordinators does.

use std::fmt;
use std::str::FromStr;

use crate::ShardIndex;

/// The shards of a job that a coordinator does: those whose index leaves the remainder `index` when divided
/// by `count`. All coordinators therefore advance through the corpus together, and none is left with a long
/// end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    index: u32,
    count: u32,
}

/// The text is not a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a partition: write I/N with I from 0 to N - 1, for example 0/4 for the first of four \
     coordinators"
)]
pub struct InvalidPartition(pub String);

impl Partition {
    /// The whole job.
    pub const WHOLE: Partition = Partition { index: 0, count: 1 };

    /// Partition `index` of `count`; `None` unless `index` is below `count`.
    pub fn new(index: u32, count: u32) -> Option<Partition> {
        (index < count).then_some(Partition { index, count })
    }

    /// Whether this partition has the shard.
    pub fn owns(self, shard: ShardIndex) -> bool {
        shard.0 % self.count == self.index
    }

    /// The number of the job's partitions.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether this is all of the job.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }
}

impl Default for Partition {
    fn default() -> Self {
        Partition::WHOLE
    }
}

impl FromStr for Partition {
    type Err = InvalidPartition;

    fn from_str(text: &str) -> Result<Partition, InvalidPartition> {
        let parse = || {
            let (index, count) = text.split_once('/')?;
            Partition::new(index.parse().ok()?, count.parse().ok()?)
        };
        parse().ok_or_else(|| InvalidPartition(text.to_owned()))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_share_all_shards_and_no_shard_is_in_two() {
        let partitions: Vec<Partition> = (0..3).map(|index| Partition::new(index, 3).unwrap()).collect();
        for shard in (0..20).map(ShardIndex) {
            assert_eq!(partitions.iter().filter(|partition| partition.owns(shard)).count(), 1);
        }
        assert!((0..20).map(ShardIndex).all(|shard| Partition::WHOLE.owns(shard)));
    }

    #[test]
    fn a_partition_reads_back_as_written() {
        assert_eq!("2/3".parse::<Partition>().unwrap().to_string(), "2/3");
        for wrong in ["3/3", "0/0", "1", "-1/2", "a/b", "1/2/3", ""] {
            let error = wrong.parse::<Partition>().unwrap_err().to_string();
            assert!(error.contains("I/N") && error.contains(&format!("`{wrong}`")), "{error}");
        }
    }
}
