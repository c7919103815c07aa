//! Cuts the stream of records into shards, the unit of leasing and of output commit.
//!
//! A shard is a contiguous slice of the corpus and may span files. Where it ends depends on the stream and the
//! limits alone, so a restarted job cuts the same shards.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::{Record, RecordFailure};
use crate::spec::ShardLimits;

/// Position of a shard in its job, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u32);

/// A contiguous slice of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// Position in the job.
    pub index: ShardIndex,
    /// Its records in corpus order. Never empty.
    pub entries: Vec<ShardEntry>,
}

/// One input record.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardEntry {
    /// A record to process; its `index_in_shard` is its position among the entries.
    Prompt(Record),
    /// A record that failed while it was read.
    Failed(RecordFailure),
}

/// Collects entries until the next one would exceed a limit.
#[derive(Debug)]
pub struct ShardCutter {
    limits: ShardLimits,
    next_index: u32,
    entries: Vec<ShardEntry>,
    num_bytes: u64,
}

impl ShardCutter {
    /// Starts at shard 0.
    pub fn new(limits: ShardLimits) -> ShardCutter {
        ShardCutter { limits, next_index: 0, entries: Vec::new(), num_bytes: 0 }
    }

    /// Takes the next item of the corpus; returns the shard before it if that ends here.
    pub fn push(&mut self, item: Result<Record, RecordFailure>) -> Option<Shard> {
        let item_num_bytes = match &item {
            Ok(record) => record.payload_num_bytes(),
            Err(_) => 0,
        };
        let full = self.entries.len() >= self.limits.max_records as usize
            || self.num_bytes.saturating_add(item_num_bytes) > self.limits.max_bytes;
        let cut = if full { self.finish() } else { None };
        self.num_bytes += item_num_bytes;
        self.entries.push(match item {
            Ok(mut record) => {
                record.index_in_shard = self.entries.len() as u32; // below max_records, a u32
                ShardEntry::Prompt(record)
            }
            Err(failure) => ShardEntry::Failed(failure),
        });
        cut
    }

    /// The rest, after the last item of the corpus.
    pub fn finish(&mut self) -> Option<Shard> {
        if self.entries.is_empty() {
            return None;
        }
        let index = ShardIndex(self.next_index);
        self.next_index = self.next_index.checked_add(1).expect("a job has fewer than 2^32 shards");
        self.num_bytes = 0;
        Some(Shard { index, entries: std::mem::take(&mut self.entries) })
    }
}

impl fmt::Display for ShardIndex {
    /// Six digits or more, as in object names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{FailureCode, RecordSource};
    use proptest::prelude::*;

    fn item(line: u64, text_num_bytes: usize) -> Result<Record, RecordFailure> {
        let source = RecordSource { uri: "a.txt".into(), line };
        if text_num_bytes == 0 {
            let message = String::new();
            return Err(RecordFailure { source, id: None, code: FailureCode::EmptyText, message });
        }
        let text = "x".repeat(text_num_bytes);
        Ok(Record { index_in_shard: 0, id: String::new(), source, text, fields: serde_json::Map::new() })
    }

    fn cut(sizes: &[usize], max_records: u32, max_bytes: u64) -> Vec<Shard> {
        let mut cutter = ShardCutter::new(ShardLimits { max_records, max_bytes });
        let mut shards: Vec<Shard> =
            sizes.iter().zip(1..).filter_map(|(&size, line)| cutter.push(item(line, size))).collect();
        shards.extend(cutter.finish());
        shards
    }

    fn lengths(shards: &[Shard]) -> Vec<usize> {
        shards.iter().map(|shard| shard.entries.len()).collect()
    }

    #[test]
    fn shards_are_cut_by_records_and_by_bytes() {
        assert_eq!(lengths(&cut(&[1, 1, 1, 1, 1], 2, 100)), [2, 2, 1]);
        assert_eq!(lengths(&cut(&[4, 4, 4, 4, 3], 100, 8)), [2, 2, 1]);
        assert_eq!(lengths(&cut(&[1, 50, 1], 100, 8)), [1, 1, 1]); // a large record is alone
        assert_eq!(lengths(&cut(&[], 2, 100)), [0usize; 0]);
    }

    #[test]
    fn failures_count_as_entries_and_keep_their_place() {
        let shards = cut(&[1, 0, 1], 3, 100);
        assert!(matches!(&shards[0].entries[1], ShardEntry::Failed(failure) if failure.source.line == 2));
        assert!(matches!(&shards[0].entries[2], ShardEntry::Prompt(record) if record.index_in_shard == 2));
    }

    proptest! {
        #[test]
        fn every_item_is_in_exactly_one_shard_in_order(
            sizes in proptest::collection::vec(0usize..20, 0..60), max_records in 1u32..9, max_bytes in 1u64..40
        ) {
            let shards = cut(&sizes, max_records, max_bytes);
            let mut lines = Vec::new();
            for (position, shard) in shards.iter().enumerate() {
                prop_assert_eq!(shard.index, ShardIndex(position as u32));
                prop_assert!(!shard.entries.is_empty() && shard.entries.len() <= max_records as usize);
                let mut num_bytes = 0;
                for (index, entry) in shard.entries.iter().enumerate() {
                    match entry {
                        ShardEntry::Prompt(record) => {
                            prop_assert_eq!(record.index_in_shard as usize, index);
                            num_bytes += record.text.len() as u64;
                            lines.push(record.source.line);
                        }
                        ShardEntry::Failed(failure) => lines.push(failure.source.line),
                    }
                }
                prop_assert!(num_bytes <= max_bytes || shard.entries.iter().filter(|entry| matches!(entry, ShardEntry::Prompt(_))).count() == 1);
            }
            prop_assert_eq!(lines, (1..=sizes.len() as u64).collect::<Vec<_>>());
        }
    }
}
