//! The families of models that Baton implements, as a bundle's manifest names them.

use serde::{Deserialize, Serialize};

/// A model family that Baton implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Decoder-only, pre-norm, rotary positions, gated feed-forward.
    Llama,
    /// Llama with a sliding window in some releases.
    Mistral,
    /// Mistral with a window in some blocks.
    Ministral,
    /// Mistral with a rotation scaled by `YaRN`.
    Ministral3,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with a norm on each query and key head.
    Qwen3,
    /// Qwen3 with a mixture of experts in place of the feed-forward layer.
    #[serde(rename = "qwen3_moe")]
    Qwen3Moe,
    /// Gemma 2: norms before and after each part of a block, capped scores and logits.
    Gemma2,
    /// Gemma 3's text models: norms before and after each part of a block, sliding and full attention.
    Gemma3,
    /// Phi-3 and Phi-4: Llama with its projections stored as one matrix each.
    Phi3,
    /// OLMo 2: norms after each part of a block.
    Olmo2,
    /// Granite: Llama with factors of embeddings, scores, additions and logits.
    Granite,
    /// SmolLM3: Llama without positions in some blocks.
    Smollm3,
    /// Decoder-only, layer norms, learned positions.
    Gpt2,
    /// T5 1.0 and 1.1, Flan-T5: encoder and decoder, relative positions.
    T5,
    /// mT5: T5 1.1 with a large vocabulary.
    Mt5,
    /// UMT5: mT5 with a table of relative positions in each block.
    Umt5,
    /// BART: encoder and decoder, norms after each part, learned positions.
    Bart,
    /// mBART: BART with norms before each part.
    Mbart,
    /// M2M-100, NLLB-200, SMaLL-100: like mBART, with sines for positions.
    M2m100,
    /// Marian in Hugging Face's form, opus-mt: like BART, with sines for positions.
    Marian,
    /// Pegasus: norms before each part, sines for positions.
    Pegasus,
    /// Firefox Translations and Bergamot students: Marian with a recurrent decoder.
    Bergamot,
}

impl Family {
    /// Whether its models read with an encoder and write with a decoder.
    #[must_use]
    pub fn has_encoder(self) -> bool {
        match self {
            Self::Llama | Self::Mistral | Self::Ministral | Self::Ministral3 | Self::Qwen2 => false,
            Self::Gemma2 | Self::Gemma3 | Self::Phi3 | Self::Olmo2 | Self::Granite => false,
            Self::Qwen3 | Self::Qwen3Moe | Self::Smollm3 | Self::Gpt2 => false,
            Self::T5 | Self::Mt5 | Self::Umt5 | Self::Bart | Self::Mbart | Self::M2m100 => true,
            Self::Marian | Self::Pegasus | Self::Bergamot => true,
        }
    }
}
