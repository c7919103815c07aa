//! What holds for every sequence of submissions, steps and cancellations.

use std::collections::{BTreeMap, BTreeSet};

use baton_decoding::{
    FinishReason, GenerationLimits, GroupId, Plan, RowId, RowRequest, Scheduler, SchedulerLimits, SlotId,
    SpecialTokens, TokenChoice,
};
use proptest::prelude::*;

const BOS: u32 = 1;
const EOS: u32 = 2;

#[derive(Debug, Clone, Copy)]
enum Event {
    Submit { group: u64, prompt_len: usize, max_new_tokens: usize, min_new_tokens: usize },
    Step,
    Cancel { group: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4u64, 1..60usize, 1..40usize, 0..6usize).prop_map(|(group, prompt_len, max_new_tokens, min)| {
            Event::Submit { group, prompt_len, max_new_tokens, min_new_tokens: min.min(max_new_tokens) }
        }),
        4 => Just(Event::Step),
        1 => (0..4u64).prop_map(|group| Event::Cancel { group }),
    ]
}

fn limits() -> impl Strategy<Value = SchedulerLimits> {
    (1..6usize, 32..200usize, 1..20usize, 1..80usize).prop_map(
        |(max_slots, cache, block, max_prefill_tokens)| SchedulerLimits {
            max_slots,
            max_cache_tokens: cache,
            cache_block_tokens: block,
            max_prefill_tokens,
        },
    )
}

/// The caller's side of the contract, with its own books.
struct Caller {
    scheduler: Scheduler,
    limits: SchedulerLimits,
    open: BTreeMap<RowId, RowRequest>, // accepted, neither finished nor cancelled
    live: BTreeMap<SlotId, (RowId, usize)>, // and the cache each reserved
    num_choices: BTreeMap<RowId, usize>,
    next_index: u32,
    admission_order: Vec<u32>,
}

impl Caller {
    fn new(limits: SchedulerLimits) -> Self {
        let special = SpecialTokens { begin_of_sequence: BOS, end_of_sequence: EOS };
        Self {
            scheduler: Scheduler::new(limits, special),
            limits,
            open: BTreeMap::new(),
            live: BTreeMap::new(),
            num_choices: BTreeMap::new(),
            next_index: 0,
            admission_order: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Submit { group, prompt_len, max_new_tokens, min_new_tokens } => {
                let row = RowId { group: GroupId(group), index: self.next_index };
                self.next_index += 1;
                let limits = GenerationLimits {
                    max_new_tokens,
                    min_new_tokens,
                    max_new_tokens_per_prompt_token: None,
                };
                let request = RowRequest { row, prompt_len, limits };
                if self.scheduler.submit(request).is_ok() {
                    self.open.insert(row, request);
                }
            }
            Event::Step => self.step(),
            Event::Cancel { group } => {
                let expected: BTreeSet<RowId> =
                    self.open.keys().copied().filter(|row| row.group == GroupId(group)).collect();
                let cancelled = self.scheduler.cancel(GroupId(group));
                assert_eq!(cancelled.iter().map(|c| c.row).collect::<BTreeSet<_>>(), expected);
                for cancelled in cancelled {
                    self.open.remove(&cancelled.row);
                    if let Some(slot) = cancelled.slot {
                        assert_eq!(self.live.remove(&slot).map(|(row, _)| row), Some(cancelled.row));
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        let plan = self.scheduler.schedule();
        assert_eq!(plan.is_empty(), self.open.is_empty(), "a plan is empty only when there is no work");
        self.check_prefill(&plan);
        let planned: Vec<SlotId> = plan.step.iter().map(|row| row.slot).collect();
        assert_eq!(planned, self.live.keys().copied().collect::<Vec<_>>(), "every live row steps once");

        let mut choices = Vec::new();
        for step in &plan.step {
            let (row, _) = self.live[&step.slot];
            let num_choices = self.num_choices.entry(row).or_insert(0);
            let min_new_tokens = self.open[&row].limits.min_new_tokens;
            let fed = if *num_choices == 0 { BOS } else { token_of(row, *num_choices - 1, min_new_tokens) };
            assert_eq!(step.token, fed);
            assert_eq!(step.allow_stop, *num_choices >= min_new_tokens);
            let token = token_of(row, *num_choices, min_new_tokens);
            *num_choices += 1;
            choices.push(TokenChoice { slot: step.slot, token, log_probability: -1.0 });
        }
        for finished in self.scheduler.absorb(&choices) {
            let request = self.open.remove(&finished.row).expect("a row finishes once");
            assert_eq!(self.live.remove(&finished.slot).map(|(row, _)| row), Some(finished.row));
            let num_choices = self.num_choices[&finished.row];
            match finished.finish_reason {
                FinishReason::Stop => assert_eq!(finished.tokens.len() + 1, num_choices),
                FinishReason::Length => assert_eq!(finished.tokens.len(), request.limits.max_new_tokens),
            }
            assert!(num_choices <= request.limits.max_new_tokens);
            assert!(finished.tokens.len() >= request.limits.min_new_tokens);
            assert!(!finished.tokens.contains(&EOS));
            assert_eq!(finished.score, -1.0);
        }
    }

    fn check_prefill(&mut self, plan: &Plan) {
        let prefill_tokens: usize = plan.prefill.iter().map(|assignment| assignment.prompt_len).sum();
        assert!(plan.prefill.len() <= 1 || prefill_tokens <= self.limits.max_prefill_tokens);
        for assignment in &plan.prefill {
            let request = self.open[&assignment.row];
            assert_eq!(assignment.prompt_len, request.prompt_len);
            assert!(assignment.capacity_tokens >= request.prompt_len + request.limits.max_new_tokens);
            assert!(assignment.slot.0 < self.limits.max_slots);
            let before = self.live.insert(assignment.slot, (assignment.row, assignment.capacity_tokens));
            assert_eq!(before, None, "a slot holds one row");
            self.admission_order.push(assignment.row.index);
        }
        let reserved: usize = self.live.values().map(|(_, capacity)| capacity).sum();
        assert!(reserved <= self.limits.max_cache_tokens);
        assert_eq!(reserved, self.scheduler.reserved_cache_tokens());
    }
}

/// What the pretended model writes: an end now and then, where it may, by the row and the place alone.
fn token_of(row: RowId, place: usize, min_new_tokens: usize) -> u32 {
    let mixed = (row.index as usize * 31 + place * 17) % 11;
    if mixed == 0 && place >= min_new_tokens { EOS } else { EOS + 1 + mixed as u32 }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_row_ends_exactly_once_within_all_bounds(
        limits in limits(),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut caller = Caller::new(limits);
        for event in events {
            caller.apply(event);
        }
        let steps_that_suffice = caller.open.len() * 40;
        for _ in 0..steps_that_suffice {
            caller.step();
        }
        prop_assert!(caller.open.is_empty(), "left over: {:?}", caller.open);
        prop_assert!(caller.scheduler.schedule().is_empty());
        prop_assert_eq!(caller.scheduler.reserved_cache_tokens(), 0);
        prop_assert!(caller.admission_order.is_sorted(), "rows enter in the order of submission");
    }
}
