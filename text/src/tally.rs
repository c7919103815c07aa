//! The terms of a text that are in its output, counted in the finished output, however they came there.

use std::ops::Range;

use crate::prepare::{Prepared, ShownUnit};
use crate::repair::stands_alone;
use crate::unit::UnitKind;

/// The glossary's terms in a text, and those that the output of a translation lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TermTally {
    /// Occurrences of terms in the text.
    pub num_terms: u32,
    /// For each occurrence whose target is not in the output, the source's words as the glossary has them.
    pub missed: Vec<String>,
}

impl TermTally {
    /// Adds those of another part of the text.
    pub fn add(&mut self, other: &TermTally) {
        self.num_terms = self.num_terms.saturating_add(other.num_terms);
        self.missed.extend_from_slice(&other.missed);
    }
}

/// Counts the terms of a text in its output. Capitals do not count. Longer targets are counted first, so that
/// a term within another one is not mistaken for it.
pub(crate) fn tally(prepared: &Prepared<'_>, output: &str) -> TermTally {
    let mut terms: Vec<&ShownUnit> =
        prepared.shown.iter().filter(|unit| unit.kind == UnitKind::Term).collect();
    if terms.is_empty() || !prepared.rules.must_have_all {
        return TermTally::default();
    }
    terms.sort_by_key(|unit| std::cmp::Reverse(unit.original.len())); // stable
    let output = output.to_lowercase();
    let mut taken: Vec<Range<usize>> = Vec::new();
    let mut missed = Vec::new();
    for unit in &terms {
        let target = unit.original.to_lowercase();
        let places = output.match_indices(&target).map(|(start, _)| start..start + target.len());
        let is_free = |range: &Range<usize>| {
            stands_alone(&output, range)
                && taken.iter().all(|other| range.end <= other.start || other.end <= range.start)
        };
        match places.into_iter().find(is_free) {
            Some(range) => taken.push(range),
            None => missed.push(unit.entry.as_deref().unwrap_or(&unit.original).to_owned()),
        }
    }
    missed.sort_unstable();
    TermTally { num_terms: u32::try_from(terms.len()).unwrap_or(u32::MAX), missed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TextOptions, TextRules};

    #[test]
    fn each_term_of_a_text_is_counted_once_in_its_output() {
        let terms = ["disk=disco", "hard disk=disco rígido", "Baton"].map(|term| term.parse().unwrap());
        let rules = TextRules::new(&TextOptions {
            terms: terms.to_vec(),
            language: Some("en".to_owned()),
            ..TextOptions::default()
        });
        let rules = rules.unwrap();
        let prepared = rules.prepare("Baton reads disks and a hard disk");
        let missed = |output: &str| {
            let TermTally { num_terms, missed } = tally(&prepared, output);
            assert_eq!(num_terms, 3);
            missed
        };
        assert_eq!(missed("Baton lê disco e um Disco Rígido"), [""; 0]);
        assert_eq!(missed("Baton lê um disco rígido"), ["disk"], "one place is no two terms");
        assert_eq!(missed("discos"), ["Baton", "disk", "hard disk"]);
        assert_eq!(prepared.finish("Lê").terms.missed, [""; 0], "a rule places what is missing");
    }
}
