//! The memory that the accounting computes from shapes, against the bytes that loading counts.

use baton_bundle::{DecoderConfig, FamilyConfig, ModelConfig, ModelMemory};
use baton_model::{Compute, LanguageModel, ModelParts, RandomWeights, take_counted_weight_bytes};

use crate::{config, is_encoder_decoder};

/// A fixture's family in widths that no format fills up. Layer norms and tables of T5 are left out.
fn wide(fixture: &str) -> ModelConfig {
    let mut config = config(fixture);
    let heads = config.num_attention_heads;
    if let FamilyConfig::Decoder(DecoderConfig { experts: Some(experts), .. }) = &mut config.family {
        experts.intermediate_size = 64;
    }
    ModelConfig {
        hidden_size: 64 * heads,
        intermediate_size: 256,
        head_dim: 64,
        vocab_size: 320,
        tie_word_embeddings: true,
        ..config
    }
    .checked()
    .unwrap()
}

#[test]
fn weights_take_the_memory_that_their_shapes_say() {
    let _guard = tch::no_grad_guard();
    for fixture in [
        "llama-untied",
        "qwen2-tied",
        "qwen3-untied",
        "qwen3-moe",
        "gemma2",
        "gemma3-tied",
        "phi3-sliding",
        "olmo2",
        "granite",
        "smollm3",
    ] {
        assert!(!is_encoder_decoder(fixture));
        let config = wide(fixture);
        for compute in [Compute::CPU_F32, Compute::CPU_BF16, Compute::CPU_INT8] {
            for blocks in [0, 2, config.num_hidden_layers] {
                let planned = ModelMemory::of_reader(&config, blocks, compute.weight_format()).weights;
                let parts = ModelParts { blocks, lm_head: false };
                let _ = take_counted_weight_bytes();
                let model = LanguageModel::load(&config, &RandomWeights { seed: 1 }, parts, compute).unwrap();
                let counted = take_counted_weight_bytes();
                assert_eq!(model.num_blocks(), blocks);
                if blocks > 1 {
                    let part = |range| ModelMemory::of_reader_part(&config, range, compute.weight_format());
                    let (first, last) = (part(0..1), part(1..blocks));
                    let last_counted = {
                        let weights = RandomWeights { seed: 1 };
                        let last = LanguageModel::load_blocks(&config, &weights, 1..blocks, compute).unwrap();
                        assert_eq!(last.num_blocks(), blocks - 1);
                        take_counted_weight_bytes()
                    };
                    assert!(last.weights <= last_counted && last_counted <= last.weights + counted / 50);
                    assert!(
                        first.weights + last.weights >= planned,
                        "the norm after the blocks counts twice"
                    );
                }
                // An expert's router has fewer outputs than float products are padded to.
                let padding = if fixture == "qwen3-moe" { counted / 50 } else { 0 };
                assert!(
                    planned <= counted && counted <= planned + padding,
                    "{fixture} {compute:?}, {blocks} blocks: {planned} planned, {counted} counted"
                );
            }
        }
    }
}
