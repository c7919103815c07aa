//! Fits a model of quality: a logistic regression with a small penalty on its weights, by Newton's method.

use crate::estimate::{Bin, FEATURES, Feature, QualityModel, features, log_ratio};
use crate::measures::{auc, quantile};
use crate::{Signals, rounded};

/// The share of outputs that count as the worst.
pub const WORST_SHARE: f64 = 0.1;
/// Fewer outputs than this give no model.
pub const MIN_RECORDS: usize = 200;

/// Parts of the records. Each part is judged by a model that is fitted on all others.
const FOLDS: usize = 10;
const BINS: usize = 10;
/// A weight's square costs half of this, in units of one record.
const PENALTY: f64 = 1.0;
const MAX_STEPS: usize = 50;

/// An output whose quality is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its signals.
    pub signals: Signals,
    /// Its score against a reference; higher is better.
    pub score: f64,
}

/// Why no model can be fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// There are too few outputs.
    #[error("an estimate of quality needs at least {MIN_RECORDS} records with outputs; there are {records}")]
    TooFew {
        /// Their number.
        records: usize,
    },
    /// All outputs are equally good.
    #[error("all outputs have the same score, so none is worse than others")]
    AllEqual,
}

/// Fits a model on outputs that were judged by `metric`. Estimates of the report come from models that had
/// not seen the record.
///
/// # Errors
/// There are too few outputs, or their scores are equal.
pub fn fit(samples: &[Sample], metric: &str) -> Result<QualityModel, FitError> {
    let records = samples.len();
    if records < MIN_RECORDS {
        return Err(FitError::TooFew { records });
    }
    let worst_score = quantile(&sorted(samples.iter().map(|sample| sample.score)), WORST_SHARE);
    let is_bad = |sample: &Sample| sample.score <= worst_score;
    if samples.iter().all(is_bad) {
        return Err(FitError::AllEqual);
    }
    let log_length_ratio = quantile(&sorted(samples.iter().map(|sample| log_ratio(&sample.signals))), 0.5);
    let rows: Vec<Row> =
        samples.iter().map(|sample| (features(&sample.signals, log_length_ratio), is_bad(sample))).collect();
    let model = |fitted: Fitted| QualityModel {
        metric: metric.to_owned(),
        records: records as u64,
        worst_score,
        log_length_ratio,
        features: fitted.features,
        bias: fitted.bias,
        auc: 0.5,
        calibration: Vec::new(),
        quantiles: Vec::new(),
    };
    let mut judged = vec![(0.0, false); records];
    for fold in 0..FOLDS {
        let others: Vec<Row> = (0..records).filter(|at| at % FOLDS != fold).map(|at| rows[at]).collect();
        let model = model(fitted(&others));
        for at in (fold..records).step_by(FOLDS) {
            judged[at] = (model.estimate(&samples[at].signals), rows[at].1);
        }
    }
    judged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let estimates: Vec<f64> = judged.iter().map(|(estimate, _)| *estimate).collect();
    Ok(QualityModel {
        auc: rounded(auc(&judged).unwrap_or(0.5)),
        calibration: calibration(&judged),
        quantiles: (0..=100)
            .map(|percent| rounded(quantile(&estimates, f64::from(percent) / 100.0)))
            .collect(),
        ..model(fitted(&rows))
    })
}

/// The features of an output, and whether it is bad.
type Row = ([f64; FEATURES.len()], bool);

const SIZE: usize = FEATURES.len() + 1;

struct Fitted {
    features: Vec<Feature>,
    bias: f64,
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn fitted(rows: &[Row]) -> Fitted {
    let count = rows.len().max(1) as f64;
    let mean = |at: usize| rows.iter().map(|(values, _)| values[at]).sum::<f64>() / count;
    let means: [f64; FEATURES.len()] = std::array::from_fn(mean);
    let deviation = |at: usize| {
        let squares = rows.iter().map(|(values, _)| (values[at] - means[at]).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        if deviation > 1e-9 { deviation } else { 1.0 } // a feature that never changes
    };
    let deviations: [f64; FEATURES.len()] = std::array::from_fn(deviation);
    // the last one is the bias's
    let inputs: Vec<([f64; SIZE], f64)> = rows
        .iter()
        .map(|(values, is_bad)| {
            let standard = |at: usize| match at < FEATURES.len() {
                true => (values[at] - means[at]) / deviations[at],
                false => 1.0,
            };
            (std::array::from_fn(standard), f64::from(u8::from(*is_bad)))
        })
        .collect();
    let weights = minimum(&inputs);
    let feature = |at: usize| Feature {
        name: FEATURES[at].to_owned(),
        mean: means[at],
        deviation: deviations[at],
        weight: weights[at],
    };
    Fitted { features: (0..FEATURES.len()).map(feature).collect(), bias: weights[FEATURES.len()] }
}

/// The weights with the least loss: the loss is convex, so Newton's method with halved steps finds them.
fn minimum(inputs: &[([f64; SIZE], f64)]) -> [f64; SIZE] {
    let mut weights = [0.0; SIZE];
    let mut least = loss(inputs, &weights);
    for _ in 0..MAX_STEPS {
        let (gradient, curvature) = derivatives(inputs, &weights);
        let step = solved(curvature, gradient);
        let mut size = 1.0;
        let next = loop {
            let candidate: [f64; SIZE] = std::array::from_fn(|at| weights[at] - size * step[at]);
            let candidate_loss = loss(inputs, &candidate);
            if candidate_loss <= least {
                break Some((candidate, candidate_loss));
            }
            size /= 2.0;
            if size < 1e-6 {
                break None;
            }
        };
        let Some((candidate, candidate_loss)) = next else { break };
        let has_converged = least - candidate_loss < 1e-10 * (1.0 + least);
        (weights, least) = (candidate, candidate_loss);
        if has_converged {
            break;
        }
    }
    weights
}

fn log_odds(values: &[f64; SIZE], weights: &[f64; SIZE]) -> f64 {
    values.iter().zip(weights).map(|(value, weight)| value * weight).sum()
}

fn loss(inputs: &[([f64; SIZE], f64)], weights: &[f64; SIZE]) -> f64 {
    let of_weights = weights[..FEATURES.len()].iter().map(|weight| weight * weight).sum::<f64>();
    let of_inputs = inputs.iter().map(|(values, target)| {
        let odds = log_odds(values, weights);
        odds.max(0.0) + (-odds.abs()).exp().ln_1p() - target * odds
    });
    of_inputs.sum::<f64>() + 0.5 * PENALTY * of_weights
}

/// The gradient of the loss, and its second derivatives.
fn derivatives(inputs: &[([f64; SIZE], f64)], weights: &[f64; SIZE]) -> ([f64; SIZE], [[f64; SIZE]; SIZE]) {
    let mut gradient: [f64; SIZE] =
        std::array::from_fn(|at| if at < FEATURES.len() { PENALTY * weights[at] } else { 0.0 });
    let mut curvature = [[0.0; SIZE]; SIZE];
    for (at, row) in curvature.iter_mut().enumerate() {
        row[at] = if at < FEATURES.len() { PENALTY } else { 1e-9 };
    }
    for (values, target) in inputs {
        let probability = 1.0 / (1.0 + (-log_odds(values, weights)).exp());
        let certainty = probability * (1.0 - probability);
        for (at, value) in values.iter().enumerate() {
            gradient[at] += (probability - target) * value;
            for (sum, other) in curvature[at].iter_mut().zip(values) {
                *sum += certainty * value * other;
            }
        }
    }
    (gradient, curvature)
}

/// The solution of a system of linear equations, by elimination with pivots.
fn solved(mut matrix: [[f64; SIZE]; SIZE], mut right: [f64; SIZE]) -> [f64; SIZE] {
    for column in 0..SIZE {
        let pivot =
            (column..SIZE).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()));
        let pivot = pivot.unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..SIZE {
            let factor = matrix[row][column] / matrix[column][column];
            let above = matrix[column];
            matrix[row].iter_mut().zip(above).for_each(|(value, other)| *value -= factor * other);
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; SIZE];
    for row in (0..SIZE).rev() {
        let known: f64 = (row + 1..SIZE).map(|at| matrix[row][at] * solution[at]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
}

/// Bins of equal size, from low to high estimates.
fn calibration(sorted: &[(f64, bool)]) -> Vec<Bin> {
    let bin = |at: usize| {
        let members = &sorted[at * sorted.len() / BINS..(at + 1) * sorted.len() / BINS];
        let count = members.len().max(1) as f64;
        let good = members.iter().filter(|(_, is_bad)| !is_bad).count() as f64;
        Bin {
            estimate: rounded(members.iter().map(|(estimate, _)| estimate).sum::<f64>() / count),
            share: rounded(good / count),
            records: members.len() as u64,
        }
    };
    (0..BINS).map(bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of numbers from 0 to 1 that are the same everywhere.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Outputs whose score falls with their mean log-probability and rises with nothing else.
    fn samples(count: usize, noise: f64) -> Vec<Sample> {
        let mut numbers = Numbers(7);
        let sample = |_| {
            let mean_logprob = -numbers.next();
            let signals = Signals {
                mean_logprob,
                worst_logprob: -3.0 * numbers.next(),
                length_ratio: 1.0 + numbers.next(),
                repetition: 0.0,
                copied: numbers.next(),
                language: 0.5,
                warnings: 0,
                cut: false,
                source_words: 10,
            };
            Sample { signals, score: 100.0 * mean_logprob + noise * numbers.next() }
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn a_model_finds_what_makes_outputs_bad() {
        let model = fit(&samples(1000, 10.0), "chrF2").unwrap();
        assert!(model.auc > 0.95, "{}", model.auc);
        let weight = |name| model.features.iter().find(|feature| feature.name == name).unwrap().weight;
        assert!(weight("mean_logprob") < -2.0 && weight("copied").abs() < 0.5, "{:?}", model.features);
        assert_eq!(weight("repetition"), 0.0, "it never changes");
        assert_eq!(model.calibration.len(), BINS);
        for bin in &model.calibration {
            assert!((bin.estimate - bin.share).abs() < 0.2, "{:?}", model.calibration);
        }
        assert_eq!(model.problem(), None);
    }

    #[test]
    fn a_share_becomes_a_threshold_that_holds_for_it() {
        let samples = samples(2000, 30.0);
        let model = fit(&samples[..1000], "chrF2").unwrap();
        for share in [0.05, 0.2, 0.5] {
            let threshold = model.threshold(share);
            let below =
                samples[1000..].iter().filter(|sample| model.estimate(&sample.signals) < threshold).count();
            assert!((below as f64 / 1000.0 - share).abs() < 0.05, "{below} for {share}");
        }
        assert!(model.threshold(0.0) <= model.threshold(1.0));
    }

    #[test]
    fn signals_that_tell_nothing_give_a_ranking_by_chance() {
        let mut numbers = Numbers(3);
        let guesses: Vec<Sample> =
            samples(1000, 0.0).into_iter().map(|sample| Sample { score: numbers.next(), ..sample }).collect();
        let model = fit(&guesses, "chrF2").unwrap();
        assert!((0.35..0.65).contains(&model.auc), "{}", model.auc);
    }

    #[test]
    fn too_few_or_equal_outputs_are_refused() {
        assert_eq!(fit(&samples(10, 1.0), "x"), Err(FitError::TooFew { records: 10 }));
        let equal: Vec<Sample> =
            samples(300, 1.0).into_iter().map(|sample| Sample { score: 1.0, ..sample }).collect();
        assert_eq!(fit(&equal, "x"), Err(FitError::AllEqual));
    }

    #[test]
    fn an_estimate_is_finite_for_any_signals() {
        let model = fit(&samples(300, 10.0), "x").unwrap();
        let odd = Signals {
            mean_logprob: -1e6,
            worst_logprob: -1e6,
            length_ratio: 1e9,
            repetition: 1.0,
            copied: 1.0,
            language: -1.0,
            warnings: u32::MAX,
            cut: true,
            source_words: u32::MAX,
        };
        assert!((0.0..=1.0).contains(&model.estimate(&odd)));
    }
}
