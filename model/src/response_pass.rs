//! The pass of training: prompts and the responses to them at once, to the logits that predict the responses.
//!
//! A decoder-only model sees each prompt and its response as one sequence; with an encoder they are two.
//! Callers need not know.

use baton_bundle::PromptAttention;
use tch::Tensor;

use crate::{Compute, LanguageModel, PackedLayout, PaddedAttention, PaddedCrossAttention, Visibility};

/// The sequences of a training pass, and how they are processed.
#[derive(Debug, Clone, Copy)]
pub struct ResponsePass<'a> {
    /// The sequences: of each, its prompt and its response, the begin token included.
    pub layout: &'a PackedLayout,
    /// Which prompt positions a prompt position sees. An encoder's positions see all, in any case.
    pub prompt_attention: PromptAttention,
    /// Probability with which an element of an embedding or of a block's contribution is dropped.
    pub dropout: f64,
}

impl LanguageModel {
    /// Logits after each response token, with gradients. `prompt_states`: the model's input for the prompts,
    /// `[prompt tokens, d]` f32; `response_inputs`: the begin token and the response's, `[response tokens]`
    /// int64; both in the order of the layout's sequences. Result: `[response tokens, vocab]` in the compute
    /// kind.
    ///
    /// # Panics
    /// There are more or fewer rows than the layout says, or the model was loaded without `lm_head`.
    pub fn response_logits(
        &self,
        prompt_states: Tensor,
        response_inputs: &Tensor,
        pass: ResponsePass<'_>,
    ) -> Tensor {
        let ResponsePass { layout, prompt_attention, dropout } = pass;
        let Compute { kind, device, .. } = self.compute();
        let like = (kind, device);
        let responses = self.embed_written(response_inputs);
        if self.config().encoder_decoder().is_some() {
            let dropped = |x: Tensor| x.dropout(dropout, dropout > 0.0);
            let prompts = layout.prompts_only();
            let mut attention = PaddedAttention::new(&prompts, Visibility::Bidirectional, like);
            let states = self.encode(dropped(prompt_states), &prompts.positions(), &mut attention, dropout);
            let keys_and_values = self.prompt_keys_and_values(&states);
            let mut attention = PaddedCrossAttention::new(layout, keys_and_values, like);
            let positions = layout.responses_only().positions();
            return self.logits(&self.decode(dropped(responses), &positions, &mut attention, dropout));
        }
        let visibility = match prompt_attention {
            PromptAttention::Bidirectional => Visibility::PrefixLm,
            PromptAttention::Causal => Visibility::Causal,
        };
        let Interleaved { sources, response_rows } = Interleaved::of(layout);
        let x = Tensor::cat(&[prompt_states, responses], 0)
            .index_select(0, &Tensor::from_slice(&sources).to_device(device))
            .dropout(dropout, dropout > 0.0);
        let mut attention = PaddedAttention::new(layout, visibility, like);
        let x = self.forward(x, &layout.positions(), &mut attention, dropout);
        self.logits(&x.index_select(0, &Tensor::from_slice(&response_rows).to_device(device)))
    }
}

/// Prompts and responses, each prompt followed by its response.
#[derive(Debug, PartialEq, Eq)]
struct Interleaved {
    /// For each row, its row in [all prompts; all responses].
    sources: Vec<i64>,
    /// Rows of response tokens, in order.
    response_rows: Vec<i64>,
}

impl Interleaved {
    fn of(layout: &PackedLayout) -> Self {
        let (mut sources, mut response_rows) = (Vec::new(), Vec::new());
        let mut next_prompt = 0;
        let mut next_response: i64 = layout.sequences.iter().map(|span| span.prompt_len).sum();
        for span in &layout.sequences {
            sources.extend(next_prompt..next_prompt + span.prompt_len);
            next_prompt += span.prompt_len;
            let first_row = sources.len() as i64;
            response_rows.extend(first_row..first_row + span.response_len);
            sources.extend(next_response..next_response + span.response_len);
            next_response += span.response_len;
        }
        Self { sources, response_rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prompt_is_followed_by_its_response() {
        let layout = PackedLayout::prompts_and_responses([(2, 1), (0, 2), (1, 1)]);
        let expected = Interleaved { sources: vec![0, 1, 3, 4, 5, 2, 6], response_rows: vec![2, 3, 4, 6] };
        assert_eq!(Interleaved::of(&layout), expected);
    }
}
