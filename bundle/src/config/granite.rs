//! Granite's `config.json`: Llama with four factors. Reference: Granite Team, "Granite 3.0 Language Models"
//! (2024), and Hugging Face `GraniteForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, UnsupportedSetting,
    decoder::{self, DecoderConfig, Defaults, GateActivation, KeyValueHeads},
    fields::Fields,
};
use crate::Family;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let constants = DecoderConfig {
        embedding_factor: Some(fields.positive("embedding_multiplier", 1.0)?),
        residual_factor: Some(fields.positive("residual_multiplier", 1.0)?),
        attention_factor: Some(fields.positive("attention_multiplier", 1.0)?),
        logits_divisor: Some(fields.positive("logits_scaling", 1.0)?),
        ..decoder::read_plain(fields, Family::Granite, (1e-6, 10_000.0))?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::AsManyAsQueries,
        max_position_embeddings: 2048,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

pub(super) fn write(constants: &DecoderConfig) -> (&'static str, Vec<(&'static str, Value)>) {
    let factor = |factor: Option<f64>| factor.unwrap_or(1.0).into();
    let fields = vec![
        ("embedding_multiplier", factor(constants.embedding_factor)),
        ("residual_multiplier", factor(constants.residual_factor)),
        ("attention_multiplier", factor(constants.attention_factor)),
        ("logits_scaling", factor(constants.logits_divisor)),
    ];
    ("GraniteForCausalLM", fields)
}
