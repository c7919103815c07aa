//! SmolLM2-135M-Instruct in libtorch against Hugging Face transformers on the same weights, in f32.
//!
//! The expected values are made by `scripts/parity_fixtures.py`. The large model is found by the environment
//! variable `BATON_LLM_DIR`, which `make test` sets.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::path::{Path, PathBuf};

use baton_bundle::ModelConfig;
use baton_model::{
    Checkpoint, Compute, LanguageModel, ModelParts, PackedAttention, PackedLayout, Visibility,
};
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Fixtures {
    hidden_states_layer: usize,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    prompt_ids: Vec<i64>,
    greedy_ids: Vec<i64>,
    top_logits: Vec<(i64, f64)>,
    hidden_states: Vec<HiddenStateSample>,
}

#[derive(Deserialize)]
struct HiddenStateSample {
    position: i64,
    values: Vec<f64>,
    norm: f64,
}

fn fixtures() -> Fixtures {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/smollm2.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn llm_directory() -> PathBuf {
    std::env::var_os("BATON_LLM_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.join("model.safetensors").exists())
        .expect(
            "BATON_LLM_DIR must name the imported SmolLM2-135M-Instruct: run `make test`, which fetches \
                 it and sets it",
        )
}

fn llm(blocks: Option<usize>, lm_head: bool) -> LanguageModel {
    let directory = llm_directory();
    let config = ModelConfig::read(&directory.join("config.json")).unwrap();
    let parts = ModelParts { blocks: blocks.unwrap_or(config.num_hidden_layers), lm_head };
    let checkpoint = Checkpoint::open(&directory.join("model.safetensors")).unwrap();
    LanguageModel::load(&config, &checkpoint, parts, Compute::CPU_F32).unwrap()
}

/// Hidden states of several token sequences as one packed batch, `[total_tokens, d]`.
fn forward(llm: &LanguageModel, sequences: &[Vec<i64>]) -> Tensor {
    let layout = PackedLayout::prompts(sequences.iter().map(Vec::len));
    let mut attention = PackedAttention::new(&layout, Visibility::Causal, (Kind::Float, tch::Device::Cpu));
    let embedded = llm.embed(&Tensor::from_slice(&sequences.concat()));
    llm.forward(embedded, &layout.positions(), &mut attention, 0.0)
}

/// Every continuation token that transformers chose must be the arg-max of ours after the same prefix. By
/// induction, greedy decoding then writes the same 64 tokens.
#[test]
fn greedy_tokens_and_logits_equal_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    let llm = llm(None, true);
    let prompts = fixtures().prompts;
    assert_eq!(prompts.len(), 50);
    for batch in prompts.chunks(10) {
        let sequences: Vec<Vec<i64>> = batch
            .iter()
            .map(|p| [p.prompt_ids.as_slice(), &p.greedy_ids[..p.greedy_ids.len() - 1]].concat())
            .collect();
        let states = forward(&llm, &sequences);
        let mut first_row = 0;
        for (prompt, sequence) in batch.iter().zip(&sequences) {
            let last_of_prompt = first_row + prompt.prompt_ids.len() as i64 - 1;
            let rows = states.narrow(0, last_of_prompt, prompt.greedy_ids.len() as i64);
            let logits = llm.logits(&rows);
            let chosen = Vec::<i64>::try_from(logits.argmax(-1, false)).unwrap();
            assert_eq!(chosen, prompt.greedy_ids, "{:?}", prompt.text);
            for &(token, expected) in &prompt.top_logits {
                let found = logits.double_value(&[0, token]);
                assert!(
                    (found - expected).abs() <= 2e-3 + 1e-4 * expected.abs(),
                    "logit {token}: {found}, {expected}"
                );
            }
            first_row += sequence.len() as i64;
        }
    }
}

#[test]
fn hidden_states_of_a_model_cut_at_a_layer_equal_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    let fixtures = fixtures();
    let llm = llm(Some(fixtures.hidden_states_layer), false);
    for prompt in &fixtures.prompts {
        let states = forward(&llm, std::slice::from_ref(&prompt.prompt_ids));
        for sample in &prompt.hidden_states {
            let row = states.get(sample.position);
            let norm = row.norm().double_value(&[]);
            assert!((norm - sample.norm).abs() <= 1e-4 * sample.norm, "norm {norm}, {}", sample.norm);
            // The tolerance is relative to the row's size, because a few of its values are thousands of times
            // larger than the others.
            let tolerance = 1e-4 * sample.norm;
            for (column, expected) in sample.values.iter().enumerate() {
                let found = row.double_value(&[column as i64]);
                assert!((found - expected).abs() <= tolerance, "{found}, {expected}");
            }
        }
    }
}
