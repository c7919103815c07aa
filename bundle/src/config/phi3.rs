//! Phi-3's `config.json`, also that of Phi-3.5, Phi-4 and Phi-4-mini: Llama with its projections stored as
//! one matrix each, and frequencies by `LongRoPE` where contexts are long. Reference: Abdin et al., arXiv
//! 2404.14219, and Hugging Face `Phi3ForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, SlidingLayers, UnsupportedSetting,
    decoder::{self, DecoderConfig, Defaults, GateActivation, KeyValueHeads},
    fields::Fields,
};
use crate::Family;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let window = fields.optional_size("sliding_window")?;
    let constants = DecoderConfig {
        fused: true,
        sliding: SlidingLayers::read(fields, window, |_| window.is_some())?,
        ..decoder::read_plain(fields, Family::Phi3, (1e-5, 10_000.0))?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::AsManyAsQueries,
        max_position_embeddings: 4096,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

pub(super) fn write(
    config: &ModelConfig,
    constants: &DecoderConfig,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let mut fields: Vec<_> =
        SlidingLayers::fields(constants.sliding.as_ref(), config.num_hidden_layers).into();
    fields.push(("pad_token_id", Value::Null)); // the usual one is beyond a small vocabulary
    ("Phi3ForCausalLM", fields)
}
