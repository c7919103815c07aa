//! The small enumerations that options and outputs share.

use serde::{Deserialize, Serialize};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The most likely token.
    Greedy,
    /// The best sequence that a beam finds.
    Beam,
    /// A token drawn by its probability.
    Sample,
}

/// When a beam search that has as many finished sequences as beams is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EarlyStopping {
    /// When the best running sequence, at its present length, scores no higher than the worst finished one
    /// (`False` in transformers).
    #[default]
    Heuristic,
    /// At once (`True`).
    AtOnce,
    /// When no running sequence can still get ahead of the worst finished one, at the length that suits it
    /// best (`"never"`).
    Never,
}

/// How much of a record's text an LLM reads for a segment that a small model writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReaderContext {
    /// The segment alone.
    #[default]
    Segment,
    /// The whole record, once; in windows if it is too long for the LLM.
    Record,
}

/// The statements of rows about their outputs' quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QualityColumns {
    /// Nothing.
    #[default]
    None,
    /// The overall estimate.
    Estimate,
    /// The estimate and the signals that it is made from.
    Signals,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model wrote an end token or something else that the job stops at.
    Stop,
    /// The token limit was reached.
    Length,
}

impl FinishReason {
    /// The name in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

impl EarlyStopping {
    /// Every kind.
    pub const ALL: [EarlyStopping; 3] =
        [EarlyStopping::Heuristic, EarlyStopping::AtOnce, EarlyStopping::Never];

    /// Their names, in the same order.
    pub(crate) const NAMES: &'static [&'static str] = &["heuristic", "at_once", "never"];

    /// The name in job files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl ReaderContext {
    /// Every kind.
    pub const ALL: [ReaderContext; 2] = [ReaderContext::Segment, ReaderContext::Record];

    /// Their names, in the same order.
    pub(crate) const NAMES: &'static [&'static str] = &["segment", "record"];

    /// The name in job files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl QualityColumns {
    /// Every kind.
    pub const ALL: [QualityColumns; 3] =
        [QualityColumns::None, QualityColumns::Estimate, QualityColumns::Signals];

    /// Their names, in the same order.
    pub(crate) const NAMES: &'static [&'static str] = &["no", "estimate", "signals"];

    /// The name in job files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
