//! The settings of a training run and their defaults (`checks` refuses those that make no sense).

mod checks;

use std::{collections::BTreeMap, path::PathBuf};

use baton_bundle::{
    Alignment, Family, Fusion, InputNorm, Limits, ProjectorPart, PromptAttention, PromptEmbeddingSource,
};
use baton_job::{GenerationLayer, Mode, ReaderContext};
use serde::{Deserialize, Serialize};

pub(crate) use self::checks::check;
use crate::{LlmTraining, PairFiles};

/// The model that a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trains {
    /// The small model, with the projector.
    #[default]
    Slm,
    /// The LLM: [`TrainConfig::for_llm`].
    Llm,
}

impl Trains {
    fn is_slm(&self) -> bool {
        *self == Self::Slm
    }
}

/// The small model's input for the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// The LLM's hidden states (mode `hybrid`).
    Hybrid,
    /// Its own prompt embedding alone: the baseline without the LLM (mode `slm`).
    Slm,
}

/// Everything that defines a training run. Two runs with equal configs on equal data end with equal weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The model to train.
    #[serde(default, skip_serializing_if = "Trains::is_slm")]
    pub trains: Trains,
    /// Training pairs: a file of JSONL, CSV or Parquet, a glob, the output directory of a job, or a list of
    /// these.
    pub train: PairFiles,
    /// Validation pairs.
    pub dev: PairFiles,
    /// Field or column of the text to read; a name with points names a nested field. A job with
    /// `--keep-fields` keeps the text as `fields.text`, or as the column `text` of Parquet parts.
    #[serde(default = "defaults::source_field")]
    pub source_field: String,
    /// Field or column of the text to write; a job writes `output`.
    #[serde(default = "defaults::target_field")]
    pub target_field: String,
    /// JSONL field with a row's sentences, `[[source, target], ...]` in order. If a row has it, each sentence
    /// is a pair, and the row's source is the record around them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentences_field: Option<String>,
    /// How much the LLM reads for a pair: its source alone, or the whole record of which it is a sentence, in
    /// windows of at most `max_prompt_tokens`. The bundle reads alike. `record` needs alignment by
    /// characters.
    #[serde(default, skip_serializing_if = "is_segment")]
    pub reader_context: ReaderContext,
    /// Other pairs that are mixed in, so that the small model does not forget earlier skills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<GeneralPairs>,
    /// Directory of the frozen LLM in the Hugging Face layout. Not read if a small model of its own tokens
    /// learns alone.
    #[serde(default, skip_serializing_if = "is_empty_path")]
    pub llm: PathBuf,
    /// Directory of an adapter that the LLM reads with, such as the `adapter/` of a bundle; it goes into the
    /// bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_adapter: Option<PathBuf>,
    /// Hidden states are taken after this block of the LLM, counted from 1.
    #[serde(default)]
    pub llm_layer: usize,
    /// Earlier blocks, rising, whose states are mixed with those, by shares that are trained. None is usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed_layers: Vec<usize>,
    /// Linear layers of the projector, with ReLU between them. One, a linear map, learns best
    /// (docs/experiments/quality.md, "Ablations").
    #[serde(default = "defaults::projector_depth")]
    pub projector_depth: usize,
    /// Bidirectional blocks before the projector's last layer: an adaptor in which all that a prompt takes of
    /// the LLM sees itself both ways. They need `projector_depth` 2 or more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub projector_blocks: usize,
    /// The tokens of the small model's prompt. By characters, the small model keeps its own: `start_from` is
    /// then a bundle of such a model, for example from `baton bundle import-slm`. Its template and tokens
    /// stay, and a new projector begins at zero.
    #[serde(default, skip_serializing_if = "is_by_tokens")]
    pub alignment: Alignment,
    /// Tensors of the small model that stay fixed, by name; `*` matches any characters. Example:
    /// `["shared.weight", "decoder.*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// The small model's input.
    #[serde(default = "defaults::reads")]
    pub reads: Reads,
    /// How projected states enter the small model's prompt.
    #[serde(default = "defaults::fusion")]
    pub fusion: Fusion,
    /// Whether prompt positions see each other both ways (prefix-LM) or causally.
    #[serde(default = "defaults::prompt_attention")]
    pub prompt_attention: PromptAttention,
    /// Prompt template of the LLM; `{text}` is the place of the source text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// Longer prompts are left out of training, and the bundle refuses them. Tokens of the LLM's tokenizer.
    pub max_prompt_tokens: usize,
    /// Longer responses are left out of training. Tokens of the SLM's tokenizer.
    pub max_response_tokens: usize,
    /// Shape of a small model that is trained from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slm: Option<SlmShape>,
    /// Replaces `slm`: the bundle that training starts from, including its projector if it fits, or a
    /// directory with a small model in the Hugging Face layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// How it is trained.
    pub hyperparameters: Hyperparameters,
    /// The settings for fine-tuning the LLM itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_training: Option<LlmTraining>,
    /// Name and task written into the bundle.
    pub bundle: BundleIdentity,
}

/// The bundle's name and purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleIdentity {
    /// The bundle's name.
    pub name: String,
    /// Its task.
    pub task: baton_bundle::Task,
    /// How outputs are generated best, by mode. Default: greedily.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generation: BTreeMap<Mode, GenerationLayer>,
    /// Licence of the trained parts.
    pub licence: String,
    /// Where the training data comes from.
    pub data_origin: String,
    /// Where the LLM comes from, and its licence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub llm_origin: String,
    /// Licence of the LLM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub llm_licence: String,
}

/// Family and shape of a small model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlmShape {
    /// Its family: `llama`, `qwen2`, `gpt2` or `t5`.
    #[serde(default = "defaults::family", skip_serializing_if = "is_llama")]
    pub family: Family,
    /// Width.
    pub d_model: usize,
    /// Blocks; in a T5, of the encoder, and as many of the decoder.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Size of the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Which tokenizer it writes in.
    #[serde(default, skip_serializing_if = "SlmTokenizer::is_own")]
    pub tokenizer: SlmTokenizer,
    /// At most this many of these tokens are the LLM's own, without the bytes: the tokens of copied words. 0
    /// makes a tokenizer that is independent of the LLM's; otherwise the LLM's must be byte-level BPE.
    #[serde(default)]
    pub llm_tokens: usize,
    /// The start of the embeddings.
    #[serde(default)]
    pub initialization: Initialization,
}

/// The tokens that a small model writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SlmTokenizer {
    /// Its own, learned from the training pairs.
    #[default]
    Own,
    /// The LLM's, as mode `verified` asks for. Its vocabulary has the LLM's size then.
    Llm {
        /// The token that begins every output.
        bos_token: String,
        /// The token that ends it.
        eos_token: String,
    },
}

impl SlmTokenizer {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// The start of the embeddings of prompt and response tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// The principal components of the LLM's embeddings, the same for prompt and response.
    #[default]
    Aligned,
    /// Random numbers.
    Random,
}

/// How the weights are learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperparameters {
    /// Optimizer steps.
    pub steps: usize,
    /// In this many of them, the first, only projector and prompt embedding learn. Try it with `start_from`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub projector_steps: usize,
    /// Tokens (prompt and response) of one step.
    pub batch_tokens: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The rate of projector and prompt embedding, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector_learning_rate: Option<f64>,
    /// Steps over which the rate rises linearly to its peak; then it falls along a cosine to a twentieth.
    pub warmup_steps: usize,
    /// AdamW's decay of matrices.
    pub weight_decay: f64,
    /// Share of the target distribution spread over the whole vocabulary.
    pub label_smoothing: f64,
    /// Probability of dropping an element of an embedding or of a block's contribution.
    pub dropout: f64,
    /// Gradients are scaled down to this norm.
    pub clip_norm: f64,
    /// Seed of initialization, order and dropout.
    pub seed: u64,
    /// Steps between validations.
    pub validate_every: usize,
    /// Validation uses this many pairs at most, the first of the file.
    pub validation_pairs: usize,
}

/// Pairs that are mixed in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneralPairs {
    /// Their files, with the same fields as the training pairs.
    pub files: PairFiles,
    /// Their share among the pairs of an epoch, above 0 and below 1. If there are too few, they repeat; if
    /// there are more, each epoch takes the next ones.
    pub share: f64,
}

fn is_by_tokens(alignment: &Alignment) -> bool {
    *alignment == Alignment::Tokens
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_segment(context: &ReaderContext) -> bool {
    *context == ReaderContext::Segment
}

fn is_empty_path(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn is_llama(family: &Family) -> bool {
    *family == Family::Llama
}

mod defaults {
    use super::{Family, Fusion, PromptAttention, Reads};

    pub(super) fn family() -> Family {
        Family::Llama
    }
    pub(super) fn projector_depth() -> usize {
        1
    }
    pub(super) fn reads() -> Reads {
        Reads::Hybrid
    }
    pub(super) fn fusion() -> Fusion {
        Fusion::Add
    }
    pub(super) fn prompt_attention() -> PromptAttention {
        PromptAttention::Bidirectional
    }
    pub(super) fn source_field() -> String {
        "source".into()
    }
    pub(super) fn target_field() -> String {
        "target".into()
    }
}

impl TrainConfig {
    /// Whether an LLM takes part.
    pub(crate) fn has_llm(&self) -> bool {
        self.alignment == Alignment::Tokens || self.reads == Reads::Hybrid
    }

    /// Longest prompts and responses, where a bundle does not say otherwise.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_prompt_tokens: self.max_prompt_tokens,
            max_slm_prompt_tokens: None,
            max_new_tokens: self.max_response_tokens,
        }
    }

    /// The projector that is trained between models of these widths.
    pub(crate) fn projector(&self, d_llm: usize, d_slm: usize) -> ProjectorPart {
        ProjectorPart {
            d_llm,
            d_slm,
            input_norm: InputNorm::Rms,
            prompt_embedding: match (self.reads, self.fusion) {
                _ if self.alignment == Alignment::Characters => PromptEmbeddingSource::Slm,
                (Reads::Hybrid, Fusion::Replace) => PromptEmbeddingSource::None,
                (Reads::Slm, _) | (Reads::Hybrid, Fusion::Add) => PromptEmbeddingSource::Llm,
            },
            mixed_layers: self.mixed_layers.clone(),
            depth: self.projector_depth,
            blocks: self.projector_blocks,
        }
    }

    /// The learning rate of a step, counted from 0: linear warm-up, then cosine down to a twentieth of the
    /// peak.
    #[must_use]
    pub fn learning_rate(&self, step: usize) -> f64 {
        self.hyperparameters.learning_rate * self.share_of_peak(step)
    }

    /// The same for projector and prompt embedding.
    #[must_use]
    pub fn projector_learning_rate(&self, step: usize) -> f64 {
        let h = &self.hyperparameters;
        h.projector_learning_rate.unwrap_or(h.learning_rate) * self.share_of_peak(step)
    }

    fn share_of_peak(&self, step: usize) -> f64 {
        let h = &self.hyperparameters;
        if step < h.warmup_steps {
            return (step + 1) as f64 / h.warmup_steps as f64;
        }
        let decay_steps = h.steps.saturating_sub(h.warmup_steps).max(1);
        let progress = ((step - h.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        let floor = 0.05;
        floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}
