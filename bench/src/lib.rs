//! Measures the decode loop, the encoder and a job's models on this machine, through the code that the
//! services run.
//!
//! Owns the measurements and their numbers; the command owns flags and display. Every rate comes with the
//! rate of plain matrix products in the same run. Machines are shared and noisy: compare ratios, not absolute
//! numbers.

mod bare_loop;
mod decode;
mod encode;
mod machine;

use std::time::Duration;

use serde::Serialize;

pub use bare_loop::{BareLoop, BareLoopConfig, BareRound};
pub use decode::{DecodeBench, DecodeResult, LanguageModel, decode};
pub use encode::{EncodeBench, EncodeResult, encode};
pub use machine::{Machine, peak_memory_bytes};

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A model could not be loaded or run.
    #[error("cannot load the model")]
    Model(#[from] baton_model::ModelError),
    /// A config or bundle could not be read.
    #[error("cannot read the model's description")]
    Bundle(#[from] baton_bundle::BundleError),
    /// The request cannot be measured.
    #[error("{0}")]
    Request(String),
}

/// Time of one part of a model's pass.
#[derive(Debug, Clone, Serialize)]
pub struct PartTime {
    /// The part, as `baton_model::Part` names it.
    pub part: &'static str,
    /// Milliseconds, summed over the measured passes and averaged over engines.
    pub milliseconds: f64,
}

/// This thread's part times since the last call, divided by `passes`.
fn part_times(times: [Duration; baton_model::Part::ALL.len()], divisor: f64) -> Vec<PartTime> {
    baton_model::Part::ALL
        .iter()
        .zip(times)
        .map(|(part, time)| PartTime { part: part.name(), milliseconds: time.as_secs_f64() * 1e3 / divisor })
        .collect()
}

/// The middle of some numbers; of an even count, the lower middle.
///
/// # Panics
/// `numbers` is empty.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() - 1) / 2]
}
