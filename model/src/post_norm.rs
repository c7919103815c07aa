//! Blocks whose norms stand behind their parts, `norm(x + part(x))`, as in the first transformers (Vaswani et
//! al., arXiv 1706.03762): Marian's, BART's.

use tch::Tensor;

use crate::{
    feed_forward::FeedForward,
    layers::LayerNorm,
    linear::LinearInput,
    self_attention::{Positions, SelfAttention},
    stack::Pass,
    step_time::{Part, time},
};

/// The rows between two parts of such a block.
#[derive(Debug)]
pub(crate) struct Normed {
    /// The rows that the next part adds to, `[rows, d]` f32.
    pub(crate) numbers: Tensor,
    /// The same as what the next part reads.
    pub(crate) input: LinearInput,
}

/// A block of an encoder.
#[derive(Debug)]
pub(crate) struct PostNormBlock {
    pub(crate) self_attn: SelfAttention,
    pub(crate) self_attn_layer_norm: LayerNorm,
    pub(crate) feed_forward: PostNormFeedForward,
}

/// The last part of a block, in encoder and decoder.
#[derive(Debug)]
pub(crate) struct PostNormFeedForward {
    pub(crate) layers: FeedForward,
    pub(crate) final_layer_norm: LayerNorm,
}

impl PostNormBlock {
    /// The input of linear layers for rows that come from no norm. `x`: `[rows, d]` f32.
    pub(crate) fn begin(&self, x: Tensor) -> Normed {
        Normed { input: self.self_attn.qkv_proj.input(&x), numbers: x }
    }

    pub(crate) fn forward(&self, x: Normed, layer: usize, pass: &mut Pass<'_>) -> Normed {
        let attended = self.self_attn.add_to(x.numbers, (layer, &x.input), Positions::Embedded, pass);
        let attended = attended.expect("what is kept of prompts is made of an encoder's states");
        let x = time(Part::Norm, || self.self_attn_layer_norm.normed(attended));
        self.feed_forward.forward(x, pass.dropout)
    }
}

impl PostNormFeedForward {
    pub(crate) fn forward(&self, x: Normed, dropout: f64) -> Normed {
        let x = self.layers.add_to(x.numbers, &x.input, dropout);
        time(Part::Norm, || self.final_layer_norm.normed(x))
    }
}
