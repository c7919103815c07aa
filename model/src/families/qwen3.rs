//! Qwen3: Llama's block with a norm on each query and key head, and a sliding window in some blocks of some
//! checkpoints.
//!
//! Reference: Yang et al., arXiv 2505.09388, and Hugging Face `Qwen3ForCausalLM`.

use baton_bundle::{ModelConfig, QwenConfig};

use super::llama::{Llama, LlamaVariant};
use crate::{ModelError, layer_source::LayerSource};

pub(crate) fn load(
    (config, constants): (&ModelConfig, &QwenConfig),
    source: &LayerSource<'_>,
    num_blocks: usize,
) -> Result<Llama, ModelError> {
    let QwenConfig { rms_norm_eps, rope_theta, .. } = *constants;
    let variant = LlamaVariant { rms_norm_eps, rope_theta, qkv_bias: false, head_norms: true };
    Llama::of_variant((config, variant), source, num_blocks)
}
