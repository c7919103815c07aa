//! Confidence intervals by bootstrap: the corpus is resampled from its own records, many times.
//!
//! Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004. The draws are a
//! function of the seed and the number of records. Two systems with the same records therefore get the same
//! draws, and the interval of their difference is that of the paired test.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Metric, sum_statistics};

/// The number and the seed of the draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// The middle 95 % of the resamples' scores.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// 2.5 % of the scores are lower.
    pub low: f64,
    /// 2.5 % are higher.
    pub high: f64,
}

impl Bootstrap {
    /// The score of each resample. `records`: the statistics of each record.
    #[must_use]
    pub fn scores(&self, metric: &dyn Metric, records: &[Vec<f64>]) -> Vec<f64> {
        if records.is_empty() {
            return vec![0.0; self.resamples];
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let resample = |_| {
            let drawn = (0..records.len()).map(|_| &records[rng.random_range(0..records.len())]);
            metric.score(&sum_statistics(drawn))
        };
        (0..self.resamples).map(resample).collect()
    }
}

impl Interval {
    /// The interval of some scores, or of some differences of scores; zeros for none.
    #[must_use]
    pub fn of(mut scores: Vec<f64>) -> Self {
        scores.sort_by(f64::total_cmp);
        let outside = scores.len() / 40;
        match (scores.get(outside), scores.iter().nth_back(outside)) {
            (Some(&low), Some(&high)) => Self { low, high },
            _ => Self { low: 0.0, high: 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of one number.
    #[derive(Debug)]
    struct Mean;

    impl Metric for Mean {
        fn name(&self) -> &'static str {
            "mean"
        }
        fn signature(&self) -> String {
            "mean".into()
        }
        fn statistics(&self, output: &str, _: &str) -> Vec<f64> {
            vec![output.len() as f64, 1.0]
        }
        fn score(&self, totals: &[f64]) -> f64 {
            totals[0] / totals[1]
        }
    }

    fn records(n: usize) -> Vec<Vec<f64>> {
        (0..n).map(|i| vec![(i % 10) as f64, 1.0]).collect()
    }

    #[test]
    fn the_interval_of_a_mean_agrees_with_the_normal_approximation() {
        let bootstrap = Bootstrap { resamples: 2000, seed: 1 };
        let interval = Interval::of(bootstrap.scores(&Mean, &records(1000)));
        let standard_error = (8.25_f64 / 1000.0).sqrt(); // the variance of the digits 0 to 9 is 8.25
        assert!((interval.low - (4.5 - 1.96 * standard_error)).abs() < 0.02, "{interval:?}");
        assert!((interval.high - (4.5 + 1.96 * standard_error)).abs() < 0.02, "{interval:?}");
    }

    #[test]
    fn the_same_seed_draws_the_same_records() {
        let scores = |seed| Bootstrap { resamples: 5, seed }.scores(&Mean, &records(50));
        assert_eq!(scores(7), scores(7));
        assert_ne!(scores(7), scores(8));
    }

    #[test]
    fn no_records_have_no_interval() {
        let scores = Bootstrap { resamples: 3, seed: 1 }.scores(&Mean, &[]);
        assert_eq!(Interval::of(scores), Interval { low: 0.0, high: 0.0 });
        assert_eq!(Interval::of(Vec::new()), Interval { low: 0.0, high: 0.0 });
    }
}
