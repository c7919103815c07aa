//! `config.json` of Mistral and Ministral: Llama with heads of any width. Mistral's first release has a
//! sliding window in all blocks, Ministral in some. Reference: Jiang et al., arXiv 2310.06825, and
//! Hugging Face `MistralForCausalLM`, `MinistralForCausalLM` and `Ministral3ForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, SlidingLayers, UnsupportedSetting,
    decoder::{self, DecoderConfig, Defaults, GateActivation, KeyValueHeads},
    fields::Fields,
};
use crate::Family;

/// The window where a file says nothing; `null` says that there is none.
const USUAL_WINDOW: usize = 4096;

pub(super) fn read_mistral(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, Family::Mistral, (1e-6, Some(USUAL_WINDOW)))
}

pub(super) fn read_ministral(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, Family::Ministral, (1e-6, Some(USUAL_WINDOW)))
}

pub(super) fn read_ministral3(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read(fields, Family::Ministral3, (1e-5, None))
}

fn read(
    fields: &Fields<'_>,
    family: Family,
    (rms_norm_eps, usual_window): (f64, Option<usize>),
) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let window = match fields.is_present("sliding_window") {
        true => fields.optional_size("sliding_window")?,
        false => usual_window,
    };
    let constants = DecoderConfig {
        sliding: SlidingLayers::read(fields, window, |_| window.is_some())?,
        ..decoder::read_plain(fields, family, (rms_norm_eps, 10_000.0))?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::Number(8),
        head_dim: (family == Family::Ministral3).then_some(128),
        max_position_embeddings: 4096 * 32,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

pub(super) fn write(
    config: &ModelConfig,
    constants: &DecoderConfig,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let architecture = match constants.family {
        Family::Ministral => "MinistralForCausalLM",
        Family::Ministral3 => "Ministral3ForCausalLM",
        _ => "MistralForCausalLM",
    };
    (architecture, SlidingLayers::fields(constants.sliding.as_ref(), config.num_hidden_layers).into())
}
