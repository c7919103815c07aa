//! The interface between the crate and a family that reads with an encoder and writes with a decoder.

use std::fmt::Debug;

use tch::{Kind, Tensor};

use crate::{CrossAttention, Linear, linear::LinearInput, stack::Pass};

/// A family's model between token ids and the head's input. `Send`, because models are loaded on the thread
/// that runs them.
pub(crate) trait EncoderDecoder: Debug + Send {
    /// The embedding matrix of prompts and outputs, `[vocab, d]` in the compute kind.
    fn embedding(&self) -> &Tensor;

    /// Embeddings of a prompt's tokens. `tokens`: `[rows]` int64; result `[rows, d]` f32.
    fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(self.embedding(), tokens, -1, false, false).to_kind(Kind::Float)
    }

    /// Embeddings of the output, including the begin token.
    fn embed_written(&self, tokens: &Tensor) -> Tensor {
        self.embed(tokens)
    }

    /// How many blocks the encoder has.
    fn num_encoder_blocks(&self) -> usize;

    /// Number of the decoder's blocks; none if it was not loaded.
    fn num_decoder_blocks(&self) -> usize;

    /// The encoder's last hidden states, after its final norm. `x`: `[rows, d]` f32, at least one row, whose
    /// memory may be reused; result the same shape, f32.
    fn encode(&self, x: Tensor, pass: &mut Pass<'_>) -> Tensor;

    /// The keys and values that each block of the decoder keeps of encoded prompts, `[rows, heads, head_dim]`
    /// in the compute kind. `states`: `[rows, d]` f32.
    fn prompt_keys_and_values(&self, states: &Tensor) -> Vec<[Tensor; 2]>;

    /// All blocks of the decoder, without a final norm. `x`: `[rows, d]` f32, at least one row, whose memory
    /// may be reused; `positions`: as in [`Pass`]; result the same shape.
    fn decode(
        &self,
        x: Tensor,
        attention: &mut dyn CrossAttention,
        positions: (&Tensor, i64),
        dropout: f64,
    ) -> Tensor;

    /// The head's input. `x`: `[rows, d]` f32.
    fn head_input(&self, x: &Tensor, head: &Linear) -> LinearInput;
}
