//! Sums over a job's verdicts, for progress, the error limit and the manifest.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::verdict::is_zero;
use crate::{TermCounts, TierTotals, Verdict, WarningCounts};

/// Counts over any number of shards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Committed shards.
    pub shards: u64,
    /// Input records.
    pub records: u64,
    /// Records that became output rows.
    pub outputs: u64,
    /// Records that became error rows.
    pub errors: u64,
    /// Tokens read, of the records that became output rows.
    pub prompt_tokens: u64,
    /// Tokens that the LLM has read for them, if the small model reads its own tokens; otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub llm_prompt_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Bytes of all parts.
    pub output_bytes: u64,
    /// Output rows by warning.
    #[serde(default, skip_serializing_if = "WarningCounts::is_empty")]
    pub warnings: WarningCounts,
    /// The results of a cascade's tiers.
    #[serde(default, skip_serializing_if = "TierTotals::is_empty")]
    pub tiers: TierTotals,
    /// The glossary's terms in the texts of output rows.
    #[serde(default, skip_serializing_if = "TermCounts::is_empty")]
    pub terms: TermCounts,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Totals) {
        self.shards += more.shards;
        self.records += more.records;
        self.outputs += more.outputs;
        self.errors += more.errors;
        self.prompt_tokens += more.prompt_tokens;
        self.llm_prompt_tokens += more.llm_prompt_tokens;
        self.output_tokens += more.output_tokens;
        self.output_bytes += more.output_bytes;
        self.warnings.add(&more.warnings);
        self.tiers.add_all(&more.tiers);
        self.terms.add(&more.terms);
    }
}

impl Totals {
    /// Adds a shard.
    pub fn add(&mut self, verdict: &Verdict) {
        self.tiers.add(&verdict.tiers);
        *self += Totals {
            shards: 1,
            records: verdict.records,
            outputs: verdict.outputs.rows,
            errors: verdict.failed.len() as u64,
            prompt_tokens: verdict.outputs.prompt_tokens,
            llm_prompt_tokens: verdict.outputs.llm_prompt_tokens,
            output_tokens: verdict.outputs.output_tokens,
            output_bytes: verdict.outputs.bytes,
            warnings: verdict.outputs.warnings.clone(),
            tiers: TierTotals::default(),
            terms: verdict.outputs.terms.clone(),
        };
    }

    /// Share of the records that failed, 0 to 1; 0 without records.
    pub fn error_rate(&self) -> f64 {
        if self.records == 0 { 0.0 } else { self.errors as f64 / self.records as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::verdict;

    #[test]
    fn verdicts_add_up() {
        let mut totals = Totals::default();
        assert_eq!(totals.error_rate(), 0.0);
        totals.add(&verdict(0, 3, 1));
        totals.add(&verdict(1, 4, 0));
        assert_eq!((totals.shards, totals.records, totals.outputs, totals.errors), (2, 8, 7, 1));
        assert_eq!((totals.prompt_tokens, totals.output_tokens, totals.output_bytes), (20, 40, 6));
        assert_eq!(totals.llm_prompt_tokens, 30);
        assert_eq!(totals.error_rate(), 0.125);
    }
}
