//! The wire contracts between Baton's processes and their conversion to domain types.
//!
//! Owns the `.proto` files under `baton/v1/`, the code generated from them ([`wire`]), and the one place
//! where messages become domain types and back. Also owns the connections between processes: endpoints, TLS,
//! tokens, the one setting of tonic. It decides nothing: the services give messages their meaning.

mod attempt;
mod blocks;
mod connections;
mod diagnosis;
mod entries;
mod error;
mod failure_origin;
mod prompts;
mod refusal;
mod reuse;
mod security;
mod tiers;
mod transport;

pub use attempt::ShardAttempt;
pub use blocks::{PartName, answer_messages, batch_messages};
pub use connections::{Connection, Connections, InvalidEndpoint};
pub use entries::{IndexedEntry, entry_batches};
pub use error::{WireError, error_chain, receive_error};
pub use failure_origin::FailureOrigin;
pub use prompts::{DecodeHeader, PromptHead, PromptPayload, RecordHead, prompt_messages};
pub use refusal::Refusal;
pub use reuse::{FoundPrompts, key_messages};
pub use security::{ClientSecurity, Security, SecurityArgs, SecurityError, ServerSecurity};
pub use tiers::TierAttempt;
pub use transport::{MAX_ENTRIES_PER_SHARD, MAX_MESSAGE_NUM_BYTES, TARGET_MESSAGE_NUM_BYTES, server};

/// Names this release and its contracts. Processes work together only with equal names.
pub const PROTOCOL: &str = env!("BATON_PROTOCOL");

/// Messages, clients and servers generated from `baton/v1/*.proto`, whose comments document them.
// Generated code does not follow our lints.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("baton.v1");

    /// The `.proto` files in compiled form, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");
}
