//! The overall estimate of an output's quality.

use serde::{Deserialize, Serialize};

use crate::measures::quantile;
use crate::{Signals, rounded};

/// Estimates farther from the middle than this many standard deviations of a signal count as this far.
const MAX_DEVIATION: f64 = 8.0;

/// Turns signals into an estimate: a logistic regression, fitted on outputs with references.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityModel {
    /// The score by which outputs were judged, such as `chrF2`.
    pub metric: String,
    /// Outputs that it was fitted on.
    pub records: u64,
    /// Outputs with this score or a lower one were the worst tenth.
    pub worst_score: f64,
    /// Middle of the logarithms of `length_ratio`.
    pub log_length_ratio: f64,
    /// The weight of each feature of the logarithm of the odds that an output is among the worst.
    pub features: Vec<Feature>,
    /// The odds' logarithm where all features have their means.
    pub bias: f64,
    /// On records that it was not fitted on: the probability that it ranks an output of the worst tenth below
    /// another.
    pub auc: f64,
    /// On such records, from low to high estimates: the estimates and the truth.
    pub calibration: Vec<Bin>,
    /// On such records: the estimates of 0 %, 1 %, ... 100 % of the outputs, rising.
    pub quantiles: Vec<f64>,
}

/// A feature that is made from the signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its mean in the outputs that were fitted on.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// The weight of a standard deviation.
    pub weight: f64,
}

/// Outputs with similar estimates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// Mean estimate.
    pub estimate: f64,
    /// The share that is not among the worst tenth.
    pub share: f64,
    /// Their number.
    pub records: u64,
}

/// Names of the features, in the order of [`features`].
pub(crate) const FEATURES: [&str; 9] = [
    "mean_logprob",
    "worst_logprob",
    "length_deviation",
    "repetition",
    "copied",
    "language",
    "warnings",
    "cut",
    "log_source_words",
];

/// The features of an output.
pub(crate) fn features(signals: &Signals, log_length_ratio: f64) -> [f64; FEATURES.len()] {
    [
        signals.mean_logprob,
        signals.worst_logprob,
        (log_ratio(signals) - log_length_ratio).abs(),
        signals.repetition,
        signals.copied,
        signals.language,
        f64::from(signals.warnings).ln_1p(),
        f64::from(u8::from(signals.cut)),
        f64::from(signals.source_words).ln_1p(),
    ]
}

/// The logarithm of the ratio of lengths; that of an empty output is finite too.
pub(crate) fn log_ratio(signals: &Signals) -> f64 {
    signals.length_ratio.max(0.01).ln()
}

impl QualityModel {
    /// The probability that an output with these signals is not among the worst tenth; 4 decimals.
    #[must_use]
    pub fn estimate(&self, signals: &Signals) -> f64 {
        let values = features(signals, self.log_length_ratio);
        let value_of = |name: &str| FEATURES.iter().position(|known| *known == name).map(|at| values[at]);
        let log_odds = self.features.iter().fold(self.bias, |sum, feature| {
            let deviation = value_of(&feature.name)
                .map_or(0.0, |value| (value - feature.mean) / feature.deviation.max(f64::MIN_POSITIVE));
            sum + feature.weight * deviation.clamp(-MAX_DEVIATION, MAX_DEVIATION)
        });
        rounded(1.0 / (1.0 + log_odds.exp()))
    }

    /// The estimate below which this share of outputs lies, as far as the outputs tell that it was fitted on.
    #[must_use]
    pub fn threshold(&self, share: f64) -> f64 {
        rounded(quantile(&self.quantiles, share))
    }

    /// The first statement that cannot be true, in words.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let numbers =
            self.features.iter().flat_map(|feature| [feature.mean, feature.deviation, feature.weight]);
        let mut numbers =
            numbers.chain([self.bias, self.log_length_ratio]).chain(self.quantiles.iter().copied());
        if !numbers.all(f64::is_finite) {
            return Some("has numbers that are not finite".to_owned());
        }
        if let Some(unknown) = self.features.iter().find(|one| !FEATURES.contains(&one.name.as_str())) {
            return Some(format!("has an unknown feature `{}`", unknown.name));
        }
        let are_quantiles = self.quantiles.len() > 1 && self.quantiles.is_sorted();
        (!are_quantiles).then(|| "has no rising quantiles".to_owned())
    }
}
