//! GGUF files of each architecture: the config and every tensor, as a converter of llama.cpp lays them out.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::{collections::BTreeMap, fs::File, path::Path};

use baton_bundle::{ModelConfig, SafetensorsFile, WeightDtype};
use baton_import::{ImportOptions, import_llm};
use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use tokenizers::Tokenizer;

type Metadata = Vec<(&'static str, Value)>;

/// The config of a fixture that transformers wrote.
fn fixture(name: &str) -> ModelConfig {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families");
    ModelConfig::read(&families.join(name).join("config.json")).unwrap()
}

/// The metadata of every architecture's sizes.
fn sizes(architecture: &str, config: &ModelConfig) -> BTreeMap<String, Value> {
    let size = |size: usize| Value::U32(size as u32);
    let own = [
        ("block_count", size(config.num_hidden_layers)),
        ("context_length", size(config.max_position_embeddings)),
        ("embedding_length", size(config.hidden_size)),
        ("feed_forward_length", size(config.intermediate_size)),
        ("attention.head_count", size(config.num_attention_heads)),
        ("attention.head_count_kv", size(config.num_key_value_heads)),
        ("attention.key_length", size(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.decoder().unwrap().rms_norm_eps as f32)),
        ("rope.freq_base", Value::F32(config.decoder().unwrap().rotary.theta as f32)),
    ];
    let tokens = (0..config.vocab_size).map(|id| Value::String(format!("t{id}"))).collect();
    let shared = [
        ("general.architecture", Value::String(architecture.to_owned())),
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); config.vocab_size])),
        ("tokenizer.ggml.merges", Value::Array(Vec::new())),
        ("tokenizer.ggml.bos_token_id", Value::U32(config.bos_token_id.unwrap())),
        ("tokenizer.ggml.eos_token_id", Value::U32(config.eos_token_ids[0])),
    ];
    let own = own.map(|(key, value)| (format!("{architecture}.{key}"), value));
    let shared = shared.map(|(key, value)| (key.to_owned(), value));
    own.into_iter().chain(shared).collect()
}

/// A converter's name of a Hugging Face tensor, by a list of its own.
fn gguf_name(name: &str, post_norms: bool) -> String {
    let modules = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", if post_norms { "post_attention_norm" } else { "ffn_norm" }),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("mlp.gate", "ffn_gate_inp"),
    ];
    let (module, kind) = name.rsplit_once('.').unwrap();
    let layer = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let (prefix, module) = layer.map_or((String::new(), module), |(n, module)| (format!("blk.{n}."), module));
    let own = modules.iter().find(|(known, _)| *known == module).unwrap().1;
    format!("{prefix}{own}.{kind}")
}

/// Distinct numbers in bf16's range for each tensor.
fn numbers(number: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|place| (number * 7 + place) as f32 / 64.0).collect()
}

/// The rows of each head with the halves of a rotation interleaved, as converters of Llama's kin store them.
fn interleaved(rows: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let head_dim = rows.len() / width / heads;
    let source = |row: usize| row / head_dim * head_dim + row % head_dim / 2 + row % 2 * (head_dim / 2);
    (0..heads * head_dim).flat_map(|row| rows[source(row) * width..][..width].to_vec()).collect()
}

fn write(
    path: &Path,
    metadata: &BTreeMap<String, Value>,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) {
    let quantized: Vec<(&str, QTensor)> = tensors
        .iter()
        .map(|(name, (shape, numbers))| {
            let tensor = Tensor::from_vec(numbers.clone(), shape.as_slice(), &Device::Cpu).unwrap();
            (name.as_str(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = quantized.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

#[test]
fn every_architecture_gives_the_config_and_the_tensors_of_its_family() {
    let number = |number: f32| Value::F32(number);
    let cases: [(&str, &str, bool, Metadata); 8] = [
        ("qwen2", "qwen2-tied", false, vec![]),
        ("qwen3", "qwen3-untied", false, vec![]),
        (
            "gemma2",
            "gemma2",
            true,
            vec![
                ("gemma2.attention.sliding_window", Value::U32(6)),
                ("gemma2.attn_logit_softcapping", number(2.0)),
                ("gemma2.final_logit_softcapping", number(3.0)),
            ],
        ),
        ("phi3", "phi3-sliding", false, vec![("phi3.attention.sliding_window", Value::U32(9))]),
        ("olmo2", "olmo2", true, vec![]),
        (
            "granite",
            "granite",
            false,
            vec![
                ("granite.embedding_scale", number(6.0)),
                ("granite.residual_scale", number(0.4)),
                ("granite.attention.scale", number(0.25)),
                ("granite.logit_scale", number(3.0)),
            ],
        ),
        ("llama", "llama-untied", false, vec![]),
        (
            "qwen3moe",
            "qwen3-moe",
            false,
            vec![
                ("qwen3moe.expert_count", Value::U32(5)),
                ("qwen3moe.expert_used_count", Value::U32(2)),
                ("qwen3moe.expert_feed_forward_length", Value::U32(20)),
            ],
        ),
    ];
    for (architecture, name, post_norms, own) in cases {
        let mut expected = fixture(name);
        expected.dtype = WeightDtype::F32;
        let baton_bundle::FamilyConfig::Decoder(constants) = &mut expected.family else { panic!("{name}") };
        if let Some(experts) = &mut constants.experts {
            experts.layers.fill(true); // llama.cpp knows no others
        }
        if architecture == "gemma2" {
            constants.attention_factor = Some(8.0_f64.powf(-0.5)); // nor other scales than the heads' width
        }
        let (around_one, is_interleaved) =
            (constants.norms_around_one, ["llama", "granite"].contains(&architecture));
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for (place, (name, shape)) in expected.tensor_shapes().into_iter().enumerate() {
            let mut stored = numbers(place, &shape);
            if around_one && name.ends_with("norm.weight") {
                stored.iter_mut().for_each(|factor| *factor += 1.0);
            }
            let heads = match name.rsplit('.').nth(1) {
                Some("q_proj") => expected.num_attention_heads,
                Some("k_proj") => expected.num_key_value_heads,
                _ => 0,
            };
            if is_interleaved && heads > 0 {
                stored = interleaved(&stored, heads, shape[1]);
            }
            match name.split_once(".experts.") {
                None => {
                    tensors.insert(gguf_name(&name, post_norms), (shape, stored));
                }
                Some((block, expert)) => {
                    let layer = block.split('.').nth(2).unwrap();
                    let part = expert.split('.').nth(1).unwrap().trim_end_matches("_proj");
                    let stack = tensors.entry(format!("blk.{layer}.ffn_{part}_exps.weight")).or_default();
                    stack.0 = [&[5], shape.as_slice()].concat();
                    stack.1.extend(stored);
                }
            }
        }
        let mut metadata = sizes(architecture, &expected);
        metadata.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let directory = tempfile::tempdir().unwrap();
        let (from, out) = (directory.path().join("model.gguf"), directory.path().join("llm"));
        write(&from, &metadata, &tensors);
        let options = ImportOptions { from, out: out.clone(), dtype: WeightDtype::F32 };
        let summary = import_llm(&options).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(summary.config, expected, "{name}");
        let weights = SafetensorsFile::open(&out.join("model.safetensors")).unwrap();
        for (place, (tensor, shape)) in expected.tensor_shapes().into_iter().enumerate() {
            assert_eq!(weights.read_f32(&tensor).unwrap(), numbers(place, &shape), "{name}: {tensor}");
        }
    }
}

#[test]
fn factors_of_frequencies_become_the_scaling_that_they_came_from() {
    let config = fixture("llama-untied"); // heads of 12
    let scaled = |divisors: Vec<f32>| {
        let directory = tempfile::tempdir().unwrap();
        let mut metadata = sizes("llama", &config);
        metadata.insert("llama.rope.freq_base".to_owned(), Value::F32(500_000.0));
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for (place, (name, shape)) in config.tensor_shapes().into_iter().enumerate() {
            tensors.insert(gguf_name(&name, false), (shape.clone(), numbers(place, &shape)));
        }
        tensors.insert("rope_freqs.weight".to_owned(), (vec![divisors.len()], divisors));
        let (from, out) = (directory.path().join("model.gguf"), directory.path().join("llm"));
        write(&from, &metadata, &tensors);
        import_llm(&ImportOptions { from, out, dtype: WeightDtype::F32 })
    };
    // Of Llama 3.1 in six frequencies: the fourth wave is stretched in part, the last two wholly.
    let frequency = |pair: i32| 500_000.0_f64.powf(-f64::from(pair) / 6.0);
    let divisors = (0..6).map(|pair| {
        let rotations = 8192.0 * frequency(pair) / std::f64::consts::TAU;
        let kept = ((rotations - 1.0) / 3.0).clamp(0.0, 1.0);
        (1.0 / (kept + (1.0 - kept) / 8.0)) as f32
    });
    let divisors: Vec<f32> = divisors.collect();
    assert!(divisors.contains(&8.0) && divisors[0] == 1.0);
    let rotary = scaled(divisors).unwrap().config.decoder().unwrap().rotary.clone();
    assert_eq!(
        rotary.scaling,
        baton_bundle::RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192
        }
    );
    let error = scaled(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap_err().to_string();
    assert!(error.contains("not those of Llama 3.1 or 3.2"), "{error}");
}

#[test]
fn pieces_with_scores_become_a_tokenizer_that_merges_by_them() {
    let config = fixture("qwen2-tied");
    let mut pieces: Vec<String> =
        ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "▁ab", "<0x63>", "<0xC3>", "<0xA9>", "▁▁"]
            .map(str::to_owned)
            .into();
    pieces.extend((pieces.len()..config.vocab_size).map(|id| format!("<unused{id}>")));
    let scores: Vec<Value> = (0..pieces.len()).map(|id| Value::F32(-(id as f32))).collect();
    let mut kinds = vec![Value::I32(1); pieces.len()];
    (kinds[0], kinds[1], kinds[2]) = (Value::I32(2), Value::I32(3), Value::I32(3));
    kinds[9..12].fill(Value::I32(6));
    let mut metadata = sizes("qwen2", &config);
    let strings = pieces.into_iter().map(Value::String).collect();
    metadata.extend([
        ("tokenizer.ggml.model".to_owned(), Value::String("llama".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(strings)),
        ("tokenizer.ggml.scores".to_owned(), Value::Array(scores)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(kinds)),
        ("tokenizer.ggml.unknown_token_id".to_owned(), Value::U32(0)),
        ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(true)),
    ]);
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    for (place, (name, shape)) in config.tensor_shapes().into_iter().enumerate() {
        tensors.insert(gguf_name(&name, false), (shape.clone(), numbers(place, &shape)));
    }
    for (prefix, ids, text) in
        [(true, vec![1, 8, 3, 9, 10, 11], " ab cé"), (false, vec![1, 7, 3, 9, 10, 11], "ab cé")]
    {
        let directory = tempfile::tempdir().unwrap();
        metadata.insert("tokenizer.ggml.add_space_prefix".to_owned(), Value::Bool(prefix));
        let (from, out) = (directory.path().join("model.gguf"), directory.path().join("llm"));
        write(&from, &metadata, &tensors);
        import_llm(&ImportOptions { from, out: out.clone(), dtype: WeightDtype::F32 }).unwrap();
        let tokenizer = Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
        let encoded = tokenizer.encode("ab cé", true).unwrap();
        assert_eq!(encoded.get_ids(), ids, "{:?}", encoded.get_tokens());
        assert_eq!(tokenizer.decode(encoded.get_ids(), true).unwrap(), text.trim_start());
    }
}
