//! The coordinator: reads a corpus, leases its shards to workers, writes the manifest.
//!
//! Owns the async shell around `baton-job`: that crate decides (cuts shards, keeps leases, compares jobs), this one does (reads files,
//! opens streams, waits, writes). It runs no model and builds without libtorch. It may die at any moment and be started again: all it
//! knows is in the output directory.
//!
//! Memory is flat in the corpus: the reader runs ahead of the workers by a few shards and then waits.

mod attempt;
mod dispatch;
mod error;
mod manifest;
mod prepare;
mod progress;
mod reader;

pub use dispatch::{RunOptions, Shutdown, WorkerPair};
pub use error::CoordinatorError;
pub use prepare::PreparedJob;
pub use progress::{JobOutcome, JobReport, Progress};
