//! The scheduler's rules, case by case.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use baton_decoding::{
    FinishReason, FinishedRow, Fork, GroupId, LogitRows, Plan, Scheduler, SchedulerLimits, SlotId, StepRow,
    SubmitError,
};
use support::{BOS, EOS, SPECIAL, beam, greedy, request, row, sampling};

const VOCAB_SIZE: usize = 10;
const LIMITS: SchedulerLimits =
    SchedulerLimits { max_slots: 2, max_cache_tokens: 64, cache_block_tokens: 16, max_prefill_tokens: 20 };

fn scheduler(limits: SchedulerLimits) -> Scheduler {
    Scheduler::new(limits, SPECIAL)
}

fn plan(scheduler: &mut Scheduler) -> Plan {
    let mut plan = Plan::default();
    scheduler.schedule(&mut plan);
    plan
}

/// Supplies logits that make each row of the step choose the given token; that token and token 0 each have
/// probability 1/2.
fn choose(scheduler: &mut Scheduler, tokens: &[u32]) -> Vec<FinishedRow> {
    let mut logits = vec![f32::NEG_INFINITY; tokens.len() * VOCAB_SIZE];
    for (row, &token) in logits.chunks_mut(VOCAB_SIZE).zip(tokens) {
        row[token as usize] = 1.000_000_1;
        row[0] = 1.0;
    }
    scheduler.absorb(LogitRows::new(&logits, VOCAB_SIZE))
}

fn slots_of_prefill(plan: &Plan) -> Vec<(u32, usize)> {
    plan.prefill.iter().map(|assignment| (assignment.row.index, assignment.slot.0)).collect()
}

#[test]
fn a_row_is_fed_bos_first_and_then_its_last_choice() {
    let mut scheduler = scheduler(LIMITS);
    scheduler.submit(request(row(0, 0), 5, greedy(0, 4))).unwrap();
    let first = plan(&mut scheduler);
    assert_eq!(slots_of_prefill(&first), [(0, 0)]);
    assert_eq!(first.prefill[0].capacity_tokens, 16, "5 + 4 tokens take one block");
    assert_eq!(first.step, [StepRow { slot: SlotId(0), token: BOS }]);
    assert!(choose(&mut scheduler, &[7]).is_empty());
    let second = plan(&mut scheduler);
    assert!(second.prefill.is_empty());
    assert_eq!(second.step, [StepRow { slot: SlotId(0), token: 7 }]);
}

#[test]
fn a_row_that_chooses_eos_stops_and_its_score_includes_it() {
    let mut scheduler = scheduler(LIMITS);
    scheduler.submit(request(row(0, 0), 5, greedy(0, 4))).unwrap();
    let _ = plan(&mut scheduler);
    assert!(choose(&mut scheduler, &[7]).is_empty());
    let _ = plan(&mut scheduler);
    let finished = choose(&mut scheduler, &[EOS]);
    let output = &finished[0].outputs[0];
    assert_eq!((output.tokens.as_slice(), output.num_tokens), ([7].as_slice(), 2));
    assert!((output.score - 0.5_f32.ln()).abs() < 1e-6, "{}", output.score);
    assert_eq!(output.finish_reason, FinishReason::Stop);
    assert_eq!((scheduler.reserved_cache_tokens(), scheduler.num_reserved_slots()), (0, 0));
    let after = plan(&mut scheduler);
    assert_eq!((after.release.as_slice(), after.step.len()), ([SlotId(0)].as_slice(), 0));
    assert!(plan(&mut scheduler).is_empty());
}

#[test]
fn a_row_at_its_limit_is_cut_off_unless_its_last_choice_is_eos() {
    for (last, reason, tokens) in [(9, FinishReason::Length, vec![8, 9]), (EOS, FinishReason::Stop, vec![8])]
    {
        let mut scheduler = scheduler(LIMITS);
        scheduler.submit(request(row(0, 0), 5, greedy(0, 2))).unwrap();
        let _ = plan(&mut scheduler);
        assert!(choose(&mut scheduler, &[8]).is_empty());
        let _ = plan(&mut scheduler);
        let finished = choose(&mut scheduler, &[last]);
        let output = &finished[0].outputs[0];
        assert_eq!((output.finish_reason, &output.tokens, output.num_tokens), (reason, &tokens, 2));
    }
}

#[test]
fn prefill_is_spread_over_steps_by_its_token_budget() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 8, ..LIMITS });
    for (index, prompt_len) in [12, 8, 12].into_iter().enumerate() {
        scheduler.submit(request(row(0, index as u32), prompt_len, greedy(0, 4))).unwrap();
    }
    let first = plan(&mut scheduler);
    assert_eq!(slots_of_prefill(&first), [(0, 0), (1, 1)], "12 + 8 tokens fill the budget of 20");
    assert_eq!(first.step.len(), 2, "newcomers take part in the step");
    let second = plan(&mut scheduler);
    assert_eq!((slots_of_prefill(&second), second.step.len()), (vec![(2, 2)], 3));
}

#[test]
fn a_prompt_above_the_prefill_budget_goes_alone() {
    let mut scheduler = scheduler(SchedulerLimits { max_cache_tokens: 640, max_slots: 8, ..LIMITS });
    for (index, prompt_len) in [100, 5].into_iter().enumerate() {
        scheduler.submit(request(row(0, index as u32), prompt_len, greedy(0, 4))).unwrap();
    }
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(0, 0)]);
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(1, 1)]);
}

#[test]
fn a_large_row_is_not_overtaken_by_a_small_one() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 8, max_prefill_tokens: 1000, ..LIMITS });
    scheduler.submit(request(row(0, 0), 20, greedy(0, 4))).unwrap(); // 32 of 64 tokens
    scheduler.submit(request(row(0, 1), 40, greedy(0, 4))).unwrap(); // 48: has to wait
    scheduler.submit(request(row(0, 2), 4, greedy(0, 4))).unwrap(); // 16: would fit at once
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(0, 0)]);
    assert_eq!(scheduler.num_waiting_rows(), 2);
    assert_eq!(choose(&mut scheduler, &[EOS]).len(), 1);
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(1, 0), (2, 1)]);
}

#[test]
fn the_lowest_free_slot_is_taken_first() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 3, max_prefill_tokens: 1000, ..LIMITS });
    for index in 0..4 {
        scheduler.submit(request(row(0, index), 4, greedy(0, 4))).unwrap();
    }
    assert_eq!(plan(&mut scheduler).prefill.len(), 3);
    assert_eq!(choose(&mut scheduler, &[EOS, EOS, 5]).len(), 2);
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(3, 0)]);
}

#[test]
fn cancelling_a_group_drops_its_rows_alone() {
    let mut scheduler = scheduler(SchedulerLimits { max_prefill_tokens: 1000, ..LIMITS });
    for (group, index) in [(7, 0), (8, 1), (7, 2)] {
        scheduler.submit(request(row(group, index), 4, greedy(0, 4))).unwrap();
    }
    assert_eq!(plan(&mut scheduler).step.len(), 2);
    assert_eq!(scheduler.cancel(GroupId(7)), [row(7, 2), row(7, 0)], "those that waited first");
    let finished = choose(&mut scheduler, &[EOS, EOS]);
    assert_eq!(finished.iter().map(|f| f.row).collect::<Vec<_>>(), [row(8, 1)], "each takes its own logits");
    assert_eq!(scheduler.reserved_cache_tokens(), 0);
    let mut released = plan(&mut scheduler).release;
    released.sort_unstable();
    assert_eq!(released, [SlotId(0), SlotId(1)]);
}

#[test]
fn a_beam_waits_for_all_its_slots_and_forks_into_them() {
    let limits = SchedulerLimits { max_slots: 3, max_cache_tokens: 1000, ..LIMITS };
    let mut scheduler = scheduler(limits);
    scheduler.submit(request(row(0, 0), 4, greedy(0, 1))).unwrap();
    scheduler.submit(request(row(0, 1), 4, beam(3, 4))).unwrap();
    assert_eq!(slots_of_prefill(&plan(&mut scheduler)), [(0, 0)], "two free slots are not three");
    assert_eq!(choose(&mut scheduler, &[7]).len(), 1);

    let entering = plan(&mut scheduler);
    assert_eq!(
        (slots_of_prefill(&entering), entering.step.len()),
        (vec![(1, 0)], 1),
        "one sequence at first"
    );
    assert_eq!(scheduler.num_reserved_slots(), 3);
    let logits = [0.0, 0.0, 0.0, 9.0, 8.0, 7.0, 0.0, 0.0, 0.0, 0.0];
    assert!(scheduler.absorb(LogitRows::new(&logits, VOCAB_SIZE)).is_empty());
    let forked = plan(&mut scheduler);
    let fork = |to| Fork { from: SlotId(0), to: SlotId(to), capacity_tokens: 16 };
    assert_eq!(forked.forks, [fork(1), fork(2)]);
    let fed: Vec<u32> = forked.step.iter().map(|step| step.token).collect();
    assert_eq!(fed, [3, 4, 5], "the best continuations");
}

#[test]
fn samples_part_ways_at_the_first_token_and_leave_one_by_one() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 4, ..LIMITS });
    scheduler.submit(request(row(0, 0), 4, sampling(3, 4))).unwrap();
    assert_eq!(plan(&mut scheduler).step.len(), 1);
    choose(&mut scheduler, &[7]);
    let second = plan(&mut scheduler);
    assert_eq!((second.forks.len(), second.step.len()), (2, 3));
    choose(&mut scheduler, &[EOS, 0, 0]); // in the draw of the first it may be either
    let third = plan(&mut scheduler);
    assert_eq!(third.step.len() + third.release.len(), 3, "who has ended is not stepped again");
    assert_eq!(scheduler.num_reserved_slots(), 3, "slots are given back when the row is done");
}

#[test]
fn a_beam_reserves_its_prompt_once_and_the_rest_for_each_sequence() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 4, max_cache_tokens: 80, ..LIMITS });
    // 20 + 4 tokens are two blocks; the prompt fills one.
    scheduler.submit(request(row(0, 0), 20, beam(4, 4))).unwrap();
    assert_eq!(plan(&mut scheduler).prefill[0].capacity_tokens, 32);
    assert_eq!(scheduler.reserved_cache_tokens(), 16 + 4 * 16);
}

#[test]
fn a_row_that_could_never_run_is_refused_with_the_numbers() {
    let mut scheduler = scheduler(SchedulerLimits { max_cache_tokens: 70, ..LIMITS });
    let refused = scheduler.submit(request(row(0, 0), 60, greedy(0, 5))).unwrap_err();
    let expected = SubmitError::NeverFits {
        prompt_len: 60,
        max_new_tokens: 5,
        num_sequences: 1,
        needed_cache_tokens: 80,
        max_cache_tokens: 64,
    };
    assert_eq!(refused, expected);
    let refused = scheduler.submit(request(row(0, 0), 5, beam(3, 4))).unwrap_err();
    assert_eq!(refused, SubmitError::TooManySequences { num_sequences: 3, max_slots: 2 });
    assert_eq!(scheduler.submit(request(row(0, 0), 0, greedy(0, 5))), Err(SubmitError::EmptyPrompt));
    assert!(plan(&mut scheduler).is_empty());
    scheduler.submit(request(row(0, 0), 60, greedy(0, 4))).expect("it fits exactly");
}
