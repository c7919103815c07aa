//! The signals of one output.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Words whose repetition counts.
const NGRAM: usize = 3;
/// Texts with longer words than this on average have no spaces between words.
const MAX_MEAN_WORD_CHARS: usize = 16;
/// Characters whose repetition counts in such texts.
const CHARACTER_NGRAM: usize = 6;
/// Shorter words may be equal in two languages by chance.
const MIN_COPIED_CHARS: usize = 4;

/// Log-probabilities (natural logarithm) of the tokens of an output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProbabilities {
    /// Of all tokens, on average.
    pub mean: f64,
    /// Of the least likely one.
    pub worst: f64,
}

/// An output, and what its job knows of it.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The record's text.
    pub source: &'a str,
    /// The output.
    pub output: &'a str,
    /// `None` if no model wrote it.
    pub log_probabilities: Option<LogProbabilities>,
    /// How certainly the output is in the target language (1) or still in the source's (-1); 0 is unknown.
    pub language: f64,
    /// Its warnings.
    pub num_warnings: usize,
    /// Whether the limit of tokens cut it off.
    pub is_cut: bool,
}

/// The reasons to trust an output or not. Numbers have 4 decimals, so that they mean the same wherever they
/// are read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Mean log-probability of the output's tokens.
    pub mean_logprob: f64,
    /// Log-probability of its least likely token.
    pub worst_logprob: f64,
    /// Characters of the output for each of the source.
    pub length_ratio: f64,
    /// Share of phrases that the output has written before, 0 to 1.
    pub repetition: f64,
    /// Share of its long words that are words of the source, 0 to 1.
    pub copied: f64,
    /// How certainly it is in the target language (1) or still in the source's (-1); 0 is unknown.
    pub language: f64,
    /// Warnings of the row.
    pub warnings: u32,
    /// Whether the limit of tokens cut it off.
    pub cut: bool,
    /// Words of the source.
    pub source_words: u32,
}

impl Signals {
    /// The signals of an output.
    #[must_use]
    pub fn of(judged: Judged<'_>) -> Self {
        let Judged { source, output, log_probabilities, language, num_warnings, is_cut } = judged;
        let LogProbabilities { mean, worst } =
            log_probabilities.unwrap_or(LogProbabilities { mean: 0.0, worst: 0.0 });
        let num_chars = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
        let length_ratio = num_chars(output) as f64 / num_chars(source).max(1) as f64;
        Signals {
            mean_logprob: rounded(mean),
            worst_logprob: rounded(worst),
            length_ratio: rounded(length_ratio),
            repetition: rounded(repetition(output)),
            copied: rounded(copied(source, output)),
            language: rounded(language),
            warnings: u32::try_from(num_warnings).unwrap_or(u32::MAX),
            cut: is_cut,
            source_words: u32::try_from(source.split_whitespace().count()).unwrap_or(u32::MAX),
        }
    }
}

/// Four decimals; adding 0.0 turns -0.0 into 0.0. Numbers that are none become 0.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    if number.is_finite() { (number * 1e4).round() / 1e4 + 0.0 } else { 0.0 }
}

/// The share of phrases that occur earlier in the text.
fn repetition(text: &str) -> f64 {
    let small = text.to_lowercase();
    let words: Vec<&str> = small.split_whitespace().collect();
    let num_chars = small.chars().count();
    if words.len() * MAX_MEAN_WORD_CHARS >= num_chars {
        return repeated_share(&words, NGRAM);
    }
    let characters: Vec<char> = small.chars().collect();
    repeated_share(&characters, CHARACTER_NGRAM)
}

fn repeated_share<T: std::hash::Hash + Eq>(items: &[T], ngram: usize) -> f64 {
    let mut seen = HashSet::new();
    let num_ngrams = items.len().saturating_sub(ngram - 1);
    let num_repeated = items.windows(ngram).filter(|window| !seen.insert(*window)).count();
    num_repeated as f64 / num_ngrams.max(1) as f64
}

/// The share of the output's long words that the source has.
fn copied(source: &str, output: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let is_long = |word: &String| word.chars().filter(|c| c.is_alphabetic()).count() >= MIN_COPIED_CHARS;
        text.split_whitespace().map(bare).filter(is_long).collect()
    };
    let known: HashSet<String> = words(source).into_iter().collect();
    let written = words(output);
    let num_copied = written.iter().filter(|word| known.contains(*word)).count();
    num_copied as f64 / written.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(source: &str, output: &str) -> Signals {
        let log_probabilities = Some(LogProbabilities { mean: -0.123_456, worst: -2.5 });
        let judged =
            Judged { source, output, log_probabilities, language: 0.5, num_warnings: 2, is_cut: false };
        Signals::of(judged)
    }

    #[test]
    fn texts_tell_length_repetition_and_copies() {
        let good = signals("the editor opens documents", "l'editore apre i documenti");
        assert_eq!((good.repetition, good.copied, good.source_words), (0.0, 0.0, 4));
        assert_eq!((good.mean_logprob, good.worst_logprob, good.warnings), (-0.1235, -2.5, 2));
        assert!((0.9..1.1).contains(&good.length_ratio), "{}", good.length_ratio);
        assert_eq!(signals("the Editor opens it", "editor apre").copied, 0.5);
        let looping = signals("a b", "uno due tre uno due tre uno due tre uno due tre");
        assert!(looping.repetition > 0.6, "{}", looping.repetition);
        assert!(signals("a", "日本語日本語日本語日本語日本語日本語").repetition > 0.6);
        assert_eq!(signals("", "").length_ratio, 0.0);
    }

    #[test]
    fn a_score_that_is_no_number_is_none() {
        assert_eq!((rounded(f64::NAN), rounded(f64::NEG_INFINITY), rounded(-0.000_01)), (0.0, 0.0, 0.0));
    }
}
