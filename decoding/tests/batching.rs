//! What holds for every mix of requests, every batch they meet in, and every order of events.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use baton_decoding::{
    BeamOptions, EarlyStopping, FinishedRow, Generation, GroupId, Method, RowId, RowRequest, SamplingOptions,
    SchedulerLimits,
};
use proptest::prelude::*;
use support::{Caller, FakeModel, PLAIN_SAMPLING, alone, greedy, request, row};

const MODEL: FakeModel = FakeModel { vocab_size: 40, spread: 4.0, end_bonus: 3.0 };

#[derive(Debug, Clone)]
enum Event {
    Submit { group: u64, prompt_len: usize, generation: Generation },
    Step,
    Cancel { group: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4u64, 1..60usize, generation())
            .prop_map(|(group, prompt_len, generation)| Event::Submit { group, prompt_len, generation }),
        4 => Just(Event::Step),
        1 => (0..4u64).prop_map(|group| Event::Cancel { group }),
    ]
}

fn generation() -> impl Strategy<Value = Generation> {
    let constraints = (1..30usize, 0..6usize, prop::sample::select(vec![1.0, 1.3_f32]), 0..4usize);
    (method(), constraints, 1..4usize, prop::collection::vec(3..8_u32, 0..2)).prop_map(
        |(method, (max_new_tokens, min, repetition_penalty, no_repeat_ngram), num_outputs, stop_tokens)| {
            let num_outputs = match method {
                Method::Greedy => 1,
                Method::Beam(options) => num_outputs.min(options.num_beams),
                Method::Sample(_) => num_outputs,
            };
            let limits = greedy(min.min(max_new_tokens), max_new_tokens);
            Generation { method, num_outputs, repetition_penalty, no_repeat_ngram, stop_tokens, ..limits }
        },
    )
}

fn method() -> impl Strategy<Value = Method> {
    let early_stopping =
        prop::sample::select(vec![EarlyStopping::Heuristic, EarlyStopping::AtOnce, EarlyStopping::Never]);
    prop_oneof![
        Just(Method::Greedy),
        (1..5usize, prop::sample::select(vec![0.0, 0.7, 1.0, 2.0]), early_stopping).prop_map(
            |(num_beams, length_penalty, early_stopping)| Method::Beam(BeamOptions {
                num_beams,
                length_penalty,
                early_stopping,
            })
        ),
        (prop::option::of(1..20usize), prop::option::of(0.3..1.0_f32), prop::option::of(0.01..0.5_f32))
            .prop_map(|(top_k, top_p, min_p)| Method::Sample(SamplingOptions {
                temperature: 1.5,
                top_k,
                top_p,
                min_p,
                ..PLAIN_SAMPLING
            })),
    ]
}

fn limits() -> impl Strategy<Value = SchedulerLimits> {
    (1..10usize, 32..400usize, 1..20usize, 1..80usize).prop_map(
        |(max_slots, max_cache_tokens, cache_block_tokens, max_prefill_tokens)| SchedulerLimits {
            max_slots,
            max_cache_tokens,
            cache_block_tokens,
            max_prefill_tokens,
        },
    )
}

fn check_outputs(request: &RowRequest, finished: &FinishedRow) {
    let generation = &request.generation;
    assert_eq!(finished.outputs.len(), generation.num_outputs);
    assert!(finished.outputs.is_sorted_by(|a, b| a.score >= b.score), "best first");
    for output in &finished.outputs {
        assert!(output.num_tokens <= generation.limits.max_new_tokens);
        assert!(output.tokens.len() >= generation.limits.min_new_tokens);
        assert!(output.num_tokens - output.tokens.len() <= 1);
        assert!(!output.tokens.contains(&support::EOS));
        assert!(output.tokens.iter().all(|token| !generation.stop_tokens.contains(token)));
        let ngram = generation.no_repeat_ngram.max(1);
        let ngrams: Vec<&[u32]> = output.tokens.windows(ngram).collect();
        if generation.no_repeat_ngram > 0 {
            assert_eq!(ngrams.iter().collect::<BTreeSet<_>>().len(), ngrams.len(), "no n-gram comes twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_ends_once_within_its_bounds_as_it_would_have_alone(
        limits in limits(),
        events in prop::collection::vec(event(), 1..100),
    ) {
        let mut caller = Caller::new(MODEL, limits);
        let mut open: BTreeMap<RowId, RowRequest> = BTreeMap::new();
        let mut accepted = Vec::new();
        let mut finished = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            match event {
                Event::Submit { group, prompt_len, generation } => {
                    let request = request(row(group, index as u32), prompt_len, generation);
                    if caller.scheduler.submit(request.clone()).is_ok() {
                        accepted.push(request.row);
                        open.insert(request.row, request);
                    }
                }
                Event::Step => {
                    let has_work = open.len() > finished.len();
                    let rows = caller.step();
                    prop_assert!(rows.is_some() || !has_work, "a plan is empty only when there is no work");
                    finished.extend(rows.into_iter().flatten());
                }
                Event::Cancel { group } => {
                    let of_group = |row: &RowId| row.group == GroupId(group);
                    let done: BTreeSet<RowId> = finished.iter().map(|row| row.row).collect();
                    let expected: BTreeSet<RowId> =
                        open.keys().copied().filter(|row| of_group(row) && !done.contains(row)).collect();
                    let cancelled: BTreeSet<RowId> = caller.scheduler.cancel(GroupId(group)).into_iter().collect();
                    prop_assert_eq!(&cancelled, &expected);
                    open.retain(|row, _| !cancelled.contains(row));
                }
            }
        }
        finished.extend(caller.run().into_values());
        prop_assert_eq!(finished.len(), open.len());
        prop_assert_eq!((caller.scheduler.reserved_cache_tokens(), caller.scheduler.num_reserved_slots()), (0, 0));
        let mut in_order = accepted.iter();
        prop_assert!(caller.admitted.iter().all(|row| in_order.any(|next| next == row)), "none is overtaken");
        for finished in finished {
            let request = open.remove(&finished.row).expect("a row finishes once");
            check_outputs(&request, &finished);
            prop_assert_eq!(&finished, &alone(MODEL, request));
        }
    }
}
