//! Llama's `config.json`: Llama 1 to 3, SmolLM2, EuroLLM, and Baton's own decoder-only small models.
//! Reference: Touvron et al., arXiv 2302.13971, and Hugging Face `LlamaForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, UnsupportedSetting,
    decoder::{self, Defaults, GateActivation, KeyValueHeads},
    fields::Fields,
};
use crate::Family;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let constants = decoder::read_plain(fields, Family::Llama, (1e-6, 10_000.0))?;
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::AsManyAsQueries,
        max_position_embeddings: 2048,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

pub(super) fn write() -> (&'static str, Vec<(&'static str, Value)>) {
    ("LlamaForCausalLM", Vec::new())
}
