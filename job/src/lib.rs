//! A job as pure data and decisions: spec, shard cutting, scheduling, verdicts, manifest.
//!
//! This crate owns the *definition* of a job and the consequences of events; it never acts. There is no clock
//! (time is passed in), no file system, no async runtime and no tensor. Tables and property tests therefore
//! cover everything, and the same input always gives the same shards and the same bytes.
//!
//! The path of a record: [`RecordReader`] turns a file into records and failures, and [`ShardCutter`] cuts
//! the stream into [`Shard`]s. [`ShardScheduler`] decides which workers process a shard, and when.
//! In a cascade, [`TierResult`] fixes which of its records go on to the next tier.
//! [`Verdict`] fixes the result, and [`ManifestBuilder`] sums up the job. [`layout`] names every object of
//! the output directory.

mod broken_input;
mod cascade;
mod differences;
mod error;
pub mod layout;
mod manifest;
mod mode;
mod partition;
mod reuse_counts;
mod schedule;
mod shard;
mod shard_set;
mod spec;
mod take_over;
mod terms;
mod tier_result;
mod tier_sums;
mod totals;
mod verdict;
mod warnings;

pub use baton_formats::{
    Alternative, Compression, FailureCode, Format, KeepFields, KeptColumns, KeptFields, OutputRow,
    PartFormat, PartOptions, ReaderOptions, Record, RecordFailure, RecordReader, RecordSource, Separator,
    UnknownFailureCode,
};
pub use baton_generation::{
    EarlyStopping, FinishReason, GenerationLayer, GenerationOptions, LanguageChoice, OptionError,
    ReaderContext, Setting, TextTask,
};
pub use broken_input::{BrokenInput, BrokenKind, broken_inputs_said};
pub use cascade::{Cascade, Escalation, Escalations, Judgement, MAX_TIERS, Threshold, Tier, TierName};
pub use error::JobError;
pub use manifest::{
    FORMAT_VERSION, InputObject, JobRecord, ManifestBuilder, ManifestPieces, ManifestSummary, PartEntry,
    Timings,
};
pub use mode::Mode;
pub use partition::{InvalidPartition, Partition};
pub use reuse_counts::ReuseCounts;
pub use schedule::{
    AfterFailure, Assignment, Backoff, Expired, Failure, Lease, Pair, Role, SchedulePolicy, Settled,
    ShardCounts, ShardScheduler, Work, WorkerId, WorkerState, WorkerView,
};
pub use shard::{Shard, ShardCutter, ShardEntry, ShardIndex};
pub use shard_set::ShardSet;
pub use spec::{JobFile, JobSpec, MAX_TEXT_NUM_BYTES, OutputDefinition, ShardLimits};
pub use take_over::OtherPartitions;
pub use terms::TermCounts;
pub use tier_result::{KeptOutput, TierHead, TierResult};
pub use tier_sums::{EstimateSum, TierSums, TierTotals};
pub use totals::Totals;
pub use verdict::{PartSummary, Verdict, hex, sha256_hex};
pub use warnings::WarningCounts;
