//! The projector: its entry in `bundle.json`, and the tensors that follow from it.
//!
//! `depth` linear layers, with ReLU between them, map the LLM's states into the small model's space. Before
//! the last layer there can be blocks, in which all LLM states of a prompt see each other, in both
//! directions: an adaptor between the two models (LaMaTE; Luo et al., arXiv 2503.06594). The blocks are a
//! Llama's, of the small model's width, with a norm after them.

use serde::{Deserialize, Serialize};

use crate::{DecoderConfig, FamilyConfig, ModelConfig, NamedShape, OutputRules, WeightDtype};

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
    /// None is usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed_layers: Vec<usize>,
    /// Linear layers, with ReLU between them; at least 1.
    #[serde(default = "usual_depth", skip_serializing_if = "is_usual_depth")]
    pub depth: usize,
    /// Bidirectional blocks before the last linear layer, which then is at least the second. Usually none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub blocks: usize,
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

    /// The shape of its blocks; the embedding has no row.
    #[must_use]
    pub fn block_config(&self) -> ModelConfig {
        let d = self.d_slm;
        let head_dim = [64, 32, 16, 8, 4, 2].into_iter().find(|size| d.is_multiple_of(*size)).unwrap_or(d);
        ModelConfig {
            hidden_size: d,
            intermediate_size: (d * 8 / 3).next_multiple_of(32),
            num_hidden_layers: self.blocks,
            num_attention_heads: d / head_dim,
            num_key_value_heads: d / head_dim,
            head_dim,
            vocab_size: 0,
            max_position_embeddings: usize::MAX,
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            output_rules: OutputRules::default(),
            dtype: WeightDtype::Bf16,
            family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 10_000.0)),
        }
    }

    /// Name and shape of its blocks' tensors, and of the norm after them.
    #[must_use]
    pub fn block_shapes(&self) -> Vec<NamedShape> {
        if self.blocks == 0 {
            return Vec::new();
        }
        let layout = self.block_config().tensor_layout();
        let tensors = layout.blocks.into_iter().flatten().chain(layout.after);
        tensors.map(|(name, shape)| (format!("projector.{name}"), shape)).collect()
    }

    /// Name and shape of all tensors in `projector/model.safetensors`. `reads_llm`: whether any mode reads
    /// the LLM's states of a prompt, and not only its embeddings.
    pub(crate) fn tensor_shapes(&self, reads_llm: bool) -> Vec<NamedShape> {
        let d_slm = self.d_slm;
        let mut layers = if reads_llm { self.linear_layers() } else { Vec::new() };
        if self.prompt_embedding == PromptEmbeddingSource::Llm {
            layers.push(("prompt_embedding.map".to_owned(), self.d_llm));
        }
        let tensors = layers.into_iter().flat_map(|(layer, d_in)| {
            [(format!("{layer}.weight"), vec![d_slm, d_in]), (format!("{layer}.bias"), vec![d_slm])]
        });
        let mut tensors: Vec<NamedShape> = tensors.collect();
        if reads_llm {
            tensors.extend(self.block_shapes());
        }
        if reads_llm && !self.mixed_layers.is_empty() {
            tensors.push(("projector.mix".to_owned(), vec![self.mixed_layers.len() + 1]));
        }
        tensors
    }
}

fn usual_depth() -> usize {
    ProjectorPart::USUAL_DEPTH
}

fn is_usual_depth(depth: &usize) -> bool {
    *depth == ProjectorPart::USUAL_DEPTH
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
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
