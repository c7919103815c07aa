//! Llama: SmolLM2 as LLM, and Baton's own decoder-only small models; and the block that Qwen2 and Qwen3 vary.
//!
//! Pre-norm blocks of grouped-query attention with rotary positions, and a SwiGLU feed-forward layer.
//! Reference: Touvron et al., arXiv 2302.13971, and Hugging Face `LlamaForCausalLM`.

use baton_bundle::{LlamaConfig, ModelConfig};
use tch::Tensor;

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
pub(crate) struct Llama {
    embed_tokens: Tensor, // [vocab, d]
    layers: Vec<Block>,
    norm: RmsNorm,
    rope: Rope,
}

#[derive(Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

/// The differences between families with this block. Windows come from the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LlamaVariant {
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    /// Whether queries, keys and values have biases.
    pub(crate) qkv_bias: bool,
    /// Whether query and key heads have norms.
    pub(crate) head_norms: bool,
}

pub(crate) fn load(
    (config, constants): (&ModelConfig, &LlamaConfig),
    source: &LayerSource<'_>,
    num_blocks: usize,
) -> Result<Llama, ModelError> {
    Llama::of_variant((config, plain(constants)), source, num_blocks)
}

/// All blocks and the norm after them, for states in place of tokens.
pub(crate) fn load_blocks(
    (config, constants): (&ModelConfig, &LlamaConfig),
    source: &LayerSource<'_>,
) -> Result<Llama, ModelError> {
    Llama::without_embedding((config, plain(constants)), source, config.num_hidden_layers)
}

fn plain(constants: &LlamaConfig) -> LlamaVariant {
    let LlamaConfig { rms_norm_eps, rope_theta } = *constants;
    LlamaVariant { rms_norm_eps, rope_theta, qkv_bias: false, head_norms: false }
}

impl Llama {
    pub(crate) fn of_variant(
        (config, variant): (&ModelConfig, LlamaVariant),
        source: &LayerSource<'_>,
        num_blocks: usize,
    ) -> Result<Self, ModelError> {
        let embed_tokens =
            source.part("model").embedding("embed_tokens.weight", [config.vocab_size, config.hidden_size])?;
        Ok(Self { embed_tokens, ..Self::without_embedding((config, variant), source, num_blocks)? })
    }

    /// Blocks and the norm after them; the embedding has no row.
    fn without_embedding(
        (config, variant): (&ModelConfig, LlamaVariant),
        source: &LayerSource<'_>,
        num_blocks: usize,
    ) -> Result<Self, ModelError> {
        let model = source.part("model");
        let d = config.hidden_size;
        Ok(Self {
            embed_tokens: Tensor::zeros([0, d as i64], (source.compute.kind, source.compute.device)),
            layers: (0..num_blocks)
                .map(|layer| {
                    let window = config.window(layer);
                    Block::load((config, variant), window, &model.part("layers").part(layer))
                })
                .collect::<Result<_, _>>()?,
            norm: model.rms_norm("norm", d, variant.rms_norm_eps)?,
            rope: Rope::new(config.head_dim, variant.rope_theta, source.compute),
        })
    }
}

impl Block {
    fn load(
        (config, variant): (&ModelConfig, LlamaVariant),
        window: Option<usize>,
        block: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let eps = variant.rms_norm_eps;
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let (attention, mlp) = (block.part("self_attn"), block.part("mlp"));
        let qkv = [("q_proj", q_width), ("k_proj", kv_width), ("v_proj", kv_width)];
        Ok(Self {
            input_layernorm: block.rms_norm("input_layernorm", d, eps)?,
            self_attn: SelfAttention {
                shape: head_shape(config),
                scoring: Scoring { window, ..Scoring::of_heads(config.head_dim) },
                qkv_proj: match variant.qkv_bias {
                    true => attention.stacked_with_bias(d, &qkv)?,
                    false => attention.stacked(d, &qkv)?,
                },
                head_norms: match variant.head_norms {
                    true => Some(attention.head_norms(config.head_dim, eps)?),
                    false => None,
                },
                o_proj: attention.linear("o_proj", [d, q_width])?,
            },
            post_attention_layernorm: block.rms_norm("post_attention_layernorm", d, eps)?,
            mlp: FeedForward {
                input: FeedForwardInput::Gated(mlp.stacked(d, &[("gate_proj", ff), ("up_proj", ff)])?),
                activation: Activation::Silu,
                output: mlp.linear("down_proj", [d, ff])?,
            },
        })
    }

    /// `x`: `[rows, d]` f32. None if the pass ends with keys and values.
    fn forward(&self, x: Tensor, layer: usize, rope: &Rope, pass: &mut Pass<'_>) -> Option<Tensor> {
        let normed = time(Part::Norm, || self.input_layernorm.forward(&x));
        let x = self.self_attn.add_to(x, (layer, &normed), Positions::Rotary(rope), pass)?;
        let normed = time(Part::Norm, || self.post_attention_layernorm.forward(&x));
        Some(self.mlp.add_to(x, &normed, pass.dropout))
    }
}

impl Stack for Llama {
    fn embedding(&self) -> &Tensor {
        &self.embed_tokens
    }

    fn num_blocks(&self) -> usize {
        self.layers.len()
    }

    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Option<Tensor> {
        pass.of(&self.layers).try_fold(x, |x, (layer, block)| block.forward(x, layer, &self.rope, pass))
    }

    fn final_norm(&self, x: &Tensor) -> LinearInput {
        self.norm.forward(x)
    }
}
