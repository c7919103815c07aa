//! The cost of a bundle's models, computed from their shapes: parameters that take part, arithmetic per token
//! and per record, and the memory of the models that read.
//!
//! As usual, arithmetic counts the products of linear layers (2 FLOPs per weight) and of attention (4 FLOPs
//! per query channel and position seen). Norms, activations and embedding look-ups are left out. Sequences
//! are counted without padding. The list of a family's tensors tells the content of its blocks, so the same
//! code counts every family.

mod memory;
mod parameters;
#[cfg(test)]
mod tests;
mod token_flops;

use baton_job::Mode;
use serde::Serialize;

pub use self::{
    memory::{ModelMemory, WeightFormat, memory_of_decoder, memory_of_encoder, memory_of_encoder_part},
    parameters::block_weights,
    token_flops::TokenFlops,
};
use self::{
    parameters::{around_blocks, blocks, embedding, num_parameters, numel},
    token_flops::FLOPS_PER_WEIGHT,
};
use crate::{Bundle, BundleError, Fusion, ProjectorPart, PromptAttention, PromptSource};

/// The cost of generating, in any mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arithmetic {
    /// Parameters that take part: of the layers that are run, and the embedding matrix where tokens are
    /// embedded or predicted.
    pub parameters: u64,
    /// The stages that a prompt token passes, and the prompt tokens that it sees there.
    pub prompt: Vec<(TokenFlops, PromptAttention)>,
    /// The models that a generated token passes.
    pub generated: Vec<TokenFlops>,
}

impl Arithmetic {
    /// Both, one after the other. Parameters that both have are counted twice.
    fn add(&mut self, other: Arithmetic) {
        self.parameters += other.parameters;
        self.prompt.extend(other.prompt);
        self.generated.extend(other.generated);
    }

    /// FLOPs of one prompt token, attention aside.
    #[must_use]
    pub fn flops_per_prompt_token(&self) -> u64 {
        self.prompt.iter().map(|(flops, _)| flops.weights).sum()
    }

    /// FLOPs of one generated token, attention aside.
    #[must_use]
    pub fn flops_per_generated_token(&self) -> u64 {
        self.generated.iter().map(|flops| flops.weights).sum()
    }

    /// FLOPs of a whole record, attention included.
    #[must_use]
    pub fn flops_per_record(&self, prompt_tokens: u64, generated_tokens: u64) -> u64 {
        let read: u64 = self
            .prompt
            .iter()
            .map(|(flops, attention)| {
                let last_seen = |position| match attention {
                    PromptAttention::Bidirectional => prompt_tokens,
                    PromptAttention::Causal => position,
                };
                flops.of_tokens(1..=prompt_tokens, (last_seen, prompt_tokens))
            })
            .sum();
        let written = prompt_tokens + 1..=prompt_tokens + generated_tokens;
        let generated = self.generated.iter();
        read + generated
            .map(|flops| flops.of_tokens(written.clone(), (|position| position, prompt_tokens)))
            .sum::<u64>()
    }
}

/// The arithmetic of a mode of the bundle, assuming that prompts have as many tokens of both models. In mode
/// `verified` a generated token counts once in the SLM and once in the LLM: the minimum, when every draft is
/// right.
///
/// # Errors
/// The small model takes part, and the bundle has none.
pub fn arithmetic_of_mode(bundle: &Bundle, mode: Mode) -> Result<Arithmetic, BundleError> {
    match mode {
        Mode::Llm => return arithmetic_of_llm(bundle),
        Mode::Verified => {
            let mut arithmetic = arithmetic_of_mode(bundle, Mode::Hybrid)?;
            arithmetic.add(arithmetic_of_llm(bundle)?);
            return Ok(arithmetic);
        }
        Mode::Hybrid | Mode::Slm => {}
    }
    let (small_model, slm) = bundle.small_model()?;
    let d_slm = slm.hidden_size as u64;
    let reads_llm = mode == Mode::Hybrid;
    // The LLM's matrix embeds the prompt, and a map follows. A small model's own embedding counts among its
    // parameters.
    let embeds_by_llm = match small_model.prompts {
        PromptSource::LlmTokens { fusion, .. } => !reads_llm || fusion == Fusion::Add,
        PromptSource::OwnTokens { .. } => false,
    };

    let mut parameters = num_parameters(slm);
    let (mut between, mut num_layers) = (0, 0); // weights between LLM and SLM, and layers that have them
    let mut prompt = Vec::new();
    if embeds_by_llm || reads_llm {
        parameters += embedding(bundle.llm()?.1);
    }
    if embeds_by_llm {
        between += bundle.llm()?.1.hidden_size as u64 * d_slm;
        num_layers += 1;
    }
    if reads_llm {
        let (part, llm) = bundle.llm()?;
        for (_, fan_in) in small_model.projector().map(ProjectorPart::linear_layers).unwrap_or_default() {
            between += fan_in as u64 * d_slm;
            num_layers += 1;
        }
        parameters += blocks(llm, part.layers) + around_blocks(llm);
        prompt.push((TokenFlops::of_blocks(llm, part.layers), llm.prompt_attention()));
        if let Some(projector) = small_model.projector().filter(|projector| projector.blocks > 0) {
            parameters += projector.block_shapes().iter().map(|(_, shape)| numel(shape)).sum::<u64>();
            let flops = TokenFlops::of_blocks(&projector.block_config(), projector.blocks);
            prompt.push((flops, PromptAttention::Bidirectional));
        }
    }
    parameters += between + num_layers * d_slm; // with biases
    let mut prefill = TokenFlops::of_prefill(slm);
    prefill.weights += FLOPS_PER_WEIGHT * between;
    prompt.push((prefill, small_model.slm.prompt_attention));
    Ok(Arithmetic { parameters, prompt, generated: vec![TokenFlops::of_generating(slm)] })
}

/// The arithmetic of the bundle's LLM reading and writing alone, all its layers.
///
/// # Errors
/// The bundle has no LLM.
pub fn arithmetic_of_llm(bundle: &Bundle) -> Result<Arithmetic, BundleError> {
    let (_, llm) = bundle.llm()?;
    Ok(Arithmetic {
        parameters: num_parameters(llm),
        prompt: vec![(TokenFlops::of_prefill(llm), llm.prompt_attention())],
        generated: vec![TokenFlops::of_generating(llm)],
    })
}
