//! The errors of a job.

use std::path::PathBuf;

use baton_bundle::BundleError;
use baton_formats::{InputFailure, MixedColumn, RowError, WrongField};
use baton_generation::OptionError;
use baton_job::{BrokenInput, JobError, ShardIndex, broken_inputs_said};
use baton_proto::InvalidEndpoint;
use baton_store::StoreError;

use crate::glossary::GlossaryError;

/// The exit code for inputs that are damaged, or changed since the job began: another try changes nothing.
pub const BROKEN_INPUTS: u8 = 4;

/// The reason why a job cannot start or continue. Committed shards stay; a restarted job continues from
/// there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinatorError {
    /// The spec, the output directory's contents, or a verdict is unusable.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job file cannot be read.
    #[error("cannot read the job file {path}")]
    JobFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The glossary cannot be used.
    #[error(transparent)]
    Glossary(#[from] GlossaryError),
    /// Flags and job file together lack a required value.
    #[error("{flags} missing; give a job file or these flags (see --help)")]
    MissingFlags {
        /// The flags, separated by commas.
        flags: String,
    },
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle does not offer a mode or template that the job needs.
    #[error("bundle {bundle} {problem}")]
    BundleMisfit {
        /// The bundle's directory.
        bundle: String,
        /// The missing mode or template, and those that exist.
        problem: String,
    },
    /// The job's generation options contradict those that the bundle proposes.
    #[error(
        "{problem}; the bundle proposes {proposed}: overrule it by flags, or take an option back, as --beams \
         none does"
    )]
    ProposedGeneration {
        /// The bundle's options.
        proposed: String,
        /// The problem.
        problem: OptionError,
    },
    /// An input or the output cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no job where an output was looked for.
    #[error("{output} holds no Baton job: it has no _baton/job.json; check the path")]
    NoJob {
        /// The place that was named.
        output: String,
    },
    /// A finished job lacks the record of its inputs.
    #[error(
        "{output} has a _SUCCESS, but no _baton/job.json, which lists its inputs: restore the file, or name \
         another --skip-done"
    )]
    RecordMissing {
        /// The place of the job's output.
        output: String,
    },
    /// The output directory has files, but no job began there.
    #[error(
        "the output directory {location} is not empty and holds no Baton job (it has {example}); name a new \
         or an empty directory"
    )]
    OutputNotEmpty {
        /// The output directory.
        location: String,
        /// One of the files in it.
        example: String,
    },
    /// The next run would take this run's parts for input.
    #[error(
        "input {pattern} includes the output directory {location}, whose parts would become input; \
         name an output directory elsewhere"
    )]
    OutputAmongInputs {
        /// The input pattern.
        pattern: String,
        /// The output directory.
        location: String,
    },
    /// A part exists for a shard that the input does not have.
    #[error(
        "{key} exists, but the input has only {num_shards} shards; files were added to the output directory, \
         so use another one"
    )]
    StrayPart {
        /// The part's key.
        key: String,
        /// Shards of the input.
        num_shards: u64,
    },
    /// A worker's endpoint is not a URI.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// A shard failed permanently, or too often.
    #[error("shard {shard} failed for good in attempt {attempt}: {reason}")]
    ShardFailed {
        /// The shard.
        shard: ShardIndex,
        /// The last attempt.
        attempt: u32,
        /// The worker's message.
        reason: String,
    },
    /// More records failed than the job allows.
    #[error(
        "{errors} of {records} records failed, more than max_error_rate = {max_error_rate} allows; see \
         errors/ in the output directory, then correct the input or raise the limit"
    )]
    TooManyErrors {
        /// Failed records so far.
        errors: u64,
        /// Processed records so far.
        records: u64,
        /// The limit.
        max_error_rate: f64,
    },
    /// Standard input cannot be copied.
    #[error("cannot keep standard input in a temporary file; set TMPDIR to a directory with room")]
    StandardInput {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Standard input can only be read once, and by one process.
    #[error("--input - cannot be combined with other inputs or --partition: standard input is read once")]
    StandardInputShared,
    /// An input cannot be read to its end.
    #[error(transparent)]
    Input(#[from] InputFailure),
    /// No input row has the field that the job names.
    #[error(transparent)]
    WrongField(#[from] WrongField),
    /// A column of several inputs has types that do not fit together.
    #[error(
        "the inputs' fields cannot be kept as columns: give each one type in all inputs, leave out \
         --keep-fields, or write jsonl"
    )]
    MixedColumns {
        /// The column.
        #[source]
        source: MixedColumn,
    },
    /// Parts of the job's format cannot be written.
    #[error("the job's parts cannot be written in this format; leave out --keep-fields, or write jsonl")]
    PartFormat {
        /// The content that the format cannot hold.
        #[source]
        source: RowError,
    },
    /// The first rows of an input cannot be read.
    #[error("cannot read the first rows of an input")]
    Look {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another coordinator of the job found inputs broken that this one could read.
    #[error("{}", broken_inputs_said(.broken))]
    InputsBroken {
        /// The inputs.
        broken: Vec<BrokenInput>,
    },
    /// The manifest cannot be assembled.
    #[error("cannot write a temporary file for the manifest; set TMPDIR to a directory with room")]
    Spool {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start the thread that reads the corpus: the process's limit of threads may be reached")]
    Thread {
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl CoordinatorError {
    /// Whether the job was described wrongly, as opposed to a broken disk or network. Nothing was started
    /// then.
    #[must_use]
    pub fn is_usage_error(&self) -> bool {
        match self {
            Self::JobFile { .. }
            | Self::Glossary(_)
            | Self::MissingFlags { .. }
            | Self::BundleMisfit { .. }
            | Self::ProposedGeneration { .. }
            | Self::OutputAmongInputs { .. }
            | Self::StandardInputShared
            | Self::WrongField(_)
            | Self::MixedColumns { .. }
            | Self::PartFormat { .. }
            | Self::Endpoint(_) => true,
            Self::Job(error) => matches!(
                error,
                JobError::Generation(_)
                    | JobError::SpecSyntax { .. }
                    | JobError::SpecValue { .. }
                    | JobError::Format(_)
            ),
            Self::Store(error) => matches!(
                error,
                StoreError::InvalidLocation { .. }
                    | StoreError::InvalidPattern { .. }
                    | StoreError::NotLocal { .. }
                    | StoreError::NotAFile { .. }
                    | StoreError::S3InvalidEndpoint { .. }
                    | StoreError::NoInput { .. }
            ),
            _ => false,
        }
    }

    /// Whether inputs are damaged or changed, so that another try at the same job ends the same.
    #[must_use]
    pub fn is_about_broken_inputs(&self) -> bool {
        match self {
            Self::InputsBroken { .. } | Self::Job(JobError::DifferentJob { only_inputs: true, .. }) => true,
            Self::Input(failure) => failure.is_final(),
            _ => false,
        }
    }

    /// The exit code of a process that fails with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            error if error.is_usage_error() => 2,
            error if error.is_about_broken_inputs() => BROKEN_INPUTS,
            _ => 1,
        }
    }
}
