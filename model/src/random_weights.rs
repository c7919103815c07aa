//! Random weights of any shape, for benchmarks and tests: the same for the same seed and name, on every
//! machine.

use tch::Tensor;

use crate::{ModelError, TensorSource};

/// A checkpoint that has every tensor that is asked for.
///
/// Matrices are roughly normal with a standard deviation of `1 / sqrt(in)`; biases are zeros, other vectors
/// ones, as norms begin.
#[derive(Debug, Clone, Copy)]
pub struct RandomWeights {
    /// Another seed gives other numbers.
    pub seed: u64,
}

impl TensorSource for RandomWeights {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let numel: i64 = shape.iter().product();
        let numbers: Vec<f32> = match shape {
            [_] if name.ends_with(".bias") => vec![0.0; numel as usize],
            [_] => vec![1.0; numel as usize],
            _ => {
                let deviation = (shape.last().copied().unwrap_or(1) as f32).sqrt().recip();
                let mut state = name.bytes().fold(self.seed ^ 0x9e37_79b9_7f4a_7c15, |state, byte| {
                    (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
                });
                (0..numel).map(|_| normal(&mut state) * deviation).collect()
            }
        };
        Ok(Tensor::from_slice(&numbers).view(shape))
    }
}

/// The sum of four uniform numbers, scaled to variance 1. SplitMix64 (Steele et al., OOPSLA 2014), 16 bits
/// for each.
fn normal(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 3.0_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_same_for_a_name_and_seed_and_differ_otherwise() {
        let weight = |seed, name| RandomWeights { seed }.tensor(name, &[40, 100]).expect("any shape will do");
        assert_eq!(weight(1, "a"), weight(1, "a"));
        assert_ne!(weight(1, "a"), weight(1, "b"));
        assert_ne!(weight(1, "a"), weight(2, "a"));
        let variance = weight(1, "a").square().mean(tch::Kind::Float).double_value(&[]);
        assert!((variance - 0.01).abs() < 0.001, "{variance}");
    }
}
