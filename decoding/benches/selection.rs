//! The cost of choosing the next tokens of a full batch, by method and vocabulary: microseconds per sequence
//! and step.
//!
//! `cargo bench -p baton-decoding`. Logits are random and the same at every step; the model's time is
//! excluded.

#![allow(clippy::print_stdout, reason = "it prints its results")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_decoding::{
    EarlyStopping, Generation, GenerationOptions, GroupId, LogitRows, Plan, RowId, RowRequest, Scheduler,
    SchedulerLimits, SpecialTokens,
};

const NUM_SEQUENCES: usize = 128;
const NUM_STEPS: usize = 50;

fn main() {
    println!("{:>24} {:>8} {:>8} {:>8}", "us per sequence, of", "8192", "32000", "49152");
    let plain = GenerationOptions::default;
    let sample = || GenerationOptions { temperature: Some(1.0), seed: 1, ..plain() };
    let cases = [
        ("greedy", plain()),
        ("greedy, end masked", GenerationOptions { min_new_tokens: NUM_STEPS as u32 + 1, ..plain() }),
        ("greedy, penalties", GenerationOptions { repetition_penalty: 1.2, no_repeat_ngram: 3, ..plain() }),
        ("beam of 4", GenerationOptions { beams: 4, early_stopping: EarlyStopping::Never, ..plain() }),
        ("sample", sample()),
        ("sample, top-k 50", GenerationOptions { top_k: Some(50), ..sample() }),
        ("sample, top-p 0.9", GenerationOptions { top_p: Some(0.9), ..sample() }),
    ];
    for (name, options) in cases {
        let generation = Generation::new(options, NUM_STEPS + 1);
        let times = [8192, 32_000, 49_152].map(|vocab_size| time_of_sequence(&generation, vocab_size));
        let [a, b, c] = times.map(|time| time.as_secs_f64() * 1e6);
        println!("{name:>24} {a:8.1} {b:8.1} {c:8.1}");
    }
}

/// Time to choose one token of one sequence of a full batch.
fn time_of_sequence(generation: &Generation, vocab_size: usize) -> Duration {
    let limits = SchedulerLimits {
        max_slots: NUM_SEQUENCES,
        max_cache_tokens: NUM_SEQUENCES * 256,
        cache_block_tokens: 16,
        max_prefill_tokens: 100_000,
    };
    // An end token that the logits make impossible, so that the batch stays full.
    let special = SpecialTokens { begin_of_sequence: 1, end_of_sequence: 0, first: None };
    let mut scheduler = Scheduler::new(limits, special);
    let num_rows = NUM_SEQUENCES / generation.num_sequences();
    for index in 0..num_rows as u32 {
        let row = RowId { group: GroupId(0), index };
        let generation = Arc::new(generation.clone());
        let request = RowRequest { row, prompt_len: 8, generation, random_stream: index.into() };
        scheduler.submit(request).expect("there is room");
    }
    let logits = logits(vocab_size);
    let mut plan = Plan::default();
    let (mut time, mut num_choices) = (Duration::ZERO, 0);
    for _ in 0..NUM_STEPS {
        let start = Instant::now();
        scheduler.schedule(&mut plan);
        let num_sequences = plan.step.len();
        assert!(
            scheduler.absorb(LogitRows::new(&logits[..num_sequences * vocab_size], vocab_size)).is_empty()
        );
        time += start.elapsed();
        num_choices += num_sequences;
    }
    time / num_choices as u32
}

/// Logits with a bell-shaped distribution, as models have them: sums of uniform numbers.
fn logits(vocab_size: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut values: Vec<f32> = (0..NUM_SEQUENCES * vocab_size)
        .map(|_| 6.0 * (uniform() + uniform() + uniform() + uniform()))
        .collect();
    values.iter_mut().step_by(vocab_size).for_each(|end| *end = f32::NEG_INFINITY);
    values
}
