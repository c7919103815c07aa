//! The life of one row, as data: the request, the next step, the result.

use std::sync::Arc;

use baton_generation::FinishReason;

use crate::{Candidates, DraftCounts, Generation};

/// Rows that are cancelled together: one attempt at one shard. Chosen by the caller, unique while any of its
/// rows lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

/// Name of a row. Chosen by the caller, unique while the row lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The group the row belongs to.
    pub group: GroupId,
    /// Its place in the group.
    pub index: u32,
}

/// A place in the decode batch, counted from 0: the cache of one sequence. Reused when its row is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// A prompt that waits to be continued, by one sequence or by several.
#[derive(Debug, Clone)]
pub struct RowRequest {
    /// Its name.
    pub row: RowId,
    /// Length of its prompt states, tokens.
    pub prompt_len: usize,
    /// How it is continued.
    pub generation: Arc<Generation>,
    /// The source of the row's random numbers, beside the seed. Give each record of a job its own, the same
    /// in every attempt.
    pub random_stream: u64,
}

/// The caller's next actions, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Slots whose cache must be cleared. Some of them may be empty already.
    pub release: Vec<SlotId>,
    /// Rows that enter the batch, to be prefilled together.
    pub prefill: Vec<SlotAssignment>,
    /// Wrong drafts. Empty without drafting.
    pub rewind: Vec<Rewind>,
    /// Sequences that part ways.
    pub forks: Vec<Fork>,
    /// The model's input: one entry per live sequence, including newcomers, each followed by the sequence's
    /// draft, if it has one.
    pub step: Vec<StepRow>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.step.is_empty() && self.release.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.release.clear();
        self.prefill.clear();
        self.rewind.clear();
        self.forks.clear();
        self.step.clear();
    }
}

/// A waiting row gets a slot for its first sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotAssignment {
    /// The row.
    pub row: RowId,
    /// An empty slot.
    pub slot: SlotId,
    /// Length of its prompt, tokens.
    pub prompt_len: usize,
    /// Cache that a sequence of the row needs: prompt and all it may write, whole blocks, tokens.
    pub capacity_tokens: usize,
    /// The tokens whose logits are asked for at each step, in this order; `None`: all.
    pub candidates: Option<Candidates>,
}

/// A sequence continues in two ways: an empty slot gets a copy of another's cache.
///
/// Full blocks that lie within the prompt are counted once for all sequences of a row, so a copy must share
/// at least those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The slot that is copied.
    pub from: SlotId,
    /// The empty slot.
    pub to: SlotId,
    /// As in [`SlotAssignment`].
    pub capacity_tokens: usize,
}

/// The last tokens of a slot's cache are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// The slot.
    pub slot: SlotId,
    /// How many.
    pub num_tokens: usize,
}

/// The drafting model's next actions, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DraftStep {
    /// Drafts that turned out wrong.
    pub rewind: Vec<Rewind>,
    /// Its input: for each row that is drafted for, one token or several.
    pub step: Vec<StepRow>,
}

/// One live sequence's part in a step: feed `token` into `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRow {
    /// Where the sequence's cache is.
    pub slot: SlotId,
    /// The input token: the beginning-of-sequence token in a row's first step, then the last choice.
    pub token: u32,
}

/// A row that is done. Its slots are free again.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedRow {
    /// Its name.
    pub row: RowId,
    /// The outputs, best score first: as many as requested, or all that a beam search over a small vocabulary
    /// found. Never empty.
    pub outputs: Vec<FinishedSequence>,
    /// The results of drafting; all 0 if the row was not drafted for.
    pub drafts: DraftCounts,
}

/// One way in which a row was continued.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedSequence {
    /// The output's tokens, without the token that stopped it.
    pub tokens: Vec<u32>,
    /// Tokens chosen: those written, and the one that stopped it.
    pub num_tokens: usize,
    /// Greedy and sampled: mean log-probability of the tokens chosen, after masks and repetition penalty,
    /// before temperature and cuts. Beam search: sum of log-probabilities after masks and penalty, divided by
    /// `num_tokens ^ length_penalty`. NaN when the model computed no numbers.
    pub score: f32,
    /// The probabilities of its tokens, whatever the score is.
    pub log_probabilities: LogProbabilities,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Log-probabilities of the tokens chosen, after masks and repetition penalty; NaN when the model computed no
/// numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProbabilities {
    /// Of all tokens, on average.
    pub mean: f32,
    /// Of the least likely one.
    pub worst: f32,
}
