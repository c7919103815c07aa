//! Between the entries and the exits of rows, a step takes no memory from the allocator.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use baton_decoding::{Generation, LogitRows, Plan, Scheduler};
use support::{FakeModel, ROOMY, SPECIAL, beam, greedy, request, row, sampling};

const MODEL: FakeModel = FakeModel { vocab_size: 40, spread: 2.0, end_bonus: -100.0 };
const NUM_ROWS: u32 = 16;
const NUM_STEPS: usize = 60;

/// Allocations of each step, the first two excepted, in which rows enter and their samples part.
fn allocations(generation: &Generation) -> Vec<u64> {
    let mut scheduler = Scheduler::new(ROOMY, SPECIAL);
    for index in 0..NUM_ROWS {
        scheduler.submit(request(row(0, index), 8, generation.clone())).unwrap();
    }
    let mut plan = Plan::default();
    let steps = (0..NUM_STEPS).map(|step| {
        let scheduled = allocation_counter::measure(|| scheduler.schedule(&mut plan));
        let logits: Vec<f32> = plan
            .step
            .iter()
            .flat_map(|fed| MODEL.logits(row(0, fed.slot.0 as u32), &[step as u32, fed.token]))
            .collect();
        let absorbed = allocation_counter::measure(|| {
            let finished = scheduler.absorb(LogitRows::new(&logits, MODEL.vocab_size as usize));
            assert!(finished.is_empty(), "no row ends while it is watched");
        });
        scheduled.count_total + absorbed.count_total
    });
    steps.skip(2).collect()
}

#[test]
fn continuing_rows_take_no_new_memory() {
    for generation in [greedy(0, 200), sampling(1, 200), sampling(3, 200)] {
        let allocations = allocations(&generation);
        assert_eq!(allocations.iter().sum::<u64>(), 0, "{:?}: {allocations:?}", generation.options);
    }
}

#[test]
fn beams_take_memory_only_where_a_list_of_copies_is_longer_than_ever_before() {
    let allocations = allocations(&beam(4, 200));
    let later: u64 = allocations[NUM_STEPS / 2..].iter().sum();
    assert!(later <= 3, "{allocations:?}");
}
