//! The rules among the fields of `bundle.json` that need no other file.

use baton_job::{GenerationOptions, LanguageChoice, Mode, ReaderContext};

use crate::languages::SlmLanguages;
use crate::manifest::{
    Alignment, BundleManifest, DEFAULT_TEMPLATE, Fusion, Limits, LlmPart, MANIFEST_FORMAT, PromptSource,
    SLM_SHORTLIST, SlmPart, SmallModel, are_layers_below,
};
use crate::projector_part::{ProjectorPart, PromptEmbeddingSource};
use crate::tokenizer::split_template;

/// A rule that holds or not, and the problem if it does not.
type Rule = (bool, String);

impl BundleManifest {
    /// The first broken rule among the manifest's own fields. Of `files`, only the names count.
    pub(crate) fn problem(&self) -> Option<String> {
        let writer = self.llm.as_ref().and_then(|llm| llm.writer.as_ref());
        let limits = self.limits;
        let rules = [
            (self.format == MANIFEST_FORMAT, format!("`format` is {}, not {MANIFEST_FORMAT}", self.format)),
            (!self.modes.is_empty(), "`modes` is empty".to_owned()),
            (
                self.llm.is_some() || self.slm.is_some(),
                "there is no model: give `llm`, `slm` or both".to_owned(),
            ),
            (
                !self.modes.iter().any(|mode| mode.llm_writes()) || writer.is_some(),
                "`modes` has `llm` or `verified`, but there is no `llm.writer`".to_owned(),
            ),
            (
                !self.modes.contains(&Mode::Verified) || self.modes.contains(&Mode::Hybrid),
                "`modes` has `verified`, but not `hybrid`, which drafts for it".to_owned(),
            ),
            (
                writer.is_none_or(|writer| writer.max_new_tokens > 0),
                "`llm.writer.max_new_tokens` is 0".to_owned(),
            ),
            (
                writer.is_none_or(|writer| !writer.prompt_end.is_empty()),
                "`llm.writer.prompt_end` is empty; give it at least one token".to_owned(),
            ),
            (
                self.llm.is_none() || self.templates.contains_key(DEFAULT_TEMPLATE),
                format!("`templates` has no `{DEFAULT_TEMPLATE}`"),
            ),
            (
                self.llm.is_some() || self.templates.is_empty(),
                "`templates` are the LLM's, but there is no `llm`; a small model's are in `slm.templates`"
                    .to_owned(),
            ),
            (
                limits.max_prompt_tokens > 0
                    && limits.max_new_tokens > 0
                    && limits.max_slm_prompt_tokens != Some(0),
                "a number in `limits` is 0".to_owned(),
            ),
        ];
        first_broken(rules)
            .or_else(|| self.problem_of_small_model())
            .or_else(|| self.problem_of_generation())
            .or_else(|| self.problem_of_quality())
            .or_else(|| self.problem_of_templates())
            .or_else(|| self.problem_of_languages())
    }

    fn problem_of_generation(&self) -> Option<String> {
        self.generation.iter().find_map(|(mode, layer)| {
            if !self.modes.contains(mode) {
                return Some(format!("`generation` has mode `{mode}`, but `modes` has not"));
            }
            match GenerationOptions::from_layers([layer]) {
                Err(error) => Some(format!("`generation.{mode}` cannot be: {error}")),
                Ok(options) => self
                    .problem_of_options(*mode, &options)
                    .map(|problem| format!("`generation.{mode}` is not possible: the bundle {problem}")),
            }
        })
    }

    fn problem_of_quality(&self) -> Option<String> {
        self.quality.iter().find_map(|(mode, model)| match self.modes.contains(mode) {
            true => model.problem().map(|problem| format!("`quality.{mode}` {problem}")),
            false => Some(format!("`quality` has mode `{mode}`, but `modes` has not")),
        })
    }

    fn problem_of_estimate(&self, mode: Mode, options: &GenerationOptions) -> Option<String> {
        let lacks_it = options.needs_estimate() && !self.quality.contains_key(&mode);
        lacks_it.then(|| {
            format!(
                "has no estimate of quality for mode {mode}, which `quality` and `review` need; make one \
                 with `baton eval BUNDLE --mode {mode} --test FILE --fit-quality`"
            )
        })
    }

    /// Says that the options ask for something that the bundle lacks in a mode, in words that continue "the
    /// bundle".
    pub fn problem_of_options(&self, mode: Mode, options: &GenerationOptions) -> Option<String> {
        self.problem_of_context(mode, options)
            .or_else(|| self.problem_of_shortlist(mode, options))
            .or_else(|| self.problem_of_estimate(mode, options))
    }

    fn problem_of_shortlist(&self, mode: Mode, options: &GenerationOptions) -> Option<String> {
        if !options.shortlist {
            return None;
        }
        match (mode.llm_writes(), self.has_shortlist()) {
            (true, _) => {
                Some(format!("cannot use `shortlist` in mode {mode}: it is for a small model that writes"))
            }
            (false, false) => Some(format!("has no `{SLM_SHORTLIST}`, so `shortlist` cannot be used")),
            (false, true) => None,
        }
    }

    fn problem_of_context(&self, mode: Mode, options: &GenerationOptions) -> Option<String> {
        let reads_records =
            mode == Mode::Hybrid && self.alignment == Alignment::Characters && self.projector.is_some();
        (options.reader_context == ReaderContext::Record && !reads_records).then(|| {
            format!(
                "cannot read whole records in mode {mode}: `reader_context` `record` needs mode hybrid and \
                 `alignment` `characters`"
            )
        })
    }

    fn problem_of_languages(&self) -> Option<String> {
        let slm = self.slm.as_ref()?;
        if let Some(SlmLanguages { tokens, source, target, .. }) = &slm.languages
            && let Some(code) = source.iter().chain(target).find(|code| !tokens.contains_key(*code))
        {
            return Some(format!(
                "`slm.languages.tokens` has no `{code}`, which is read or written by default"
            ));
        }
        let choice = LanguageChoice::default();
        let problem = slm.templates.values().find_map(|template| slm.language_problem(template, &choice));
        problem.map(|problem| format!("`slm.templates` and `slm.languages` do not fit: {problem}"))
    }

    fn problem_of_templates(&self) -> Option<String> {
        let of_slm = self.slm.iter().flat_map(|slm| &slm.templates);
        let all = self.templates.iter().map(|template| ("", template));
        all.chain(of_slm.map(|template| ("slm.", template))).find_map(|(part, (name, template))| {
            let problem = split_template(template).err()?;
            Some(format!("`{part}templates.{name}` {problem}"))
        })
    }

    fn problem_of_small_model(&self) -> Option<String> {
        let (hybrid, slm_alone) = (self.modes.contains(&Mode::Hybrid), self.modes.contains(&Mode::Slm));
        let Some(SmallModel { slm, prompts }) = self.small_model() else {
            let is_needed = hybrid || slm_alone || self.alignment == Alignment::Characters;
            let is_begun = self.projector.is_some() || self.slm.is_some() || self.fusion.is_some();
            return (is_needed || is_begun).then(|| {
                "a small model needs all of `projector`, `slm` and `fusion`; one that reads tokens of its \
                 own needs `slm`"
                    .to_owned()
            });
        };
        match (prompts, &self.llm) {
            (PromptSource::OwnTokens { projector: None }, None) => None,
            (_, None) => Some("there is a `projector`, but no `llm` whose states it reads".to_owned()),
            (PromptSource::OwnTokens { projector: None }, Some(_)) => {
                hybrid.then(|| "`modes` has `hybrid`, but there is no `projector`".to_owned())
            }
            (PromptSource::OwnTokens { projector: Some(projector) }, Some(llm))
            | (PromptSource::LlmTokens { projector, .. }, Some(llm)) => {
                problem_of_projector(projector, llm, slm, hybrid)
            }
        }
        .or_else(|| match prompts {
            PromptSource::LlmTokens { .. } if self.has_shortlist() => Some(format!(
                "`{SLM_SHORTLIST}` is for the small model's own tokens, `alignment` `characters`"
            )),
            PromptSource::LlmTokens { projector, fusion } => {
                problem_of_llm_tokens((projector, fusion), (slm, self.limits), [hybrid, slm_alone])
            }
            PromptSource::OwnTokens { .. } => self.problem_of_own_tokens(slm),
        })
    }

    fn problem_of_own_tokens(&self, slm: &SlmPart) -> Option<String> {
        let embeds = self.projector.as_ref().map(|projector| projector.prompt_embedding);
        let names_agree = self.templates.keys().eq(slm.templates.keys());
        first_broken([
            (
                slm.templates.contains_key(DEFAULT_TEMPLATE),
                format!("`alignment` is `characters`, but `slm.templates` has no `{DEFAULT_TEMPLATE}`"),
            ),
            (
                self.llm.is_none() || names_agree,
                "`templates` and `slm.templates` have different names; a task needs one of each".to_owned(),
            ),
            (
                embeds.is_none_or(|source| source == PromptEmbeddingSource::Slm),
                "`alignment` is `characters`, so `projector.prompt_embedding` must be `slm`".to_owned(),
            ),
            (
                self.fusion == embeds.map(|_| Fusion::Add),
                "`alignment` is `characters`, so `fusion` must be `add`, and absent without a projector"
                    .to_owned(),
            ),
            (
                !self.modes.contains(&Mode::Verified),
                "`modes` has `verified`, but `alignment` is `characters`: drafts need the LLM's tokens"
                    .to_owned(),
            ),
        ])
    }
}

fn problem_of_projector(
    projector: &ProjectorPart,
    llm: &LlmPart,
    slm: &SlmPart,
    hybrid: bool,
) -> Option<String> {
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
            projector.mixed_layers.is_empty() || !llm.family.has_encoder(),
            "`projector.mixed_layers` must be empty: an encoder is read after its last layer".to_owned(),
        ),
        (projector.depth > 0, "`projector.depth` is 0: a projector has at least one layer".to_owned()),
        (
            projector.blocks == 0 || projector.depth > 1,
            format!("`projector.blocks` is {}, so `projector.depth` must be at least 2", projector.blocks),
        ),
        (
            projector.blocks == 0 || projector.d_slm.is_multiple_of(2),
            format!("`projector.blocks` need an even `d_slm`, not {}", projector.d_slm),
        ),
        (!hybrid || llm.layers > 0, "`llm.layers` is 0, but mode `hybrid` runs the LLM".to_owned()),
    ])
}

fn problem_of_llm_tokens(
    (projector, fusion): (&ProjectorPart, Fusion),
    (slm, limits): (&SlmPart, Limits),
    [hybrid, slm_alone]: [bool; 2],
) -> Option<String> {
    let has_prompt_embedding = projector.prompt_embedding == PromptEmbeddingSource::Llm;
    first_broken([
        (
            projector.prompt_embedding != PromptEmbeddingSource::Slm,
            "`projector.prompt_embedding` is `slm`, so `alignment` must be `characters`".to_owned(),
        ),
        (
            limits.max_slm_prompt_tokens.is_none(),
            "`limits.max_slm_prompt_tokens` belongs to `alignment` `characters`".to_owned(),
        ),
        (
            slm.templates.is_empty(),
            "`slm.templates` belongs to `alignment` `characters`; otherwise `templates` are for both"
                .to_owned(),
        ),
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

fn first_broken<const N: usize>(rules: [Rule; N]) -> Option<String> {
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, problem)| problem)
}
