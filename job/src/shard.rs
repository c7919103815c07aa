//! Cuts the stream of records into shards, the unit of leasing and of output commit.
//!
//! A shard is a contiguous slice of the corpus and may span files. Its end depends only on the stream and the
//! limits, so a restarted job cuts the same shards. An item weighs the bytes of its row in the file, so
//! shards can be cut without parsing rows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::ShardLimits;
use baton_formats::{Record, RecordFailure};

/// Position of a shard in its job, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u32);

/// A contiguous slice of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// Position in the job.
    pub index: ShardIndex,
    /// The job's entries before its first.
    pub first_entry: u64,
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

/// Collects entries until the next one would exceed a limit. Unwanted shards are only counted.
#[derive(Debug)]
pub struct ShardCutter<W> {
    limits: ShardLimits,
    is_wanted: W,
    next_index: u32,
    wants_next: bool,
    /// Entries of the shards that have ended.
    num_entries_cut: u64,
    /// Entries of the incomplete shard.
    num_entries: u32,
    num_bytes: u64,
    entries: Vec<ShardEntry>,
    input_start: InputStart,
}

/// The start of the current input.
#[derive(Debug, Clone, Copy, Default)]
struct InputStart {
    shard: u32,
    /// Entries of that shard before it.
    num_entries: u32,
    num_bytes: u64,
}

impl<W: Fn(ShardIndex) -> bool> ShardCutter<W> {
    /// Starts at shard 0. `is_wanted` says which shards are returned.
    pub fn new(limits: ShardLimits, is_wanted: W) -> ShardCutter<W> {
        let wants_next = is_wanted(ShardIndex(0));
        ShardCutter {
            limits,
            is_wanted,
            next_index: 0,
            wants_next,
            num_entries_cut: 0,
            num_entries: 0,
            num_bytes: 0,
            entries: Vec::new(),
            input_start: InputStart::default(),
        }
    }

    /// Announces that the next items belong to another input.
    pub fn begin_input(&mut self) {
        let ShardCutter { next_index: shard, num_entries, num_bytes, .. } = *self;
        self.input_start = InputStart { shard, num_entries, num_bytes };
    }

    /// Takes back the current input's items from the incomplete shard, because the rest of the input cannot
    /// be read; returns their number. The next input continues in their place.
    ///
    /// Ended shards keep the input's items, since they may be committed. The end of each later shard
    /// therefore depends only on the items before the break, and never on the speed of the job.
    pub fn abandon_input(&mut self) -> u32 {
        let begins_here = self.input_start.shard == self.next_index;
        let kept = if begins_here { self.input_start } else { InputStart::default() };
        let num_taken_back = self.num_entries - kept.num_entries;
        self.entries.truncate(kept.num_entries as usize);
        (self.num_entries, self.num_bytes) = (kept.num_entries, kept.num_bytes);
        num_taken_back
    }

    /// Takes the next item of the corpus, which weighs `num_bytes`; `read` is called only if its shard is
    /// wanted. Returns the previous shard if it ends here and is wanted.
    pub fn push(
        &mut self,
        num_bytes: u64,
        read: impl FnOnce() -> Result<Record, RecordFailure>,
    ) -> Option<Shard> {
        let full = self.num_entries >= self.limits.records_per_shard
            || (self.num_entries > 0
                && self.num_bytes.saturating_add(num_bytes) > self.limits.bytes_per_shard);
        let cut = if full { self.finish() } else { None };
        if self.wants_next {
            self.entries.push(match read() {
                Ok(mut record) => {
                    record.index_in_shard = self.num_entries;
                    ShardEntry::Prompt(record)
                }
                Err(failure) => ShardEntry::Failed(failure),
            });
        }
        self.num_entries += 1;
        self.num_bytes += num_bytes;
        cut
    }

    /// The last shard, after the last item of the corpus, if there is one and it is wanted.
    pub fn finish(&mut self) -> Option<Shard> {
        if self.num_entries == 0 {
            return None;
        }
        let (index, was_wanted) = (ShardIndex(self.next_index), self.wants_next);
        self.next_index = self.next_index.checked_add(1).expect("a job has fewer than 2^32 shards");
        let first_entry = self.num_entries_cut;
        self.num_entries_cut += u64::from(self.num_entries);
        self.wants_next = (self.is_wanted)(ShardIndex(self.next_index));
        (self.num_entries, self.num_bytes) = (0, 0);
        was_wanted.then(|| Shard { index, first_entry, entries: std::mem::take(&mut self.entries) })
    }

    /// The shard of the last item, or possibly of the next one.
    pub fn current(&self) -> ShardIndex {
        ShardIndex(self.next_index)
    }

    /// Shards that have ended so far, wanted or not; after [`ShardCutter::finish`], all shards.
    pub fn num_shards(&self) -> u32 {
        self.next_index
    }
}

impl Shard {
    /// Its records to process, in order.
    pub fn prompts(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().filter_map(ShardEntry::record)
    }
}

impl ShardEntry {
    /// The record, if it is one to process.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            ShardEntry::Prompt(record) => Some(record),
            ShardEntry::Failed(_) => None,
        }
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
    use baton_formats::{FailureCode, RecordSource};
    use proptest::prelude::*;

    fn item(line: u64, text_num_bytes: usize) -> Result<Record, RecordFailure> {
        let source = RecordSource { uri: "a.txt".into(), line };
        if text_num_bytes == 0 {
            let message = String::new();
            return Err(RecordFailure { source, id: None, code: FailureCode::EmptyText, message });
        }
        let text = "x".repeat(text_num_bytes);
        Ok(Record::new(0, "", source, text))
    }

    fn cut(sizes: &[usize], records_per_shard: u32, bytes_per_shard: u64) -> Vec<Shard> {
        cut_wanted(sizes, ShardLimits { records_per_shard, bytes_per_shard }, |_| true)
    }

    fn cut_wanted(
        sizes: &[usize],
        limits: ShardLimits,
        is_wanted: impl Fn(ShardIndex) -> bool,
    ) -> Vec<Shard> {
        let mut cutter = ShardCutter::new(limits, is_wanted);
        let mut shards: Vec<Shard> = sizes
            .iter()
            .zip(1..)
            .filter_map(|(&size, line)| cutter.push(size as u64, || item(line, size)))
            .collect();
        shards.extend(cutter.finish());
        shards
    }

    #[test]
    fn shards_that_are_not_wanted_are_counted_and_not_read() {
        let mut cutter =
            ShardCutter::new(ShardLimits { records_per_shard: 2, bytes_per_shard: 100 }, |shard| {
                shard.0 == 1
            });
        for line in 1..=2 {
            assert_eq!(cutter.push(1, || panic!("line {line} is not wanted")), None);
        }
        assert_eq!(cutter.push(1, || item(3, 1)), None);
        assert_eq!(cutter.push(1, || item(4, 1)), None);
        let shard = cutter.push(1, || panic!("not wanted")).unwrap();
        assert_eq!((shard.index, shard.entries.len()), (ShardIndex(1), 2));
        assert_eq!((cutter.finish(), cutter.num_shards()), (None, 3));
    }

    /// Pushes items of one byte, and returns the lines of the shards that end.
    fn push_lines(
        cutter: &mut ShardCutter<impl Fn(ShardIndex) -> bool>,
        lines: std::ops::RangeInclusive<u64>,
    ) -> Vec<Vec<u64>> {
        lines.filter_map(|line| cutter.push(1, || item(line, 1))).map(|shard| lines_of(&shard)).collect()
    }

    fn lines_of(shard: &Shard) -> Vec<u64> {
        shard.prompts().map(|record| record.source.line).collect()
    }

    #[test]
    fn an_abandoned_input_leaves_ended_shards_and_no_trace_in_the_one_that_is_cut() {
        for num_broken_rows in [0, 1, 2, 5] {
            let mut cutter =
                ShardCutter::new(ShardLimits { records_per_shard: 3, bytes_per_shard: 100 }, |shard| {
                    shard.0 != 9
                });
            cutter.begin_input();
            assert!(push_lines(&mut cutter, 1..=2).is_empty());
            cutter.begin_input();
            let cut = push_lines(&mut cutter, 11..=10 + num_broken_rows);
            let (cut_expected, num_taken_back) = match num_broken_rows {
                0 | 1 => (vec![], num_broken_rows as u32),
                2 => (vec![vec![1, 2, 11]], 1),
                _ => (vec![vec![1, 2, 11], vec![12, 13, 14]], 1),
            };
            assert_eq!(cut, cut_expected);
            assert_eq!(cutter.abandon_input(), num_taken_back);
            cutter.begin_input();
            let mut rest = push_lines(&mut cutter, 21..=23);
            rest.extend(cutter.finish().map(|shard| lines_of(&shard)));
            let whole: Vec<u64> = if cut.is_empty() { vec![1, 2, 21, 22, 23] } else { vec![21, 22, 23] };
            assert_eq!(rest.concat(), whole);
            assert_eq!(rest[0].len(), 3);
        }
    }

    #[test]
    fn an_abandoned_input_counts_the_same_where_its_shards_are_not_wanted() {
        let limits = ShardLimits { records_per_shard: 3, bytes_per_shard: 100 };
        let shards_of = |is_wanted: fn(ShardIndex) -> bool| {
            let mut cutter = ShardCutter::new(limits.clone(), is_wanted);
            let mut shards = Vec::new();
            for (lines, is_broken) in [(1..=2, false), (11..=15, true), (21..=27, false)] {
                cutter.begin_input();
                shards.extend(lines.filter_map(|line| cutter.push(1, || item(line, 1))));
                if is_broken {
                    cutter.abandon_input();
                }
            }
            shards.extend(cutter.finish());
            shards
        };
        let all = shards_of(|_| true);
        assert_eq!(all.len(), 5);
        let even: Vec<Shard> = all.iter().filter(|shard| shard.index.0 % 2 == 0).cloned().collect();
        let odd: Vec<Shard> = all.iter().filter(|shard| shard.index.0 % 2 == 1).cloned().collect();
        assert_eq!((shards_of(|shard| shard.0 % 2 == 0), shards_of(|shard| shard.0 % 2 == 1)), (even, odd));
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
            sizes in proptest::collection::vec(0usize..20, 0..60),
            records_per_shard in 1u32..9,
            bytes_per_shard in 1u64..40,
        ) {
            let shards = cut(&sizes, records_per_shard, bytes_per_shard);
            let mut lines = Vec::new();
            for (position, shard) in shards.iter().enumerate() {
                prop_assert_eq!(shard.index, ShardIndex(position as u32));
                prop_assert_eq!(shard.first_entry, lines.len() as u64);
                prop_assert!(!shard.entries.is_empty() && shard.entries.len() <= records_per_shard as usize);
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
                let is_prompt = |entry: &&ShardEntry| matches!(entry, ShardEntry::Prompt(_));
                let is_alone = shard.entries.iter().filter(is_prompt).count() == 1;
                prop_assert!(num_bytes <= bytes_per_shard || is_alone);
            }
            prop_assert_eq!(lines, (1..=sizes.len() as u64).collect::<Vec<_>>());
            let limits = ShardLimits { records_per_shard, bytes_per_shard };
            let odd = cut_wanted(&sizes, limits, |shard| shard.0 % 2 == 1);
            let expected: Vec<Shard> = shards.into_iter().filter(|shard| shard.index.0 % 2 == 1).collect();
            prop_assert_eq!(odd, expected);
        }
    }
}
