//! Adapters as PEFT writes them: those that are read, and those that are refused by name.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use baton_bundle::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, AddedLlm, Bundle, BundleError, BundleManifest, LlmAdapter, LlmWriter,
    LoraAdapter, LoraShape, add_llm, lora_tensor_names, summarize, verify, write_manifest,
};
use baton_job::Mode;
use serde_json::{Value, json};
use support::{TinyBundle, assert_says, config, manifest, tokenizer, write_tensors};

const SHAPE: LoraShape = LoraShape { rank: 2, alpha: 4.0, rank_stabilized: false };

/// Writes an adapter of the tiny LLM's `targets`.
fn write_adapter(directory: &Path, target: &str) {
    fs::create_dir_all(directory).unwrap();
    let mut layers = config().linear_layers();
    layers.retain(|layer| layer.is_named_by(target));
    let tensors = layers.iter().flat_map(|layer| {
        let [a, b] = lora_tensor_names(layer);
        [(a, vec![2, layer.inputs]), (b, vec![layer.outputs, 2])]
    });
    write_tensors(&directory.join(ADAPTER_WEIGHTS), &tensors.collect::<Vec<_>>());
    fs::write(directory.join(ADAPTER_CONFIG), SHAPE.to_json(&config(), &layers)).unwrap();
}

fn open(directory: &Path) -> Result<LoraAdapter, BundleError> {
    LoraAdapter::open(directory, &config())
}

fn with_adapter(mut manifest: BundleManifest) -> BundleManifest {
    manifest.llm.as_mut().unwrap().adapter = Some(LlmAdapter { hybrid_reads_it: false });
    manifest
}

#[test]
fn written_adapters_are_read_back() {
    let directory = tempfile::tempdir().unwrap();
    write_adapter(directory.path(), "q_proj");
    let adapter = open(directory.path()).unwrap();
    assert_eq!((adapter.shape(), adapter.shape().scale()), (SHAPE, 2.0));
    let names: Vec<&String> = adapter.layers().keys().collect();
    assert_eq!(names, ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"]);
    assert_eq!(LoraShape { rank: 4, rank_stabilized: true, ..SHAPE }.scale(), 2.0);
}

#[test]
fn a_setting_that_is_not_implemented_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    write_adapter(directory.path(), "q_proj");
    let path = directory.path().join(ADAPTER_CONFIG);
    let sound: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 4})),
        ("alpha_pattern", json!({"q_proj": 4})),
        ("layer_replication", json!([[0, 1]])),
        ("lora_bias", json!(true)),
        ("peft_type", json!("ADALORA")),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("lora_alpha", json!("much")),
        ("made_up_tomorrow", json!(1)),
    ] {
        let mut spoiled = sound.clone();
        spoiled[field] = value;
        fs::write(&path, spoiled.to_string()).unwrap();
        assert_says(&open(directory.path()).unwrap_err(), &[ADAPTER_CONFIG, &format!("`{field}`")]);
    }
    let mut harmless = sound.clone();
    for (field, value) in
        [("modules_to_save", Value::Null), ("use_dora", json!(false)), ("rank_pattern", json!({}))]
    {
        harmless[field] = value;
    }
    fs::write(&path, harmless.to_string()).unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn a_tensor_that_does_not_fit_the_llm_is_named() {
    let directory = tempfile::tempdir().unwrap();
    write_adapter(directory.path(), "q_proj");
    let prefix = "base_model.model.model";
    let q_proj = format!("{prefix}.layers.0.self_attn.q_proj");
    let pair = |[a, b]: [Vec<usize>; 2]| {
        vec![(format!("{q_proj}.lora_A.weight"), a), (format!("{q_proj}.lora_B.weight"), b)]
    };
    let fitting = pair([vec![2, 8], vec![8, 2]]);
    let embedding = format!("{prefix}.embed_tokens.lora_embedding_A");
    for (tensors, pieces) in [
        (vec![], ["it has no tensors", ""]),
        (fitting[..1].to_vec(), ["q_proj.lora_B.weight", "is missing"]),
        (pair([vec![3, 8], vec![8, 3]]), ["has shape [3, 8]", "[2, 8]"]),
        (
            [fitting.clone(), vec![(embedding.clone(), vec![2, 261])]].concat(),
            [&*embedding, "there are: down_proj, gate_proj"],
        ),
        (
            vec![(format!("{prefix}.layers.2.self_attn.q_proj.lora_A.weight"), vec![2, 8])],
            ["layers.2", "no linear layer"],
        ),
    ] {
        write_tensors(&directory.path().join(ADAPTER_WEIGHTS), &tensors);
        assert_says(&open(directory.path()).unwrap_err(), &pieces);
    }
}

#[test]
fn a_bundle_covers_its_adapter_by_hashes_and_shows_it() {
    let tiny = TinyBundle::unsealed();
    let error = write_manifest(tiny.path(), with_adapter(manifest())).unwrap_err();
    assert_says(&error, &["adapter/adapter_config.json is missing"]);
    write_adapter(&tiny.file("adapter"), "v_proj");
    write_manifest(tiny.path(), with_adapter(manifest())).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    assert_eq!(bundle.manifest().files.len(), 9);
    let parts = summarize(&bundle).unwrap();
    assert_eq!((parts[1].path, parts[1].description.as_str()), ("adapter", "rank 2, alpha 4, 2 layers"));
    assert_eq!(bundle.adapter().unwrap().unwrap().layers().len(), 2);

    let weights = tiny.file("adapter/adapter_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_says(&verify(tiny.path()).unwrap_err(), &["adapter_model.safetensors", "has sha256"]);
}

fn reading_manifest() -> BundleManifest {
    let mut manifest = BundleManifest { modes: vec![Mode::Hybrid], ..manifest() };
    manifest.llm.as_mut().unwrap().writer = None;
    manifest
}

/// A bundle of a small model, whose LLM does not write yet.
fn reading() -> TinyBundle {
    let tiny = TinyBundle::unsealed();
    write_manifest(tiny.path(), reading_manifest()).unwrap();
    tiny
}

fn writer(prompt_end: &str, eos_token: &str) -> LlmWriter {
    LlmWriter { prompt_end: prompt_end.to_owned(), eos_token: eos_token.to_owned(), max_new_tokens: 9 }
}

#[test]
fn an_unchanged_llm_becomes_a_writer_with_one_of_its_end_tokens() {
    let tiny = reading();
    // As many public models, it has several end tokens.
    let mut llm = config();
    llm.eos_token_ids = vec![2, 1];
    fs::write(tiny.file("llm/config.json"), llm.to_json()).unwrap();
    write_manifest(tiny.path(), reading_manifest()).unwrap();
    let added = AddedLlm::AsItIs(writer("<|im_start|>", "<|im_end|>"));
    add_llm(tiny.path(), &added, true).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    assert_eq!(bundle.manifest().modes, [Mode::Hybrid, Mode::Llm, Mode::Verified]);
    assert_eq!(bundle.llm_writer().unwrap().max_new_tokens, 9);
    add_llm(tiny.path(), &added, true).unwrap();
    assert_eq!(verify(tiny.path()).unwrap().digest(), bundle.digest(), "twice is once");
}

#[test]
fn a_writer_that_does_not_fit_is_refused_and_the_bundle_stays_as_it_was() {
    let tiny = reading();
    let before = fs::read(tiny.file("bundle.json")).unwrap();
    for (added, pieces) in [
        (writer("<|im_start|>", "<end>"), ["has no token `<end>`", "`llm.writer.eos_token`"]),
        (writer("", "<|im_end|>"), ["`llm.writer.prompt_end` is empty", ""]),
    ] {
        let error = add_llm(tiny.path(), &AddedLlm::AsItIs(added), false).unwrap_err();
        assert_says(&error, &pieces);
        assert_eq!(fs::read(tiny.file("bundle.json")).unwrap(), before);
    }
    let mut other = tokenizer();
    other.add_tokens([tokenizers::AddedToken::from("more", false)]).unwrap();
    other.save(tiny.file("slm/tokenizer.json"), true).unwrap();
    write_manifest(tiny.path(), reading_manifest()).unwrap();
    let error =
        add_llm(tiny.path(), &AddedLlm::AsItIs(writer("<|im_start|>", "<|im_end|>")), true).unwrap_err();
    assert_says(&error, &["slm/tokenizer.json has other tokens than llm/tokenizer.json"]);
    assert_eq!(Bundle::open(tiny.path()).unwrap().manifest().modes, [Mode::Hybrid]);
}

/// A bundle of an LLM alone, as fine-tuning by an adapter makes it.
fn fine_tuned(template: &str) -> TinyBundle {
    let tiny = TinyBundle::unsealed();
    write_adapter(&tiny.file("adapter"), "v_proj");
    let manifest =
        BundleManifest { modes: vec![Mode::Llm], projector: None, slm: None, fusion: None, ..manifest() };
    let templates = [("default".to_owned(), template.to_owned())].into();
    write_manifest(tiny.path(), with_adapter(BundleManifest { templates, ..manifest })).unwrap();
    tiny
}

#[test]
fn a_fine_tuned_llm_writes_beside_a_small_model_that_reads_the_llm_as_it_was() {
    let (tiny, tuned) = (reading(), fine_tuned("<|im_start|>{text}<|im_end|>"));
    add_llm(tiny.path(), &AddedLlm::Of(tuned.path().to_owned()), false).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    assert_eq!(bundle.llm().unwrap().0.adapter, Some(LlmAdapter { hybrid_reads_it: false }));
    assert_eq!(bundle.manifest().modes, [Mode::Hybrid, Mode::Llm]);
    assert_eq!(bundle.llm().unwrap().0.writer, manifest().llm.unwrap().writer);
    let adapter = "adapter/adapter_model.safetensors";
    assert_eq!(fs::read(tiny.file(adapter)).unwrap(), fs::read(tuned.file(adapter)).unwrap());
}

#[test]
fn a_fine_tuned_llm_of_another_kind_is_refused() {
    let refused = |tuned: &TinyBundle, tiny: &TinyBundle, pieces: &[&str]| {
        let before = fs::read(tiny.file("bundle.json")).unwrap();
        assert_says(
            &add_llm(tiny.path(), &AddedLlm::Of(tuned.path().to_owned()), false).unwrap_err(),
            pieces,
        );
        assert_eq!(fs::read(tiny.file("bundle.json")).unwrap(), before);
    };
    refused(&fine_tuned("{text}<|im_end|>"), &reading(), &["another default template"]);

    let (tiny, tuned) = (reading(), fine_tuned("<|im_start|>{text}<|im_end|>"));
    let mut weights = fs::read(tuned.file("llm/model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(tuned.file("llm/model.safetensors"), weights).unwrap();
    write_manifest(tuned.path(), Bundle::open(tuned.path()).unwrap().manifest().clone()).unwrap();
    refused(&tuned, &tiny, &["another llm/model.safetensors", "`lora`"]);

    let (tiny, tuned) = (TinyBundle::unsealed(), fine_tuned("<|im_start|>{text}<|im_end|>"));
    write_adapter(&tiny.file("adapter"), "q_proj");
    write_manifest(tiny.path(), with_adapter(reading_manifest())).unwrap();
    refused(&tuned, &tiny, &["it has an adapter already"]);
}
