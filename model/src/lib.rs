//! The models, in libtorch: LLM and SLM families, projector and fusion, attention, the KV cache, losses.
//!
//! This crate is the only user of tch on the inference path. It knows tensors and bundles; it knows no
//! threads, sockets, shards or records. Batches are *packed*: the tokens of several sequences follow one
//! another in `[total_tokens, width]`, without padding, and [`PackedLayout`] has the start of each sequence.
//! Linear layers act on rows and attention on one sequence at a time, so a sequence's numbers do not depend
//! on its neighbours.
//!
//! Reference for the method: Bergner et al., "Think Big, Generate Quick", arXiv 2402.16844.

mod aligned_states;
mod attention;
mod attention_to_prompt;
mod batch_decoder;
mod cached_attention;
mod checkpoint;
mod compute;
mod embedded_positions;
mod encoder_decoder;
mod error;
mod experts;
mod families;
mod feed_forward;
mod flop_count;
mod kernels;
mod kv_cache;
mod language_model;
mod layer_source;
mod layer_states;
mod layers;
mod linear;
mod llm_weights;
mod loss;
mod low_rank;
mod matmul_rate;
mod memory;
mod padded_attention;
mod projector;
mod projector_blocks;
mod prompt_encoder;
mod random_weights;
mod reader_part;
mod relative_bias;
mod residual;
mod response_pass;
mod self_attention;
mod stack;
mod step_time;
mod transfer;
mod weight_count;

pub use aligned_states::AlignedRows;
pub use attention::{
    Attention, CrossAttention, Heads, PackedAttention, PackedLayout, PromptHeads, Visibility,
};
pub use batch_decoder::{BatchDecoder, PrefillRow, Prompt};
pub use checkpoint::{Checkpoint, TensorSource, write_safetensors};
pub use compute::{Compute, UnavailableDevice, WeightType};
pub use error::ModelError;
pub use flop_count::take_counted_flops;
pub use kernels::Scoring;
pub use kv_cache::{CACHE_BLOCK_TOKENS, CacheLimits, cache_num_bytes_per_token};
pub use language_model::{LanguageModel, ModelParts};
pub use layer_states::LayerStates;
pub use layers::{rms_norm, rms_scale};
pub use linear::Linear;
pub use llm_weights::LlmWeights;
pub use loss::response_cross_entropy;
pub use low_rank::LowRank;
pub use matmul_rate::matmul_operations_per_second;
pub use padded_attention::{PaddedAttention, PaddedCrossAttention};
pub use projector::{Projector, PromptEmbedding, fuse};
pub use prompt_encoder::{PromptEncoder, PromptStates};
pub use random_weights::RandomWeights;
pub use reader_part::{ReaderPart, num_layers_of_part};
pub use relative_bias::RelativeBias;
pub use response_pass::ResponsePass;
pub use step_time::{Part, take_part_times};
pub use weight_count::take_counted_weight_bytes;

/// Sets how many threads one libtorch operation may use, for the whole process. Call it before any other
/// operation.
pub fn set_num_threads(num_threads: usize) {
    tch::set_num_threads(num_threads.try_into().unwrap_or(i32::MAX));
}
