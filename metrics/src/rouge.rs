//! ROUGE with one reference, as the `rouge-score` package computes it: F1 of each record, averaged.
//!
//! Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. Only ASCII letters and digits count,
//! lower case.

use crate::{
    Metric, porter_stem,
    text::{ngram_counts, num_matches},
};

/// Words of at most this length are never stemmed.
const MAX_UNSTEMMED_LEN: usize = 3;

/// The units of comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RougeKind {
    /// Single words.
    One,
    /// Pairs of neighbouring words.
    Two,
    /// The longest common subsequence of words.
    Longest,
}

/// Mean F1 of ROUGE.
#[derive(Debug, Clone, Copy)]
pub struct Rouge {
    /// The unit of comparison.
    pub kind: RougeKind,
    /// Whether words are stemmed first.
    pub stem: bool,
}

impl Metric for Rouge {
    fn name(&self) -> &'static str {
        match self.kind {
            RougeKind::One => "ROUGE-1",
            RougeKind::Two => "ROUGE-2",
            RougeKind::Longest => "ROUGE-L",
        }
    }

    fn signature(&self) -> String {
        let stemmer = if self.stem { "porter" } else { "no" };
        format!("{}|nrefs:1|f1|stem:{stemmer}|rouge-score:0.1.2", self.name())
    }

    /// F1 and the number of records, 1.
    fn statistics(&self, output: &str, reference: &str) -> Vec<f64> {
        let (output, reference) = (words(output, self.stem), words(reference, self.stem));
        let f1 = match self.kind {
            RougeKind::One => ngram_f1(&output, &reference, 1),
            RougeKind::Two => ngram_f1(&output, &reference, 2),
            RougeKind::Longest => {
                f1(common_subsequence_len(&output, &reference), output.len(), reference.len())
            }
        };
        vec![f1, 1.0]
    }

    fn score(&self, totals: &[f64]) -> f64 {
        match totals {
            [sum, records] if *records > 0.0 => 100.0 * sum / records,
            _ => 0.0,
        }
    }
}

fn words(text: &str, stem: bool) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words
        .map(|word| if stem && word.len() > MAX_UNSTEMMED_LEN { porter_stem(word) } else { word.into() })
        .collect()
}

fn ngram_f1(output: &[String], reference: &[String], n: usize) -> f64 {
    let num_ngrams = |words: &[String]| (words.len() + 1).saturating_sub(n);
    let matches = num_matches(&ngram_counts(output, n), &ngram_counts(reference, n));
    f1(matches as usize, num_ngrams(output), num_ngrams(reference))
}

fn f1(matches: usize, in_output: usize, in_reference: usize) -> f64 {
    if matches == 0 {
        return 0.0;
    }
    let (precision, recall) = (matches as f64 / in_output as f64, matches as f64 / in_reference as f64);
    2.0 * precision * recall / (precision + recall)
}

fn common_subsequence_len(a: &[String], b: &[String]) -> usize {
    let mut longest = vec![0; b.len() + 1]; // by length of the prefix of b, for the prefix of a so far
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = longest[j + 1];
            longest[j + 1] = if word == other { diagonal + 1 } else { above.max(longest[j]) };
            diagonal = above;
        }
    }
    longest[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(kind: RougeKind, output: &str, reference: &str) -> f64 {
        let rouge = Rouge { kind, stem: true };
        rouge.score(&rouge.statistics(output, reference))
    }

    #[test]
    fn the_order_of_words_counts_for_pairs_and_subsequences_alone() {
        let (output, reference) = ("c b a", "a b c");
        assert!((score(RougeKind::One, output, reference) - 100.0).abs() < 1e-9);
        assert_eq!(score(RougeKind::Two, output, reference), 0.0);
        assert!((score(RougeKind::Longest, output, reference) - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn an_empty_output_scores_nothing() {
        for kind in [RougeKind::One, RougeKind::Two, RougeKind::Longest] {
            assert_eq!(score(kind, "…", "a word"), 0.0);
        }
    }
}
