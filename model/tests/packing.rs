//! Packed batches: attention against a plain reference, and the promise that sequences do not see each other.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::collections::BTreeMap;

use baton_bundle::{DecoderConfig, FamilyConfig, ModelConfig, OutputRules, WeightDtype};
use baton_model::{
    Attention, Compute, Heads, LanguageModel, ModelParts, PackedAttention, PackedLayout, PaddedAttention,
    Scoring, Visibility,
};
use tch::{Device, Kind, Tensor};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const VISIBILITIES: [Visibility; 3] = [Visibility::Causal, Visibility::Bidirectional, Visibility::PrefixLm];

/// (prompt, response) lengths; neighbours of one shape, a lone token, and unequal ones.
const LENS: [(usize, usize); 6] = [(3, 4), (3, 4), (1, 0), (7, 1), (2, 9), (16, 3)];

/// Softmax attention as the formula says it, in f64, one query at a time.
fn reference(
    layout: &[(usize, usize)],
    visibility: Visibility,
    Heads { q, k, v, scoring, .. }: Heads<'_>,
) -> Vec<f64> {
    let values = |t: &Tensor| Vec::<f64>::try_from(t.flatten(0, -1).to_kind(Kind::Double)).unwrap();
    let (q, k, v) = (values(q), values(k), values(v));
    let at = |row: usize, heads: usize, head: usize| (row * heads + head) * HEAD_DIM;
    let mut out = vec![0.0; q.len()];
    let mut first = 0;
    for &(prompt, response) in layout {
        let len = prompt + response;
        for query in 0..len {
            let near = |key: usize| scoring.window.is_none_or(|window| key.abs_diff(query) < window);
            let visible = |key: usize| match visibility {
                Visibility::Causal => near(key) && key <= query,
                Visibility::Bidirectional => near(key),
                Visibility::PrefixLm => near(key) && (key < prompt || key <= query),
            };
            for head in 0..HEADS {
                let kv_head = head / (HEADS / KV_HEADS);
                let keys: Vec<usize> = (0..len).filter(|&key| visible(key)).collect();
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|&key| {
                        let (a, b) = (at(first + query, HEADS, head), at(first + key, KV_HEADS, kv_head));
                        let dot: f64 = (0..HEAD_DIM).map(|i| q[a + i] * k[b + i]).sum();
                        let score = dot * f64::from(scoring.scale);
                        let cap = scoring.cap.map(f64::from);
                        cap.map_or(score, |cap| cap * (score / cap).tanh()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                for (&key, score) in keys.iter().zip(&scores) {
                    let (a, b) = (at(first + query, HEADS, head), at(first + key, KV_HEADS, kv_head));
                    for i in 0..HEAD_DIM {
                        out[a + i] += score / total * v[b + i];
                    }
                }
            }
        }
        first += len;
    }
    out
}

#[test]
fn packed_and_padded_attention_equal_the_formula_for_every_visibility_and_window() {
    baton_model::set_num_threads(1);
    tch::manual_seed(5);
    let layout = PackedLayout::prompts_and_responses(LENS);
    let rows = layout.total_tokens();
    let random =
        |heads: usize| Tensor::randn([rows, heads as i64, HEAD_DIM as i64], (Kind::Float, Device::Cpu));
    let (q, k, v) = (random(HEADS), random(KV_HEADS), random(KV_HEADS));
    let like = (Kind::Float, Device::Cpu);
    for visibility in VISIBILITIES {
        let mut packed = PackedAttention::new(&layout, visibility, like);
        let mut padded = PaddedAttention::new(&layout, visibility, like);
        for scoring in [
            Scoring::of_heads(HEAD_DIM),
            Scoring { scale: 0.5, window: Some(4), cap: Some(0.8) },
            Scoring { scale: 0.5, window: Some(1), cap: None },
        ] {
            let heads = Heads { q: &q, k: &k, v: &v, scoring, bias: None };
            let expected = Tensor::from_slice(&reference(&LENS, visibility, heads));
            for attended in [packed.attend(0, heads), padded.attend(0, heads)].map(Option::unwrap) {
                let difference = (attended.flatten(0, -1).to_kind(Kind::Double) - &expected).abs().max();
                assert!(difference.double_value(&[]) < 1e-5, "{visibility:?} {scoring:?}: {difference:?}");
            }
        }
    }
}

fn small_llama(compute: Compute) -> LanguageModel {
    let config = ModelConfig {
        hidden_size: HEADS * HEAD_DIM,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: HEADS,
        num_key_value_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        vocab_size: 100,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_ids: vec![0],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
    };
    tch::manual_seed(11);
    let tensors: BTreeMap<String, Tensor> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| {
            let shape: Vec<i64> = shape.into_iter().map(|d| d as i64).collect();
            (name, Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.3)
        })
        .collect();
    LanguageModel::load(&config, &tensors, ModelParts { blocks: 3, lm_head: true }, compute).unwrap()
}

fn hidden_states(llama: &LanguageModel, compute: Compute, sequences: &[Vec<i64>]) -> Vec<Tensor> {
    let layout = PackedLayout::prompts(sequences.iter().map(Vec::len));
    let mut attention = PackedAttention::new(&layout, Visibility::Causal, (compute.kind, compute.device));
    let x = llama.embed(&Tensor::from_slice(&sequences.concat()));
    let states = llama.forward(x, &layout.positions(), &mut attention, 0.0);
    let lens: Vec<i64> = sequences.iter().map(|s| s.len() as i64).collect();
    states.split_with_sizes(lens, 0)
}

#[test]
fn a_sequence_has_the_same_states_to_the_last_bit_alone_and_in_any_batch() {
    baton_model::set_num_threads(1); // the promise holds for one libtorch thread
    let _guard = tch::no_grad_guard();
    let sequences: Vec<Vec<i64>> =
        (0..60).map(|i| (0..1 + (i * 7) % 23).map(|j| (i * 31 + j * 17) % 100).collect()).collect();
    for compute in [Compute::CPU_F32, Compute::CPU_BF16] {
        let llama = small_llama(compute);
        let together = hidden_states(&llama, compute, &sequences);
        for batch_size in [1, 2, 3, 7, 32] {
            for (batch, expected) in sequences.chunks(batch_size).zip(together.chunks(batch_size)) {
                for (found, expected) in hidden_states(&llama, compute, batch).iter().zip(expected) {
                    assert!(found.equal(expected), "{compute:?}, {batch_size} sequences at once");
                    assert!(
                        llama.logits(&found.narrow(0, 0, 1)).equal(&llama.logits(expected).narrow(0, 0, 1))
                    );
                }
            }
        }
    }
}
