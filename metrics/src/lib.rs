//! Scores of generated text against references.
//!
//! BLEU and chrF equal sacrebleu's values, ROUGE equals the `rouge-score` package's. `tests/reference.rs`
//! compares them with values made by those packages. The crate is pure: texts in, numbers out.
//!
//! A [`Metric`] turns each record into a few numbers; a corpus score is a function of their sums. A bootstrap
//! resample is therefore a sum over drawn records, and each text is read only once.

mod bleu;
mod bootstrap;
mod chrf;
mod evaluation;
mod failures;
mod names;
mod porter;
mod rouge;
mod text;

pub use bleu::Bleu;
pub use bootstrap::{Bootstrap, Interval};
pub use chrf::ChrF;
pub use evaluation::{
    Bucket, BucketScores, Difference, EvaluatedRecord, Evaluation, Failures, MetricScore, SystemScores,
};
pub use failures::{is_looping, is_untranslated};
pub use names::{CopiedNames, copied_names};
pub use porter::porter_stem;
pub use rouge::{Rouge, RougeKind};
pub use text::first_sentence;

/// A score of a corpus, from 0 to 100, computed from numbers that add up over its records.
pub trait Metric: std::fmt::Debug {
    /// Short name, such as `BLEU`.
    fn name(&self) -> &'static str;

    /// The computation's settings, in the notation of the package that it agrees with.
    fn signature(&self) -> String;

    /// The numbers of one record; their count is always the same.
    fn statistics(&self, output: &str, reference: &str) -> Vec<f64>;

    /// The score of records whose numbers sum to `totals`; 0 for no records.
    fn score(&self, totals: &[f64]) -> f64;
}

/// Sums the numbers of some records.
#[must_use]
pub fn sum_statistics<'a>(records: impl IntoIterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let mut totals = Vec::new();
    for record in records {
        if totals.is_empty() {
            totals = vec![0.0; record.len()];
        }
        for (total, number) in totals.iter_mut().zip(record) {
            *total += number;
        }
    }
    totals
}
