//! Errors of the decoder, and the one place where they become gRPC statuses.

use baton_bundle::BundleError;
use baton_decoding::SubmitError;
use baton_generation::OptionError;
use baton_proto::{FailureOrigin, WireError, error_chain};
use baton_store::StoreError;
use baton_worker::{ModelThreadError, NotEnoughMemory, ServeError, UnsuitedWorker};
use tonic::Status;

use crate::commit::CommitError;

/// The reason why the service cannot start, cannot continue, or cannot process a shard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecoderError {
    /// The bundle does not say how its model writes, or the output tokenizer cannot be used.
    #[error("cannot prepare the writing model")]
    Bundle {
        /// The cause.
        #[source]
        source: BundleError,
    },
    /// The models do not fit into memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// The cache could not hold the longest record that the bundle serves.
    #[error(
        "a cache of {max_cache_tokens} tokens cannot hold one prompt and output of this bundle: give it at \
         least {needed_cache_tokens}"
    )]
    CacheTooSmall {
        /// The configured size, tokens.
        max_cache_tokens: usize,
        /// The size that the bundle's limits need, tokens.
        needed_cache_tokens: usize,
    },
    /// The model cannot be loaded, or its thread has died, or the server.
    #[error("the decoder cannot serve")]
    Serve(#[from] ServeError),
    /// The engine thread died while it had rows of the shard.
    #[error("the decoder's engine thread died, and the shard's rows were lost with it")]
    RowsLost,
    /// A shard asks for another bundle or mode than this process serves.
    #[error(transparent)]
    Unsuited(#[from] UnsuitedWorker),
    /// The job's generation options are invalid.
    #[error("the job's generation options are invalid")]
    Generation {
        /// The cause.
        #[source]
        source: OptionError,
    },
    /// A stop token is not one token of the output tokenizer.
    #[error(
        "the stop token {token:?} is not in the vocabulary of the bundle's output tokenizer: name a token \
         that it has, or use a stop string"
    )]
    UnknownStopToken {
        /// As the job names it.
        token: String,
    },
    /// A second try would need more slots than there are.
    #[error(
        "a text whose output has flaws is decoded once more with {num_sequences} sequences, and the decoder \
         has {max_slots} slots: give it more by --decode-slots, or the job fewer by --retry-beams"
    )]
    TooFewSlots {
        /// Beams of a second try.
        num_sequences: usize,
        /// Slots of an engine.
        max_slots: usize,
    },
    /// A row was refused by the scheduler.
    #[error("entry {index} of the shard cannot be decoded")]
    Refused {
        /// Position in the shard, from 0.
        index: u32,
        /// The cause.
        #[source]
        source: SubmitError,
    },
    /// A message breaks the contract.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The job's output cannot be opened.
    #[error("cannot open the job's output {location}")]
    Output {
        /// As the header names it.
        location: String,
        /// The cause.
        #[source]
        source: StoreError,
    },
    /// The job's output or cache lies outside the places where this decoder may write.
    #[error("output or cache {location} is not allowed on this decoder: --allow-output names {allowed}")]
    OutputNotAllowed {
        /// The place, as the job names it.
        location: String,
        /// The allowed values.
        allowed: String,
    },
    /// The shard cannot be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The encoder's stream broke.
    #[error("{0}")]
    Stream(Status),
}

impl DecoderError {
    /// Whether the same attempt may succeed later or elsewhere.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Unsuited(_)
            | Self::Memory(_)
            | Self::Generation { .. }
            | Self::UnknownStopToken { .. }
            | Self::Refused { .. }
            | Self::TooFewSlots { .. }
            | Self::OutputNotAllowed { .. }
            | Self::CacheTooSmall { .. } => false,
            Self::Commit(CommitError::Store { source, .. }) | Self::Output { source, .. } => {
                source.is_retryable()
            }
            Self::Commit(CommitError::Left { .. } | CommitError::TiersDisagree { .. }) => false,
            _ => true,
        }
    }
}

impl From<DecoderError> for Status {
    fn from(error: DecoderError) -> Self {
        match error {
            DecoderError::Wire(error) => error.into(),
            DecoderError::Stream(status) => status,
            error @ DecoderError::OutputNotAllowed { .. } => Status::permission_denied(error_chain(&error)),
            error if !error.is_retryable() => Status::failed_precondition(error_chain(&error)),
            error @ (DecoderError::Output { .. } | DecoderError::Commit(CommitError::Store { .. })) => {
                FailureOrigin::Store.mark(Status::unavailable(error_chain(&error)))
            }
            error => Status::unavailable(error_chain(&error)),
        }
    }
}

impl From<Status> for DecoderError {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

impl From<ModelThreadError> for DecoderError {
    fn from(error: ModelThreadError) -> Self {
        Self::Serve(error.into())
    }
}
