//! How good an output probably is, told without a reference.
//!
//! The decoder knows the probabilities of an output's tokens; the texts themselves tell length, repetition,
//! copied words and language. These are an output's [`Signals`]. A [`QualityModel`] turns them into one
//! *estimate* between 0 and 1: the probability that the output is not among the worst tenth. It is fitted on
//! outputs that have references. A job can write both into rows, and give the worst rows to a reader.
//!
//! All of it is a function of its arguments: no IO, no models of language.

mod estimate;
mod fit;
mod measures;
mod signals;

pub use estimate::{Bin, Feature, QualityModel};
pub use fit::{FitError, MIN_RECORDS, Sample, WORST_SHARE, fit};
pub use measures::{auc, quantile};
pub use signals::{Judged, LogProbabilities, Signals, rounded};
