//! Drafts change the number of passes of the large model, never its output.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::collections::BTreeMap;

use baton_decoding::{
    DraftCounts, DraftOptions, DraftStep, FinishedRow, Generation, GenerationOptions, LogitRows, Plan,
    Rewind, RowId, Scheduler, SchedulerLimits, SlotId, StepRow,
};
use proptest::prelude::*;
use support::{EOS, FakeModel, ROOMY, SPECIAL, alone, beam, greedy, request, row, sampling};

const MODEL: FakeModel = FakeModel { vocab_size: 12, spread: 4.0, end_bonus: -1.0 };
/// Of the drafting model. The large one is never fed it.
const DRAFT_BOS: u32 = 2_000_000;

/// The tokens that a model has read of each live row.
#[derive(Default)]
struct Caches(BTreeMap<SlotId, (RowId, Vec<u32>)>);

impl Caches {
    fn begin_step(&mut self, plan: &Plan) {
        plan.release.iter().for_each(|slot| drop(self.0.remove(slot)));
        for entry in &plan.prefill {
            assert!(self.0.insert(entry.slot, (entry.row, Vec::new())).is_none());
        }
        for fork in &plan.forks {
            let copy = self.0[&fork.from].clone();
            assert!(self.0.insert(fork.to, copy).is_none());
        }
    }

    fn rewind(&mut self, rewinds: &[Rewind]) {
        for rewind in rewinds {
            let (_, fed) = self.0.get_mut(&rewind.slot).expect("only live rows are rewound");
            fed.truncate(fed.len().checked_sub(rewind.num_tokens).expect("no more than was fed"));
        }
    }

    /// Logits by `model`, computed from the inputs after the begin token.
    fn step(&mut self, step: &[StepRow], begin: u32, model: impl Fn(RowId, &[u32]) -> Vec<f32>) -> Vec<f32> {
        let mut logits = Vec::new();
        for step in step {
            let (row, fed) = self.0.get_mut(&step.slot).expect("only live rows step");
            assert_eq!(fed.is_empty(), step.token == begin, "the begin token comes first and only then");
            fed.push(step.token);
            logits.extend(model(*row, &fed[1..]));
        }
        logits
    }
}

/// Runs all requests, drafted for by a model that is right in `right_of_8` of eight places.
fn run(
    generations: &[Generation],
    limits: SchedulerLimits,
    (max_draft_tokens, right_of_8): (usize, usize),
) -> (BTreeMap<RowId, FinishedRow>, DraftCounts) {
    let options = DraftOptions { begin_of_sequence: DRAFT_BOS, max_draft_tokens };
    let mut scheduler = Scheduler::new(limits, SPECIAL).with_drafts(options);
    for (index, generation) in (0..).zip(generations) {
        scheduler.submit(request(row(0, index), 1 + index as usize % 5, generation.clone())).unwrap();
    }
    let drafter = |row: RowId, written: &[u32]| {
        let is_right = (row.index as usize + written.len() * 3) % 8 < right_of_8;
        MODEL.logits(if is_right { row } else { RowId { index: row.index + 1000, ..row } }, written)
    };
    let (mut large, mut small) = (Caches::default(), Caches::default());
    let (mut plan, mut drafts, mut finished) = (Plan::default(), DraftStep::default(), BTreeMap::new());
    let vocab_size = MODEL.vocab_size as usize;
    let mut counts = DraftCounts::default();
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            return (finished, counts);
        }
        large.rewind(&plan.rewind);
        large.begin_step(&plan);
        small.begin_step(&plan);
        loop {
            scheduler.schedule_drafts(&mut drafts);
            small.rewind(&drafts.rewind);
            if drafts.step.is_empty() {
                break;
            }
            let logits = small.step(&drafts.step, DRAFT_BOS, drafter);
            scheduler.absorb_drafts(LogitRows::new(&logits, vocab_size));
        }
        scheduler.add_drafts(&mut plan);
        let logits =
            large.step(&plan.step, SPECIAL.begin_of_sequence, |row, written| MODEL.logits(row, written));
        for row in scheduler.absorb(LogitRows::new(&logits, vocab_size)) {
            counts.add(row.drafts);
            assert!(finished.insert(row.row, row).is_none());
        }
    }
}

proptest! {
    #[test]
    fn rows_write_the_same_with_and_without_drafts(
        methods in proptest::collection::vec(0usize..5, 1..20),
        max_slots in 4usize..8,
        max_draft_tokens in 1usize..9,
        right_of_8 in 0usize..9,
    ) {
        let generation = |method: usize| match method {
            0 => greedy(0, 30),
            1 => sampling(1, 25),
            2 => sampling(2, 10),
            3 => beam(3, 12),
            _ => {
                let (min_new_tokens, no_repeat_ngram, repetition_penalty) = (4, 2, 1.3);
                let options = GenerationOptions {
                    min_new_tokens,
                    no_repeat_ngram,
                    repetition_penalty,
                    ..GenerationOptions::default()
                };
                Generation::new(options, 20)
            }
        };
        let generations: Vec<Generation> = methods.iter().map(|&method| generation(method)).collect();
        let limits = SchedulerLimits { max_slots, max_cache_tokens: 400, ..ROOMY };
        let (finished, counts) = run(&generations, limits, (max_draft_tokens, right_of_8));
        prop_assert_eq!(finished.len(), generations.len());
        for (index, generation) in (0..).zip(generations) {
            let request = request(row(0, index), 1 + index as usize % 5, generation);
            prop_assert_eq!(&finished[&row(0, index)].outputs, &alone(MODEL, request).outputs);
        }
        prop_assert!(counts.accepted <= counts.drafted);
    }
}

#[test]
fn a_draft_that_is_always_right_saves_passes_and_one_that_never_is_costs_little() {
    let generations = vec![Generation { stop_tokens: Vec::new(), ..greedy(40, 40) }; 6];
    let (_, right) = run(&generations, ROOMY, (8, 8));
    assert_eq!(right.accepted, right.drafted);
    assert!(right.passes < 6 * 10, "{right:?}: 40 tokens a row in drafts of 4 to 8");
    let (_, wrong) = run(&generations, ROOMY, (8, 0));
    assert!(wrong.drafted < wrong.passes * 2, "{wrong:?}: drafts have become short");
    let (_, half) = run(&generations, ROOMY, (8, 5));
    assert!(right.passes < half.passes && half.passes < wrong.passes, "{half:?}");
    assert_eq!(EOS, SPECIAL.end_of_sequence);
}

#[test]
fn cancelled_rows_leave_no_trace_in_either_cache() {
    let options = DraftOptions { begin_of_sequence: DRAFT_BOS, max_draft_tokens: 4 };
    let mut scheduler = Scheduler::new(ROOMY, SPECIAL).with_drafts(options);
    scheduler.submit(request(row(0, 0), 3, greedy(20, 20))).unwrap();
    let (mut plan, mut drafts) = (Plan::default(), DraftStep::default());
    let other = |token: u32| (0..12).map(|t| if t == token { 9.0 } else { 0.0 }).collect::<Vec<f32>>();
    scheduler.schedule(&mut plan);
    scheduler.schedule_drafts(&mut drafts);
    scheduler.absorb_drafts(LogitRows::new(&other(5), 12));
    scheduler.add_drafts(&mut plan);
    assert_eq!(plan.step.len(), 2, "the begin token and a guess");
    assert!(scheduler.absorb(LogitRows::new(&[other(7), other(7)].concat(), 12)).is_empty());
    scheduler.cancel(row(0, 0).group);
    scheduler.schedule(&mut plan);
    scheduler.schedule_drafts(&mut drafts);
    assert!(plan.rewind.is_empty() && drafts.rewind.is_empty() && !plan.release.is_empty());
}
