//! Searches for the records of a shard that break every attempt, by bisection: one record among n takes about
//! 2 log n probes.
//!
//! A probe is an attempt at some of the shard's prompts that commits nothing. Prompts are counted within the
//! shard, from 0. Entries that failed while they were read are not counted, because they cannot break
//! anything.

use std::ops::Range;

/// A search under way.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Ranges that are still suspected, the next one last. Never empty ranges.
    suspects: Vec<Range<u32>>,
    /// Probes of the next range that failed.
    failed_probes: u32,
    /// Prompts that broke every probe of them alone, in order of accusation.
    accused: Vec<u32>,
}

impl Search {
    /// Begins to search a shard of `num_prompts` prompts that broke its attempts.
    pub(super) fn new(num_prompts: u32) -> Search {
        let mut search = Search { suspects: Vec::new(), failed_probes: 0, accused: Vec::new() };
        match num_prompts {
            0 => {}
            1 => search.suspects.push(0..1),
            _ => search.suspect_halves(0..num_prompts),
        }
        search
    }

    /// The prompts to probe next; `None` when the search is over.
    pub(super) fn next(&self) -> Option<Range<u32>> {
        self.suspects.last().cloned()
    }

    /// The probe succeeded: none of its prompts is to blame.
    pub(super) fn passed(&mut self) {
        self.suspects.pop();
        self.failed_probes = 0;
    }

    /// The probe failed. Several prompts are split at once, because that accuses nobody; a single one is
    /// accused after `max_probes`.
    pub(super) fn failed(&mut self, max_probes: u32) {
        let Some(range) = self.suspects.pop() else { return };
        self.failed_probes += 1;
        if range.len() > 1 {
            self.failed_probes = 0;
            self.suspect_halves(range);
        } else if self.failed_probes < max_probes {
            self.suspects.push(range);
        } else {
            self.failed_probes = 0;
            self.accused.push(range.start);
        }
    }

    /// The number of failures of the next probe so far.
    pub(super) fn failed_probes(&self) -> u32 {
        self.failed_probes
    }

    /// The result: the accused prompts, in order.
    pub(super) fn into_accused(mut self) -> Vec<u32> {
        self.accused.sort_unstable();
        self.accused
    }

    fn suspect_halves(&mut self, range: Range<u32>) {
        let middle = range.start + (range.end - range.start) / 2;
        self.suspects.extend([middle..range.end, range.start..middle]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches where exactly the probes with one of `poisonous` fail; returns the accused and the number of
    /// probes.
    fn search(num_prompts: u32, poisonous: &[u32]) -> (Vec<u32>, u32) {
        let mut search = Search::new(num_prompts);
        let mut num_probes = 0;
        while let Some(range) = search.next() {
            num_probes += 1;
            match poisonous.iter().any(|prompt| range.contains(prompt)) {
                true => search.failed(3),
                false => search.passed(),
            }
        }
        (search.into_accused(), num_probes)
    }

    #[test]
    fn one_record_among_many_takes_few_probes() {
        let (accused, num_probes) = search(256, &[77]);
        assert_eq!(accused, [77]);
        assert!(num_probes <= 18, "{num_probes}"); // two a level, and two more for the accusation
    }

    #[test]
    fn a_record_is_accused_only_after_it_broke_several_probes_alone() {
        let mut search = Search::new(1);
        search.failed(3);
        search.failed(3);
        assert_eq!((search.next(), search.failed_probes()), (Some(0..1), 2));
        search.passed();
        assert_eq!((search.next(), search.into_accused()), (None, vec![]));
    }

    proptest! {
        #[test]
        fn exactly_the_poisonous_records_are_accused(
            num_prompts in 0u32..70, poisonous in proptest::collection::btree_set(0u32..70, 0..6)
        ) {
            let poisonous: Vec<u32> = poisonous.into_iter().filter(|prompt| *prompt < num_prompts).collect();
            prop_assert_eq!(search(num_prompts, &poisonous).0, poisonous);
        }
    }
}
