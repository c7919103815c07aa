//! The training pass: its predictions and its gradients.

use std::collections::BTreeMap;

use baton_bundle::PromptAttention;
use baton_decoding::{SlotId, StepRow};
use baton_model::{
    BatchDecoder, CacheLimits, Compute, LanguageModel, ModelParts, PackedLayout, PrefillRow, Prompt,
    ResponsePass, TensorSource, response_cross_entropy,
};
use tch::{Kind, Tensor};

use crate::{FIXTURES, checkpoint, config, ids, model, of_writable, relative_difference};

/// All tensors of a fixture, as a trainer holds them: f32, with gradients.
fn trainable_weights(fixture: &str) -> BTreeMap<String, Tensor> {
    let checkpoint = checkpoint(fixture);
    let weights = config(fixture).tensor_shapes().into_iter().map(|(name, shape)| {
        let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
        let weight = checkpoint.tensor(&name, &shape).unwrap().to_kind(Kind::Float);
        (name, weight.set_requires_grad(true))
    });
    weights.collect()
}

fn training_loss(fixture: &str, weights: &BTreeMap<String, Tensor>) -> Tensor {
    let compute = Compute::CPU_F32.differentiable();
    let config = config(fixture);
    let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
    let model = LanguageModel::load(&config, weights, parts, compute).unwrap();
    let layout = PackedLayout::prompts_and_responses([(9, 6), (4, 30)]);
    let tokens: Vec<i64> = (0..layout.total_tokens()).map(|i| 3 + (i * 7) % 50).collect();
    let (prompts, responses) = tokens.split_at(layout.prompts_only().total_tokens() as usize);
    let prompt_states = model.embed(&Tensor::from_slice(prompts));
    let prompt_attention = PromptAttention::Bidirectional;
    let pass = ResponsePass { layout: &layout, prompt_attention, dropout: 0.0 };
    let logits = model.response_logits(prompt_states, &Tensor::from_slice(responses), pass);
    response_cross_entropy(&logits, &Tensor::from_slice(responses).roll(-1, 0), 0.0)
}

/// The training pass and the decoder that writes predict the same after each response token.
#[test]
fn a_training_pass_predicts_like_the_cached_decoder() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    let compute = Compute::CPU_F32;
    let pairs = [(9, 6), (1, 1), (20, 30)];
    for fixture in FIXTURES {
        let model = || model(fixture, None, compute);
        let layout = PackedLayout::prompts_and_responses(pairs);
        let tokens: Vec<u32> = (0..layout.total_tokens() as u32).map(|i| 3 + (i * 7) % 50).collect();
        let (prompts, responses) = tokens.split_at(layout.prompts_only().total_tokens() as usize);
        for prompt_attention in [PromptAttention::Bidirectional, PromptAttention::Causal] {
            let trained = LanguageModel::load(
                &config(fixture),
                &checkpoint(fixture),
                ModelParts { blocks: config(fixture).num_hidden_layers, lm_head: true },
                compute.differentiable(),
            )
            .unwrap();
            let pass = ResponsePass { layout: &layout, prompt_attention, dropout: 0.0 };
            let expected = trained.response_logits(trained.embed(&ids(prompts)), &ids(responses), pass);

            let limits = CacheLimits { max_slots: 1, max_cache_tokens: 128 };
            let mut decoder = BatchDecoder::new(model(), prompt_attention, compute, limits).unwrap();
            let (mut prompts, mut responses, mut row) = (prompts, responses, 0);
            for (prompt_len, response_len) in pairs {
                let prompt = prompts.split_off(..prompt_len).unwrap();
                let (slot, capacity_tokens) = (SlotId(0), prompt_len + response_len);
                decoder.prefill(&[PrefillRow { slot, prompt: Prompt::Tokens(prompt), capacity_tokens }]);
                for &token in responses.split_off(..response_len).unwrap() {
                    let logits = decoder.step(&[StepRow { slot, token }]);
                    let expected: Vec<f64> = Vec::try_from(expected.get(row).to_kind(Kind::Double)).unwrap();
                    let expected = of_writable(&config(fixture), &expected);
                    let found = of_writable(&config(fixture), logits.row(0));
                    let difference = relative_difference(&Tensor::from_slice(&found), &expected);
                    assert!(difference <= 2e-5, "{fixture} {prompt_attention:?}, row {row}: {difference}");
                    row += 1;
                }
                decoder.release(slot);
            }
        }
    }
}

#[test]
fn every_weight_of_every_family_has_the_gradient_that_a_small_step_shows() {
    for fixture in FIXTURES {
        let weights = trainable_weights(fixture);
        let loss = training_loss(fixture, &weights);
        loss.backward();
        let loss = loss.double_value(&[]);
        let norm_of_all: f64 =
            weights.values().map(|w| w.grad().square().sum(Kind::Double).double_value(&[])).sum();
        let _guard = tch::no_grad_guard();
        for (name, weight) in &weights {
            assert!(weight.grad().defined(), "{fixture}: {name} has no gradient");
            assert!(weight.grad().abs().max().double_value(&[]) > 0.0, "{fixture}: {name} has no effect");
        }
        // A small step downhill lowers the loss by the step's length times the gradient's.
        let step = 2e-4 / norm_of_all.sqrt();
        let stepped: BTreeMap<String, Tensor> =
            weights.iter().map(|(name, weight)| (name.clone(), weight - weight.grad() * step)).collect();
        let gained = loss - training_loss(fixture, &stepped).double_value(&[]);
        let promised = step * norm_of_all;
        assert!((gained / promised - 1.0).abs() < 0.05, "{fixture}: {gained} is not {promised}");
    }
}
