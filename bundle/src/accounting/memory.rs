//! The memory of a bundle's models, computed from their shapes before any weight is read.
//!
//! Weights are counted as they lie in memory: matrices in the weights' format, norms in f32, embeddings in
//! the format of activations. The activations of a token are those of the widest moment of a block, with each
//! intermediate result that is alive then. Kernels' own buffers and the libraries are not counted; they take
//! some tens of MiB.

use std::ops::Range;

use baton_job::Mode;
use serde::Serialize;

use super::parameters::numel;
use crate::{Bundle, BundleError, ModelConfig, NamedShape, ProjectorPart, PromptSource};

/// The format of a model's weights in memory, as `--weights` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// 8-bit integers with a scale for each output, on the CPU; activations between products in bf16.
    Int8,
    /// The upper half of a single.
    Bf16,
    /// Single precision.
    F32,
}

impl WeightFormat {
    /// All formats, from small to large.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Bf16, Self::F32];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// Bytes of a number between products: of an embedding, a key, a value.
    fn num_bytes(self) -> u64 {
        match self {
            Self::Int8 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// The format of layers that are not int8 beside int8.
    fn of_floats(self) -> Self {
        match self {
            Self::Int8 => Self::F32,
            other => other,
        }
    }

    /// Bytes of a linear layer's matrix.
    fn matrix(self, outputs: u64, inputs: u64) -> u64 {
        match self {
            // Packed for the product, with a scale and an offset for each output.
            Self::Int8 => {
                let packed = outputs.next_multiple_of(16);
                packed * inputs.next_multiple_of(4) + 4 * (packed + outputs)
            }
            other => other.num_bytes() * outputs * inputs,
        }
    }
}

/// The memory of one or several models on one engine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ModelMemory {
    /// Weights, once loaded.
    pub weights: u64,
    /// More for a moment while they are loaded: the largest matrix as read and as converted.
    pub loading: u64,
    /// Activations of each token of a pass.
    pub per_token: u64,
    /// Keys and values that stay of each token, where the model writes.
    pub cache_per_token: u64,
}

impl ModelMemory {
    /// A model that reads with its first `layers` blocks.
    #[must_use]
    pub fn of_reader(config: &ModelConfig, layers: usize, format: WeightFormat) -> Self {
        Self::of_reader_part(config, 0..layers, format)
    }

    /// A part of such a model: these of its blocks. The embedding belongs to the first block.
    #[must_use]
    pub fn of_reader_part(config: &ModelConfig, blocks: Range<usize>, format: WeightFormat) -> Self {
        let layout = config.tensor_layout();
        let norms = layout.between.iter().chain(layout.after.iter().filter(|(_, shape)| shape.len() == 1));
        let before = layout.before.iter().filter(|_| blocks.start == 0);
        let of_blocks = layout.blocks.iter().skip(blocks.start).take(blocks.len()).flatten();
        let tensors: Vec<&NamedShape> = before.chain(of_blocks).chain(norms).collect();
        Self::of_tensors(config, &tensors, format)
    }

    /// A model's embedding alone.
    #[must_use]
    pub fn of_embedding(config: &ModelConfig, format: WeightFormat) -> Self {
        Self::of_reader(config, 0, format)
    }

    /// A model that writes: all of it, its head, and its cache.
    #[must_use]
    pub fn of_writer(config: &ModelConfig, format: WeightFormat) -> Self {
        let shapes = config.tensor_shapes();
        let mut memory = Self::of_tensors(config, &shapes.iter().collect::<Vec<_>>(), format);
        if config.tie_word_embeddings && format == WeightFormat::Int8 {
            // The embedding is the head's matrix as well, which is made of it by way of f32.
            let (vocab, hidden) = (config.vocab_size as u64, config.hidden_size as u64);
            memory.weights += format.matrix(vocab, hidden);
            memory.loading = memory.loading.max(5 * vocab * hidden);
        }
        let writing = config.encoder_decoder().map_or(config.num_hidden_layers, |it| it.num_decoder_layers);
        let width = config.num_key_value_heads * config.head_dim;
        memory.cache_per_token = 2 * (writing * width) as u64 * format.num_bytes();
        memory
    }

    fn of_tensors(config: &ModelConfig, tensors: &[&NamedShape], format: WeightFormat) -> Self {
        let embedding = config.embedding_name();
        let (mut weights, mut loading) = (0, 0);
        let stored = config.dtype_num_bytes();
        for (name, shape) in tensors {
            let is_table = *name == embedding || name.contains("embed_positions");
            weights += match shape[..] {
                [_, _] if is_table => numel(shape) * format.num_bytes(),
                [_, _] if name.ends_with("relative_attention_bias.weight") => 4 * numel(shape),
                [outputs, inputs] if name.ends_with("mlp.gate.weight") => {
                    format.of_floats().matrix(outputs as u64, inputs as u64)
                }
                [outputs, inputs] => format.matrix(outputs as u64, inputs as u64),
                _ if name.ends_with(".bias") => numel(shape) * format.of_floats().num_bytes(),
                _ => 4 * numel(shape),
            };
            // A table's bytes and their tensor. Of two matrices side by side also both in one, in f32.
            let transient = if is_table { 2 * stored } else { 2 * (2 * stored + 4) };
            loading = loading.max(transient * numel(shape));
        }
        Self { weights, loading, per_token: activations(config, format), cache_per_token: 0 }
    }

    /// The layers of a projector, which are never int8.
    #[must_use]
    pub fn of_projector(part: &ProjectorPart, format: WeightFormat) -> Self {
        let format = format.of_floats();
        let layers = part.linear_layers();
        let of_layers = layers.iter().map(|(_, inputs)| format.matrix(part.d_slm as u64, *inputs as u64));
        let of_blocks = part.block_shapes().iter().map(|(_, shape)| numel(shape)).sum::<u64>();
        let of_blocks = of_blocks * format.num_bytes();
        let mixed = 4 * (part.mixed_layers.len() * part.d_llm) as u64;
        Self {
            weights: of_layers.sum::<u64>() + of_blocks,
            loading: 0,
            per_token: 4 * (part.d_llm + 2 * part.d_slm) as u64 + 2 * mixed,
            cache_per_token: 0,
        }
    }

    /// Both at once: weights add up, and of passes the wider counts, since one follows the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            loading: self.loading.max(other.loading),
            per_token: self.per_token.max(other.per_token),
            cache_per_token: self.cache_per_token + other.cache_per_token,
        }
    }

    /// Both at once, each with passes of its own at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            loading: self.loading + other.loading,
            per_token: self.per_token + other.per_token,
            ..self.and(other)
        }
    }

    /// Bytes of engines that are loaded, one after the other, and then read passes of this many tokens: the
    /// most that loading or reading takes. Caches come on top.
    #[must_use]
    pub fn of_engines(&self, engines: usize, pass_tokens: usize) -> u64 {
        let engines = engines as u64;
        let pass = self.per_token.saturating_mul(pass_tokens as u64);
        let weights = engines.saturating_mul(self.weights);
        weights.saturating_add(self.loading.max(engines.saturating_mul(pass)))
    }

    /// Bytes of the cache of an engine that holds this many tokens.
    #[must_use]
    pub fn of_cache(&self, cache_tokens: usize) -> u64 {
        self.cache_per_token.saturating_mul(cache_tokens as u64)
    }

    /// Bytes of one engine at work, with passes and a cache of these sizes.
    #[must_use]
    pub fn of_engine(&self, pass_tokens: usize, cache_tokens: usize) -> u64 {
        let pass = self.per_token.saturating_mul(pass_tokens as u64);
        self.weights.saturating_add(pass).saturating_add(self.of_cache(cache_tokens))
    }
}

/// Bytes of the activations of one token at the widest moment of a block.
fn activations(config: &ModelConfig, format: WeightFormat) -> u64 {
    let (d, e) = (config.hidden_size as u64, format.num_bytes());
    let queries = (config.num_attention_heads * config.head_dim) as u64;
    let keys = (config.num_key_value_heads * config.head_dim) as u64;
    let projected = queries + 2 * keys;
    let experts = config.decoder().and_then(|decoder| decoder.experts.as_ref());
    let inner = config.intermediate_size.max(experts.map_or(0, |experts| experts.intermediate_size)) as u64;
    // Products of int8 are sums in i32 before they are numbers; rows are quantized before each product.
    let (input, product) = match format {
        WeightFormat::Int8 => (1, 4),
        _ => (e, e),
    };
    let attention = input * d + (product + 2 * e) * projected + (e + input) * queries + product * d;
    let feed_forward = input * d + 2 * product * inner + input * inner + product * d;
    let norms_after = 2 * 4 * d;
    4 * d + attention.max(feed_forward).max(e * d) + norms_after
}

/// The memory of an encoder's engine for a mode: the models that read prompts.
///
/// # Errors
/// The bundle lacks a part that the mode needs.
pub fn memory_of_encoder(
    bundle: &Bundle,
    mode: Mode,
    format: WeightFormat,
) -> Result<ModelMemory, BundleError> {
    memory_of_encoder_part(bundle, (mode, format), 0..usize::MAX)
}

/// The memory of a part of it: these blocks of the LLM, as far as the bundle reads with them, and all the
/// rest beside the first.
///
/// # Errors
/// The bundle lacks a part that the mode needs.
pub fn memory_of_encoder_part(
    bundle: &Bundle,
    (mode, format): (Mode, WeightFormat),
    blocks: Range<usize>,
) -> Result<ModelMemory, BundleError> {
    if blocks.start > 0 {
        let (part, llm) = bundle.llm()?;
        return Ok(ModelMemory::of_reader_part(llm, blocks.start..blocks.end.min(part.layers), format));
    }
    if !mode.uses_slm() {
        return Ok(ModelMemory::default()); // the decoder reads the tokens
    }
    let (small_model, slm) = bundle.small_model()?;
    let own_embedding = match small_model.prompts {
        PromptSource::LlmTokens { .. } => ModelMemory::default(),
        PromptSource::OwnTokens { .. } => ModelMemory::of_embedding(slm, format),
    };
    let Some(projector) = small_model.projector() else { return Ok(own_embedding) };
    let reads_llm = mode.reads_llm();
    let by_llm_tokens = matches!(small_model.prompts, PromptSource::LlmTokens { .. });
    if !reads_llm && !by_llm_tokens {
        return Ok(own_embedding);
    }
    let (part, llm) = bundle.llm()?;
    let layers = if reads_llm { part.layers.min(blocks.end) } else { 0 };
    let reader = ModelMemory::of_reader(llm, layers, format);
    Ok(own_embedding.and(reader).and(ModelMemory::of_projector(projector, format)))
}

/// The memory of a decoder's engine for a mode: the models that write.
///
/// # Errors
/// The bundle lacks a part that the mode needs.
pub fn memory_of_decoder(
    bundle: &Bundle,
    mode: Mode,
    format: WeightFormat,
) -> Result<ModelMemory, BundleError> {
    let mut memory = ModelMemory::default();
    if mode.uses_slm() {
        memory = memory.and(ModelMemory::of_writer(bundle.small_model()?.1, format));
    }
    if matches!(mode, Mode::Llm | Mode::Verified) {
        memory = memory.and(ModelMemory::of_writer(bundle.llm()?.1, format));
    }
    Ok(memory)
}
