//! The wire contracts between Baton's processes and their conversion to domain types.
//!
//! Owns the `.proto` files under `baton/v1/`, the code generated from them ([`wire`]), the one place where messages become domain
//! types and back, and the one setting of tonic. It decides nothing: what a message means is up to the services.

mod attempt;
mod entries;
mod error;
mod prompts;
mod transport;

pub use attempt::ShardAttempt;
pub use entries::{IndexedEntry, entry_batches};
pub use error::{WireError, error_chain};
pub use prompts::{PromptHead, prompt_messages};
pub use transport::{Connections, InvalidEndpoint, MAX_MESSAGE_NUM_BYTES, TARGET_MESSAGE_NUM_BYTES, server};

/// Messages, clients and servers generated from `baton/v1/*.proto`, whose comments document them.
#[allow(missing_docs, unreachable_pub, clippy::all)] // generated code answers to the generator, not to our lints
pub mod wire {
    tonic::include_proto!("baton.v1");
}
