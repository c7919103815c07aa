//! `config.json` and tensors of T5 and its kin: T5 1.0 and 1.1, Flan-T5, mT5, UMT5.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, OutputRules, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    tensors::{Block, Widths, numbered, untied_head},
};
use crate::Family;

/// Constants of a T5.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Blocks of the decoder; `num_hidden_layers` counts those of the encoder.
    pub num_decoder_layers: usize,
    /// Added to the mean square before the root in RMSNorm.
    pub layer_norm_epsilon: f64,
    /// Rows of a stack's table of relative positions.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions are in one bucket.
    pub relative_attention_max_distance: usize,
    /// The feed-forward layer.
    pub feed_forward_proj: T5FeedForward,
    /// Whether the head's input is divided by the root of its width.
    pub scale_decoder_outputs: bool,
}

/// The feed-forward layers that T5 models have, by their names in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum T5FeedForward {
    /// `relu`: T5 1.0.
    Relu,
    /// `gated-gelu`: T5 1.1, Flan-T5, mT5.
    GatedGelu,
    /// `gated-silu`: UL2.
    GatedSilu,
}

impl T5FeedForward {
    const ALL: [Self; 3] = [Self::Relu, Self::GatedGelu, Self::GatedSilu];

    fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::GatedGelu => "gated-gelu",
            Self::GatedSilu => "gated-silu",
        }
    }

    /// Whether one of two products is the gate of the other.
    #[must_use]
    pub fn is_gated(self) -> bool {
        self != Self::Relu
    }

    fn read(fields: &Fields<'_>, default: Self) -> Result<Self, UnsupportedSetting> {
        let Some(value) = fields.get("feed_forward_proj") else { return Ok(default) };
        let known = Self::ALL.into_iter().find(|known| value == known.name());
        known.ok_or_else(|| {
            UnsupportedSetting::new("feed_forward_proj", value, "relu, gated-gelu or gated-silu")
        })
    }
}

impl T5Config {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        let buckets = self.relative_attention_num_buckets;
        if !(4..=1 << 16).contains(&buckets) {
            let supported = "a number from 4 to 2^16";
            return Err(UnsupportedSetting::new("relative_attention_num_buckets", &buckets, supported));
        }
        let distance = self.relative_attention_max_distance;
        if !(buckets / 2 + 1..=1 << 20).contains(&distance) {
            let supported = "a number above half of relative_attention_num_buckets, and at most 2^20";
            return Err(UnsupportedSetting::new("relative_attention_max_distance", &distance, supported));
        }
        if !(1..=1000).contains(&self.num_decoder_layers) {
            return Err(UnsupportedSetting::new("num_decoder_layers", &self.num_decoder_layers, "1 to 1000"));
        }
        if config.num_key_value_heads != config.num_attention_heads {
            let (found, supported) = (&config.num_key_value_heads, "as many as query heads");
            return Err(UnsupportedSetting::new("num_key_value_heads", found, supported));
        }
        Ok(())
    }
}

/// This family's name of a field of [`ModelConfig`].
pub(super) fn field_name(field: &'static str) -> &'static str {
    match field {
        "hidden_size" => "d_model",
        "intermediate_size" => "d_ff",
        "num_hidden_layers" => "num_layers",
        "num_attention_heads" | "num_key_value_heads" => "num_heads",
        "head_dim" => "d_kv",
        "max_position_embeddings" => "n_positions",
        "bos_token_id" => "decoder_start_token_id",
        other => other,
    }
}

pub(super) fn read_t5(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let tied = fields.flag("tie_word_embeddings", true)?;
    let scaled = fields.flag("scale_decoder_outputs", tied)?;
    let config = read(fields, (T5FeedForward::Relu, tied, scaled), FamilyConfig::T5)?;
    Ok(ModelConfig { bos_token_id: fields.optional_token_id("decoder_start_token_id")?, ..config })
}

pub(super) fn read_mt5(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    read_multilingual(fields, false, FamilyConfig::Mt5)
}

pub(super) fn read_umt5(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    let scaled = fields.flag("scale_decoder_outputs", fields.flag("tie_word_embeddings", true)?)?;
    read_multilingual(fields, scaled, FamilyConfig::Umt5)
}

fn read_multilingual(
    fields: &Fields<'_>,
    scaled: bool,
    family: fn(T5Config) -> FamilyConfig,
) -> Result<ModelConfig, UnsupportedSetting> {
    let tied = fields.flag("tie_word_embeddings", true)?;
    let config = read(fields, (T5FeedForward::GatedGelu, tied, scaled), family)?;
    let start = fields.optional_token_id("decoder_start_token_id")?.unwrap_or(0);
    Ok(ModelConfig { bos_token_id: Some(start), ..config })
}

fn read(
    fields: &Fields<'_>,
    (feed_forward_proj, tied, scaled): (T5FeedForward, bool, bool),
    family: fn(T5Config) -> FamilyConfig,
) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be("is_encoder_decoder", true)?;
    fields.must_be("is_decoder", false)?;
    let num_layers = fields.size("num_layers")?;
    let heads = fields.size("num_heads")?;
    let constants = T5Config {
        num_decoder_layers: fields.optional_size("num_decoder_layers")?.unwrap_or(num_layers),
        layer_norm_epsilon: fields.positive("layer_norm_epsilon", 1e-6)?,
        relative_attention_num_buckets: fields.optional_size("relative_attention_num_buckets")?.unwrap_or(32),
        relative_attention_max_distance: fields
            .optional_size("relative_attention_max_distance")?
            .unwrap_or(128),
        feed_forward_proj: T5FeedForward::read(fields, feed_forward_proj)?,
        scale_decoder_outputs: scaled,
    };
    Ok(ModelConfig {
        hidden_size: fields.size("d_model")?,
        intermediate_size: fields.size("d_ff")?,
        num_hidden_layers: num_layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: fields.size("d_kv")?,
        vocab_size: fields.size("vocab_size")?,
        max_position_embeddings: fields.optional_size("n_positions")?.unwrap_or(512),
        tie_word_embeddings: tied,
        bos_token_id: None,
        eos_token_ids: fields.token_ids("eos_token_id")?,
        output_rules: OutputRules::default(),
        dtype: fields.dtype()?,
        family: family(constants),
    })
}

pub(super) fn write(config: &ModelConfig, constants: &T5Config) -> Map<String, Value> {
    let mut fields = vec![
        ("d_model", config.hidden_size.into()),
        ("d_kv", config.head_dim.into()),
        ("d_ff", config.intermediate_size.into()),
        ("num_layers", config.num_hidden_layers.into()),
        ("num_decoder_layers", constants.num_decoder_layers.into()),
        ("num_heads", config.num_attention_heads.into()),
        ("n_positions", config.max_position_embeddings.into()),
        ("relative_attention_num_buckets", constants.relative_attention_num_buckets.into()),
        ("relative_attention_max_distance", constants.relative_attention_max_distance.into()),
        ("layer_norm_epsilon", constants.layer_norm_epsilon.into()),
        ("feed_forward_proj", constants.feed_forward_proj.name().into()),
        ("is_encoder_decoder", true.into()),
        ("decoder_start_token_id", config.bos_token_id.into()),
        ("pad_token_id", config.bos_token_id.into()),
    ];
    let architecture = match &config.family {
        FamilyConfig::Mt5(_) => "MT5ForConditionalGeneration",
        family => {
            fields.push(("scale_decoder_outputs", constants.scale_decoder_outputs.into()));
            match family {
                FamilyConfig::Umt5(_) => "UMT5ForConditionalGeneration",
                _ => "T5ForConditionalGeneration",
            }
        }
    };
    let mut file = fields::file(config, architecture, fields);
    file.shift_remove("bos_token_id"); // T5 has none
    file
}

pub(super) fn tensors(config: &ModelConfig, constants: &T5Config) -> TensorLayout {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let block = |layer: usize, is_decoder: bool| {
        let mut tensors = attention(config, SELF_ATTENTION);
        if layer == 0 || config.family() == Family::Umt5 {
            let shape = vec![constants.relative_attention_num_buckets, config.num_attention_heads];
            tensors.push(("layer.0.SelfAttention.relative_attention_bias.weight", shape));
        }
        if is_decoder {
            tensors.extend(attention(config, CROSS_ATTENTION));
        }
        tensors.extend(feed_forward(config, constants.feed_forward_proj, is_decoder));
        tensors
    };
    let mut after = vec![("decoder.final_layer_norm.weight".to_owned(), vec![hidden])];
    after.extend(untied_head(config));
    TensorLayout {
        before: vec![("shared.weight".to_owned(), vec![vocab, hidden])],
        blocks: numbered("encoder.block", config.num_hidden_layers, |layer| block(layer, false)),
        between: vec![("encoder.final_layer_norm.weight".to_owned(), vec![hidden])],
        decoder_blocks: numbered("decoder.block", constants.num_decoder_layers, |layer| block(layer, true)),
        after,
    }
}

/// Norm, queries, keys, values, output.
type AttentionNames = [&'static str; 5];

const SELF_ATTENTION: AttentionNames = [
    "layer.0.layer_norm.weight",
    "layer.0.SelfAttention.q.weight",
    "layer.0.SelfAttention.k.weight",
    "layer.0.SelfAttention.v.weight",
    "layer.0.SelfAttention.o.weight",
];
const CROSS_ATTENTION: AttentionNames = [
    "layer.1.layer_norm.weight",
    "layer.1.EncDecAttention.q.weight",
    "layer.1.EncDecAttention.k.weight",
    "layer.1.EncDecAttention.v.weight",
    "layer.1.EncDecAttention.o.weight",
];

fn attention(config: &ModelConfig, [norm, q, k, v, o]: AttentionNames) -> Block {
    let Widths { hidden, queries, .. } = Widths::of(config);
    vec![
        (norm, vec![hidden]),
        (q, vec![queries, hidden]),
        (k, vec![queries, hidden]),
        (v, vec![queries, hidden]),
        (o, vec![hidden, queries]),
    ]
}

fn feed_forward(config: &ModelConfig, kind: T5FeedForward, is_decoder: bool) -> Block {
    let Widths { hidden, inner, .. } = Widths::of(config);
    let [norm, wi, wi_0, wi_1, wo] = match is_decoder {
        false => [
            "layer.1.layer_norm.weight",
            "layer.1.DenseReluDense.wi.weight",
            "layer.1.DenseReluDense.wi_0.weight",
            "layer.1.DenseReluDense.wi_1.weight",
            "layer.1.DenseReluDense.wo.weight",
        ],
        true => [
            "layer.2.layer_norm.weight",
            "layer.2.DenseReluDense.wi.weight",
            "layer.2.DenseReluDense.wi_0.weight",
            "layer.2.DenseReluDense.wi_1.weight",
            "layer.2.DenseReluDense.wo.weight",
        ],
    };
    let input = |name| (name, vec![inner, hidden]);
    let mut tensors = vec![(norm, vec![hidden])];
    match kind.is_gated() {
        true => tensors.extend([input(wi_0), input(wi_1)]),
        false => tensors.push(input(wi)),
    }
    tensors.push((wo, vec![hidden, inner]));
    tensors
}
