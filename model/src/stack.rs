//! The interface between the crate and a family: embeddings, blocks, and the norm after them.

use std::{fmt::Debug, ops::Range};

use tch::{Kind, Tensor};

use crate::{Attention, linear::LinearInput};

/// A family's model between token ids and the head's input. `Send`, because models are loaded on the thread
/// that runs them.
pub(crate) trait Stack: Debug + Send {
    /// The embedding matrix, `[vocab, d]` in the compute kind.
    fn embedding(&self) -> &Tensor;

    /// Token embeddings. `tokens`: `[rows]` int64; result `[rows, d]` f32.
    fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(self.embedding(), tokens, -1, false, false).to_kind(Kind::Float)
    }

    /// How many blocks there are.
    fn num_blocks(&self) -> usize;

    /// The blocks of a pass, without the final norm. `x`: `[rows, d]` f32, at least one row, whose memory may
    /// be reused; result the same shape. None if the pass ends with the last block's keys and values.
    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Option<Tensor>;

    /// The final norm. `x`: `[rows, d]` f32; result: a head's input.
    fn final_norm(&self, x: &Tensor) -> LinearInput;
}

/// The inputs that all blocks of one pass share.
pub(crate) struct Pass<'a> {
    /// The blocks of the pass. A family's operations before its first block belong to that block.
    pub(crate) blocks: Range<usize>,
    /// `[rows]` int64, the place of each row in its own sequence, and the largest of them.
    pub(crate) positions: (&'a Tensor, i64),
    pub(crate) attention: &'a mut dyn Attention,
    /// Probability with which an element of a block's contribution is dropped, 0 outside training.
    pub(crate) dropout: f64,
}

impl Pass<'_> {
    /// The model's blocks that it takes, each with its index.
    pub(crate) fn of<'b, Block>(
        &self,
        blocks: &'b [Block],
    ) -> impl Iterator<Item = (usize, &'b Block)> + use<'b, Block> {
        blocks.iter().enumerate().skip(self.blocks.start).take(self.blocks.len())
    }
}
