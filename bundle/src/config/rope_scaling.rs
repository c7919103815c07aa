//! The frequencies of rotary positions, and the ways in which checkpoints stretch them for long contexts.
//!
//! Pure numbers: `rotary.rs` reads and writes them. The formulas are those of transformers'
//! `modeling_rope_utils`. Frequencies that would depend on the length of a sequence are refused there, so a
//! token's rotation depends on its position alone.

use std::f64::consts::TAU;

/// A way to change the frequencies of `theta^(-2i/d)`.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// No change.
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        /// How much longer sequences become.
        factor: f64,
    },
    /// Llama 3.1: long waves are stretched by `factor`, short ones are not, those between in part.
    Llama3 {
        /// How much longer sequences become.
        factor: f64,
        /// Waves longer than `original_positions / low_freq_factor` are stretched wholly.
        low_freq_factor: f64,
        /// Waves shorter than `original_positions / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Length of the sequences before the stretching.
        original_positions: usize,
    },
    /// `YaRN` (Peng et al., arXiv 2309.00071): the same by a ramp over channels, and larger products of
    /// queries and keys.
    Yarn(Yarn),
    /// `LongRoPE` (Ding et al., arXiv 2402.13753): a factor for each frequency. There are two lists; the
    /// short one holds up to `original_positions`, and Baton reads no further.
    LongRope(LongRope),
}

/// The numbers of `YaRN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How much longer sequences become.
    pub factor: f64,
    /// Rotations within `original_positions` from which on a channel stays.
    pub beta_fast: f64,
    /// Rotations below which a channel is stretched wholly.
    pub beta_slow: f64,
    /// Length of the sequences before the stretching.
    pub original_positions: usize,
    /// Factor of sines and cosines; none: it follows from `factor`.
    pub attention_factor: Option<f64>,
    /// Two factors in place of the usual one, `mscale` and `mscale_all_dim`; their quotient counts.
    pub mscales: Option<[f64; 2]>,
    /// Whether the ramp begins and ends at whole channels.
    pub truncate: bool,
    /// Growth of queries beyond `original_positions`, `llama_4_scaling_beta`, which Baton keeps for other
    /// readers of the file. With it Baton reads no further than there.
    pub query_growth: Option<f64>,
}

/// The numbers of `LongRoPE`.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Divisors of the frequencies in sequences of up to `original_positions` tokens.
    pub short_factors: Vec<f64>,
    /// Divisors beyond, which Baton keeps for other readers of the file.
    pub long_factors: Vec<f64>,
    /// How much longer sequences become.
    pub factor: f64,
    /// Length of the sequences before the stretching.
    pub original_positions: usize,
    /// Factor of sines and cosines; none: it follows from `factor`.
    pub attention_factor: Option<f64>,
}

impl RopeScaling {
    /// The frequencies of `num_frequencies` pairs of channels, in radians a position.
    pub(super) fn frequencies(&self, theta: f64, num_frequencies: usize) -> Vec<f64> {
        let dim = 2.0 * num_frequencies as f64;
        let plain = (0..num_frequencies).map(|pair| theta.powf(-2.0 * pair as f64 / dim));
        match self {
            Self::None => plain.collect(),
            Self::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let (low, high) = (*low_freq_factor, *high_freq_factor);
                let stretch = |frequency: f64| {
                    let rotations = *original_positions as f64 * frequency / TAU;
                    let kept = match rotations {
                        few if few < low => 0.0,
                        many if many > high => 1.0,
                        between => (between - low) / (high - low),
                    };
                    (1.0 - kept) * frequency / factor + kept * frequency
                };
                plain.map(stretch).collect()
            }
            Self::Yarn(yarn) => {
                let [low, high] = yarn.ramp(theta, dim);
                let stretch = |(pair, frequency): (usize, f64)| {
                    let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency / yarn.factor * stretched + frequency * (1.0 - stretched)
                };
                plain.enumerate().map(stretch).collect()
            }
            Self::LongRope(long) => {
                plain.zip(&long.short_factors).map(|(frequency, factor)| frequency / factor).collect()
            }
        }
    }

    /// Factor of sines and cosines.
    pub(super) fn attention_factor(&self) -> f64 {
        match self {
            Self::None | Self::Linear { .. } | Self::Llama3 { .. } => 1.0,
            Self::Yarn(yarn) => yarn.attention_factor.unwrap_or_else(|| match yarn.mscales {
                Some([scale, scale_of_all]) => yarn.mscale(scale) / yarn.mscale(scale_of_all),
                None => yarn.mscale(1.0),
            }),
            Self::LongRope(long) => long.attention_factor.unwrap_or_else(|| match long.factor {
                factor if factor <= 1.0 => 1.0,
                factor => (1.0 + factor.ln() / (long.original_positions as f64).ln()).sqrt(),
            }),
        }
    }
}

impl Yarn {
    fn mscale(&self, scale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * scale * self.factor.ln() + 1.0 }
    }

    /// First and last channel of the ramp from kept to stretched.
    fn ramp(&self, theta: f64, dim: f64) -> [f64; 2] {
        let channel = |rotations: f64| {
            dim * (self.original_positions as f64 / (rotations * TAU)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (channel(self.beta_fast), channel(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // A ramp of no width is a step.
        if low == high { [low, high + 0.001] } else { [low, high] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        let plain = RopeScaling::None.frequencies(500_000.0, 64);
        let stretched = scaling.frequencies(500_000.0, 64);
        assert_eq!(plain[..28], stretched[..28]);
        for (plain, stretched) in plain[36..].iter().zip(&stretched[36..]) {
            assert!((plain / 8.0 - stretched).abs() <= 1e-12 * plain);
        }
        assert!(stretched.is_sorted_by(|a, b| a > b));
        assert_eq!(scaling.attention_factor(), 1.0);
    }

    #[test]
    fn yarn_and_longrope_raise_the_products_of_queries_and_keys() {
        let yarn = Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_positions: 32_768,
            attention_factor: None,
            mscales: None,
            truncate: true,
            query_growth: None,
        };
        let scaling = RopeScaling::Yarn(yarn.clone());
        assert!((scaling.attention_factor() - 1.138_629_436).abs() < 1e-9);
        let equal = RopeScaling::Yarn(Yarn { mscales: Some([1.0, 1.0]), ..yarn.clone() });
        assert_eq!(equal.attention_factor(), 1.0);
        let given = RopeScaling::Yarn(Yarn { attention_factor: Some(1.5), ..yarn });
        assert_eq!(given.attention_factor(), 1.5);
        let long = RopeScaling::LongRope(LongRope {
            short_factors: vec![1.0, 2.0],
            long_factors: vec![4.0, 4.0],
            factor: 32.0,
            original_positions: 4096,
            attention_factor: None,
        });
        assert!((long.attention_factor() - 1.190_238).abs() < 1e-6);
        assert_eq!(long.frequencies(100.0, 2), [1.0, 0.05]);
    }
}
