//! Splits text like Python where Rust would differ by default.

use std::{collections::HashMap, hash::Hash};

/// Characters at which Python's `str.split` splits: Unicode white space, and the four ASCII separators that
/// Rust does not count as such.
pub(crate) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text, as Python's `str.split()` gives them.
pub(crate) fn python_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
}

/// Counts of the runs of `n` neighbours.
pub(crate) fn ngram_counts<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for ngram in items.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// The number of runs that two texts have in common, each as often as it is in both.
pub(crate) fn num_matches<T: Eq + Hash>(a: &HashMap<&[T], u64>, b: &HashMap<&[T], u64>) -> u64 {
    a.iter().map(|(ngram, &count)| count.min(b.get(ngram).copied().unwrap_or(0))).sum()
}

/// The first sentence: up to a stop mark before white space, or to the end of the line. As a summary it is
/// hard to beat.
#[must_use]
pub fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    let mut before = None;
    for (at, c) in text.char_indices() {
        if c == '\n' || (c.is_whitespace() && matches!(before, Some('.' | '!' | '?'))) {
            return &text[..at];
        }
        before = Some(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_where_python_splits_them() {
        assert_eq!(python_words(" a\u{1f}b\u{a0}c\td ").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_first_sentence_ends_at_a_stop_mark_before_white_space_or_at_a_line_break() {
        for (text, sentence) in [
            (" Version 1.2 is out. More follows.", "Version 1.2 is out."),
            ("one line\nanother", "one line"),
            ("no mark", "no mark"),
            ("", ""),
        ] {
            assert_eq!(first_sentence(text), sentence);
        }
    }
}
