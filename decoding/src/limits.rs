//! How many tokens a row may and must write.

/// Bounds on the number of generated tokens; the end-of-sequence token counts as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationLimits {
    /// Tokens after which a row is cut off; at least 1.
    pub max_new_tokens: usize,
    /// Tokens that are written before the row may end by itself; 0 lets it end at once.
    pub min_new_tokens: usize,
    /// A second maximum, relative to the prompt: `ceil(prompt_len * this)` tokens. `None`: no such maximum.
    pub max_new_tokens_per_prompt_token: Option<f32>,
    /// A second minimum, relative to the prompt: `floor(prompt_len * this)` tokens. `None`: no such minimum.
    pub min_new_tokens_per_prompt_token: Option<f32>,
}

/// Limits that no row can obey.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LimitsError {
    /// Nothing may be written.
    #[error("max_new_tokens is 0: allow at least 1 token")]
    NothingAllowed,
    /// The minimum is above the maximum.
    #[error(
        "min_new_tokens = {min_new_tokens} is above max_new_tokens = {max_new_tokens}: lower it or raise the maximum"
    )]
    MinimumAboveMaximum {
        /// The minimum asked for.
        min_new_tokens: usize,
        /// The maximum asked for.
        max_new_tokens: usize,
    },
    /// A relative bound is not a positive number.
    #[error("{name} is {value}: it must be a positive number, such as 2.0")]
    Ratio {
        /// The bound.
        name: &'static str,
        /// What it is.
        value: f32,
    },
}

impl GenerationLimits {
    /// Absolute bounds alone.
    #[must_use]
    pub const fn of_new_tokens(min_new_tokens: usize, max_new_tokens: usize) -> Self {
        Self {
            max_new_tokens,
            min_new_tokens,
            max_new_tokens_per_prompt_token: None,
            min_new_tokens_per_prompt_token: None,
        }
    }

    /// Checks the limits against each other.
    ///
    /// # Errors
    /// No row could obey them.
    pub fn check(&self) -> Result<(), LimitsError> {
        if self.max_new_tokens == 0 {
            return Err(LimitsError::NothingAllowed);
        }
        if self.min_new_tokens > self.max_new_tokens {
            return Err(LimitsError::MinimumAboveMaximum {
                min_new_tokens: self.min_new_tokens,
                max_new_tokens: self.max_new_tokens,
            });
        }
        for (name, ratio) in [
            ("max_new_tokens_per_prompt_token", self.max_new_tokens_per_prompt_token),
            ("min_new_tokens_per_prompt_token", self.min_new_tokens_per_prompt_token),
        ] {
            if let Some(value) = ratio.filter(|ratio| !(ratio.is_finite() && *ratio > 0.0)) {
                return Err(LimitsError::Ratio { name, value });
            }
        }
        Ok(())
    }

    /// The limit for a prompt of `prompt_len` tokens: the smaller of the two maxima, but never below the minimum that holds without
    /// regard to the prompt, nor below 1.
    #[must_use]
    pub fn max_new_tokens_for(&self, prompt_len: usize) -> usize {
        let relative = match self.max_new_tokens_per_prompt_token {
            Some(ratio) => (prompt_len as f64 * f64::from(ratio)).ceil() as usize,
            None => usize::MAX,
        };
        relative.max(self.min_new_tokens).max(1).min(self.max_new_tokens)
    }

    /// The least that is written for a prompt of `prompt_len` tokens: the larger of the two minima, but never above
    /// [`max_new_tokens_for`](Self::max_new_tokens_for).
    #[must_use]
    pub fn min_new_tokens_for(&self, prompt_len: usize) -> usize {
        let relative = match self.min_new_tokens_per_prompt_token {
            Some(ratio) => (prompt_len as f64 * f64::from(ratio)).floor() as usize,
            None => 0,
        };
        relative.max(self.min_new_tokens).min(self.max_new_tokens_for(prompt_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GenerationLimits = GenerationLimits {
        max_new_tokens: 100,
        min_new_tokens: 3,
        max_new_tokens_per_prompt_token: Some(1.5),
        min_new_tokens_per_prompt_token: Some(0.5),
    };

    #[test]
    fn the_smaller_of_absolute_and_relative_bound_holds() {
        assert_eq!(LIMITS.max_new_tokens_for(10), 15);
        assert_eq!(LIMITS.max_new_tokens_for(11), 17, "fractions are rounded up");
        assert_eq!(LIMITS.max_new_tokens_for(1000), 100);
        let absolute = GenerationLimits { max_new_tokens_per_prompt_token: None, ..LIMITS };
        assert_eq!(absolute.max_new_tokens_for(10), 100);
    }

    #[test]
    fn the_larger_of_absolute_and_relative_minimum_holds_below_the_maximum() {
        assert_eq!(LIMITS.min_new_tokens_for(4), 3);
        assert_eq!(LIMITS.min_new_tokens_for(11), 5, "fractions are dropped");
        assert_eq!(LIMITS.min_new_tokens_for(1000), 100);
    }

    #[test]
    fn a_short_prompt_may_still_write_the_minimum() {
        assert_eq!(LIMITS.max_new_tokens_for(1), 3);
        assert_eq!(GenerationLimits { min_new_tokens: 0, ..LIMITS }.max_new_tokens_for(0), 1);
    }

    #[test]
    fn limits_that_no_row_can_obey_are_refused() {
        assert_eq!(LIMITS.check(), Ok(()));
        let nothing = GenerationLimits { max_new_tokens: 0, ..LIMITS };
        assert_eq!(nothing.check(), Err(LimitsError::NothingAllowed));
        let crossed = GenerationLimits { max_new_tokens: 2, ..LIMITS };
        let expected = LimitsError::MinimumAboveMaximum { min_new_tokens: 3, max_new_tokens: 2 };
        assert_eq!(crossed.check(), Err(expected));
        for ratio in [0.0, -1.0, f32::INFINITY] {
            let limits = GenerationLimits { max_new_tokens_per_prompt_token: Some(ratio), ..LIMITS };
            let name = "max_new_tokens_per_prompt_token";
            assert_eq!(limits.check(), Err(LimitsError::Ratio { name, value: ratio }));
            let limits = GenerationLimits { min_new_tokens_per_prompt_token: Some(ratio), ..LIMITS };
            assert!(limits.check().is_err());
        }
    }
}
