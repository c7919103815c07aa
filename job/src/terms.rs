//! The adherence of outputs to the glossary: the terms of texts, and those that their outputs lack. Decoders
//! count, and verdicts, receipts and the manifest sum up.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::verdict::is_zero;

/// Maximum of terms that are counted by name; the misses of others count in the sum alone.
const MAX_TERMS: usize = 256;

/// Occurrences of terms in texts, and of those that are missing in outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermCounts {
    /// Occurrences in texts.
    pub occurrences: u64,
    /// Occurrences whose term is not in the output.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// The same by term, as the glossary has its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missed_by_term: BTreeMap<String, u64>,
}

impl TermCounts {
    /// Counts from another source.
    pub fn of(occurrences: u64, missed: u64, by_term: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut counts = Self { occurrences, missed, missed_by_term: BTreeMap::new() };
        by_term.into_iter().for_each(|(term, count)| counts.add_term(&term, count));
        counts
    }

    /// Adds an output's: the terms of its text, and for each that is missing, its name.
    pub fn add_output(&mut self, occurrences: u64, missed: &[String]) {
        self.occurrences += occurrences;
        self.missed += missed.len() as u64;
        missed.iter().for_each(|term| self.add_term(term, 1));
    }

    /// Adds those of other outputs.
    pub fn add(&mut self, other: &TermCounts) {
        self.occurrences = self.occurrences.saturating_add(other.occurrences);
        self.missed = self.missed.saturating_add(other.missed);
        other.missed_by_term.iter().for_each(|(term, &count)| self.add_term(term, count));
    }

    /// Whether no text has a term.
    pub fn is_empty(&self) -> bool {
        self.occurrences == 0
    }

    /// Share of the occurrences whose term is in the output, 0 to 1; 1 without any.
    pub fn adherence(&self) -> f64 {
        match self.occurrences {
            0 => 1.0,
            occurrences => occurrences.saturating_sub(self.missed) as f64 / occurrences as f64,
        }
    }

    fn add_term(&mut self, term: &str, count: u64) {
        let is_full = self.missed_by_term.len() >= MAX_TERMS;
        match self.missed_by_term.get_mut(term) {
            Some(sum) => *sum = sum.saturating_add(count),
            None if is_full || count == 0 => {}
            None => drop(self.missed_by_term.insert(term.to_owned(), count)),
        }
    }
}

/// As in `118 of 120 (98.3 %); missed: 2 disk`.
impl fmt::Display for TermCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.occurrences.saturating_sub(self.missed);
        write!(f, "{kept} of {} ({:.1} %)", self.occurrences, 100.0 * self.adherence())?;
        for (place, (term, count)) in self.missed_by_term.iter().enumerate() {
            write!(f, "{}{count} {term}", if place > 0 { ", " } else { "; missed: " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_add_up_to_an_adherence() {
        let mut counts = TermCounts::default();
        assert!(counts.is_empty());
        assert_eq!(counts.adherence(), 1.0);
        counts.add_output(3, &[]);
        counts.add_output(4, &["disk".to_owned(), "disk".to_owned()]);
        counts.add(&TermCounts::of(1, 0, []));
        assert_eq!(counts.to_string(), "6 of 8 (75.0 %); missed: 2 disk");
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(serde_json::from_str::<TermCounts>(&json).unwrap(), counts);
    }

    #[test]
    fn a_worker_cannot_make_the_counts_grow_without_bound() {
        let counts = TermCounts::of(2000, 1000, (0..1000).map(|number| (format!("term {number}"), 1)));
        assert_eq!((counts.missed, counts.missed_by_term.len()), (1000, MAX_TERMS));
    }
}
