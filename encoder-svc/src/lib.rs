//! The encoder service: records in, prompt states out to a decoder.
//!
//! Owns a shard's way from the coordinator to a decoder. It cuts texts into segments, and tokenizes and reads
//! equal segments once, in length-sorted batches under a token budget, unless the decoder has their outputs.
//! One thread runs LLM and projector; the states are streamed to the decoder, and the decoder's events are
//! relayed back. It holds nothing after a stream has ended, and knows no storage.
//!
//! Flow control is end to end: a slow decoder fills its stream's window, which stops the shard's next batch,
//! which stops its records.

mod batcher;
mod error;
mod loaded;
mod model_queue;
mod prompts;
mod readers;
mod reuse;
mod service;
mod shard;

pub use batcher::pack_batches;
pub use error::EncoderError;
pub use loaded::{EncoderConfig, EncoderService};
