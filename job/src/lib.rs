//! A job as pure data and decisions: spec, records, shard cutting, lease table, verdicts, manifest.
//!
//! This crate owns *what* a job is and what follows from an event; it never acts. There is no clock (time is
//! passed in), no file system (readers work over [`std::io::Read`]), no async runtime and no tensor. So all of
//! it is tested with tables and properties, and the same input always gives the same shards and the same bytes.
//!
//! The path of a record: [`RecordReader`] turns a file into records and failures, [`ShardCutter`] cuts the
//! stream into [`Shard`]s, [`LeaseTable`] decides who works on which shard and when, [`Verdict`] fixes what
//! came of it, and [`Manifest`] sums up the job. [`layout`] names every object of the output directory.

mod error;
mod format;
pub mod layout;
mod lease;
mod manifest;
mod output;
mod reader;
mod record;
mod shard;
mod shard_set;
mod spec;
mod totals;
mod verdict;

pub use error::JobError;
pub use format::{Compression, InputFormat};
pub use lease::{AfterFailure, Expired, Lease, LeaseCounts, LeasePolicy, LeaseTable};
pub use manifest::{FORMAT_VERSION, InputObject, JobRecord, Manifest, PartEntry, Timings};
pub use output::{FinishReason, OutputRow};
pub use reader::{ReaderOptions, RecordReader};
pub use record::{FailureCode, Record, RecordFailure, RecordSource, UnknownFailureCode};
pub use shard::{Shard, ShardCutter, ShardEntry, ShardIndex};
pub use spec::{GenerationOptions, JobSpec, Mode, OutputDefinition, ShardLimits};
pub use totals::Totals;
pub use verdict::{PartSummary, Verdict};
