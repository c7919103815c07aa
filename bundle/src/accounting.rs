//! The cost of a bundle's models, computed from their shapes: parameters that take part, and arithmetic per
//! token and per record.
//!
//! As usual, this counts the products of linear layers (2 FLOPs per weight) and of attention (4 FLOPs per
//! query channel and position seen). Norms, activations and embedding look-ups are left out. Sequences are
//! counted without padding. The list of a family's tensors tells the content of its blocks, so the same code
//! counts every family.

use baton_job::Mode;
use serde::Serialize;

use crate::{
    Bundle, BundleError, DecoderPast, Fusion, ModelConfig, NamedShape, ProjectorPart, PromptAttention,
    PromptSource,
};

const FLOPS_PER_WEIGHT: u64 = 2;
const FLOPS_PER_CHANNEL_AND_POSITION: u64 = 4;

/// The arithmetic of one token's way through some layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TokenFlops {
    /// Products with weights.
    pub weights: u64,
    /// Attention, for each position that the token sees, in layers that see everything.
    pub per_position_seen: u64,
    /// Attention, for each position of the prompt, in a decoder that does not attend to its own output.
    #[serde(skip_serializing_if = "is_zero")]
    pub per_prompt_position: u64,
    /// Attention, for each position that the token sees, in layers with a sliding window.
    pub per_position_in_window: u64,
    /// Positions that such a layer sees at most; 0 if there is no such layer.
    pub window: u64,
}

impl TokenFlops {
    /// A token's way through the first `layers` blocks that read: of an encoder, where the model has one.
    #[must_use]
    pub fn of_blocks(config: &ModelConfig, layers: usize) -> Self {
        let per_position = attention_per_position(config);
        let windows: Vec<usize> = (0..layers).filter_map(|layer| config.window(layer)).collect();
        Self {
            weights: FLOPS_PER_WEIGHT * products(config.tensor_layout().blocks.iter().take(layers).flatten()),
            per_position_seen: (layers - windows.len()) as u64 * per_position,
            per_prompt_position: 0,
            per_position_in_window: windows.len() as u64 * per_position,
            window: windows.first().map_or(0, |&window| window as u64), // a model has one size of window
        }
    }

    /// A prompt token's way into the cache of a writing model: the last block counts only with its keys and
    /// values. An encoder-decoder counts with all blocks that read, and with the keys and values that the
    /// decoder keeps.
    #[must_use]
    pub fn of_prefill(config: &ModelConfig) -> Self {
        let layout = config.tensor_layout();
        let (blocks, kept): (usize, Vec<&NamedShape>) = match (config.encoder_decoder(), layout.blocks.last())
        {
            (None, Some(last)) => {
                (layout.blocks.len() - 1, last.iter().filter(is_before_attention).collect())
            }
            _ => {
                let kept = layout.decoder_blocks.iter().flatten().filter(is_read_of_prompt);
                (layout.blocks.len(), kept.collect())
            }
        };
        let mut flops = Self::of_blocks(config, blocks);
        flops.weights += FLOPS_PER_WEIGHT * products(kept.into_iter());
        flops
    }

    /// A generated token's way through a model: all blocks that write, and the head. After an encoder, the
    /// token sees the prompt in one attention and the output in another. Together these are as many positions
    /// as in one sequence.
    #[must_use]
    pub fn of_generating(config: &ModelConfig) -> Self {
        let mut flops = match config.encoder_decoder() {
            None => Self::of_blocks(config, config.num_hidden_layers),
            Some(shape) => {
                let layout = config.tensor_layout();
                let read = layout.decoder_blocks.iter().flatten().filter(|tensor| !is_read_of_prompt(tensor));
                let attends = shape.past == DecoderPast::Attention;
                let per_position = shape.num_decoder_layers as u64 * attention_per_position(config);
                Self {
                    weights: FLOPS_PER_WEIGHT * products(read),
                    per_position_seen: if attends { per_position } else { 0 },
                    per_prompt_position: if attends { 0 } else { per_position },
                    ..Self::default()
                }
            }
        };
        flops.weights += FLOPS_PER_WEIGHT * embedding(config);
        flops
    }

    /// FLOPs of tokens at these positions, counted from 1. Each sees the positions up to
    /// `last_seen(position)`.
    fn of_tokens(
        &self,
        positions: impl Iterator<Item = u64>,
        (last_seen, prompt_tokens): (impl Fn(u64) -> u64, u64),
    ) -> u64 {
        let of_prompt = self.per_prompt_position * prompt_tokens;
        positions
            .map(|position| {
                let seen = last_seen(position);
                // A window reaches both ways.
                let last_in_window = seen.min((position + self.window).saturating_sub(1));
                let in_window = last_in_window.saturating_sub(position.saturating_sub(self.window));
                self.weights
                    + of_prompt
                    + self.per_position_seen * seen
                    + self.per_position_in_window * in_window
            })
            .sum()
    }
}

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

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn embedding(config: &ModelConfig) -> u64 {
    (config.vocab_size * config.hidden_size) as u64
}

fn num_parameters(config: &ModelConfig) -> u64 {
    config.tensor_shapes().iter().map(|(_, shape)| numel(shape)).sum()
}

/// Parameters of the table of positions, if a family has one, and of an encoder's final norm.
fn around_blocks(config: &ModelConfig) -> u64 {
    let layout = config.tensor_layout();
    layout.before.iter().skip(1).chain(&layout.between).map(|(_, shape)| numel(shape)).sum()
}

/// Parameters of the first `layers` blocks that read, norms included.
fn blocks(config: &ModelConfig, layers: usize) -> u64 {
    let layout = config.tensor_layout();
    layout.blocks.iter().take(layers).flatten().map(|(_, shape)| numel(shape)).sum()
}

/// Weights of the linear layers among some tensors: the matrices, but for a table that is looked up.
fn products<'a>(tensors: impl Iterator<Item = &'a NamedShape>) -> u64 {
    tensors
        .filter(|(name, shape)| shape.len() == 2 && !name.ends_with("relative_attention_bias.weight"))
        .map(|(_, shape)| numel(shape))
        .sum()
}

/// Whether a decoder multiplies this once with each prompt token, not with each token that it writes: keys
/// and values of cross-attention.
fn is_read_of_prompt((name, _): &&NamedShape) -> bool {
    const SUFFIXES: [&str; 4] = [
        "EncDecAttention.k.weight",
        "EncDecAttention.v.weight",
        "encoder_attn.k_proj.weight",
        "encoder_attn.v_proj.weight",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a block multiplies this with its input to get queries, keys and values.
fn is_before_attention((name, _): &&NamedShape) -> bool {
    ["q_proj.weight", "k_proj.weight", "v_proj.weight", "c_attn.weight"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// FLOPs of one layer's attention for each position that a token sees.
fn attention_per_position(config: &ModelConfig) -> u64 {
    FLOPS_PER_CHANNEL_AND_POSITION * (config.num_attention_heads * config.head_dim) as u64
}

fn numel(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FamilyConfig, Gemma3Config, Gpt2Config, LlamaConfig, OutputRules, QwenConfig, SlidingLayers,
        T5Config, T5FeedForward, WeightDtype,
    };

    /// SmolLM2-135M.
    fn smollm2() -> ModelConfig {
        ModelConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            vocab_size: 49152,
            max_position_embeddings: 8192,
            tie_word_embeddings: true,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            output_rules: OutputRules::default(),
            dtype: WeightDtype::Bf16,
            family: FamilyConfig::Llama(LlamaConfig { rms_norm_eps: 1e-5, rope_theta: 100_000.0 }),
        }
    }

    /// Public checkpoints, with the number of parameters that transformers counts in each.
    fn public_models() -> [(ModelConfig, u64); 8] {
        let qwen = || QwenConfig { rms_norm_eps: 1e-6, rope_theta: 1e6, sliding: None };
        let qwen2_0_5b = ModelConfig {
            hidden_size: 896,
            intermediate_size: 4864,
            num_hidden_layers: 24,
            num_attention_heads: 14,
            num_key_value_heads: 2,
            vocab_size: 151_936,
            family: FamilyConfig::Qwen2(qwen()),
            ..smollm2()
        };
        let qwen3_0_6b = ModelConfig {
            hidden_size: 1024,
            intermediate_size: 3072,
            num_hidden_layers: 28,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            head_dim: 128,
            vocab_size: 151_936,
            family: FamilyConfig::Qwen3(qwen()),
            ..smollm2()
        };
        let gpt2 = ModelConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_key_value_heads: 12,
            vocab_size: 50_257,
            max_position_embeddings: 1024,
            family: FamilyConfig::Gpt2(Gpt2Config { layer_norm_epsilon: 1e-5 }),
            ..smollm2()
        };
        [
            (smollm2(), 134_515_008),
            (qwen2_0_5b, 494_032_768),
            (qwen3_0_6b, 596_049_920),
            (gemma3_270m(), 268_098_176),
            (gpt2, 124_439_808),
            (t5_small(), 60_506_624),
            (flan_t5_small(32_128), 76_961_152),
            (flan_t5_small(250_112), 300_176_768), // mT5-small
        ]
    }

    fn t5(num_layers: usize, feed_forward_proj: T5FeedForward) -> T5Config {
        T5Config {
            num_decoder_layers: num_layers,
            layer_norm_epsilon: 1e-6,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            feed_forward_proj,
            scale_decoder_outputs: feed_forward_proj == T5FeedForward::Relu,
        }
    }

    fn t5_small() -> ModelConfig {
        ModelConfig {
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 6,
            num_attention_heads: 8,
            num_key_value_heads: 8,
            vocab_size: 32_128,
            family: FamilyConfig::T5(t5(6, T5FeedForward::Relu)),
            ..smollm2()
        }
    }

    fn flan_t5_small(vocab_size: usize) -> ModelConfig {
        ModelConfig {
            intermediate_size: 1024,
            num_hidden_layers: 8,
            num_attention_heads: 6,
            num_key_value_heads: 6,
            vocab_size,
            tie_word_embeddings: false,
            family: FamilyConfig::T5(t5(8, T5FeedForward::GatedGelu)),
            ..t5_small()
        }
    }

    fn gemma3_270m() -> ModelConfig {
        let layers: Vec<bool> = (0..18).map(|layer| layer % 6 != 5).collect();
        let constants = Gemma3Config {
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            rope_local_base_freq: 1e4,
            query_pre_attn_scalar: 256.0,
            sliding: Some(SlidingLayers { window: 512, layers }),
        };
        ModelConfig {
            hidden_size: 640,
            intermediate_size: 2048,
            num_hidden_layers: 18,
            num_attention_heads: 4,
            num_key_value_heads: 1,
            head_dim: 256,
            vocab_size: 262_144,
            family: FamilyConfig::Gemma3(constants),
            ..smollm2()
        }
    }

    #[test]
    fn the_parameters_of_a_known_model_are_those_that_its_makers_state() {
        for (config, parameters) in public_models() {
            assert_eq!(num_parameters(&config), parameters, "{:?}", config.family);
            let listed: u64 = config.tensor_shapes().iter().map(|(_, shape)| numel(shape)).sum();
            assert_eq!(listed, parameters, "{:?}", config.family);
        }
    }

    #[test]
    fn a_generated_token_costs_two_flops_for_each_weight_it_meets() {
        let decoder_only = |(config, _): &(ModelConfig, u64)| config.encoder_decoder().is_none();
        for (config, parameters) in public_models().into_iter().filter(decoder_only) {
            let vectors: u64 = config
                .tensor_shapes()
                .iter()
                // These weights are added, not multiplied with.
                .filter(|(name, shape)| shape.len() == 1 || name.ends_with("wpe.weight"))
                .map(|(_, shape)| numel(shape))
                .sum();
            let weights = parameters - vectors;
            assert_eq!(TokenFlops::of_generating(&config).weights, 2 * weights, "{:?}", config.family);
        }
    }

    #[test]
    fn an_encoder_costs_prompt_tokens_and_a_decoder_written_ones() {
        let config = t5_small();
        let (attention, feed_forward, layers) = (4 * 512 * 512, 2 * 512 * 2048, 6);
        let encoder = TokenFlops::of_blocks(&config, layers as usize);
        assert_eq!(encoder.weights, 2 * layers * (attention + feed_forward));
        let prefill = TokenFlops::of_prefill(&config);
        // The keys and values of cross-attention.
        assert_eq!(prefill.weights - encoder.weights, 2 * layers * attention / 2);
        let generating = TokenFlops::of_generating(&config);
        let head = 32_128 * 512;
        assert_eq!(generating.weights, 2 * (layers * (attention + attention / 2 + feed_forward) + head));
        assert_eq!(generating.per_position_seen, layers * 4 * 512);
    }

    #[test]
    fn attention_cost_grows_with_the_visible_tokens() {
        let flops = TokenFlops { per_position_seen: 1, ..TokenFlops::default() };
        let arithmetic = |attention| Arithmetic {
            parameters: 0,
            prompt: vec![(flops, attention)],
            generated: vec![TokenFlops { per_position_seen: 10, ..TokenFlops::default() }],
        };
        // Three prompt tokens see 9 or 1 + 2 + 3 positions; two generated ones see 4 + 5.
        assert_eq!(arithmetic(PromptAttention::Bidirectional).flops_per_record(3, 2), 9 + 90);
        assert_eq!(arithmetic(PromptAttention::Causal).flops_per_record(3, 2), 6 + 90);
    }

    #[test]
    fn a_sliding_layer_costs_no_more_than_its_window() {
        let config = gemma3_270m();
        let flops = TokenFlops::of_blocks(&config, 18);
        let per_layer = 4 * 4 * 256;
        assert_eq!((flops.per_position_seen, flops.per_position_in_window), (3 * per_layer, 15 * per_layer));
        let arithmetic = Arithmetic { parameters: 0, prompt: Vec::new(), generated: vec![flops] };
        let token = |position: u64| arithmetic.flops_per_record(position - 1, 1) - flops.weights;
        assert_eq!(token(512), 18 * 512 * per_layer);
        assert_eq!(token(2000), (3 * 2000 + 15 * 512) * per_layer);
    }
}
