//! Attention of a block, shared by families with grouped queries, and their variants.

use baton_bundle::ModelConfig;
use tch::{Kind, Tensor};

use crate::{
    Heads, Linear, RelativeBias, Scoring,
    kernels::HeadShape,
    layers::{HeadNorms, Rope},
    linear::LinearInput,
    stack::Pass,
    step_time::{Part, time},
};

/// Queries, keys and values from one product, attention, and the projection of its result.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    pub(crate) shape: HeadShape,
    pub(crate) scoring: Scoring,
    /// d -> (heads + 2 kv_heads) * head_dim: queries, keys, values
    pub(crate) qkv_proj: Linear,
    /// Norms of queries and keys, before positions.
    pub(crate) head_norms: Option<HeadNorms>,
    /// heads * head_dim -> d
    pub(crate) o_proj: Linear,
}

/// The way attention learns the positions of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Positions<'a> {
    /// Queries and keys are rotated.
    Rotary(&'a Rope),
    /// Distances add to scores.
    Relative(&'a RelativeBias),
    /// Embeddings have it already, or nothing tells it.
    Unmarked,
}

/// How many heads a model has, and how wide.
pub(crate) fn head_shape(config: &ModelConfig) -> HeadShape {
    HeadShape {
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

impl SelfAttention {
    /// Rows in the format that the first product reads.
    pub(crate) fn input(&self, x: &Tensor) -> LinearInput {
        self.qkv_proj.input(x)
    }

    /// `x` plus the attention for `normed`. `x`: `[rows, d]` f32, whose memory may be reused; `normed`:
    /// `[rows, d]`, as a norm yields it. None if the pass ends with keys and values.
    pub(crate) fn add_to(
        &self,
        x: Tensor,
        (layer, normed): (usize, &LinearInput),
        positions: Positions<'_>,
        pass: &mut Pass<'_>,
    ) -> Option<Tensor> {
        let attended = self.attended((layer, normed), positions, pass)?;
        let output = time(Part::Linear, || self.o_proj.product(&attended));
        Some(time(Part::Activation, || output.add_to(x, pass.dropout)))
    }

    /// The output of attention for `normed`, `[rows, d]` f32. None if the pass ends with keys and values.
    pub(crate) fn output(
        &self,
        (layer, normed): (usize, &LinearInput),
        positions: Positions<'_>,
        pass: &mut Pass<'_>,
    ) -> Option<Tensor> {
        let attended = self.attended((layer, normed), positions, pass)?;
        let output = time(Part::Linear, || self.o_proj.product(&attended));
        Some(time(Part::Activation, || output.into_tensor(Kind::Float)))
    }

    /// The input of the last projection, `[rows, heads * head_dim]`.
    fn attended(
        &self,
        (layer, normed): (usize, &LinearInput),
        positions: Positions<'_>,
        pass: &mut Pass<'_>,
    ) -> Option<LinearInput> {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let [heads, kv_heads, head_dim] = [heads, kv_heads, head_dim].map(|size| size as i64);
        // [rows, (heads + 2 kv_heads) * head_dim]
        let qkv = time(Part::Linear, || self.qkv_proj.product(normed));
        let qkv = time(Part::Rotate, || {
            let qkv = qkv.into_compute_kind(&self.qkv_proj).view([-1, heads + 2 * kv_heads, head_dim]);
            let qkv = match &self.head_norms {
                Some(norms) => norms.forward(qkv, heads, kv_heads),
                None => qkv,
            };
            match positions {
                Positions::Rotary(rope) => rope.apply(qkv, heads + kv_heads, pass.positions),
                Positions::Relative(_) | Positions::Unmarked => qkv,
            }
        });
        let attended = time(Part::Attention, || {
            let parts = qkv.split_with_sizes([heads, kv_heads, kv_heads], 1);
            let bias = match positions {
                Positions::Relative(bias) => Some(bias),
                Positions::Rotary(_) | Positions::Unmarked => None,
            };
            let heads = Heads { q: &parts[0], k: &parts[1], v: &parts[2], scoring: self.scoring, bias };
            pass.attention.attend(layer, heads) // [rows, heads * head_dim]
        });
        attended.map(|attended| time(Part::Activation, || self.o_proj.input(&attended)))
    }
}
