//! Errors between a bundle on disk and a tensor in memory.

use std::path::PathBuf;

/// An error of loading or running a model. Display says the problem, the place and what to do; `source` says
/// why.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A weights file could not be written.
    #[error("cannot write weights to {}: check that the directory is writable and has room", path.display())]
    Write {
        /// The weights file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A tensor that the config calls for is not among the trainer's weights.
    #[error("tensor `{name}` is missing among the trained weights: they do not belong to this config")]
    MissingTensor {
        /// The checkpoint's name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error(
        "tensor `{name}` has shape {found:?}, the config calls for {expected:?}: the weights do not belong \
         to it"
    )]
    Shape {
        /// The checkpoint's name of the tensor.
        name: String,
        /// Shape by the config.
        expected: Vec<i64>,
        /// Shape in the file.
        found: Vec<i64>,
    },
    /// Prompt states whose size does not fit their dimensions.
    #[error("prompt states of {prompt_len} tokens, width {d_slm}, cannot be {num_bytes} bytes")]
    PromptStates {
        /// Tokens of the prompt.
        prompt_len: usize,
        /// Width of the small model.
        d_slm: usize,
        /// Bytes received.
        num_bytes: usize,
    },
    /// States between two parts of a reader whose size does not fit their dimensions.
    #[error(
        "states of {rows} tokens of {num_prompts} prompts after {num_layers} layers, width {d}, cannot be \
         {num_bytes} bytes"
    )]
    LayerStates {
        /// The prompts.
        num_prompts: usize,
        /// Their tokens.
        rows: usize,
        /// Width of the LLM.
        d: usize,
        /// The layers.
        num_layers: usize,
        /// Bytes received.
        num_bytes: usize,
    },
    /// The bundle asks for something this build cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The bundle, or one of its files, is unusable.
    #[error(transparent)]
    Bundle(#[from] baton_bundle::BundleError),
    /// libtorch refused an operation.
    #[error("libtorch failed while {doing}")]
    Torch {
        /// The step that failed.
        doing: &'static str,
        /// libtorch's message.
        #[source]
        source: tch::TchError,
    },
}
