//! The trainer: a file of pairs in, a bundle out.
//!
//! When a small model learns, so do the projector and the prompt embedding, and the LLM is frozen. Its hidden
//! states are computed once and kept on disk (`states.rs`). Another kind of run fine-tunes the LLM
//! (`llm_learner.rs`). A checkpoint holds everything that a run needs to resume, and every random choice is a
//! function of the seed and the step. A run that is killed and restarted therefore takes the same path as an
//! undisturbed one.
//!
//! It does not know gRPC, shards or S3. Method: arXiv 2402.16844; AdamW: arXiv 1711.05101.

mod alignment;
mod batches;
mod checkpoint;
mod config;
mod error;
mod events;
mod export;
mod learner;
mod llm_config;
mod llm_export;
mod llm_learner;
mod llm_merges;
mod objective;
mod optimizer;
mod own_tokens;
mod pair_files;
mod pairs;
mod prepare;
mod projector_start;
mod run;
mod slm_family;
mod slm_start;
mod slm_tokenizer;
mod states;
mod token_pairs;
mod weights;

pub use config::{
    BundleIdentity, GeneralPairs, Hyperparameters, Initialization, Reads, SlmShape, SlmTokenizer,
    TrainConfig, Trains,
};
pub use error::TrainError;
pub use events::TrainEvent;
pub use llm_config::{LlmTraining, LoraTargets};
pub use pair_files::PairFiles;
pub use run::{RunDirectories, TrainReport, train};
