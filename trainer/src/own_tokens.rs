//! A small model that keeps its own tokens: the bundle that it comes from, and its part in the new bundle.
//!
//! With `alignment = "characters"` a run starts from a bundle of a small model that reads its own tokens,
//! such as `baton bundle import-slm` makes. Tokenizer, template, begin and end tokens are that bundle's. A
//! new projector's last layer is zero, so the first step begins as the small model is.

use std::{fs, path::Path};

use baton_bundle::{
    Alignment, Bundle, BundleManifest, DEFAULT_TEMPLATE, Fusion, LanguageChoice, Limits, LlmPart, LlmReader,
    ModelConfig, PartOrigin, PromptReader, SlmPart, SmallModel,
};
use baton_job::{Mode, ReaderContext, Setting};

use crate::{
    Reads, TrainConfig, TrainError,
    export::{copy, manifest, origins},
    learner::Finished,
    prepare::open_prompt_tokenizer,
};

/// The bundle that a run by characters starts from.
pub(crate) struct OwnTokens {
    pub(crate) bundle: Bundle,
}

impl OwnTokens {
    /// Opens the start of a run by characters; none of another.
    pub(crate) fn open(config: &TrainConfig) -> Result<Option<Self>, TrainError> {
        if config.alignment == Alignment::Tokens {
            return Ok(None);
        }
        let start = config.start_from.as_deref().expect("validated");
        let bundle = Bundle::open(start)?;
        if bundle.manifest().alignment == Alignment::Tokens {
            return Err(TrainError::Config {
                field: "start_from",
                value: start.display().to_string(),
                rule:
                    "its small model reads the LLM's tokens; with alignment by characters give a bundle of \
                    one that reads its own, such as `baton bundle import-slm` makes"
                        .to_owned(),
            });
        }
        Ok(Some(Self { bundle }))
    }

    /// The manifest's part about the small model.
    pub(crate) fn part(&self) -> &SlmPart {
        let SmallModel { slm, .. } = self.bundle.manifest().small_model().expect("it has a small model");
        slm
    }

    /// Makes prompts with the small model's tokenizer, and with the LLM's if the LLM reads.
    pub(crate) fn prompt_reader(&self, config: &TrainConfig) -> Result<PromptReader, TrainError> {
        let llm = match config.reads {
            Reads::Hybrid => Some(LlmReader {
                tokenizer: open_prompt_tokenizer(config)?,
                attention: ModelConfig::read(&config.llm.join("config.json"))?.prompt_attention(),
            }),
            Reads::Slm => None,
        };
        let slm = self.bundle.slm_prompt_tokenizer(None, &LanguageChoice::default())?;
        Ok(PromptReader::OwnTokens { slm, llm })
    }

    /// Copies the other files of `slm/`, besides weights and config: the tokenizer's.
    pub(crate) fn copy_tokenizer(&self, slm: &Path) -> Result<(), TrainError> {
        fs::create_dir_all(slm).map_err(TrainError::io("create", slm))?;
        for name in self.bundle.manifest().files.keys() {
            let file = name.strip_prefix("slm/").unwrap_or_default();
            if !file.is_empty() && file != "config.json" && !file.ends_with(".safetensors") {
                copy(&self.bundle.path(name), &slm.join(file))?;
            }
        }
        Ok(())
    }

    /// The manifest of a trained bundle. `llm`: the LLM that reads, if one does.
    pub(crate) fn manifest(
        &self,
        config: &TrainConfig,
        llm: Option<LlmPart>,
        finished: &Finished<'_>,
        trained: &[&str],
    ) -> BundleManifest {
        let mut slm = self.part().clone();
        slm.templates.retain(|name, _| name == DEFAULT_TEMPLATE);
        let d_slm = slm.d_model;
        let projector = llm.as_ref().map(|llm| config.projector(llm.d_model, d_slm));
        let mode = if llm.is_some() { Mode::Hybrid } else { Mode::Slm };
        let mut parts = origins(config, trained);
        if llm.is_none() {
            parts.retain(|part: &PartOrigin| part.path != "llm");
        }
        let base = manifest(config, finished, (llm, mode, parts));
        let limits = Limits {
            max_prompt_tokens: config.max_prompt_tokens,
            max_slm_prompt_tokens: Some(self.max_prompt_tokens(config)),
            max_new_tokens: config.max_response_tokens,
        };
        let proposed = self.bundle.manifest().generation.clone();
        let mut generation = if base.generation.is_empty() { proposed } else { base.generation.clone() };
        if mode == Mode::Hybrid {
            let options = generation.entry(mode).or_default();
            options.reader_context = match config.reader_context {
                ReaderContext::Segment => Setting::Unset,
                context @ ReaderContext::Record => Setting::To(context),
            };
        }
        let modes = if mode == Mode::Hybrid { vec![Mode::Hybrid, Mode::Slm] } else { vec![Mode::Slm] };
        BundleManifest {
            fusion: projector.as_ref().map(|_| Fusion::Add),
            projector,
            slm: Some(slm),
            alignment: Alignment::Characters,
            generation: generation
                .into_iter()
                .filter(|(of, options)| modes.contains(of) && !options.is_empty())
                .collect(),
            modes,
            templates: if base.llm.is_some() { base.templates.clone() } else { Default::default() },
            quality: Default::default(),
            limits,
            ..base
        }
    }

    /// Longest prompt in the small model's tokens: its earlier limit.
    pub(crate) fn max_prompt_tokens(&self, config: &TrainConfig) -> usize {
        let limits = self.bundle.manifest().limits;
        let (_, slm) = self.bundle.small_model().expect("it has a small model");
        let room = slm.longest_prompt(config.max_response_tokens);
        limits.slm_prompt_tokens().min(room.unwrap_or(usize::MAX))
    }
}
