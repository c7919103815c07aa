//! The tiers of a cascade on the wire.

use baton_job::{EstimateSum, Threshold, TierSums};

use crate::{WireError, wire};

/// An attempt's tier.
#[derive(Debug, Clone, PartialEq)]
pub struct TierAttempt {
    /// Its number, from 0.
    pub number: u32,
    /// Its name in rows.
    pub name: String,
    /// Outputs below this go on to the next tier. `None`: there is no next tier.
    pub threshold: Option<Threshold>,
    /// Positions in the shard of the attempt's entries; empty at the first tier, which gets the whole shard.
    pub positions: Vec<u32>,
}

impl TierAttempt {
    /// The position in the shard of an entry of the attempt.
    #[must_use]
    pub fn position_of(&self, entry: u32) -> u32 {
        self.positions.get(entry as usize).copied().unwrap_or(entry)
    }
}

impl From<TierAttempt> for wire::TierHeader {
    fn from(tier: TierAttempt) -> Self {
        let TierAttempt { number, name, threshold, positions } = tier;
        let threshold = threshold.map(|threshold| threshold.to_string()).unwrap_or_default();
        wire::TierHeader { number, name, threshold, positions }
    }
}

impl TryFrom<wire::TierHeader> for TierAttempt {
    type Error = WireError;

    fn try_from(header: wire::TierHeader) -> Result<Self, WireError> {
        let wire::TierHeader { number, name, threshold, positions } = header;
        let threshold = match threshold.as_str() {
            "" => None,
            limit => {
                let limit: Result<Threshold, _> = limit.parse();
                Some(limit.map_err(|error| WireError::invalid("TierHeader.threshold", &error))?)
            }
        };
        if positions.windows(2).any(|pair| pair[0] >= pair[1]) {
            let detail = "they do not rise".to_owned();
            return Err(WireError::InvalidField { field: "TierHeader.positions", detail });
        }
        Ok(TierAttempt { number, name, threshold, positions })
    }
}

impl From<EstimateSum> for wire::EstimateSum {
    fn from(sum: EstimateSum) -> Self {
        let EstimateSum { count, ten_thousandths } = sum;
        wire::EstimateSum { count, ten_thousandths }
    }
}

impl From<wire::EstimateSum> for EstimateSum {
    fn from(sum: wire::EstimateSum) -> Self {
        let wire::EstimateSum { count, ten_thousandths } = sum;
        EstimateSum { count, ten_thousandths }
    }
}

impl From<&TierSums> for wire::TierSums {
    fn from(sums: &TierSums) -> Self {
        wire::TierSums {
            name: sums.name.clone(),
            records: sums.records,
            outputs: sums.outputs,
            escalated: sums.escalated,
            prompt_tokens: sums.prompt_tokens,
            llm_prompt_tokens: sums.llm_prompt_tokens,
            output_tokens: sums.output_tokens,
            estimates: Some(sums.estimates.into()),
            escalated_estimates: Some(sums.escalated_estimates.into()),
        }
    }
}

impl From<&wire::TierSums> for TierSums {
    fn from(sums: &wire::TierSums) -> Self {
        TierSums {
            name: sums.name.clone(),
            records: sums.records,
            outputs: sums.outputs,
            escalated: sums.escalated,
            prompt_tokens: sums.prompt_tokens,
            llm_prompt_tokens: sums.llm_prompt_tokens,
            output_tokens: sums.output_tokens,
            estimates: sums.estimates.unwrap_or_default().into(),
            escalated_estimates: sums.escalated_estimates.unwrap_or_default().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_and_its_sums_survive_the_wire() {
        for threshold in [None, Some(Threshold::Estimate(0.1 + 0.2)), Some(Threshold::MeanLogprob(-0.9))] {
            let tier = TierAttempt { number: 1, name: "hybrid".into(), threshold, positions: vec![3, 9] };
            assert_eq!((tier.position_of(1), tier.position_of(2)), (9, 2));
            assert_eq!(TierAttempt::try_from(wire::TierHeader::from(tier.clone())), Ok(tier));
        }
        let mut sums = TierSums { name: "slm".into(), records: 4, outputs: 3, ..TierSums::default() };
        sums.estimates.note(0.25);
        assert_eq!(TierSums::from(&wire::TierSums::from(&sums)), sums);
    }

    #[test]
    fn a_tier_with_an_unknown_threshold_or_disorder_is_refused() {
        for (threshold, positions, field) in
            [("much", vec![], "TierHeader.threshold"), ("0.5", vec![4, 4], "TierHeader.positions")]
        {
            let header = wire::TierHeader { threshold: threshold.into(), positions, ..Default::default() };
            let error = TierAttempt::try_from(header).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
