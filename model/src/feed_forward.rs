//! Feed-forward layers of a block: gated, or with one activation.

use tch::{Kind, Tensor};

use crate::{
    Linear,
    kernels::Activation,
    linear::LinearInput,
    step_time::{Part, time},
};

/// Two linear layers with a function between them: `down(activation(gate x) * up x)`, or
/// `down(activation(up x))`.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) input: FeedForwardInput,
    pub(crate) activation: Activation,
    /// ff -> d
    pub(crate) output: Linear,
}

/// The first of the two layers.
#[derive(Debug)]
pub(crate) enum FeedForwardInput {
    /// d -> 2 ff: gates, then ups
    Gated(Linear),
    /// d -> ff
    Plain(Linear),
}

impl FeedForward {
    /// Rows in the format that the first product reads.
    pub(crate) fn input(&self, x: &Tensor) -> LinearInput {
        match &self.input {
            FeedForwardInput::Gated(layer) | FeedForwardInput::Plain(layer) => layer.input(x),
        }
    }

    /// `x` plus the layers' output for `normed`. `x`: `[rows, d]` f32, whose memory may be reused; `normed`:
    /// `[rows, d]`, as a norm yields it.
    pub(crate) fn add_to(&self, x: Tensor, normed: &LinearInput, dropout: f64) -> Tensor {
        let inner = self.inner(normed);
        let output = time(Part::Linear, || self.output.product(&inner));
        time(Part::Activation, || output.add_to(x, dropout))
    }

    /// The layers' output for `normed`, `[rows, d]` f32.
    pub(crate) fn output(&self, normed: &LinearInput) -> Tensor {
        let inner = self.inner(normed);
        let output = time(Part::Linear, || self.output.product(&inner));
        time(Part::Activation, || output.into_tensor(Kind::Float))
    }

    /// The input of the second layer, `[rows, ff]`.
    fn inner(&self, normed: &LinearInput) -> LinearInput {
        match &self.input {
            FeedForwardInput::Gated(gate_up_proj) => {
                let gate_up = time(Part::Linear, || gate_up_proj.product(normed)); // [rows, 2 ff]
                time(Part::Activation, || gate_up.gated(self.activation))
            }
            FeedForwardInput::Plain(up_proj) => {
                let up = time(Part::Linear, || up_proj.product(normed)); // [rows, ff]
                time(Part::Activation, || up.activated(self.activation))
            }
        }
    }
}
