//! Greedy selection: the most likely token of a row of logits, and its log-probability.

use multiversion::multiversion;

use super::{
    lanes::{LANES, exp, max_of, sum_of},
    number::Number,
};

/// The token chosen from one row, and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Greedy {
    pub(crate) token: u32,
    pub(crate) log_probability: f32,
}

/// The most likely token of one row of logits; of several, the lowest. `masked` is taken as impossible.
///
/// `scratch` is overwritten. A row without a single number above minus infinity gives token 0 and NaN.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(super) fn select_greedily<N: Number>(
    logits: &[N],
    masked: Option<u32>,
    scratch: &mut Vec<f32>,
) -> Greedy {
    scratch.resize(logits.len(), 0.0);
    for (wide, &logit) in scratch.iter_mut().zip(logits) {
        *wide = logit.to_f32();
    }
    if let Some(token) = masked {
        scratch[token as usize] = f32::NEG_INFINITY;
    }
    let logits = scratch.as_slice();
    let max = max_of(logits);
    let probability_ratio_sum = sum_of(logits, |logit| exp(logit - max));
    Greedy { token: first_equal(logits, max), log_probability: -probability_ratio_sum.ln() }
}

/// Index of the first element equal to `wanted`, 0 if there is none. Compares whole chunks, so it becomes vector code.
#[inline(always)]
fn first_equal(values: &[f32], wanted: f32) -> u32 {
    let in_chunk = |chunk: &[f32]| chunk.iter().fold(false, |any, &value| any | (value == wanted));
    let chunk_index = values.chunks(LANES).position(in_chunk).unwrap_or(0);
    let chunk = values.chunks(LANES).nth(chunk_index).unwrap_or_default();
    (chunk_index * LANES + chunk.iter().position(|&value| value == wanted).unwrap_or(0)) as u32
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// The same by the book, in f64.
    fn reference(logits: &[f32], masked: Option<u32>) -> (u32, f64) {
        let allowed = |token: &usize| masked != Some(*token as u32);
        let mut best = None;
        for token in (0..logits.len()).filter(allowed) {
            if best.is_none_or(|b: usize| logits[token] > logits[b]) {
                best = Some(token);
            }
        }
        let best = best.expect("a token is allowed");
        let sum: f64 =
            (0..logits.len()).filter(allowed).map(|t| f64::from(logits[t] - logits[best]).exp()).sum();
        (best as u32, -sum.ln())
    }

    fn pseudo_random_logits(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 20) as f32 - 8.0
            })
            .collect()
    }

    #[test]
    fn selection_agrees_with_the_reference_in_both_formats() {
        let mut scratch = Vec::new();
        for len in [1, 2, 15, 16, 17, 100, 8000, 49_152] {
            let wide = pseudo_random_logits(len, len as u64);
            let narrow: Vec<bf16> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
            let narrow_as_wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
            for masked in [None, Some(len as u32 / 2).filter(|_| len > 1)] {
                for (found, (token, log_probability)) in [
                    (select_greedily(&wide, masked, &mut scratch), reference(&wide, masked)),
                    (select_greedily(&narrow, masked, &mut scratch), reference(&narrow_as_wide, masked)),
                ] {
                    assert_eq!(found.token, token);
                    assert!((f64::from(found.log_probability) - log_probability).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn of_equal_logits_the_lowest_token_is_chosen() {
        let mut logits = vec![0.0_f32; 50];
        (logits[18], logits[33], logits[34]) = (2.0, 2.0, 2.0);
        assert_eq!(select_greedily(&logits, None, &mut Vec::new()).token, 18);
        assert_eq!(select_greedily(&logits, Some(18), &mut Vec::new()).token, 33);
    }

    #[test]
    fn a_row_of_nans_is_reported_as_nan() {
        let chosen = select_greedily(&[f32::NAN; 20], None, &mut Vec::new());
        assert_eq!(chosen.token, 0);
        assert!(chosen.log_probability.is_nan());
    }
}
