//! The rules and results of all options together.

use crate::{GenerationOptions, Method, OptionError, QualityColumns};

/// Tokens that a second try never writes twice in succession: about three words.
const NO_REPEAT_NGRAM: u32 = 6;

impl GenerationOptions {
    /// How tokens are chosen. Beams above 1 make a beam search, an option that chooses sampling makes that.
    #[must_use]
    pub fn method(&self) -> Method {
        let GenerationOptions { beams, temperature, top_k, top_p, min_p, .. } = self;
        if *beams > 1 {
            Method::Beam
        } else if temperature.is_some() || top_k.is_some() || top_p.is_some() || min_p.is_some() {
            Method::Sample
        } else {
            Method::Greedy
        }
    }

    /// Sequences of one record that are decoded at once.
    #[must_use]
    pub fn sequences_per_record(&self) -> u32 {
        match self.method() {
            Method::Greedy => 1,
            Method::Beam => self.beams,
            Method::Sample => self.n_best,
        }
    }

    /// Sequences of one record that are decoded at once at most, a second try included.
    #[must_use]
    pub fn most_sequences_per_record(&self) -> u32 {
        self.sequences_per_record().max(self.second_try().map_or(0, |options| options.beams))
    }

    /// The options of a second try for an output with flaws, if there is one: a beam search without biases,
    /// in which nothing goes round in circles.
    #[must_use]
    pub fn second_try(&self) -> Option<GenerationOptions> {
        let beams = self.retry_beams.max(self.n_best);
        (self.retry_beams > 0).then(|| GenerationOptions {
            beams,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            copy_bias: 0.0,
            name_bias: 0.0,
            no_repeat_ngram: match self.no_repeat_ngram {
                0 => NO_REPEAT_NGRAM,
                few => few.min(NO_REPEAT_NGRAM),
            },
            ..self.clone()
        })
    }

    /// Whether the words of a record's text matter to its output.
    #[must_use]
    pub fn copies_words(&self) -> bool {
        self.copy_bias > 0.0 || self.name_bias > 0.0
    }

    /// Whether the job needs an estimate of its outputs' quality.
    #[must_use]
    pub fn needs_estimate(&self) -> bool {
        self.quality == QualityColumns::Estimate || self.review.is_some()
    }

    /// Checks options that were built in code; those of layers are checked already.
    ///
    /// # Errors
    /// As [`GenerationOptions::from_layers`].
    pub fn validate(&self) -> Result<(), OptionError> {
        self.said().check() // defaults are in range, and every method has them
    }
}
