//! Decode decisions as plain state machines: which rows run, their inputs, their choices, their ends, and
//! their scores.
//!
//! The main idea is continuous batching: rows join the batch when there is room and leave it when they are
//! done, so the longest row never holds up a step. [`Scheduler::schedule`] decides the next step, the caller
//! runs the model, and [`Scheduler::absorb`] takes in the logits and chooses. A row's output depends on its
//! own logits, its [`Generation`] and, if it samples, its random stream; nothing else in the batch affects
//! it. This crate knows no tensors, threads, sockets or clocks: events in, decisions out. Tables and random
//! sequences can therefore test every rule.
//!
//! References: Yu et al., "Orca" (OSDI 2022), for iteration-level scheduling; Kwon et al., arXiv 2309.06180,
//! for block-wise cache accounting. `docs/reference/generation.md` explains each method.

mod beam_search;
mod candidates;
mod characters;
mod constraints;
mod copying;
mod drafting;
mod generation;
mod independent_search;
mod kernels;
mod live_row;
mod logits;
mod row;
mod sampling;
mod scheduler;
mod search;
mod top_k;

pub use baton_generation::{EarlyStopping, FinishReason, GenerationOptions, Method};
pub use candidates::Candidates;
pub use characters::Characters;
pub use copying::{Copying, Vocabulary};
pub use drafting::{DraftCounts, DraftOptions};
pub use generation::{Generation, StopCondition};
pub use logits::LogitRows;
pub use row::{
    DraftStep, FinishedRow, FinishedSequence, Fork, GroupId, LogProbabilities, Plan, Rewind, RowId,
    RowRequest, SlotAssignment, SlotId, StepRow,
};
pub use scheduler::{Scheduler, SchedulerLimits, SpecialTokens, SubmitError};
