//! The passes over a whole vocabulary: maximum, softmax sum, scan for the largest. A row of logits is 8,000
//! to 50,000 numbers, and every live row is passed over at every step.
//!
//! Safe functions over slices, compiled once per instruction set and chosen at run time. Sums run in a fixed
//! number of lanes (`baton-lanes`) with fused multiply-adds, so a row's bits do not depend on the instruction
//! set.
#![allow(
    unsafe_code,
    reason = "the calls that `multiversion` generates after it has asked the CPU what it has"
)]

use baton_lanes::{LANES, exp, max_of, sum_of};
use multiversion::multiversion;

/// Turns a logit into a log-probability, and a log-probability into a sequence's score, in this order:
/// `((logit - max) - log_sum) + score`. The order is libtorch's, so that near ties fall the same way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shift {
    pub(crate) max: f32,
    pub(crate) log_sum: f32,
    pub(crate) score: f32,
}

impl Shift {
    pub(crate) const NONE: Shift = Shift { max: 0.0, log_sum: 0.0, score: 0.0 };

    #[inline(always)]
    pub(crate) fn apply(self, logit: f32) -> f32 {
        ((logit - self.max) - self.log_sum) + self.score
    }
}

/// The shift from logits to log-probabilities. Without a single number above minus infinity it yields NaNs.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn log_softmax(logits: &[f32]) -> Shift {
    let max = max_of(logits);
    let sum = sum_of(logits, |logit| exp(logit - max));
    Shift { max, log_sum: sum.ln(), score: 0.0 }
}

/// Turns logits into weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightCut {
    /// The largest logit; its weight is 1.
    pub(crate) max: f32,
    pub(crate) temperature: f32,
    /// Logits below have weight 0.
    pub(crate) min_logit: f32,
    /// Lower weights become 0.
    pub(crate) min_weight: f32,
}

/// `e^((logit - max) / temperature)` of each logit that is not cut off, else 0; and the sum of each chunk of
/// `chunk_len`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn weights_into(
    logits: &[f32],
    cut: WeightCut,
    (weights, chunk_sums, chunk_len): (&mut Vec<f32>, &mut Vec<f32>, usize),
) {
    let scale = 1.0 / cut.temperature;
    weights.resize(logits.len(), 0.0);
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        let candidate = exp((logit - cut.max) * scale);
        *weight = if logit >= cut.min_logit && candidate >= cut.min_weight { candidate } else { 0.0 };
    }
    sum_chunks(weights, chunk_sums, chunk_len);
}

/// Makes weights below `min_weight` 0, and sums each chunk anew.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn cut_weights(
    min_weight: f32,
    (weights, chunk_sums, chunk_len): (&mut [f32], &mut Vec<f32>, usize),
) {
    for weight in weights.iter_mut() {
        *weight = if *weight >= min_weight { *weight } else { 0.0 };
    }
    sum_chunks(weights, chunk_sums, chunk_len);
}

#[inline(always)]
fn sum_chunks(weights: &[f32], chunk_sums: &mut Vec<f32>, chunk_len: usize) {
    chunk_sums.clear();
    chunk_sums.extend(weights.chunks(chunk_len).map(|chunk| sum_of(chunk, |weight| weight)));
}

/// Index of the first element equal to `wanted`, 0 if there is none.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn first_equal(values: &[f32], wanted: f32) -> usize {
    // Whole chunks are compared, so this becomes vector code.
    let in_chunk = |chunk: &[f32]| chunk.iter().fold(false, |any, &value| any | (value == wanted));
    let chunk_index = values.chunks(LANES).position(in_chunk).unwrap_or(0);
    let chunk = values.chunks(LANES).nth(chunk_index).unwrap_or_default();
    chunk_index * LANES + chunk.iter().position(|&value| value == wanted).unwrap_or(0)
}

/// The first element at or after `start` whose shifted value is above `threshold`.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn first_above(logits: &[f32], start: usize, shift: Shift, threshold: f32) -> Option<usize> {
    let is_above = |&logit: &f32| shift.apply(logit) > threshold;
    let rest = logits.get(start..)?;
    let chunk_index =
        rest.chunks(LANES).position(|chunk| chunk.iter().fold(false, |any, x| any | is_above(x)))?;
    let chunk = rest.chunks(LANES).nth(chunk_index)?;
    Some(start + chunk_index * LANES + chunk.iter().position(is_above)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pseudo_random_logits(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 20) as f32 - 8.0
            })
            .collect()
    }

    #[test]
    fn log_probabilities_agree_with_the_formula() {
        for len in [1, 2, 15, 16, 17, 100, 8000, 49_152] {
            let logits = pseudo_random_logits(len, len as u64);
            let shift = log_softmax(&logits);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            for &logit in logits.iter().step_by(7) {
                let expected = f64::from(logit) - sum.ln();
                assert!((f64::from(shift.apply(logit)) - expected).abs() < 1e-5, "{len} tokens");
            }
        }
    }

    #[test]
    fn logits_without_a_number_give_nan() {
        for logits in [[f32::NAN; 20], [f32::NEG_INFINITY; 20]] {
            assert!(log_softmax(&logits).apply(logits[0]).is_nan());
        }
    }

    #[test]
    fn the_first_of_equals_and_the_first_above_are_found_in_every_place() {
        for len in [1, 16, 33, 50] {
            for place in 0..len {
                let mut values = vec![0.0_f32; len];
                values[place..].fill(2.0);
                assert_eq!(first_equal(&values, 2.0), place);
                assert_eq!(first_above(&values, 0, Shift::NONE, 1.0), Some(place));
                assert_eq!(
                    first_above(&values, place + 1, Shift::NONE, 1.0),
                    Some(place + 1).filter(|&p| p < len)
                );
                assert_eq!(first_above(&values, 0, Shift::NONE, 2.0), None);
            }
        }
        assert_eq!(first_above(&[f32::NAN, 1.0], 0, Shift::NONE, f32::NEG_INFINITY), Some(1));
    }

    #[test]
    fn weights_are_those_of_the_softmax_and_their_chunks_sum_up() {
        let logits = pseudo_random_logits(1000, 3);
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut weights, mut sums) = (Vec::new(), Vec::new());
        let cut = WeightCut { max, temperature: 0.5, min_logit: max - 2.0, min_weight: 0.1 };
        weights_into(&logits, cut, (&mut weights, &mut sums, 300));
        for (&logit, &weight) in logits.iter().zip(&weights) {
            let expected = (f64::from(logit - max) / 0.5).exp();
            let expected = if expected < 0.1 || logit < max - 2.0 { 0.0 } else { expected };
            assert!((f64::from(weight) - expected).abs() < 1e-6);
        }
        assert_eq!(sums.len(), 4);
        let total: f32 = weights.iter().sum();
        assert!((sums.iter().sum::<f32>() - total).abs() < 1e-4 * total);

        let above: f32 = weights.iter().filter(|&&weight| weight >= 0.5).sum();
        cut_weights(0.5, (&mut weights, &mut sums, 300));
        assert!((sums.iter().sum::<f32>() - above).abs() < 1e-4 * above && above < total);
        assert!(weights.iter().all(|&weight| weight == 0.0 || weight >= 0.5));
    }
}
