//! Hidden states and logits: against transformers, alone and in company, in every format.

use baton_model::{Compute, PackedLayout};
use tch::Kind;

use crate::{
    FIXTURES, expected, hidden_states, ids, is_encoder_decoder, last_logits, model, prompts,
    relative_difference, some_positions,
};

#[test]
fn hidden_states_and_logits_equal_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES {
        let expected = expected(fixture);
        let prompts = prompts(&expected);
        for compute in [Compute::CPU_F32, Compute::CPU_F32.differentiable()] {
            let cut = hidden_states(&model(fixture, Some(expected.layer), compute), compute, &prompts);
            let logits = last_logits(&model(fixture, None, compute), compute, &expected);
            for (index, (prompt, cut)) in (0..).zip(expected.prompts.iter().zip(cut)) {
                let context = format!("{fixture}, {compute:?}, {} tokens", prompt.tokens.len());
                let difference = relative_difference(&some_positions(&cut), &prompt.hidden_states);
                assert!(difference <= 2e-5, "{context}: hidden states differ by {difference}");
                let difference = relative_difference(&logits.get(index), &prompt.logits);
                assert!(difference <= 2e-5, "{context}: logits differ by {difference}");
            }
        }
    }
}
#[test]
fn a_sequence_has_the_same_states_to_the_last_bit_alone_and_in_any_batch() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES {
        let prompts = prompts(&expected(fixture));
        for compute in [Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8] {
            let model = model(fixture, None, compute);
            let together = hidden_states(&model, compute, &prompts);
            for (prompt, together) in prompts.iter().zip(&together) {
                let alone = hidden_states(&model, compute, std::slice::from_ref(prompt));
                assert!(alone[0].equal(together), "{fixture} {compute:?}, {} tokens", prompt.len());
            }
        }
    }
}

#[test]
fn narrower_formats_are_near_to_f32() {
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES {
        let expected = expected(fixture);
        let logits = |compute: Compute| {
            last_logits(&model(fixture, None, compute), compute, &expected).to_kind(Kind::Float)
        };
        let exact = logits(Compute::CPU_F32);
        let size = exact.square().mean(Kind::Float).sqrt().double_value(&[]);
        for (compute, tolerance) in
            [(Compute::CPU_BF16, 0.04), (Compute::CPU_BF16.differentiable(), 0.04), (Compute::CPU_INT8, 0.1)]
        {
            // T5 does not scale its scores down: with random weights, a key's weight follows their rounding
            // the more.
            let tolerance = if is_encoder_decoder(fixture) { 2.0 * tolerance } else { tolerance };
            let error = (logits(compute) - &exact).square().mean(Kind::Float).sqrt().double_value(&[]);
            assert!(error <= tolerance * size, "{fixture} {compute:?}: off by {}", error / size);
        }
    }
}

#[test]
fn states_after_earlier_blocks_are_those_of_a_model_cut_there() {
    baton_model::set_num_threads(1);
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES.into_iter().filter(|fixture| !is_encoder_decoder(fixture)) {
        let compute = Compute::CPU_F32;
        let whole = model(fixture, None, compute);
        let (prompts, last) = (prompts(&expected(fixture)), whole.num_blocks());
        let layout = PackedLayout::prompts(prompts.iter().map(Vec::len));
        let embedded = || whole.embed(&ids(&prompts.concat()));
        let layers = whole.read_layers(embedded(), &layout, &[1]).chunk(2, 1);
        let cut = |blocks| model(fixture, Some(blocks), compute).read(embedded(), &layout);
        assert!(layers[0].equal(&cut(1)) && layers[1].equal(&cut(last)), "{fixture}");
    }
}
