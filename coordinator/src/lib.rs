//! The coordinator reads a corpus as a stream, cuts it into shards, and leases each to an encoder and a
//! decoder. It writes the job's manifest when every shard is committed.
//!
//! This is the async shell around `baton_job`, which makes all decisions. It holds no model, and builds
//! without libtorch. Decoders commit, so it sees no output except those that a person is to review. Only the
//! object store is durable: the coordinator may die at any moment and be restarted. Several may run one job,
//! each a partition of its shards.
//!
//! Memory does not grow with the corpus: the reader runs ahead of the workers by a few shards and then waits.

mod attempt;
mod check;
mod discovery;
mod dispatch;
mod error;
mod final_report;
mod first_look;
pub mod flags;
mod generation_flags;
mod glossary;
mod history;
mod manifest;
mod metrics;
mod new_inputs;
mod pages;
mod plan;
mod prepare;
pub mod process;
mod progress;
mod reader;
mod review;
mod share;
pub mod signals;
mod source;
mod spool;
pub mod status_page;
mod tier_figures;
mod tiers;

pub use check::OutputCheck;
pub use discovery::{Cluster, EndpointList, InvalidEndpointList};
pub use dispatch::{JobWatch, RunOptions, Shutdown};
pub use error::{BROKEN_INPUTS, CoordinatorError};
pub use final_report::Prices;
pub use history::{RunHistory, Sample};
pub use metrics::CoordinatorMetrics;
pub use plan::{FailedRecords, InputPlan, JobPlan, MAX_SAMPLE};
pub use prepare::PreparedJob;
pub use progress::{DraftTotals, JobOutcome, JobReport, JobStatus, Progress, WorkerStatus};
pub use tiers::tiers_said;
