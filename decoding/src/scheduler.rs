//! The continuous batch: which rows wait, which live in slots, and the work of the next step.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::drafting::Draft;
use crate::live_row::{LiveRow, Needs};
use crate::search::{Search, SearchBounds, SearchScratch};
use crate::{
    Candidates, DraftCounts, DraftOptions, DraftStep, FinishedRow, Generation, GroupId, LogitRows, Plan,
    Rewind, RowId, RowRequest, SlotAssignment, SlotId, StepRow,
};

/// The bounds of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerLimits {
    /// Sequences decoded at once; at least 1. More share the cost of reading the weights, each costs its part
    /// of the cache.
    pub max_slots: usize,
    /// Tokens that the KV cache holds, all sequences together. A whole number of blocks counts; the rest is
    /// not used.
    pub max_cache_tokens: usize,
    /// The cache gives out memory in blocks of this many tokens; at least 1. A sequence takes whole blocks.
    pub cache_block_tokens: usize,
    /// Prompt tokens prefilled between two steps. Lower: live sequences wait less for newcomers. A prompt is
    /// never cut, since its tokens may see each other both ways; a longer one goes alone. Every step takes
    /// all live sequences one token further, so neither side starves.
    pub max_prefill_tokens: usize,
}

/// The tokens that begin and end a row's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Fed in a row's first step.
    pub begin_of_sequence: u32,
    /// Ends a sequence when chosen.
    pub end_of_sequence: u32,
    /// The forced first token of every sequence, unless its row asks for another.
    pub first: Option<u32>,
}

/// Why a row was not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// There is nothing to continue.
    #[error("the prompt is empty: a row needs at least one prompt token")]
    EmptyPrompt,
    /// It has more sequences than the batch has slots.
    #[error(
        "{num_sequences} sequences of one row need as many slots, the decoder has {max_slots}: use fewer \
         beams or outputs, or give the decoder more slots"
    )]
    TooManySequences {
        /// Beams or samples.
        num_sequences: usize,
        /// Slots there are.
        max_slots: usize,
    },
    /// It would not fit if it were alone.
    #[error(
        "a prompt of {prompt_len} tokens and {num_sequences} x up to {max_new_tokens} new ones need \
         {needed_cache_tokens} tokens of cache, the decoder has {max_cache_tokens}: shorten the prompt, \
         lower max_new_tokens, use fewer beams or outputs, or give the decoder a larger cache"
    )]
    NeverFits {
        /// Length of the prompt, tokens.
        prompt_len: usize,
        /// The row's limit of new tokens.
        max_new_tokens: usize,
        /// Beams or samples.
        num_sequences: usize,
        /// Tokens of cache it needs, rounded up to blocks.
        needed_cache_tokens: usize,
        /// Tokens of cache there are, rounded down to blocks.
        max_cache_tokens: usize,
    },
}

/// The continuous batch as a state machine.
///
/// Rows enter in the order of submission; only second tries overtake, so none starves. A row enters only with
/// its worst case reserved, in slots and in cache, so no live row is ever evicted.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    special: SpecialTokens,
    waiting: VecDeque<WaitingRow>,
    /// In the order of admission.
    live: Vec<LiveRow>,
    slot_is_free: Vec<bool>,
    num_free_slots: usize,
    free_cache_tokens: usize,
    /// Slots vacated since the last plan.
    vacated: Vec<SlotId>,
    /// Whether and how drafts are made.
    drafting: Option<DraftOptions>,
    /// Wrong drafts since the last plan, in the cache of the model that checks them and of the one that made
    /// them.
    wrong: Vec<Rewind>,
    wrong_of_drafter: Vec<Rewind>,
    scratch: SearchScratch,
}

#[derive(Debug)]
struct WaitingRow {
    row: RowId,
    prompt_len: usize,
    generation: Arc<Generation>,
    random_stream: u64,
    needs: Needs,
}

impl Scheduler {
    /// An empty batch.
    ///
    /// # Panics
    /// `max_slots` or `cache_block_tokens` is 0.
    #[must_use]
    pub fn new(limits: SchedulerLimits, special: SpecialTokens) -> Self {
        assert!(limits.max_slots > 0, "max_slots is at least 1");
        assert!(limits.cache_block_tokens > 0, "cache_block_tokens is at least 1");
        Self {
            limits,
            special,
            waiting: VecDeque::new(),
            live: Vec::new(),
            slot_is_free: vec![true; limits.max_slots],
            num_free_slots: limits.max_slots,
            free_cache_tokens: limits.max_cache_tokens / limits.cache_block_tokens
                * limits.cache_block_tokens,
            vacated: Vec::new(),
            drafting: None,
            wrong: Vec::new(),
            wrong_of_drafter: Vec::new(),
            scratch: SearchScratch::default(),
        }
    }

    /// A batch in which rows of one sequence are drafted for. Between [`schedule`](Self::schedule) and the
    /// step, the caller lets the drafting model carry out [`schedule_drafts`](Self::schedule_drafts) and
    /// hands its logits to [`absorb_drafts`](Self::absorb_drafts). It repeats this until there is nothing to
    /// draft, and then calls [`add_drafts`](Self::add_drafts). The drafting model also carries out a plan's
    /// releases, prefills and forks.
    #[must_use]
    pub fn with_drafts(self, options: DraftOptions) -> Self {
        Self { drafting: Some(options), ..self }
    }

    /// Puts a row at the end of the queue.
    ///
    /// # Errors
    /// The row could never run; nothing has changed.
    pub fn submit(&mut self, request: RowRequest) -> Result<(), SubmitError> {
        let row = self.accepted(request)?;
        self.waiting.push_back(row);
        Ok(())
    }

    /// Puts a row at the head of the queue: the second try of one that has just left the batch. There are
    /// thus never more second tries waiting than rows have lived at a time.
    ///
    /// # Errors
    /// The row could never run; nothing has changed.
    pub fn submit_again(&mut self, request: RowRequest) -> Result<(), SubmitError> {
        let row = self.accepted(request)?;
        self.waiting.push_front(row);
        Ok(())
    }

    fn accepted(&self, request: RowRequest) -> Result<WaitingRow, SubmitError> {
        if request.prompt_len == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let needs = self.needs_of(&request);
        let (num_sequences, max_slots) = (needs.num_slots, self.limits.max_slots);
        if num_sequences > max_slots {
            return Err(SubmitError::TooManySequences { num_sequences, max_slots });
        }
        if needs.cache_tokens > self.max_cache_tokens() {
            return Err(SubmitError::NeverFits {
                prompt_len: request.prompt_len,
                max_new_tokens: needs.max_new_tokens,
                num_sequences,
                needed_cache_tokens: needs.cache_tokens,
                max_cache_tokens: self.max_cache_tokens(),
            });
        }
        let RowRequest { row, prompt_len, generation, random_stream } = request;
        Ok(WaitingRow { row, prompt_len, generation, random_stream, needs })
    }

    /// Lets rows in, lowest slot first, and overwrites `plan` with the next step. The plan is empty only if
    /// no row waits or lives and every slot was released.
    ///
    /// The caller runs the plan and, if it has a step, hands the logits to [`absorb`](Self::absorb) before it
    /// asks for the next.
    pub fn schedule(&mut self, plan: &mut Plan) {
        plan.clear();
        plan.release.append(&mut self.vacated);
        plan.rewind.append(&mut self.wrong);
        self.admit(&mut plan.prefill);
        for live in &mut self.live {
            plan.forks.append(&mut live.forks);
            live.begin_draft();
        }
        self.write_step(&mut plan.step);
    }

    fn write_step(&mut self, step: &mut Vec<StepRow>) {
        step.clear();
        for live in &mut self.live {
            live.first_step_row = Some(step.len());
            step.extend(live.search.last_tokens().zip(&live.places).map(|(token, &place)| StepRow {
                slot: live.slots[place],
                token: token.unwrap_or(self.special.begin_of_sequence),
            }));
            let slot = live.slots[live.places[0]];
            step.extend(live.draft.iter().flat_map(Draft::tokens).map(|&token| StepRow { slot, token }));
        }
    }

    /// Overwrites `drafts` with the drafting model's next work; its step is empty when every row has its
    /// draft.
    pub fn schedule_drafts(&mut self, drafts: &mut DraftStep) {
        let DraftStep { rewind, step } = drafts;
        rewind.clear();
        step.clear();
        rewind.append(&mut self.wrong_of_drafter);
        for live in &mut self.live {
            live.draft_step_row = None;
            if let Some(draft) = live.draft.as_mut().filter(|draft| draft.is_going_on()) {
                draft.feed(live.slots[live.places[0]], step);
                live.draft_step_row = Some(step.len() - 1);
            }
        }
    }

    /// Takes in the logits of the drafting model's step: one more guess for each row that it fed.
    ///
    /// # Panics
    /// There are fewer rows of logits than the step has.
    pub fn absorb_drafts(&mut self, logits: LogitRows<'_>) {
        let scratch = &mut self.scratch;
        for live in &mut self.live {
            if let (Some(draft), Some(row)) = (&mut live.draft, live.draft_step_row.take()) {
                draft.absorb(|guess| guess.advance((logits, row), scratch));
            }
        }
    }

    /// Puts the drafts into the plan's step.
    pub fn add_drafts(&mut self, plan: &mut Plan) {
        self.write_step(&mut plan.step);
    }

    /// Takes in the logits of the plan's step and chooses; returns the rows that are done, in the order in
    /// which they had entered. Rows cancelled meanwhile are passed over.
    ///
    /// # Panics
    /// There are fewer rows of logits than the step has, or a token that is forbidden is outside the
    /// vocabulary.
    pub fn absorb(&mut self, logits: LogitRows<'_>) -> Vec<FinishedRow> {
        let mut finished = Vec::new();
        let mut index = 0;
        while let Some(live) = self.live.get_mut(index) {
            index += 1;
            let Some(first_row) = live.first_step_row.take() else { continue };
            let num_accepted = live.advance((logits, first_row), &mut self.scratch);
            live.count_draft(num_accepted);
            if live.search.parents().is_empty() {
                index -= 1;
                let live = self.live.remove(index);
                self.vacate(&live);
                finished.push(FinishedRow {
                    row: live.row,
                    outputs: live.search.into_outputs(),
                    drafts: live.draft_counts,
                });
            } else {
                live.end_draft(num_accepted, [&mut self.wrong, &mut self.wrong_of_drafter]);
                live.move_sequences(&mut self.vacated);
            }
        }
        finished
    }

    /// Drops all rows of a group; returns them, those that waited first.
    pub fn cancel(&mut self, group: GroupId) -> Vec<RowId> {
        let mut cancelled = Vec::new();
        self.waiting.retain(|waiting| {
            let keep = waiting.row.group != group;
            if !keep {
                cancelled.push(waiting.row);
            }
            keep
        });
        let (dropped, kept) =
            std::mem::take(&mut self.live).into_iter().partition(|live| live.row.group == group);
        self.live = kept;
        let dropped: Vec<LiveRow> = dropped;
        for live in dropped {
            self.vacate(&live);
            cancelled.push(live.row);
        }
        cancelled
    }

    /// Rows that wait for slots.
    #[must_use]
    pub fn num_waiting_rows(&self) -> usize {
        self.waiting.len()
    }

    /// Rows in the batch.
    #[must_use]
    pub fn num_live_rows(&self) -> usize {
        self.live.len()
    }

    /// Slots that live rows have reserved.
    #[must_use]
    pub fn num_reserved_slots(&self) -> usize {
        self.limits.max_slots - self.num_free_slots
    }

    /// Tokens of cache that live rows have reserved.
    #[must_use]
    pub fn reserved_cache_tokens(&self) -> usize {
        self.max_cache_tokens() - self.free_cache_tokens
    }

    fn max_cache_tokens(&self) -> usize {
        let block = self.limits.cache_block_tokens;
        self.limits.max_cache_tokens / block * block
    }

    fn needs_of(&self, request: &RowRequest) -> Needs {
        let block = self.limits.cache_block_tokens;
        let num_slots = request.generation.num_sequences();
        let max_new_tokens = request.generation.max_new_tokens_for(request.prompt_len);
        // The prompt, the begin-of-sequence token, and every written token but the last, which is never fed.
        let capacity_tokens = request
            .prompt_len
            .saturating_add(max_new_tokens)
            .checked_next_multiple_of(block)
            .unwrap_or(usize::MAX / block * block);
        let shared_tokens = request.prompt_len / block * block;
        let cache_tokens =
            (capacity_tokens - shared_tokens).saturating_mul(num_slots).saturating_add(shared_tokens);
        Needs { num_slots, max_new_tokens, capacity_tokens, cache_tokens }
    }

    fn admit(&mut self, prefill: &mut Vec<SlotAssignment>) {
        let mut prefill_tokens = 0;
        while let Some(next) = self.waiting.pop_front_if(|next| {
            let is_within_budget = prefill_tokens + next.prompt_len <= self.limits.max_prefill_tokens;
            next.needs.num_slots <= self.num_free_slots
                && next.needs.cache_tokens <= self.free_cache_tokens
                && (is_within_budget || prefill.is_empty())
        }) {
            prefill_tokens += next.prompt_len;
            let (live, candidates) = self.enter(&next);
            prefill.push(SlotAssignment {
                row: next.row,
                slot: live.slots[0],
                prompt_len: next.prompt_len,
                capacity_tokens: next.needs.capacity_tokens,
                candidates,
            });
            self.live.push(live);
        }
    }

    fn enter(&mut self, waiting: &WaitingRow) -> (LiveRow, Option<Candidates>) {
        let Needs { num_slots, max_new_tokens, cache_tokens, .. } = waiting.needs;
        self.free_cache_tokens -= cache_tokens;
        self.num_free_slots -= num_slots;
        let free = self.slot_is_free.iter_mut().enumerate().filter(|(_, is_free)| **is_free);
        let slots: Vec<SlotId> = free
            .take(num_slots)
            .map(|(index, is_free)| {
                *is_free = false;
                SlotId(index)
            })
            .collect();
        let end_of_sequence = self.special.end_of_sequence;
        let first_token = waiting.generation.first_token.or(self.special.first);
        let candidates = waiting.generation.candidates(end_of_sequence, first_token);
        let bounds = SearchBounds {
            generation: Arc::clone(&waiting.generation),
            candidates: candidates.clone(),
            end_of_sequence,
            first_token,
            min_new_tokens: waiting.generation.min_new_tokens_for(waiting.prompt_len),
            max_new_tokens,
        };
        let live = LiveRow {
            row: waiting.row,
            needs: waiting.needs,
            search: Search::new(bounds, waiting.random_stream),
            slots,
            places: vec![0],
            next_places: Vec::new(),
            forks: Vec::new(),
            first_step_row: None,
            draft: self.drafting.filter(|_| num_slots == 1).map(Draft::new),
            draft_counts: DraftCounts::default(),
            draft_step_row: None,
        };
        (live, candidates)
    }

    fn vacate(&mut self, live: &LiveRow) {
        self.free_cache_tokens += live.needs.cache_tokens;
        self.num_free_slots += live.slots.len();
        live.slots.iter().for_each(|slot| self.slot_is_free[slot.0] = true);
        for wrong in [&mut self.wrong, &mut self.wrong_of_drafter] {
            wrong.retain(|rewind| !live.slots.contains(&rewind.slot));
        }
        self.vacated.extend(&live.slots);
    }
}
