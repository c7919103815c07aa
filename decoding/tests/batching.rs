//! Properties of every mix of requests, every batch that they share, and every order of events.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use baton_decoding::{
    EarlyStopping, FinishedRow, Generation, GenerationOptions, GroupId, Method, RowId, RowRequest,
    SchedulerLimits,
};
use proptest::prelude::*;
use support::{Caller, FakeModel, alone, plain_sampling, request, row};

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
    let constraints = (1..30_u32, 0..6_u32, prop::sample::select(vec![1.0, 1.3]), 0..4_u32);
    (of_some_method(), constraints, 1..4_u32, prop::collection::vec(3..8_u32, 0..2)).prop_map(
        |(options, (max_new_tokens, min, repetition_penalty, no_repeat_ngram), n_best, stop_tokens)| {
            let n_best = match options.method() {
                Method::Greedy => 1,
                Method::Beam => n_best.min(options.beams),
                Method::Sample => n_best,
            };
            let min_new_tokens = min.min(max_new_tokens);
            let options =
                GenerationOptions { n_best, repetition_penalty, no_repeat_ngram, min_new_tokens, ..options };
            options.validate().expect("what is drawn is allowed");
            Generation { stop_tokens, ..Generation::new(options, max_new_tokens as usize) }
        },
    )
}

fn of_some_method() -> impl Strategy<Value = GenerationOptions> {
    let early_stopping =
        prop::sample::select(vec![EarlyStopping::Heuristic, EarlyStopping::AtOnce, EarlyStopping::Never]);
    prop_oneof![
        Just(GenerationOptions::default()),
        (2..5_u32, prop::sample::select(vec![0.0, 0.7, 1.0, 2.0]), early_stopping).prop_map(
            |(beams, length_penalty, early_stopping)| GenerationOptions {
                beams,
                length_penalty,
                early_stopping,
                ..GenerationOptions::default()
            }
        ),
        (prop::option::of(1..20_u32), prop::option::of(0.3..1.0), prop::option::of(0.01..0.5)).prop_map(
            |(top_k, top_p, min_p)| GenerationOptions {
                temperature: Some(1.5),
                top_k,
                top_p,
                min_p,
                ..plain_sampling()
            }
        ),
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
    assert_eq!(finished.outputs.len(), generation.options.n_best as usize);
    assert!(finished.outputs.is_sorted_by(|a, b| a.score >= b.score), "best first");
    for output in &finished.outputs {
        assert!(output.num_tokens <= generation.max_new_tokens());
        assert!(output.tokens.len() >= generation.options.min_new_tokens as usize);
        assert!(output.num_tokens - output.tokens.len() <= 1);
        assert!(!output.tokens.contains(&support::EOS));
        assert!(output.tokens.iter().all(|token| !generation.stop_tokens.contains(token)));
        let ngram = generation.options.no_repeat_ngram.max(1) as usize;
        let ngrams: Vec<&[u32]> = output.tokens.windows(ngram).collect();
        if generation.options.no_repeat_ngram > 0 {
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
        prop_assert_eq!(caller.scheduler.reserved_cache_tokens(), 0);
        prop_assert_eq!(caller.scheduler.num_reserved_slots(), 0);
        let mut in_order = accepted.iter();
        prop_assert!(caller.admitted.iter().all(|row| in_order.any(|next| next == row)), "none is overtaken");
        for finished in finished {
            let request = open.remove(&finished.row).expect("a row finishes once");
            check_outputs(&request, &finished);
            prop_assert_eq!(&finished, &alone(MODEL, request));
        }
    }
}
