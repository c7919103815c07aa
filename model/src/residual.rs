//! The residual stream between the parts of a block, with norms before or after them: `x + part(norm(x))` or,
//! as in the first transformers (Vaswani et al., arXiv 1706.03762), `norm(x + part(x))`.

use tch::Tensor;

use crate::{
    layers::LayerNorm,
    linear::LinearInput,
    step_time::{Part, time},
};

/// The rows between two parts.
#[derive(Debug)]
pub(crate) enum Residual {
    /// Norms before the parts: the sum of all additions, `[rows, d]` f32.
    Sum(Tensor),
    /// Norms after the parts: the rows of the last one.
    Normed(Normed),
}

/// The rows of a norm after a part.
#[derive(Debug)]
pub(crate) struct Normed {
    /// The rows that the next part adds to, `[rows, d]` f32.
    pub(crate) numbers: Tensor,
    /// The same rows, as the next part's input.
    pub(crate) input: LinearInput,
}

impl Residual {
    /// The rows after a part and its norm. `part` gets the numbers to which it adds, whose memory may be
    /// reused, and its input.
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
