//! The attention of a decoder's block to the prompt in its encoder, as T5 and its relatives share it.

use tch::{Kind, Tensor};

use crate::{
    CrossAttention, Linear, PromptHeads, Scoring,
    kernels::HeadShape,
    linear::LinearInput,
    step_time::{Part, time},
};

/// Queries from the output, keys and values from the encoder's states, and the projection of the result.
#[derive(Debug)]
pub(crate) struct AttentionToPrompt {
    pub(crate) shape: HeadShape,
    pub(crate) scoring: Scoring,
    /// d -> heads * head_dim
    pub(crate) q: Linear,
    /// d -> 2 heads * head_dim: keys, values
    pub(crate) kv: Linear,
    /// heads * head_dim -> d
    pub(crate) o: Linear,
    /// Of queries, keys and values.
    pub(crate) kind: Kind,
}

impl AttentionToPrompt {
    /// `states`: `[rows, d]` f32; keys and values `[rows, heads, head_dim]`.
    pub(crate) fn keys_and_values(&self, states: &Tensor) -> [Tensor; 2] {
        let HeadShape { heads, head_dim, .. } = self.shape;
        let input = time(Part::Activation, || self.kv.input(states));
        let kv = time(Part::Linear, || self.kv.product(&input).into_tensor(self.kind));
        let kv = kv.view([-1, 2, heads as i64, head_dim as i64]);
        [0, 1].map(|part| kv.select(1, part))
    }

    /// `x` plus the attention for `input`. `x`: `[rows, d]` f32, whose memory may be reused; `input`: `[rows,
    /// d]`, as linear layers read it.
    pub(crate) fn add_to(
        &self,
        x: Tensor,
        (layer, input): (usize, &LinearInput),
        attention: &mut dyn CrossAttention,
        dropout: f64,
    ) -> Tensor {
        let HeadShape { heads, head_dim, .. } = self.shape;
        let q = time(Part::Linear, || self.q.product(input).into_tensor(self.kind));
        let q = q.view([-1, heads as i64, head_dim as i64]);
        let attended = time(Part::Attention, || {
            // [rows, heads * head_dim]
            attention.attend_prompt(layer, PromptHeads { q: &q, scoring: self.scoring })
        });
        let attended = time(Part::Activation, || self.o.input(&attended));
        let output = time(Part::Linear, || self.o.product(&attended));
        time(Part::Activation, || output.add_to(x, dropout))
    }
}
