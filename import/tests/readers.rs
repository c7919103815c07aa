//! Import of large public models: multimodal checkpoints, FP8, packed matrices, shards that do not fit their
//! index.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../bundle/tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, fs, path::Path};

use baton_bundle::{ModelConfig, SafetensorsFile, WeightDtype};
use baton_import::{ImportError, ImportOptions, import_llm};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use support::{assert_says, config, tokenizer, write_checkpoint, write_tensors};

fn import(directory: &Path) -> Result<(), ImportError> {
    let (from, out) = (directory.join("source"), directory.join("llm"));
    import_llm(&ImportOptions { from, out, dtype: WeightDtype::F32 }).map(|_| ())
}

fn imported(directory: &Path) -> SafetensorsFile {
    SafetensorsFile::open(&directory.join("llm/model.safetensors")).unwrap()
}

/// A directory with a file of settings and a tokenizer, without weights.
fn source(directory: &Path, config: &Value) -> std::path::PathBuf {
    let source = directory.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("config.json"), config.to_string()).unwrap();
    tokenizer().save(source.join("tokenizer.json"), true).unwrap();
    source
}

#[test]
fn the_text_model_of_a_multimodal_checkpoint_is_taken_under_either_of_its_names() {
    let settings = json!({
        "model_type": "gemma3", "torch_dtype": "bfloat16", "eos_token_id": [1, 2],
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 8, "intermediate_size": 12, "head_dim": 4,
            "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
            "sliding_window": 4, "vocab_size": support::VOCAB_SIZE
        },
        "vision_config": {"hidden_size": 16}
    });
    let renamed: [fn(&str) -> String; 2] = [
        |name| format!("language_model.{name}"),
        |name| format!("model.language_model.{}", name.strip_prefix("model.").unwrap()),
    ];
    let vision = ["vision_tower.encoder.weight", "multi_modal_projector.norm.weight"];
    for (rename, prefix) in renamed.into_iter().zip(["", "model."]) {
        let directory = tempfile::tempdir().unwrap();
        let source = source(directory.path(), &settings);
        let config = ModelConfig::read(&source.join("config.json")).unwrap();
        let mut shapes = config.tensor_shapes();
        shapes.extend(vision.map(|name| (format!("{prefix}{name}"), vec![3])));
        let stored: Vec<_> = shapes
            .iter()
            .map(|(name, shape)| match config.tensor_shapes().iter().any(|(known, _)| known == name) {
                true => (rename(name), shape.clone()),
                false => (name.clone(), shape.clone()),
            })
            .collect();
        write_tensors(&source.join("model.safetensors"), &stored);
        import(directory.path()).unwrap();
        assert_eq!(
            ModelConfig { dtype: WeightDtype::F32, ..config.clone() },
            ModelConfig::read(&directory.path().join("llm/config.json")).unwrap()
        );
        let imported = imported(directory.path());
        assert_eq!(imported.names().len(), config.tensor_shapes().len());
        for (number, (name, shape)) in config.tensor_shapes().iter().enumerate() {
            assert_eq!(imported.read_f32(name).unwrap(), support::values(number, shape), "{name}");
        }
    }
}

/// The tensors of the tiny model, its matrices in FP8: all bytes `0x3c`, 1.5, with these scales.
fn write_fp8(path: &Path, scales: impl Fn(&[usize]) -> (&'static str, Vec<usize>)) {
    let mut stored: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, shape) in config().tensor_shapes() {
        let count: usize = shape.iter().product();
        if shape.len() == 1 || name.ends_with("embed_tokens.weight") {
            let ones: Vec<u8> = (0..count).flat_map(|_| 1.0_f32.to_le_bytes()).collect();
            stored.insert(name, (Dtype::F32, shape, ones));
            continue;
        }
        let (suffix, scale_shape) = scales(&shape);
        let num_scales: usize = scale_shape.iter().product();
        let factors: Vec<u8> = (0..num_scales).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        if !suffix.is_empty() {
            stored.insert(format!("{name}{suffix}"), (Dtype::F32, scale_shape, factors));
        }
        stored.insert(name.replace(".weight", ".input_scale"), (Dtype::F32, vec![1], vec![0, 0, 128, 63]));
        stored.insert(name, (Dtype::F8_E4M3, shape, vec![0x3c; count]));
    }
    let views = stored.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn fp8_source(directory: &Path, quantization: &Value) -> std::path::PathBuf {
    let mut settings: Value = serde_json::from_str(&config().to_json()).unwrap();
    settings["quantization_config"] = quantization.clone();
    source(directory, &settings)
}

#[test]
fn fp8_matrices_are_multiplied_by_their_scales() {
    let name = "model.layers.1.mlp.down_proj.weight"; // [8, 12]
    let in_blocks = json!({"quant_method": "fp8", "weight_block_size": [4, 8]});
    let by_rows = json!({"quant_method": "compressed-tensors", "format": "float-quantized"});
    let whole = json!({"quant_method": "fp8", "activation_scheme": "static"});
    type ScalesOf = fn(&[usize]) -> (&'static str, Vec<usize>);
    type Factor = fn(usize, usize) -> f32;
    let cases: [(Value, ScalesOf, Factor); 3] = [
        (
            in_blocks,
            |shape| ("_scale_inv", vec![shape[0].div_ceil(4), shape[1].div_ceil(8)]),
            |row, column| (1 + row / 4 * 2 + column / 8) as f32,
        ),
        (by_rows, |shape| ("_scale", vec![shape[0], 1]), |row, _| (1 + row) as f32),
        (whole, |_| ("_scale_inv", vec![]), |_, _| 1.0),
    ];
    for (quantization, scales, factor) in cases {
        let directory = tempfile::tempdir().unwrap();
        write_fp8(&fp8_source(directory.path(), &quantization).join("model.safetensors"), scales);
        import(directory.path()).unwrap();
        let expected: Vec<f32> =
            (0..8).flat_map(|row| (0..12).map(move |column| 1.5 * factor(row, column))).collect();
        assert_eq!(imported(directory.path()).read_f32(name).unwrap(), expected, "{quantization}");
        assert_eq!(imported(directory.path()).names().len(), config().tensor_shapes().len());
    }
}

#[test]
fn fp8_matrices_without_fitting_scales_and_other_quantizations_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let fp8 = json!({"quant_method": "fp8"});
    let weights = fp8_source(directory.path(), &fp8).join("model.safetensors");
    write_fp8(&weights, |_| ("", vec![]));
    assert_says(&import(directory.path()).unwrap_err(), &["is FP8 without a tensor of scales"]);
    write_fp8(&weights, |_| ("_scale_inv", vec![2, 2]));
    assert_says(&import(directory.path()).unwrap_err(), &["has scales of shape [2, 2]", "no part of"]);
    for quantization in [
        json!({"quant_method": "awq", "bits": 4, "version": "gemv"}),
        json!({"quant_method": "gptq", "bits": 3}),
        json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
        json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}),
    ] {
        fp8_source(directory.path(), &quantization);
        assert_says(&import(directory.path()).unwrap_err(), &["`quantization_config`", "of FP8"]);
    }
}

/// A model whose matrices are packed with four bits, in groups of eight inputs: all numbers 9, all zeros 7,
/// and scales of a half. `more` are further tensors.
fn packed_source(directory: &Path, method: &str, more: &[(&str, Vec<usize>, Vec<u8>)]) {
    let mut settings: Value = serde_json::from_str(&config().to_json()).unwrap();
    settings["quantization_config"] = json!({"quant_method": method, "bits": 4, "group_size": 8});
    settings["intermediate_size"] = 16.into();
    settings["head_dim"] = 8.into();
    let path = source(directory, &settings).join("model.safetensors");
    let config = ModelConfig::read(&directory.join("source/config.json")).unwrap();
    let mut stored: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, shape) in config.tensor_shapes() {
        let count: usize = shape.iter().product();
        let module = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
        let &[outputs, inputs] = &shape[..] else {
            stored.insert(name, (Dtype::F32, shape, 1.0_f32.to_le_bytes().repeat(count)));
            continue;
        };
        if name.ends_with("embed_tokens.weight") {
            stored.insert(name, (Dtype::F32, shape, 1.0_f32.to_le_bytes().repeat(count)));
            continue;
        }
        let zeros = if method == "gptq" { 0x66_u8 } else { 0x77 }; // the former less one
        let words = if method == "gptq" { vec![inputs / 8, outputs] } else { vec![inputs, outputs / 8] };
        let mut add = |suffix: &str, dtype, shape, bytes| {
            stored.insert(format!("{module}{suffix}"), (dtype, shape, bytes));
        };
        add(".qweight", Dtype::I32, words, vec![0x99; count / 2]);
        add(".qzeros", Dtype::I32, vec![inputs / 8, outputs / 8], vec![zeros; inputs / 8 * outputs / 2]);
        let scales = vec![inputs / 8, outputs];
        add(".scales", Dtype::F32, scales, 0.5_f32.to_le_bytes().repeat(inputs / 8 * outputs));
        if method == "gptq" {
            let groups = (0..inputs as u32).flat_map(|input| (input / 8).to_le_bytes()).collect();
            add(".g_idx", Dtype::I32, vec![inputs], groups);
        }
    }
    for (name, shape, bytes) in more {
        stored.insert((*name).to_owned(), (Dtype::F32, shape.clone(), bytes.clone()));
    }
    let views = stored.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

#[test]
fn packed_matrices_are_read_as_their_numbers() {
    for method in ["gptq", "awq"] {
        let directory = tempfile::tempdir().unwrap();
        let no_bias = ("model.layers.0.mlp.up_proj.bias", vec![16], vec![0; 64]);
        packed_source(directory.path(), method, &[no_bias]);
        import(directory.path()).unwrap();
        let imported = imported(directory.path());
        let config = ModelConfig::read(&directory.path().join("llm/config.json")).unwrap();
        assert_eq!(imported.names().len(), config.tensor_shapes().len());
        for name in ["model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"] {
            let numbers = imported.read_f32(name).unwrap();
            assert!(numbers.iter().all(|&number| number == 1.0), "{method}, {name}: {numbers:?}");
        }
    }
}

#[test]
fn packed_matrices_whose_parts_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bias = ("model.layers.0.mlp.up_proj.bias", vec![16], vec![1; 64]);
    packed_source(directory.path(), "gptq", &[bias]);
    assert_says(&import(directory.path()).unwrap_err(), &["up_proj.bias", "is not part of this family"]);
    let scales = ("model.layers.0.mlp.up_proj.scales", vec![16], vec![0; 64]);
    packed_source(directory.path(), "gptq", &[scales]);
    assert_says(
        &import(directory.path()).unwrap_err(),
        &["up_proj.weight", "is packed in [1, 16]", "`.scales`", "has shape [16]"],
    );
}

#[test]
fn shards_that_do_not_fit_their_index_are_refused() {
    let (first_file, second_file) = ("model-1.safetensors", "model-2.safetensors");
    let shapes = config().tensor_shapes();
    let (first, second) = shapes.split_at(7);
    let index = |moved: &str| {
        let place = |name: &str| match first.iter().any(|(known, _)| known == name) == (name != moved) {
            true => first_file,
            false => second_file,
        };
        let map: serde_json::Map<_, _> =
            shapes.iter().map(|(name, _)| (name.clone(), json!(place(name)))).collect();
        json!({"weight_map": map}).to_string()
    };
    for (moved, pieces) in [
        ("", None),
        (first[3].0.as_str(), Some(["is in model-1.safetensors", "says that it is in model-2.safetensors"])),
        (second[1].0.as_str(), Some(["is missing in model-1.safetensors", "says that it is"])),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        write_checkpoint(&source, &config());
        fs::remove_file(source.join("model.safetensors")).unwrap();
        write_tensors(&source.join(first_file), first);
        write_tensors(&source.join(second_file), second);
        fs::write(source.join("model.safetensors.index.json"), index(moved)).unwrap();
        match (import(directory.path()), pieces) {
            (result, None) => result.unwrap(),
            (result, Some(pieces)) => assert_says(&result.unwrap_err(), &pieces),
        }
    }
}
