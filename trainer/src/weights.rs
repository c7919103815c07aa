//! The master weights: every trained tensor, f32, by its checkpoint name, with its initialization.

use std::collections::BTreeMap;

use baton_bundle::LlamaConfig;
use tch::{Device, Kind, Tensor};

use crate::{TrainConfig, config::Reads};

/// Trained tensors by name. SLM tensors bear the names of a Hugging Face Llama checkpoint.
pub(crate) type Weights = BTreeMap<String, Tensor>;

/// The small model's `config.json`.
pub(crate) fn slm_config(config: &TrainConfig, bos: u32, eos: u32) -> LlamaConfig {
    let slm = &config.slm;
    LlamaConfig {
        hidden_size: slm.d_model,
        intermediate_size: slm.intermediate,
        num_hidden_layers: slm.blocks,
        num_attention_heads: slm.heads,
        num_key_value_heads: slm.kv_heads,
        head_dim: slm.d_model / slm.heads,
        vocab_size: slm.vocab_size,
        max_position_embeddings: config.max_prompt_tokens + config.max_response_tokens + 1,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tie_word_embeddings: true,
        bos_token_id: Some(bos),
        eos_token_ids: vec![eos],
        dtype: baton_bundle::WeightDtype::Bf16,
    }
}

/// Fresh weights. The same seed gives the same weights.
///
/// Matrices: normal with deviation 0.02, those that write into the residual stream divided by sqrt(2 * blocks) (GPT-2's recipe);
/// token embeddings: deviation d^-1/2; projector and prompt embedding: deviation fan_in^-1/2; norms one; biases zero.
pub(crate) fn initial_weights(config: &TrainConfig, slm: &LlamaConfig, d_llm: usize) -> Weights {
    tch::manual_seed(config.hyperparameters.seed as i64);
    let mut weights = Weights::new();
    let insert_normal = |weights: &mut Weights, name: String, out: usize, input: usize, deviation: f64| {
        let tensor = Tensor::randn([out as i64, input as i64], (Kind::Float, Device::Cpu)) * deviation;
        weights.insert(name, tensor);
    };
    let (d, ff) = (slm.hidden_size, slm.intermediate_size);
    let q = slm.num_attention_heads * slm.head_dim;
    let kv = slm.num_key_value_heads * slm.head_dim;
    let into_residual = 0.02 / (2.0 * slm.num_hidden_layers as f64).sqrt();
    let by_fan_in = |fan_in: usize| (fan_in as f64).powf(-0.5);

    let mut normal = |name: String, out: usize, input: usize, deviation: f64| {
        insert_normal(&mut weights, name, out, input, deviation);
    };
    normal("model.embed_tokens.weight".into(), slm.vocab_size, d, by_fan_in(d));
    for i in 0..slm.num_hidden_layers {
        let name = |suffix: &str| format!("model.layers.{i}.{suffix}.weight");
        normal(name("self_attn.q_proj"), q, d, 0.02);
        normal(name("self_attn.k_proj"), kv, d, 0.02);
        normal(name("self_attn.v_proj"), kv, d, 0.02);
        normal(name("self_attn.o_proj"), d, q, into_residual);
        normal(name("mlp.gate_proj"), ff, d, 0.02);
        normal(name("mlp.up_proj"), ff, d, 0.02);
        normal(name("mlp.down_proj"), d, ff, into_residual);
    }
    let linears: &[(&str, usize)] = match config.reads {
        Reads::Hybrid => {
            &[("projector.input", d_llm), ("projector.output", d), ("prompt_embedding.map", d_llm)]
        }
        Reads::Slm => &[("prompt_embedding.map", d_llm)],
    };
    for &(name, fan_in) in linears {
        if name.starts_with("prompt_embedding") && !reads_prompt_embedding(config) {
            continue;
        }
        insert_normal(&mut weights, format!("{name}.weight"), d, fan_in, by_fan_in(fan_in));
        weights.insert(format!("{name}.bias"), Tensor::zeros([d as i64], (Kind::Float, Device::Cpu)));
    }
    for i in 0..slm.num_hidden_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            weights.insert(format!("model.layers.{i}.{norm}.weight"), ones(d));
        }
    }
    weights.insert("model.norm.weight".into(), ones(d));
    weights
}

/// Whether the prompt's own token embeddings take part.
pub(crate) fn reads_prompt_embedding(config: &TrainConfig) -> bool {
    config.reads == Reads::Slm || config.fusion == baton_bundle::Fusion::Add
}

/// Whether a tensor belongs in `projector/` rather than in `slm/`.
pub(crate) fn belongs_to_projector(name: &str) -> bool {
    name.starts_with("projector.") || name.starts_with("prompt_embedding.")
}

fn ones(width: usize) -> Tensor {
    Tensor::ones([width as i64], (Kind::Float, Device::Cpu))
}
