//! The same models on a GPU, if there is one: libtorch's operations replace the kernels, and the cache is
//! read by gathering.

use baton_bundle::PromptAttention;
use baton_decoding::{SlotId, StepRow};
use baton_model::{BatchDecoder, CacheLimits, Compute, PrefillRow, Prompt};
use tch::{Device, Kind, Tensor};

use crate::{FIXTURES, expected, hidden_states, is_encoder_decoder, model, prompts, relative_difference};

/// The arithmetic of transformers' values, on the first GPU; none, said aloud, if there is no GPU.
fn gpu_in_f32() -> Option<Compute> {
    let gpu = Compute::cuda(0).map(Compute::in_f32);
    gpu.inspect_err(|error| eprintln!("SKIPPED: {error}")).ok()
}

#[test]
fn a_gpu_reads_prompts_to_the_hidden_states_of_the_cpu() {
    let Some(gpu) = gpu_in_f32() else { return };
    let _guard = tch::no_grad_guard();
    for fixture in FIXTURES {
        let prompts = prompts(&expected(fixture));
        let [on_cpu, on_gpu] = [Compute::CPU_F32, gpu]
            .map(|compute| hidden_states(&model(fixture, None, compute), compute, &prompts));
        for (on_cpu, on_gpu) in on_cpu.iter().zip(&on_gpu) {
            let on_cpu: Vec<f64> = Vec::try_from(on_cpu.to_kind(Kind::Double).flatten(0, -1)).unwrap();
            let difference = relative_difference(&on_gpu.to_device(Device::Cpu), &on_cpu);
            assert!(difference < 1e-4, "{fixture}: {difference}");
        }
    }
}

#[test]
fn a_gpu_writes_with_the_logits_of_transformers() {
    let Some(gpu) = gpu_in_f32() else { return };
    for fixture in FIXTURES {
        let expected = expected(fixture);
        let num_rows = expected.prompts.len();
        let limits = CacheLimits { max_slots: num_rows, max_cache_tokens: num_rows * 512 };
        let visibility = match is_encoder_decoder(fixture) {
            true => PromptAttention::Bidirectional,
            false => PromptAttention::Causal,
        };
        let mut decoder = BatchDecoder::new(model(fixture, None, gpu), visibility, gpu, limits).unwrap();
        let start = decoder.special_tokens().begin_of_sequence;
        for (row, prompt) in expected.prompts.iter().enumerate() {
            let (read, fed) = match is_encoder_decoder(fixture) {
                true => (prompt.tokens.as_slice(), [&[start], prompt.forced.as_slice()].concat()),
                false => {
                    let (last, read) = prompt.tokens.split_last().unwrap();
                    (read, vec![*last])
                }
            };
            let slot = SlotId(row);
            let capacity_tokens = read.len() + fed.len();
            decoder.prefill(&[PrefillRow { slot, prompt: Prompt::Tokens(read), capacity_tokens }]);
            let steps: Vec<StepRow> = fed.iter().map(|&token| StepRow { slot, token }).collect();
            let logits = decoder.step(&steps);
            let difference =
                relative_difference(&Tensor::from_slice(logits.row(steps.len() - 1)), &prompt.logits);
            assert!(difference <= 1e-4, "{fixture}, row {row}: {difference}");
        }
    }
}
