//! The fields that the families with rotary positions share in their `config.json`: names, the frequencies'
//! base, sliding layers.

use serde_json::{Value, json};

use super::{FamilyConfig, ModelConfig, OutputRules, UnsupportedSetting, fields::Fields};

/// Transformers' defaults for absent fields. A field without one is required.
pub(super) struct Defaults {
    /// If it is not required, the default is the number of query heads.
    pub(super) num_key_value_heads_required: bool,
    /// None: `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
}

/// A config of this family from the fields that all such families have.
pub(super) fn read(
    fields: &Fields<'_>,
    family: FamilyConfig,
    defaults: &Defaults,
) -> Result<ModelConfig, UnsupportedSetting> {
    let hidden_size = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let head_dim = match (fields.optional_size("head_dim")?, defaults.head_dim) {
        (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
        (None, None) => hidden_size.checked_div(heads).unwrap_or(0),
    };
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        num_hidden_layers: fields.size("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: if defaults.num_key_value_heads_required {
            fields.size("num_key_value_heads")?
        } else {
            fields.optional_size("num_key_value_heads")?.unwrap_or(heads)
        },
        head_dim,
        vocab_size: fields.size("vocab_size")?,
        max_position_embeddings: fields
            .optional_size("max_position_embeddings")?
            .unwrap_or(defaults.max_position_embeddings),
        tie_word_embeddings: fields.flag("tie_word_embeddings", defaults.tie_word_embeddings)?,
        bos_token_id: fields.optional_token_id("bos_token_id")?,
        eos_token_ids: fields.token_ids("eos_token_id")?,
        output_rules: OutputRules::default(),
        dtype: fields.dtype()?,
        family,
    })
}

/// The fields that [`read`] reads, for writing.
pub(super) fn write(config: &ModelConfig) -> Vec<(&'static str, Value)> {
    vec![
        ("hidden_size", config.hidden_size.into()),
        ("intermediate_size", config.intermediate_size.into()),
        ("num_hidden_layers", config.num_hidden_layers.into()),
        ("num_attention_heads", config.num_attention_heads.into()),
        ("num_key_value_heads", config.num_key_value_heads.into()),
        ("head_dim", config.head_dim.into()),
        ("max_position_embeddings", config.max_position_embeddings.into()),
    ]
}

/// Rotation pairs the two halves of a head.
pub(super) fn check_head_dim(config: &ModelConfig) -> Result<(), UnsupportedSetting> {
    if config.head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(UnsupportedSetting::new("head_dim", &config.head_dim, "an even number"))
}

/// Finds the rotary base at the top level or in either of the two maps, and refuses any rescaling.
pub(super) fn theta(fields: &Fields<'_>, default: f64) -> Result<f64, UnsupportedSetting> {
    refuse_partial_rotation(fields)?;
    let mut theta = fields.positive("rope_theta", default)?;
    for field in ["rope_scaling", "rope_parameters"] {
        if let Some(map) = fields.get(field) {
            theta = theta_of_map(field, map)?.unwrap_or(theta);
        }
    }
    Ok(theta)
}

pub(super) fn refuse_partial_rotation(fields: &Fields<'_>) -> Result<(), UnsupportedSetting> {
    match fields.optional_number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => {
            Err(UnsupportedSetting::new("partial_rotary_factor", &factor, "1.0"))
        }
        _ => Ok(()),
    }
}

/// The base that a map of rotary settings names, if it does. Anything that would change frequencies is
/// refused.
pub(super) fn theta_of_map(field: &str, map: &Value) -> Result<Option<f64>, UnsupportedSetting> {
    let Value::Object(map) = map else {
        return Err(UnsupportedSetting::new(field, map, "a map with rope_type and rope_theta"));
    };
    let mut theta = None;
    for (key, value) in map {
        let refused = |supported| Err(UnsupportedSetting::new(format!("{field}.{key}"), value, supported));
        match key.as_str() {
            "rope_type" | "type" if value != "default" => return refused("\"default\""),
            "rope_type" | "type" => {}
            "partial_rotary_factor" if value.as_f64() != Some(1.0) => return refused("1.0"),
            "partial_rotary_factor" => {}
            "rope_theta" => match value.as_f64() {
                Some(value) if value > 0.0 => theta = Some(value),
                _ => return refused("a positive number"),
            },
            _ => return refused("a plain rotary embedding (rope_type and rope_theta)"),
        }
    }
    Ok(theta)
}

/// A map of rotary settings, as releases of transformers from 5 on read it.
pub(super) fn map_of_theta(theta: f64) -> Value {
    json!({"rope_theta": theta, "rope_type": "default"})
}

/// Blocks whose tokens see only so far back, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingLayers {
    /// Tokens that a token sees, itself included.
    pub window: usize,
    /// For each block, whether the window holds there.
    pub layers: Vec<bool>,
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

impl SlidingLayers {
    /// Reads `layer_types`, or takes `default` for each block where the file has none. `window` is the file's
    /// `sliding_window`.
    ///
    /// Returns none if no block has a window.
    pub(super) fn read(
        fields: &Fields<'_>,
        window: Option<usize>,
        default: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>, UnsupportedSetting> {
        let num_layers = fields.size("num_hidden_layers")?.min(1000);
        let supported = "a list of \"full_attention\" and \"sliding_attention\", one for each layer";
        let layers: Vec<bool> = match fields.get("layer_types") {
            None => (0..num_layers).map(default).collect(),
            Some(Value::Array(types)) if types.len() == num_layers => types
                .iter()
                .enumerate()
                .map(|(layer, kind)| match kind.as_str() {
                    Some(SLIDING) => Ok(true),
                    Some(FULL) => Ok(false),
                    _ => {
                        let supported = "\"full_attention\" or \"sliding_attention\"";
                        Err(UnsupportedSetting::new(format!("layer_types[{layer}]"), kind, supported))
                    }
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(UnsupportedSetting::new("layer_types", other, supported)),
        };
        match (layers.contains(&true), window) {
            (false, _) => Ok(None),
            (true, Some(window)) if window > 0 => Ok(Some(Self { window, layers })),
            (true, Some(window)) => {
                Err(UnsupportedSetting::new("sliding_window", &window, "a number of at least 1"))
            }
            (true, None) => {
                let supported = "a number where layers have sliding attention";
                Err(UnsupportedSetting::new("sliding_window", &"missing", supported))
            }
        }
    }

    /// The window of a block, if it has one.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.layers.get(layer).is_some_and(|&sliding| sliding).then_some(self.window)
    }

    /// The field `layer_types`.
    pub(super) fn types(sliding: Option<&Self>, num_layers: usize) -> Value {
        let name = |layer| match sliding.and_then(|sliding| sliding.window(layer)) {
            Some(_) => SLIDING,
            None => FULL,
        };
        (0..num_layers).map(name).collect()
    }

    /// Refuses a list for another number of blocks, as a config made in memory may have.
    pub(super) fn check(sliding: Option<&Self>, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        match sliding {
            Some(sliding) if sliding.layers.len() != config.num_hidden_layers => {
                let supported = "one entry for each layer";
                Err(UnsupportedSetting::new("layer_types", &format!("{:?}", sliding.layers), supported))
            }
            _ => Ok(()),
        }
    }
}

/// Both spellings of the rotary base: releases of transformers before 5 know only the first, later ones the
/// second.
pub(super) fn both_spellings(theta: f64) -> [(&'static str, Value); 2] {
    [("rope_theta", theta.into()), ("rope_parameters", map_of_theta(theta))]
}
