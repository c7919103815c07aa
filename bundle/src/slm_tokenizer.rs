//! The files of a bundle with the small model's tokens.

use serde::{Deserialize, Serialize};

/// The files in `slm/` that define the SLM's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlmTokenizer {
    /// `tokenizer.json`, as the trainer and Hugging Face write it.
    #[default]
    Json,
    /// `vocab.spm`, a SentencePiece model for prompts and outputs.
    SentencePiece,
    /// `vocab.spm`, and `vocab.json` with the ids of its pieces and of others.
    SentencePieceWithIds,
    /// `source.spm` for prompts, `target.spm` for outputs, and `vocab.json` with the ids of the pieces of
    /// both.
    SourceAndTarget,
}

impl SlmTokenizer {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The files for prompts, for outputs, and others that belong to them.
    pub(crate) fn files(self) -> [&'static str; 3] {
        match self {
            Self::Json => ["slm/tokenizer.json"; 3],
            Self::SentencePiece => ["slm/vocab.spm"; 3],
            Self::SentencePieceWithIds => ["slm/vocab.spm", "slm/vocab.spm", "slm/vocab.json"],
            Self::SourceAndTarget => ["slm/source.spm", "slm/target.spm", "slm/vocab.json"],
        }
    }

    /// The file that is opened for prompts of the small model's own tokens.
    #[must_use]
    pub fn prompt_file(self) -> &'static str {
        self.files()[0]
    }

    /// The file that is opened for outputs.
    #[must_use]
    pub fn output_file(self) -> &'static str {
        self.files()[1]
    }
}
