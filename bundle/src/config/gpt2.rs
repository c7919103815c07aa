//! GPT-2's `config.json` and tensors. The matrices of its blocks are stored transposed, `[in, out]`.

use serde_json::{Map, Value};

use super::{
    FamilyConfig, ModelConfig, OutputRules, TensorLayout, UnsupportedSetting,
    fields::{self, Fields},
    tensors::{numbered, untied_head},
};

/// Constants of a GPT-2.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Added to the variance before the root in LayerNorm.
    pub layer_norm_epsilon: f64,
}

impl Gpt2Config {
    pub(super) fn check(&self, config: &ModelConfig) -> Result<(), UnsupportedSetting> {
        if config.num_attention_heads * config.head_dim != config.hidden_size {
            let supported = "a divisor of n_embd";
            return Err(UnsupportedSetting::new("n_head", &config.num_attention_heads, supported));
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
        "hidden_size" => "n_embd",
        "intermediate_size" => "n_inner",
        "num_hidden_layers" => "n_layer",
        "num_attention_heads" | "num_key_value_heads" => "n_head",
        "max_position_embeddings" => "n_positions",
        other => other,
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig, UnsupportedSetting> {
    // Two names of one function: GELU by its approximation with tanh.
    fields.must_be_one_of("activation_function", &["gelu_new", "gelu_pytorch_tanh"], "gelu_new")?;
    fields.must_be("scale_attn_weights", true)?;
    fields.must_be("scale_attn_by_inverse_layer_idx", false)?;
    fields.must_be("reorder_and_upcast_attn", false)?;
    fields.must_be("add_cross_attention", false)?;
    let hidden_size = fields.size("n_embd")?;
    let heads = fields.size("n_head")?;
    let constants = Gpt2Config { layer_norm_epsilon: fields.positive("layer_norm_epsilon", 1e-5)? };
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: fields.optional_size("n_inner")?.unwrap_or(hidden_size.saturating_mul(4)),
        num_hidden_layers: fields.size("n_layer")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size.checked_div(heads).unwrap_or(0),
        vocab_size: fields.size("vocab_size")?,
        max_position_embeddings: fields.size("n_positions")?,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        bos_token_id: fields.optional_token_id("bos_token_id")?,
        eos_token_ids: fields.token_ids("eos_token_id")?,
        output_rules: OutputRules::default(),
        dtype: fields.dtype()?,
        family: FamilyConfig::Gpt2(constants),
    })
}

pub(super) fn write(config: &ModelConfig, constants: &Gpt2Config) -> Map<String, Value> {
    let fields = vec![
        ("n_embd", config.hidden_size.into()),
        ("n_inner", config.intermediate_size.into()),
        ("n_layer", config.num_hidden_layers.into()),
        ("n_head", config.num_attention_heads.into()),
        ("n_positions", config.max_position_embeddings.into()),
        ("layer_norm_epsilon", constants.layer_norm_epsilon.into()),
        ("activation_function", "gelu_new".into()),
    ];
    fields::file(config, "GPT2LMHeadModel", fields)
}

pub(super) fn tensors(config: &ModelConfig) -> TensorLayout {
    let (vocab, hidden, inner) = (config.vocab_size, config.hidden_size, config.intermediate_size);
    let block = vec![
        ("ln_1.weight", vec![hidden]),
        ("ln_1.bias", vec![hidden]),
        ("attn.c_attn.weight", vec![hidden, 3 * hidden]),
        ("attn.c_attn.bias", vec![3 * hidden]),
        ("attn.c_proj.weight", vec![hidden, hidden]),
        ("attn.c_proj.bias", vec![hidden]),
        ("ln_2.weight", vec![hidden]),
        ("ln_2.bias", vec![hidden]),
        ("mlp.c_fc.weight", vec![hidden, inner]),
        ("mlp.c_fc.bias", vec![inner]),
        ("mlp.c_proj.weight", vec![inner, hidden]),
        ("mlp.c_proj.bias", vec![hidden]),
    ];
    let mut after = vec![
        ("transformer.ln_f.weight".to_owned(), vec![hidden]),
        ("transformer.ln_f.bias".to_owned(), vec![hidden]),
    ];
    after.extend(untied_head(config));
    TensorLayout {
        before: vec![
            ("transformer.wte.weight".to_owned(), vec![vocab, hidden]),
            ("transformer.wpe.weight".to_owned(), vec![config.max_position_embeddings, hidden]),
        ],
        blocks: numbered("transformer.h", config.num_hidden_layers, |_| block.clone()),
        between: Vec::new(),
        decoder_blocks: Vec::new(),
        after,
    }
}
