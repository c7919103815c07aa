//! The one error type of this crate: errors that make a whole job impossible.
//!
//! A record that cannot be processed is not an error here but a [`RecordFailure`](crate::RecordFailure).

use baton_generation::OptionError;

/// The reason why a job cannot start or continue. Each message is one line: the problem, the place, and what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The generation options of bundle, job file and flags are invalid.
    #[error("job spec: {0}")]
    Generation(OptionError),
    /// The job file is not TOML, or has an unknown field, or a field of a wrong type.
    #[error("{origin}, line {line}: {message}")]
    SpecSyntax {
        /// The job file, as the user named it.
        origin: String,
        /// Line in that file, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },

    /// A field of the job spec has a value that is not allowed.
    #[error("job spec: `{field}` is {value}; allowed: {allowed}")]
    SpecValue {
        /// The field's full name, such as `shard.records_per_shard`.
        field: &'static str,
        /// The value found, in quotes if it is a string.
        value: String,
        /// The allowed values, in words.
        allowed: String,
    },

    /// A format is unknown, or does not support the requested use.
    #[error(transparent)]
    Format(#[from] baton_formats::FormatError),

    /// The output directory belongs to another job.
    #[error(
        "the output directory holds another job ({}); use another output directory, or restore what changed",
        .differences.join("; ")
    )]
    DifferentJob {
        /// One entry for each difference, with the recorded and the present value.
        differences: Vec<String>,
        /// Whether job and bundle are the same, and only inputs differ.
        only_inputs: bool,
    },

    /// An object that Baton wrote earlier cannot be parsed.
    #[error(
        "{key} is not a valid {what}; it was changed after Baton wrote it, so use another output directory"
    )]
    CorruptObject {
        /// The object's key in the output directory.
        key: String,
        /// The kind of object: `job record`, `verdict`.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },

    /// A verdict's own numbers do not agree with each other.
    #[error(
        "{key} counts {records} records but {rows} rows and {failed} failures; it was changed after Baton \
         wrote it, so use another output directory"
    )]
    InconsistentVerdict {
        /// The verdict's key in the output directory.
        key: String,
        /// Records it claims the shard has.
        records: u64,
        /// Output rows it claims.
        rows: u64,
        /// Failures it lists.
        failed: u64,
    },

    /// The output directory has an unknown layout version.
    #[error(
        "{key} has format version {found}, this Baton writes {supported}; finish the job with the Baton that \
         began it"
    )]
    FormatVersion {
        /// The object's key in the output directory.
        key: String,
        /// Version found.
        found: u32,
        /// Version this build reads and writes.
        supported: u32,
    },

    /// A part's bytes are not those that its verdict promised.
    #[error(
        "{key} does not match its verdict (expected sha256 {expected}, found {found}); \
         it was changed after Baton wrote it, so use another output directory"
    )]
    PartMismatch {
        /// The part's key in the output directory.
        key: String,
        /// sha256 in the verdict, hexadecimal.
        expected: String,
        /// sha256 of the part, hexadecimal.
        found: String,
    },
}

impl From<OptionError> for JobError {
    /// The message has the option's whole text, so the option is not named as a source as well: chains of
    /// errors would say it twice.
    fn from(error: OptionError) -> Self {
        JobError::Generation(error)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_invalid_option_is_named_once_in_a_chain_of_errors() {
        let (option, value, allowed) = ("beams", "0".to_owned(), "1 to 64".to_owned());
        let error = JobError::from(OptionError { option, value, allowed });
        assert!(error.to_string().starts_with("job spec: `generation.beams` is 0"), "{error}");
        assert!(error.source().is_none());
    }
}
