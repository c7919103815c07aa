//! The life of one row, as data: what is asked for, what a step feeds and returns, what comes out.

use crate::GenerationLimits;

/// Rows that are cancelled together: one attempt at one shard. Chosen by the caller, unique while any of its rows lives.
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

/// A place in the decode batch, counted from 0. Reused when its row is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// A prompt that waits to be continued.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowRequest {
    /// Its name.
    pub row: RowId,
    /// Length of its prompt states, tokens.
    pub prompt_len: usize,
    /// How much it may and must write.
    pub limits: GenerationLimits,
}

/// One live row's part in a step: feed `token` into `slot`, choose what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRow {
    /// Where the row's cache is.
    pub slot: SlotId,
    /// The token fed: the beginning-of-sequence token in a row's first step, then what was chosen last.
    pub token: u32,
    /// Whether the end-of-sequence token may be chosen; otherwise it is masked.
    pub allow_stop: bool,
}

/// What the model chose for one row of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenChoice {
    /// The row's slot.
    pub slot: SlotId,
    /// The token chosen.
    pub token: u32,
    /// Natural logarithm of its probability among the tokens that were allowed.
    pub log_probability: f32,
}

/// Why a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// It chose the end-of-sequence token.
    Stop,
    /// It reached its limit of new tokens.
    Length,
}

/// A row that is done. Its slot is free again.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedRow {
    /// Its name.
    pub row: RowId,
    /// The slot it held.
    pub slot: SlotId,
    /// What it wrote, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Mean log-probability of its choices, that of the end-of-sequence token included. NaN when the model computed no numbers.
    pub score: f32,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// A row that was dropped before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelledRow {
    /// Its name.
    pub row: RowId,
    /// The slot it held; `None` if it was still waiting.
    pub slot: Option<SlotId>,
}
