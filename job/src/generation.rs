//! The job spec's section `[generation]`: how long outputs get, how tokens are chosen, what is forbidden.
//!
//! Owns the options, their defaults, and which of them go together. What each does to a token: `docs/generation.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::JobError;
use crate::spec::{in_range, not_allowed};

/// Beams or outputs of one record at most. Each takes a place in the decode batch.
const MAX_SEQUENCES: u64 = 64;

/// How outputs are generated.
///
/// Which options are set decides the method: `beams` above 1 makes a beam search; `temperature`, `top_k`, `top_p` or `min_p` makes
/// sampling; neither, greedy decoding. An option that the method does not use is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationOptions {
    /// At most this many new tokens. Default: the bundle's limit.
    pub max_new_tokens: Option<u32>,
    /// At most this many new tokens for each prompt token; 1.5 allows 60 for a prompt of 40. Default: no such limit.
    pub max_new_tokens_per_prompt_token: Option<f32>,
    /// The end of text is not considered before this many new tokens. Default: 0.
    pub min_new_tokens: u32,
    /// Nor before this many new tokens for each prompt token. Default: no such limit.
    pub min_new_tokens_per_prompt_token: Option<f32>,
    /// Sequences that a beam search keeps. Default: 1, greedy decoding.
    pub beams: u32,
    /// Beam search: the exponent of the length that scores are divided by. Default: 1.
    pub length_penalty: Option<f64>,
    /// Beam search: when it is over. Default: heuristic.
    pub early_stopping: Option<EarlyStopping>,
    /// Sampling: divides the logits. Default: 1.
    pub temperature: Option<f32>,
    /// Sampling: only so many of the most likely tokens. Default: all.
    pub top_k: Option<u32>,
    /// Sampling: only the most likely tokens that together have this probability. Default: all.
    pub top_p: Option<f32>,
    /// Sampling: only tokens this many times as likely as the most likely one. Default: all.
    pub min_p: Option<f32>,
    /// Sampling: another seed, other draws. Default: 0.
    pub seed: Option<u64>,
    /// Above 1 makes tokens that were written before less likely. Default: 1.
    pub repetition_penalty: f32,
    /// No sequence of so many tokens is written twice. Default: 0, allowed.
    pub no_repeat_ngram: u32,
    /// Added to the logits of what goes on with a word of the source that the output has begun. Default: 0, nothing.
    pub copy_bias: f32,
    /// Added to the logits of what begins a name of the source that the output does not have yet, and more to those of the name that comes
    /// next and of what goes on with one. Default: 0, nothing.
    pub name_bias: f32,
    /// Each sentence of a record's text is a prompt of its own, for as many tokens as a text of one sentence has; their outputs are joined by
    /// what stands between the sentences. Default: false.
    pub by_sentence: bool,
    /// Outputs per record, best first. Default: 1.
    pub n_best: u32,
    /// Tokens of the output tokenizer, by their exact text, that end an output and are left out of it. Default: none.
    pub stop_tokens: Vec<String>,
    /// Texts that end an output and are left out of it, with what follows. Default: none.
    pub stop_strings: Vec<String>,
}

/// When a beam search that has as many finished sequences as beams is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// When the best running sequence, at its present length, scores no higher than the worst finished one.
    #[default]
    Heuristic,
    /// At once.
    AtOnce,
    /// When no running sequence can still get ahead of the worst finished one.
    Never,
}

/// The method that the options add up to, with its options resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the fields are those of `GenerationOptions`
pub enum GenerationMethod {
    /// The most likely token.
    Greedy,
    /// The best sequence that a beam finds.
    Beam { beams: u32, length_penalty: f64, early_stopping: EarlyStopping },
    /// A token drawn by its probability.
    Sample { temperature: f32, top_k: Option<u32>, top_p: Option<f32>, min_p: Option<f32>, seed: u64 },
}

impl Default for GenerationOptions {
    fn default() -> Self {
        GenerationOptions {
            max_new_tokens: None,
            max_new_tokens_per_prompt_token: None,
            min_new_tokens: 0,
            min_new_tokens_per_prompt_token: None,
            beams: 1,
            length_penalty: None,
            early_stopping: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            seed: None,
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            copy_bias: 0.0,
            name_bias: 0.0,
            by_sentence: false,
            n_best: 1,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
        }
    }
}

impl GenerationOptions {
    /// How tokens are chosen.
    pub fn method(&self) -> GenerationMethod {
        let GenerationOptions { beams, top_k, top_p, min_p, .. } = *self;
        if beams > 1 {
            let length_penalty = self.length_penalty.unwrap_or(1.0);
            let early_stopping = self.early_stopping.unwrap_or_default();
            GenerationMethod::Beam { beams, length_penalty, early_stopping }
        } else if self.temperature.is_some() || top_k.is_some() || top_p.is_some() || min_p.is_some() {
            let temperature = self.temperature.unwrap_or(1.0);
            GenerationMethod::Sample { temperature, top_k, top_p, min_p, seed: self.seed.unwrap_or(0) }
        } else {
            GenerationMethod::Greedy
        }
    }

    /// Sequences of one record that are decoded at once.
    pub fn sequences_per_record(&self) -> u32 {
        match self.method() {
            GenerationMethod::Greedy => 1,
            GenerationMethod::Beam { beams, .. } => beams,
            GenerationMethod::Sample { .. } => self.n_best,
        }
    }

    /// Whether the words of a record's text matter to its output.
    pub fn copies_words(&self) -> bool {
        self.copy_bias > 0.0 || self.name_bias > 0.0
    }

    /// Checks every field, and that each is used.
    ///
    /// # Errors
    /// [`JobError::SpecValue`] for the first that is not allowed.
    pub fn validate(&self) -> Result<(), JobError> {
        if let Some(limit) = self.max_new_tokens {
            in_range("generation.max_new_tokens", u64::from(limit), 1..=u64::from(u32::MAX))?;
            in_range("generation.min_new_tokens", u64::from(self.min_new_tokens), 0..=u64::from(limit))?;
        }
        positive("generation.max_new_tokens_per_prompt_token", self.max_new_tokens_per_prompt_token)?;
        positive("generation.min_new_tokens_per_prompt_token", self.min_new_tokens_per_prompt_token)?;
        in_range("generation.beams", u64::from(self.beams), 1..=MAX_SEQUENCES)?;
        if let Some(penalty) = self.length_penalty.filter(|penalty| !penalty.is_finite()) {
            return Err(not_allowed("generation.length_penalty", penalty, "a number"));
        }
        positive("generation.temperature", self.temperature)?;
        if let Some(top_k) = self.top_k {
            in_range("generation.top_k", u64::from(top_k), 1..=u64::from(u32::MAX))?;
        }
        share("generation.top_p", self.top_p)?;
        share("generation.min_p", self.min_p)?;
        positive("generation.repetition_penalty", Some(self.repetition_penalty))?;
        for (field, bias) in
            [("generation.copy_bias", self.copy_bias), ("generation.name_bias", self.name_bias)]
        {
            if !(bias.is_finite() && bias >= 0.0) {
                return Err(not_allowed(field, bias, "0 or a number above it"));
            }
        }
        in_range("generation.n_best", u64::from(self.n_best), 1..=MAX_SEQUENCES)?;
        for (field, texts) in
            [("generation.stop_tokens", &self.stop_tokens), ("generation.stop_strings", &self.stop_strings)]
        {
            if texts.iter().any(String::is_empty) {
                return Err(not_allowed(field, "\"\"", "non-empty strings"));
            }
        }
        self.check_method()
    }

    /// Refuses options that the method does not use.
    fn check_method(&self) -> Result<(), JobError> {
        let only_beam = "only with `generation.beams` above 1";
        match self.method() {
            GenerationMethod::Beam { beams, .. } => {
                let no_sampling = format!("only without `generation.beams`, which is {beams}");
                unused("generation.temperature", self.temperature, &no_sampling)?;
                unused("generation.top_k", self.top_k, &no_sampling)?;
                unused("generation.top_p", self.top_p, &no_sampling)?;
                unused("generation.min_p", self.min_p, &no_sampling)?;
                unused("generation.seed", self.seed, &no_sampling)?;
                in_range("generation.n_best", u64::from(self.n_best), 1..=u64::from(beams))
            }
            GenerationMethod::Sample { .. } => {
                unused("generation.length_penalty", self.length_penalty, only_beam)?;
                unused("generation.early_stopping", self.early_stopping, only_beam)
            }
            GenerationMethod::Greedy => {
                unused("generation.length_penalty", self.length_penalty, only_beam)?;
                unused("generation.early_stopping", self.early_stopping, only_beam)?;
                let only_sampling =
                    "only with sampling: set `generation.temperature`, `top_k`, `top_p` or `min_p`";
                unused("generation.seed", self.seed, only_sampling)?;
                let several = Some(self.n_best).filter(|&n_best| n_best > 1);
                unused(
                    "generation.n_best",
                    several,
                    "1 in greedy decoding; set `generation.beams` or `temperature`",
                )
            }
        }
    }
}

impl EarlyStopping {
    /// Every kind.
    pub const ALL: [EarlyStopping; 3] =
        [EarlyStopping::Heuristic, EarlyStopping::AtOnce, EarlyStopping::Never];

    /// The name in job files and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            EarlyStopping::Heuristic => "heuristic",
            EarlyStopping::AtOnce => "at_once",
            EarlyStopping::Never => "never",
        }
    }
}

impl fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn unused<T: fmt::Display>(field: &'static str, value: Option<T>, allowed: &str) -> Result<(), JobError> {
    value.map_or(Ok(()), |value| Err(not_allowed(field, value, allowed)))
}

fn positive(field: &'static str, value: Option<f32>) -> Result<(), JobError> {
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(not_allowed(field, value, "a number above 0"))
        }
        _ => Ok(()),
    }
}

fn share(field: &'static str, value: Option<f32>) -> Result<(), JobError> {
    match value {
        Some(value) if !(value > 0.0 && value <= 1.0) => {
            Err(not_allowed(field, value, "above 0.0, up to 1.0"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(toml: &str) -> GenerationOptions {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn what_is_set_decides_the_method() {
        assert_eq!(options("").method(), GenerationMethod::Greedy);
        assert_eq!(
            options("repetition_penalty = 1.2\nno_repeat_ngram = 3").method(),
            GenerationMethod::Greedy
        );
        let (length_penalty, early_stopping) = (0.6, EarlyStopping::AtOnce);
        assert_eq!(
            options("beams = 4\nlength_penalty = 0.6\nearly_stopping = 'at_once'").method(),
            GenerationMethod::Beam { beams: 4, length_penalty, early_stopping }
        );
        let (top_k, top_p, min_p) = (None, Some(0.9), None);
        assert_eq!(
            options("top_p = 0.9\nseed = 7").method(),
            GenerationMethod::Sample { temperature: 1.0, top_k, top_p, min_p, seed: 7 }
        );
    }

    #[test]
    fn each_sequence_counts() {
        assert_eq!(options("").sequences_per_record(), 1);
        assert_eq!(options("beams = 4\nn_best = 2").sequences_per_record(), 4);
        assert_eq!(options("temperature = 0.7\nn_best = 3").sequences_per_record(), 3);
    }

    #[test]
    fn values_out_of_range_and_options_that_nothing_uses_are_refused_by_name() {
        let cases = [
            ("max_new_tokens = 0", "max_new_tokens"),
            ("max_new_tokens = 4\nmin_new_tokens = 5", "min_new_tokens"),
            ("max_new_tokens_per_prompt_token = -1.0", "max_new_tokens_per_prompt_token"),
            ("min_new_tokens_per_prompt_token = 0.0", "min_new_tokens_per_prompt_token"),
            ("beams = 0", "beams"),
            ("beams = 65", "beams"),
            ("beams = 2\nlength_penalty = inf", "length_penalty"),
            ("temperature = 0.0", "temperature"),
            ("top_k = 0", "top_k"),
            ("top_p = 1.5", "top_p"),
            ("min_p = 0.0", "min_p"),
            ("repetition_penalty = 0.0", "repetition_penalty"),
            ("copy_bias = -1.0", "copy_bias"),
            ("name_bias = inf", "name_bias"),
            ("n_best = 0", "n_best"),
            ("stop_tokens = ['']", "stop_tokens"),
            ("stop_strings = ['a', '']", "stop_strings"),
            ("beams = 4\ntemperature = 0.7", "temperature"),
            ("beams = 4\ntop_k = 5", "top_k"),
            ("beams = 4\ntop_p = 0.5", "top_p"),
            ("beams = 4\nmin_p = 0.5", "min_p"),
            ("beams = 4\nseed = 1", "seed"),
            ("beams = 4\nn_best = 5", "n_best"),
            ("temperature = 0.7\nlength_penalty = 1.0", "length_penalty"),
            ("temperature = 0.7\nearly_stopping = 'never'", "early_stopping"),
            ("length_penalty = 1.0", "length_penalty"),
            ("early_stopping = 'never'", "early_stopping"),
            ("seed = 1", "seed"),
            ("n_best = 2", "n_best"),
        ];
        for (toml, field) in cases {
            let error = options(toml).validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("job spec: `generation.{field}` is ")), "{toml}: {error}");
        }
    }

    #[test]
    fn options_that_go_together_are_accepted() {
        for toml in [
            "beams = 64\nn_best = 64\nlength_penalty = -1.0\nearly_stopping = 'never'\nrepetition_penalty = 0.9",
            "temperature = 0.7\ntop_k = 50\ntop_p = 1.0\nmin_p = 0.05\nseed = 1\nn_best = 8\nstop_strings = ['\\n']",
            "min_new_tokens = 9\nmin_new_tokens_per_prompt_token = 0.5\nno_repeat_ngram = 3\ncopy_bias = 2.0\nname_bias = 0.5\nstop_tokens = ['.']",
        ] {
            options(toml).validate().unwrap();
        }
    }

    #[test]
    fn early_stopping_has_one_name_everywhere() {
        for kind in EarlyStopping::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
