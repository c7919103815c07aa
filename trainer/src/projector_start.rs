//! Initial values with which the projector reads the differences between states, and adds little at first.
//!
//! Most of the length of an LLM's middle states is in a few dimensions that are nearly the same at every
//! position. Most directions that differ have a hundredth of the variance of the largest. A random first
//! layer passes on little but the nearly constant part, which drowns the prompt's embedding, and learns the
//! rest slowly. The first layer therefore begins on whitened states (zero mean, equal variance in all
//! directions except nearly constant ones), and the last layer begins small.

use tch::{Kind, Tensor, no_grad};

use baton_bundle::{Fusion, ProjectorPart};
use baton_model::{Compute, Projector};

use crate::{TrainError, weights::Weights};

/// Variance added in each direction, as a share of the mean: smaller variances are mostly rounding.
const RIDGE: f64 = 0.1;
/// The last layer's weights, as a share of random ones, if projected states are added to embeddings.
const ADDED_SHARE: f64 = 0.1;

/// Rewrites a projector of random weights. `states`: `[rows, layers * d_llm]`, a sample of its inputs.
pub(crate) fn settle(
    weights: &mut Weights,
    part: &ProjectorPart,
    fusion: Fusion,
    states: &Tensor,
) -> Result<(), TrainError> {
    let projector = Projector::load(weights, part, Compute::CPU_F32)?;
    let names: Vec<String> = part.linear_layers().into_iter().map(|(name, _)| name).collect();
    let (first, last) = (&names[0], &names[names.len() - 1]);
    no_grad(|| {
        let scaled = projector.scaled(states);
        let (mean, whitening) = whitening(&scaled);
        let weight = weights[&format!("{first}.weight")].matmul(&whitening);
        weights.insert(format!("{first}.bias"), -weight.matmul(&mean));
        weights.insert(format!("{first}.weight"), weight);
        if fusion == Fusion::Add {
            for name in [format!("{last}.weight"), format!("{last}.bias")] {
                let small = &weights[&name] * ADDED_SHARE;
                weights.insert(name, small);
            }
        }
    });
    Ok(())
}

/// The mean of rows, `[d]`, and the symmetric matrix, `[d, d]`, that gives them equal variance in all
/// directions (ZCA whitening).
fn whitening(rows: &Tensor) -> (Tensor, Tensor) {
    let mean = rows.mean_dim([0i64].as_slice(), false, Kind::Float);
    let centred = (rows - &mean).to_kind(Kind::Double);
    let covariance = centred.tr().matmul(&centred) / centred.size()[0];
    let (variances, directions) = covariance.linalg_eigh("L");
    let ridge = variances.mean(Kind::Double) * RIDGE;
    let scales = (variances.clamp_min(0.0) + ridge).rsqrt();
    let whitening = (&directions * scales).matmul(&directions.tr());
    (mean, whitening.to_kind(Kind::Float))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use baton_bundle::{InputNorm, PromptEmbeddingSource};
    use baton_model::PackedLayout;
    use tch::Device;

    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn part(depth: usize) -> ProjectorPart {
        ProjectorPart {
            d_llm: 12,
            d_slm: 16,
            input_norm: InputNorm::Rms,
            prompt_embedding: PromptEmbeddingSource::Llm,
            mixed_layers: Vec::new(),
            depth,
            blocks: 0,
        }
    }

    /// Numbers of mean 0 and variance 1, always the same. (Tests share the generator of libtorch, and run at
    /// once.)
    fn noise(shape: &[i64]) -> Tensor {
        let places = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        let uniform = ((places + 1.0) * 12.9898).sin() * 43_758.545_3;
        ((&uniform - uniform.floor() - 0.5) * 12f64.sqrt()).to_kind(Kind::Float).view(shape)
    }

    fn random_weights(part: &ProjectorPart) -> Weights {
        let layers = part.linear_layers().into_iter().flat_map(|(name, fan_in)| {
            let weight = noise(&[part.d_slm as i64, fan_in as i64]) * (fan_in as f64).powf(-0.5);
            [(format!("{name}.weight"), weight), (format!("{name}.bias"), Tensor::zeros([16], OPTIONS))]
        });
        layers.collect::<BTreeMap<_, _>>()
    }

    fn layout() -> PackedLayout {
        PackedLayout::prompts([4000])
    }

    /// States like an LLM's: a large constant, and directions of very different variance.
    fn states() -> Tensor {
        let scales = Tensor::from_slice(&[0.0f32, 3.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]);
        let mut constant = vec![0f32; 12];
        constant[0] = 20.0;
        noise(&[4000, 12]) * scales + Tensor::from_slice(&constant)
    }

    #[test]
    fn whitened_rows_have_zero_mean_and_equal_variance_in_all_directions_that_vary() {
        let rows = noise(&[4000, 3]) * Tensor::from_slice(&[2.0f32, 1.0, 0.9])
            + Tensor::from_slice(&[50.0f32, -3.0, 0.0]);
        let (mean, whitening) = whitening(&rows);
        let white = (&rows - mean).matmul(&whitening);
        assert!(white.mean_dim([0i64].as_slice(), false, Kind::Float).abs().max().double_value(&[]) < 1e-3);
        let covariance = white.tr().matmul(&white) / 4000.0;
        let difference = covariance - Tensor::eye(3, OPTIONS);
        // The ridge takes a tenth of the mean variance, 0.2, from each.
        assert!(difference.abs().max().double_value(&[]) < 0.25);
    }

    #[test]
    fn a_settled_projector_tells_states_apart_that_a_random_one_drowns_in_a_constant() {
        let (part, states) = (part(2), states());
        let mut weights = random_weights(&part);
        // The varying part from row to row, as a share of all.
        let varying = |weights: &Weights| {
            let projected =
                Projector::load(weights, &part, Compute::CPU_F32).unwrap().forward(&states, &layout());
            let deviation = projected.std_dim([0i64].as_slice(), true, false).square().mean(Kind::Float);
            (deviation / projected.square().mean(Kind::Float)).double_value(&[])
        };
        let before = varying(&weights);
        settle(&mut weights, &part, Fusion::Replace, &states).unwrap();
        let after = varying(&weights);
        assert!(before < 0.1 && after > 0.4, "{before} {after}");
    }

    #[test]
    fn states_that_are_added_to_embeddings_begin_small_at_any_depth() {
        let states = states();
        for depth in 1..=3 {
            let part = part(depth);
            let size_with = |fusion| {
                let mut weights = random_weights(&part);
                settle(&mut weights, &part, fusion, &states).unwrap();
                let projector = Projector::load(&weights, &part, Compute::CPU_F32).unwrap();
                projector.forward(&states, &layout()).square().mean(Kind::Float).sqrt().double_value(&[])
            };
            let (added, replacing) = (size_with(Fusion::Add), size_with(Fusion::Replace));
            assert!(added < 0.2 && replacing > 0.3, "depth {depth}: {added} {replacing}");
        }
    }
}
