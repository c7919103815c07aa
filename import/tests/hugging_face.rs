//! Import of Hugging Face directories.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../bundle/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use baton_bundle::{ModelConfig, WeightDtype};
use baton_import::{ImportError, ImportOptions, import_llm};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use support::{assert_says, config, tokenizer, write_checkpoint, write_tensors};

fn import(directory: &Path) -> Result<(), ImportError> {
    let (from, out) = (directory.join("source"), directory.join("llm"));
    import_llm(&ImportOptions { from, out, dtype: WeightDtype::F32 }).map(|_| ())
}

/// Tensor data by name, in any order of the file.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> =
        file.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn a_directory_is_imported_with_its_tokenizer_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let (source, llm) = (directory.path().join("source"), directory.path().join("llm"));
    write_checkpoint(&source, &config());
    fs::write(source.join("generation_config.json"), "{}").unwrap();
    import(directory.path()).unwrap();
    assert_eq!(tensors(&llm.join("model.safetensors")), tensors(&source.join("model.safetensors")));
    assert_eq!(ModelConfig::read(&llm.join("config.json")).unwrap(), config());
    for name in ["tokenizer.json", "generation_config.json"] {
        assert_eq!(fs::read(llm.join(name)).unwrap(), fs::read(source.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn shards_become_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let (source, llm) = (directory.path().join("source"), directory.path().join("llm"));
    write_checkpoint(&source, &config());
    fs::remove_file(source.join("model.safetensors")).unwrap();
    let shapes = config().tensor_shapes();
    let (first, second) = shapes.split_at(7);
    write_tensors(&source.join("model-1.safetensors"), first);
    write_tensors(&source.join("model-2.safetensors"), second);
    let map: serde_json::Map<_, _> = [(first, "model-1.safetensors"), (second, "model-2.safetensors")]
        .into_iter()
        .flat_map(|(shapes, file)| shapes.iter().map(move |(name, _)| (name.clone(), json!(file))))
        .collect();
    let index = json!({"weight_map": map}).to_string();
    fs::write(source.join("model.safetensors.index.json"), index).unwrap();
    import(directory.path()).unwrap();
    let names: Vec<_> = tensors(&llm.join("model.safetensors")).into_iter().map(|(name, _)| name).collect();
    let mut expected: Vec<_> = shapes.into_iter().map(|(name, _)| name).collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn buffers_that_the_config_determines_are_omitted() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    write_checkpoint(&source, &config());
    let mut shapes = config().tensor_shapes();
    shapes.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![2]));
    shapes.push(("lm_head.weight".to_owned(), vec![config().vocab_size, 8])); // the tied head, saved again
    write_tensors(&source.join("model.safetensors"), &shapes);
    import(directory.path()).unwrap();
    let imported = tensors(&directory.path().join("llm/model.safetensors"));
    assert_eq!(imported.len(), config().tensor_shapes().len());
}

#[test]
fn unsupported_checkpoints_are_refused_with_a_reason() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &[&str]); 6] = [
        (
            |source| {
                fs::rename(source.join("model.safetensors"), source.join("pytorch_model.bin")).unwrap();
            },
            &["pickles", "safe_serialization=True"],
        ),
        (
            |source| fs::remove_file(source.join("model.safetensors")).unwrap(),
            &["neither model.safetensors nor"],
        ),
        (|source| fs::remove_file(source.join("tokenizer.json")).unwrap(), &["no tokenizer.json"]),
        (
            |source| {
                let mut shapes = config().tensor_shapes();
                shapes.push(("model.layers.0.self_attn.q_proj.bias".to_owned(), vec![8]));
                write_tensors(&source.join("model.safetensors"), &shapes);
            },
            &["`model.layers.0.self_attn.q_proj.bias` is not part of"],
        ),
        (
            |source| {
                let path = source.join("model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            },
            &["not a complete safetensors file", "its header needs"],
        ),
        (
            |source| {
                let larger = ModelConfig { intermediate_size: 16, ..config() };
                fs::write(source.join("config.json"), larger.to_json()).unwrap();
            },
            &["mlp.down_proj.weight` has shape [8, 12]", "config.json says [8, 16]"],
        ),
    ];
    for (spoil, pieces) in cases {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        write_checkpoint(&source, &config());
        spoil(&source);
        assert_says(&import(directory.path()).unwrap_err(), pieces);
        assert!(!directory.path().join("llm").exists());
    }
}

/// Checkpoints that transformers wrote, beside a tokenizer.
fn family_fixture(directory: &Path, fixture: &str) -> ModelConfig {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families");
    let source = directory.join("source");
    fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures.join(fixture).join(name), source.join(name)).unwrap();
    }
    tokenizer().save(source.join("tokenizer.json"), true).unwrap();
    ModelConfig::read_checkpoint(&source).unwrap()
}

#[test]
fn a_checkpoint_of_every_family_is_imported_unchanged() {
    for fixture in [
        "llama-untied",
        "qwen2-sliding",
        "qwen3-tied",
        "gemma3-tied",
        "gpt2-untied",
        "t5-tied",
        "t5-untied",
        "t5-tied-unscaled",
        "mt5-untied",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = family_fixture(directory.path(), fixture);
        let llm = directory.path().join("llm");
        let (from, out) = (directory.path().join("source"), llm.clone());
        let summary = import_llm(&ImportOptions { from, out, dtype: WeightDtype::Bf16 }).unwrap();
        assert_eq!(ModelConfig::read(&llm.join("config.json")).unwrap(), config, "{fixture}");
        let (imported, original) = (
            tensors(&llm.join("model.safetensors")),
            tensors(&directory.path().join("source/model.safetensors")),
        );
        assert_eq!(imported, original, "{fixture}");
        let num_bytes: usize = original.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(2 * summary.num_parameters, num_bytes as u64, "{fixture}");
    }
}

/// GPT-2 as first published: no head, names without `transformer.`, causal masks among the weights.
#[test]
fn a_checkpoint_without_its_head_gets_its_full_names() {
    let directory = tempfile::tempdir().unwrap();
    let config = family_fixture(directory.path(), "gpt2-tied");
    let mut shapes: Vec<_> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| (name.strip_prefix("transformer.").unwrap().to_owned(), shape))
        .collect();
    shapes.push(("h.0.attn.bias".to_owned(), vec![1, 1, 72, 72]));
    shapes.push(("h.0.attn.masked_bias".to_owned(), vec![1]));
    write_tensors(&directory.path().join("source/model.safetensors"), &shapes);
    import(directory.path()).unwrap();
    let imported = tensors(&directory.path().join("llm/model.safetensors"));
    let original = tensors(&directory.path().join("source/model.safetensors"));
    for (name, _) in config.tensor_shapes() {
        let bytes_of = |tensors: &[(String, Vec<u8>)], name: &str| {
            tensors.iter().find(|(other, _)| other == name).map(|(_, bytes)| bytes.clone())
        };
        let stored_name = name.strip_prefix("transformer.").unwrap();
        assert_eq!(bytes_of(&imported, &name), bytes_of(&original, stored_name), "{name}");
    }
    assert_eq!(imported.len(), config.tensor_shapes().len());
}

#[test]
fn copies_of_a_t5s_embedding_are_omitted_and_other_tensors_of_that_name_are_refused() {
    let names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
    for (copied, is_refused) in [(true, false), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let config = family_fixture(directory.path(), "t5-tied");
        let weights = directory.path().join("source/model.safetensors");
        let mut stored: Vec<(String, Vec<u8>)> = tensors(&weights);
        let embedding = stored.iter().find(|(name, _)| name == "shared.weight").unwrap().1.clone();
        let copy: Vec<u8> = embedding.iter().map(|byte| if copied { *byte } else { byte ^ 1 }).collect();
        stored.extend(names.map(|name| (name.to_owned(), copy.clone())));
        let shapes: std::collections::BTreeMap<_, _> = config.tensor_shapes().into_iter().collect();
        let views = stored.iter().map(|(name, bytes)| {
            let shape = shapes.get(name).unwrap_or(&shapes["shared.weight"]).clone();
            (name, TensorView::new(Dtype::BF16, shape, bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &weights).unwrap();
        let imported = import(directory.path());
        match is_refused {
            true => {
                assert_says(
                    &imported.unwrap_err(),
                    &["embed_tokens.weight` differs from the embedding matrix"],
                );
            }
            false => {
                imported.unwrap();
                assert!(
                    ModelConfig::read(&directory.path().join("llm/config.json")).unwrap().tie_word_embeddings
                );
                let imported = tensors(&directory.path().join("llm/model.safetensors"));
                assert_eq!(imported.len(), config.tensor_shapes().len());
            }
        }
    }
}

#[test]
fn an_index_cannot_point_outside_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    write_checkpoint(&source, &config());
    fs::rename(source.join("model.safetensors"), directory.path().join("outside.safetensors")).unwrap();
    let index = json!({"weight_map": {"model.norm.weight": "../outside.safetensors"}}).to_string();
    fs::write(source.join("model.safetensors.index.json"), index).unwrap();
    assert_says(
        &import(directory.path()).unwrap_err(),
        &["`../outside.safetensors`", "not a file beside it"],
    );
}
