//! The number of outputs with each warning: the decoder counts them, and verdicts, receipts and the manifest
//! sum them up.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Maximum of kinds that are counted; rows have a few dozen.
const MAX_KINDS: usize = 256;

/// Rows by warning. A row counts once for each of its warnings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WarningCounts(BTreeMap<String, u64>);

impl WarningCounts {
    /// Counts from another source, by name.
    pub fn of(counts: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(name, count)| all.add_count(&name, count));
        all
    }

    /// Adds a row's warnings.
    pub fn add_row(&mut self, warnings: &[String]) {
        warnings.iter().for_each(|name| self.add_count(name, 1));
    }

    /// Adds those of other rows.
    pub fn add(&mut self, other: &WarningCounts) {
        other.iter().for_each(|(name, count)| self.add_count(name, count));
    }

    /// Each warning and its rows, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, &count)| (name.as_str(), count))
    }

    /// Whether no row has a warning.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_count(&mut self, name: &str, count: u64) {
        let is_full = self.0.len() >= MAX_KINDS;
        match self.0.get_mut(name) {
            Some(sum) => *sum = sum.saturating_add(count),
            None if is_full || count == 0 => {}
            None => drop(self.0.insert(name.to_owned(), count)),
        }
    }
}

/// As in `3 link_placed, 1 number_changed`.
impl fmt::Display for WarningCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, count)) in self.iter().enumerate() {
            write!(f, "{}{count} {name}", if place > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_once_for_each_of_their_warnings() {
        let mut counts = WarningCounts::default();
        assert!(counts.is_empty());
        counts.add_row(&["link_placed".into(), "number_changed".into()]);
        counts.add_row(&["link_placed".into()]);
        counts.add(&WarningCounts::of([("link_placed".to_owned(), u64::MAX), ("none".to_owned(), 0)]));
        assert_eq!(counts.to_string(), format!("{} link_placed, 1 number_changed", u64::MAX));
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(serde_json::from_str::<WarningCounts>(&json).unwrap(), counts);
    }

    #[test]
    fn a_worker_cannot_make_the_counts_grow_without_bound() {
        let counts = WarningCounts::of((0..1000).map(|number| (format!("kind_{number}"), 1)));
        assert_eq!(counts.iter().count(), MAX_KINDS);
    }
}
