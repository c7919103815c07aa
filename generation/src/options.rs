//! The rules and results of all options together.

use crate::{GenerationOptions, Method, OptionError, QualityColumns};

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
