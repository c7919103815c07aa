//! The decoder service: prompt states in, committed part files out.
//!
//! Owns a shard's way from an encoder to the store. Prompt states wait in a queue bounded by their tokens.
//! One engine thread decodes the rows of all shards in one continuous batch. When all rows of a shard are
//! done, they are detokenized, put in record order and committed by the commit protocol. In the modes where
//! the LLM writes (`llm` and `verified`), it is loaded here. Turning prompts into states is the encoder's
//! task. Prompts whose outputs are known, from earlier shards or from a cache, are not decoded again.

mod allowed_outputs;
mod collector;
mod commit;
mod engine;
mod engine_models;
mod error;
mod generation;
mod joined;
mod judge;
mod loaded;
mod memory;
mod metrics;
mod output_cache;
mod prompt_assembler;
mod retry;
mod reuse;
mod service;
mod shard;
mod tier;
mod writer;

pub use allowed_outputs::AllowedOutputs;
pub use error::DecoderError;
pub use loaded::{DecoderConfig, DecoderService};
