//! Decode decisions as plain state machines: which rows run, what each is fed, when it stops, how it is scored.
//!
//! The large idea is continuous batching: rows join the batch when there is room and leave it when they are done, so a step is
//! never held up by the longest row. [`Scheduler::schedule`] decides what the next step does, the caller runs the model, and
//! [`Scheduler::absorb`] takes in what the model chose. This crate knows no tensors, threads, sockets or clocks: events in,
//! decisions out, so every rule can be tested with tables and random sequences.
//!
//! References: Yu et al., "Orca" (OSDI 2022), for iteration-level scheduling; Kwon et al., arXiv 2309.06180, for block-wise cache
//! accounting.

mod limits;
mod row;
mod scheduler;

pub use limits::{GenerationLimits, LimitsError};
pub use row::{
    CancelledRow, FinishReason, FinishedRow, GroupId, RowId, RowRequest, SlotId, StepRow, TokenChoice,
};
pub use scheduler::{Plan, Scheduler, SchedulerLimits, SlotAssignment, SpecialTokens, SubmitError};
