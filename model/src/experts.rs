//! A mixture of experts: a router chooses some feed-forward layers for each token (Shazeer et al., arXiv
//! 1701.06538; without bounds on how many tokens one may get).
//!
//! Each expert computes the rows that chose it. They come in the order of the experts, so a row's sum does
//! not depend on the rows beside it.

use baton_bundle::ExpertsConfig;
use tch::{Device, Kind, Tensor};

use crate::{
    Compute, Linear, ModelError,
    feed_forward::FeedForward,
    layer_source::LayerSource,
    step_time::{Part, time},
    transfer::{download, upload_indices},
};

#[derive(Debug)]
pub(crate) struct Experts {
    gate: Linear, // d -> experts; in float, since its order decides
    experts: Vec<FeedForward>,
    per_token: i64,
    normalized: bool,
    compute: Compute,
}

impl Experts {
    /// `mlp`: the part with the router and the experts; `expert` loads one.
    pub(crate) fn load(
        config: &ExpertsConfig,
        d: usize,
        mlp: &LayerSource<'_>,
        expert: impl Fn(&LayerSource<'_>) -> Result<FeedForward, ModelError>,
    ) -> Result<Self, ModelError> {
        let load = |index: usize| expert(&mlp.part("experts").part(index));
        Ok(Self {
            gate: mlp.with_float_weights().linear("gate", [config.num_experts, d])?,
            experts: (0..config.num_experts).map(load).collect::<Result<_, _>>()?,
            per_token: config.per_token as i64,
            normalized: config.normalized,
            compute: mlp.compute,
        })
    }

    /// The weighted sum of the chosen experts' outputs. `x`: `[rows, d]` f32, at least one row; result the
    /// same shape.
    pub(crate) fn output(&self, x: &Tensor) -> Tensor {
        let (weights, chosen) = self.route(x);
        let mut sums = x.zeros_like();
        for (index, expert) in self.experts.iter().enumerate() {
            let places: Vec<(i64, i64)> = (0..)
                .zip(chosen.chunks(self.per_token as usize))
                .filter_map(|(row, chosen)| {
                    let place = chosen.iter().position(|&chosen| chosen == index as i64)?;
                    Some((row, row * self.per_token + place as i64))
                })
                .collect();
            if places.is_empty() {
                continue;
            }
            let device = self.compute.device;
            let rows = upload_indices(&places.iter().map(|(row, _)| *row).collect::<Vec<_>>(), device);
            let choices =
                upload_indices(&places.iter().map(|(_, choice)| *choice).collect::<Vec<_>>(), device);
            let output = expert.output(&expert.input(&x.index_select(0, &rows)));
            let weights = weights.view([-1, 1]).index_select(0, &choices);
            sums = time(Part::Activation, || sums.index_add_(0, &rows, &(output * weights)));
        }
        sums
    }

    /// The weights of each row's experts, `[rows, per_token]` f32, and which they are, row by row.
    fn route(&self, x: &Tensor) -> (Tensor, Vec<i64>) {
        let scores = time(Part::Linear, || self.gate.forward(x)).softmax(-1, Kind::Float);
        let (weights, chosen) = scores.topk(self.per_token, -1, true, true);
        let weights = match self.normalized {
            true => &weights / weights.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float),
            false => weights,
        };
        let chosen = download(chosen.contiguous()).to_device(Device::Cpu).view([-1]);
        (weights, Vec::try_from(chosen).expect("indices are int64"))
    }
}
