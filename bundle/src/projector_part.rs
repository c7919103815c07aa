//! The projector in `bundle.json`: its widths, its layers, and the prompt embedding beside it.

use serde::{Deserialize, Serialize};

/// The projector as trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorPart {
    /// Width of its input.
    pub d_llm: usize,
    /// Width of its output.
    pub d_slm: usize,
    /// The operation on hidden states before its first layer.
    pub input_norm: InputNorm,
    /// Where the SLM's embeddings of the *prompt* tokens come from.
    pub prompt_embedding: PromptEmbeddingSource,
    /// Layers below the LLM's last, counted from 1 and rising, whose states are mixed with those of the last.
    /// Usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed_layers: Vec<usize>,
    /// Linear layers, with ReLU between them; at least 1.
    #[serde(default = "usual_depth", skip_serializing_if = "is_usual_depth")]
    pub depth: usize,
}

impl ProjectorPart {
    /// The usual [`depth`](Self::depth), that of the method's paper (arXiv 2402.16844, section 3).
    pub const USUAL_DEPTH: usize = 2;

    /// Its linear layers from first to last: their names in the checkpoint, and the widths that they read.
    /// All give `d_slm`.
    #[must_use]
    pub fn linear_layers(&self) -> Vec<(String, usize)> {
        let last = self.depth.saturating_sub(1);
        let layer = |place: usize| {
            let name = match place {
                _ if place == last => "projector.output".to_owned(),
                0 => "projector.input".to_owned(),
                _ => format!("projector.hidden.{place}"),
            };
            (name, if place == 0 { self.d_llm } else { self.d_slm })
        };
        (0..=last).map(layer).collect()
    }
}

fn usual_depth() -> usize {
    ProjectorPart::USUAL_DEPTH
}

fn is_usual_depth(depth: &usize) -> bool {
    *depth == ProjectorPart::USUAL_DEPTH
}

/// Scaling of hidden states before the projector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputNorm {
    /// Each position is divided by its root mean square; no weights.
    Rms,
}

/// Where embeddings of prompt tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptEmbeddingSource {
    /// The LLM's embedding matrix, followed by a trained linear map to `d_slm`.
    Llm,
    /// The SLM's embeddings of its own tokens, to which alignment by characters adds projected states.
    Slm,
    /// No embeddings; the prompt consists of the projected states alone.
    None,
}
