//! The share, work and estimates of each tier of a cascade, summed over records, shards and jobs.

use serde::{Deserialize, Serialize};

use crate::MAX_TIERS;
use crate::verdict::is_zero;

/// Estimates are summed up as whole numbers, so that no order of adding matters.
const ESTIMATE_UNIT: f64 = 1e4;

/// The result of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSums {
    /// The tier's name.
    pub name: String,
    /// Records that reached it.
    pub records: u64,
    /// Output rows that it wrote.
    pub outputs: u64,
    /// Records that went on to the next tier.
    pub escalated: u64,
    /// Tokens read, also for outputs that another tier replaced.
    pub prompt_tokens: u64,
    /// Tokens that the LLM has read, if the small model reads its own tokens; otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub llm_prompt_tokens: u64,
    /// Tokens written, also of outputs that another tier replaced.
    pub output_tokens: u64,
    /// Its outputs that have an estimate of quality.
    #[serde(default, skip_serializing_if = "EstimateSum::is_empty")]
    pub estimates: EstimateSum,
    /// Those among them whose records went on.
    #[serde(default, skip_serializing_if = "EstimateSum::is_empty")]
    pub escalated_estimates: EstimateSum,
}

/// The number of some estimates, and their sum in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EstimateSum {
    /// Their number.
    pub count: u64,
    /// Their sum, times 10,000.
    pub ten_thousandths: u64,
}

/// The results of a job's tiers in order; empty without a cascade. A tier that no record reached may be
/// missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TierTotals(Vec<TierSums>);

impl EstimateSum {
    /// Adds an estimate between 0 and 1.
    pub fn note(&mut self, estimate: f64) {
        self.count += 1;
        self.ten_thousandths += (estimate * ESTIMATE_UNIT).round() as u64;
    }

    /// Their mean; `None` without any.
    #[must_use]
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.ten_thousandths as f64 / ESTIMATE_UNIT / self.count as f64)
    }

    /// Whether there are none.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, more: EstimateSum) {
        self.count = self.count.saturating_add(more.count);
        self.ten_thousandths = self.ten_thousandths.saturating_add(more.ten_thousandths);
    }
}

impl TierSums {
    /// Adds the same tier's results for other records. They may come from a worker, so they may have any
    /// value.
    pub fn add(&mut self, more: &TierSums) {
        for (sum, more) in [
            (&mut self.records, more.records),
            (&mut self.outputs, more.outputs),
            (&mut self.escalated, more.escalated),
            (&mut self.prompt_tokens, more.prompt_tokens),
            (&mut self.llm_prompt_tokens, more.llm_prompt_tokens),
            (&mut self.output_tokens, more.output_tokens),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.estimates.add(more.estimates);
        self.escalated_estimates.add(more.escalated_estimates);
    }
}

impl TierTotals {
    /// Whether there is no cascade.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each tier's sums, the cheapest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TierSums> {
        self.0.iter()
    }

    /// Adds those of other records.
    pub fn add(&mut self, more: &[TierSums]) {
        for (place, more) in more.iter().take(MAX_TIERS).enumerate() {
            match self.0.get_mut(place) {
                Some(sums) => sums.add(more),
                None => self.0.push(more.clone()),
            }
        }
    }

    /// Adds those of other records.
    pub fn add_all(&mut self, more: &TierTotals) {
        self.add(&more.0);
    }

    /// The mean estimate of the records that reached a tier, before and after; `None` for the first tier, and
    /// where a tier has no estimates.
    #[must_use]
    pub fn gain(&self, place: usize) -> Option<(f64, f64)> {
        let before = self.0.get(place.checked_sub(1)?)?.escalated_estimates.mean()?;
        Some((before, self.0.get(place)?.estimates.mean()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(name: &str, estimates: &[f64], escalated: &[f64]) -> TierSums {
        let mut sums = TierSums { name: name.into(), records: 1, ..TierSums::default() };
        estimates.iter().for_each(|&estimate| sums.estimates.note(estimate));
        escalated.iter().for_each(|&estimate| sums.escalated_estimates.note(estimate));
        sums
    }

    #[test]
    fn tiers_add_up_by_their_place() {
        let mut totals = TierTotals::default();
        totals.add(&[sums("slm", &[0.9], &[])]);
        totals.add(&[sums("slm", &[0.8, 0.1], &[0.1]), sums("hybrid", &[0.4], &[])]);
        let counts: Vec<_> = totals.iter().map(|tier| (tier.name.as_str(), tier.records)).collect();
        assert_eq!(counts, [("slm", 2), ("hybrid", 1)]);
        assert_eq!(totals.gain(1), Some((0.1, 0.4)));
        assert_eq!((totals.gain(0), totals.gain(2)), (None, None));
        let json = serde_json::to_string(&totals).unwrap();
        assert_eq!(serde_json::from_str::<TierTotals>(&json).unwrap(), totals);
    }

    #[test]
    fn a_worker_cannot_make_the_tiers_grow_without_bound() {
        let mut totals = TierTotals::default();
        totals.add(&vec![TierSums { records: u64::MAX, ..TierSums::default() }; 100]);
        totals.add(&[sums("slm", &[], &[])]);
        assert_eq!((totals.iter().len(), totals.iter().next().unwrap().records), (MAX_TIERS, u64::MAX));
    }
}
