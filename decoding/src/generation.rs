//! How a row is continued: the method of choosing tokens, what it may not choose, and what ends it.

use std::fmt;
use std::sync::Arc;

use crate::{Copying, GenerationLimits, LimitsError};

/// How one row is generated. Usually shared by all rows of a job.
#[derive(Debug, Clone)]
pub struct Generation {
    /// How much is written.
    pub limits: GenerationLimits,
    /// How tokens are chosen.
    pub method: Method,
    /// Sequences that are handed back, best first; at least 1. Beam search has no more than its beams, greedy has one.
    pub num_outputs: usize,
    /// Divides positive and multiplies negative logits of tokens already written (of beams: log-probabilities, which are never
    /// positive); 1 changes nothing. Keskar et al., arXiv 1909.05858.
    pub repetition_penalty: f32,
    /// No sequence of this many tokens is written twice; 0 allows all.
    pub no_repeat_ngram: usize,
    /// What the row is encouraged to copy, if anything.
    pub copying: Option<Copying>,
    /// Tokens that end a sequence as the end-of-sequence token does; they are not part of the output.
    pub stop_tokens: Vec<u32>,
    /// A further reason to end a sequence, asked after each token.
    pub stop_when: Option<Arc<dyn StopCondition>>,
}

/// Ends a sequence by what it has written, such as a word. What ends it stays in the output.
pub trait StopCondition: fmt::Debug + Send + Sync {
    /// Whether a sequence of these tokens ends here. Called once per token, so it need look only for what the last token completes.
    fn is_met(&self, tokens: &[u32]) -> bool;
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// The most likely token; of equals, the one with the lowest number.
    Greedy,
    /// The sequence of the highest score that a beam finds.
    Beam(BeamOptions),
    /// A token drawn by its probability.
    Sample(SamplingOptions),
}

/// Beam search as in Hugging Face transformers' `generate(num_beams = ..., do_sample = False)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Sequences kept at each step; at least 1, and 1 is greedy but for the length penalty.
    pub num_beams: usize,
    /// A finished sequence of `n` tokens, its end token included, scores `sum of log-probabilities / n ^ length_penalty`.
    pub length_penalty: f64,
    /// When the search is over, before its sequences reach their limit.
    pub early_stopping: EarlyStopping,
}

/// When a beam search that has as many finished sequences as beams is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best running sequence, at its present length, scores no higher than the worst finished one (`false` in transformers).
    Heuristic,
    /// At once (`true`).
    AtOnce,
    /// When no running sequence can still get ahead of the worst finished one, at the length that suits it best (`"never"`).
    Never,
}

/// What is drawn from. Temperature comes first, then top-k, top-p, and min-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; above 0. Lower is closer to greedy.
    pub temperature: f32,
    /// Only this many of the most likely tokens, and those that are as likely as the last of them.
    pub top_k: Option<usize>,
    /// Only the fewest most likely tokens whose probabilities sum to this or more, and those that are as likely as the last of them;
    /// in (0, 1]. Holtzman et al., arXiv 1904.09751.
    pub top_p: Option<f32>,
    /// Only tokens at least this many times as likely as the most likely one, in (0, 1]. Nguyen et al., arXiv 2407.01082.
    pub min_p: Option<f32>,
    /// The job's seed. A row's draws follow from it, from the row's random stream and from the number of the sequence.
    pub seed: u64,
}

/// A generation that no row can obey.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerationError {
    /// Its limits contradict each other.
    #[error("the limits of new tokens cannot be obeyed")]
    Limits(#[from] LimitsError),
    /// A value is outside its range.
    #[error("{name} is {value}: it must be {allowed}")]
    Value {
        /// The field.
        name: &'static str,
        /// What it holds.
        value: f64,
        /// What it may hold.
        allowed: &'static str,
    },
    /// More outputs are asked for than the method has.
    #[error(
        "{num_outputs} outputs are asked for, and the method yields {available}: ask for fewer, search with more beams, or sample"
    )]
    TooManyOutputs {
        /// Outputs asked for.
        num_outputs: usize,
        /// Sequences that the method ends with.
        available: usize,
    },
}

impl Generation {
    /// The most likely token, one output, nothing forbidden.
    #[must_use]
    pub fn greedy(limits: GenerationLimits) -> Self {
        Self {
            limits,
            method: Method::Greedy,
            num_outputs: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            copying: None,
            stop_tokens: Vec::new(),
            stop_when: None,
        }
    }

    /// Sequences that live at once, each in a slot of its own.
    #[must_use]
    pub fn num_sequences(&self) -> usize {
        match self.method {
            Method::Greedy => 1,
            Method::Beam(options) => options.num_beams,
            Method::Sample(_) => self.num_outputs,
        }
    }

    /// Checks all values.
    ///
    /// # Errors
    /// No row could obey them; the first that is wrong is named.
    pub fn check(&self) -> Result<(), GenerationError> {
        self.limits.check()?;
        check("num_outputs", self.num_outputs as f64, "at least 1", self.num_outputs > 0)?;
        check_positive("repetition_penalty", self.repetition_penalty)?;
        if let Some(copying) = &self.copying {
            for (name, bias) in
                [("copying.copy_bias", copying.copy_bias), ("copying.name_bias", copying.name_bias)]
            {
                let is_allowed = bias.is_finite() && bias >= 0.0;
                check(name, bias.into(), "a finite number, at least 0", is_allowed)?;
            }
        }
        let available = match self.method {
            Method::Greedy => 1,
            Method::Beam(options) => {
                check("num_beams", options.num_beams as f64, "at least 1", options.num_beams > 0)?;
                let length_penalty = options.length_penalty;
                check("length_penalty", length_penalty, "a finite number", length_penalty.is_finite())?;
                options.num_beams
            }
            Method::Sample(options) => {
                check_positive("temperature", options.temperature)?;
                let top_k = options.top_k.unwrap_or(1);
                check("top_k", top_k as f64, "at least 1", top_k > 0)?;
                for (name, share) in [("top_p", options.top_p), ("min_p", options.min_p)] {
                    let share = share.unwrap_or(1.0);
                    check(name, share.into(), "above 0 and at most 1", share > 0.0 && share <= 1.0)?;
                }
                usize::MAX
            }
        };
        let num_outputs = self.num_outputs;
        match num_outputs <= available {
            true => Ok(()),
            false => Err(GenerationError::TooManyOutputs { num_outputs, available }),
        }
    }
}

fn check(
    name: &'static str,
    value: f64,
    allowed: &'static str,
    is_allowed: bool,
) -> Result<(), GenerationError> {
    if is_allowed { Ok(()) } else { Err(GenerationError::Value { name, value, allowed }) }
}

fn check_positive(name: &'static str, value: f32) -> Result<(), GenerationError> {
    check(name, value.into(), "a finite number above 0", value.is_finite() && value > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GenerationLimits = GenerationLimits::of_new_tokens(0, 8);
    const BEAM: BeamOptions =
        BeamOptions { num_beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::Heuristic };
    const SAMPLING: SamplingOptions =
        SamplingOptions { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: 0 };

    fn generation(method: Method, num_outputs: usize) -> Generation {
        Generation { method, num_outputs, ..Generation::greedy(LIMITS) }
    }

    #[test]
    fn each_value_outside_its_range_is_refused_by_name() {
        let beam = |options| generation(Method::Beam(options), 1);
        let sample = |options| generation(Method::Sample(options), 1);
        let cases = [
            ("num_outputs", generation(Method::Greedy, 0)),
            ("repetition_penalty", Generation { repetition_penalty: 0.0, ..Generation::greedy(LIMITS) }),
            ("num_beams", beam(BeamOptions { num_beams: 0, ..BEAM })),
            ("length_penalty", beam(BeamOptions { length_penalty: f64::NAN, ..BEAM })),
            ("temperature", sample(SamplingOptions { temperature: 0.0, ..SAMPLING })),
            ("temperature", sample(SamplingOptions { temperature: f32::INFINITY, ..SAMPLING })),
            ("top_k", sample(SamplingOptions { top_k: Some(0), ..SAMPLING })),
            ("top_p", sample(SamplingOptions { top_p: Some(1.5), ..SAMPLING })),
            ("min_p", sample(SamplingOptions { min_p: Some(0.0), ..SAMPLING })),
        ];
        for (name, generation) in cases {
            let error = generation.check().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name} is ")), "{error}");
        }
    }

    #[test]
    fn no_more_outputs_can_be_asked_for_than_there_are_sequences() {
        for (method, num_outputs, available) in [(Method::Greedy, 2, 1), (Method::Beam(BEAM), 5, 4)] {
            let refused = generation(method, num_outputs).check();
            assert_eq!(refused, Err(GenerationError::TooManyOutputs { num_outputs, available }));
        }
        assert_eq!(generation(Method::Beam(BEAM), 4).check(), Ok(()));
        assert_eq!(generation(Method::Sample(SAMPLING), 100).check(), Ok(()));
    }
}
