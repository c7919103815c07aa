//! The families that a small model can be of: their `config.json`, their rules, and how large their first
//! weights are.
//!
//! They are the families of the method's paper and similar ones: decoder-only (Llama, Qwen2, GPT-2), whose
//! prompt is the projected states, and encoder-decoder (T5), whose encoder reads them.

use baton_bundle::{
    DecoderConfig, Family, FamilyConfig, Gpt2Config, ModelConfig, OutputRules, PromptAttention, T5Config,
    T5FeedForward, WeightDtype,
};

use crate::{SlmShape, TrainConfig, TrainError};

/// Refuses a family that cannot learn here, and a shape that the family cannot have.
pub(crate) fn check(slm: &SlmShape, prompt_attention: PromptAttention) -> Result<(), TrainError> {
    let refuse = |field, value: &dyn std::fmt::Display, rule: &str| {
        Err(TrainError::Config { field, value: value.to_string(), rule: rule.to_owned() })
    };
    match slm.family {
        Family::Llama | Family::Qwen2 => Ok(()),
        Family::Gpt2 | Family::T5 if slm.kv_heads != slm.heads => {
            refuse("slm.kv_heads", &slm.kv_heads, "must be slm.heads in this family")
        }
        Family::T5 if prompt_attention == PromptAttention::Causal => refuse(
            "prompt_attention",
            &"causal",
            "must be bidirectional: a T5 reads prompts with its encoder",
        ),
        Family::Gpt2 | Family::T5 => Ok(()),
        _ => refuse("slm.family", &slm.family.model_type(), "must be llama, qwen2, gpt2 or t5"),
    }
}

/// The small model's `config.json`.
pub(crate) fn slm_config(config: &TrainConfig, slm: &SlmShape, [bos, eos]: [u32; 2]) -> ModelConfig {
    let (rms_norm_eps, rope_theta) = (1e-6, 10_000.0);
    let family = match slm.family {
        Family::Qwen2 => FamilyConfig::Decoder(DecoderConfig::qwen2(rms_norm_eps, rope_theta)),
        Family::Gpt2 => FamilyConfig::Gpt2(Gpt2Config { layer_norm_epsilon: 1e-5 }),
        Family::T5 => FamilyConfig::T5(T5Config {
            num_decoder_layers: slm.blocks,
            layer_norm_epsilon: 1e-6,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            feed_forward_proj: T5FeedForward::GatedGelu,
            scale_decoder_outputs: false,
        }),
        _ => FamilyConfig::Decoder(DecoderConfig::llama(rms_norm_eps, rope_theta)),
    };
    ModelConfig {
        hidden_size: slm.d_model,
        intermediate_size: slm.intermediate,
        num_hidden_layers: slm.blocks,
        num_attention_heads: slm.heads,
        num_key_value_heads: slm.kv_heads,
        head_dim: slm.d_model / slm.heads,
        vocab_size: slm.vocab_size,
        max_position_embeddings: config.max_prompt_tokens + config.max_response_tokens + 1,
        tie_word_embeddings: true,
        bos_token_id: Some(bos),
        eos_token_ids: vec![eos],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::Bf16,
        family,
    }
}

/// Standard deviation of the first numbers of a matrix of this shape, `[out, in]`.
///
/// 0.02 (GPT-2's recipe), or in a T5 in^-1/2, for queries divided by the root of a head's width, since scores
/// are not scaled (T5's). Matrices that write into the residual stream: that divided by sqrt(2 * blocks).
/// Token embeddings: d^-1/2.
pub(crate) fn first_deviation(config: &ModelConfig, (name, shape): (&str, &[i64])) -> f64 {
    const INTO_RESIDUAL: [&str; 5] = [
        "o_proj.weight",
        "down_proj.weight",
        "c_proj.weight",
        "Attention.o.weight",
        "DenseReluDense.wo.weight",
    ];
    let root = |number: f64| number.powf(-0.5);
    if name == config.embedding_name() {
        return root(config.hidden_size as f64);
    }
    let deviation = match config.encoder_decoder() {
        Some(_) if name.ends_with("Attention.q.weight") => root((shape[1] * config.head_dim as i64) as f64),
        Some(_) => root(shape[1] as f64),
        None => 0.02,
    };
    let writes = INTO_RESIDUAL.iter().any(|suffix| name.ends_with(suffix));
    if writes { deviation * root(2.0 * config.num_hidden_layers as f64) } else { deviation }
}
