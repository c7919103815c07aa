//! The blocks of a projector, if it has some: all LLM states of a prompt see each other in them, in both
//! directions (`baton_bundle::ProjectorPart`).

use baton_bundle::ProjectorPart;
use tch::Tensor;

use crate::{
    Attention, Compute, ModelError, PackedAttention, PackedLayout, PaddedAttention, TensorSource, Visibility,
    families::decoder::{Decoder, load_blocks},
    layer_source::LayerSource,
    linear::LinearInput,
    stack::{Pass, Stack as _},
    transfer::upload,
};

#[derive(Debug)]
pub(crate) struct ProjectorBlocks {
    stack: Decoder,
    compute: Compute,
}

impl ProjectorBlocks {
    /// Builds from tensors named as [`ProjectorPart::block_shapes`]; `None` if there is no block.
    pub(crate) fn load(
        source: &dyn TensorSource,
        part: &ProjectorPart,
        compute: Compute,
    ) -> Result<Option<Self>, ModelError> {
        let config = part.block_config();
        let constants = config.decoder().expect("its blocks are a Llama's");
        let source = LayerSource::new(source, compute).part("projector");
        let load =
            || Ok(Self { stack: load_blocks((&config, constants), &source, 0..part.blocks)?, compute });
        (part.blocks > 0).then(load).transpose()
    }

    /// `x`: `[rows, d_slm]` f32, whose memory may be reused; `layout`: the rows of each prompt. Result: the
    /// last layer's input.
    pub(crate) fn forward(&self, x: Tensor, layout: &PackedLayout) -> LinearInput {
        if x.size()[0] == 0 {
            return self.stack.final_norm(&x);
        }
        let like = (self.compute.kind, self.compute.device);
        let mut attention: Box<dyn Attention> = match x.requires_grad() {
            true => Box::new(PaddedAttention::new(layout, Visibility::Bidirectional, like)),
            false => Box::new(PackedAttention::new(layout, Visibility::Bidirectional, like)),
        };
        let positions = layout.positions();
        let largest = positions.max().int64_value(&[]);
        let positions = upload(positions, self.compute.device);
        let mut pass = Pass {
            blocks: 0..self.stack.num_blocks(),
            positions: (&positions, largest),
            attention: attention.as_mut(),
            dropout: 0.0,
        };
        let x = self.stack.forward(x, &mut pass).expect("neither kind of attention ends a pass");
        self.stack.final_norm(&x)
    }
}
