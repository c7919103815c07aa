//! `config.json` of Gemma 2 and of Gemma 3's text models.
//!
//! A norm before and after each part of a block, stored as the factor minus one; GELU; embeddings scaled by
//! the root of their width; sliding attention in some blocks. Gemma 2 caps attention's products and logits.
//! Gemma 3 has norms of query and key heads in their place, and another rotation in sliding blocks.
//! Reference: Gemma Team, arXiv 2408.00118 and 2503.19786, and Hugging Face `Gemma2ForCausalLM` and
//! `Gemma3ForCausalLM`.

use serde_json::{Value, json};

use super::{
    ModelConfig, SlidingLayers, UnsupportedSetting,
    decoder::{self, BlockNorms, DecoderConfig, Defaults, GateActivation, KeyValueHeads, QueryKeyNorms},
    fields::Fields,
    rotary::RotaryConfig,
};
use crate::Family;

/// The defaults of both: heads of 256 channels, and the tokens `<bos>` and `<eos>`.
fn defaults() -> Defaults {
    Defaults {
        num_attention_heads: Some(8),
        num_key_value_heads: KeyValueHeads::Required,
        head_dim: Some(256),
        tie_word_embeddings: true,
        bos_token_id: Some(2),
        eos_token_id: Some(1),
        ..Defaults::default()
    }
}

fn constants(fields: &Fields<'_>, family: Family) -> Result<DecoderConfig, UnsupportedSetting> {
    decoder::must_gate_by(fields, GateActivation::GeluTanh, &["hidden_activation", "hidden_act"])?;
    fields.must_be("attention_bias", false)?;
    fields.must_be("use_bidirectional_attention", false)?;
    let rms_norm_eps = fields.positive("rms_norm_eps", 1e-6)?;
    Ok(DecoderConfig {
        norms: BlockNorms::BeforeAndAfter,
        norms_around_one: true,
        gate: GateActivation::GeluTanh,
        attention_factor: Some(fields.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5)),
        embedding_factor: Some((fields.size("hidden_size")? as f64).sqrt()),
        ..DecoderConfig::plain(family, rms_norm_eps, RotaryConfig::plain(10_000.0))
    })
}

pub(super) fn read_gemma2(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let window = fields.optional_size("sliding_window")?.unwrap_or(4096);
    let cap = |field, default| match fields.is_present(field) {
        true => fields.get(field).map(|_| fields.positive(field, default)).transpose(),
        false => Ok(Some(default)),
    };
    let constants = DecoderConfig {
        rotary: RotaryConfig::read(fields, 10_000.0)?,
        sliding: SlidingLayers::read(fields, Some(window), |layer| layer.is_multiple_of(2))?,
        attention_cap: cap("attn_logit_softcapping", 50.0)?,
        logit_cap: cap("final_logit_softcapping", 30.0)?,
        ..constants(fields, Family::Gemma2)?
    };
    decoder::read(fields, constants, &Defaults { max_position_embeddings: 8192, ..defaults() })
}

pub(super) fn read_gemma3(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be_absent("attn_logit_softcapping", "no capping (null)")?;
    fields.must_be_absent("final_logit_softcapping", "no capping (null)")?;
    let window = fields.optional_size("sliding_window")?.unwrap_or(4096);
    let pattern = fields.optional_size("sliding_window_pattern")?.unwrap_or(6);
    if pattern == 0 {
        return Err(UnsupportedSetting::new("sliding_window_pattern", &pattern, "a number of at least 1"));
    }
    let [global, local] = rotations(fields)?;
    let constants = DecoderConfig {
        query_key_norms: QueryKeyNorms::EachHead,
        rotary: global,
        local_rotary: Some(local),
        sliding: SlidingLayers::read(fields, Some(window), |layer| (layer + 1) % pattern != 0)?,
        ..constants(fields, Family::Gemma3)?
    };
    let defaults = Defaults {
        num_key_value_heads: KeyValueHeads::Number(4),
        vocab_size: Some(262_208),
        max_position_embeddings: 131_072,
        ..defaults()
    };
    decoder::read(fields, constants, &defaults)
}

/// The two rotations, global and local: at the top level, or in a map for each kind of layer.
fn rotations(fields: &Fields<'_>) -> Result<[RotaryConfig; 2], UnsupportedSetting> {
    let mut global = RotaryConfig::plain(fields.positive("rope_theta", 1_000_000.0)?);
    let mut local = RotaryConfig::plain(fields.positive("rope_local_base_freq", 10_000.0)?);
    if let Some(scaling) = fields.get("rope_scaling") {
        global.read_map(fields, "rope_scaling", scaling)?;
    }
    let supported = "a map for full_attention and one for sliding_attention";
    match fields.get("rope_parameters") {
        None => {}
        Some(Value::Object(kinds)) => {
            for (kind, map) in kinds.iter().filter(|(_, map)| !map.is_null()) {
                let field = format!("rope_parameters.{kind}");
                let rotation = match kind.as_str() {
                    "full_attention" => &mut global,
                    "sliding_attention" => &mut local,
                    _ => return Err(UnsupportedSetting::new(field, map, supported)),
                };
                rotation.read_map(fields, &field, map)?;
            }
        }
        Some(other) => return Err(UnsupportedSetting::new("rope_parameters", other, supported)),
    }
    Ok([global, local])
}

pub(super) fn write(
    config: &ModelConfig,
    constants: &DecoderConfig,
) -> (&'static str, Vec<(&'static str, Value)>) {
    let sliding = constants.sliding.as_ref();
    let scalar = match constants.attention_factor.unwrap_or(1.0).powi(-2) {
        near if (near - near.round()).abs() < 1e-6 => (near.round() as u64).into(), // transformers insists
        other => other.into(),
    };
    let mut fields =
        vec![("query_pre_attn_scalar", scalar), ("hidden_activation", "gelu_pytorch_tanh".into())];
    fields.extend(SlidingLayers::fields(sliding, config.num_hidden_layers));
    let architecture = match &constants.local_rotary {
        Some(local) => {
            // Releases of transformers before 5 know only `rope_local_base_freq`.
            let kinds =
                json!({"full_attention": constants.rotary.to_map(), "sliding_attention": local.to_map()});
            fields.extend([("rope_local_base_freq", local.theta.into()), ("rope_parameters", kinds)]);
            "Gemma3ForCausalLM"
        }
        None => {
            fields.extend([
                ("attn_logit_softcapping", constants.attention_cap.into()),
                ("final_logit_softcapping", constants.logit_cap.into()),
            ]);
            "Gemma2ForCausalLM"
        }
    };
    (architecture, fields)
}
