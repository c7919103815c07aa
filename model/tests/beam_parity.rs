//! Beam search through scheduler, cache and model against Hugging Face transformers, token for token, on a
//! tiny random Llama in f32.
//!
//! The expected sequences are made by `scripts/beam_fixtures.py`, which draws the same weights and prompts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use baton_bundle::{DecoderConfig, FamilyConfig, ModelConfig, OutputRules, PromptAttention, WeightDtype};
use baton_decoding::{
    EarlyStopping, FinishedRow, Generation, GenerationOptions, GroupId, Plan, RowId, RowRequest, Scheduler,
    SchedulerLimits,
};
use baton_model::{
    BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Compute, LanguageModel, ModelParts, Prompt, PromptStates,
};
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Fixtures {
    config: Config,
    matrix_scale: f64,
    norm_scale: f64,
    prompt_lens: Vec<usize>,
    prompt_seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    tie_word_embeddings: bool,
    bos_token_id: u32,
    eos_token_id: u32,
}

#[derive(Deserialize)]
struct Case {
    prompt: usize,
    settings: Settings,
    sequences: Vec<Sequence>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    num_beams: u32,
    length_penalty: f64,
    early_stopping: serde_json::Value,
    max_new_tokens: usize,
    min_new_tokens: u32,
    stop_tokens: Vec<u32>,
    no_repeat_ngram: u32,
    repetition_penalty: f64,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    score: f32,
}

fn fixtures() -> Fixtures {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/beam.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixtures are committed"))
        .expect("as the script writes")
}

/// The generator of the script.
fn numbers(mut seed: u64, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    Tensor::from_slice(&values).view(shape.as_slice())
}

fn model(fixtures: &Fixtures) -> LanguageModel {
    let Config { bos_token_id, eos_token_id, .. } = fixtures.config;
    let from = &fixtures.config;
    let config = ModelConfig {
        hidden_size: from.hidden_size,
        intermediate_size: from.intermediate_size,
        num_hidden_layers: from.num_hidden_layers,
        num_attention_heads: from.num_attention_heads,
        num_key_value_heads: from.num_key_value_heads,
        head_dim: from.head_dim,
        vocab_size: from.vocab_size,
        max_position_embeddings: from.max_position_embeddings,
        tie_word_embeddings: from.tie_word_embeddings,
        bos_token_id: Some(bos_token_id),
        eos_token_ids: vec![eos_token_id],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(from.rms_norm_eps, from.rope_theta)),
    };
    // By name, as in the script.
    let shapes: BTreeMap<String, Vec<usize>> = config.tensor_shapes().into_iter().collect();
    let weights: BTreeMap<String, Tensor> = shapes
        .into_iter()
        .zip(0..)
        .map(|((name, shape), seed)| {
            let drawn = numbers(seed, &shape);
            let weight = match shape[..] {
                [_] => drawn * fixtures.norm_scale + 1.0,
                _ => drawn * fixtures.matrix_scale,
            };
            (name, weight)
        })
        .collect();
    let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
    LanguageModel::load(&config, &weights as &dyn baton_model::TensorSource, parts, Compute::CPU_F32)
        .expect("the weights fit the config")
}

fn prompt_states(seed: u64, prompt_len: usize, d_slm: usize) -> PromptStates {
    let states = numbers(seed, &[prompt_len, d_slm]).to_kind(Kind::BFloat16);
    let num_bytes = prompt_len * d_slm * 2;
    let mut bytes = vec![0; num_bytes];
    states.view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, num_bytes);
    PromptStates::new(prompt_len, d_slm, bytes.into()).expect("the sizes agree")
}

fn generation(settings: &Settings) -> Generation {
    let early_stopping = match &settings.early_stopping {
        serde_json::Value::Bool(false) => EarlyStopping::Heuristic,
        serde_json::Value::Bool(true) => EarlyStopping::AtOnce,
        other => {
            assert_eq!(other, "never");
            EarlyStopping::Never
        }
    };
    let options = GenerationOptions {
        beams: settings.num_beams,
        n_best: settings.num_beams,
        length_penalty: settings.length_penalty,
        early_stopping,
        min_new_tokens: settings.min_new_tokens,
        repetition_penalty: settings.repetition_penalty,
        no_repeat_ngram: settings.no_repeat_ngram,
        ..GenerationOptions::default()
    };
    let stop_tokens = settings.stop_tokens.clone();
    Generation { stop_tokens, ..Generation::new(options, settings.max_new_tokens) }
}

/// All cases at once, in a batch with this many slots, as in a decode service; results in the order of the
/// cases.
fn decode(fixtures: &Fixtures, prompts: &[PromptStates], max_slots: usize) -> Vec<FinishedRow> {
    baton_model::set_num_threads(1);
    let max_cache_tokens = 100 * CACHE_BLOCK_TOKENS;
    let cache = CacheLimits { max_slots, max_cache_tokens };
    let mut decoder = BatchDecoder::new(model(fixtures), PromptAttention::Causal, Compute::CPU_F32, cache)
        .expect("the model has its two special tokens");
    let limits = SchedulerLimits {
        max_slots,
        max_cache_tokens,
        cache_block_tokens: CACHE_BLOCK_TOKENS,
        max_prefill_tokens: 40,
    };
    let mut scheduler = Scheduler::new(limits, decoder.special_tokens());
    for (index, case) in fixtures.cases.iter().enumerate() {
        let row = RowId { group: GroupId(0), index: index as u32 };
        let prompt_len = prompts[case.prompt].prompt_len;
        let generation = Arc::new(generation(&case.settings));
        let request = RowRequest { row, prompt_len, generation, random_stream: 0 };
        scheduler.submit(request).expect("every case fits the cache");
    }
    let mut finished = Vec::new();
    let mut plan = Plan::default();
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            finished.sort_by_key(|row: &FinishedRow| row.row);
            return finished;
        }
        decoder.begin_step(&plan, |row| Prompt::States(&prompts[fixtures.cases[row.index as usize].prompt]));
        finished.extend(scheduler.absorb(decoder.step(&plan.step)));
    }
}

#[test]
fn beam_search_equals_that_of_transformers() {
    let fixtures = fixtures();
    let prompts: Vec<PromptStates> = fixtures
        .prompt_lens
        .iter()
        .zip(fixtures.prompt_seed..)
        .map(|(&prompt_len, seed)| prompt_states(seed, prompt_len, fixtures.config.hidden_size))
        .collect();
    for max_slots in [8, 64] {
        let finished = decode(&fixtures, &prompts, max_slots);
        assert_eq!(finished.len(), fixtures.cases.len());
        for (row, case) in finished.iter().zip(&fixtures.cases) {
            assert_eq!(row.outputs.len(), case.sequences.len());
            for (found, expected) in row.outputs.iter().zip(&case.sequences) {
                let context = format!("prompt {}, {:?}", case.prompt, case.settings);
                assert_eq!(found.num_tokens, expected.tokens.len(), "{context}");
                assert_eq!(found.tokens, expected.tokens[..found.tokens.len()], "{context}");
                let stop = &expected.tokens[found.tokens.len()..];
                assert!(stop.iter().all(|&token| is_stop_token(&fixtures, case, token)), "{context}");
                let difference = (found.score - expected.score).abs();
                assert!(
                    difference <= 1e-4 * expected.score.abs().max(1.0),
                    "{context}: scores differ by {difference}"
                );
            }
        }
    }
}

fn is_stop_token(fixtures: &Fixtures, case: &Case, token: u32) -> bool {
    token == fixtures.config.eos_token_id || case.settings.stop_tokens.contains(&token)
}
