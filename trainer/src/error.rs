//! Errors of training.

use std::path::{Path, PathBuf};

/// An error of a training run. Display says the problem, the place and what to do; `source` says why.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting makes no sense.
    #[error("{field} = {value}: {rule}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        rule: String,
    },
    /// A line of the training data is unusable.
    #[error("{}:{line}: {problem}; correct the line or remove it", path.display())]
    Pair {
        /// The pairs file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
    /// The config names no pairs.
    #[error("{place} {problem}")]
    Pairs {
        /// The place, as the config has it.
        place: String,
        /// The problem.
        problem: String,
    },
    /// No usable pair is left.
    #[error(
        "{files} has no pair of at most {max_prompt_tokens} prompt and {max_response_tokens} response tokens"
    )]
    NoPairs {
        /// Where pairs were sought.
        files: String,
        /// The limit on prompts.
        max_prompt_tokens: usize,
        /// The limit on responses.
        max_response_tokens: usize,
    },
    /// The directory holds a run with other settings.
    #[error(
        "{path} holds a run with other settings ({difference}): choose another --out, or delete it to start \
         anew"
    )]
    OtherRun {
        /// The run's directory.
        path: PathBuf,
        /// The first setting that differs, with both values.
        difference: String,
    },
    /// The directory holds something that is not a training run.
    #[error("{} is not empty and holds no training run: choose another --out", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The run was asked to stop.
    #[error("stopped after step {step}; the same command continues from {}", path.display())]
    Stopped {
        /// The run's directory.
        path: PathBuf,
        /// Steps done.
        step: usize,
    },
    /// A file or directory failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The action that failed: "read", "write".
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step}: lower the learning rate, or lengthen the warm-up")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The bundle or the LLM's directory is unusable.
    #[error(transparent)]
    Bundle(#[from] baton_bundle::BundleError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] baton_model::ModelError),
}

impl TrainError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
        move |source| TrainError::Io { doing, path: path.to_owned(), source }
    }
}
