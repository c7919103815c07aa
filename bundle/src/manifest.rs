//! `bundle.json`: the parts of a bundle and the way in which they fit together.
//!
//! Owns the file's fields; `manifest_rules.rs` has the rules among them. [`crate::Bundle::open`] checks the
//! manifest's statements about the parts on disk by dimensions and sizes, [`crate::verify`] checks
//! everything.

use std::collections::BTreeMap;
use std::fmt;

use baton_job::{GenerationLayer, Mode};
use baton_quality::QualityModel;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::projector_part::ProjectorPart;
use crate::{Family, SlmLanguages, SlmTokenizer};

/// Name of the manifest in a bundle's directory.
pub const MANIFEST_FILE: &str = "bundle.json";
/// The `format` that this version reads and writes.
pub const MANIFEST_FORMAT: u32 = 1;
/// The prompt template of a job that names none.
pub const DEFAULT_TEMPLATE: &str = "default";

/// The changes of training to `slm/model.safetensors`, if they are stored apart from it.
pub const SLM_CHANGES: &str = "slm/changes.safetensors";

/// The lexical shortlist of a student of Marian's, if it has one (`lex.*.bin`).
pub const SLM_SHORTLIST: &str = "slm/lex.bin";

/// The files of a bundle: all that Baton reads, each with its hash in the manifest.
pub const BUNDLE_FILES: [&str; 15] = [
    "llm/config.json",
    "llm/model.safetensors",
    "llm/tokenizer.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "projector/model.safetensors",
    "slm/config.json",
    "slm/model.safetensors",
    SLM_CHANGES,
    SLM_SHORTLIST,
    "slm/tokenizer.json",
    "slm/vocab.spm",
    "slm/source.spm",
    "slm/target.spm",
    "slm/vocab.json",
];

/// The contents of `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// Version of this file's layout: [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Short name, such as `en-it`.
    pub name: String,
    /// The bundle's task.
    pub task: Task,
    /// The frozen reader, in `llm/`. Absent where the small model works alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmPart>,
    /// The trained map between the two, in `projector/`. Absent if one of them works alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<ProjectorPart>,
    /// The trained writer, in `slm/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slm: Option<SlmPart>,
    /// How projected states enter the SLM's prompt. Absent where the projector is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// The tokens of the SLM's prompt.
    #[serde(default, skip_serializing_if = "Alignment::is_tokens")]
    pub alignment: Alignment,
    /// Modes that the parts serve; the first is the default.
    pub modes: Vec<Mode>,
    /// The LLM's prompt templates by name. If there is an LLM, [`DEFAULT_TEMPLATE`] is one of them. Each has
    /// `{text}` once, in place of the record's text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// The best generation options of each mode, for options that a job does not set. Fields of
    /// [`GenerationOptions`](baton_job::GenerationOptions).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generation: BTreeMap<Mode, GenerationLayer>,
    /// The estimate of each mode's outputs' quality; `baton eval --fit-quality` makes it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quality: BTreeMap<Mode, QualityModel>,
    /// The maxima that the bundle was trained for.
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

/// The bundle's task. Languages are ISO 639 codes.
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

impl Task {
    /// Language of the texts that are read.
    #[must_use]
    pub fn source_language(&self) -> &str {
        match self {
            Task::Translation { source, .. } => source,
            Task::Summarization { language } => language,
        }
    }

    /// Language of the outputs of a translation.
    #[must_use]
    pub fn target_language(&self) -> Option<&str> {
        match self {
            Task::Translation { target, .. } => Some(target),
            Task::Summarization { .. } => None,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translation { source, target } => write!(f, "translation, {source} to {target}"),
            Self::Summarization { language } => write!(f, "summarization, {language}"),
        }
    }
}

/// The LLM as the bundle uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmPart {
    /// Its family.
    pub family: Family,
    /// Number of blocks that run. Hidden states are taken after the last of them, without a final norm.
    pub layers: usize,
    /// Width of its hidden states.
    pub d_model: usize,
    /// Rows of its embedding matrix.
    pub vocab_size: usize,
    /// The way in which it writes, in modes `llm` and `verified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<LlmWriter>,
    /// Present if it was fine-tuned: the adapter in `adapter/`. Whenever the LLM writes, it uses the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LlmAdapter>,
}

/// How a fine-tuned LLM reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmAdapter {
    /// Whether the small model learned from the states of the adapted LLM, or from those of the LLM as
    /// published.
    pub hybrid_reads_it: bool,
}

/// How the LLM goes from reading a prompt to writing an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmWriter {
    /// The text after a prompt's last token, such as `\n<|im_start|>assistant\n`; at least one token. The
    /// output begins after it. Its last token is the first that a decoder reads; for T5 the whole is
    /// `</s><pad>`.
    pub prompt_end: String,
    /// The token that ends an output, in the LLM's tokenizer.
    pub eos_token: String,
    /// Longest output, in tokens of the LLM.
    pub max_new_tokens: usize,
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
    /// Its own prompt templates, if it reads its own tokens ([`Alignment::Characters`]): by the names of the
    /// LLM's, if there is one. Each has `{text}` once, in place of the text, and special tokens by their
    /// names, such as `{text}</s>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// The languages that it can read or write, if it knows several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<SlmLanguages>,
    /// The files that its tokens are in.
    #[serde(default, skip_serializing_if = "SlmTokenizer::is_usual")]
    pub tokenizer: SlmTokenizer,
}

/// The tokens of the SLM's prompt, and thereby its way to the LLM's hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// The LLM's: a state for each token.
    #[default]
    Tokens,
    /// The SLM's own: each takes the mean of the states whose characters it covers.
    Characters,
}

impl Alignment {
    fn is_tokens(&self) -> bool {
        *self == Self::Tokens
    }
}

/// Which prompt positions a prompt position attends to. The response is always causal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptAttention {
    /// All positions (prefix-LM).
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
    /// Longest prompt, template included, in tokens of the LLM, or of the SLM if there is no LLM.
    pub max_prompt_tokens: usize,
    /// Longest prompt in tokens of the SLM, if it reads its own tokens. Default: `max_prompt_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_slm_prompt_tokens: Option<usize>,
    /// Longest output, in tokens of the SLM.
    pub max_new_tokens: usize,
}

impl Limits {
    /// Longest prompt in tokens of a small model that reads its own.
    #[must_use]
    pub fn slm_prompt_tokens(&self) -> usize {
        self.max_slm_prompt_tokens.unwrap_or(self.max_prompt_tokens)
    }
}

/// Where a part comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOrigin {
    /// The part's directory: `llm`, `adapter`, `projector` or `slm`.
    pub path: String,
    /// SPDX expression.
    pub licence: String,
    /// The author, and where, under which name and version it was published.
    pub origin: String,
}

/// The required content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// A bundle's small model, and the source of its prompts.
#[derive(Debug, Clone, Copy)]
pub struct SmallModel<'a> {
    /// The trained writer.
    pub slm: &'a SlmPart,
    /// Where its prompts come from.
    pub prompts: PromptSource<'a>,
}

/// The source of a small model's prompts.
#[derive(Debug, Clone, Copy)]
pub enum PromptSource<'a> {
    /// The LLM's tokens.
    LlmTokens {
        /// The trained map between LLM and SLM.
        projector: &'a ProjectorPart,
        /// How projected states enter the SLM's prompt.
        fusion: Fusion,
    },
    /// Its own tokens.
    OwnTokens {
        /// The trained map between LLM and SLM, whose results are added to the SLM's embeddings. None where
        /// the SLM works alone.
        projector: Option<&'a ProjectorPart>,
    },
}

impl<'a> SmallModel<'a> {
    /// The trained map between LLM and SLM, if there is one.
    #[must_use]
    pub fn projector(&self) -> Option<&'a ProjectorPart> {
        match self.prompts {
            PromptSource::LlmTokens { projector, .. } => Some(projector),
            PromptSource::OwnTokens { projector } => projector,
        }
    }
}

impl BundleManifest {
    /// The file's text, with a final newline. Equal manifests have equal bytes.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has only string keys");
        text.push('\n');
        text
    }

    /// The small model with the source of its prompts, if the bundle has both.
    pub fn small_model(&self) -> Option<SmallModel<'_>> {
        let slm = self.slm.as_ref()?;
        let projector = self.projector.as_ref();
        let prompts = match self.alignment {
            Alignment::Tokens => PromptSource::LlmTokens { projector: projector?, fusion: self.fusion? },
            Alignment::Characters => PromptSource::OwnTokens { projector },
        };
        Some(SmallModel { slm, prompts })
    }

    /// Longest output of a mode, in tokens of whoever writes.
    pub fn max_new_tokens(&self, mode: Mode) -> usize {
        let writer = self.llm.as_ref().and_then(|llm| llm.writer.as_ref()).filter(|_| mode.llm_writes());
        writer.map_or(self.limits.max_new_tokens, |writer| writer.max_new_tokens)
    }

    /// Whether the small model has a lexical shortlist.
    pub fn has_shortlist(&self) -> bool {
        self.file_names().any(|name| name == SLM_SHORTLIST)
    }

    /// Names of the prompt templates, which are the tasks that a job can name.
    pub fn template_names(&self) -> impl Iterator<Item = &String> {
        let of_slm = self.slm.iter().flat_map(|slm| slm.templates.keys());
        self.templates.keys().chain(of_slm.filter(|_| self.llm.is_none()))
    }

    /// The files with the small model's tokens, if there is a small model.
    pub fn slm_tokenizer(&self) -> SlmTokenizer {
        self.slm.as_ref().map_or(SlmTokenizer::default(), |slm| slm.tokenizer)
    }

    /// The file that defines the tokens of a mode's outputs.
    pub fn output_tokenizer(&self, mode: Mode) -> &'static str {
        if mode.llm_writes() { "llm/tokenizer.json" } else { self.slm_tokenizer().output_file() }
    }

    /// Those of [`BUNDLE_FILES`] that the bundle has.
    pub fn file_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let has_adapter = self.llm.as_ref().is_some_and(|llm| llm.adapter.is_some());
        let (has_llm, has_slm) = (self.llm.is_some(), self.small_model().is_some());
        let has_projector = self.small_model().is_some_and(|small_model| small_model.projector().is_some());
        let slm_tokenizer = self.slm_tokenizer();
        let [has_changes, has_shortlist] =
            [SLM_CHANGES, SLM_SHORTLIST].map(|name| self.files.contains_key(name));
        BUNDLE_FILES.into_iter().filter(move |name| match name.split('/').next() {
            Some("llm") => has_llm,
            Some("adapter") => has_adapter,
            Some("projector") => has_projector,
            _ if matches!(*name, "slm/config.json" | "slm/model.safetensors") => has_slm,
            _ if *name == SLM_CHANGES => has_slm && has_changes,
            _ if *name == SLM_SHORTLIST => has_slm && has_shortlist,
            _ => has_slm && slm_tokenizer.files().contains(name),
        })
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
