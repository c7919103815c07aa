//! The trained model of a run. The loop, its checkpoints and its progress are the same for all.

use std::path::Path;

use tch::Tensor;

use crate::{
    TrainError,
    checkpoint::BestValidation,
    objective::{PairSet, Regularization},
    weights::Weights,
};

/// A way from weights and pairs to a loss, and from the best weights to a bundle.
pub(crate) trait Learner {
    /// Mean loss of the response tokens of some pairs, with gradients to `weights`.
    fn loss(
        &self,
        weights: &Weights,
        set: &PairSet,
        batch: &[usize],
        regularization: Regularization,
    ) -> Result<Tensor, TrainError>;

    /// Writes the bundle of a run that is over.
    fn write_bundle(&self, finished: &Finished<'_>) -> Result<(), TrainError>;
}

/// The end of a run.
pub(crate) struct Finished<'a> {
    /// The best weights.
    pub(crate) weights: &'a Weights,
    /// Where the run keeps its files.
    pub(crate) run: &'a Path,
    /// Where the bundle shall be.
    pub(crate) bundle: &'a Path,
    pub(crate) best: BestValidation,
    pub(crate) train_pairs: usize,
    pub(crate) train_seconds: f64,
}
