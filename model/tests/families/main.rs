//! Every family against Hugging Face transformers, on tiny random checkpoints as transformers writes them.
//!
//! `scripts/family_fixtures.py` makes checkpoints and expected values; `scripts/bergamot_reference.py` makes
//! those of Marian's students, which transformers does not have. `scripts/reader_fixtures.py` makes expected
//! values for weights by a formula (`formula.rs`).

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod adapters;
mod aligned;
mod decoding;
mod formula;
mod gpu;
mod hybrid;
mod memory;
mod refusals;
mod split;
mod states;
mod training;

use std::path::{Path, PathBuf};

use baton_bundle::ModelConfig;
use baton_model::{
    Checkpoint, Compute, LanguageModel, ModelParts, PackedLayout, PaddedAttention, PaddedCrossAttention,
    Visibility,
};
use serde::Deserialize;
use tch::{Kind, Tensor};

const FIXTURES: [&str; 32] = [
    "llama-untied",
    "qwen2-tied",
    "qwen2-sliding",
    "qwen3-tied",
    "qwen3-untied",
    "gemma3-tied",
    "gemma3-untied",
    "gpt2-tied",
    "gpt2-untied",
    "t5-tied",
    "t5-untied",
    "t5-tied-unscaled",
    "mt5-untied",
    "marian",
    "m2m-100",
    "bart",
    "mbart",
    "pegasus",
    "bergamot",
    "llama3-scaled",
    "mistral-sliding",
    "mistral-yarn",
    "ministral3",
    "qwen3-moe",
    "gemma2",
    "gemma3-scaled",
    "phi3-partial",
    "phi3-sliding",
    "olmo2",
    "granite",
    "smollm3",
    "umt5",
];

#[derive(Deserialize)]
struct Expected {
    layer: usize,
    max_new_tokens: usize,
    num_beams: usize,
    prompts: Vec<ExpectedPrompt>,
}

#[derive(Deserialize)]
struct ExpectedPrompt {
    /// Of a decoder-only model, the last is the begin token.
    tokens: Vec<u32>,
    /// At the first, the middle and the last position.
    hidden_states: Vec<f64>,
    /// The decoder's input after its start token, if the model has an encoder.
    #[serde(default)]
    forced: Vec<u32>,
    /// After the last token.
    logits: Vec<f64>,
    greedy: Vec<u32>,
    beams: Vec<Vec<u32>>,
}

/// A fixture's directory, with its weights: where they are a formula's, a copy that has them.
fn directory(fixture: &str) -> PathBuf {
    let committed = committed(fixture);
    if committed.join("model.safetensors").exists() { committed } else { formula::directory(fixture) }
}

fn committed(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families").join(fixture)
}

fn expected(fixture: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(committed(fixture).join("expected.json")).unwrap()).unwrap()
}

fn config(fixture: &str) -> ModelConfig {
    ModelConfig::read_checkpoint(&directory(fixture)).unwrap()
}

fn checkpoint(fixture: &str) -> Checkpoint {
    Checkpoint::open(&directory(fixture).join("model.safetensors")).unwrap()
}

/// This many first blocks, or all; with the head if all.
fn model(fixture: &str, blocks: Option<usize>, compute: Compute) -> LanguageModel {
    let config = config(fixture);
    let parts = ModelParts { blocks: blocks.unwrap_or(config.num_hidden_layers), lm_head: blocks.is_none() };
    LanguageModel::load(&config, &checkpoint(fixture), parts, compute).unwrap()
}

fn is_encoder_decoder(fixture: &str) -> bool {
    config(fixture).encoder_decoder().is_some()
}

fn ids(tokens: &[u32]) -> Tensor {
    Tensor::from_slice(&tokens.iter().map(|&token| i64::from(token)).collect::<Vec<_>>())
}

/// Hidden states of all prompts as one packed batch, by prompt.
fn hidden_states(model: &LanguageModel, compute: Compute, prompts: &[Vec<u32>]) -> Vec<Tensor> {
    let layout = PackedLayout::prompts(prompts.iter().map(Vec::len));
    let embedded = model.embed(&ids(&prompts.concat()).to_device(compute.device));
    let states = match compute.fused || !compute.is_cpu() {
        true => model.read(embedded, &layout),
        false => read_with_gradients((model, compute), embedded, &layout),
    };
    states.split_with_sizes(prompts.iter().map(|p| p.len() as i64).collect::<Vec<_>>().as_slice(), 0)
}

/// The same by the attention that training uses.
fn read_with_gradients(
    (model, compute): (&LanguageModel, Compute),
    embedded: Tensor,
    layout: &PackedLayout,
) -> Tensor {
    let attention = |visibility| PaddedAttention::new(layout, visibility, (compute.kind, compute.device));
    match model.config().encoder_decoder() {
        None => {
            let mut attention = attention(Visibility::Causal);
            model.forward(embedded, &layout.positions(), &mut attention, 0.0)
        }
        Some(_) => {
            let mut attention = attention(Visibility::Bidirectional);
            model.encode(embedded, &layout.positions(), &mut attention, 0.0)
        }
    }
}

/// Logits after the last token of each prompt, or after the decoder's input: `[prompts, vocab]`.
fn last_logits(model: &LanguageModel, compute: Compute, expected: &Expected) -> Tensor {
    let prompts = prompts(expected);
    let states = hidden_states(model, compute, &prompts);
    if model.config().encoder_decoder().is_none() {
        let last: Vec<Tensor> =
            states.iter().map(|states| states.narrow(0, states.size()[0] - 1, 1)).collect();
        return model.logits(&Tensor::cat(&last, 0));
    }
    let start = model.config().bos_token_id.unwrap();
    let fed: Vec<Vec<u32>> =
        expected.prompts.iter().map(|prompt| [&[start], prompt.forced.as_slice()].concat()).collect();
    let layout = PackedLayout::prompts_and_responses(
        prompts.iter().zip(&fed).map(|(prompt, fed)| (prompt.len(), fed.len())),
    );
    let keys_and_values = model.prompt_keys_and_values(&Tensor::cat(&states, 0));
    let mut attention = PaddedCrossAttention::new(&layout, keys_and_values, (compute.kind, compute.device));
    let positions = layout.responses_only().positions();
    let decoded = model.decode(model.embed_written(&ids(&fed.concat())), &positions, &mut attention, 0.0);
    let mut end = 0;
    let last_rows: Vec<i64> = fed
        .iter()
        .map(|fed| {
            end += fed.len() as i64;
            end - 1
        })
        .collect();
    model.logits(&decoded.index_select(0, &Tensor::from_slice(&last_rows)))
}

/// The first, the middle and the last of `[length, d]`.
fn some_positions(states: &Tensor) -> Tensor {
    let len = states.size()[0];
    states.index_select(0, &Tensor::from_slice(&[0, len / 2, len - 1]))
}

fn prompts(expected: &Expected) -> Vec<Vec<u32>> {
    expected.prompts.iter().map(|prompt| prompt.tokens.clone()).collect()
}

/// Logits, `[vocab]`, of the tokens that the model may write.
fn of_writable<T: Copy>(config: &ModelConfig, logits: &[T]) -> Vec<T> {
    let suppressed = &config.output_rules.suppressed_token_ids;
    let with_ids = logits.iter().zip(0..).filter(|(_, id)| !suppressed.contains(id));
    with_ids.map(|(logit, _)| *logit).collect()
}

/// The largest difference as a share of the largest expected value.
fn relative_difference(found: &Tensor, expected: &[f64]) -> f64 {
    let expected = Tensor::from_slice(expected);
    let difference = (found.flatten(0, -1).to_kind(Kind::Double) - &expected).abs().max();
    difference.double_value(&[]) / expected.abs().max().double_value(&[])
}
