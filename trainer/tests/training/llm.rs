//! Fine-tuning of the LLM: whole, by an adapter, refusals; and a small model with a fine-tuned LLM.

use std::{fs, path::Path};

use baton_bundle::{Bundle, LlmAdapter, write_manifest};
use baton_job::Mode;
use baton_model::{BatchDecoder, CacheLimits, Compute, Prompt, PromptEncoder};
use baton_trainer::{LlmTraining, LoraTargets, TrainConfig, TrainError, train};

use crate::{
    LEARNED_NATS, advantage, assert_reads_its_text, config, log_probability, quietly, states::children,
    undisturbed_and_resumed, validation_losses, workspace,
};

fn lora(rank: usize, targets: &[&str]) -> Option<LoraTargets> {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    Some(LoraTargets { rank, alpha: 2.0 * rank as f64, targets })
}

/// The whole LLM learns, unless there is an adapter.
fn llm_config(workspace: &Path, steps: usize, lora: Option<LoraTargets>) -> TrainConfig {
    let training = LlmTraining {
        prompt_end: "<|im_start|>".into(),
        eos_token: "<|im_end|>".into(),
        max_new_tokens: 32,
        whole: lora.is_none(),
        lora,
        hyperparameters: None,
    };
    let mut config = TrainConfig { llm_training: Some(training), ..config(workspace, steps) };
    config.hyperparameters.dropout = 0.0;
    config.hyperparameters.label_smoothing = 0.0;
    config.for_llm().unwrap()
}

/// A bundle's LLM finds the right translation of a colour likelier than another colour's.
fn assert_llm_reads_its_text(bundle: &Bundle, what: &str) {
    let limits = CacheLimits { max_slots: 1, max_cache_tokens: 80 };
    let tokenizer = bundle.prompt_tokenizer(None).unwrap();
    let prompt_end = bundle.prompt_end_ids().unwrap();
    let mut llm = BatchDecoder::load_llm(bundle, Compute::fastest_float_cpu(), limits).unwrap();
    let ahead = advantage(&bundle.text_tokenizer(Mode::Llm).unwrap(), |source, answer| {
        let mut prompt = tokenizer.encode(source).unwrap();
        prompt.extend(&prompt_end[..prompt_end.len() - 1]);
        log_probability(&mut llm, Prompt::Tokens(&prompt), answer)
    });
    assert!(ahead > LEARNED_NATS, "{what}: the right translations are ahead by {ahead:.2} nats");
}

#[test]
fn an_llm_learns_the_texts_as_a_whole_or_by_an_adapter() {
    let workspace = workspace();
    let everywhere = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    for (name, steps, lora) in [("whole", 200, None), ("lora", 400, lora(16, &everywhere))] {
        let config = llm_config(workspace.path(), steps, lora);
        let run = workspace.path().join(name);
        let report = train(&config, &run, quietly).unwrap();
        let losses = validation_losses(&run);
        assert!(report.best_loss < 0.3 * losses[0], "{name}: {losses:?}");
        let bundle = baton_bundle::verify(&report.bundle).unwrap();
        assert_eq!(bundle.manifest().modes, [Mode::Llm]);
        assert_eq!(bundle.adapter().unwrap().is_some(), name == "lora");
        assert_eq!(bundle.path("llm").symlink_metadata().unwrap().is_symlink(), name == "lora");
        assert_llm_reads_its_text(&bundle, name);
    }
}

#[test]
fn an_encoder_decoder_learns_by_an_adapter() {
    let workspace = workspace();
    crate::write_tiny_t5(&workspace.path().join("llm"));
    let mut config = llm_config(workspace.path(), 200, lora(16, &["q", "k", "v", "o", "wi", "wo"]));
    let training = config.llm_training.as_mut().unwrap();
    training.prompt_end = "<|im_end|>".into();
    let error = train(&config, &workspace.path().join("run"), quietly).unwrap_err();
    assert!(error.to_string().contains("a decoder behind an encoder starts with"), "{error}");

    config.llm_training.as_mut().unwrap().prompt_end = "<|im_end|><|im_start|>".into();
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert_llm_reads_its_text(&bundle, "an encoder-decoder");
}

#[test]
fn an_adapter_that_has_not_learned_yet_changes_nothing() {
    let workspace = workspace();
    let first_loss = |name: &str, lora| {
        let mut config = llm_config(workspace.path(), 1, lora);
        config.hyperparameters.learning_rate = 1e-12;
        train(&config, &workspace.path().join(name), quietly).unwrap().best_loss
    };
    let (whole, adapted) = (first_loss("whole", None), first_loss("lora", lora(4, &["q_proj"])));
    assert!((whole - adapted).abs() < 1e-6, "{whole} {adapted}");
}

#[test]
fn fine_tuning_killed_and_started_again_ends_with_the_same_files() {
    let workspace = workspace();
    for (name, lora, file) in [
        ("whole", None, "llm/model.safetensors"),
        ("lora", lora(4, &["q_proj", "down_proj"]), "adapter/adapter_model.safetensors"),
    ] {
        let config = llm_config(workspace.path(), 30, lora);
        let [whole, killed] = ["whole", "killed"].map(|run| workspace.path().join(format!("{name}-{run}")));
        let ([undisturbed, resumed], resumed_after) = undisturbed_and_resumed(&config, [&whole, &killed]);
        assert!((1..30).contains(&resumed_after), "{resumed_after:?}");
        let bytes = |bundle: &Path| fs::read(bundle.join(file)).unwrap();
        assert!(bytes(&undisturbed) == bytes(&resumed), "{name}: other weights");
    }
}

#[test]
fn targets_without_a_layer_are_refused_with_the_possible_ones() {
    let workspace = workspace();
    let training = |config: &mut TrainConfig| config.llm_training.clone().unwrap();
    type Spoil = fn(&mut LlmTraining);
    let cases: [(Spoil, &str); 7] = [
        (
            |t| t.lora = lora(4, &["q_proj", "query"]),
            "llm_training.lora.targets = \"query\": the LLM has no such linear layer; there are: down_proj, \
             gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (|t| t.lora = lora(4, &["embed_tokens"]), "no such linear layer"),
        (|t| t.lora = lora(4, &[]), "llm_training.lora.targets = []: must name a layer"),
        (|t| t.lora = lora(0, &["q_proj"]), "llm_training.lora.rank = 0: must be at least 1"),
        (|t| t.whole = true, "give one of the two: whole = true, or lora"),
        (|t| t.eos_token = "<end>".into(), "has no token `<end>`"),
        (|t| t.max_new_tokens = 0, "llm_training.max_new_tokens = 0: must be at least 1"),
    ];
    for (spoil, message) in cases {
        let mut config = llm_config(workspace.path(), 5, lora(4, &["q_proj"]));
        let mut spoiled = training(&mut config);
        spoil(&mut spoiled);
        config.llm_training = Some(spoiled);
        let run = workspace.path().join("run");
        let error = train(&config, &run, quietly).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(!run.exists());
    }
    let missing = config(workspace.path(), 5).for_llm().unwrap_err();
    assert!(matches!(missing, TrainError::Config { field: "llm_training", .. }), "{missing}");
}

#[test]
fn a_layer_can_be_named_in_one_block_alone() {
    let workspace = workspace();
    let config = llm_config(workspace.path(), 1, lora(2, &["layers.1.self_attn.q_proj"]));
    let bundle =
        Bundle::open(&train(&config, &workspace.path().join("run"), quietly).unwrap().bundle).unwrap();
    let adapter = bundle.adapter().unwrap().unwrap();
    assert_eq!(adapter.layers().keys().collect::<Vec<_>>(), ["model.layers.1.self_attn.q_proj.weight"]);
}

#[test]
fn a_small_model_can_learn_from_the_states_of_a_fine_tuned_llm() {
    let workspace = workspace();
    let tuned = llm_config(workspace.path(), 60, lora(8, &["q_proj", "down_proj"]));
    let tuned = train(&tuned, &workspace.path().join("tuned"), quietly).unwrap().bundle;
    let config = TrainConfig { llm_adapter: Some(tuned.join("adapter")), ..config(workspace.path(), 150) };
    let run = workspace.path().join("run");
    let report = train(&config, &run, quietly).unwrap();
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert_eq!(bundle.llm().unwrap().0.adapter, Some(LlmAdapter { hybrid_reads_it: true }));
    assert_reads_its_text(&bundle, "states of a fine-tuned LLM");

    // The reader uses the adapted LLM only if the bundle says so.
    let reading = bundle.prompt_reader(Mode::Hybrid, None).unwrap().read("green red").unwrap();
    let states = |adapter: Option<LlmAdapter>| {
        let mut manifest = bundle.manifest().clone();
        manifest.llm.as_mut().unwrap().adapter = adapter;
        let bundle = write_manifest(&report.bundle, manifest).unwrap();
        let encoder = PromptEncoder::load(&bundle, &[Mode::Hybrid], Compute::CPU_F32).unwrap();
        encoder.encode(Mode::Hybrid, std::slice::from_ref(&reading)).swap_remove(0).swap_remove(0).data
    };
    let without = states(None);
    assert!(states(Some(LlmAdapter { hybrid_reads_it: false })) == without);
    assert!(states(Some(LlmAdapter { hybrid_reads_it: true })) != without);

    // Its LLM can write, too: by the same adapter.
    let added = baton_bundle::AddedLlm::Of(tuned);
    baton_bundle::add_llm(&report.bundle, &added, false).unwrap();
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert_eq!(bundle.llm().unwrap().0.adapter, Some(LlmAdapter { hybrid_reads_it: true }));
    assert_eq!(bundle.manifest().modes, [Mode::Hybrid, Mode::Llm]);

    let directory_of_states =
        |run: &Path| children(&run.join("states")).swap_remove(0).file_name().unwrap().to_owned();
    let plain = crate::config(workspace.path(), 1);
    let other = workspace.path().join("other");
    train(&plain, &other, quietly).unwrap();
    assert_ne!(directory_of_states(&run), directory_of_states(&other), "each LLM's are kept apart");
}
