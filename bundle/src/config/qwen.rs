//! `config.json` and tensors of Qwen2 and Qwen3.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, SlidingLayers, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    rotary::{self, Defaults},
    tensors::{Widths, around_blocks},
};

/// Constants of a Qwen2 or Qwen3.
#[derive(Debug, Clone, PartialEq)]
pub struct QwenConfig {
    /// Added to the mean square before the root in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// Blocks with sliding attention; most checkpoints have none.
    pub sliding: Option<SlidingLayers>,
}

impl QwenConfig {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        SlidingLayers::check(self.sliding.as_ref(), config)?;
        rotary::check_head_dim(config)
    }
}

pub(super) fn read_qwen2(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, FamilyConfig::Qwen2, None)
}

pub(super) fn read_qwen3(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be("attention_bias", false)?;
    read(fields, FamilyConfig::Qwen3, Some(128))
}

fn read(
    fields: &Fields<'_>,
    family: fn(QwenConfig) -> FamilyConfig,
    head_dim: Option<usize>,
) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be_one_of("hidden_act", &["silu"], "silu")?;
    let window = if fields.flag("use_sliding_window", false)? {
        Some(fields.optional_size("sliding_window")?.unwrap_or(4096))
    } else {
        None
    };
    let first_sliding = fields.optional_size("max_window_layers")?.unwrap_or(28);
    let constants = QwenConfig {
        rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
        rope_theta: rotary::theta(fields, 10_000.0)?,
        sliding: SlidingLayers::read(fields, window, |layer| window.is_some() && layer >= first_sliding)?,
    };
    let defaults = Defaults {
        num_key_value_heads_required: true,
        head_dim,
        max_position_embeddings: 32_768,
        tie_word_embeddings: false,
    };
    rotary::read(fields, family(constants), &defaults)
}

pub(super) fn write(config: &ModelConfig, constants: &QwenConfig) -> Map<String, Value> {
    let QwenConfig { rms_norm_eps, rope_theta, sliding } = constants;
    let num_layers = config.num_hidden_layers;
    let mut fields = rotary::write(config);
    fields.push(("rms_norm_eps", (*rms_norm_eps).into()));
    fields.extend(rotary::both_spellings(*rope_theta));
    fields.extend([
        ("hidden_act", "silu".into()),
        ("use_sliding_window", sliding.is_some().into()),
        ("sliding_window", sliding.as_ref().map(|sliding| sliding.window).into()),
        ("layer_types", SlidingLayers::types(sliding.as_ref(), num_layers)),
    ]);
    let architecture = match config.family {
        FamilyConfig::Qwen3(_) => {
            fields.push(("attention_bias", false.into()));
            "Qwen3ForCausalLM"
        }
        _ => "Qwen2ForCausalLM",
    };
    fields::file(config, architecture, fields)
}

/// Llama's block with biases on the three projections that attention reads.
pub(super) fn qwen2_tensors(config: &ModelConfig) -> TensorLayout {
    let Widths { hidden, inner, queries, keys } = Widths::of(config);
    let block = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![queries, hidden]),
        ("self_attn.q_proj.bias", vec![queries]),
        ("self_attn.k_proj.weight", vec![keys, hidden]),
        ("self_attn.k_proj.bias", vec![keys]),
        ("self_attn.v_proj.weight", vec![keys, hidden]),
        ("self_attn.v_proj.bias", vec![keys]),
        ("self_attn.o_proj.weight", vec![hidden, queries]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inner, hidden]),
        ("mlp.up_proj.weight", vec![inner, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inner]),
    ];
    around_blocks(config, &block)
}

/// Llama's block with a norm for query heads and one for key heads.
pub(super) fn qwen3_tensors(config: &ModelConfig) -> TensorLayout {
    let Widths { hidden, inner, queries, keys } = Widths::of(config);
    let block = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![queries, hidden]),
        ("self_attn.k_proj.weight", vec![keys, hidden]),
        ("self_attn.v_proj.weight", vec![keys, hidden]),
        ("self_attn.q_norm.weight", vec![config.head_dim]),
        ("self_attn.k_norm.weight", vec![config.head_dim]),
        ("self_attn.o_proj.weight", vec![hidden, queries]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inner, hidden]),
        ("mlp.up_proj.weight", vec![inner, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inner]),
    ];
    around_blocks(config, &block)
}
