//! The tiers of a finished cascade in its report: share, cost and gain of each.

use baton_job::{Tier, TierSums, TierTotals};
use serde::Serialize;

use crate::final_report::RunFigures;

/// The figures of a tier. Counts are the job's; time and cost are those of the run that ended it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TierFigures {
    name: String,
    mode: &'static str,
    /// The options that differ from their defaults.
    generation: String,
    /// Outputs below this went on.
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<String>,
    /// Records that reached it, and their share of the job's, 0 to 1.
    records: u64,
    share: f64,
    /// Output rows that it wrote.
    outputs: u64,
    /// Records that went on.
    escalated: u64,
    prompt_tokens: u64,
    llm_prompt_tokens: u64,
    output_tokens: u64,
    /// Its share of the time that workers had leases, 0 to 1, and of the price of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    /// Mean estimate of all its outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate: Option<f64>,
    /// Mean estimate that the records which reached it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate_before: Option<f64>,
    /// The difference of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<f64>,
}

/// The figures of every tier; none without a cascade.
pub(crate) fn tier_figures(tiers: &[Tier], totals: &TierTotals, run: &RunFigures) -> Vec<TierFigures> {
    let none = TierSums::default();
    let num_records = totals.iter().next().map_or(0, |first| first.records).max(1);
    let all_seconds: f64 = run.tier_seconds().iter().sum();
    let figures = |(place, tier): (usize, &Tier)| {
        let sums = totals.iter().nth(place).unwrap_or(&none); // no record has reached it
        let seconds = run.tier_seconds().get(place).filter(|_| all_seconds > 0.0);
        let time_share = seconds.map(|seconds| seconds / all_seconds);
        let gain = totals.gain(place);
        TierFigures {
            name: tier.name.clone(),
            mode: tier.mode.as_str(),
            generation: tier.generation.said().to_string(),
            threshold: tier.threshold.map(|threshold| threshold.to_string()),
            records: sums.records,
            share: sums.records as f64 / num_records as f64,
            outputs: sums.outputs,
            escalated: sums.escalated,
            prompt_tokens: sums.prompt_tokens,
            llm_prompt_tokens: sums.llm_prompt_tokens,
            output_tokens: sums.output_tokens,
            time_share,
            cost: run.total_cost().zip(time_share).map(|(cost, share)| cost * share),
            estimate: sums.estimates.mean(),
            estimate_before: gain.map(|(before, _)| before),
            gain: gain.map(|(before, after)| after - before),
        }
    };
    tiers.iter().enumerate().map(figures).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_job::{GenerationOptions, Mode};

    use super::*;

    #[test]
    fn a_tier_has_its_share_of_records_and_time_and_what_it_gained() {
        let tier = |mode: Mode, threshold: Option<&str>| Tier {
            name: mode.to_string(),
            mode,
            generation: GenerationOptions::default(),
            threshold: threshold.map(|threshold| threshold.parse().unwrap()),
        };
        let tiers = [tier(Mode::Slm, Some("0.5")), tier(Mode::Hybrid, Some("0.4")), tier(Mode::Llm, None)];
        let mut first = TierSums { records: 10, outputs: 8, escalated: 2, ..TierSums::default() };
        first.escalated_estimates.note(0.25);
        let mut second = TierSums { records: 2, outputs: 2, ..TierSums::default() };
        second.estimates.note(0.75);
        let mut totals = TierTotals::default();
        totals.add(&[first, second]);
        let run = RunFigures::of_time(Duration::from_secs(9));
        let run = run.with_tiers(&[3, 1, 0].map(Duration::from_secs));
        let figures = tier_figures(&tiers, &totals, &run);
        assert_eq!((figures[1].share, figures[1].time_share, figures[1].cost), (0.2, Some(0.25), None));
        assert_eq!((figures[1].estimate_before, figures[1].gain), (Some(0.25), Some(0.5)));
        assert_eq!((figures[2].records, figures[2].gain), (0, None), "no record came there");
        assert_eq!(figures[0].threshold.as_deref(), Some("0.5"));
        assert!(tier_figures(&[], &TierTotals::default(), &run).is_empty());
    }
}
