//! `config.json` and tensors of Gemma 3's text models.

use serde_json::{Map, Value, json};

use super::{
    FamilyConfig, ModelConfig, SlidingLayers, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    rotary::{self, Defaults},
    tensors::{Widths, around_blocks},
};

/// Constants of a Gemma 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemma3Config {
    /// Added to the mean square before the root in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies where a block sees everything before a token.
    pub rope_theta: f64,
    /// Base of the rotary frequencies in sliding blocks.
    pub rope_local_base_freq: f64,
    /// Scores are divided by the root of this, not of the width of a head.
    pub query_pre_attn_scalar: f64,
    /// Blocks with sliding attention: five of six, as published.
    pub sliding: Option<SlidingLayers>,
}

impl Gemma3Config {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        SlidingLayers::check(self.sliding.as_ref(), config)?;
        rotary::check_head_dim(config)
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    const GELU: &str = "gelu_pytorch_tanh";
    for activation in ["hidden_activation", "hidden_act"] {
        fields.must_be_one_of(activation, &[GELU], GELU)?;
    }
    fields.must_be("attention_bias", false)?;
    fields.must_be("use_bidirectional_attention", false)?;
    fields.must_be_absent("attn_logit_softcapping", "no capping (null)")?;
    fields.must_be_absent("final_logit_softcapping", "no capping (null)")?;
    let window = fields.optional_size("sliding_window")?.unwrap_or(4096);
    let pattern = fields.optional_size("sliding_window_pattern")?.unwrap_or(6);
    if pattern == 0 {
        return Err(UnsupportedSetting::new("sliding_window_pattern", &pattern, "a number of at least 1"));
    }
    let [rope_theta, rope_local_base_freq] = thetas(fields)?;
    let constants = Gemma3Config {
        rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
        rope_theta,
        rope_local_base_freq,
        query_pre_attn_scalar: fields.positive("query_pre_attn_scalar", 256.0)?,
        sliding: SlidingLayers::read(fields, Some(window), |layer| (layer + 1) % pattern != 0)?,
    };
    let defaults = Defaults {
        num_key_value_heads_required: true,
        head_dim: Some(256),
        max_position_embeddings: 131_072,
        tie_word_embeddings: true,
    };
    rotary::read(fields, FamilyConfig::Gemma3(constants), &defaults)
}

/// The two rotary bases, global and local: at the top level, or in a map for each kind of layer.
fn thetas(fields: &Fields<'_>) -> Result<[f64; 2], UnsupportedSetting> {
    rotary::refuse_partial_rotation(fields)?;
    let mut global = fields.positive("rope_theta", 1_000_000.0)?;
    let mut local = fields.positive("rope_local_base_freq", 10_000.0)?;
    if let Some(scaling) = fields.get("rope_scaling") {
        global = rotary::theta_of_map("rope_scaling", scaling)?.unwrap_or(global);
    }
    match fields.get("rope_parameters") {
        None => {}
        Some(Value::Object(kinds)) => {
            for (kind, map) in kinds.iter().filter(|(_, map)| !map.is_null()) {
                let field = format!("rope_parameters.{kind}");
                let theta = match kind.as_str() {
                    "full_attention" => &mut global,
                    "sliding_attention" => &mut local,
                    _ => {
                        let supported = "a map for full_attention and one for sliding_attention";
                        return Err(UnsupportedSetting::new(field, map, supported));
                    }
                };
                *theta = rotary::theta_of_map(&field, map)?.unwrap_or(*theta);
            }
        }
        Some(other) => {
            let supported = "a map for full_attention and one for sliding_attention";
            return Err(UnsupportedSetting::new("rope_parameters", other, supported));
        }
    }
    Ok([global, local])
}

pub(super) fn write(config: &ModelConfig, constants: &Gemma3Config) -> Map<String, Value> {
    let Gemma3Config { rms_norm_eps, rope_theta, rope_local_base_freq, query_pre_attn_scalar, sliding } =
        constants;
    let rope_parameters = json!({
        "full_attention": rotary::map_of_theta(*rope_theta),
        "sliding_attention": rotary::map_of_theta(*rope_local_base_freq),
    });
    let scalar = match *query_pre_attn_scalar {
        whole if whole.fract() == 0.0 => (whole as u64).into(), // transformers insists on a whole number
        other => other.into(),
    };
    let mut fields = rotary::write(config);
    fields.extend([
        ("rms_norm_eps", (*rms_norm_eps).into()),
        // Both spellings: releases of transformers before 5 know only the first two, later ones the third.
        ("rope_theta", (*rope_theta).into()),
        ("rope_local_base_freq", (*rope_local_base_freq).into()),
        ("rope_parameters", rope_parameters),
        ("query_pre_attn_scalar", scalar),
        ("sliding_window", sliding.as_ref().map(|sliding| sliding.window).into()),
        ("layer_types", SlidingLayers::types(sliding.as_ref(), config.num_hidden_layers)),
        ("hidden_activation", "gelu_pytorch_tanh".into()),
        ("attention_bias", false.into()),
    ]);
    fields::file(config, "Gemma3ForCausalLM", fields)
}

pub(super) fn tensors(config: &ModelConfig) -> TensorLayout {
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
        ("pre_feedforward_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inner, hidden]),
        ("mlp.up_proj.weight", vec![inner, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inner]),
        ("post_feedforward_layernorm.weight", vec![hidden]),
    ];
    around_blocks(config, &block)
}
