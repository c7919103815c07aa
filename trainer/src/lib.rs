//! The trainer: a JSONL file of pairs in, a bundle out.
//!
//! Only the projector, the prompt embedding and the small model learn; the LLM is frozen. Its hidden states are computed once and
//! kept on disk (`states.rs`). Everything a run needs to go on is in its checkpoint, and every random choice is a function of the
//! seed and the step, so that a run that is killed and started again takes the same path as one that is not.
//!
//! It does not know gRPC, shards or S3. Method: arXiv 2402.16844; AdamW: arXiv 1711.05101.

mod alignment;
mod batches;
mod checkpoint;
mod config;
mod error;
mod events;
mod export;
mod llm_merges;
mod objective;
mod optimizer;
mod pairs;
mod prepare;
mod run;
mod slm_family;
mod slm_tokenizer;
mod states;
mod weights;

pub use config::{BundleIdentity, Hyperparameters, Initialization, Reads, SlmShape, TrainConfig};
pub use error::TrainError;
pub use events::TrainEvent;
pub use run::{RunDirectories, TrainReport, train};
