//! A small model that keeps its own tokens learns alone, and with an LLM's states by characters.

use std::{collections::BTreeMap, fs, path::Path};

use baton_bundle::{
    Alignment, Bundle, BundleManifest, Family, Limits, MANIFEST_FORMAT, ModelConfig, PromptAttention,
    SlmPart, SlmTokenizer, Task, write_manifest,
};
use baton_job::{Mode, ReaderContext};
use baton_model::{Checkpoint, Compute, PromptEncoder, TensorSource};
use baton_trainer::{GeneralPairs, Reads, TrainConfig, TrainError, train};

use crate::{config, quietly, validation_losses, workspace, write_tiny_llm, write_tiny_t5};

/// A bundle of a T5 alone, with the tiny LLM's tokens but its own template.
fn write_small_model(bundle: &Path) {
    let slm = bundle.join("slm");
    write_tiny_llm(&slm);
    write_tiny_t5(&slm);
    let config = ModelConfig::read(&slm.join("config.json")).unwrap();
    let manifest = BundleManifest {
        format: MANIFEST_FORMAT,
        name: "tiny".into(),
        task: Task::Translation { source: "en".into(), target: "it".into() },
        llm: None,
        projector: None,
        slm: Some(SlmPart {
            family: Family::T5,
            d_model: config.hidden_size,
            vocab_size: config.vocab_size,
            prompt_attention: PromptAttention::Bidirectional,
            bos_token: "<|im_start|>".into(),
            eos_token: "<|im_end|>".into(),
            templates: BTreeMap::from([("default".into(), "to Italian: {text}<|im_end|>".into())]),
            languages: None,
            tokenizer: SlmTokenizer::Json,
        }),
        fusion: None,
        alignment: Alignment::Characters,
        modes: vec![Mode::Slm],
        templates: BTreeMap::new(),
        generation: BTreeMap::new(),
        quality: BTreeMap::new(),
        limits: Limits { max_prompt_tokens: 48, max_slm_prompt_tokens: None, max_new_tokens: 16 },
        parts: Vec::new(),
        training: serde_json::Map::new(),
        files: BTreeMap::new(),
    };
    write_manifest(bundle, manifest).unwrap();
}

fn by_characters(workspace: &Path, steps: usize) -> TrainConfig {
    write_small_model(&workspace.join("small"));
    let mut config = config(workspace, steps);
    config.hyperparameters.dropout = 0.0;
    TrainConfig {
        alignment: Alignment::Characters,
        slm: None,
        start_from: Some(workspace.join("small")),
        projector_depth: 1,
        ..config
    }
}

fn states(bundle: &Bundle, mode: Mode, text: &str) -> Vec<u8> {
    let reading = bundle.prompt_reader(mode, None).unwrap().read(text).unwrap();
    let encoder = PromptEncoder::load(bundle, &[mode], Compute::CPU_F32).unwrap();
    encoder.encode(mode, &[reading])[0][0].data.to_vec()
}

#[test]
fn a_hybrid_begins_as_its_small_model_and_learns_from_there() {
    let workspace = workspace();
    let mut config = by_characters(workspace.path(), 150);
    let tuned_alone = TrainConfig { reads: Reads::Slm, ..config.clone() };
    config.hyperparameters.projector_learning_rate = Some(0.02);
    let first_loss = |config: &TrainConfig, name: &str| {
        let mut one_step = config.clone();
        one_step.hyperparameters.steps = 1;
        one_step.hyperparameters.warmup_steps = 1_000_000; // the one step changes nothing that can be seen
        let report = train(&one_step, &workspace.path().join(name), quietly).unwrap();
        (report.best_loss, Bundle::open(&report.bundle).unwrap())
    };
    let (hybrid, _) = first_loss(&config, "first-hybrid");
    let (alone, _) = first_loss(&tuned_alone, "first-alone");
    assert!((hybrid - alone).abs() < 1e-3, "{hybrid} {alone}");

    let with_blocks = TrainConfig { projector_depth: 2, projector_blocks: 2, ..config.clone() };
    let (loss_with_blocks, _) = first_loss(&with_blocks, "first-blocks");
    assert!((loss_with_blocks - alone).abs() < 1e-3, "{loss_with_blocks} {alone}");

    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(
        (manifest.alignment, &manifest.modes[..]),
        (Alignment::Characters, &[Mode::Hybrid, Mode::Slm][..])
    );
    assert_eq!(manifest.slm.as_ref().unwrap().templates["default"], "to Italian: {text}<|im_end|>");
    assert_ne!(states(&bundle, Mode::Hybrid, "red"), states(&bundle, Mode::Slm, "red"), "the LLM is read");
}

#[test]
fn an_adaptor_of_blocks_learns_beside_a_frozen_small_model() {
    let workspace = workspace();
    let mut config = TrainConfig {
        projector_depth: 2,
        projector_blocks: 2,
        frozen: vec!["*".to_owned()],
        ..by_characters(workspace.path(), 60)
    };
    config.hyperparameters.projector_learning_rate = Some(0.02);
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < losses[0] - 0.1, "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    let part = bundle.manifest().projector.clone().unwrap();
    assert_eq!((part.depth, part.blocks), (2, 2));
    let projector = Checkpoint::open(&report.bundle.join("projector/model.safetensors")).unwrap();
    for (name, shape) in part.block_shapes().iter().filter(|(name, _)| name.ends_with("o_proj.weight")) {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let learned = projector.tensor(name, &shape).unwrap();
        assert!(learned.abs().max().double_value(&[]) > 0.0, "{name} began at zero");
    }
    assert_ne!(states(&bundle, Mode::Hybrid, "red"), states(&bundle, Mode::Slm, "red"), "the LLM is read");

    let config = TrainConfig { projector_depth: 1, ..config };
    let error = train(&config, &workspace.path().join("refused"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Config { field: "projector_blocks", .. }), "{error}");
}

#[test]
fn a_small_model_learns_alone_without_any_llm() {
    let workspace = workspace();
    let config = TrainConfig {
        reads: Reads::Slm,
        llm: "".into(),
        template: String::new(),
        ..by_characters(workspace.path(), 150)
    };
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert!(bundle.manifest().llm.is_none() && !report.bundle.join("projector").exists());

    let hybrid = TrainConfig { reads: Reads::Hybrid, ..config };
    let error = train(&hybrid, &workspace.path().join("refused"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Config { field: "llm", .. }), "{error}");
}

#[test]
fn frozen_tensors_stay_unchanged_and_others_learn() {
    let workspace = workspace();
    let frozen = vec!["shared.weight".to_owned(), "encoder.*".to_owned()];
    let config = TrainConfig { frozen, ..by_characters(workspace.path(), 20) };
    let report = train(&config, &workspace.path().join("run"), quietly).unwrap();
    let (before, after) = (workspace.path().join("small/slm"), report.bundle.join("slm"));
    let shapes = ModelConfig::read(&before.join("config.json")).unwrap().tensor_shapes();
    let [before, after] =
        [before, after].map(|slm| Checkpoint::open(&slm.join("model.safetensors")).unwrap());
    let mut num_learned = 0;
    for (name, shape) in shapes {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let rounded =
            |checkpoint: &Checkpoint| checkpoint.tensor(&name, &shape).unwrap().to_kind(tch::Kind::BFloat16);
        let is_same = rounded(&before).equal(&rounded(&after));
        let is_frozen = name == "shared.weight" || name.starts_with("encoder.");
        assert!(is_same || !is_frozen, "{name} is frozen");
        num_learned += usize::from(!is_same);
    }
    assert!(num_learned > 5, "{num_learned}");

    let refused = |frozen: &str, reads: Reads| {
        let config = TrainConfig { frozen: vec![frozen.to_owned()], reads, ..config.clone() };
        train(&config, &workspace.path().join("refused"), quietly).map(|_| ()).unwrap_err().to_string()
    };
    let error = refused("*nothing*", Reads::Hybrid);
    assert!(error.starts_with("frozen = *nothing*: names no tensor of the small model"), "{error}");
}

#[test]
fn a_small_model_that_is_frozen_whole_learns_a_projector_or_is_refused() {
    let workspace = workspace();
    let config = TrainConfig { frozen: vec!["*".to_owned()], ..by_characters(workspace.path(), 20) };
    let alone = TrainConfig { reads: Reads::Slm, ..config.clone() };
    let error = train(&alone, &workspace.path().join("refused"), quietly).unwrap_err().to_string();
    assert!(error.starts_with("frozen = *: freezes every tensor, so nothing would learn"), "{error}");

    let report = train(&config, &workspace.path().join("run"), quietly).unwrap();
    let projector = Checkpoint::open(&report.bundle.join("projector/model.safetensors")).unwrap();
    let learned = projector.tensor("projector.output.weight", &[32, 32]).unwrap();
    assert!(learned.abs().max().double_value(&[]) > 0.0);
}

/// Documents of two sentences. The second sentence is always the same, and its target is that of the first.
fn write_documents(path: &Path, range: std::ops::Range<usize>) {
    let document = |number: usize| {
        let (english, italian) = crate::COLOURS[number % 5];
        serde_json::json!({
            "source": format!("{english} it"),
            "target": format!("so {italian}"),
            "sentences": [[english, "so"], ["it", italian]],
        })
        .to_string()
    };
    fs::write(path, range.map(document).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn a_sentence_is_learned_with_the_states_that_its_record_gives_it() {
    let workspace = workspace();
    let config = by_characters(workspace.path(), 200);
    for (file, range) in [("documents.jsonl", 0..100), ("dev-documents.jsonl", 100..110)] {
        write_documents(&workspace.path().join(file), range);
    }
    let mut config = TrainConfig {
        train: workspace.path().join("documents.jsonl").as_path().into(),
        dev: workspace.path().join("dev-documents.jsonl").as_path().into(),
        sentences_field: Some("sentences".to_owned()),
        reader_context: ReaderContext::Record,
        ..config
    };
    config.hyperparameters.projector_learning_rate = Some(0.02);
    let train_with = |reader_context: ReaderContext, name: &str| {
        let config = TrainConfig { reader_context, ..config.clone() };
        let run = workspace.path().join(name);
        let report = train(&config, &run, quietly).unwrap();
        let manifest = baton_bundle::verify(&report.bundle).unwrap().manifest().clone();
        assert_eq!(manifest.training["pairs"], 200);
        (report.best_loss, manifest, crate::states::num_prompts_and_tokens(&run.join("states")).0)
    };
    let (with_record, manifest, num_prompts) = train_with(ReaderContext::Record, "record");
    assert_eq!(num_prompts, 5, "each document is read once");
    assert_eq!(manifest.generation[&Mode::Hybrid].to_string(), "reader_context = \"record\"");
    let (alone, manifest, num_prompts) = train_with(ReaderContext::Segment, "segment");
    assert_eq!(num_prompts, 6, "five colours, and the sentence that all documents have");
    assert!(manifest.generation.is_empty());
    // Without its record, such a sentence costs at least ln 5 nats, for any colour.
    assert!(with_record < alone - 0.05, "{with_record} {alone}");

    let by_tokens = TrainConfig { reads: Reads::Slm, ..config };
    let error = train(&by_tokens, &workspace.path().join("refused"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Config { field: "reader_context", .. }), "{error}");
}

#[test]
fn general_pairs_are_mixed_in() {
    let workspace = workspace();
    let pairs = fs::read_to_string(workspace.path().join("train.jsonl")).unwrap();
    let general: Vec<&str> = pairs.lines().take(50).collect();
    fs::write(workspace.path().join("general.jsonl"), general.join("\n")).unwrap();
    let files = workspace.path().join("general.jsonl").into();
    let config = TrainConfig {
        reads: Reads::Slm,
        general: Some(GeneralPairs { files, share: 0.25 }),
        ..by_characters(workspace.path(), 20)
    };
    let report = train(&config, &workspace.path().join("run"), quietly).unwrap();
    let bundle = Bundle::open(&report.bundle).unwrap();
    assert_eq!(bundle.manifest().training["pairs"], 350);
    let config = TrainConfig { general: config.general.map(|g| GeneralPairs { share: 1.0, ..g }), ..config };
    let error = train(&config, &workspace.path().join("refused"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Config { field: "general.share", .. }), "{error}");
}
