//! `config.json` of every family.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod rotation;
#[path = "../support/mod.rs"]
mod support;

use baton_bundle::{
    BartActivation, BlockNorms, BundleError, DecoderConfig, Family, FamilyConfig, GateActivation, Gpt2Config,
    ModelConfig, OutputRules, QueryKeyNorms, RopeScaling, RotaryConfig, SlidingLayers, T5Config,
    T5FeedForward, WeightDtype,
};
use serde_json::{Value, json};
use support::assert_says;

/// The smallest file of each family, with only the fields for which transformers has no default.
fn minimal(model_type: &str) -> Value {
    match model_type {
        "gpt2" => json!({
            "model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 100,
            "n_positions": 32
        }),
        "t5" | "mt5" | "umt5" => json!({
            "model_type": model_type, "d_model": 64, "d_kv": 8, "d_ff": 128, "num_layers": 3,
            "num_heads": 4, "vocab_size": 100
        }),
        "bart" | "mbart" | "m2m_100" | "marian" | "pegasus" | "bergamot" => json!({
            "model_type": model_type, "d_model": 64, "encoder_attention_heads": 4, "encoder_ffn_dim": 128,
            "encoder_layers": 3, "decoder_layers": 2, "vocab_size": 100
        }),
        _ => json!({
            "model_type": model_type, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100
        }),
    }
}

/// A minimal file, with some fields replaced.
fn read(model_type: &str, changes: &Value) -> Result<ModelConfig, BundleError> {
    let mut config = minimal(model_type);
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    read_json(&config)
}

fn read_json(config: &Value) -> Result<ModelConfig, BundleError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    ModelConfig::read(&path)
}

const MODEL_TYPES: [&str; 23] = [
    "llama",
    "mistral",
    "ministral",
    "ministral3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "granite",
    "smollm3",
    "gpt2",
    "t5",
    "mt5",
    "umt5",
    "bart",
    "mbart",
    "m2m_100",
    "marian",
    "pegasus",
    "bergamot",
];

#[test]
fn fields_that_a_file_leaves_out_take_the_defaults_of_transformers() {
    let llama = read("llama", &json!({"num_key_value_heads": null})).unwrap();
    assert_eq!((llama.num_key_value_heads, llama.head_dim), (4, 16));
    assert_eq!((llama.max_position_embeddings, llama.tie_word_embeddings), (2048, false));
    assert_eq!((llama.bos_token_id, llama.eos_token_ids), (None, vec![]));
    assert_eq!(llama.dtype, WeightDtype::F32);
    assert_eq!(llama.family, FamilyConfig::Decoder(DecoderConfig::llama(1e-6, 10_000.0)));

    let qwen2 = read("qwen2", &json!({})).unwrap();
    assert_eq!((qwen2.head_dim, qwen2.tie_word_embeddings), (16, false));
    assert_eq!(qwen2.family, FamilyConfig::Decoder(DecoderConfig::qwen2(1e-6, 10_000.0)));
    let qwen3 = read("qwen3", &json!({})).unwrap();
    assert_eq!(qwen3.head_dim, 128);
    assert_eq!(qwen3.family, FamilyConfig::Decoder(DecoderConfig::qwen3(1e-6, 10_000.0)));

    let gemma = read("gemma3_text", &json!({"num_hidden_layers": 7})).unwrap();
    assert_eq!((gemma.head_dim, gemma.tie_word_embeddings), (256, true));
    let layers = [true, true, true, true, true, false, true].to_vec();
    let expected = DecoderConfig {
        norms: BlockNorms::BeforeAndAfter,
        norms_around_one: true,
        query_key_norms: QueryKeyNorms::EachHead,
        gate: GateActivation::GeluTanh,
        local_rotary: Some(RotaryConfig::plain(1e4)),
        sliding: Some(SlidingLayers { window: 4096, layers }),
        attention_factor: Some(1.0 / 16.0),
        embedding_factor: Some(8.0),
        ..DecoderConfig::plain(Family::Gemma3, 1e-6, RotaryConfig::plain(1e6))
    };
    assert_eq!(gemma.family, FamilyConfig::Decoder(expected));
    assert_eq!((gemma.bos_token_id, gemma.eos_token_ids), (Some(2), vec![1]));

    let gpt2 = read("gpt2", &json!({})).unwrap();
    assert_eq!((gpt2.intermediate_size, gpt2.head_dim, gpt2.tie_word_embeddings), (256, 16, true));
    assert_eq!(gpt2.family, FamilyConfig::Gpt2(Gpt2Config { layer_norm_epsilon: 1e-5 }));

    let t5 = |feed_forward_proj, scale_decoder_outputs| T5Config {
        num_decoder_layers: 3,
        layer_norm_epsilon: 1e-6,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        feed_forward_proj,
        scale_decoder_outputs,
    };
    let first = read("t5", &json!({})).unwrap();
    assert_eq!((first.head_dim, first.tie_word_embeddings, first.bos_token_id), (8, true, None));
    assert_eq!(first.family, FamilyConfig::T5(t5(T5FeedForward::Relu, true)));
    let flan = read("t5", &json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})).unwrap();
    assert_eq!(flan.family, FamilyConfig::T5(t5(T5FeedForward::GatedGelu, false)));
    let mt5 = read("mt5", &json!({})).unwrap();
    assert_eq!(mt5.family, FamilyConfig::Mt5(t5(T5FeedForward::GatedGelu, false)));
    assert_eq!(mt5.bos_token_id, Some(0));

    for (model_type, activation_function, scale_embedding, begin) in [
        ("bart", BartActivation::Gelu, false, Some(2)),
        ("mbart", BartActivation::Gelu, false, None),
        ("m2m_100", BartActivation::Relu, true, Some(2)),
        ("pegasus", BartActivation::Gelu, false, Some(0)),
    ] {
        let config = read(model_type, &json!({})).unwrap();
        let FamilyConfig::Bart(bart) = &config.family else { panic!("a BART") };
        assert_eq!((bart.activation_function, bart.scale_embedding), (activation_function, scale_embedding));
        assert_eq!((config.bos_token_id, config.tie_word_embeddings), (begin, true), "{model_type}");
        assert_eq!(config.output_rules, OutputRules::default(), "{model_type}");
    }
}

#[test]
fn output_rules_are_read_under_each_of_their_names() {
    let rules = |model_type, file| read(model_type, &file).unwrap().output_rules;
    let of = |first_token_id, suppressed: &[u32]| OutputRules {
        first_token_id,
        suppressed_token_ids: suppressed.to_vec(),
    };
    assert_eq!(rules("bart", json!({"forced_bos_token_id": 0})), of(Some(0), &[]));
    let old = json!({"force_bos_token_to_be_generated": true, "bos_token_id": 4});
    assert_eq!(rules("bart", old), of(Some(4), &[]));
    let marian = json!({"pad_token_id": 99, "bad_words_ids": [[99]]});
    assert_eq!(rules("marian", marian), of(None, &[99]));
    assert_eq!(rules("marian", json!({"pad_token_id": 99})), of(None, &[99]), "it is no number of Marian's");
    assert_eq!(rules("t5", json!({"suppress_tokens": [9, 3], "bad_words_ids": [[7]]})), of(None, &[3, 7, 9]));
}

#[test]
fn sliding_layers_are_found_by_their_list_or_their_rule() {
    let windows = |config: &ModelConfig| (0..3).map(|layer| config.window(layer)).collect::<Vec<_>>();
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    for model_type in ["mistral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "smollm3"] {
        let listed = json!({"layer_types": types, "sliding_window": 9, "use_sliding_window": true});
        assert_eq!(windows(&read(model_type, &listed).unwrap()), [Some(9), None, Some(9)], "{model_type}");
    }
    let rule = json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 2});
    assert_eq!(windows(&read("qwen2", &rule).unwrap()), [None, None, Some(9)]);
    let unused = json!({"use_sliding_window": false, "sliding_window": 9, "max_window_layers": 0});
    assert_eq!(windows(&read("qwen2", &unused).unwrap()), [None; 3]);
    let rule = json!({"sliding_window": 9, "sliding_window_pattern": 2});
    assert_eq!(windows(&read("gemma3_text", &rule).unwrap()), [Some(9), None, Some(9)]);
}

#[test]
fn one_or_several_end_tokens_and_both_names_of_the_dtype_are_read() {
    for model_type in MODEL_TYPES {
        let fields = json!({
            "bos_token_id": 1, "decoder_start_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"
        });
        let config = read(model_type, &fields).unwrap();
        assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2]));
        assert_eq!(config.dtype, WeightDtype::Bf16);
        let config = read(model_type, &json!({"eos_token_id": [2, 7], "dtype": "float16"})).unwrap();
        assert_eq!((config.eos_token_ids, config.dtype), (vec![2, 7], WeightDtype::F16));
    }
}

#[test]
fn settings_that_are_not_implemented_are_refused_by_field() {
    let sliding = |kind| json!({"layer_types": ["full_attention", kind, "full_attention"]});
    for (model_type, file, pieces) in [
        (
            "mixtral",
            json!({}),
            ["family `mixtral`", "supported: llama, mistral, ministral, ministral3, qwen2, qwen3, qwen3_moe"],
        ),
        ("gemma3", json!({}), ["family `gemma3`", "gemma3_text"]),
        ("gemma3n", json!({}), ["family `gemma3n`", "gemma3_text"]),
        ("llama", json!({"hidden_act": "gelu"}), ["`hidden_act` is \"gelu\"", "only silu"]),
        ("llama", json!({"attention_bias": true}), ["`attention_bias` is true", "only false"]),
        ("llama", json!({"mlp_bias": true}), ["`mlp_bias` is true", "only false"]),
        ("llama", json!({"rope_scaling": {"type": "dynamic"}}), ["`rope_scaling.type`", "yarn or longrope"]),
        (
            "llama",
            json!({"rope_scaling": {"type": "linear"}}),
            ["`rope_scaling.factor` is missing", "positive"],
        ),
        ("llama", json!({"rope_scaling": {"factor": 8.0}}), ["`rope_scaling.factor`", "8.0"]),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}),
            ["`rope_parameters.low_freq_factor` is missing", "positive"],
        ),
        (
            "qwen2",
            json!({"rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]}}),
            ["`rope_scaling.mrope_section`", "rope_type"],
        ),
        (
            "llama",
            json!({"partial_rotary_factor": 0.2}),
            ["`partial_rotary_factor` is 0.2", "an even number"],
        ),
        (
            "llama",
            json!({"partial_rotary_factor": 1.5}),
            ["`partial_rotary_factor` is 1.5", "an even number"],
        ),
        (
            "phi3",
            json!({
                "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
                "max_position_embeddings": 64
            }),
            ["`rope_scaling.short_factor` is 1", "each pair"],
        ),
        (
            "phi3",
            json!({"rope_scaling": {"type": "longrope", "short_factor": [0.0], "long_factor": [2.0]}}),
            ["`rope_scaling.short_factor` is [0.0]", "positive numbers"],
        ),
        ("llama", json!({"num_key_value_heads": 3}), ["`num_key_value_heads` is 3", "divisor"]),
        ("llama", json!({"num_hidden_layers": 0}), ["`num_hidden_layers` is 0", "1 to 1000"]),
        ("llama", json!({"num_attention_heads": 0}), ["`num_attention_heads` is 0", "from 1"]),
        ("llama", json!({"hidden_size": 1_u64 << 40}), ["`hidden_size` is 1099511627776", "2^24"]),
        ("llama", json!({"head_dim": 5}), ["`head_dim` is 5", "even"]),
        ("llama", json!({"vocab_size": "many"}), ["`vocab_size` is \"many\"", "whole number"]),
        ("llama", json!({"vocab_size": null}), ["`vocab_size` is missing", "whole number"]),
        ("llama", json!({"rms_norm_eps": -1}), ["`rms_norm_eps` is -1", "positive"]),
        ("llama", json!({"quantization_config": {"bits": 4}}), ["`quantization_config`", "of FP8"]),
        ("qwen2", json!({"hidden_act": "gelu"}), ["`hidden_act`", "silu"]),
        ("qwen2", json!({"num_key_value_heads": null}), ["`num_key_value_heads` is missing", "number"]),
        ("qwen2", sliding("sliding_attention"), ["`sliding_window` is missing", "sliding attention"]),
        ("qwen2", sliding("chunked_attention"), ["`layer_types[1]`", "chunked_attention"]),
        ("qwen2", json!({"layer_types": ["full_attention"]}), ["`layer_types`", "one for each layer"]),
        ("qwen3", json!({"attention_bias": true}), ["`attention_bias` is true", "only false"]),
        (
            "qwen3",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": -4.0}}),
            ["`rope_scaling.factor` is -4.0", "positive"],
        ),
        ("qwen3_moe", json!({"num_experts_per_tok": 0}), ["`num_experts_per_tok` is 0", "to num_experts"]),
        ("qwen3_moe", json!({"num_experts": 0}), ["`num_experts` is 0", "1 to 2^16"]),
        ("granite", json!({"residual_multiplier": 0}), ["`residual_multiplier` is 0", "positive"]),
        ("smollm3", json!({"no_rope_layers": [1, 0]}), ["`no_rope_layers` is [1,0]", "one for each layer"]),
        ("gemma2", json!({"attn_logit_softcapping": 0}), ["`attn_logit_softcapping` is 0", "positive"]),
        ("mistral", json!({"sliding_window": 0}), ["`sliding_window` is 0", "at least 1"]),
        ("gemma3_text", json!({"hidden_activation": "silu"}), ["`hidden_activation`", "gelu_pytorch_tanh"]),
        (
            "gemma3_text",
            json!({"attn_logit_softcapping": 50.0}),
            ["`attn_logit_softcapping` is 50.0", "null"],
        ),
        (
            "gemma3_text",
            json!({"final_logit_softcapping": 30.0}),
            ["`final_logit_softcapping` is 30.0", "null"],
        ),
        (
            "gemma3_text",
            json!({"use_bidirectional_attention": true}),
            ["`use_bidirectional_attention`", "false"],
        ),
        ("gemma3_text", json!({"sliding_window": 0}), ["`sliding_window` is 0", "at least 1"]),
        (
            "gemma3_text",
            json!({"sliding_window_pattern": 0}),
            ["`sliding_window_pattern` is 0", "at least 1"],
        ),
        (
            "gemma3_text",
            json!({"rope_parameters": {"full_attention": {"rope_type": "linear", "short_factor": [8.0]}}}),
            ["`rope_parameters.full_attention.short_factor`", "rope_type"],
        ),
        ("gpt2", json!({"activation_function": "relu"}), ["`activation_function`", "gelu_new"]),
        ("gpt2", json!({"scale_attn_weights": false}), ["`scale_attn_weights` is false", "only true"]),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true}),
            ["`scale_attn_by_inverse_layer_idx` is true", "only false"],
        ),
        ("gpt2", json!({"reorder_and_upcast_attn": true}), ["`reorder_and_upcast_attn` is true", "false"]),
        ("gpt2", json!({"add_cross_attention": true}), ["`add_cross_attention` is true", "only false"]),
        ("gpt2", json!({"n_head": 5}), ["`n_head` is 5", "a divisor of n_embd"]),
        ("gpt2", json!({"n_positions": 0}), ["`n_positions` is 0", "from 1"]),
        ("bart", json!({"normalize_before": true}), ["`normalize_before` is true", "only false"]),
        ("mbart", json!({"normalize_before": false}), ["`normalize_before` is false", "only true"]),
        ("marian", json!({"normalize_embedding": true}), ["`normalize_embedding` is true", "only false"]),
        (
            "marian",
            json!({"share_encoder_decoder_embeddings": false}),
            ["`share_encoder_decoder_embeddings` is false", "only true"],
        ),
        ("marian", json!({"decoder_vocab_size": 99}), ["`decoder_vocab_size` is 99", "that of vocab_size"]),
        (
            "marian",
            json!({"activation_function": "mish"}),
            ["`activation_function` is \"mish\"", "relu, swish"],
        ),
        ("marian", json!({"bad_words_ids": [[1, 2]]}), ["`bad_words_ids` is [1,2]", "one token id each"]),
        (
            "marian",
            json!({"d_model": 63, "encoder_attention_heads": 3}),
            ["`d_model` is 63", "an even number"],
        ),
        (
            "bart",
            json!({"encoder_attention_heads": 5}),
            ["`encoder_attention_heads` is 5", "divisor of d_model"],
        ),
        ("bart", json!({"decoder_ffn_dim": 64}), ["`decoder_ffn_dim` is 64", "that of encoder_ffn_dim"]),
        ("bart", json!({"forced_bos_token_id": 100}), ["`forced_bos_token_id` is 100", "below vocab_size"]),
        ("bart", json!({"decoder_layers": 0}), ["`decoder_layers` is 0", "1 to 1000"]),
        ("m2m_100", json!({"pad_token_id": 0}), ["`pad_token_id` is 0", "only 1"]),
        ("t5", json!({"feed_forward_proj": "gelu"}), ["`feed_forward_proj` is \"gelu\"", "relu, gated-gelu"]),
        ("t5", json!({"is_decoder": true}), ["`is_decoder` is true", "only false"]),
        ("t5", json!({"is_encoder_decoder": false}), ["`is_encoder_decoder` is false", "only true"]),
        (
            "t5",
            json!({"relative_attention_num_buckets": 3}),
            ["`relative_attention_num_buckets` is 3", "from 4"],
        ),
        (
            "t5",
            json!({"relative_attention_max_distance": 16}),
            ["`relative_attention_max_distance` is 16", "half of"],
        ),
        ("t5", json!({"num_decoder_layers": 0}), ["`num_decoder_layers` is 0", "1 to 1000"]),
        ("mt5", json!({"d_kv": 0}), ["`d_kv` is 0", "from 1"]),
    ] {
        assert_says(&read(model_type, &file).unwrap_err(), &pieces);
    }
}

#[test]
fn a_written_config_reads_back_equal_and_is_what_transformers_expects() {
    let sliding = json!({
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 9,
        "use_sliding_window": true, "query_pre_attn_scalar": 24, "rope_theta": 5000.0, "eos_token_id": [1, 2],
        "tie_word_embeddings": false, "dtype": "bfloat16", "decoder_start_token_id": 3
    });
    for model_type in MODEL_TYPES {
        for changes in [&json!({}), &sliding] {
            let config = read(model_type, changes).unwrap();
            let written: Value = serde_json::from_str(&config.to_json()).unwrap();
            assert_eq!(read_json(&written).unwrap(), config, "{written}");
        }
    }
    let json: Value = serde_json::from_str(&support::config().to_json()).unwrap();
    assert_eq!(json["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!(json["rope_parameters"], json!({"rope_theta": 10000.0, "rope_type": "default"}));
}

#[test]
fn the_text_model_of_a_multimodal_file_is_read_with_what_it_inherits() {
    let file = json!({
        "model_type": "gemma3", "torch_dtype": "bfloat16", "eos_token_id": [1, 106],
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        },
        "vision_config": {"hidden_size": 1152}
    });
    let config = read_json(&file).unwrap();
    assert_eq!((config.num_attention_heads, config.num_key_value_heads, config.head_dim), (8, 4, 256));
    assert_eq!((config.vocab_size, config.dtype), (262_208, WeightDtype::Bf16));
    assert_eq!((config.bos_token_id, config.eos_token_ids.clone()), (Some(2), vec![1, 106]));
    let decoder = config.decoder().unwrap();
    assert_eq!(decoder.rotary.scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(decoder.rotary_of(0), Some(&RotaryConfig::plain(10_000.0)));
    assert_eq!((config.window(0), config.window(5)), (Some(1024), None));
    let parameters: usize =
        config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(parameters, 3_880_263_168);
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!((&written["model_type"], read_json(&written).unwrap()), (&json!("gemma3_text"), config));
}

#[test]
fn the_manifest_and_the_file_call_families_by_the_names_that_people_know() {
    let families = MODEL_TYPES.map(|model_type| read(model_type, &json!({})).unwrap().family());
    assert_eq!(families.map(Family::model_type), MODEL_TYPES);
    let names = families.map(|family| serde_json::to_value(family).unwrap());
    assert_eq!(names[..6], ["llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3"]);
    assert_eq!(names[6..12], ["qwen3_moe", "gemma2", "gemma3", "phi3", "olmo2", "granite"]);
    assert_eq!(names[12..18], ["smollm3", "gpt2", "t5", "mt5", "umt5", "bart"]);
    assert_eq!(names[18..], ["mbart", "m2m100", "marian", "pegasus", "bergamot"]);
}

#[test]
fn an_untied_head_is_one_more_tensor() {
    for model_type in MODEL_TYPES {
        let tied = read(model_type, &json!({"tie_word_embeddings": true})).unwrap();
        let untied = ModelConfig { tie_word_embeddings: false, ..tied.clone() };
        assert_eq!(untied.tensor_shapes().len(), tied.tensor_shapes().len() + 1);
        let head = ("lm_head.weight".to_owned(), vec![tied.vocab_size, tied.hidden_size]);
        assert_eq!(untied.tensor_shapes().pop(), Some(head));
        assert_eq!(tied.tensor_shapes()[0].0, tied.embedding_name());
    }
}
