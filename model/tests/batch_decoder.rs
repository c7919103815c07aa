//! The small model with its cache, its kernel and the scheduler, against itself: alone, in company, and
//! without a cache.

use std::{collections::BTreeMap, sync::Arc};

use baton_bundle::{DecoderConfig, FamilyConfig, ModelConfig, OutputRules, PromptAttention, WeightDtype};
use baton_decoding::{
    Candidates, FinishedSequence, Fork, Generation, GroupId, Plan, RowId, RowRequest, Scheduler,
    SchedulerLimits, SlotAssignment, SlotId, StepRow,
};
use baton_model::{
    BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Compute, LanguageModel, ModelError, ModelParts,
    PackedAttention, PackedLayout, PrefillRow, Prompt, PromptStates, TensorSource, Visibility,
};
use tch::{Kind, Tensor};

const BOS: u32 = 1;
const EOS: u32 = 2;
const ALL_KINDS: [Compute; 3] = [Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8];

/// Small, but not so small that libtorch takes another path for one row: products of up to 4096
/// multiplications bypass its bf16 kernels.
fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 72,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 12,
        vocab_size: 200,
        max_position_embeddings: 512,
        tie_word_embeddings: false,
        bos_token_id: Some(BOS),
        eos_token_ids: vec![EOS],
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
    }
}

/// Numbers without a generator that threads share, roughly uniform in -1..1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let numel = shape.iter().product();
        let numbers: Vec<f32> = (0..numel).map(|_| self.next() * scale).collect();
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        Tensor::from_slice(&numbers).view(shape.as_slice())
    }
}

fn model(compute: Compute) -> LanguageModel {
    let config = config();
    let mut numbers = Numbers(11);
    let weights: BTreeMap<String, Tensor> = config
        .tensor_shapes()
        .into_iter()
        .map(|(name, shape)| {
            let weight = match shape[..] {
                [_] => numbers.tensor(&shape, 0.2) + 1.0, // a norm's
                _ => numbers.tensor(&shape, 2.5 / (config.hidden_size as f32).sqrt()),
            };
            (name, weight)
        })
        .collect();
    let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
    LanguageModel::load(&config, &weights as &dyn TensorSource, parts, compute)
        .expect("the weights fit the config")
}

fn prompt_states(prompt_len: usize, seed: u64) -> PromptStates {
    let d_slm = config().hidden_size;
    let states = Numbers(seed).tensor(&[prompt_len, d_slm], 1.0).to_kind(Kind::BFloat16);
    let num_bytes = prompt_len * d_slm * 2;
    let mut bytes = vec![0; num_bytes];
    states.view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, num_bytes);
    PromptStates::new(prompt_len, d_slm, bytes.into()).expect("the sizes agree")
}

/// One libtorch thread, as the services use. With two, an f32 product gives fewer than four rows to one of
/// them, which then sums in another order.
fn decoder(compute: Compute, prompt_attention: PromptAttention, limits: SchedulerLimits) -> BatchDecoder {
    baton_model::set_num_threads(1);
    let limits = CacheLimits { max_slots: limits.max_slots, max_cache_tokens: limits.max_cache_tokens };
    BatchDecoder::new(model(compute), prompt_attention, compute, limits)
        .expect("the model has its two special tokens")
}

/// 70 prompts of 1 to 45 tokens, many lengths more than once, with 1 to 29 tokens to write.
fn requests() -> Vec<(RowRequest, PromptStates)> {
    (0..70_u32)
        .map(|index| {
            let prompt_len = 1 + (index as usize * index as usize * 7) % 45;
            let (min, max) = (index as usize % 2, 1 + (index as usize * 13) % 29);
            let row = RowId { group: GroupId(0), index };
            let generation = Arc::new(Generation::of_new_tokens(min, max));
            (
                RowRequest { row, prompt_len, generation, random_stream: 0 },
                prompt_states(prompt_len, u64::from(index) + 100),
            )
        })
        .collect()
}

/// Runs all requests through scheduler and decoder, as a decode service does; results by row.
fn decode(
    decoder: &mut BatchDecoder,
    limits: SchedulerLimits,
    requests: &[(RowRequest, PromptStates)],
) -> BTreeMap<RowId, FinishedSequence> {
    let mut scheduler = Scheduler::new(limits, decoder.special_tokens());
    let mut states = BTreeMap::new();
    for (request, prompt) in requests {
        scheduler.submit(request.clone()).expect("every request fits the cache");
        states.insert(request.row, prompt);
    }
    let mut finished = BTreeMap::new();
    let mut plan = Plan::default();
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            return finished;
        }
        decoder.begin_step(&plan, |row| Prompt::States(states[&row]));
        for row in scheduler.absorb(decoder.step(&plan.step)) {
            let [sequence] = <[_; 1]>::try_from(row.outputs).expect("greedy search writes one sequence");
            assert!(finished.insert(row.row, sequence).is_none(), "a row finishes once");
        }
    }
}

fn scheduler_limits(max_slots: usize, max_cache_tokens: usize, max_prefill_tokens: usize) -> SchedulerLimits {
    SchedulerLimits {
        max_slots,
        max_cache_tokens,
        cache_block_tokens: CACHE_BLOCK_TOKENS,
        max_prefill_tokens,
    }
}

#[test]
fn a_row_writes_the_same_bits_alone_and_in_any_company() {
    let requests = requests();
    for compute in ALL_KINDS {
        for prompt_attention in [PromptAttention::Bidirectional, PromptAttention::Causal] {
            let one_slot = scheduler_limits(1, 80, 1);
            let alone = decode(&mut decoder(compute, prompt_attention, one_slot), one_slot, &requests);
            let num_tokens: usize = alone.values().map(|row| row.tokens.len()).sum();
            assert_eq!(alone.len(), requests.len());
            assert!(num_tokens > 500, "the model writes: {num_tokens} tokens");

            for limits in [
                scheduler_limits(2, 200, 1),       // one prompt at a time, two rows
                scheduler_limits(3, 160, 50),      // the cache is the bound
                scheduler_limits(17, 2000, 100),   // rows come and go all the time
                scheduler_limits(64, 10_000, 700), // large prefill batches
            ] {
                let mut decoder = decoder(compute, prompt_attention, limits);
                for round in 0..2 {
                    let together = decode(&mut decoder, limits, &requests);
                    for (row, alone) in &alone {
                        let together = &together[row];
                        assert_eq!(
                            together.tokens, alone.tokens,
                            "{compute:?} {limits:?} round {round} {row:?}"
                        );
                        assert_eq!(
                            together.score.to_bits(),
                            alone.score.to_bits(),
                            "{compute:?} {limits:?} {row:?}"
                        );
                        assert_eq!(together.finish_reason, alone.finish_reason);
                    }
                }
            }
        }
    }
}

#[test]
fn cached_decoding_equals_the_uncached_forward() {
    // Log-probabilities in nats: bf16 keeps 8 bits of numbers up to about 8.
    for (compute, tolerance) in
        [(Compute::CPU_F32, 1e-4), (Compute::CPU_BF16, 0.15), (Compute::CPU_INT8, 0.15)]
    {
        let model = model(compute);
        let limits = scheduler_limits(8, 1000, 100);
        let requests: Vec<_> = requests().into_iter().step_by(5).collect();
        let finished =
            decode(&mut decoder(compute, PromptAttention::Bidirectional, limits), limits, &requests);
        for request in &requests {
            let row_id = request.0.row;
            let written = &finished[&row_id];
            let log_probabilities = uncached_log_probabilities((&model, compute), request, &written.tokens);
            let mut sum = 0.0;
            for (place, row) in log_probabilities.iter().enumerate().take(written.tokens.len()) {
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let chosen = row[written.tokens[place] as usize];
                assert!(best - chosen <= tolerance, "{compute:?} {row_id:?} place {place}");
                if compute.kind == Kind::Float {
                    assert_eq!(chosen, best, "{row_id:?} place {place}: the argmax itself");
                }
                sum += chosen;
            }
            if log_probabilities.len() > written.tokens.len() {
                sum += log_probabilities[written.tokens.len()][EOS as usize];
            }
            let score = sum / log_probabilities.len() as f32;
            let difference = (score - written.score).abs();
            assert!(difference <= tolerance, "{compute:?} {row_id:?}: scores differ by {difference}");
        }
    }
}

/// Log-probabilities over the vocabulary at each choice the row made, from one pass over prompt and response
/// together.
fn uncached_log_probabilities(
    (model, compute): (&LanguageModel, Compute),
    (request, states): &(RowRequest, PromptStates),
    tokens: &[u32],
) -> Vec<Vec<f32>> {
    // The last may be the end.
    let num_choices = (tokens.len() + 1).min(request.generation.max_new_tokens());
    let fed: Vec<i64> = [BOS].iter().chain(tokens).take(num_choices).map(|&token| i64::from(token)).collect();
    let shape = [states.prompt_len as i64, states.d_slm as i64];
    let prompt = Tensor::from_data_size(&states.data, &shape, Kind::BFloat16).to_kind(Kind::Float);
    let x = Tensor::cat(&[prompt, model.embed(&Tensor::from_slice(&fed))], 0);
    let layout = PackedLayout::prompts_and_responses([(states.prompt_len, fed.len())]);
    let mut attention = PackedAttention::new(&layout, Visibility::PrefixLm, (compute.kind, compute.device));
    let hidden = model.forward(x, &layout.positions(), &mut attention, 0.0);
    let logits = model.logits(&hidden.narrow(0, shape[0], num_choices as i64)).to_kind(Kind::Float);
    (0..num_choices)
        .map(|place| {
            let row = logits.get(place as i64);
            if place < request.generation.options.min_new_tokens as usize {
                let _ = row.get(i64::from(EOS)).fill_(f64::NEG_INFINITY);
            }
            Vec::try_from(row.log_softmax(-1, Kind::Float)).expect("one dimension of f32")
        })
        .collect()
}

#[test]
fn a_forked_row_continues_like_its_original() {
    for compute in ALL_KINDS {
        let mut decoder = decoder(compute, PromptAttention::Bidirectional, scheduler_limits(3, 240, 64));
        let capacity_tokens = 60;
        let prompts = [prompt_states(21, 1), prompt_states(7, 2)];
        for (slot, states) in prompts.iter().enumerate() {
            decoder.prefill(&[PrefillRow {
                slot: SlotId(slot),
                prompt: Prompt::States(states),
                capacity_tokens,
            }]);
        }
        let step = |slot, token| StepRow { slot: SlotId(slot), token };
        let _ = decoder.step(&[step(0, BOS), step(1, BOS)]);
        decoder.fork(SlotId(0), SlotId(2), capacity_tokens);
        for token in 3..20 {
            let logits = decoder.step(&[step(0, token), step(1, 5), step(2, token)]);
            assert_eq!(logits.row(0), logits.row(2), "{compute:?} after token {token}");
        }
        // From here they differ, and the original is as if it had never been copied.
        let logits = decoder.step(&[step(0, 30), step(2, 31)]);
        assert_ne!(logits.row(0), logits.row(1));
        let original = logits.row(0).to_vec();
        decoder.release(SlotId(2));
        decoder.release(SlotId(0));
        decoder.prefill(&[PrefillRow {
            slot: SlotId(0),
            prompt: Prompt::States(&prompts[0]),
            capacity_tokens,
        }]);
        for token in [BOS].into_iter().chain(3..20) {
            let _ = decoder.step(&[step(0, token)]);
        }
        assert_eq!(decoder.step(&[step(0, 30)]).row(0), original, "{compute:?}");
    }
}

#[test]
fn the_logits_of_candidates_are_those_of_all_tokens_to_the_last_bit() {
    for compute in ALL_KINDS {
        let prompts = [prompt_states(21, 1), prompt_states(7, 2), prompt_states(9, 3)];
        let steps = |candidates: [Option<Candidates>; 3]| -> Vec<Vec<f32>> {
            let limits = scheduler_limits(4, 320, 64);
            let mut decoder = decoder(compute, PromptAttention::Bidirectional, limits);
            let capacity_tokens = 60;
            let assignment = |(slot, candidates): (usize, Option<Candidates>)| SlotAssignment {
                row: RowId { group: GroupId(0), index: slot as u32 },
                slot: SlotId(slot),
                prompt_len: prompts[slot].prompt_len,
                capacity_tokens,
                candidates,
            };
            let prefill = candidates.into_iter().enumerate().map(assignment).collect();
            let plan = Plan { prefill, ..Plan::default() };
            decoder.begin_step(&plan, |row| Prompt::States(&prompts[row.index as usize]));
            let step = |slot, token| StepRow { slot: SlotId(slot), token };
            let _ = decoder.step(&[step(0, BOS), step(1, BOS), step(2, BOS)]);
            let fork = Fork { from: SlotId(0), to: SlotId(3), capacity_tokens };
            decoder.begin_step(&Plan { forks: vec![fork], ..Plan::default() }, |_| unreachable!());
            let logits = decoder.step(&[step(0, 7), step(1, 8), step(2, 9), step(3, 10)]);
            (0..logits.num_rows()).map(|row| logits.row(row).to_vec()).collect()
        };
        let all = steps([None, None, None]);
        let listed = [vec![2, 3, 50, 199], (0..200).step_by(3).collect()].map(Candidates::new);
        let [few, many] = listed.clone();
        let some = steps([Some(few), None, Some(many)]);
        assert_eq!(some[1], all[1], "{compute:?}");
        for (row, candidates) in [(0, &listed[0]), (2, &listed[1]), (3, &listed[0])] {
            let expected: Vec<f32> =
                candidates.tokens().iter().map(|&token| all[row][token as usize]).collect();
            assert_eq!(some[row], expected, "{compute:?}");
        }
    }
}

#[test]
fn the_fused_kernels_agree_with_tensor_operations() {
    let tokens = Tensor::from_slice(&(0..40).map(|i| (i * 37) % 200).collect::<Vec<i64>>());
    let layout = PackedLayout::prompts([25, 15]);
    let logits = |compute: Compute| {
        let model = model(compute);
        let mut attention = PackedAttention::new(&layout, Visibility::Causal, (compute.kind, compute.device));
        let hidden = model.forward(model.embed(&tokens), &layout.positions(), &mut attention, 0.0);
        model.logits(&hidden).to_kind(Kind::Float)
    };
    let exact = logits(Compute::CPU_F32.differentiable());
    let size = exact.abs().mean(Kind::Float).double_value(&[]);
    for (compute, tolerance) in [
        (Compute::CPU_F32, 1e-5),
        (Compute::CPU_BF16.differentiable(), 0.05),
        (Compute::CPU_BF16, 0.05),
        (Compute::CPU_INT8, 0.08), // a weight or an activation is off by 1 % or so
    ] {
        let error = (logits(compute) - &exact).square().mean(Kind::Float).sqrt().double_value(&[]) / size;
        assert!(error <= tolerance, "{compute:?}: off by {error}");
    }
}

#[test]
fn a_model_without_begin_token_is_refused() {
    let config = ModelConfig { bos_token_id: None, ..config() };
    let mut numbers = Numbers(1);
    let weights: BTreeMap<String, Tensor> =
        config.tensor_shapes().into_iter().map(|(name, shape)| (name, numbers.tensor(&shape, 0.1))).collect();
    let parts = ModelParts { blocks: 1, lm_head: true };
    let model = LanguageModel::load(&config, &weights as &dyn TensorSource, parts, Compute::CPU_F32).unwrap();
    let limits = CacheLimits { max_slots: 1, max_cache_tokens: 64 };
    let refused = BatchDecoder::new(model, PromptAttention::Causal, Compute::CPU_F32, limits).unwrap_err();
    assert!(matches!(refused, ModelError::Unsupported(_)), "{refused}");
    assert!(refused.to_string().contains("bos_token_id"));
}
