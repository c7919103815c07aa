//! The encoder service: records in, prompt states out to a decoder.
//!
//! Owns what happens to a shard between the coordinator and a decoder: texts are cut into segments, equal
//! ones are tokenized and read once, in length-sorted batches under a token budget, run through LLM and
//! projector on one thread, and streamed on; the decoder's events are relayed back. It holds nothing once a
//! stream has ended, and it knows no storage.
//!
//! Flow control is end to end: a slow decoder fills its stream's window, which stops the shard's next batch,
//! which stops its records.

mod batcher;
mod error;
mod loaded;
mod model_queue;
mod prompts;
mod service;
mod shard;

pub use batcher::pack_batches;
pub use error::EncoderError;
pub use loaded::{EncoderConfig, EncoderService};
