//! `config.json` of the Llama family.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use baton_bundle::{BundleError, LlamaConfig, WeightDtype};
use serde_json::{Value, json};
use support::assert_says;

/// A minimal file, with some fields replaced.
fn read(changes: &Value) -> Result<LlamaConfig, BundleError> {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "vocab_size": 100
    });
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    LlamaConfig::read(&path)
}

#[test]
fn fields_that_a_file_leaves_out_take_the_defaults_of_transformers() {
    let config = read(&json!({})).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10_000.0));
    assert_eq!((config.max_position_embeddings, config.tie_word_embeddings), (2048, false));
    assert_eq!((config.bos_token_id, config.eos_token_ids), (None, vec![]));
    assert_eq!(config.dtype, WeightDtype::F32);
}

#[test]
fn the_rotary_base_is_found_wherever_a_version_of_transformers_writes_it() {
    for file in [
        json!({"rope_theta": 100000.0}),
        json!({"rope_theta": 100000, "rope_scaling": null}),
        json!({"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}),
        json!({"rope_scaling": {"rope_theta": 100000.0, "type": "default"}}),
    ] {
        assert_eq!(read(&file).unwrap().rope_theta, 100_000.0, "{file}");
    }
}

#[test]
fn one_or_several_end_tokens_and_both_names_of_the_dtype_are_read() {
    let config = read(&json!({"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"})).unwrap();
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2]));
    assert_eq!(config.dtype, WeightDtype::Bf16);
    let config = read(&json!({"eos_token_id": [2, 7], "dtype": "float16"})).unwrap();
    assert_eq!((config.eos_token_ids, config.dtype), (vec![2, 7], WeightDtype::F16));
}

#[test]
fn what_is_not_implemented_is_refused_by_the_name_of_its_field() {
    for (file, pieces) in [
        (json!({"model_type": "mistral"}), ["family `mistral`", "supported: llama"]),
        (json!({"hidden_act": "gelu"}), ["`hidden_act` is gelu", "only silu"]),
        (json!({"attention_bias": true}), ["`attention_bias` is true", "only false"]),
        (json!({"mlp_bias": true}), ["`mlp_bias` is true", "only false"]),
        (json!({"rope_scaling": {"type": "linear"}}), ["`rope_scaling.type`", "linear"]),
        (json!({"rope_scaling": {"factor": 8.0}}), ["`rope_scaling.factor`", "8.0"]),
        (json!({"rope_parameters": {"rope_type": "llama3"}}), ["`rope_parameters.rope_type`", "llama3"]),
        (json!({"num_key_value_heads": 3}), ["`num_key_value_heads` is 3", "divisor"]),
        (json!({"num_hidden_layers": 0}), ["`num_hidden_layers` is 0", "1 to 1000"]),
        (json!({"num_attention_heads": 0}), ["`num_attention_heads` is 0", "from 1"]),
        (json!({"hidden_size": 1_u64 << 40}), ["`hidden_size` is 1099511627776", "2^24"]),
        (json!({"head_dim": 5}), ["`head_dim` is 5", "even"]),
        (json!({"vocab_size": "many"}), ["config.json", "invalid type"]),
    ] {
        assert_says(&read(&file).unwrap_err(), &pieces);
    }
}

#[test]
fn a_written_config_reads_back_equal_and_is_what_transformers_expects() {
    let config = LlamaConfig { eos_token_ids: vec![1, 2], ..support::config() };
    let json: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(json["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!(json["rope_parameters"], json!({"rope_theta": 10000.0, "rope_type": "default"}));
    assert_eq!(serde_json::from_value::<LlamaConfig>(json).unwrap(), config);
}

#[test]
fn an_untied_head_is_one_more_tensor() {
    let tied = support::config();
    let untied = LlamaConfig { tie_word_embeddings: false, ..tied.clone() };
    assert_eq!(tied.tensor_shapes().len(), 2 + 9 * tied.num_hidden_layers);
    assert_eq!(untied.tensor_shapes().len(), tied.tensor_shapes().len() + 1);
    assert_eq!(untied.tensor_shapes().pop(), Some(("lm_head.weight".to_owned(), vec![tied.vocab_size, 8])));
}
