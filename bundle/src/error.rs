//! The one error of this crate: the action, the file, and what to do next.

use std::io;
use std::path::PathBuf;

use crate::config::UnsupportedSetting;

/// Why a bundle or a checkpoint cannot be read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The operating system refused a read or a write.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Verb phrase, such as "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A JSON file does not parse or lacks a field.
    #[error("{} is not the JSON that was expected here", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        #[source]
        source: serde_json::Error,
    },
    /// The checkpoint is of a family that Baton does not implement.
    #[error("{} is a model of family `{family}`; supported: {supported}", path.display())]
    UnsupportedFamily {
        /// The checkpoint's file that says so.
        path: PathBuf,
        /// The family's name in that file.
        family: String,
        /// Families that would be accepted.
        supported: String,
    },
    /// The family is known, but one of its settings is not implemented.
    #[error("{} describes a model that Baton cannot run", path.display())]
    UnsupportedConfig {
        /// The `config.json`.
        path: PathBuf,
        /// The field.
        #[source]
        reason: UnsupportedSetting,
    },
    /// A safetensors header is truncated or inconsistent.
    #[error("{} is not a complete safetensors file: {problem}; fetch or import it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A tensor is absent, unknown, or of another shape or dtype than its config says.
    #[error("{}: tensor `{tensor}` {problem}", path.display())]
    Tensor {
        /// The safetensors or GGUF file.
        path: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// The problem.
        problem: String,
    },
    /// An adapter says or has something that Baton does not implement.
    #[error("{}: {problem}", path.display())]
    Adapter {
        /// The file of the adapter.
        path: PathBuf,
        /// The field or tensor, and the values that would be accepted.
        problem: String,
    },
    /// An LLM cannot be given to a bundle as its writer.
    #[error("cannot give {} another LLM: {problem}", path.display())]
    AddLlm {
        /// The bundle's directory.
        path: PathBuf,
        /// The mismatch, and the values that would fit.
        problem: String,
    },
    /// A tokenizer does not load, or cannot be built from the checkpoint.
    #[error("cannot load the tokenizer of {}", path.display())]
    Tokenizer {
        /// `tokenizer.json`, or the GGUF file.
        path: PathBuf,
        /// The tokenizer library's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An import or a manifest would overwrite something.
    #[error("{} already exists; remove it or choose another directory", path.display())]
    OutputExists {
        /// The existing directory.
        path: PathBuf,
    },
    /// `bundle.json` contradicts itself or the parts.
    #[error("{}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The rule that is broken, with both values.
        problem: String,
    },
    /// A file of the bundle is not there.
    #[error("{} is missing; {remedy}", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// How to get it.
        remedy: String,
    },
    /// A file of the bundle is not the one that the bundle was made with.
    #[error("{} {problem}; {remedy}", path.display())]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// Found and expected size or hash.
        problem: String,
        /// How to get a good copy.
        remedy: String,
    },
    /// A lexical shortlist is broken, or of another model.
    #[error("{} cannot be the small model's lexical shortlist: {problem}", path.display())]
    Shortlist {
        /// The file.
        path: PathBuf,
        /// The reason, in words that continue the sentence.
        problem: String,
    },
    /// A tokenizer does not belong to its model.
    #[error("{} {problem}; copy the tokenizer.json that the model was trained with", path.display())]
    WrongTokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// The mismatch.
        problem: String,
    },
    /// A prompt template cannot be used.
    #[error("the prompt template {template:?} {problem}")]
    Template {
        /// The template.
        template: String,
        /// The problem.
        problem: &'static str,
    },
}
