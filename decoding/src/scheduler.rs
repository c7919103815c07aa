//! The continuous batch: which rows wait, which live in a slot, and what the next step does.

use std::collections::VecDeque;

use crate::{
    CancelledRow, FinishReason, FinishedRow, GroupId, LimitsError, RowId, RowRequest, SlotId, StepRow,
    TokenChoice,
};

/// What bounds the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerLimits {
    /// Rows decoded at once; at least 1. More rows share the cost of reading the weights, each costs its part of the cache.
    pub max_slots: usize,
    /// Tokens that the KV cache holds, all rows together. A whole number of blocks counts; the rest is not used.
    pub max_cache_tokens: usize,
    /// The cache gives out memory in blocks of this many tokens; at least 1. A row takes whole blocks.
    pub cache_block_tokens: usize,
    /// Prompt tokens prefilled between two steps. Lower: live rows wait less for newcomers. A longer prompt goes alone.
    pub max_prefill_tokens: usize,
}

/// The tokens that begin and end what a row writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Fed in a row's first step.
    pub begin_of_sequence: u32,
    /// Ends a row when chosen.
    pub end_of_sequence: u32,
}

/// Why a row was not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Its limits contradict each other.
    #[error("the generation limits cannot be obeyed")]
    Limits(#[from] LimitsError),
    /// There is nothing to continue.
    #[error("the prompt is empty: a row needs at least one prompt token")]
    EmptyPrompt,
    /// It would not fit if it were alone.
    #[error(
        "a prompt of {prompt_len} tokens and up to {max_new_tokens} new ones need {needed_cache_tokens} tokens of cache, \
         the decoder has {max_cache_tokens}: shorten the prompt, lower max_new_tokens, or give the decoder a larger cache"
    )]
    NeverFits {
        /// Length of the prompt, tokens.
        prompt_len: usize,
        /// The row's limit of new tokens.
        max_new_tokens: usize,
        /// Tokens of cache it needs, rounded up to blocks.
        needed_cache_tokens: usize,
        /// Tokens of cache there are, rounded down to blocks.
        max_cache_tokens: usize,
    },
}

/// What the caller does next: prefill the newcomers, then run one step over all live rows, the newcomers included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Rows that enter the batch, to be prefilled together.
    pub prefill: Vec<SlotAssignment>,
    /// One entry per live row, by slot.
    pub step: Vec<StepRow>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.step.is_empty()
    }
}

/// A waiting row gets a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotAssignment {
    /// The row.
    pub row: RowId,
    /// Its slot until it is done.
    pub slot: SlotId,
    /// Length of its prompt, tokens.
    pub prompt_len: usize,
    /// Cache reserved for it: prompt and all it may write, whole blocks, tokens.
    pub capacity_tokens: usize,
}

/// The continuous batch as a state machine.
///
/// Rows enter in the order of submission; none is overtaken, so none starves. A row enters only with its worst case reserved, so
/// no live row is ever evicted.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    special: SpecialTokens,
    waiting: VecDeque<WaitingRow>,
    slots: Vec<Option<LiveRow>>,
    free_cache_tokens: usize,
}

#[derive(Debug)]
struct WaitingRow {
    row: RowId,
    prompt_len: usize,
    min_new_tokens: usize,
    max_new_tokens: usize,
    capacity_tokens: usize,
}

#[derive(Debug)]
struct LiveRow {
    request: WaitingRow,
    tokens: Vec<u32>,
    log_probability_sum: f64,
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
        let free_cache_tokens =
            limits.max_cache_tokens / limits.cache_block_tokens * limits.cache_block_tokens;
        let slots = std::iter::repeat_with(|| None).take(limits.max_slots).collect();
        Self { limits, special, waiting: VecDeque::new(), slots, free_cache_tokens }
    }

    /// Puts a row at the end of the queue.
    ///
    /// # Errors
    /// The row could never run; nothing has changed.
    pub fn submit(&mut self, request: RowRequest) -> Result<(), SubmitError> {
        request.limits.check()?;
        if request.prompt_len == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let max_new_tokens = request.limits.max_new_tokens_for(request.prompt_len);
        // The prompt, the begin-of-sequence token, and every written token but the last, which is never fed.
        let needed_cache_tokens = request
            .prompt_len
            .saturating_add(max_new_tokens)
            .checked_next_multiple_of(self.limits.cache_block_tokens)
            .unwrap_or(usize::MAX);
        if needed_cache_tokens > self.max_cache_tokens() {
            return Err(SubmitError::NeverFits {
                prompt_len: request.prompt_len,
                max_new_tokens,
                needed_cache_tokens,
                max_cache_tokens: self.max_cache_tokens(),
            });
        }
        self.waiting.push_back(WaitingRow {
            row: request.row,
            prompt_len: request.prompt_len,
            min_new_tokens: request.limits.min_new_tokens,
            max_new_tokens,
            capacity_tokens: needed_cache_tokens,
        });
        Ok(())
    }

    /// Lets rows in, lowest slot first, and says what the next step does. Empty only when no row waits or lives.
    ///
    /// The caller runs the plan and hands the choices to [`absorb`](Self::absorb) before it asks for the next.
    #[must_use]
    pub fn schedule(&mut self) -> Plan {
        let prefill = self.admit();
        let step = self.live_rows().map(|(slot, live)| self.step_row(slot, live)).collect();
        Plan { prefill, step }
    }

    /// Takes in what the model chose; returns the rows that are done, by slot. Choices of rows cancelled meanwhile are ignored.
    pub fn absorb(&mut self, choices: &[TokenChoice]) -> Vec<FinishedRow> {
        choices.iter().filter_map(|choice| self.absorb_choice(choice)).collect()
    }

    /// Drops all rows of a group; returns them, those that waited first, then by slot.
    pub fn cancel(&mut self, group: GroupId) -> Vec<CancelledRow> {
        let mut cancelled = Vec::new();
        self.waiting.retain(|waiting| {
            let keep = waiting.row.group != group;
            if !keep {
                cancelled.push(CancelledRow { row: waiting.row, slot: None });
            }
            keep
        });
        for (index, place) in self.slots.iter_mut().enumerate() {
            if let Some(live) = place.take_if(|live| live.request.row.group == group) {
                self.free_cache_tokens += live.request.capacity_tokens;
                cancelled.push(CancelledRow { row: live.request.row, slot: Some(SlotId(index)) });
            }
        }
        cancelled
    }

    /// Rows that wait for a slot.
    #[must_use]
    pub fn num_waiting_rows(&self) -> usize {
        self.waiting.len()
    }

    /// Rows in the batch.
    #[must_use]
    pub fn num_live_rows(&self) -> usize {
        self.live_rows().count()
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

    fn admit(&mut self) -> Vec<SlotAssignment> {
        let mut admitted: Vec<SlotAssignment> = Vec::new();
        let mut prefill_tokens = 0;
        for (index, place) in self.slots.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            let Some(request) = self.waiting.pop_front_if(|next| {
                let within_budget = prefill_tokens + next.prompt_len <= self.limits.max_prefill_tokens;
                next.capacity_tokens <= self.free_cache_tokens && (within_budget || admitted.is_empty())
            }) else {
                break;
            };
            prefill_tokens += request.prompt_len;
            self.free_cache_tokens -= request.capacity_tokens;
            admitted.push(SlotAssignment {
                row: request.row,
                slot: SlotId(index),
                prompt_len: request.prompt_len,
                capacity_tokens: request.capacity_tokens,
            });
            *place = Some(LiveRow { request, tokens: Vec::new(), log_probability_sum: 0.0 });
        }
        admitted
    }

    fn live_rows(&self) -> impl Iterator<Item = (SlotId, &LiveRow)> {
        self.slots.iter().enumerate().filter_map(|(index, place)| Some((SlotId(index), place.as_ref()?)))
    }

    fn step_row(&self, slot: SlotId, live: &LiveRow) -> StepRow {
        StepRow {
            slot,
            token: live.tokens.last().copied().unwrap_or(self.special.begin_of_sequence),
            allow_stop: live.tokens.len() >= live.request.min_new_tokens,
        }
    }

    fn absorb_choice(&mut self, choice: &TokenChoice) -> Option<FinishedRow> {
        let place = self.slots.get_mut(choice.slot.0)?;
        let live = place.as_mut()?;
        live.log_probability_sum += f64::from(choice.log_probability);
        let stopped = choice.token == self.special.end_of_sequence;
        if !stopped {
            live.tokens.push(choice.token);
        }
        let num_choices = live.tokens.len() + usize::from(stopped);
        let finish_reason = match stopped {
            true => FinishReason::Stop,
            false if num_choices == live.request.max_new_tokens => FinishReason::Length,
            false => return None,
        };
        let live = place.take().expect("the row was live a moment ago");
        self.free_cache_tokens += live.request.capacity_tokens;
        Some(FinishedRow {
            row: live.request.row,
            slot: choice.slot,
            tokens: live.tokens,
            score: (live.log_probability_sum / num_choices as f64) as f32,
            finish_reason,
        })
    }
}
