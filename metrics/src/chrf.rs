//! chrF2 with one reference, as sacrebleu computes it: character n-grams up to six, white space removed,
//! recall weighted twice.
//!
//! Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.

use crate::{
    Metric,
    text::{ngram_counts, num_matches, python_words},
};

const MAX_ORDER: usize = 6;
const BETA_SQUARED: f64 = 4.0;

/// Corpus chrF2.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChrF;

impl Metric for ChrF {
    fn name(&self) -> &'static str {
        "chrF2"
    }

    fn signature(&self) -> String {
        "chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0".to_owned()
    }

    /// For each order: n-grams of the output, of the reference, and matches.
    fn statistics(&self, output: &str, reference: &str) -> Vec<f64> {
        let characters = |text| python_words(text).flat_map(str::chars).collect::<Vec<char>>();
        let (output, reference) = (characters(output), characters(reference));
        let mut numbers = Vec::with_capacity(3 * MAX_ORDER);
        for n in 1..=MAX_ORDER {
            let num_ngrams = |characters: &[char]| (characters.len() + 1).saturating_sub(n);
            let in_reference = num_ngrams(&reference);
            // An order that the reference is too short for does not count against the output.
            let in_output = if in_reference == 0 { 0 } else { num_ngrams(&output) };
            let matches = num_matches(&ngram_counts(&output, n), &ngram_counts(&reference, n));
            numbers.extend([in_output as f64, in_reference as f64, matches as f64]);
        }
        numbers
    }

    fn score(&self, totals: &[f64]) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for order in totals.chunks_exact(3) {
            let [in_output, in_reference, matches] = [order[0], order[1], order[2]];
            if in_output > 0.0 && in_reference > 0.0 {
                precision += matches / in_output;
                recall += matches / in_reference;
                orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / orders, recall / orders);
        100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    }
}
