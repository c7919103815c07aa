//! The decoder-only families with rotary positions: Llama, Mistral, Qwen, Gemma, Phi, OLMo, Granite, SmolLM3.
//!
//! Blocks of grouped-query attention and a gated feed-forward layer, with norms before or after each part, or
//! both. The differences between families are data (`baton_bundle::DecoderConfig`), so no computation here
//! asks for the family. References: Hugging Face's `modeling_*.py` of each, and the papers that
//! `bundle/src/config/` names.

use std::ops::Range;

use baton_bundle::{BlockNorms, DecoderConfig, GateActivation, ModelConfig, QueryKeyNorms, RotaryConfig};
use half::bf16;
use tch::{Kind, Tensor};

use crate::{
    ModelError, Scoring,
    experts::Experts,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::{HeadNorms, RmsNorm, Rope},
    linear::LinearInput,
    self_attention::{Positions, SelfAttention, head_shape},
    stack::{Pass, Stack},
    step_time::{Part, time},
};

#[derive(Debug)]
pub(crate) struct Decoder {
    embed_tokens: Tensor, // [vocab, d]
    embed_factor: Option<f64>,
    layers: Vec<Block>,
    norm: RmsNorm,
    ropes: Vec<(RotaryConfig, Rope)>, // one for each kind of block
}

#[derive(Debug)]
struct Block {
    norms: Norms,
    self_attn: SelfAttention,
    mlp: Mlp,
    residual_factor: Option<f64>,
    /// Its rotation's place in `ropes`.
    rope: Option<usize>,
}

/// The norms of a block, where it has them.
#[derive(Debug)]
struct Norms {
    before_attention: Option<RmsNorm>,
    after_attention: Option<RmsNorm>,
    before_mlp: Option<RmsNorm>,
    after_mlp: Option<RmsNorm>,
}

#[derive(Debug)]
enum Mlp {
    Dense(FeedForward),
    Experts(Experts),
}

pub(crate) fn load(
    (config, constants): (&ModelConfig, &DecoderConfig),
    source: &LayerSource<'_>,
    blocks: Range<usize>,
) -> Result<Decoder, ModelError> {
    if blocks.start > 0 {
        return load_blocks((config, constants), source, blocks);
    }
    let shape = [config.vocab_size, config.hidden_size];
    let embed_tokens = source.part("model").embedding("embed_tokens.weight", shape)?;
    Ok(Decoder { embed_tokens, ..load_blocks((config, constants), source, blocks)? })
}

/// Blocks and the norm after them, for states in place of tokens; the embedding has no row.
pub(crate) fn load_blocks(
    (config, constants): (&ModelConfig, &DecoderConfig),
    source: &LayerSource<'_>,
    blocks: Range<usize>,
) -> Result<Decoder, ModelError> {
    let model = source.part("model");
    let d = config.hidden_size;
    let mut ropes: Vec<(RotaryConfig, Rope)> = Vec::new();
    let mut layers = Vec::with_capacity(blocks.len());
    for layer in blocks {
        let rope = constants.rotary_of(layer).map(|rotary| {
            let known = ropes.iter().position(|(known, _)| known == rotary);
            known.unwrap_or_else(|| {
                ropes.push((rotary.clone(), Rope::new(rotary, config.head_dim, source.compute)));
                ropes.len() - 1
            })
        });
        layers.push(Block::load((config, constants), (layer, rope), &model.part("layers").part(layer))?);
    }
    // A head is linear, so its input can be divided in place of its output.
    let factor = constants.logits_divisor.map_or(1.0, f64::recip);
    let final_norm = model.norm_weight("norm", d, constants.norms_around_one)? * factor;
    let embed_factor = constants.embedding_factor.map(|factor| match source.compute.kind {
        Kind::BFloat16 => bf16::from_f64(factor).to_f64(), // as such models were trained
        _ => factor,
    });
    Ok(Decoder {
        embed_tokens: source.no_embedding(d),
        embed_factor,
        layers,
        norm: RmsNorm::new(&final_norm, constants.rms_norm_eps, source.compute),
        ropes,
    })
}

impl Block {
    fn load(
        (config, constants): (&ModelConfig, &DecoderConfig),
        (layer, rope): (usize, Option<usize>),
        block: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let scale = constants.attention_factor.unwrap_or_else(|| (config.head_dim as f64).sqrt().recip());
        let scoring = Scoring {
            scale: scale as f32,
            window: config.window(layer),
            cap: constants.attention_cap.map(|cap| cap as f32),
        };
        Ok(Self {
            norms: Norms::load((config, constants), block)?,
            self_attn: load_attention((config, constants), scoring, &block.part("self_attn"))?,
            mlp: match constants.experts_of(layer) {
                Some(experts) => {
                    let expert = |source: &LayerSource<'_>| {
                        load_feed_forward((config, constants), experts.intermediate_size, source)
                    };
                    Mlp::Experts(Experts::load(experts, config.hidden_size, &block.part("mlp"), expert)?)
                }
                None => {
                    let inner = config.intermediate_size;
                    Mlp::Dense(load_feed_forward((config, constants), inner, &block.part("mlp"))?)
                }
            },
            residual_factor: constants.residual_factor.filter(|&factor| factor != 1.0),
            rope,
        })
    }

    /// `x`: `[rows, d]` f32. None if the pass ends with keys and values.
    fn forward(
        &self,
        x: Tensor,
        layer: usize,
        positions: Positions<'_>,
        pass: &mut Pass<'_>,
    ) -> Option<Tensor> {
        let Norms { before_attention, after_attention, before_mlp, after_mlp } = &self.norms;
        let input = time(Part::Norm, || match before_attention {
            Some(norm) => norm.forward(&x),
            None => self.self_attn.input(&x),
        });
        let x = match self.joins_plainly(after_attention.as_ref()) {
            true => self.self_attn.add_to(x, (layer, &input), positions, pass)?,
            false => {
                let output = self.self_attn.output((layer, &input), positions, pass)?;
                self.join(x, after_attention.as_ref(), output, pass.dropout)
            }
        };
        let mlp = match &self.mlp {
            Mlp::Dense(mlp) => mlp,
            Mlp::Experts(experts) => {
                let normed = time(Part::Norm, || before_mlp.as_ref().map(|norm| norm.numbers(&x)));
                let output = experts.output(normed.as_ref().unwrap_or(&x));
                return Some(self.join(x, after_mlp.as_ref(), output, pass.dropout));
            }
        };
        let input = time(Part::Norm, || match before_mlp {
            Some(norm) => norm.forward(&x),
            None => mlp.input(&x),
        });
        Some(match self.joins_plainly(after_mlp.as_ref()) {
            true => mlp.add_to(x, &input, pass.dropout),
            false => self.join(x, after_mlp.as_ref(), mlp.output(&input), pass.dropout),
        })
    }

    /// Whether a part's output is added as it is.
    fn joins_plainly(&self, norm: Option<&RmsNorm>) -> bool {
        norm.is_none() && self.residual_factor.is_none()
    }

    /// `x` plus the output of a part, by way of the norm and the factor; `[rows, d]` f32 all.
    fn join(&self, x: Tensor, norm: Option<&RmsNorm>, output: Tensor, dropout: f64) -> Tensor {
        time(Part::Norm, || {
            let output = match norm {
                Some(norm) => norm.numbers(&output),
                None => output,
            };
            let output = match self.residual_factor {
                Some(factor) => output * factor,
                None => output,
            };
            x + output.dropout(dropout, dropout > 0.0)
        })
    }
}

impl Norms {
    fn load(
        (config, constants): (&ModelConfig, &DecoderConfig),
        block: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let norm = |name: &str| {
            let weight = block.norm_weight(name, config.hidden_size, constants.norms_around_one)?;
            Ok::<_, ModelError>(Some(RmsNorm::new(&weight, constants.rms_norm_eps, block.compute)))
        };
        Ok(match constants.norms {
            BlockNorms::Before => Self {
                before_attention: norm("input_layernorm")?,
                after_attention: None,
                before_mlp: norm("post_attention_layernorm")?,
                after_mlp: None,
            },
            BlockNorms::After => Self {
                before_attention: None,
                after_attention: norm("post_attention_layernorm")?,
                before_mlp: None,
                after_mlp: norm("post_feedforward_layernorm")?,
            },
            BlockNorms::BeforeAndAfter => Self {
                before_attention: norm("input_layernorm")?,
                after_attention: norm("post_attention_layernorm")?,
                before_mlp: norm("pre_feedforward_layernorm")?,
                after_mlp: norm("post_feedforward_layernorm")?,
            },
        })
    }
}

fn load_attention(
    (config, constants): (&ModelConfig, &DecoderConfig),
    scoring: Scoring,
    attention: &LayerSource<'_>,
) -> Result<SelfAttention, ModelError> {
    let d = config.hidden_size;
    let q_width = config.num_attention_heads * config.head_dim;
    let kv_width = config.num_key_value_heads * config.head_dim;
    let qkv = [("q_proj", q_width), ("k_proj", kv_width), ("v_proj", kv_width)];
    let norm_widths = match constants.query_key_norms {
        QueryKeyNorms::None => None,
        QueryKeyNorms::EachHead => Some([config.head_dim; 2]),
        QueryKeyNorms::AllHeads => Some([q_width, kv_width]),
    };
    let head_norms = norm_widths.map(|[q_width, k_width]| {
        let weight = |name, width| attention.norm_weight(name, width, constants.norms_around_one);
        let weights = (&weight("q_norm", q_width)?, &weight("k_norm", k_width)?);
        Ok::<_, ModelError>(HeadNorms::new(weights, constants.rms_norm_eps, attention.compute))
    });
    Ok(SelfAttention {
        shape: head_shape(config),
        scoring,
        qkv_proj: match (constants.fused, constants.qkv_bias) {
            (true, _) => attention.linear("qkv_proj", [q_width + 2 * kv_width, d])?,
            (false, true) => attention.stacked_with_bias(d, &qkv)?,
            (false, false) => attention.stacked(d, &qkv)?,
        },
        head_norms: head_norms.transpose()?,
        o_proj: attention.linear("o_proj", [d, q_width])?,
    })
}

fn load_feed_forward(
    (config, constants): (&ModelConfig, &DecoderConfig),
    inner: usize,
    mlp: &LayerSource<'_>,
) -> Result<FeedForward, ModelError> {
    let d = config.hidden_size;
    let input = match constants.fused {
        true => mlp.linear("gate_up_proj", [2 * inner, d])?,
        false => mlp.stacked(d, &[("gate_proj", inner), ("up_proj", inner)])?,
    };
    Ok(FeedForward {
        input: FeedForwardInput::Gated(input),
        activation: match constants.gate {
            GateActivation::Silu => Activation::Silu,
            GateActivation::GeluTanh => Activation::GeluTanh,
        },
        output: mlp.linear("down_proj", [d, inner])?,
    })
}

impl Stack for Decoder {
    fn embedding(&self) -> &Tensor {
        &self.embed_tokens
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        let embedded = Tensor::embedding(&self.embed_tokens, tokens, -1, false, false);
        let embedded = match self.embed_factor {
            Some(factor) => embedded * factor,
            None => embedded,
        };
        embedded.to_kind(Kind::Float)
    }

    fn num_blocks(&self) -> usize {
        self.layers.len()
    }

    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Option<Tensor> {
        pass.of(&self.layers).try_fold(x, |x, (layer, block)| {
            let positions = match block.rope {
                Some(rope) => Positions::Rotary(&self.ropes[rope].1),
                None => Positions::Unmarked,
            };
            block.forward(x, layer, positions, pass)
        })
    }

    fn final_norm(&self, x: &Tensor) -> LinearInput {
        self.norm.forward(x)
    }
}
