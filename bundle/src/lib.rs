//! Bundles: everything one deployment loads, in one directory, safetensors only.
//!
//! ```text
//! bundle.json   what the parts are, how they fit, and the sha256 of every file
//! llm/          config.json, model.safetensors, tokenizer.json   the frozen reader
//! adapter/      adapter_config.json, adapter_model.safetensors   the LLM's fine-tuning, if it has one
//! projector/    model.safetensors                                LLM states -> SLM embedding space
//! slm/          config.json, model.safetensors, tokenizer.json   the trained writer (or its .spm files)
//!               changes.safetensors                              the changes of training, if the weights
//!                                                                are published ones
//!               lex.bin                                          the lexical shortlist of a student
//! ```
//!
//! A bundle of an LLM alone has neither `projector/` nor `slm/`; one of a small model alone has `slm/` alone.
//!
//! This crate owns the manifest, its verification, the two tokenizers, and the checkpoints' configs and
//! safetensors files. It reads tensors only to check them and never runs a model, so it builds without
//! libtorch. Public checkpoints come in by `baton-import`.

mod accounting;
mod adapter;
mod add_llm;
mod alignment;
mod block_ranges;
mod bundle;
mod compact;
mod config;
mod error;
mod family;
mod file;
mod languages;
mod llm_writer;
mod low_rank;
mod manifest;
mod manifest_rules;
mod part_checks;
mod projector_part;
mod prompt_reader;
mod safetensors_file;
mod sentencepiece;
mod shortlist;
mod slm_tokenizer;
mod spm_vocabulary;
mod stored_weights;
mod summary;
mod text_rules;
mod tokenizer;
mod verify;
mod windows;

pub use accounting::{
    Arithmetic, ModelMemory, TokenFlops, WeightFormat, arithmetic_of_llm, arithmetic_of_mode, block_weights,
    memory_of_decoder, memory_of_encoder, memory_of_encoder_part,
};
pub use adapter::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraAdapter, LoraShape, adapter_files, lora_tensor_names,
};
pub use add_llm::{AddedLlm, add_llm};
pub use alignment::{Reading, SegmentPrompt, Span, SpannedTokens, TokenAlignment};
pub use baton_job::LanguageChoice;
pub use baton_quality::QualityModel;
pub use block_ranges::{BlockShare, InvalidBlocks, balanced_ranges};
pub use bundle::{Bundle, read_manifest, write_manifest, write_quality};
pub use compact::{CompactBase, CompactOptions, compact};
pub use config::{
    BartActivation, BartConfig, BartKind, BartPositions, BartWiring, BlockNorms, DecoderConfig, DecoderPast,
    EncoderDecoderShape, ExpertsConfig, FamilyConfig, GateActivation, Gpt2Config, LinearLayer, LongRope,
    ModelConfig, NamedShape, NormPlace, OutputRules, QueryKeyNorms, RopeScaling, RotaryConfig, SlidingLayers,
    T5Config, T5FeedForward, TensorLayout, UnsupportedSetting, WeightDtype, Yarn,
};
pub use error::BundleError;
pub use family::Family;
pub use file::{DirectoryInProgress, io_error, read_bytes, sha256_of_file, write_atomically};
pub use languages::{
    SOURCE_LANGUAGE_PLACEHOLDER, SlmLanguages, TARGET_LANGUAGE_PLACEHOLDER, language_of_token,
    unknown_language,
};
pub use manifest::{
    Alignment, BUNDLE_FILES, BundleManifest, DEFAULT_TEMPLATE, FileDigest, Fusion, Limits, LlmAdapter,
    LlmPart, LlmWriter, MANIFEST_FILE, MANIFEST_FORMAT, PartOrigin, PromptAttention, PromptSource,
    SLM_CHANGES, SLM_SHORTLIST, SlmPart, SmallModel, Task, are_layers_below,
};
pub use projector_part::{InputNorm, ProjectorPart, PromptEmbeddingSource};
pub use prompt_reader::{LlmReader, PromptReader, RecordSegment};
pub use safetensors_file::{SafetensorsFile, StoredTensor, write_safetensors};
pub use sentencepiece::sentencepiece_pieces;
pub use shortlist::LexicalShortlist;
pub use slm_tokenizer::SlmTokenizer;
pub use stored_weights::StoredWeights;
pub use summary::{PartSummary, summarize};
pub use text_rules::RulesByLanguage;
pub use tokenizer::{PromptTokenizer, TEXT_PLACEHOLDER, TextTokenizer};
pub use verify::verify;
