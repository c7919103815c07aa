//! The residual stream between the parts of a block, whose norms stand before or behind them: `x +
//! part(norm(x))` or, as in the first transformers (Vaswani et al., arXiv 1706.03762), `norm(x + part(x))`.

use tch::Tensor;

use crate::{
    layers::LayerNorm,
    linear::LinearInput,
    step_time::{Part, time},
};

/// The rows between two parts.
#[derive(Debug)]
pub(crate) enum Residual {
    /// Norms stand before the parts: the sum of what has been added, `[rows, d]` f32.
    Sum(Tensor),
    /// They stand behind: the rows that the last one gave.
    Normed(Normed),
}

/// The rows that a norm behind a part gives.
#[derive(Debug)]
pub(crate) struct Normed {
    /// The rows that the next part adds to, `[rows, d]` f32.
    pub(crate) numbers: Tensor,
    /// The same as what the next part reads.
    pub(crate) input: LinearInput,
}

impl Residual {
    /// The rows behind a part and its norm. `part` is given what it adds to, whose memory may be reused, and
    /// what it reads.
    pub(crate) fn add(self, norm: &LayerNorm, part: impl FnOnce(Tensor, &LinearInput) -> Tensor) -> Self {
        match self {
            Self::Sum(x) => {
                let normed = time(Part::Norm, || norm.forward(&x));
                Self::Sum(part(x, &normed))
            }
            Self::Normed(Normed { numbers, input }) => {
                let sum = part(numbers, &input);
                Self::Normed(time(Part::Norm, || norm.normed(sum)))
            }
        }
    }

    /// `[rows, d]` f32
    pub(crate) fn into_numbers(self) -> Tensor {
        match self {
            Self::Sum(numbers) | Self::Normed(Normed { numbers, .. }) => numbers,
        }
    }
}
