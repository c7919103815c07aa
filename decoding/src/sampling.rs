//! Drawing a token by its probability.
//!
//! Every cut keeps the tokens that are at least as likely as a border, so tokens of equal logits stay or go
//! together. A draw then walks over all tokens in the order of their numbers.

use baton_generation::GenerationOptions;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::candidates::Places;
use crate::kernels::{Shift, WeightCut, cut_weights, weights_into};
use crate::top_k::TopK;

/// Weights whose sums are known, so that a draw passes over most tokens in steps of this many.
const CHUNK_LEN: usize = 256;

/// Weights from 0 to 1 are binned by their exponent and four bits of their mantissa: bins are 6 % wide.
const BIN_SHIFT: u32 = 19;
const NUM_BINS: usize = (1.0_f32.to_bits() >> BIN_SHIFT) as usize + 1;

/// The random numbers of one sequence: one per token, by a generator whose state is nothing but its key and a
/// counter.
#[derive(Debug, Clone)]
pub(crate) struct RandomStream(ChaCha8Rng);

impl RandomStream {
    /// The stream of a sequence: the job's seed, the row's stream, the number of the sequence in its row.
    pub(crate) fn new(seed: u64, random_stream: u64, sequence: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, number) in key.chunks_exact_mut(8).zip([seed, random_stream, sequence]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The next number, uniform in 0..1.
    pub(crate) fn next_uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Memory that draws reuse.
#[derive(Debug, Default)]
pub(crate) struct SamplingScratch {
    top: TopK,
    /// Of each token, relative to the likeliest; 0 if it is cut off.
    weights: Vec<f32>,
    chunk_sums: Vec<f32>,
    bin_sums: Vec<f64>,
    bin: Vec<f32>,
}

/// The place of the logit at `uniform`, in 0..1, of the distribution that the options make of the logits.
/// Their maximum is `max`. Place 0 if no logit is a number above minus infinity.
pub(crate) fn draw(
    logits: &[f32],
    (max, options): (f32, &GenerationOptions),
    uniform: f64,
    scratch: &mut SamplingScratch,
) -> usize {
    let min_logit = options.top_k.map_or(f32::NEG_INFINITY, |top_k| {
        scratch.top.start((top_k as usize).min(logits.len()));
        scratch.top.offer(0, logits, Shift::NONE, Places::All);
        scratch.top.least()
    });
    let top_p = options.top_p.filter(|&top_p| top_p < 1.0);
    let min_p = options.min_p.unwrap_or(0.0) as f32;
    let temperature = options.temperature.unwrap_or(1.0) as f32;
    let min_weight = if top_p.is_some() { 0.0 } else { min_p }; // top-p comes first
    let cut = WeightCut { max, temperature, min_logit, min_weight };
    weights_into(logits, cut, (&mut scratch.weights, &mut scratch.chunk_sums, CHUNK_LEN));
    if let Some(top_p) = top_p {
        let min_weight = scratch.least_weight_of_nucleus(top_p).max(min_p);
        cut_weights(min_weight, (&mut scratch.weights, &mut scratch.chunk_sums, CHUNK_LEN));
    }
    scratch.token_at(uniform)
}

impl SamplingScratch {
    fn total(&self) -> f64 {
        self.chunk_sums.iter().map(|&sum| f64::from(sum)).sum()
    }

    /// The weight at which the largest weights together reach the share `top_p` of all.
    fn least_weight_of_nucleus(&mut self, top_p: f64) -> f32 {
        let wanted = top_p * self.total();
        let Self { weights, bin_sums, bin, .. } = self;
        let bin_of = |weight: f32| (weight.to_bits() >> BIN_SHIFT) as usize;
        bin_sums.clear();
        bin_sums.resize(NUM_BINS, 0.0);
        for &weight in weights.iter() {
            // Below NUM_BINS, except for NaNs; every returned cut excludes those.
            if let Some(sum) = bin_sums.get_mut(bin_of(weight)) {
                *sum += f64::from(weight);
            }
        }
        let mut above = 0.0;
        let border = bin_sums.iter().enumerate().rev().find(|(_, sum)| {
            let is_reached = above + **sum >= wanted;
            if !is_reached {
                above += **sum;
            }
            is_reached
        });
        let Some((border, _)) = border else { return 0.0 };
        bin.clear();
        bin.extend(weights.iter().filter(|&&weight| bin_of(weight) == border));
        bin.sort_unstable_by(|a, b| b.total_cmp(a));
        let least = bin.iter().find(|&&weight| {
            above += f64::from(weight);
            above >= wanted
        });
        least.or(bin.last()).copied().unwrap_or(0.0)
    }

    /// The token in whose share of the weights `uniform` falls.
    fn token_at(&self, uniform: f64) -> usize {
        let mut left = uniform * self.total();
        let mut last_possible = 0;
        for (chunk_index, (chunk, &sum)) in self.weights.chunks(CHUNK_LEN).zip(&self.chunk_sums).enumerate() {
            let possible = chunk.iter().zip(chunk_index * CHUNK_LEN..).filter(|(weight, _)| **weight > 0.0);
            if left >= f64::from(sum) {
                left -= f64::from(sum);
                last_possible = possible.last().map_or(last_possible, |(_, token)| token);
                continue;
            }
            for (&weight, token) in possible {
                last_possible = token;
                left -= f64::from(weight);
                if left < 0.0 {
                    return token;
                }
            }
            break; // the chunk's sum was rounded up
        }
        last_possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::pseudo_random_logits;

    /// Probabilities by definition: temperature, top-k, top-p, min-p, each on the remainder of the previous
    /// one.
    fn reference(logits: &[f32], options: &GenerationOptions) -> Vec<f64> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
        let top_k = options.top_k.map_or(order.len(), |top_k| order.len().min(top_k as usize));
        let least = logits[order[top_k - 1]];
        order.retain(|&token| logits[token] >= least);
        let max = f64::from(logits[order[0]]);
        let temperature = options.temperature.unwrap();
        let weight = |&token: &usize| ((f64::from(logits[token]) - max) / temperature).exp();
        if let Some(top_p) = options.top_p {
            let total: f64 = order.iter().map(weight).sum();
            let mut before = 0.0;
            order.retain(|token| {
                let is_kept = before < top_p * total;
                before += weight(token);
                is_kept
            });
        }
        order.retain(|token| weight(token) >= options.min_p.unwrap_or(0.0));
        let total: f64 = order.iter().map(weight).sum();
        let mut probabilities = vec![0.0; logits.len()];
        order.iter().for_each(|&token| probabilities[token] = weight(&token) / total);
        probabilities
    }

    fn all_options() -> Vec<GenerationOptions> {
        let mut all = Vec::new();
        for temperature in [0.5, 1.0, 2.0] {
            for top_k in [None, Some(1), Some(40)] {
                for top_p in [None, Some(0.3), Some(0.9), Some(0.9999), Some(1.0)] {
                    for min_p in [None, Some(0.05)] {
                        let temperature = Some(temperature);
                        let plain = GenerationOptions::default();
                        all.push(GenerationOptions { temperature, top_k, top_p, min_p, ..plain });
                    }
                }
            }
        }
        all
    }

    fn max(logits: &[f32]) -> f32 {
        logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    #[test]
    fn each_token_is_drawn_from_a_share_of_the_interval_that_is_its_probability() {
        const NUM_DRAWS: usize = 2_000;
        let logits: Vec<f32> = pseudo_random_logits(700, 5).into_iter().map(|x| x * 0.5).collect();
        let mut scratch = SamplingScratch::default();
        for options in all_options() {
            let mut counts = vec![0; logits.len()];
            for draw_index in 0..NUM_DRAWS {
                let uniform = (draw_index as f64 + 0.5) / NUM_DRAWS as f64;
                counts[draw(&logits, (max(&logits), &options), uniform, &mut scratch)] += 1;
            }
            for (token, (count, probability)) in counts.iter().zip(reference(&logits, &options)).enumerate() {
                // An interval of even steps holds its share of the draws, plus or minus one.
                let difference = f64::from(*count) - probability * NUM_DRAWS as f64;
                assert!(difference.abs() <= 1.01, "token {token}: {count}, {probability}, {options:?}");
            }
        }
    }

    #[test]
    fn both_ends_of_the_interval_give_possible_tokens() {
        let mut logits = vec![f32::NEG_INFINITY; 2000];
        (logits[3], logits[700]) = (1.0, 2.0);
        let mut scratch = SamplingScratch::default();
        for options in all_options() {
            for uniform in [0.0, 1.0 - 1e-16, 1.0] {
                let token = draw(&logits, (2.0, &options), uniform, &mut scratch);
                assert!([3, 700].contains(&token), "{token} {options:?}");
            }
        }
    }

    #[test]
    fn logits_without_a_number_give_token_0() {
        for (top_k, top_p) in [(None, None), (Some(5), None), (None, Some(0.5))] {
            let options = GenerationOptions { top_k, top_p, ..GenerationOptions::default() };
            let token =
                draw(&[f32::NAN; 40], (f32::NEG_INFINITY, &options), 0.5, &mut SamplingScratch::default());
            assert_eq!(token, 0);
        }
    }

    #[test]
    fn streams_differ_by_seed_row_and_sequence_and_are_the_same_every_time() {
        let first = |seed, row, sequence| RandomStream::new(seed, row, sequence).next_uniform();
        let numbers = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1)];
        for (place, number) in numbers.iter().enumerate() {
            assert!((0.0..1.0).contains(number));
            assert!(!numbers[..place].contains(number));
        }
        assert_eq!(first(0, 1, 0), numbers[2]);
        // Pinned: another generator would change the output of every sampling job.
        let mut stream = RandomStream::new(7, 11, 2);
        assert_eq!(
            [stream.next_uniform(), stream.next_uniform()],
            [0.180_774_888_791_472_85, 0.768_643_689_692_026_1]
        );
    }
}
