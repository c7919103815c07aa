//! The starts of a small model: new, the LLM's tokenizer, a bundle, a public checkpoint.

use std::fs;

use baton_bundle::{
    Bundle, BundleError, BundleManifest, CompactBase, CompactOptions, LlmWriter, MANIFEST_FILE,
    StoredWeights, WeightDtype, compact, write_manifest, write_safetensors,
};
use baton_job::Mode;
use baton_trainer::{SlmTokenizer, TrainConfig, TrainError, train};

use crate::{
    advantage_of_right, assert_reads_its_text, config, quietly, shape, validation_losses, workspace,
};

#[test]
fn a_small_model_that_writes_the_llms_tokens_can_draft_for_it() {
    let workspace = workspace();
    let mut config = config(workspace.path(), 120);
    let [bos_token, eos_token] = ["<|im_start|>", "<|im_end|>"].map(str::to_owned);
    shape(&mut config).tokenizer = SlmTokenizer::Llm { bos_token, eos_token: eos_token.clone() };
    let refused = train(&config, &workspace.path().join("refused"), quietly).unwrap_err().to_string();
    assert_eq!(refused, "slm.vocab_size = 330: with the LLM's tokenizer as many as the LLM has, 300");
    shape(&mut config).vocab_size = 300;
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");

    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    let writer = LlmWriter { prompt_end: "<|im_start|>".into(), eos_token, max_new_tokens: 8 };
    let mut manifest =
        BundleManifest { modes: vec![Mode::Hybrid, Mode::Verified], ..bundle.manifest().clone() };
    manifest.llm.as_mut().unwrap().writer = Some(writer);
    fs::remove_file(report.bundle.join(MANIFEST_FILE)).unwrap();
    write_manifest(&report.bundle, manifest).unwrap();
    baton_bundle::verify(&report.bundle).unwrap();
}

#[test]
fn training_continues_from_the_end_of_a_bundles_run() {
    let workspace = workspace();
    let first = config(workspace.path(), 120);
    let ended = train(&first, &workspace.path().join("first"), quietly).unwrap();
    let mut second = TrainConfig { slm: None, start_from: Some(ended.bundle), ..first };
    second.max_response_tokens = 40; // more positions than the bundle has
    second.hyperparameters.steps = 1;
    second.hyperparameters.warmup_steps = 1000; // a first step that changes hardly anything
    let again = train(&second, &workspace.path().join("second"), quietly).unwrap();
    let difference = (again.best_loss - ended.best_loss).abs();
    // Weights were stored in bf16.
    assert!(difference < 0.02, "{} after {}", again.best_loss, ended.best_loss);
    baton_bundle::verify(&again.bundle).unwrap();
}

#[test]
fn a_damaged_projector_of_a_start_is_refused_and_not_begun_anew() {
    let workspace = workspace();
    let first = config(workspace.path(), 2);
    let bundle = train(&first, &workspace.path().join("first"), quietly).unwrap().bundle;
    let second = TrainConfig { slm: None, start_from: Some(bundle.clone()), ..first };
    for (part, name) in [("projector", "second"), ("slm", "third")] {
        let file = bundle.join(part).join("model.safetensors");
        let whole = fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&file, damaged).unwrap();
        let error = train(&second, &workspace.path().join(name), quietly).unwrap_err().to_string();
        assert!(error.contains(&format!("{part}/model.safetensors")) && error.contains("sha256"), "{error}");
        fs::write(&file, whole).unwrap();
    }
}

#[test]
fn a_start_in_two_files_is_their_sum() {
    let workspace = workspace();
    let first = config(workspace.path(), 2);
    let bundle = train(&first, &workspace.path().join("first"), quietly).unwrap().bundle;
    let longer = TrainConfig { slm: None, start_from: Some(bundle.clone()), ..first };
    let trained = train(&longer, &workspace.path().join("longer"), quietly).unwrap().bundle;
    let copy = workspace.path().join("copy");
    let base = CompactBase { bundle, rank: None, share: 1.0 };
    let options = CompactOptions { bundle: trained.clone(), base: Some(base), out: copy.clone() };
    compact(&options).unwrap();

    // The same numbers in one file, in place of the trained ones.
    let weights = "slm/model.safetensors";
    let sums = StoredWeights::open(&copy.join(weights)).unwrap();
    let sum = |name: &str| Ok::<_, BundleError>(sums.read(name)?.to_f32());
    let opened = Bundle::open(&trained).unwrap();
    let shapes = opened.small_model().unwrap().1.tensor_shapes();
    write_safetensors(&trained.join(weights), &shapes, WeightDtype::F32, sum).unwrap();
    write_manifest(&trained, opened.manifest().clone()).unwrap();

    let [from_two, from_one] = [copy, trained].map(|start| {
        let run = workspace.path().join(format!("from-{}", start.file_name().unwrap().to_string_lossy()));
        let config = TrainConfig { start_from: Some(start), ..longer.clone() };
        let bundle = train(&config, &run, quietly).unwrap().bundle;
        baton_bundle::verify(&bundle).unwrap();
        fs::read(bundle.join(weights)).unwrap()
    });
    assert!(from_two == from_one, "training goes on from the same numbers");
}

#[test]
fn a_public_checkpoint_becomes_the_small_model_of_an_llm() {
    let workspace = workspace();
    let config = config(workspace.path(), 150);
    let start_from = Some(workspace.path().join("llm")); // any Hugging Face directory will do
    let config = TrainConfig { slm: None, start_from, ..config };
    let report = train(&config, &workspace.path().join("run"), quietly).unwrap();
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    let slm = bundle.manifest().slm.as_ref().unwrap();
    assert_eq!((slm.bos_token.as_str(), slm.eos_token.as_str()), ("<|im_start|>", "<|im_end|>"));
    assert_reads_its_text(&bundle, "a public checkpoint");
}

#[test]
fn a_start_is_a_shape_or_a_checkpoint_and_not_both() {
    let workspace = workspace();
    let both = TrainConfig { start_from: Some(workspace.path().join("llm")), ..config(workspace.path(), 10) };
    let neither = TrainConfig { slm: None, ..config(workspace.path(), 10) };
    for config in [both, neither] {
        let error = train(&config, &workspace.path().join("run"), quietly).unwrap_err();
        assert!(matches!(error, TrainError::Config { field: "slm", .. }), "{error}");
    }
}

#[test]
fn a_projector_of_another_depth_is_trained_and_served() {
    let workspace = workspace();
    for projector_depth in [1, 3] {
        let config = TrainConfig { projector_depth, ..config(workspace.path(), 120) };
        let run = workspace.path().join(format!("run-{projector_depth}"));
        let report = train(&config, &run, quietly).unwrap();
        let losses = validation_losses(&run);
        assert!(report.best_loss < 0.7 * losses[0], "{losses:?}");
        let bundle = baton_bundle::verify(&report.bundle).unwrap();
        assert_eq!(bundle.manifest().projector.as_ref().unwrap().depth, projector_depth);
        assert!(advantage_of_right(&bundle) > 0.0, "the encoder reads {projector_depth} layers");
    }
    let config = TrainConfig { projector_depth: 0, ..config(workspace.path(), 120) };
    let error = train(&config, &workspace.path().join("refused"), quietly).unwrap_err();
    assert!(matches!(error, TrainError::Config { field: "projector_depth", .. }), "{error}");
}

#[test]
fn a_small_model_learns_from_a_mix_of_layers() {
    let workspace = workspace();
    let config = TrainConfig { llm_layer: 2, mixed_layers: vec![1], ..config(workspace.path(), 120) };
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert_eq!(bundle.manifest().projector.as_ref().unwrap().mixed_layers, [1]);
    assert_reads_its_text(&bundle, "a mix of layers");

    for mixed_layers in [vec![2], vec![0], vec![1, 1]] {
        let config = TrainConfig { mixed_layers, ..config.clone() };
        let error = train(&config, &workspace.path().join("refused"), quietly).unwrap_err();
        assert!(matches!(error, TrainError::Config { field: "mixed_layers", .. }), "{error}");
    }
}
