//! `config.json` and tensors of Firefox Translations and Bergamot students, under the names that Hugging Face
//! has for Marian's models. The import makes both of Marian's own file.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    tensors::{Block, Widths, numbered, untied_head},
};

/// Constants of a student.
#[derive(Debug, Clone, PartialEq)]
pub struct BergamotConfig {
    /// Blocks of the decoder; `num_hidden_layers` counts those of the encoder.
    pub num_decoder_layers: usize,
    /// Added to the variance before the root in LayerNorm.
    pub layer_norm_eps: f64,
    /// The function between the two layers of a feed-forward layer.
    pub activation_function: BergamotActivation,
}

/// The activation functions that students have, by their names in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BergamotActivation {
    /// `relu`
    Relu,
    /// `swish`
    Swish,
}

impl BergamotActivation {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Swish => "swish",
        }
    }
}

impl BergamotConfig {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        let heads = config.num_attention_heads;
        if config.hidden_size != heads * config.head_dim || !config.hidden_size.is_multiple_of(2) {
            let supported = "a divisor of d_model, which is even";
            return Err(UnsupportedSetting::new("encoder_attention_heads", &heads, supported));
        }
        if config.hidden_size < 4 {
            return Err(UnsupportedSetting::new("d_model", &config.hidden_size, "at least 4"));
        }
        if !(1..=1000).contains(&self.num_decoder_layers) {
            return Err(UnsupportedSetting::new("decoder_layers", &self.num_decoder_layers, "1 to 1000"));
        }
        if config.num_key_value_heads != heads {
            let (found, supported) = (&config.num_key_value_heads, "as many as query heads");
            return Err(UnsupportedSetting::new("num_key_value_heads", found, supported));
        }
        if !config.tie_word_embeddings {
            return Err(UnsupportedSetting::new("tie_word_embeddings", &false, "true"));
        }
        Ok(())
    }
}

/// This family's name of a field of [`ModelConfig`].
pub(super) fn field_name(field: &'static str) -> &'static str {
    match field {
        "hidden_size" => "d_model",
        "intermediate_size" => "encoder_ffn_dim",
        "num_hidden_layers" => "encoder_layers",
        "num_attention_heads" | "num_key_value_heads" => "encoder_attention_heads",
        "bos_token_id" => "decoder_start_token_id",
        other => other,
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    fields.must_be("is_encoder_decoder", true)?;
    fields.must_be_one_of("activation_function", &["relu", "swish"], "relu or swish")?;
    let activation_function = match fields.get("activation_function") {
        Some(name) if name == "swish" => BergamotActivation::Swish,
        _ => BergamotActivation::Relu,
    };
    let (hidden_size, heads) = (fields.size("d_model")?, fields.size("encoder_attention_heads")?);
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: fields.size("encoder_ffn_dim")?,
        num_hidden_layers: fields.size("encoder_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads.max(1),
        vocab_size: fields.size("vocab_size")?,
        max_position_embeddings: fields.optional_size("max_position_embeddings")?.unwrap_or(512),
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        bos_token_id: fields.optional_token_id("decoder_start_token_id")?,
        eos_token_ids: fields.token_ids("eos_token_id")?,
        dtype: fields.dtype()?,
        family: FamilyConfig::Bergamot(BergamotConfig {
            num_decoder_layers: fields.size("decoder_layers")?,
            layer_norm_eps: fields.positive("layer_norm_eps", 1e-6)?,
            activation_function,
        }),
    })
}

pub(super) fn write(config: &ModelConfig, constants: &BergamotConfig) -> Map<String, Value> {
    let fields = vec![
        ("d_model", config.hidden_size.into()),
        ("encoder_ffn_dim", config.intermediate_size.into()),
        ("encoder_layers", config.num_hidden_layers.into()),
        ("decoder_layers", constants.num_decoder_layers.into()),
        ("encoder_attention_heads", config.num_attention_heads.into()),
        ("max_position_embeddings", config.max_position_embeddings.into()),
        ("layer_norm_eps", constants.layer_norm_eps.into()),
        ("activation_function", constants.activation_function.name().into()),
        ("is_encoder_decoder", true.into()),
        ("decoder_start_token_id", config.bos_token_id.into()),
    ];
    let mut file = fields::file(config, "BergamotForConditionalGeneration", fields);
    file.shift_remove("bos_token_id"); // only what is written has a begin
    file
}

pub(super) fn tensors(config: &ModelConfig, constants: &BergamotConfig) -> TensorLayout {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let encoder_block = |_| {
        let mut tensors = attention(config, SELF_ATTENTION);
        tensors.extend(feed_forward(config));
        tensors
    };
    let decoder_block = |_| {
        let mut tensors = vec![
            ("rnn.forget.weight", vec![hidden, hidden]),
            ("rnn.forget.bias", vec![hidden]),
            ("rnn.input.weight", vec![hidden, hidden]),
            ("rnn_layer_norm.weight", vec![hidden]),
            ("rnn_layer_norm.bias", vec![hidden]),
        ];
        tensors.extend(attention(config, CROSS_ATTENTION));
        tensors.extend(feed_forward(config));
        tensors
    };
    let mut after = vec![("final_logits_bias".to_owned(), vec![1, vocab])];
    after.extend(untied_head(config));
    TensorLayout {
        before: vec![("model.shared.weight".to_owned(), vec![vocab, hidden])],
        blocks: numbered("model.encoder.layers", config.num_hidden_layers, encoder_block),
        between: Vec::new(),
        decoder_blocks: numbered("model.decoder.layers", constants.num_decoder_layers, decoder_block),
        after,
    }
}

/// Weights and biases of queries, keys, values and output, and of the norm after them.
type AttentionNames = [[&'static str; 2]; 5];

const SELF_ATTENTION: AttentionNames = [
    ["self_attn.q_proj.weight", "self_attn.q_proj.bias"],
    ["self_attn.k_proj.weight", "self_attn.k_proj.bias"],
    ["self_attn.v_proj.weight", "self_attn.v_proj.bias"],
    ["self_attn.out_proj.weight", "self_attn.out_proj.bias"],
    ["self_attn_layer_norm.weight", "self_attn_layer_norm.bias"],
];
const CROSS_ATTENTION: AttentionNames = [
    ["encoder_attn.q_proj.weight", "encoder_attn.q_proj.bias"],
    ["encoder_attn.k_proj.weight", "encoder_attn.k_proj.bias"],
    ["encoder_attn.v_proj.weight", "encoder_attn.v_proj.bias"],
    ["encoder_attn.out_proj.weight", "encoder_attn.out_proj.bias"],
    ["encoder_attn_layer_norm.weight", "encoder_attn_layer_norm.bias"],
];

fn attention(config: &ModelConfig, [q, k, v, out, norm]: AttentionNames) -> Block {
    let hidden = config.hidden_size;
    let mut tensors = Block::new();
    for [weight, bias] in [q, k, v, out] {
        tensors.extend([(weight, vec![hidden, hidden]), (bias, vec![hidden])]);
    }
    tensors.extend(norm.map(|name| (name, vec![hidden])));
    tensors
}

fn feed_forward(config: &ModelConfig) -> Block {
    let Widths { hidden, inner, .. } = Widths::of(config);
    vec![
        ("fc1.weight", vec![inner, hidden]),
        ("fc1.bias", vec![inner]),
        ("fc2.weight", vec![hidden, inner]),
        ("fc2.bias", vec![hidden]),
        ("final_layer_norm.weight", vec![hidden]),
        ("final_layer_norm.bias", vec![hidden]),
    ]
}
