//! Import of GGUF files. The real model is checked against transformers by `scripts/parity_fixtures.py`.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../bundle/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use baton_bundle::{ModelConfig, WeightDtype};
use baton_import::{ImportError, ImportOptions, ImportSummary, import_llm};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use support::{assert_says, config, values};
use tokenizers::Tokenizer;

/// A GGUF file that can be changed before it is written.
struct Gguf {
    metadata: BTreeMap<String, Value>,
    tensors: Vec<(String, Vec<usize>)>,
}

impl Gguf {
    /// The file that a converter makes of [`support::config`].
    fn tiny() -> Self {
        let strings = |items: Vec<String>| Value::Array(items.into_iter().map(Value::String).collect());
        let mut kinds = vec![Value::I32(1); support::VOCAB_SIZE];
        kinds[..support::SPECIAL_TOKENS.len()].fill(Value::I32(3));
        let metadata = [
            ("general.architecture", Value::String("llama".to_owned())),
            ("llama.block_count", Value::U32(2)),
            ("llama.context_length", Value::U32(64)),
            ("llama.embedding_length", Value::U32(8)),
            ("llama.feed_forward_length", Value::U32(12)),
            ("llama.attention.head_count", Value::U32(2)),
            ("llama.attention.head_count_kv", Value::U32(1)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("llama.rope.dimension_count", Value::U32(4)),
            ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
            ("tokenizer.ggml.pre", Value::String("smollm".to_owned())),
            ("tokenizer.ggml.tokens", strings(support::vocabulary())),
            ("tokenizer.ggml.token_type", Value::Array(kinds)),
            ("tokenizer.ggml.merges", strings(vec!["Ġ 1".to_owned(), "1 2".to_owned()])),
            ("tokenizer.ggml.bos_token_id", Value::U32(0)),
            ("tokenizer.ggml.eos_token_id", Value::U32(1)),
            ("tokenizer.chat_template", Value::String("{{ messages }}".to_owned())),
        ];
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![support::VOCAB_SIZE, 8])];
        for layer in 0..2 {
            for (name, shape) in [
                ("attn_norm", vec![8]),
                ("attn_q", vec![8, 8]),
                ("attn_k", vec![4, 8]),
                ("attn_v", vec![4, 8]),
                ("attn_output", vec![8, 8]),
                ("ffn_norm", vec![8]),
                ("ffn_gate", vec![12, 8]),
                ("ffn_up", vec![12, 8]),
                ("ffn_down", vec![8, 12]),
            ] {
                tensors.push((format!("blk.{layer}.{name}.weight"), shape));
            }
        }
        tensors.push(("output_norm.weight".to_owned(), vec![8]));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { metadata, tensors }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.insert(key.to_owned(), value);
        self
    }

    fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("tiny.gguf");
        let tensors: Vec<QTensor> = self
            .tensors
            .iter()
            .enumerate()
            .map(|(number, (_, shape))| {
                let tensor = Tensor::from_vec(values(number, shape), shape.as_slice(), &Device::Cpu).unwrap();
                QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
            })
            .collect();
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let names = self.tensors.iter().map(|(name, _)| name.as_str());
        let tensors: Vec<_> = names.zip(&tensors).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        path
    }

    fn import(&self, directory: &Path, dtype: WeightDtype) -> Result<ImportSummary, ImportError> {
        let from = self.write(directory);
        import_llm(&ImportOptions { from, out: directory.join("llm"), dtype })
    }
}

fn refusal(gguf: &Gguf) -> ImportError {
    let directory = tempfile::tempdir().unwrap();
    let error = gguf.import(directory.path(), WeightDtype::F32).unwrap_err();
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tiny.gguf"], "a refused import leaves nothing behind");
    error
}

#[test]
fn the_config_follows_from_the_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let summary = Gguf::tiny().import(directory.path(), WeightDtype::F32).unwrap();
    assert_eq!(summary.config, config());
    assert_eq!(ModelConfig::read(&directory.path().join("llm/config.json")).unwrap(), config());
    let num_parameters: usize =
        config().tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(summary.num_parameters, num_parameters as u64);
}

#[test]
fn tensors_get_their_hugging_face_names_and_rotary_rows_their_order() {
    let directory = tempfile::tempdir().unwrap();
    Gguf::tiny().import(directory.path(), WeightDtype::F32).unwrap();
    let bytes = fs::read(directory.path().join("llm/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), config().tensor_shapes().len());
    for (name, shape) in config().tensor_shapes() {
        assert_eq!(file.tensor(&name).unwrap().shape(), shape, "{name}");
    }
    let rows = |name: &str| -> Vec<Vec<f32>> {
        let tensor = file.tensor(name).unwrap();
        let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        numbers.collect::<Vec<_>>().chunks(8).map(<[f32]>::to_vec).collect()
    };
    let stored = |number: usize, order: &[usize]| -> Vec<Vec<f32>> {
        order.iter().map(|row| values(number, &[8, 8])[row * 8..][..8].to_vec()).collect()
    };
    assert_eq!(rows("model.layers.0.self_attn.q_proj.weight"), stored(2, &[0, 2, 1, 3, 4, 6, 5, 7]));
    assert_eq!(rows("model.layers.0.self_attn.k_proj.weight"), stored(3, &[0, 2, 1, 3]));
    assert_eq!(rows("model.layers.0.self_attn.v_proj.weight"), stored(4, &[0, 1, 2, 3]));
    assert_eq!(rows("model.layers.1.self_attn.o_proj.weight"), stored(14, &[0, 1, 2, 3, 4, 5, 6, 7]));
}

#[test]
fn bf16_is_asked_for_by_name_and_rounds() {
    let directory = tempfile::tempdir().unwrap();
    let summary = Gguf::tiny().import(directory.path(), WeightDtype::Bf16).unwrap();
    assert_eq!(summary.config.dtype, WeightDtype::Bf16);
    let bytes = fs::read(directory.path().join("llm/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.iter().all(|(_, tensor)| tensor.dtype() == Dtype::BF16));
}

#[test]
fn two_imports_are_equal_byte_for_byte() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for directory in &directories {
        Gguf::tiny().import(directory.path(), WeightDtype::F32).unwrap();
    }
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        let [first, second] =
            directories.each_ref().map(|d| fs::read(d.path().join("llm").join(name)).unwrap());
        assert!(first == second, "{name}");
    }
}

#[test]
fn the_tokenizer_knows_special_tokens_and_splits_as_its_name_says() {
    let pieces = |pre: &str, text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let gguf = Gguf::tiny().with("tokenizer.ggml.pre", Value::String(pre.to_owned()));
        gguf.import(directory.path(), WeightDtype::F32).unwrap();
        let tokenizer = Tokenizer::from_file(directory.path().join("llm/tokenizer.json")).unwrap();
        tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
    };
    assert_eq!(pieces("smollm", "<|im_start|>a 12"), ["<|im_start|>", "a", "Ġ", "1", "2"]);
    assert_eq!(pieces("gpt-2", "<|im_start|>a 12"), ["<|im_start|>", "a", "Ġ1", "2"]);
}

#[test]
fn a_begin_token_that_the_model_expects_is_added_by_the_tokenizer() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = Gguf::tiny().with("tokenizer.ggml.add_bos_token", Value::Bool(true));
    gguf.import(directory.path(), WeightDtype::F32).unwrap();
    let tokenizer = Tokenizer::from_file(directory.path().join("llm/tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap().get_tokens(), ["<|im_start|>", "a"]);
    assert_eq!(tokenizer.encode("a", false).unwrap().get_tokens(), ["a"]);
}

#[test]
fn settings_without_an_exact_equivalent_are_refused_by_name() {
    let text = |text: &str| Value::String(text.to_owned());
    let cases = [
        ("general.architecture", text("gemma"), ["family `gemma`", "supported: llama, qwen2, qwen3"]),
        ("tokenizer.ggml.model", text("t5"), ["`tokenizer.ggml.model` is `t5`", "byte-level BPE"]),
        ("tokenizer.ggml.model", text("llama"), ["`tokenizer.ggml.scores`", "is missing"]),
        ("tokenizer.ggml.pre", text("viking"), ["`tokenizer.ggml.pre` is `viking`", "gpt-2, smollm"]),
        ("llama.rope.scaling.type", text("dynamic"), ["`llama.rope.scaling.type` is `dynamic`", "yarn"]),
        ("llama.rope.dimension_count", Value::U32(3), ["`partial_rotary_factor` is 0.75", "an even number"]),
        ("llama.expert_count", Value::U32(8), ["`llama.expert_count` is 8", "mixtures of experts"]),
        ("llama.attention.head_count_kv", Value::U32(0), ["`num_key_value_heads` is 0", "from 1"]),
        ("tokenizer.ggml.token_type", Value::Array(vec![]), ["`tokenizer.ggml.token_type`", "0 entries"]),
        ("llama.block_count", text("two"), ["`llama.block_count` is not", "unsigned number"]),
        ("llama.block_count", Value::U32(3), ["`blk.2.attn_norm.weight`", "is missing"]),
        ("llama.feed_forward_length", Value::U32(16), ["`blk.0.ffn_gate.weight`", "has shape [12, 8]"]),
        ("tokenizer.ggml.eos_token_id", Value::U32(9999), ["`tokenizer.ggml.eos_token_id`", "beyond"]),
    ];
    for (key, value, pieces) in cases {
        assert_says(&refusal(&Gguf::tiny().with(key, value)), &pieces);
    }
}

#[test]
fn a_tensor_that_the_family_does_not_have_is_refused() {
    let mut gguf = Gguf::tiny();
    gguf.tensors.push(("blk.0.attn_q.bias".to_owned(), vec![8]));
    assert_says(&refusal(&gguf), &["`blk.0.attn_q.bias`", "not part of"]);
}

#[test]
fn a_truncated_file_and_a_file_of_another_kind_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let from = Gguf::tiny().write(directory.path());
    let bytes = fs::read(&from).unwrap();
    let import = |from: &Path| {
        let out = directory.path().join("llm");
        import_llm(&ImportOptions { from: from.to_owned(), out, dtype: WeightDtype::F32 }).unwrap_err()
    };
    for length in [0, 3, 1000, bytes.len() - 40] {
        fs::write(&from, &bytes[..length]).unwrap();
        assert_says(&import(&from), &["tiny.gguf is not a complete GGUF file"]);
        assert!(!directory.path().join("llm").exists());
    }
    let other = directory.path().join("model.onnx");
    fs::write(&other, "onnx").unwrap();
    assert_says(&import(&other), &["cannot import", "give a .gguf file"]);
    assert_says(
        &import(&directory.path().join("absent.gguf")),
        &["cannot open", "absent.gguf", "No such file"],
    );
}

#[test]
fn an_existing_output_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    Gguf::tiny().import(directory.path(), WeightDtype::F32).unwrap();
    let error = Gguf::tiny().import(directory.path(), WeightDtype::F32).unwrap_err();
    assert_says(&error, &["llm already exists"]);
}
