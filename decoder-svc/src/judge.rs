//! The judgement of outputs, as far as a job asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_bundle::QualityModel;
use baton_formats::ReviewRow;
use baton_generation::QualityColumns;
use baton_job::{FinishReason, GenerationOptions, Judgement, Mode, OutputRow, RecordSource};
use baton_quality::{Judged, LogProbabilities, Signals, rounded};
use baton_text::TextRules;

/// The models of quality of a bundle's modes.
pub(crate) type QualityModels = BTreeMap<Mode, Arc<QualityModel>>;

/// Judges a job's outputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judge {
    columns: QualityColumns,
    makes_reviews: bool,
    /// Whether a tier's end needs the estimates.
    is_of_tier: bool,
    model: Option<Arc<QualityModel>>,
}

impl Judge {
    pub(crate) fn of(options: &GenerationOptions, mode: Mode, models: &QualityModels) -> Self {
        Self {
            columns: options.quality,
            makes_reviews: options.review.is_some(),
            is_of_tier: false,
            model: models.get(&mode).cloned(),
        }
    }

    /// The same, for a tier of a cascade or not.
    pub(crate) fn of_tier(self, is_of_tier: bool) -> Self {
        Self { is_of_tier, ..self }
    }

    /// Judges an output: writes into its row what the job asks for, and makes the row for a reader of the
    /// worst ones, if there may be one. The text is asked for only if it is needed.
    pub(crate) fn judge(
        &self,
        row: &mut OutputRow,
        (text, origin): (impl Fn() -> String, &RecordSource),
        log_probabilities: LogProbabilities,
        rules: &TextRules,
    ) -> (Judgement, Option<ReviewRow>) {
        let mean_logprob = rounded(log_probabilities.mean);
        let is_of_tier = self.is_of_tier && self.model.is_some();
        if self.columns == QualityColumns::None && !self.makes_reviews && !is_of_tier {
            return (Judgement { estimate: None, mean_logprob }, None);
        }
        let source = text();
        let signals = Signals::of(Judged {
            source: &source,
            output: &row.output,
            log_probabilities: Some(log_probabilities),
            language: rules.leaning_to_target(&row.output),
            num_warnings: row.warnings.len(),
            is_cut: row.finish_reason == FinishReason::Length,
        });
        let quality = self.model.as_ref().map(|model| model.estimate(&signals));
        if self.columns != QualityColumns::None {
            row.quality = quality;
        }
        if self.columns == QualityColumns::Signals {
            row.signals = Some(Box::new(signals));
        }
        let review = quality.filter(|_| self.makes_reviews).map(|quality| ReviewRow {
            id: row.id.clone(),
            quality,
            source,
            output: row.output.clone(),
            warnings: row.warnings.clone(),
            signals,
            origin: origin.clone(),
        });
        (Judgement { estimate: quality, mean_logprob }, review)
    }
}
