//! The bundle's statements about the models of a decoder: which parts of a prompt they read, which model
//! writes, and how its tokens become text.

use std::sync::Arc;

use baton_bundle::{Bundle, BundleError, LanguageChoice, LexicalShortlist, TextTokenizer};
use baton_decoding::{Characters, Vocabulary};
use baton_job::{GenerationOptions, Mode, OptionError};
use baton_model::{CACHE_BLOCK_TOKENS, PromptStates};

use crate::DecoderError;

/// How a mode's outputs are written.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) tokenizer: Arc<TextTokenizer>,
    /// Longest output, tokens.
    pub(crate) max_new_tokens: usize,
    pub(crate) reads: PromptParts,
    /// The spelling of its tokens.
    pub(crate) vocabulary: Arc<Vocabulary>,
    /// The rule that keeps its outputs valid text.
    pub(crate) characters: Arc<Characters>,
    /// The likely tokens of an output by those of its prompt, if the small model has such a list.
    shortlist: Option<LexicalShortlist>,
    /// The bundle, if its small model writes.
    slm_of: Option<Bundle>,
}

/// The parts of a prompt that the models read.
#[derive(Debug, Clone, Default)]
pub(crate) struct PromptParts {
    /// Width of the prompt states, if the SLM takes part.
    pub(crate) d_slm: Option<usize>,
    /// The tokens that the LLM reads after the prompt's, if it takes part.
    pub(crate) prompt_end: Option<Vec<u32>>,
}

/// A whole prompt, as the models read it. It has the parts that the mode needs, so it is never empty.
#[derive(Debug, PartialEq, Default)]
pub(crate) struct RowPrompt {
    /// For the SLM.
    pub(crate) states: Option<PromptStates>,
    /// For the LLM.
    pub(crate) tokens: Option<Vec<u32>>,
    /// For the shortlist, if the job uses it: the small model's tokens. No model reads them.
    pub(crate) own_tokens: Option<Vec<u32>>,
}

impl Writer {
    /// The writer of a mode.
    ///
    /// # Errors
    /// The bundle does not serve the mode, or the tokenizer does not load.
    pub(crate) fn of(bundle: &Bundle, mode: Mode) -> Result<Self, DecoderError> {
        Self::from_manifest(bundle, mode).map_err(|source| DecoderError::Bundle { source })
    }

    fn from_manifest(bundle: &Bundle, mode: Mode) -> Result<Self, BundleError> {
        let mut reads = PromptParts::default();
        if mode.uses_slm() {
            reads.d_slm = Some(bundle.small_model()?.0.slm.d_model);
        }
        if mode.llm_writes() {
            let mut prompt_end = bundle.prompt_end_ids()?;
            prompt_end.pop(); // the LLM's begin token: it is fed in a row's first step
            reads.prompt_end = Some(prompt_end);
        }
        let max_new_tokens = bundle.manifest().max_new_tokens(mode);
        let tokenizer = Arc::new(bundle.text_tokenizer(mode)?);
        let spellings = tokenizer.spellings();
        let characters = Arc::new(Characters::new(&spellings, &tokenizer.ids_without_text()));
        let vocabulary = Arc::new(Vocabulary::new(spellings));
        let slm_of = (!mode.llm_writes()).then(|| bundle.clone());
        let shortlist = slm_of.as_ref().map_or(Ok(None), Bundle::shortlist)?;
        Ok(Self { tokenizer, max_new_tokens, reads, vocabulary, characters, shortlist, slm_of })
    }

    /// The tokens that the output of a prompt with these tokens may have: those of the shortlist, and what
    /// spells the prompt's words at any place of a text, so that they can be copied. `None`: there is no
    /// shortlist.
    pub(crate) fn listed(&self, own_tokens: &[u32]) -> Option<Arc<[u32]>> {
        let mut listed = self.shortlist.as_ref()?.of_prompt(own_tokens);
        listed.extend(own_tokens.iter().flat_map(|&token| self.vocabulary.elsewhere(token)));
        Some(listed.into())
    }

    /// The first token of outputs, for the language that a record names, or else the job.
    ///
    /// # Errors
    /// There is no such language.
    pub(crate) fn first_token(
        &self,
        options: &GenerationOptions,
        of_record: &LanguageChoice,
    ) -> Result<Option<u32>, DecoderError> {
        let Some(bundle) = &self.slm_of else { return Ok(None) };
        let languages = of_record.or(&LanguageChoice::of(options));
        bundle.first_token(&languages, &self.tokenizer).map_err(|error| DecoderError::Generation {
            source: OptionError {
                option: "target_language",
                value: format!("{:?}", languages.target),
                allowed: format!("a language of the bundle; {error}"),
            },
        })
    }

    /// Tokens of cache that the longest prompt and output take, whole blocks.
    pub(crate) fn max_sequence_tokens(&self, bundle: &Bundle) -> usize {
        let prompt_end_len = self.reads.prompt_end.as_ref().map_or(0, Vec::len);
        let limits = bundle.manifest().limits;
        let of_prompt = match self.reads.prompt_end {
            Some(_) => limits.max_prompt_tokens,
            None => limits.slm_prompt_tokens(),
        };
        let tokens = of_prompt + prompt_end_len + self.max_new_tokens;
        tokens.next_multiple_of(CACHE_BLOCK_TOKENS)
    }
}

impl RowPrompt {
    /// Tokens that it takes of a model's cache at most.
    pub(crate) fn len(&self) -> usize {
        let of_states = self.states.as_ref().map_or(0, |states| states.prompt_len);
        let of_tokens = self.tokens.as_ref().map_or(0, Vec::len);
        of_states.max(of_tokens)
    }
}
