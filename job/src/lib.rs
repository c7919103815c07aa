//! A job as pure data and decisions: spec, records, shard cutting, scheduling, verdicts, manifest.
//!
//! This crate owns *what* a job is and what follows from an event; it never acts. There is no clock (time is
//! passed in), no file system (readers work over [`std::io::Read`]), no async runtime and no tensor. So all of
//! it is tested with tables and properties, and the same input always gives the same shards and the same bytes.
//!
//! The path of a record: [`RecordReader`] turns a file into records and failures, [`ShardCutter`] cuts the
//! stream into [`Shard`]s, [`ShardScheduler`] decides who works on which shard and when, [`Verdict`] fixes what
//! came of it, and [`ManifestBuilder`] sums up the job. [`layout`] names every object of the output directory.

mod error;
mod format;
mod generation;
mod generation_layer;
pub mod layout;
mod manifest;
mod output;
mod partition;
mod reader;
mod record;
mod schedule;
mod sentences;
mod shard;
mod shard_set;
mod spec;
mod totals;
mod verdict;

pub use error::JobError;
pub use format::{Compression, InputFormat};
pub use generation::{EarlyStopping, GenerationMethod, GenerationOptions};
pub use generation_layer::GenerationLayer;
pub use manifest::{
    FORMAT_VERSION, InputObject, JobRecord, ManifestBuilder, ManifestPieces, ManifestSummary, PartEntry,
    Timings,
};
pub use output::{Alternative, FinishReason, OutputRow};
pub use partition::{InvalidPartition, Partition};
pub use reader::{FoundRecord, ReaderOptions, RecordReader};
pub use record::{FailureCode, Record, RecordFailure, RecordSource, UnknownFailureCode};
pub use schedule::{
    AfterFailure, Assignment, Backoff, Expired, Failure, Lease, Pair, Role, SchedulePolicy, Settled,
    ShardCounts, ShardScheduler, Work, WorkerId, WorkerState, WorkerView,
};
pub use sentences::{Sentence, sentences};
pub use shard::{Shard, ShardCutter, ShardEntry, ShardIndex};
pub use shard_set::ShardSet;
pub use spec::{JobSpec, MAX_TEXT_NUM_BYTES, Mode, OutputDefinition, ShardLimits};
pub use totals::Totals;
pub use verdict::{PartSummary, Verdict, sha256_hex};
