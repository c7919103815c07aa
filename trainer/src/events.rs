//! A run's reports: events for a progress display, and the same events in `log.jsonl` for curves.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Serialize;

use crate::TrainError;

/// A report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// Pairs are read and tokenized.
    Prepared {
        /// Training pairs used.
        train_pairs: usize,
        /// Training pairs left out: they are too long, or a job's output without an end or without text.
        train_pairs_left_out: usize,
        /// Validation pairs used.
        validation_pairs: usize,
        /// Trained parameters.
        parameters: usize,
    },
    /// Prompts are being encoded by the LLM.
    Encoding {
        /// "train" or "dev".
        set: &'static str,
        /// Prompt tokens done.
        tokens_done: usize,
        /// Prompt tokens in all.
        tokens_total: usize,
        /// Tokens per second of this process.
        tokens_per_second: f64,
    },
    /// The run resumes from a checkpoint.
    Resumed {
        /// Steps already done.
        step: usize,
    },
    /// Some steps were made.
    Step {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Passes over the data.
        epochs: f64,
        /// Mean training loss since the last event, label smoothing included, nats per token.
        loss: f64,
        /// Gradient norm before clipping, of the last step.
        gradient_norm: f64,
        /// Learning rate of the last step.
        learning_rate: f64,
        /// Prompt and response tokens per second since the last event.
        tokens_per_second: f64,
        /// Seconds to the end at this rate.
        eta_seconds: f64,
    },
    /// The validation loss was measured.
    Validation {
        /// Steps done.
        step: usize,
        /// Mean loss, no smoothing, nats per token.
        loss: f64,
        /// The same in nats per byte of target text, which can be compared between tokenizers.
        loss_per_byte: f64,
        /// Whether it is the lowest so far; then its weights are kept.
        best: bool,
    },
    /// The bundle is written.
    Exported {
        /// The bundle's directory.
        bundle: PathBuf,
    },
}

/// `log.jsonl`: every event but encoding progress, for curves.
pub(crate) struct EventLog {
    file: fs::File,
}

impl EventLog {
    pub(crate) fn open(directory: &Path) -> Result<Self, TrainError> {
        let path = directory.join("log.jsonl");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io("write", &path))?;
        Ok(Self { file })
    }

    /// A log line that cannot be written (a full disk) is not worth the run; the next checkpoint will say so.
    pub(crate) fn append(&mut self, event: &TrainEvent) {
        if !matches!(event, TrainEvent::Encoding { .. }) {
            let line = serde_json::to_string(event).expect("an event is plain data");
            if let Err(error) = writeln!(self.file, "{line}") {
                tracing::warn!(%error, "cannot write log.jsonl");
            }
        }
    }
}

/// Losses and tokens since the last report.
pub(crate) struct Interval {
    started: Instant,
    losses: f64,
    steps: usize,
    tokens: usize,
}

impl Interval {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), losses: 0.0, steps: 0, tokens: 0 }
    }
    pub(crate) fn add(&mut self, loss: f64, tokens: usize) {
        self.losses += loss;
        self.steps += 1;
        self.tokens += tokens;
    }
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
    pub(crate) fn mean_loss(&self) -> f64 {
        self.losses / self.steps.max(1) as f64
    }
    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds()
    }
    pub(crate) fn seconds_per_step(&self) -> f64 {
        self.seconds() / self.steps.max(1) as f64
    }
}
