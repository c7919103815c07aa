//! Outputs through scheduler and cache: against transformers, alone and in batches, in every format.

use std::sync::Arc;

use baton_bundle::PromptAttention;
use baton_decoding::{
    FinishedRow, Generation, GenerationOptions, GroupId, Plan, Rewind, RowId, RowRequest, Scheduler,
    SchedulerLimits, SlotId, StepRow,
};
use baton_model::{BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Compute, PrefillRow, Prompt};
use tch::Tensor;

use crate::{
    Expected, ExpectedPrompt, FIXTURES, config, expected, is_encoder_decoder, model, of_writable,
    relative_difference,
};

/// The decoder's way to the same logits: prompts into the cache, then one token after the other.
#[test]
fn a_cached_decoder_after_an_encoder_gives_the_logits_of_transformers() {
    baton_model::set_num_threads(1);
    for fixture in FIXTURES.into_iter().filter(|fixture| is_encoder_decoder(fixture)) {
        let expected = expected(fixture);
        let num_rows = expected.prompts.len();
        let limits = CacheLimits { max_slots: num_rows, max_cache_tokens: num_rows * 96 };
        let compute = Compute::CPU_F32;
        let model = model(fixture, None, compute);
        let mut decoder = BatchDecoder::new(model, PromptAttention::Bidirectional, compute, limits).unwrap();
        let rows: Vec<PrefillRow<'_>> = expected
            .prompts
            .iter()
            .enumerate()
            .map(|(slot, prompt)| PrefillRow {
                slot: SlotId(slot),
                prompt: Prompt::Tokens(&prompt.tokens),
                capacity_tokens: prompt.tokens.len() + prompt.forced.len() + 1,
            })
            .collect();
        decoder.prefill(&rows);
        let start = decoder.special_tokens().begin_of_sequence;
        let token = |row: usize, step: usize| match step {
            0 => start,
            _ => expected.prompts[row].forced[step - 1],
        };
        let num_steps = expected.prompts[0].forced.len() + 1;
        // Several tokens at once, one by one, and then a few that are forgotten again.
        let step = |rows: &[(usize, usize)]| -> Vec<StepRow> {
            rows.iter().map(|&(row, step)| StepRow { slot: SlotId(row), token: token(row, step) }).collect()
        };
        let first: Vec<(usize, usize)> =
            (0..num_rows).flat_map(|row| (0..5).map(move |step| (row, step))).collect();
        let _ = decoder.step(&step(&first));
        for at in 5..num_steps {
            if at == 9 {
                let wrong: Vec<StepRow> = (0..num_rows)
                    .flat_map(|row| [7, 8].map(|token| StepRow { slot: SlotId(row), token }))
                    .collect();
                let _ = decoder.step(&wrong);
                let rewind = |row| Rewind { slot: SlotId(row), num_tokens: 2 };
                decoder.rewind(&(0..num_rows).map(rewind).collect::<Vec<_>>());
            }
            let rows: Vec<(usize, usize)> = (0..num_rows).map(|row| (row, at)).collect();
            let logits = decoder.step(&step(&rows));
            if at + 1 == num_steps {
                for (row, prompt) in expected.prompts.iter().enumerate() {
                    let found = of_writable(&config(fixture), logits.row(row));
                    let wanted = of_writable(&config(fixture), &prompt.logits);
                    let difference = relative_difference(&Tensor::from_slice(&found), &wanted);
                    assert!(difference <= 2e-5, "{fixture}, row {row}: logits differ by {difference}");
                }
            }
        }
    }
}

fn generation(expected: &Expected, num_beams: usize) -> Arc<Generation> {
    let (beams, n_best) = (num_beams as u32, num_beams as u32);
    let options = GenerationOptions { beams, n_best, ..GenerationOptions::default() };
    Arc::new(Generation::new(options, expected.max_new_tokens))
}

/// The decoder's outputs for all prompts in one batch of at most `max_slots` rows, by prompt.
fn decode(fixture: &str, compute: Compute, num_beams: usize, max_slots: usize) -> Vec<FinishedRow> {
    baton_model::set_num_threads(1);
    let expected = expected(fixture);
    let max_cache_tokens = 20 * CACHE_BLOCK_TOKENS; // a bound that is met
    let limits = CacheLimits { max_slots, max_cache_tokens };
    let model = model(fixture, None, compute);
    let mut decoder = BatchDecoder::new(model, PromptAttention::Causal, compute, limits).unwrap();
    let limits = SchedulerLimits {
        max_slots,
        max_cache_tokens,
        cache_block_tokens: CACHE_BLOCK_TOKENS,
        max_prefill_tokens: 50,
    };
    let mut scheduler = Scheduler::new(limits, decoder.special_tokens());
    let generation = generation(&expected, num_beams);
    let without_begin = |prompt: &'_ ExpectedPrompt| match is_encoder_decoder(fixture) {
        true => prompt.tokens.clone(),
        false => prompt.tokens.split_last().unwrap().1.to_vec(),
    };
    let prompts: Vec<Vec<u32>> = expected.prompts.iter().map(without_begin).collect();
    for (index, prompt) in (0..).zip(&prompts) {
        let row = RowId { group: GroupId(0), index };
        let generation = Arc::clone(&generation);
        let request = RowRequest { row, prompt_len: prompt.len(), generation, random_stream: 0 };
        scheduler.submit(request).unwrap();
    }
    let mut finished: Vec<FinishedRow> = Vec::new();
    let mut plan = Plan::default();
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            finished.sort_by_key(|row| row.row);
            return finished;
        }
        decoder.begin_step(&plan, |row| Prompt::Tokens(&prompts[row.index as usize]));
        finished.extend(scheduler.absorb(decoder.step(&plan.step)));
    }
}

#[test]
fn greedy_and_beam_search_equal_those_of_transformers() {
    for fixture in FIXTURES {
        let expected = expected(fixture);
        for (num_beams, max_slots) in [(1, 6), (expected.num_beams, 4), (expected.num_beams, 24)] {
            let finished = decode(fixture, Compute::CPU_F32, num_beams, max_slots);
            assert_eq!(finished.len(), expected.prompts.len());
            for (row, prompt) in finished.iter().zip(&expected.prompts) {
                let found: Vec<&[u32]> = row.outputs.iter().map(|output| output.tokens.as_slice()).collect();
                let wanted: Vec<&[u32]> = match num_beams {
                    1 => vec![prompt.greedy.as_slice()],
                    _ => prompt.beams.iter().map(Vec::as_slice).collect(),
                };
                let len = prompt.tokens.len();
                assert_eq!(found, wanted, "{fixture}, {len} tokens, {num_beams} beams, {max_slots} slots");
            }
        }
    }
}

#[test]
fn a_row_writes_the_same_bits_alone_and_in_company_in_every_format() {
    for fixture in FIXTURES {
        for compute in [Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8] {
            let alone = decode(fixture, compute, 1, 1);
            for max_slots in [2, 6] {
                for (alone, together) in alone.iter().zip(decode(fixture, compute, 1, max_slots)) {
                    let (alone, together) = (&alone.outputs[0], &together.outputs[0]);
                    assert_eq!(alone.tokens, together.tokens, "{fixture} {compute:?}");
                    assert_eq!(alone.score.to_bits(), together.score.to_bits(), "{fixture} {compute:?}");
                }
            }
        }
    }
}
