//! The second try of a row whose output has flaws.
//!
//! A row is judged in the thread that wrote it. Its prompt is still at hand there, so a second try needs no
//! more memory than the prompts of live rows. The judgement depends on the segment's view and the output
//! alone, as whatever segments share does.

use std::fmt;
use std::sync::Arc;

use baton_bundle::TextTokenizer;
use baton_decoding::{FinishedRow, Generation};
use baton_text::{TextRules, View};

use crate::generation::output_text;

/// Decides whether a row is decoded once more, and how.
pub(crate) struct Retry {
    pub(crate) generation: Arc<Generation>,
    pub(crate) tokenizer: Arc<TextTokenizer>,
    /// The view of the segment.
    pub(crate) text: String,
    pub(crate) terms: Vec<String>,
    /// Of the segment's record.
    pub(crate) rules: Arc<TextRules>,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("terms", &self.terms.len()).finish_non_exhaustive() // never a text
    }
}

impl Retry {
    /// The weight of the flaws of a row's best output; none of what is no output.
    pub(crate) fn flaws(&self, row: &FinishedRow) -> u32 {
        let Some(best) = row.outputs.first().filter(|best| !best.score.is_nan()) else { return 0 };
        let stop_strings = &self.generation.options.stop_strings;
        let Ok(written) = output_text(best, stop_strings, &self.tokenizer) else { return 0 };
        let view = View { text: &self.text, terms: self.terms.iter().map(String::as_str).collect() };
        self.rules.flaws_of(&view, &written)
    }

    /// Whether the second try is better than the first: it has fewer flaws, or as many and is likelier.
    pub(crate) fn is_better(&self, again: &FinishedRow, first: &FinishedRow) -> bool {
        let likelihood = |row: &FinishedRow| {
            row.outputs.first().map_or(f32::NEG_INFINITY, |best| best.log_probabilities.mean)
        };
        match self.flaws(again).cmp(&self.flaws(first)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => likelihood(again) > likelihood(first),
            std::cmp::Ordering::Greater => false,
        }
    }
}
