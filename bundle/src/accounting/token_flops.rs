//! The arithmetic of one token's way through a model.

use serde::Serialize;

use super::parameters::{embedding, numel};
use crate::{DecoderPast, ModelConfig, NamedShape};

pub(super) const FLOPS_PER_WEIGHT: u64 = 2;
const FLOPS_PER_CHANNEL_AND_POSITION: u64 = 4;

/// The arithmetic of one token's way through some layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TokenFlops {
    /// Products with weights.
    pub weights: u64,
    /// Attention, for each position that the token sees, in layers that see everything.
    pub per_position_seen: u64,
    /// Attention, for each position of the prompt, in a decoder that does not attend to its own output.
    #[serde(skip_serializing_if = "is_zero")]
    pub per_prompt_position: u64,
    /// Attention, for each position that the token sees, in layers with a sliding window.
    pub per_position_in_window: u64,
    /// Positions that such a layer sees at most; 0 if there is no such layer.
    pub window: u64,
}

impl TokenFlops {
    /// A token's way through the first `layers` blocks that read: of an encoder, where the model has one.
    #[must_use]
    pub fn of_blocks(config: &ModelConfig, layers: usize) -> Self {
        let per_position = attention_per_position(config);
        let windows: Vec<usize> = (0..layers).filter_map(|layer| config.window(layer)).collect();
        Self {
            weights: FLOPS_PER_WEIGHT
                * products(config, config.tensor_layout().blocks.iter().take(layers).flatten()),
            per_position_seen: (layers - windows.len()) as u64 * per_position,
            per_prompt_position: 0,
            per_position_in_window: windows.len() as u64 * per_position,
            window: windows.first().map_or(0, |&window| window as u64), // a model has one size of window
        }
    }

    /// A prompt token's way into the cache of a writing model: the last block counts only with its keys and
    /// values. An encoder-decoder counts with all blocks that read, and with the keys and values that the
    /// decoder keeps.
    #[must_use]
    pub fn of_prefill(config: &ModelConfig) -> Self {
        let layout = config.tensor_layout();
        let (blocks, kept): (usize, Vec<&NamedShape>) = match (config.encoder_decoder(), layout.blocks.last())
        {
            (None, Some(last)) => {
                (layout.blocks.len() - 1, last.iter().filter(is_before_attention).collect())
            }
            _ => {
                let kept = layout.decoder_blocks.iter().flatten().filter(is_read_of_prompt);
                (layout.blocks.len(), kept.collect())
            }
        };
        let mut flops = Self::of_blocks(config, blocks);
        flops.weights += FLOPS_PER_WEIGHT * products(config, kept.into_iter());
        flops
    }

    /// A generated token's way through a model: all blocks that write, and the head. After an encoder, the
    /// token sees the prompt in one attention and the output in another. Together these are as many positions
    /// as in one sequence.
    #[must_use]
    pub fn of_generating(config: &ModelConfig) -> Self {
        let mut flops = match config.encoder_decoder() {
            None => Self::of_blocks(config, config.num_hidden_layers),
            Some(shape) => {
                let layout = config.tensor_layout();
                let read = layout.decoder_blocks.iter().flatten().filter(|tensor| !is_read_of_prompt(tensor));
                let attends = shape.past == DecoderPast::Attention;
                let per_position = shape.num_decoder_layers as u64 * attention_per_position(config);
                Self {
                    weights: FLOPS_PER_WEIGHT * products(config, read),
                    per_position_seen: if attends { per_position } else { 0 },
                    per_prompt_position: if attends { 0 } else { per_position },
                    ..Self::default()
                }
            }
        };
        flops.weights += FLOPS_PER_WEIGHT * embedding(config);
        flops
    }

    /// FLOPs of tokens at these positions, counted from 1. Each sees the positions up to
    /// `last_seen(position)`.
    pub(super) fn of_tokens(
        &self,
        positions: impl Iterator<Item = u64>,
        (last_seen, prompt_tokens): (impl Fn(u64) -> u64, u64),
    ) -> u64 {
        let of_prompt = self.per_prompt_position * prompt_tokens;
        positions
            .map(|position| {
                let seen = last_seen(position);
                // A window reaches both ways.
                let last_in_window = seen.min((position + self.window).saturating_sub(1));
                let in_window = last_in_window.saturating_sub(position.saturating_sub(self.window));
                self.weights
                    + of_prompt
                    + self.per_position_seen * seen
                    + self.per_position_in_window * in_window
            })
            .sum()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Weights of the linear layers among some tensors that a token meets: the matrices, but for a table that is
/// looked up. Of experts a token meets some.
fn products<'a>(config: &ModelConfig, tensors: impl Iterator<Item = &'a NamedShape>) -> u64 {
    let is_product =
        |(name, shape): &&NamedShape| shape.len() == 2 && !name.ends_with("relative_attention_bias.weight");
    let (mut of_all, mut of_experts) = (0, 0);
    for (name, shape) in tensors.filter(is_product) {
        let sum = if name.contains(".experts.") { &mut of_experts } else { &mut of_all };
        *sum += numel(shape);
    }
    let experts = config.decoder().and_then(|decoder| decoder.experts.as_ref());
    let met = experts.map_or(0, |experts| of_experts / experts.num_experts as u64 * experts.per_token as u64);
    of_all + met
}

/// Whether a decoder multiplies this once with each prompt token, not with each token that it writes: keys
/// and values of cross-attention.
fn is_read_of_prompt((name, _): &&NamedShape) -> bool {
    const SUFFIXES: [&str; 4] = [
        "EncDecAttention.k.weight",
        "EncDecAttention.v.weight",
        "encoder_attn.k_proj.weight",
        "encoder_attn.v_proj.weight",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a block multiplies this with its input to get queries, keys and values.
fn is_before_attention((name, _): &&NamedShape) -> bool {
    ["q_proj.weight", "k_proj.weight", "v_proj.weight", "qkv_proj.weight", "c_attn.weight"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// FLOPs of one layer's attention for each position that a token sees.
fn attention_per_position(config: &ModelConfig) -> u64 {
    FLOPS_PER_CHANNEL_AND_POSITION * (config.num_attention_heads * config.head_dim) as u64
}
