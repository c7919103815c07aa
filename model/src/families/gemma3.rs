//! Gemma 3, the text models.
//!
//! A norm before and after each part of a block; norms of query and key heads; GELU in a gated feed-forward
//! layer; embeddings scaled by the root of their width. Most blocks see a sliding window and have their own
//! rotary frequencies. Norm weights are stored as the factor minus one. Reference: Gemma Team, arXiv
//! 2503.19786, and Hugging Face `Gemma3ForCausalLM`.

use baton_bundle::{Gemma3Config, ModelConfig};
use half::bf16;
use tch::{Kind, Tensor};

use crate::{
    ModelError, Scoring,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::{RmsNorm, Rope},
    linear::LinearInput,
    self_attention::{Positions, SelfAttention, head_shape},
    stack::{Pass, Stack},
    step_time::{Part, time},
};

#[derive(Debug)]
pub(crate) struct Gemma3 {
    embed_tokens: Tensor, // [vocab, d]
    embed_scale: f64,
    layers: Vec<Block>,
    norm: RmsNorm,
    global_rope: Rope,
    local_rope: Rope,
}

#[derive(Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: FeedForward,
    post_feedforward_layernorm: RmsNorm,
}

impl Gemma3 {
    pub(crate) fn load(
        (config, constants): (&ModelConfig, &Gemma3Config),
        source: &LayerSource<'_>,
        num_blocks: usize,
    ) -> Result<Self, ModelError> {
        let model = source.part("model");
        let d = config.hidden_size;
        let embed_scale = (d as f64).sqrt();
        let rope = |theta| Rope::new(config.head_dim, theta, source.compute);
        Ok(Self {
            embed_tokens: model.embedding("embed_tokens.weight", [config.vocab_size, d])?,
            embed_scale: match source.compute.kind {
                Kind::BFloat16 => bf16::from_f64(embed_scale).to_f64(), // as the model was trained
                _ => embed_scale,
            },
            layers: (0..num_blocks)
                .map(|layer| {
                    let window = config.window(layer);
                    Block::load((config, constants), window, &model.part("layers").part(layer))
                })
                .collect::<Result<_, _>>()?,
            norm: model.rms_norm_around_one("norm", d, constants.rms_norm_eps)?,
            global_rope: rope(constants.rope_theta),
            local_rope: rope(constants.rope_local_base_freq),
        })
    }
}

impl Block {
    fn load(
        (config, constants): (&ModelConfig, &Gemma3Config),
        window: Option<usize>,
        block: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let (d, ff, eps) = (config.hidden_size, config.intermediate_size, constants.rms_norm_eps);
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let (attention, mlp) = (block.part("self_attn"), block.part("mlp"));
        let scale = constants.query_pre_attn_scalar.powf(-0.5) as f32;
        Ok(Self {
            input_layernorm: block.rms_norm_around_one("input_layernorm", d, eps)?,
            self_attn: SelfAttention {
                shape: head_shape(config),
                scoring: Scoring { scale, window },
                qkv_proj: attention
                    .stacked(d, &[("q_proj", q_width), ("k_proj", kv_width), ("v_proj", kv_width)])?,
                head_norms: Some(attention.head_norms_around_one(config.head_dim, eps)?),
                o_proj: attention.linear("o_proj", [d, q_width])?,
            },
            post_attention_layernorm: block.rms_norm_around_one("post_attention_layernorm", d, eps)?,
            pre_feedforward_layernorm: block.rms_norm_around_one("pre_feedforward_layernorm", d, eps)?,
            mlp: FeedForward {
                input: FeedForwardInput::Gated(mlp.stacked(d, &[("gate_proj", ff), ("up_proj", ff)])?),
                activation: Activation::GeluTanh,
                output: mlp.linear("down_proj", [d, ff])?,
            },
            post_feedforward_layernorm: block.rms_norm_around_one("post_feedforward_layernorm", d, eps)?,
        })
    }

    /// `x`: `[rows, d]` f32. None if the pass ends with keys and values.
    fn forward(&self, x: Tensor, layer: usize, rope: &Rope, pass: &mut Pass<'_>) -> Option<Tensor> {
        let normed = time(Part::Norm, || self.input_layernorm.forward(&x));
        let output = self.self_attn.output((layer, &normed), Positions::Rotary(rope), pass)?;
        let x = add_normed(x, &self.post_attention_layernorm, &output, pass.dropout);
        let normed = time(Part::Norm, || self.pre_feedforward_layernorm.forward(&x));
        let output = self.mlp.output(&normed);
        Some(add_normed(x, &self.post_feedforward_layernorm, &output, pass.dropout))
    }
}

/// `x` plus the norm of the output of a block's part, both `[rows, d]` f32.
fn add_normed(x: Tensor, norm: &RmsNorm, output: &Tensor, dropout: f64) -> Tensor {
    time(Part::Norm, || x + norm.numbers(output).dropout(dropout, dropout > 0.0))
}

impl Stack for Gemma3 {
    fn embedding(&self) -> &Tensor {
        &self.embed_tokens
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        let embedded = Tensor::embedding(&self.embed_tokens, tokens, -1, false, false);
        (embedded * self.embed_scale).to_kind(Kind::Float)
    }

    fn num_blocks(&self) -> usize {
        self.layers.len()
    }

    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Option<Tensor> {
        pass.of(&self.layers).try_fold(x, |x, (layer, block)| {
            let local = block.self_attn.scoring.window.is_some();
            let rope = if local { &self.local_rope } else { &self.global_rope };
            block.forward(x, layer, rope, pass)
        })
    }

    fn final_norm(&self, x: &Tensor) -> LinearInput {
        self.norm.forward(x)
    }
}
