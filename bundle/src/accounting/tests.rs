//! Counts of known models.

use super::*;
use crate::{
    BlockNorms, DecoderConfig, ExpertsConfig, Family, FamilyConfig, GateActivation, Gpt2Config, ModelConfig,
    OutputRules, QueryKeyNorms, RotaryConfig, SlidingLayers, T5Config, T5FeedForward, WeightDtype,
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
        family: FamilyConfig::Decoder(DecoderConfig::llama(1e-5, 100_000.0)),
    }
}

/// Public checkpoints, with the number of parameters that transformers counts in each.
fn public_models() -> Vec<(ModelConfig, u64)> {
    let qwen2_0_5b = ModelConfig {
        hidden_size: 896,
        intermediate_size: 4864,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: 2,
        vocab_size: 151_936,
        family: FamilyConfig::Decoder(DecoderConfig::qwen2(1e-6, 1e6)),
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
        family: FamilyConfig::Decoder(DecoderConfig::qwen3(1e-6, 1e6)),
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
    vec![
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
    let constants = DecoderConfig {
        norms: BlockNorms::BeforeAndAfter,
        query_key_norms: QueryKeyNorms::EachHead,
        gate: GateActivation::GeluTanh,
        local_rotary: Some(RotaryConfig::plain(1e4)),
        sliding: Some(SlidingLayers { window: 512, layers }),
        ..DecoderConfig::plain(Family::Gemma3, 1e-6, RotaryConfig::plain(1e6))
    };
    ModelConfig {
        hidden_size: 640,
        intermediate_size: 2048,
        num_hidden_layers: 18,
        num_attention_heads: 4,
        num_key_value_heads: 1,
        head_dim: 256,
        vocab_size: 262_144,
        family: FamilyConfig::Decoder(constants),
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

#[test]
fn a_token_meets_only_the_experts_that_it_takes() {
    let experts = ExpertsConfig {
        num_experts: 16,
        per_token: 2,
        intermediate_size: 100,
        normalized: true,
        layers: (0..30).map(|layer| layer > 0).collect(),
    };
    let constants = DecoderConfig { experts: Some(experts), ..DecoderConfig::llama(1e-5, 1e4) };
    let config = ModelConfig { family: FamilyConfig::Decoder(constants), ..smollm2() };
    let attention = 576 * (2 * 9 + 2 * 3) * 64;
    let dense = 3 * 576 * 1536;
    let mixed = 576 * 16 + 2 * 3 * 576 * 100; // router, and two experts
    assert_eq!(TokenFlops::of_blocks(&config, 30).weights, 2 * (30 * attention + dense + 29 * mixed));
    let stored = 30 * (attention + 2 * 576) + dense + 29 * (576 * 16 + 16 * 3 * 576 * 100);
    assert_eq!(num_parameters(&config), stored + 49_152 * 576 + 576);
}
