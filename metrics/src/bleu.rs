//! BLEU with one reference, as sacrebleu computes it: 13a tokenization, case kept, exponential smoothing.
//!
//! Papineni et al., ACL 2002; Post, "A Call for Clarity in Reporting BLEU Scores", arXiv 1804.08771.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use crate::{
    Metric,
    text::{is_python_space, ngram_counts, num_matches, python_words},
};

const MAX_ORDER: usize = 4;

/// Corpus BLEU, up to four-grams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bleu;

impl Metric for Bleu {
    fn name(&self) -> &'static str {
        "BLEU"
    }

    fn signature(&self) -> String {
        "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0".to_owned()
    }

    /// Output length, reference length, matches of each order, n-grams of each order.
    fn statistics(&self, output: &str, reference: &str) -> Vec<f64> {
        let (output, reference) = (tokenize_13a(output), tokenize_13a(reference));
        let (output, reference): (Vec<&str>, Vec<&str>) =
            (python_words(&output).collect(), python_words(&reference).collect());
        let mut numbers = vec![output.len() as f64, reference.len() as f64];
        numbers.extend(
            (1..=MAX_ORDER)
                .map(|n| num_matches(&ngram_counts(&output, n), &ngram_counts(&reference, n)) as f64),
        );
        numbers.extend((1..=MAX_ORDER).map(|n| (output.len() + 1).saturating_sub(n) as f64));
        numbers
    }

    fn score(&self, totals: &[f64]) -> f64 {
        let [output_len, reference_len, counts @ ..] = totals else { return 0.0 };
        let (matches, ngrams) = counts.split_at(MAX_ORDER);
        if matches.iter().all(|&count| count == 0.0) {
            return 0.0;
        }
        let brevity_penalty =
            if output_len < reference_len { (1.0 - reference_len / output_len).exp() } else { 1.0 };
        let mut smoothing = 1.0;
        let mut sum_of_logs = 0.0;
        for (&matched, &total) in matches.iter().zip(ngrams) {
            if total == 0.0 {
                return 0.0; // no output is long enough for this order
            }
            let precision = if matched == 0.0 {
                smoothing *= 2.0;
                100.0 / (smoothing * total)
            } else {
                100.0 * matched / total
            };
            sum_of_logs += precision.ln();
        }
        brevity_penalty * (sum_of_logs / MAX_ORDER as f64).exp()
    }
}

/// Sets punctuation apart, as mteval-v13a does for Western languages. Tokens are separated by white space.
fn tokenize_13a(text: &str) -> String {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            // Every ASCII symbol but comma, minus, dot and apostrophe.
            (r##"([{-~\[-` -&(-+:-@/])"##, " $1 "),
            // A dot or comma, unless there is a digit before it, or after it.
            (r"([^0-9])([.,])", "$1 $2 "),
            (r"([.,])([^0-9])", " $1 $2"),
            // A minus after a digit.
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, replacement)| (Regex::new(pattern).expect("the pattern is valid"), replacement))
    });
    let text = text.trim_end_matches(is_python_space);
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        if text.contains('&') {
            text = text.replace(entity, character);
        }
    }
    let mut line = Cow::Owned(format!(" {text} "));
    for (pattern, replacement) in RULES.iter() {
        line = Cow::Owned(pattern.replace_all(&line, *replacement).into_owned());
    }
    line.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        python_words(&tokenize_13a(text)).map(str::to_owned).collect()
    }

    #[test]
    fn punctuation_stands_alone_but_inside_numbers_and_after_apostrophes() {
        assert_eq!(tokens("L'host, 1,000.5 (v2.0)."), ["L'host", ",", "1,000.5", "(", "v2.0", ")", "."]);
        assert_eq!(tokens("x86-64 a-b &amp;c &lt;"), ["x86", "-", "64", "a-b", "&", "c", "<"]);
    }

    #[test]
    fn a_perfect_output_scores_a_hundred_and_an_empty_one_nothing() {
        let score = |output| Bleu.score(&Bleu.statistics(output, "one two three four five"));
        assert!((score("one two three four five") - 100.0).abs() < 1e-9);
        assert_eq!(score(""), 0.0);
        assert_eq!(Bleu.score(&[]), 0.0);
    }
}
