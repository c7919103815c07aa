//! Llama's `config.json` and tensors.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    rotary::{self, Defaults},
    tensors::{Widths, around_blocks},
};

/// Constants of a Llama.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Added to the mean square before the root in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
}

impl LlamaConfig {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        rotary::check_head_dim(config)
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be_one_of("hidden_act", &["silu"], "silu")?;
    fields.must_be("attention_bias", false)?;
    fields.must_be("mlp_bias", false)?;
    let constants = LlamaConfig {
        rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
        rope_theta: rotary::theta(fields, 10_000.0)?,
    };
    let defaults = Defaults {
        num_key_value_heads_required: false,
        head_dim: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
    };
    rotary::read(fields, FamilyConfig::Llama(constants), &defaults)
}

pub(super) fn write(config: &ModelConfig, constants: &LlamaConfig) -> Map<String, Value> {
    let mut fields = rotary::write(config);
    fields.push(("rms_norm_eps", constants.rms_norm_eps.into()));
    fields.extend(rotary::both_spellings(constants.rope_theta));
    fields.extend([
        ("hidden_act", "silu".into()),
        ("attention_bias", false.into()),
        ("mlp_bias", false.into()),
    ]);
    fields::file(config, "LlamaForCausalLM", fields)
}

pub(super) fn tensors(config: &ModelConfig) -> TensorLayout {
    let Widths { hidden, inner, queries, keys } = Widths::of(config);
    let block = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![queries, hidden]),
        ("self_attn.k_proj.weight", vec![keys, hidden]),
        ("self_attn.v_proj.weight", vec![keys, hidden]),
        ("self_attn.o_proj.weight", vec![hidden, queries]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inner, hidden]),
        ("mlp.up_proj.weight", vec![inner, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inner]),
    ];
    around_blocks(config, &block)
}
