//! The trainer end to end, on a tiny random LLM and a task that a tiny model can learn.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod distillation;
mod llm;
mod own_tokens;
mod starts;
mod states;
mod workspace;

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use baton_bundle::{Bundle, Family, Fusion, PromptAttention, TextTokenizer};
use baton_decoding::{SlotId, StepRow};
use baton_model::{BatchDecoder, CacheLimits, Compute, PrefillRow, Prompt, PromptEncoder};
use baton_trainer::{Reads, TrainConfig, TrainError, TrainEvent, train};

use self::workspace::{
    COLOURS, config, copy_directory, quietly, shape, validation_losses, workspace, write_tiny_llm,
    write_tiny_t5,
};

#[test]
fn the_validation_loss_falls_on_a_task_that_can_be_learned_in_every_pairing() {
    let workspace = workspace();
    for (reads, fusion, prompt_attention) in [
        (Reads::Hybrid, Fusion::Add, PromptAttention::Bidirectional),
        (Reads::Hybrid, Fusion::Replace, PromptAttention::Causal),
        (Reads::Slm, Fusion::Add, PromptAttention::Bidirectional),
    ] {
        let config = TrainConfig { reads, fusion, prompt_attention, ..config(workspace.path(), 200) };
        let run = workspace.path().join(format!("run-{reads:?}-{fusion:?}"));
        let report = train(&config, &run, quietly).unwrap();
        let losses = validation_losses(&run);
        assert!(report.best_loss < 0.5 * losses[0], "{reads:?} {fusion:?}: {losses:?}");
        baton_bundle::verify(&report.bundle).unwrap();
    }
}

#[test]
fn small_models_of_every_family_learn_the_texts() {
    let workspace = workspace();
    for (family, fusion) in
        [(Family::Qwen2, Fusion::Replace), (Family::Gpt2, Fusion::Add), (Family::T5, Fusion::Add)]
    {
        let mut config = TrainConfig { fusion, ..config(workspace.path(), 250) };
        shape(&mut config).family = family;
        shape(&mut config).kv_heads = if family == Family::Qwen2 { 2 } else { 4 };
        let run = workspace.path().join(format!("run-{family:?}"));
        let report = train(&config, &run, quietly).unwrap();
        let losses = validation_losses(&run);
        assert!(report.best_loss < 0.5 * losses[0], "{family:?}: {losses:?}");
        let bundle = baton_bundle::verify(&report.bundle).unwrap();
        assert_eq!(bundle.small_model().unwrap().1.family(), family);
        assert_reads_its_text(&bundle, &format!("{family:?}"));
    }
}

#[test]
fn a_small_model_learns_from_the_states_of_an_encoder() {
    let workspace = workspace();
    write_tiny_t5(&workspace.path().join("llm"));
    let early = TrainConfig { llm_layer: 1, ..config(workspace.path(), 400) };
    let error = train(&early, &workspace.path().join("run"), quietly).unwrap_err();
    assert!(error.to_string().contains("llm_layer = 1: an encoder is read after its last layer"), "{error}");

    let run = workspace.path().join("run");
    let config = TrainConfig { llm_layer: 2, fusion: Fusion::Replace, ..early };
    let report = train(&config, &run, quietly).unwrap();
    let losses = validation_losses(&run);
    assert!(report.best_loss < 0.5 * losses[0], "{losses:?}");
    let bundle = baton_bundle::verify(&report.bundle).unwrap();
    assert_eq!(bundle.llm().unwrap().0.family, Family::T5);
    assert_reads_its_text(&bundle, "states of an encoder");
}

/// A bundle's models, as served, find the right translation of a colour more likely than another colour's.
fn assert_reads_its_text(bundle: &Bundle, what: &str) {
    let advantage = advantage_of_right(bundle);
    assert!(advantage > LEARNED_NATS, "{what}: the right translations are ahead by {advantage:.2} nats");
}

/// How far translations must be ahead to count as learned. These models are ahead by five times as much or
/// more, on every CPU. Which token is the likeliest after training is another matter: rounding may decide
/// that.
const LEARNED_NATS: f64 = 0.5;

/// `advantage` of a bundle's small model with its LLM.
fn advantage_of_right(bundle: &Bundle) -> f64 {
    let compute = Compute::CPU_BF16;
    let mode = bundle.manifest().modes[0];
    let reader = bundle.prompt_reader(mode, None).unwrap();
    let encoder = PromptEncoder::load(bundle, &[mode], compute).unwrap();
    let limits = CacheLimits { max_slots: 1, max_cache_tokens: 80 };
    let mut decoder = BatchDecoder::load(bundle, compute, limits).unwrap();
    advantage(&bundle.text_tokenizer(mode).unwrap(), |source, answer| {
        let reading = reader.read(source).unwrap();
        let states = encoder.encode(mode, &[reading]).swap_remove(0).swap_remove(0);
        log_probability(&mut decoder, Prompt::States(&states), answer)
    })
}

/// By how many nats the right translations of the colours are likelier than the other colours', on average.
/// A model that does not look at its prompt has 0.
fn advantage(output_tokenizer: &TextTokenizer, mut log_probability: impl FnMut(&str, &[u32]) -> f64) -> f64 {
    let answers = COLOURS.map(|(_, target)| output_tokenizer.encode(target).unwrap());
    let num_colours = COLOURS.len() as f64;
    let mut ahead = 0.0;
    for (colour, (source, _)) in COLOURS.iter().enumerate() {
        for (other, answer) in answers.iter().enumerate() {
            let weight = if other == colour { 1.0 } else { -1.0 / (num_colours - 1.0) };
            ahead += weight * log_probability(source, answer);
        }
    }
    ahead / num_colours
}

/// The log-probability that a model writes `answer` and ends, in nats.
fn log_probability(decoder: &mut BatchDecoder, prompt: Prompt<'_>, answer: &[u32]) -> f64 {
    let slot = SlotId(0);
    decoder.prefill(&[PrefillRow { slot, prompt, capacity_tokens: prompt.len() + answer.len() + 1 }]);
    let special = decoder.special_tokens();
    let (mut token, mut sum) = (special.begin_of_sequence, 0.0);
    for &next in answer.iter().chain([&special.end_of_sequence]) {
        let logits: Vec<f64> =
            decoder.step(&[StepRow { slot, token }]).row(0).iter().map(|&logit| f64::from(logit)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
        sum += logits[next as usize] - max - total.ln();
        token = next;
    }
    decoder.release(slot);
    sum
}

#[test]
fn a_family_that_cannot_learn_and_a_shape_that_it_cannot_have_are_refused() {
    let workspace = workspace();
    type Spoil = fn(&mut TrainConfig);
    let cases: [(Spoil, &str); 3] = [
        (|c| shape(c).family = Family::Gemma3, "slm.family = gemma3_text: must be llama, qwen2, gpt2 or t5"),
        (|c| shape(c).family = Family::Gpt2, "slm.kv_heads = 2: must be slm.heads in this family"),
        (
            |c| {
                shape(c).family = Family::T5;
                shape(c).kv_heads = shape(c).heads;
                c.prompt_attention = PromptAttention::Causal;
            },
            "prompt_attention = causal: must be bidirectional",
        ),
    ];
    for (spoil, message) in cases {
        let mut config = config(workspace.path(), 5);
        spoil(&mut config);
        let error = train(&config, &workspace.path().join("run"), quietly).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// The bundles of an undisturbed run and of a resumed one, and the step after which the latter resumes. The
/// resumed run starts from a copy of the directory, taken at the validation after step 20, as a kill would
/// leave it.
fn undisturbed_and_resumed(config: &TrainConfig, [whole, killed]: [&Path; 2]) -> ([PathBuf; 2], usize) {
    let mut copied = false;
    let undisturbed = train(config, whole, |event| {
        if matches!(event, TrainEvent::Validation { step: 20, .. }) {
            copy_directory(whole, killed);
            copied = true;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(copied);
    let mut resumed_after = None;
    let resumed = train(config, killed, |event| {
        if let TrainEvent::Resumed { step } = event {
            resumed_after = Some(*step);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    ([undisturbed.bundle, resumed.bundle], resumed_after.expect("the copy must go on, not begin anew"))
}

#[test]
fn a_run_killed_and_started_again_ends_with_the_same_bundle() {
    let workspace = workspace();
    let config = config(workspace.path(), 40);
    let (whole, killed) = (workspace.path().join("whole"), workspace.path().join("killed"));
    let ([undisturbed, resumed], resumed_after) = undisturbed_and_resumed(&config, [&whole, &killed]);
    assert!(resumed_after > 0, "the copy must go on, not begin anew");
    for file in ["slm/model.safetensors", "projector/model.safetensors", "slm/tokenizer.json"] {
        assert_eq!(
            fs::read(undisturbed.join(file)).unwrap(),
            fs::read(resumed.join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn a_stopped_run_continues_where_it_stopped() {
    let workspace = workspace();
    let config = config(workspace.path(), 40);
    let run = workspace.path().join("run");
    let stopped = train(&config, &run, |event| match event {
        TrainEvent::Validation { step: 20, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(TrainError::Stopped { step: 20, .. })), "{stopped:?}");
    let mut resumed_after = None;
    train(&config, &run, |event| {
        if let TrainEvent::Resumed { step } = event {
            resumed_after = Some(*step);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(resumed_after, Some(20));
}

#[test]
fn a_directory_of_a_run_with_other_settings_is_refused_with_the_difference_named() {
    let workspace = workspace();
    let run = workspace.path().join("run");
    train(&config(workspace.path(), 5), &run, quietly).unwrap();
    let error = train(&config(workspace.path(), 6), &run, quietly).unwrap_err();
    assert!(error.to_string().contains("hyperparameters.steps was 5, is now 6"), "{error}");
}

#[test]
fn a_run_that_cannot_read_its_inputs_leaves_nothing_behind() {
    let workspace = workspace();
    let run = workspace.path().join("run");
    let mut config = config(workspace.path(), 5);
    for (break_it, message) in [
        ((|c| c.llm = "nowhere".into()) as fn(&mut TrainConfig), "nowhere"),
        (|c| c.train = "missing.jsonl".into(), "missing.jsonl"),
        (|c| c.llm_layer = 3, "the LLM has layers 1 to 2"),
    ] {
        let mut broken = config.clone();
        break_it(&mut broken);
        let error = train(&broken, &run, quietly).unwrap_err();
        assert!(format!("{error:?} {error}").contains(message), "{error}");
        assert!(!run.exists());
    }
    config.hyperparameters.steps = 1;
    train(&config, &run, quietly).unwrap();
}

#[test]
fn a_directory_with_foreign_files_is_refused() {
    let workspace = workspace();
    let error = train(&config(workspace.path(), 5), workspace.path(), quietly).unwrap_err();
    assert!(error.to_string().contains("holds no training run"), "{error}");
    assert!(!workspace.path().join("states").exists());
}

#[test]
fn an_unusable_line_is_named_by_file_and_line() {
    let workspace = workspace();
    let path = workspace.path().join("train.jsonl");
    for (line, problem) in [
        ("{\"source\": \"red\"", "not JSON"),
        ("{\"source\": \"red\"}", "`target` is missing"),
        ("{\"source\": \" \", \"target\": \"rosso\"}", "`source` is empty"),
    ] {
        fs::write(&path, format!("{{\"source\": \"red\", \"target\": \"rosso\"}}\n{line}\n")).unwrap();
        let error = train(&config(workspace.path(), 5), &workspace.path().join("run"), quietly).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("train.jsonl:2:") && message.contains(problem), "{message}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_named() {
    let workspace = workspace();
    let mut config = config(workspace.path(), 5);
    shape(&mut config).kv_heads = 3;
    let error = train(&config, &workspace.path().join("run"), quietly).unwrap_err();
    assert!(error.to_string().contains("slm.kv_heads = 3: must divide slm.heads"), "{error}");
}

#[test]
fn an_exported_bundle_opens_and_holds_the_training_record() {
    let workspace = workspace();
    let report = train(&config(workspace.path(), 5), &workspace.path().join("run"), quietly).unwrap();
    let bundle = Bundle::open(&report.bundle).unwrap();
    assert_eq!(bundle.manifest().name, "colours");
    assert_eq!(bundle.manifest().training["hyperparameters"]["seed"], 3);
    assert_eq!(bundle.manifest().training["pairs"], 300);
}
