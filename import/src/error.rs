//! The one error of this crate: the part of the source that cannot be imported, and what to do next.

use std::path::PathBuf;

use baton_bundle::BundleError;

/// Why a checkpoint cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read or written, or its content does not fit a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The source is neither a GGUF file nor a Hugging Face directory with safetensors.
    #[error("cannot import {}: {reason}", path.display())]
    UnsupportedSource {
        /// The value of `--from`.
        path: PathBuf,
        /// The problem, and what to use instead.
        reason: String,
    },
    /// A GGUF file does not parse.
    #[error("{} is not a complete GGUF file; fetch it again: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A GGUF metadata entry is missing, of another type, or of an unsupported value.
    #[error("{}: metadata `{key}` {problem}", path.display())]
    GgufMetadata {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// The problem with its value.
        problem: String,
    },
}
