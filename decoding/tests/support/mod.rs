//! A pretended language model and the caller's side of the scheduler's contract, for all tests of this crate.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_decoding::{
    Candidates, FinishedRow, Generation, GenerationOptions, GroupId, LogitRows, Plan, RowId, RowRequest,
    Scheduler, SchedulerLimits, SlotId, SpecialTokens,
};

/// Outside every vocabulary, so that no row chooses it.
pub(crate) const BOS: u32 = 1_000_000;
pub(crate) const EOS: u32 = 2;
pub(crate) const SPECIAL: SpecialTokens =
    SpecialTokens { begin_of_sequence: BOS, end_of_sequence: EOS, first: None };

/// Room for everything that a test does at once.
pub(crate) const ROOMY: SchedulerLimits = SchedulerLimits {
    max_slots: 256,
    max_cache_tokens: 100_000,
    cache_block_tokens: 16,
    max_prefill_tokens: 1000,
};

/// Logits as a pure function of the row's name and its output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FakeModel {
    pub(crate) vocab_size: u32,
    /// Logits are spread over minus this to plus this.
    pub(crate) spread: f32,
    /// Added to the end token's logit: how fast sequences end.
    pub(crate) end_bonus: f32,
}

impl FakeModel {
    pub(crate) fn logits(&self, row: RowId, written: &[u32]) -> Vec<f32> {
        let words =
            [u64::from(row.index)].into_iter().chain(written.iter().map(|&token| u64::from(token) + 1));
        let seed = words.fold(0x9E37_79B9_7F4A_7C15, |state, word| mix(state ^ word));
        let logit = |token: u32| {
            let uniform = (mix(seed ^ (u64::from(token) << 32)) >> 40) as f32 / (1 << 24) as f32;
            let bonus = if token == EOS { self.end_bonus } else { 0.0 };
            (2.0 * uniform - 1.0) * self.spread + bonus
        };
        (0..self.vocab_size).map(logit).collect()
    }
}

/// The finalizer of splitmix64.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Runs plans on the pretended model and checks that each can be run.
pub(crate) struct Caller {
    pub(crate) scheduler: Scheduler,
    pub(crate) model: FakeModel,
    limits: SchedulerLimits,
    plan: Plan,
    caches: BTreeMap<SlotId, Cache>,
    /// Rows in the order in which they were prefilled.
    pub(crate) admitted: Vec<RowId>,
    /// Tokens that the model never writes.
    pub(crate) impossible: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Cache {
    row: RowId,
    prompt_len: usize,
    capacity_tokens: usize,
    candidates: Option<Candidates>,
    fed: Vec<u32>,
}

impl Caller {
    pub(crate) fn new(model: FakeModel, limits: SchedulerLimits) -> Self {
        let scheduler = Scheduler::new(limits, SPECIAL);
        Self {
            scheduler,
            model,
            limits,
            plan: Plan::default(),
            caches: BTreeMap::new(),
            admitted: Vec::new(),
            impossible: Vec::new(),
        }
    }

    /// One plan and its step. `None` if there was nothing to do.
    pub(crate) fn step(&mut self) -> Option<Vec<FinishedRow>> {
        let Self { scheduler, model, limits, plan, caches, admitted, impossible } = self;
        scheduler.schedule(plan);
        if plan.is_empty() {
            assert!(caches.is_empty(), "every slot is released");
            return None;
        }
        plan.release.iter().for_each(|slot| drop(caches.remove(slot)));
        for entry in &plan.prefill {
            assert!(entry.slot.0 < limits.max_slots);
            let cache = Cache {
                row: entry.row,
                prompt_len: entry.prompt_len,
                capacity_tokens: entry.capacity_tokens,
                candidates: entry.candidates.clone(),
                fed: Vec::new(),
            };
            assert!(caches.insert(entry.slot, cache).is_none(), "a newcomer's slot is empty");
            admitted.push(entry.row);
        }
        for fork in &plan.forks {
            assert!(fork.to.0 < limits.max_slots);
            let copy = caches[&fork.from].clone();
            assert_eq!(copy.capacity_tokens, fork.capacity_tokens);
            assert!(caches.insert(fork.to, copy).is_none(), "a copy goes to an empty slot");
        }
        let prefill_tokens: usize = plan.prefill.iter().map(|entry| entry.prompt_len).sum();
        assert!(plan.prefill.len() <= 1 || prefill_tokens <= limits.max_prefill_tokens);
        assert!(cached_tokens(caches, limits.cache_block_tokens) <= scheduler.reserved_cache_tokens());
        assert!(scheduler.reserved_cache_tokens() <= limits.max_cache_tokens);

        let (mut logits, mut ends) = (Vec::new(), Vec::new());
        let mut stepped: Vec<SlotId> = Vec::new();
        for step in &plan.step {
            let cache = caches.get_mut(&step.slot).expect("only occupied slots step");
            assert_eq!(
                step.token == BOS,
                cache.fed.is_empty(),
                "the first token, and only the first, is BOS"
            );
            cache.fed.push(step.token);
            assert!(
                cache.prompt_len + cache.fed.len() <= cache.capacity_tokens,
                "nothing outgrows its cache"
            );
            let mut of_all = model.logits(cache.row, &cache.fed[1..]);
            impossible.iter().for_each(|&token| of_all[token as usize] = f32::NEG_INFINITY);
            match &cache.candidates {
                None => logits.extend(of_all),
                Some(candidates) => {
                    logits.extend(candidates.tokens().iter().map(|&token| of_all[token as usize]));
                }
            }
            ends.push(logits.len());
            stepped.push(step.slot);
        }
        stepped.sort_unstable();
        assert_eq!(stepped, caches.keys().copied().collect::<Vec<_>>(), "every live sequence steps once");
        Some(scheduler.absorb(LogitRows::ending(&logits, &ends)))
    }

    /// Steps until there is nothing to do.
    pub(crate) fn run(&mut self) -> BTreeMap<RowId, FinishedRow> {
        let mut finished = BTreeMap::new();
        while let Some(rows) = self.step() {
            for row in rows {
                assert!(finished.insert(row.row, row).is_none(), "a row finishes once");
            }
        }
        finished
    }
}

/// Tokens of cache in use: the full blocks of each row's prompt once, all others for each of its sequences.
fn cached_tokens(caches: &BTreeMap<SlotId, Cache>, block_tokens: usize) -> usize {
    let mut shared = BTreeMap::new();
    let mut tokens = 0;
    for cache in caches.values() {
        let prompt_blocks = cache.prompt_len / block_tokens * block_tokens;
        shared.insert(cache.row, prompt_blocks);
        tokens += cache.capacity_tokens - prompt_blocks;
    }
    tokens + shared.values().sum::<usize>()
}

pub(crate) fn row(group: u64, index: u32) -> RowId {
    RowId { group: GroupId(group), index }
}

/// A request whose random stream is its index.
pub(crate) fn request(row: RowId, prompt_len: usize, generation: Generation) -> RowRequest {
    RowRequest { row, prompt_len, generation: Arc::new(generation), random_stream: row.index.into() }
}

pub(crate) fn greedy(min_new_tokens: usize, max_new_tokens: usize) -> Generation {
    Generation::of_new_tokens(min_new_tokens, max_new_tokens)
}

pub(crate) fn beam(beams: u32, max_new_tokens: usize) -> Generation {
    Generation::new(GenerationOptions { beams, ..GenerationOptions::default() }, max_new_tokens)
}

pub(crate) fn plain_sampling() -> GenerationOptions {
    GenerationOptions { temperature: Some(1.0), seed: 4, ..GenerationOptions::default() }
}

pub(crate) fn sampling(n_best: u32, max_new_tokens: usize) -> Generation {
    Generation::new(GenerationOptions { n_best, ..plain_sampling() }, max_new_tokens)
}

/// The result of one request alone.
pub(crate) fn alone(model: FakeModel, request: RowRequest) -> FinishedRow {
    let mut caller = Caller::new(model, ROOMY);
    let row = request.row;
    caller.scheduler.submit(request).expect("the request is sound and there is room");
    caller.run().remove(&row).expect("every row finishes")
}

/// Log-probabilities in f64.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit - max) - sum.ln()).collect()
}
