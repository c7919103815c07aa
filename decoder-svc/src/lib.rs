//! The decoder service: prompt states in, committed part files out.
//!
//! Owns what happens to a shard between an encoder and the store: prompt states wait in a queue bounded by
//! their tokens, one engine thread decodes the rows of all shards in one continuous batch, and a shard whose
//! rows are all done is detokenized, put in record order and committed by the commit protocol. Where the LLM
//! writes (modes `llm` and `verified`), it is loaded here; how prompts become states is the encoder's affair.

mod allowed_outputs;
mod collector;
mod commit;
mod engine;
mod engine_models;
mod error;
mod generation;
mod loaded;
mod memory;
mod metrics;
mod prompt_assembler;
mod service;
mod shard;
mod writer;

pub use allowed_outputs::AllowedOutputs;
pub use error::DecoderError;
pub use loaded::{DecoderConfig, DecoderService};
