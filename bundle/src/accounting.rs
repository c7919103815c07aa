//! What a bundle's models cost, computed from their shapes: parameters that take part, and arithmetic per token and per record.
//!
//! Counted are the products of linear layers (2 FLOPs for each weight) and of attention (4 FLOPs for each query channel and position
//! seen), as is usual; norms, activations and embedding look-ups are left out. Sequences are counted without padding.

use serde::Serialize;

use crate::{Bundle, Fusion, GenerationMode, LlamaConfig, PromptAttention};

const FLOPS_PER_WEIGHT: u64 = 2;
const FLOPS_PER_CHANNEL_AND_POSITION: u64 = 4;

/// The arithmetic of one token's way through some layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TokenFlops {
    /// Products with weights.
    pub weights: u64,
    /// Attention, for each position that the token sees.
    pub per_position_seen: u64,
}

impl TokenFlops {
    /// A token's way through the first `layers` blocks of a model.
    #[must_use]
    pub fn of_blocks(config: &LlamaConfig, layers: usize) -> Self {
        let query_channels = (config.num_attention_heads * config.head_dim) as u64;
        Self {
            weights: layers as u64 * FLOPS_PER_WEIGHT * block_weights(config),
            per_position_seen: layers as u64 * FLOPS_PER_CHANNEL_AND_POSITION * query_channels,
        }
    }

    /// A generated token's way through a model: all blocks and the head.
    #[must_use]
    pub fn of_generating(config: &LlamaConfig) -> Self {
        let mut flops = Self::of_blocks(config, config.num_hidden_layers);
        flops.weights += FLOPS_PER_WEIGHT * embedding(config);
        flops
    }
}

/// What generating costs, whoever reads and writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arithmetic {
    /// Parameters that take part: of the layers that are run, and the embedding matrix where tokens are embedded or predicted.
    pub parameters: u64,
    /// What a prompt token passes, stage by stage, and which prompt tokens it sees there.
    pub prompt: Vec<(TokenFlops, PromptAttention)>,
    /// What a generated token passes.
    pub generated: TokenFlops,
}

impl Arithmetic {
    /// FLOPs of one prompt token, attention aside.
    #[must_use]
    pub fn flops_per_prompt_token(&self) -> u64 {
        self.prompt.iter().map(|(flops, _)| flops.weights).sum()
    }

    /// FLOPs of one generated token, attention aside.
    #[must_use]
    pub fn flops_per_generated_token(&self) -> u64 {
        self.generated.weights
    }

    /// FLOPs of a whole record, attention included.
    #[must_use]
    pub fn flops_per_record(&self, prompt_tokens: u64, generated_tokens: u64) -> u64 {
        let up_to = |n: u64| n * (n + 1) / 2;
        let read: u64 = self
            .prompt
            .iter()
            .map(|(flops, attention)| {
                let positions_seen = match attention {
                    PromptAttention::Bidirectional => prompt_tokens * prompt_tokens,
                    PromptAttention::Causal => up_to(prompt_tokens),
                };
                flops.weights * prompt_tokens + flops.per_position_seen * positions_seen
            })
            .sum();
        let positions_seen = prompt_tokens * generated_tokens + up_to(generated_tokens);
        read + self.generated.weights * generated_tokens + self.generated.per_position_seen * positions_seen
    }
}

/// The arithmetic of a mode of the bundle.
#[must_use]
pub fn arithmetic_of_mode(bundle: &Bundle, mode: GenerationMode) -> Arithmetic {
    let manifest = bundle.manifest();
    let (llm, slm) = (bundle.llm_config(), bundle.slm_config());
    let (d_llm, d_slm) = (manifest.projector.d_llm as u64, manifest.projector.d_slm as u64);
    let linear = |input: u64, output: u64| (input + 1) * output; // with bias
    let reads_llm = mode == GenerationMode::Hybrid;
    let embeds_prompt = !reads_llm || manifest.fusion == Fusion::Add;

    let mut parameters = num_parameters(slm, slm.num_hidden_layers) + embedding(llm);
    let mut between = 0; // weights between LLM and SLM
    if embeds_prompt {
        between += linear(d_llm, d_slm);
    }
    let mut prompt = Vec::new();
    if reads_llm {
        between += linear(d_llm, d_slm) + linear(d_slm, d_slm);
        parameters += blocks(llm, manifest.llm.layers);
        prompt.push((TokenFlops::of_blocks(llm, manifest.llm.layers), PromptAttention::Causal));
    }
    parameters += between;
    let mut prefill = TokenFlops::of_blocks(slm, slm.num_hidden_layers);
    prefill.weights += FLOPS_PER_WEIGHT * between;
    prompt.push((prefill, manifest.slm.prompt_attention));
    Arithmetic { parameters, prompt, generated: TokenFlops::of_generating(slm) }
}

/// The arithmetic of the bundle's LLM reading and writing alone, all its layers.
#[must_use]
pub fn arithmetic_of_llm(bundle: &Bundle) -> Arithmetic {
    let llm = bundle.llm_config();
    Arithmetic {
        parameters: num_parameters(llm, llm.num_hidden_layers),
        prompt: vec![(TokenFlops::of_blocks(llm, llm.num_hidden_layers), PromptAttention::Causal)],
        generated: TokenFlops::of_generating(llm),
    }
}

fn embedding(config: &LlamaConfig) -> u64 {
    (config.vocab_size * config.hidden_size) as u64
}

fn num_parameters(config: &LlamaConfig, layers: usize) -> u64 {
    let matrices = if config.tie_word_embeddings { 1 } else { 2 };
    matrices * embedding(config) + blocks(config, layers) + config.hidden_size as u64
}

/// Parameters of the first `layers` blocks, norms included.
fn blocks(config: &LlamaConfig, layers: usize) -> u64 {
    layers as u64 * (block_weights(config) + 2 * config.hidden_size as u64)
}

/// Weights of the linear layers of one block.
fn block_weights(config: &LlamaConfig) -> u64 {
    let query_rows = config.num_attention_heads * config.head_dim;
    let kv_rows = config.num_key_value_heads * config.head_dim;
    (config.hidden_size * (2 * query_rows + 2 * kv_rows + 3 * config.intermediate_size)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightDtype;

    /// SmolLM2-135M.
    fn smollm2() -> LlamaConfig {
        LlamaConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            vocab_size: 49152,
            max_position_embeddings: 8192,
            rms_norm_eps: 1e-5,
            rope_theta: 100_000.0,
            tie_word_embeddings: true,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            dtype: WeightDtype::Bf16,
        }
    }

    #[test]
    fn the_parameters_of_a_known_model_are_those_that_its_makers_state() {
        let config = smollm2();
        assert_eq!(num_parameters(&config, config.num_hidden_layers), 134_515_008);
        let listed: usize =
            config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(num_parameters(&config, config.num_hidden_layers), listed as u64);
    }

    #[test]
    fn a_generated_token_costs_two_flops_for_each_weight_it_meets() {
        let config = smollm2();
        let norms = (2 * config.num_hidden_layers as u64 + 1) * config.hidden_size as u64;
        let weights = num_parameters(&config, config.num_hidden_layers) - norms;
        assert_eq!(TokenFlops::of_generating(&config).weights, 2 * weights);
    }

    #[test]
    fn attention_grows_with_what_is_seen() {
        let flops = TokenFlops { weights: 0, per_position_seen: 1 };
        let arithmetic = |attention| Arithmetic {
            parameters: 0,
            prompt: vec![(flops, attention)],
            generated: TokenFlops { weights: 0, per_position_seen: 10 },
        };
        // Three prompt tokens see 9 or 1 + 2 + 3 positions; two generated ones see 4 + 5.
        assert_eq!(arithmetic(PromptAttention::Bidirectional).flops_per_record(3, 2), 9 + 90);
        assert_eq!(arithmetic(PromptAttention::Causal).flops_per_record(3, 2), 6 + 90);
    }
}
