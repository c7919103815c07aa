//! Qwen2 and Qwen2.5: Llama's block with biases on queries, keys and values, and a sliding window in some
//! blocks of some checkpoints.
//!
//! Reference: Yang et al., arXiv 2407.10671, and Hugging Face `Qwen2ForCausalLM`.

use baton_bundle::{ModelConfig, QwenConfig};

use super::llama::{Llama, LlamaVariant};
use crate::{ModelError, layer_source::LayerSource};

pub(crate) fn load(
    (config, constants): (&ModelConfig, &QwenConfig),
    source: &LayerSource<'_>,
    num_blocks: usize,
) -> Result<Llama, ModelError> {
    let QwenConfig { rms_norm_eps, rope_theta, .. } = *constants;
    let variant = LlamaVariant { rms_norm_eps, rope_theta, qkv_bias: true, head_norms: false };
    Llama::of_variant((config, variant), source, num_blocks)
}
