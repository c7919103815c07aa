//! How many tokens an output may and must have. The end token counts as one.

use crate::layer::at_most;
use crate::{GenerationOptions, OptionError};

impl GenerationOptions {
    /// Checks the options against the longest output that a model is made for, tokens.
    ///
    /// # Errors
    /// The shortest output is longer than that.
    pub fn check_limit(&self, model_limit: u32) -> Result<(), OptionError> {
        at_most("min_new_tokens", self.min_new_tokens, 0, model_limit)
    }

    /// Maximum of output tokens, for any prompt, with a model that writes at most `model_limit`.
    #[must_use]
    pub fn max_new_tokens(&self, model_limit: usize) -> usize {
        self.max_new_tokens.map_or(model_limit, |tokens| model_limit.min(tokens as usize))
    }

    /// The limit for a prompt of `prompt_len` tokens: the smaller of the two maxima, but never below the
    /// minimum that holds without regard to the prompt, nor below 1.
    #[must_use]
    pub fn max_new_tokens_for(&self, prompt_len: usize, model_limit: usize) -> usize {
        let relative = match self.max_new_tokens_per_prompt_token {
            Some(ratio) => (prompt_len as f64 * ratio).ceil() as usize,
            None => usize::MAX,
        };
        relative.max(self.min_new_tokens as usize).max(1).min(self.max_new_tokens(model_limit))
    }

    /// The least that is written for a prompt of `prompt_len` tokens: the larger of the two minima, but never
    /// above [`max_new_tokens_for`](Self::max_new_tokens_for).
    #[must_use]
    pub fn min_new_tokens_for(&self, prompt_len: usize, model_limit: usize) -> usize {
        let relative = match self.min_new_tokens_per_prompt_token {
            Some(ratio) => (prompt_len as f64 * ratio).floor() as usize,
            None => 0,
        };
        relative.max(self.min_new_tokens as usize).min(self.max_new_tokens_for(prompt_len, model_limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> GenerationOptions {
        GenerationOptions {
            max_new_tokens: Some(100),
            min_new_tokens: 3,
            max_new_tokens_per_prompt_token: Some(1.5),
            min_new_tokens_per_prompt_token: Some(0.5),
            ..GenerationOptions::default()
        }
    }

    #[test]
    fn the_smallest_of_absolute_relative_and_model_limit_holds() {
        assert_eq!(options().max_new_tokens_for(10, 200), 15);
        assert_eq!(options().max_new_tokens_for(11, 200), 17, "fractions are rounded up");
        assert_eq!(options().max_new_tokens_for(1000, 200), 100);
        assert_eq!(options().max_new_tokens_for(1000, 60), 60);
        let absolute = GenerationOptions { max_new_tokens_per_prompt_token: None, ..options() };
        assert_eq!(absolute.max_new_tokens_for(10, 200), 100);
        assert_eq!(GenerationOptions::default().max_new_tokens_for(10, 200), 200);
    }

    #[test]
    fn the_larger_of_absolute_and_relative_minimum_holds_below_the_maximum() {
        assert_eq!(options().min_new_tokens_for(4, 200), 3);
        assert_eq!(options().min_new_tokens_for(11, 200), 5, "fractions are dropped");
        assert_eq!(options().min_new_tokens_for(1000, 200), 100);
    }

    #[test]
    fn a_short_prompt_still_allows_the_absolute_minimum_and_one_token() {
        assert_eq!(options().max_new_tokens_for(1, 200), 3);
        let options = GenerationOptions { min_new_tokens: 0, ..options() };
        assert_eq!(options.max_new_tokens_for(0, 200), 1);
    }

    #[test]
    fn a_shortest_output_above_the_models_limit_is_refused() {
        assert!(options().check_limit(3).is_ok());
        let error = options().check_limit(2).unwrap_err().to_string();
        assert_eq!(error, "`generation.min_new_tokens` is 3; allowed: 0 to 2");
    }
}
