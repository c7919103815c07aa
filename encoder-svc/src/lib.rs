//! The encoder service: records in, prompt states out to a decoder.
//!
//! Owns a shard's way from the coordinator to a decoder. It cuts texts into segments, and tokenizes and reads
//! equal segments once, in length-sorted batches under a token budget, unless the decoder has their outputs.
//! One thread runs LLM and projector; the states are streamed to the decoder, and the decoder's events are
//! relayed back. It holds nothing after a stream has ended, and knows no storage.
//!
//! An LLM larger than a device is split into parts, ranges of its blocks (`split.rs`). The first part lies
//! beside the projector; a batch passes the others (`parts.rs`), on other devices or in other processes
//! (`chain.rs`, `part_service.rs`), and comes back. The bytes are those of one part.
//!
//! Flow control is end to end: a slow decoder fills its stream's window, which stops the shard's next batch,
//! which stops its records.

mod batcher;
mod chain;
mod error;
mod loaded;
mod model_queue;
mod part_service;
mod parts;
mod prompts;
mod reader;
mod readers;
mod reuse;
mod service;
mod shard;
mod split;

pub use batcher::pack_batches;
pub use chain::ChainError;
pub use error::EncoderError;
pub use loaded::{EncoderConfig, EncoderService};
pub use part_service::PartService;
