//! Errors of the encoder, and the one place where they become gRPC statuses.

use baton_bundle::{BundleError, InvalidBlocks};
use baton_job::Mode;
use baton_model::ModelError;
use baton_proto::{InvalidEndpoint, WireError, error_chain};
use baton_worker::{ModelThreadError, NotEnoughMemory, ServeError, UnsuitedWorker};
use tonic::Status;

use crate::ChainError;

/// The reason why the service cannot start, cannot continue, or cannot process a shard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The bundle's tokenizer or template cannot be used.
    #[error("cannot prepare the bundle's prompt tokenizer")]
    Bundle {
        /// The cause.
        #[source]
        source: BundleError,
    },
    /// The models do not fit into memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// The LLM has no such blocks.
    #[error("cannot split the LLM")]
    Blocks(#[from] InvalidBlocks),
    /// No LLM reads.
    #[error(
        "mode {mode} does not read with the LLM, so there are no blocks to split: name one --device, and \
         neither --blocks nor --chain"
    )]
    NothingToSplit {
        /// The mode.
        mode: Mode,
    },
    /// Other processes do not continue this one's blocks.
    #[error("cannot read with the blocks of other processes")]
    Chain(#[from] ChainError),
    /// The caller of a part expects another one.
    #[error("this part does not fit: {problem}")]
    OtherPart {
        /// The difference.
        problem: String,
    },
    /// The bundle does not read as asked.
    #[error("cannot read with the bundle's LLM")]
    Reader(#[from] ModelError),
    /// The model cannot be loaded, or its thread has died, or the server.
    #[error("the encoder cannot serve")]
    Serve(#[from] ServeError),
    /// The model thread died while it had a batch of the shard.
    #[error("the encoder's model thread died, and the shard's batch was lost with it")]
    BatchLost,
    /// A shard asks for another bundle or mode than this process serves.
    #[error(transparent)]
    Unsuited(#[from] UnsuitedWorker),
    /// A message breaks the contract.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The header names a decoder that is no endpoint.
    #[error(transparent)]
    Decoder(#[from] InvalidEndpoint),
    /// The decoder, or the coordinator's stream, answered with a status.
    #[error("{0}")]
    Relayed(Status),
}

impl From<EncoderError> for Status {
    fn from(error: EncoderError) -> Self {
        match error {
            EncoderError::Unsuited(error) => error.into(),
            EncoderError::Bundle { .. }
            | EncoderError::Decoder(_)
            | EncoderError::Memory(_)
            | EncoderError::Blocks(_)
            | EncoderError::NothingToSplit { .. }
            | EncoderError::Chain(_)
            | EncoderError::OtherPart { .. }
            | EncoderError::Reader(_) => Status::failed_precondition(error_chain(&error)),
            EncoderError::Wire(error) => error.into(),
            EncoderError::Relayed(status) => status,
            EncoderError::BatchLost | EncoderError::Serve(_) => Status::unavailable(error_chain(&error)),
        }
    }
}

impl From<Status> for EncoderError {
    fn from(status: Status) -> Self {
        Self::Relayed(status)
    }
}

impl From<ModelThreadError> for EncoderError {
    fn from(error: ModelThreadError) -> Self {
        Self::Serve(error.into())
    }
}
