//! SmolLM3's `config.json`: Llama without positions in every fourth block. Reference: Bakouch et al.,
//! "SmolLM3" (2025), and Hugging Face `SmolLM3ForCausalLM`.

use serde_json::Value;

use super::{
    ModelConfig, SlidingLayers, UnsupportedSetting,
    decoder::{self, DecoderConfig, Defaults, GateActivation, KeyValueHeads},
    fields::Fields,
};
use crate::Family;

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::Silu, &["hidden_act"])?;
    let rotated_layers = rotated_layers(fields)?;
    let window = if fields.flag("use_sliding_window", false)? {
        fields.optional_size("sliding_window")?
    } else {
        None
    };
    let is_sliding = |layer: usize| window.is_some() && !rotated_layers[layer];
    let constants = DecoderConfig {
        sliding: SlidingLayers::read(fields, window, is_sliding)?,
        rotated_layers,
        ..decoder::read_plain(fields, Family::Smollm3, (1e-6, 2_000_000.0))?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::Number(4),
        max_position_embeddings: 32_768,
        ..Defaults::default()
    };
    decoder::read(fields, constants, &defaults)
}

/// `no_rope_layers` has 1 where a block rotates; without the list, each block but every fourth does.
fn rotated_layers(fields: &Fields<'_>) -> Result<Vec<bool>, UnsupportedSetting> {
    let num_layers = fields.size("num_hidden_layers")?.min(1000);
    let interval = fields.optional_size("no_rope_layer_interval")?.unwrap_or(4);
    let Some(list) = fields.get("no_rope_layers") else {
        return Ok((0..num_layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect());
    };
    let flag = |value: &Value| match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    };
    let flags: Option<Vec<bool>> = list
        .as_array()
        .filter(|list| list.len() == num_layers)
        .and_then(|list| list.iter().map(flag).collect());
    flags.ok_or_else(|| {
        UnsupportedSetting::new("no_rope_layers", list, "a list of 0 and 1, one for each layer")
    })
}

pub(super) fn write(
    config: &ModelConfig,
    constants: &DecoderConfig,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let rotates = |layer| u8::from(constants.rotary_of(layer).is_some());
    let layers: Vec<u8> = (0..config.num_hidden_layers).map(rotates).collect();
    let sliding = constants.sliding.as_ref();
    let mut fields = vec![
        ("no_rope_layers", layers.into()),
        ("use_sliding_window", sliding.is_some().into()),
        ("pad_token_id", Value::Null), // the usual one is beyond a small vocabulary
    ];
    fields.extend(SlidingLayers::fields(sliding, config.num_hidden_layers));
    ("SmolLM3ForCausalLM", fields)
}
