//! The recurrence that students of Firefox Translations and Bergamot have in place of a decoder's attention
//! to its past. All other parts are in `bart.rs`. Reference: Kim et al., "From Research to Production and
//! Back", ACL Anthology D19-5632.

use tch::{Kind, Tensor};

use crate::{
    CrossAttention, Linear, ModelError,
    layer_source::LayerSource,
    linear::LinearInput,
    step_time::{Part, time},
};

/// `relu(c)`, where `f = sigmoid(forget x)` and `c = f * c_before + (1 - f) * input x`: a simpler simple
/// recurrent unit.
#[derive(Debug)]
pub(crate) struct Ssru {
    pub(crate) gates: Linear, // d -> 2 d: forget, input
}

impl Ssru {
    pub(crate) fn load(rnn: &LayerSource<'_>, d: usize) -> Result<Self, ModelError> {
        Ok(Self { gates: rnn.stacked_with_first_bias(d, &[("forget", d), ("input", d)])? })
    }

    /// `x` plus the recurrence's output for `input`. `x`: `[rows, d]` f32; `input`: `[rows, d]`, in the form
    /// for linear layers.
    pub(crate) fn add_to(
        &self,
        x: Tensor,
        (layer, input): (usize, &LinearInput),
        attention: &mut dyn CrossAttention,
        dropout: f64,
    ) -> Tensor {
        let gates = time(Part::Linear, || self.gates.product(input).into_tensor(Kind::Float));
        let written = time(Part::Attention, || attention.recur(layer, &gates)).relu();
        x + written.dropout(dropout, dropout > 0.0)
    }
}
