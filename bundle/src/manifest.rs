//! `bundle.json`: what a bundle is made of and how its parts fit together.
//!
//! Owns the file's fields and the rules among them that need no other file. What the manifest says about the
//! parts on disk is checked by [`crate::Bundle::open`] (dimensions, sizes) and [`crate::verify`] (everything).

use std::collections::BTreeMap;
use std::fmt;

use baton_job::{GenerationLayer, GenerationOptions, Mode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tokenizer::split_template;

/// Name of the manifest in a bundle's directory.
pub const MANIFEST_FILE: &str = "bundle.json";
/// The `format` that this version reads and writes.
pub const MANIFEST_FORMAT: u32 = 1;
/// The prompt template of a job that names none.
pub const DEFAULT_TEMPLATE: &str = "default";

/// The files of a bundle: all that Baton reads, each with its hash in the manifest.
pub const BUNDLE_FILES: [&str; 9] = [
    "llm/config.json",
    "llm/model.safetensors",
    "llm/tokenizer.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "projector/model.safetensors",
    "slm/config.json",
    "slm/model.safetensors",
    "slm/tokenizer.json",
];

/// The contents of `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// Version of this file's layout: [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Short name, such as `en-it`.
    pub name: String,
    /// What the bundle was trained to do.
    pub task: Task,
    /// The frozen reader, in `llm/`.
    pub llm: LlmPart,
    /// The trained map between the two, in `projector/`. Absent, with the next two, where the LLM works alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<ProjectorPart>,
    /// The trained writer, in `slm/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slm: Option<SlmPart>,
    /// How projected states enter the SLM's prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// Modes that the parts serve; the first is the default.
    pub modes: Vec<Mode>,
    /// Prompt templates by name; [`DEFAULT_TEMPLATE`] is always there. `{text}` stands for the record's text,
    /// once in each.
    pub templates: BTreeMap<String, String>,
    /// How each mode's outputs are generated best: what a job does not say itself. Fields of [`GenerationOptions`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generation: BTreeMap<Mode, GenerationLayer>,
    /// What the bundle was trained for at most.
    pub limits: Limits,
    /// Licence and origin of each part.
    pub parts: Vec<PartOrigin>,
    /// How the trained parts were made: command, data, seed, scores. Baton does not read it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub training: Map<String, Value>,
    /// Size and hash of each of [`BUNDLE_FILES`]; filled in by [`crate::write_manifest`].
    #[serde(default)]
    pub files: BTreeMap<String, FileDigest>,
}

/// What a bundle does with a text. Languages are ISO 639 codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Task {
    /// Writes the text in another language.
    Translation {
        /// Language of the input.
        source: String,
        /// Language of the output.
        target: String,
    },
    /// Writes the text shorter, in the same language.
    Summarization {
        /// Language of input and output.
        language: String,
    },
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translation { source, target } => write!(f, "translation, {source} to {target}"),
            Self::Summarization { language } => write!(f, "summarization, {language}"),
        }
    }
}

/// A model family that Baton implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Decoder-only, pre-norm, rotary positions, gated feed-forward.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with a norm on each query and key head.
    Qwen3,
    /// Gemma 3's text models: norms before and behind each part of a block, sliding and full attention.
    Gemma3,
    /// Decoder-only, layer norms, learned positions.
    Gpt2,
    /// T5 1.0 and 1.1, Flan-T5: encoder and decoder, relative positions.
    T5,
    /// mT5: T5 1.1 with a large vocabulary.
    Mt5,
}

/// The LLM as the bundle uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmPart {
    /// Its family.
    pub family: Family,
    /// Number of blocks that are run. Hidden states are taken after the last of them, without a final norm.
    pub layers: usize,
    /// Width of its hidden states.
    pub d_model: usize,
    /// Rows of its embedding matrix.
    pub vocab_size: usize,
    /// How it writes, where it does: modes `llm` and `verified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<LlmWriter>,
    /// That it was fine-tuned, by what is in `adapter/`. Whenever it writes, it writes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LlmAdapter>,
}

/// How a fine-tuned LLM reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmAdapter {
    /// Whether the small model learned from the states of the adapted LLM, or from those of the LLM as published.
    pub hybrid_reads_it: bool,
}

/// How the LLM goes from reading a prompt to writing an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmWriter {
    /// What follows a prompt's last token, such as `\n<|im_start|>assistant\n`; at least one token. The output begins after it. Its last
    /// token is the first that a decoder is fed; for T5 the whole is `</s><pad>`.
    pub prompt_end: String,
    /// The token that ends an output, in the LLM's tokenizer.
    pub eos_token: String,
    /// Longest output, in tokens of the LLM.
    pub max_new_tokens: usize,
}

/// The projector as trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorPart {
    /// Width of what it reads.
    pub d_llm: usize,
    /// Width of what it gives.
    pub d_slm: usize,
    /// What is done to hidden states before its first layer.
    pub input_norm: InputNorm,
    /// Where the SLM's embeddings of the *prompt* tokens come from.
    pub prompt_embedding: PromptEmbeddingSource,
    /// Layers below the LLM's last, counted from 1 and rising, whose states are mixed with those of the last. None is usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed_layers: Vec<usize>,
    /// Linear layers, with ReLU between them; at least 1.
    #[serde(default = "usual_depth", skip_serializing_if = "is_usual_depth")]
    pub depth: usize,
}

impl ProjectorPart {
    /// The usual [`depth`](Self::depth), that of the method's paper (arXiv 2402.16844, section 3).
    pub const USUAL_DEPTH: usize = 2;

    /// Its linear layers from first to last: their names in the checkpoint, and the widths that they read. All give `d_slm`.
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
    /// There are none; the projected states stand alone.
    None,
}

/// The SLM as trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlmPart {
    /// Its family.
    pub family: Family,
    /// Width of its hidden states.
    pub d_model: usize,
    /// Rows of its embedding matrix.
    pub vocab_size: usize,
    /// Which prompt positions a prompt position sees.
    pub prompt_attention: PromptAttention,
    /// The token that begins every output.
    pub bos_token: String,
    /// The token that ends it.
    pub eos_token: String,
}

/// Which prompt positions a prompt position attends to. The response is always causal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptAttention {
    /// All of them (prefix-LM).
    Bidirectional,
    /// Itself and those before it.
    Causal,
}

/// How projected states enter the SLM's prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// Added to the prompt embeddings, position by position.
    Add,
    /// Instead of the prompt embeddings.
    Replace,
}

impl fmt::Display for Fusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Replace => "replace",
        })
    }
}

/// Lengths that a bundle serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest prompt, template included, in tokens of the LLM.
    pub max_prompt_tokens: usize,
    /// Longest output, in tokens of the SLM.
    pub max_new_tokens: usize,
}

/// Where a part comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOrigin {
    /// The part's directory: `llm`, `adapter`, `projector` or `slm`.
    pub path: String,
    /// SPDX expression.
    pub licence: String,
    /// Who made it, where it was published, under which name and version.
    pub origin: String,
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// What a bundle has beside its LLM: always all of it, or nothing.
#[derive(Debug, Clone, Copy)]
pub struct SmallModel<'a> {
    /// The trained map between LLM and SLM.
    pub projector: &'a ProjectorPart,
    /// The trained writer.
    pub slm: &'a SlmPart,
    /// How projected states enter the SLM's prompt.
    pub fusion: Fusion,
}

impl BundleManifest {
    /// The file's text, with a final newline. Equal manifests have equal bytes.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has only string keys");
        text.push('\n');
        text
    }

    /// The parts beside the LLM, where the bundle has them all.
    pub fn small_model(&self) -> Option<SmallModel<'_>> {
        let (projector, slm) = self.projector.as_ref().zip(self.slm.as_ref())?;
        Some(SmallModel { projector, slm, fusion: self.fusion? })
    }

    /// Longest output of a mode, in tokens of whoever writes.
    pub fn max_new_tokens(&self, mode: Mode) -> usize {
        let writer = self.llm.writer.as_ref().filter(|_| mode.llm_writes());
        writer.map_or(self.limits.max_new_tokens, |writer| writer.max_new_tokens)
    }

    /// Those of [`BUNDLE_FILES`] that the bundle has.
    pub fn file_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let (has_small_model, has_adapter) = (self.small_model().is_some(), self.llm.adapter.is_some());
        BUNDLE_FILES.into_iter().filter(move |name| match name.split('/').next() {
            Some("llm") => true,
            Some("adapter") => has_adapter,
            _ => has_small_model,
        })
    }

    /// The first broken rule among the manifest's own fields, `files` excepted.
    pub(crate) fn problem(&self) -> Option<String> {
        let rules = [
            (self.format == MANIFEST_FORMAT, format!("`format` is {}, not {MANIFEST_FORMAT}", self.format)),
            (!self.modes.is_empty(), "`modes` is empty".to_owned()),
            (
                !self.modes.iter().any(|mode| mode.llm_writes()) || self.llm.writer.is_some(),
                "`modes` has `llm` or `verified`, but there is no `llm.writer`".to_owned(),
            ),
            (
                !self.modes.contains(&Mode::Verified) || self.modes.contains(&Mode::Hybrid),
                "`modes` has `verified`, but not `hybrid`, which drafts for it".to_owned(),
            ),
            (
                self.llm.writer.as_ref().is_none_or(|writer| writer.max_new_tokens > 0),
                "`llm.writer.max_new_tokens` is 0".to_owned(),
            ),
            (
                self.llm.writer.as_ref().is_none_or(|writer| !writer.prompt_end.is_empty()),
                "`llm.writer.prompt_end` is empty; give it at least one token".to_owned(),
            ),
            (
                self.templates.contains_key(DEFAULT_TEMPLATE),
                format!("`templates` has no `{DEFAULT_TEMPLATE}`"),
            ),
            (
                self.limits.max_prompt_tokens > 0 && self.limits.max_new_tokens > 0,
                "a number in `limits` is 0".to_owned(),
            ),
        ];
        first_broken(rules)
            .or_else(|| self.problem_of_small_model())
            .or_else(|| self.problem_of_generation())
            .or_else(|| {
                self.templates.iter().find_map(|(name, template)| {
                    let problem = split_template(template).err()?;
                    Some(format!("`templates.{name}` {problem}"))
                })
            })
    }

    fn problem_of_generation(&self) -> Option<String> {
        self.generation.iter().find_map(|(mode, layer)| {
            if !self.modes.contains(mode) {
                return Some(format!("`generation` has mode `{mode}`, but `modes` has not"));
            }
            let checked = GenerationOptions::from_layers([layer]).and_then(|options| options.validate());
            checked.err().map(|error| format!("`generation.{mode}` cannot be: {error}"))
        })
    }

    fn problem_of_small_model(&self) -> Option<String> {
        let (hybrid, slm_alone) = (self.modes.contains(&Mode::Hybrid), self.modes.contains(&Mode::Slm));
        let Some(SmallModel { projector, slm, fusion }) = self.small_model() else {
            let is_needed = hybrid || slm_alone;
            let is_begun = self.projector.is_some() || self.slm.is_some() || self.fusion.is_some();
            return (is_needed || is_begun)
                .then(|| "a small model needs all of `projector`, `slm` and `fusion`".to_owned());
        };
        let llm = &self.llm;
        let has_prompt_embedding = projector.prompt_embedding == PromptEmbeddingSource::Llm;
        first_broken([
            (
                projector.d_llm == llm.d_model,
                format!("`projector.d_llm` is {}, but `llm.d_model` is {}", projector.d_llm, llm.d_model),
            ),
            (
                projector.d_slm == slm.d_model,
                format!("`projector.d_slm` is {}, but `slm.d_model` is {}", projector.d_slm, slm.d_model),
            ),
            (
                are_layers_below(&projector.mixed_layers, llm.layers),
                format!(
                    "`projector.mixed_layers` is {:?}: it must rise from 1, below `llm.layers`, which is {}",
                    projector.mixed_layers, llm.layers
                ),
            ),
            (
                projector.mixed_layers.is_empty() || !matches!(llm.family, Family::T5 | Family::Mt5),
                "`projector.mixed_layers` must be empty: of an encoder the last states are read".to_owned(),
            ),
            (projector.depth > 0, "`projector.depth` is 0: a projector has at least one layer".to_owned()),
            (!hybrid || llm.layers > 0, "`llm.layers` is 0, but mode `hybrid` runs the LLM".to_owned()),
            (
                !hybrid || fusion == Fusion::Replace || has_prompt_embedding,
                "`fusion` is `add`, but `projector.prompt_embedding` is `none`".to_owned(),
            ),
            (
                !slm_alone || has_prompt_embedding,
                "`modes` has `slm`, but `projector.prompt_embedding` is `none`".to_owned(),
            ),
        ])
    }

    /// Licence and origin of a part, where the manifest says so.
    pub fn origin_of(&self, part: &str) -> Option<&PartOrigin> {
        self.parts.iter().find(|origin| origin.path == part)
    }
}

/// Whether layers of an LLM, counted from 1, rise and lie below its last one that is read.
#[must_use]
pub fn are_layers_below(layers: &[usize], last: usize) -> bool {
    layers.first() != Some(&0) && layers.iter().chain([&last]).is_sorted_by(|a, b| a < b)
}

fn first_broken<const N: usize>(rules: [(bool, String); N]) -> Option<String> {
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, problem)| problem)
}
