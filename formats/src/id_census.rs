//! Counts ids that come more than once, in bounded memory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Ids that are remembered at most; each takes about 16 bytes.
const MAX_IDS: usize = 4_000_000;

/// The remembered ids of a corpus.
#[derive(Debug, Clone, Default)]
pub struct IdCensus {
    seen: HashSet<u64>,
    num_repeated: u64,
    example: Option<String>,
    is_partial: bool,
}

impl IdCensus {
    /// Takes in the id of the next record.
    pub fn add(&mut self, id: &str) {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.contains(&hash) {
            self.num_repeated += 1;
            self.example.get_or_insert_with(|| id.to_owned());
        } else if self.seen.len() < MAX_IDS {
            self.seen.insert(hash);
        } else {
            self.is_partial = true;
        }
    }

    /// Records whose id an earlier one has.
    #[must_use]
    pub fn num_repeated(&self) -> u64 {
        self.num_repeated
    }

    /// One line about ids that come more than once; `None` if none was found to.
    #[must_use]
    pub fn report(&self) -> Option<String> {
        let example = self.example.as_deref()?;
        let at_least = if self.is_partial { "at least " } else { "" };
        let count = self.num_repeated;
        Some(format!(
            "{at_least}{count} records have an id that an earlier record has, such as {example:?}; --origin \
             tells them apart"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_after_the_first_of_its_id_is_counted() {
        let mut census = IdCensus::default();
        assert_eq!(census.report(), None);
        for id in ["a", "b", "a", "c", "a", "b"] {
            census.add(id);
        }
        assert_eq!(census.num_repeated(), 3);
        assert!(
            census
                .report()
                .unwrap()
                .starts_with("3 records have an id that an earlier record has, such as \"a\"")
        );
    }
}
