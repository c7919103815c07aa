//! The continuation of a row: the job's options, and the settings that depend on the writing model.

use std::fmt;
use std::sync::Arc;

use baton_generation::GenerationOptions;

use crate::copying::WrittenWords;
use crate::{Candidates, Characters, Copying};

/// How one row is generated. Usually shared by all rows of a job.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The options, which are valid. `max_new_tokens` and the texts of stop tokens and strings are not read
    /// from here, but as the following fields say.
    pub options: Arc<GenerationOptions>,
    /// Maximum of tokens that the model writes, whatever the options; at least 1.
    pub model_limit: usize,
    /// Tokens at the end of each prompt that relative limits ignore: those that the model reads after the
    /// text.
    pub prompt_end_len: usize,
    /// The words that the row is encouraged to copy, if any.
    pub copying: Option<Copying>,
    /// The only tokens that the row may write, beside those that end it or that its other settings ask for;
    /// `None`: all.
    pub listed: Option<Arc<[u32]>>,
    /// The forced first token of every sequence, in place of the model's own.
    pub first_token: Option<u32>,
    /// Keeps characters of outputs whole; `None`: tokens are chosen without regard to their bytes.
    pub characters: Option<Arc<Characters>>,
    /// Tokens that end a sequence as the end-of-sequence token does; they are not part of the output.
    pub stop_tokens: Vec<u32>,
    /// A further reason to end a sequence, asked after each token.
    pub stop_when: Option<Arc<dyn StopCondition>>,
}

/// Ends a sequence by its content, such as a word. The content that ends it stays in the output.
pub trait StopCondition: fmt::Debug + Send + Sync {
    /// Whether the last of these tokens ends the sequence. Asked after each token, even before the minimum of
    /// new tokens, where the answer has no effect.
    fn is_met(&self, tokens: &[u32]) -> bool;
}

impl Generation {
    /// The options for a model that writes at most `model_limit` tokens: nothing to copy, and no stop tokens
    /// but its own.
    #[must_use]
    pub fn new(options: GenerationOptions, model_limit: usize) -> Self {
        Self {
            options: Arc::new(options),
            model_limit,
            prompt_end_len: 0,
            copying: None,
            listed: None,
            first_token: None,
            characters: None,
            stop_tokens: Vec::new(),
            stop_when: None,
        }
    }

    /// Greedy decoding with this many tokens.
    #[must_use]
    pub fn of_new_tokens(min_new_tokens: usize, max_new_tokens: usize) -> Self {
        let min_new_tokens = u32::try_from(min_new_tokens).unwrap_or(u32::MAX);
        Self::new(GenerationOptions { min_new_tokens, ..GenerationOptions::default() }, max_new_tokens)
    }

    /// The tokens that may be chosen, if not all: those listed, the end, the first token and stop tokens.
    /// Also those that make up words to copy, and the rest of every character that they begin.
    pub(crate) fn candidates(&self, end_of_sequence: u32, first_token: Option<u32>) -> Option<Candidates> {
        let mut tokens = self.listed.as_ref()?.to_vec();
        tokens.push(end_of_sequence);
        tokens.extend(first_token);
        tokens.extend(&self.stop_tokens);
        self.copying.iter().for_each(|copying| copying.collect_tokens(&mut tokens));
        let candidates = Candidates::new(tokens);
        let characters = self.characters.as_ref().filter(|characters| characters.are_begun_by(&candidates));
        Some(match characters {
            None => candidates,
            Some(characters) => {
                Candidates::new(candidates.tokens().iter().copied().chain(characters.parts()).collect())
            }
        })
    }

    /// The progress of `tokens` with the words that may be copied, if there are any.
    pub(crate) fn written(&self, tokens: &[u32]) -> Option<WrittenWords> {
        let mut written = self.copying.as_ref().map(Copying::start);
        tokens.iter().for_each(|&token| self.write(&mut written, token));
        written
    }

    /// Notes that a token was written.
    pub(crate) fn write(&self, written: &mut Option<WrittenWords>, token: u32) {
        if let Some((copying, written)) = self.copying.as_ref().zip(written.as_mut()) {
            copying.write(written, token);
        }
    }

    /// Sequences that live at the same time, each in its own slot.
    #[must_use]
    pub fn num_sequences(&self) -> usize {
        self.options.sequences_per_record() as usize
    }

    /// Maximum of output tokens, for any prompt.
    #[must_use]
    pub fn max_new_tokens(&self) -> usize {
        self.options.max_new_tokens(self.model_limit)
    }

    /// Most tokens of an output for a prompt of `prompt_len` tokens, its end included.
    #[must_use]
    pub fn max_new_tokens_for(&self, prompt_len: usize) -> usize {
        self.options.max_new_tokens_for(self.counted(prompt_len), self.model_limit)
    }

    /// Least tokens of an output for a prompt of `prompt_len` tokens, its end included.
    #[must_use]
    pub fn min_new_tokens_for(&self, prompt_len: usize) -> usize {
        self.options.min_new_tokens_for(self.counted(prompt_len), self.model_limit)
    }

    fn counted(&self, prompt_len: usize) -> usize {
        prompt_len.saturating_sub(self.prompt_end_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_limits_do_not_count_the_models_suffix() {
        let options = GenerationOptions {
            max_new_tokens_per_prompt_token: Some(2.0),
            min_new_tokens_per_prompt_token: Some(0.5),
            ..GenerationOptions::default()
        };
        let generation = Generation { prompt_end_len: 6, ..Generation::new(options, 100) };
        assert_eq!((generation.min_new_tokens_for(16), generation.max_new_tokens_for(16)), (5, 20));
        assert_eq!(generation.max_new_tokens_for(3), 1, "a prompt that is all end");
    }
}
