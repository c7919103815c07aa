//! The scheduler by example: each rule of the continuous batch in a few lines.

use baton_decoding::{
    CancelledRow, FinishReason, GenerationLimits, GroupId, Plan, RowId, RowRequest, Scheduler,
    SchedulerLimits, SlotId, SpecialTokens, StepRow, SubmitError, TokenChoice,
};

const BOS: u32 = 1;
const EOS: u32 = 2;
const LIMITS: SchedulerLimits =
    SchedulerLimits { max_slots: 2, max_cache_tokens: 64, cache_block_tokens: 16, max_prefill_tokens: 20 };

fn scheduler(limits: SchedulerLimits) -> Scheduler {
    Scheduler::new(limits, SpecialTokens { begin_of_sequence: BOS, end_of_sequence: EOS })
}

fn row(group: u64, index: u32) -> RowId {
    RowId { group: GroupId(group), index }
}

fn request(row: RowId, prompt_len: usize, max_new_tokens: usize) -> RowRequest {
    let limits =
        GenerationLimits { max_new_tokens, min_new_tokens: 0, max_new_tokens_per_prompt_token: None };
    RowRequest { row, prompt_len, limits }
}

fn choice(slot: usize, token: u32, log_probability: f32) -> TokenChoice {
    TokenChoice { slot: SlotId(slot), token, log_probability }
}

fn slots_of_prefill(plan: &Plan) -> Vec<(RowId, usize)> {
    plan.prefill.iter().map(|assignment| (assignment.row, assignment.slot.0)).collect()
}

#[test]
fn a_row_is_fed_bos_first_and_then_what_was_chosen_last() {
    let mut scheduler = scheduler(LIMITS);
    scheduler.submit(request(row(0, 0), 5, 4)).unwrap();
    let plan = scheduler.schedule();
    assert_eq!(slots_of_prefill(&plan), [(row(0, 0), 0)]);
    assert_eq!(plan.prefill[0].capacity_tokens, 16, "5 + 4 tokens take one block");
    assert_eq!(plan.step, [StepRow { slot: SlotId(0), token: BOS, allow_stop: true }]);
    assert!(scheduler.absorb(&[choice(0, 77, -0.5)]).is_empty());
    let plan = scheduler.schedule();
    assert!(plan.prefill.is_empty());
    assert_eq!(plan.step[0].token, 77);
}

#[test]
fn a_row_that_chooses_eos_stops_and_its_score_includes_it() {
    let mut scheduler = scheduler(LIMITS);
    scheduler.submit(request(row(0, 0), 5, 4)).unwrap();
    let _ = scheduler.schedule();
    assert!(scheduler.absorb(&[choice(0, 77, -0.5)]).is_empty());
    let finished = scheduler.absorb(&[choice(0, EOS, -1.5)]);
    assert_eq!(finished[0].tokens, [77]);
    assert_eq!(finished[0].score, -1.0);
    assert_eq!(finished[0].finish_reason, FinishReason::Stop);
    assert_eq!(scheduler.reserved_cache_tokens(), 0);
    assert!(scheduler.schedule().is_empty());
}

#[test]
fn a_row_at_its_limit_is_cut_off_unless_its_last_choice_is_eos() {
    for (last, reason, tokens) in [(9, FinishReason::Length, vec![8, 9]), (EOS, FinishReason::Stop, vec![8])]
    {
        let mut scheduler = scheduler(LIMITS);
        scheduler.submit(request(row(0, 0), 5, 2)).unwrap();
        let _ = scheduler.schedule();
        assert!(scheduler.absorb(&[choice(0, 8, -1.0)]).is_empty());
        let finished = scheduler.absorb(&[choice(0, last, -1.0)]);
        assert_eq!((finished[0].finish_reason, &finished[0].tokens), (reason, &tokens));
    }
}

#[test]
fn eos_is_masked_until_the_minimum_is_written() {
    let mut scheduler = scheduler(LIMITS);
    let limits =
        GenerationLimits { max_new_tokens: 5, min_new_tokens: 2, max_new_tokens_per_prompt_token: None };
    scheduler.submit(RowRequest { row: row(0, 0), prompt_len: 5, limits }).unwrap();
    let mut allowed = Vec::new();
    for token in [7, 8, 9] {
        allowed.push(scheduler.schedule().step[0].allow_stop);
        scheduler.absorb(&[choice(0, token, -1.0)]);
    }
    assert_eq!(allowed, [false, false, true]);
}

#[test]
fn prefill_is_spread_over_steps_by_its_token_budget() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 8, ..LIMITS });
    for (index, prompt_len) in [12, 8, 12].into_iter().enumerate() {
        scheduler.submit(request(row(0, index as u32), prompt_len, 4)).unwrap();
    }
    let plan = scheduler.schedule();
    assert_eq!(
        slots_of_prefill(&plan),
        [(row(0, 0), 0), (row(0, 1), 1)],
        "12 + 8 tokens fill the budget of 20"
    );
    assert_eq!(plan.step.len(), 2, "newcomers take part in the step");
    let plan = scheduler.schedule();
    assert_eq!((slots_of_prefill(&plan), plan.step.len()), (vec![(row(0, 2), 2)], 3));
}

#[test]
fn a_prompt_above_the_prefill_budget_goes_alone() {
    let mut scheduler = scheduler(SchedulerLimits { max_cache_tokens: 640, max_slots: 8, ..LIMITS });
    for (index, prompt_len) in [100, 5].into_iter().enumerate() {
        scheduler.submit(request(row(0, index as u32), prompt_len, 4)).unwrap();
    }
    assert_eq!(slots_of_prefill(&scheduler.schedule()), [(row(0, 0), 0)]);
    assert_eq!(slots_of_prefill(&scheduler.schedule()), [(row(0, 1), 1)]);
}

#[test]
fn a_large_row_is_not_overtaken_by_a_small_one() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 8, max_prefill_tokens: 1000, ..LIMITS });
    scheduler.submit(request(row(0, 0), 20, 4)).unwrap(); // 32 of 64 tokens
    scheduler.submit(request(row(0, 1), 40, 4)).unwrap(); // 48: has to wait
    scheduler.submit(request(row(0, 2), 4, 4)).unwrap(); // 16: would fit at once
    assert_eq!(slots_of_prefill(&scheduler.schedule()), [(row(0, 0), 0)]);
    assert_eq!(scheduler.num_waiting_rows(), 2);
    assert_eq!(scheduler.absorb(&[choice(0, EOS, -1.0)]).len(), 1);
    assert_eq!(slots_of_prefill(&scheduler.schedule()), [(row(0, 1), 0), (row(0, 2), 1)]);
}

#[test]
fn the_lowest_free_slot_is_taken_first() {
    let mut scheduler = scheduler(SchedulerLimits { max_slots: 3, max_prefill_tokens: 1000, ..LIMITS });
    for index in 0..4 {
        scheduler.submit(request(row(0, index), 4, 4)).unwrap();
    }
    assert_eq!(scheduler.schedule().prefill.len(), 3);
    let done = [choice(0, EOS, -1.0), choice(1, EOS, -1.0), choice(2, 5, -1.0)];
    assert_eq!(scheduler.absorb(&done).len(), 2);
    assert_eq!(slots_of_prefill(&scheduler.schedule()), [(row(0, 3), 0)]);
}

#[test]
fn cancelling_a_group_drops_its_rows_alone() {
    let mut scheduler = scheduler(SchedulerLimits { max_prefill_tokens: 1000, ..LIMITS });
    for (group, index) in [(7, 0), (8, 0), (7, 1)] {
        scheduler.submit(request(row(group, index), 4, 4)).unwrap();
    }
    assert_eq!(scheduler.schedule().step.len(), 2);
    let cancelled = scheduler.cancel(GroupId(7));
    let expected =
        [CancelledRow { row: row(7, 1), slot: None }, CancelledRow { row: row(7, 0), slot: Some(SlotId(0)) }];
    assert_eq!(cancelled, expected);
    let finished = scheduler.absorb(&[choice(0, EOS, -1.0), choice(1, EOS, -1.0)]);
    assert_eq!(finished.iter().map(|f| f.row).collect::<Vec<_>>(), [row(8, 0)], "the late choice is ignored");
    assert_eq!(scheduler.reserved_cache_tokens(), 0);
}

#[test]
fn a_row_that_could_never_run_is_refused_with_the_numbers() {
    let mut scheduler = scheduler(SchedulerLimits { max_cache_tokens: 70, ..LIMITS });
    let refused = scheduler.submit(request(row(0, 0), 60, 5)).unwrap_err();
    let expected = SubmitError::NeverFits {
        prompt_len: 60,
        max_new_tokens: 5,
        needed_cache_tokens: 80,
        max_cache_tokens: 64,
    };
    assert_eq!(refused, expected);
    assert_eq!(scheduler.submit(request(row(0, 0), 0, 5)), Err(SubmitError::EmptyPrompt));
    assert!(matches!(scheduler.submit(request(row(0, 0), 5, 0)), Err(SubmitError::Limits(_))));
    assert!(scheduler.schedule().is_empty());
    scheduler.submit(request(row(0, 0), 60, 4)).expect("it fits exactly");
}
