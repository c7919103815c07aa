//! Bundles: everything one deployment loads, in one directory, safetensors only.
//!
//! ```text
//! bundle.json     what the parts are, how they fit, and the sha256 of every file
//! llm/            config.json, model.safetensors, tokenizer.json     the frozen reader
//! adapter/        adapter_config.json, adapter_model.safetensors     what the LLM was fine-tuned by, where it was
//! projector/      model.safetensors                                  LLM states -> SLM embedding space
//! slm/            config.json, model.safetensors, tokenizer.json     the trained writer
//! ```
//!
//! This crate owns the manifest, its verification, the two tokenizers, the checkpoints' configs, and the
//! import of public checkpoints. It reads tensors only to check or convert them and never runs a model, so
//! it builds without libtorch.

mod accounting;
mod adapter;
mod add_llm;
mod bundle;
mod config;
mod error;
mod file;
mod import;
mod llm_writer;
mod manifest;
mod part_checks;
mod safetensors_file;
mod summary;
mod tokenizer;
mod verify;

pub use accounting::{Arithmetic, TokenFlops, arithmetic_of_llm, arithmetic_of_mode};
pub use adapter::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraAdapter, LoraShape, adapter_files, lora_tensor_names,
};
pub use add_llm::{AddedLlm, add_llm};
pub use bundle::{Bundle, output_tokenizer, read_manifest, write_manifest};
pub use config::{
    FamilyConfig, Gemma3Config, Gpt2Config, LinearLayer, LlamaConfig, ModelConfig, NamedShape, QwenConfig,
    SlidingLayers, T5Config, T5FeedForward, TensorLayout, UnsupportedSetting, WeightDtype,
};
pub use error::BundleError;
pub use file::sha256_of_file;
pub use import::{ImportOptions, ImportSummary, import_llm};
pub use manifest::{
    BUNDLE_FILES, BundleManifest, DEFAULT_TEMPLATE, Family, FileDigest, Fusion, InputNorm, Limits,
    LlmAdapter, LlmPart, LlmWriter, MANIFEST_FILE, MANIFEST_FORMAT, PartOrigin, ProjectorPart,
    PromptAttention, PromptEmbeddingSource, SlmPart, SmallModel, Task, are_layers_below,
};
pub use safetensors_file::{SafetensorsFile, StoredTensor};
pub use summary::{PartSummary, summarize};
pub use tokenizer::{PromptTokenizer, TEXT_PLACEHOLDER, TextTokenizer};
pub use verify::verify;
