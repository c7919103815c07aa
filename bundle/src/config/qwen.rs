//! `config.json` of Qwen2, Qwen2.5, Qwen3 and Qwen3's mixtures of experts.
//!
//! Qwen2 is Llama with biases on queries, keys and values; Qwen3 has norms of query and key heads in their
//! place. Reference: Yang et al., arXiv 2407.10671 and 2505.09388, and Hugging Face `Qwen2ForCausalLM`,
//! `Qwen3ForCausalLM` and `Qwen3MoeForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, SlidingLayers, UnsupportedSetting,
    decoder::{self, DecoderConfig, Defaults, ExpertsConfig, GateActivation, QueryKeyNorms},
    fields::Fields,
};
use crate::Family;

pub(super) fn read_qwen2(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let constants = DecoderConfig { qkv_bias: true, ..constants(fields, Family::Qwen2)? };
    decoder::read(fields, constants, &defaults(None))
}

pub(super) fn read_qwen3(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let query_key_norms = QueryKeyNorms::EachHead;
    let constants = DecoderConfig { query_key_norms, ..constants(fields, Family::Qwen3)? };
    decoder::read(fields, constants, &defaults(Some(128)))
}

pub(super) fn read_qwen3_moe(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let constants = DecoderConfig {
        query_key_norms: QueryKeyNorms::EachHead,
        experts: Some(experts(fields)?),
        ..constants(fields, Family::Qwen3Moe)?
    };
    decoder::read(fields, constants, &defaults(None))
}

fn defaults(head_dim: Option<usize>) -> Defaults {
    Defaults { head_dim, max_position_embeddings: 32_768, ..Defaults::default() }
}

fn constants(fields: &Fields<'_>, family: Family) -> Result<DecoderConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let window = if fields.flag("use_sliding_window", false)? {
        Some(fields.optional_size("sliding_window")?.unwrap_or(4096))
    } else {
        None
    };
    let first_sliding = fields.optional_size("max_window_layers")?.unwrap_or(28);
    let is_sliding = |layer| window.is_some() && (family == Family::Qwen3Moe || layer >= first_sliding);
    let mut constants = decoder::read_plain(fields, family, (1e-6, 10_000.0))?;
    constants.sliding = SlidingLayers::read(fields, window, is_sliding)?;
    Ok(constants)
}

fn experts(fields: &Fields<'_>) -> Result<ExpertsConfig, UnsupportedSetting> {
    let or = |field, default| Ok(fields.optional_size(field)?.unwrap_or(default));
    let num_layers = fields.size("num_hidden_layers")?.min(1000);
    let step = or("decoder_sparse_step", 1)?;
    let dense = fields.token_ids("mlp_only_layers")?;
    let is_dense = |layer: usize| dense.iter().any(|&dense| dense as usize == layer);
    let has_experts = |layer: usize| step > 0 && (layer + 1).is_multiple_of(step) && !is_dense(layer);
    Ok(ExpertsConfig {
        num_experts: or("num_experts", or("num_local_experts", 128)?)?, // a later name of the same
        per_token: or("num_experts_per_tok", 8)?,
        intermediate_size: or("moe_intermediate_size", 768)?,
        normalized: fields.flag("norm_topk_prob", false)?,
        layers: (0..num_layers).map(has_experts).collect(),
    })
}

pub(super) fn write(
    config: &ModelConfig,
    constants: &DecoderConfig,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let sliding = constants.sliding.as_ref();
    let mut fields = vec![("use_sliding_window", sliding.is_some().into())];
    fields.extend(SlidingLayers::fields(sliding, config.num_hidden_layers));
    if let Some(experts) = &constants.experts {
        let dense = (0..experts.layers.len()).filter(|&layer| !experts.layers[layer]);
        fields.extend([
            ("num_experts", experts.num_experts.into()),
            ("num_local_experts", experts.num_experts.into()),
            ("num_experts_per_tok", experts.per_token.into()),
            ("moe_intermediate_size", experts.intermediate_size.into()),
            ("norm_topk_prob", experts.normalized.into()),
            ("decoder_sparse_step", 1.into()),
            ("mlp_only_layers", dense.collect()),
        ]);
    }
    let architecture = match constants.family {
        Family::Qwen3Moe => "Qwen3MoeForCausalLM",
        Family::Qwen3 => "Qwen3ForCausalLM",
        _ => "Qwen2ForCausalLM",
    };
    (architecture, fields)
}
