//! GPT-2.
//!
//! Pre-norm blocks with layer norms, learned positions, GELU, and a bias everywhere. Matrices are stored
//! transposed. Reference: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), and
//! Hugging Face `GPT2LMHeadModel`.

use std::ops::Range;

use baton_bundle::{Gpt2Config, ModelConfig};
use tch::Tensor;

use crate::{
    ModelError, Scoring,
    embedded_positions::LearnedPositions,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::LayerNorm,
    linear::LinearInput,
    self_attention::{Positions, SelfAttention, head_shape},
    stack::{Pass, Stack},
    step_time::{Part, time},
};

#[derive(Debug)]
pub(crate) struct Gpt2 {
    wte: Tensor,                   // [vocab, d]
    wpe: Option<LearnedPositions>, // where the first block is
    h: Vec<Block>,
    ln_f: LayerNorm,
}

#[derive(Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: FeedForward,
}

impl Gpt2 {
    pub(crate) fn load(
        (config, constants): (&ModelConfig, &Gpt2Config),
        source: &LayerSource<'_>,
        blocks: Range<usize>,
    ) -> Result<Self, ModelError> {
        let model = source.part("transformer");
        let (d, eps) = (config.hidden_size, constants.layer_norm_epsilon);
        let (wte, wpe) = match blocks.start {
            0 => {
                let table = model.embedding("wpe.weight", [config.max_position_embeddings, d])?;
                let wte = model.embedding("wte.weight", [config.vocab_size, d])?;
                (wte, Some(LearnedPositions::new(&table, 0)))
            }
            _ => (source.no_embedding(d), None),
        };
        Ok(Self {
            wte,
            wpe,
            h: blocks
                .map(|layer| Block::load(config, eps, &model.part("h").part(layer)))
                .collect::<Result<_, _>>()?,
            ln_f: model.layer_norm("ln_f", d, eps)?,
        })
    }
}

impl Block {
    fn load(config: &ModelConfig, eps: f64, block: &LayerSource<'_>) -> Result<Self, ModelError> {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let (attention, mlp) = (block.part("attn"), block.part("mlp"));
        Ok(Self {
            ln_1: block.layer_norm("ln_1", d, eps)?,
            attn: SelfAttention {
                shape: head_shape(config),
                scoring: Scoring::of_heads(config.head_dim),
                qkv_proj: attention.transposed_with_bias("c_attn", [d, 3 * d])?,
                head_norms: None,
                o_proj: attention.transposed_with_bias("c_proj", [d, d])?,
            },
            ln_2: block.layer_norm("ln_2", d, eps)?,
            mlp: FeedForward {
                input: FeedForwardInput::Plain(mlp.transposed_with_bias("c_fc", [d, ff])?),
                activation: Activation::GeluTanh,
                output: mlp.transposed_with_bias("c_proj", [ff, d])?,
            },
        })
    }

    /// `x`: `[rows, d]` f32. None if the pass ends with keys and values.
    fn forward(&self, x: Tensor, layer: usize, pass: &mut Pass<'_>) -> Option<Tensor> {
        let normed = time(Part::Norm, || self.ln_1.forward(&x));
        let x = self.attn.add_to(x, (layer, &normed), Positions::Unmarked, pass)?;
        let normed = time(Part::Norm, || self.ln_2.forward(&x));
        Some(self.mlp.add_to(x, &normed, pass.dropout))
    }
}

impl Stack for Gpt2 {
    fn embedding(&self) -> &Tensor {
        &self.wte
    }

    fn num_blocks(&self) -> usize {
        self.h.len()
    }

    /// # Panics
    /// A position is beyond the table's end. A bundle whose limits allow that does not open.
    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Option<Tensor> {
        let x = match &self.wpe {
            Some(wpe) if pass.blocks.start == 0 => time(Part::Embed, || wpe.add_to(x, pass.positions)),
            _ => x,
        };
        pass.of(&self.h).try_fold(x, |x, (layer, block)| block.forward(x, layer, pass))
    }

    fn final_norm(&self, x: &Tensor) -> LinearInput {
        self.ln_f.forward(x)
    }
}
