//! T5 and its kin: T5 1.0 and 1.1, Flan-T5, mT5, UMT5. An encoder reads, a decoder writes.
//!
//! Pre-norm blocks with RMS norms and no biases; attention adds learned numbers for relative positions and
//! does not scale. A decoder's block attends to the output so far, then to the encoder's states. Reference:
//! Raffel et al., arXiv 1910.10683, and Hugging Face `T5ForConditionalGeneration`.

use std::ops::Range;

use baton_bundle::{Family, ModelConfig, T5Config, T5FeedForward};
use tch::{Kind, Tensor};

use crate::{
    Attention, CrossAttention, Linear, ModelError, RelativeBias, Scoring,
    attention_to_prompt::AttentionToPrompt,
    encoder_decoder::EncoderDecoder,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::RmsNorm,
    linear::LinearInput,
    relative_bias::Buckets,
    self_attention::{Positions, SelfAttention, head_shape},
    stack::Pass,
    step_time::{Part, time},
};

/// Scores are products of queries and keys, without a scale.
const UNSCALED: Scoring = Scoring::scaled(1.0);

#[derive(Debug)]
pub(crate) struct T5 {
    shared: Tensor, // [vocab, d]
    encoder: Encoder,
    decoder: Option<Decoder>,
}

/// Which parts of a T5 are loaded.
#[derive(Debug, Clone)]
pub(crate) struct T5Parts {
    /// These blocks of the encoder.
    pub(crate) encoder_blocks: Range<usize>,
    /// Whether it writes.
    pub(crate) decoder: bool,
}

#[derive(Debug)]
struct Encoder {
    relative_attention_bias: BlockBiases,
    block: Vec<EncoderBlock>,
    /// The first of them among all.
    first_block: usize,
    final_layer_norm: Option<RmsNorm>, // unless others run the last block
}

#[derive(Debug)]
struct EncoderBlock {
    self_attention: SelfAttentionLayer,
    feed_forward: FeedForwardLayer,
}

#[derive(Debug)]
struct Decoder {
    relative_attention_bias: BlockBiases,
    block: Vec<DecoderBlock>,
    final_layer_norm: RmsNorm,
}

#[derive(Debug)]
struct DecoderBlock {
    self_attention: SelfAttentionLayer,
    cross_attention: CrossAttentionLayer,
    feed_forward: FeedForwardLayer,
}

#[derive(Debug)]
struct SelfAttentionLayer {
    layer_norm: RmsNorm,
    attention: SelfAttention,
}

#[derive(Debug)]
struct CrossAttentionLayer {
    layer_norm: RmsNorm,
    attention: AttentionToPrompt,
}

#[derive(Debug)]
struct FeedForwardLayer {
    layer_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl T5 {
    pub(crate) fn load(
        (config, constants): (&ModelConfig, &T5Config),
        source: &LayerSource<'_>,
        parts: T5Parts,
    ) -> Result<Self, ModelError> {
        let decoder = parts.decoder.then(|| Decoder::load((config, constants), &source.part("decoder")));
        let shared = match parts.encoder_blocks.start {
            0 => source.embedding("shared.weight", [config.vocab_size, config.hidden_size])?,
            _ => source.no_embedding(config.hidden_size),
        };
        Ok(Self {
            shared,
            encoder: Encoder::load((config, constants), &source.part("encoder"), parts.encoder_blocks)?,
            decoder: decoder.transpose()?,
        })
    }

    fn decoder(&self) -> &Decoder {
        self.decoder.as_ref().expect("only a model loaded with lm_head writes")
    }
}

impl EncoderDecoder for T5 {
    fn embedding(&self) -> &Tensor {
        &self.shared
    }

    fn num_encoder_blocks(&self) -> usize {
        self.encoder.block.len()
    }

    fn num_decoder_blocks(&self) -> usize {
        self.decoder.as_ref().map_or(0, |decoder| decoder.block.len())
    }

    fn encode(&self, x: Tensor, pass: &mut Pass<'_>) -> Tensor {
        let Encoder { relative_attention_bias, block, first_block, final_layer_norm } = &self.encoder;
        let x = block.iter().enumerate().fold(x, |x, (layer, block)| {
            let bias = relative_attention_bias.of(first_block + layer);
            let x = block.self_attention.add_to(x, layer, bias, pass);
            block.feed_forward.add_to(x, pass.dropout)
        });
        match final_layer_norm {
            Some(norm) => time(Part::Norm, || norm.numbers(&x)),
            None => x,
        }
    }

    fn prompt_keys_and_values(&self, states: &Tensor) -> Vec<[Tensor; 2]> {
        self.decoder()
            .block
            .iter()
            .map(|block| block.cross_attention.attention.keys_and_values(states))
            .collect()
    }

    fn decode(
        &self,
        x: Tensor,
        attention: &mut dyn CrossAttention,
        positions: (&Tensor, i64),
        dropout: f64,
    ) -> Tensor {
        let Decoder { relative_attention_bias, block, .. } = self.decoder();
        block.iter().enumerate().fold(x, |x, (layer, block)| {
            let own_attention: &mut dyn Attention = &mut *attention;
            let mut pass = Pass { blocks: layer..layer + 1, positions, attention: own_attention, dropout };
            let x = block.self_attention.add_to(x, layer, relative_attention_bias.of(layer), &mut pass);
            let x = block.cross_attention.add_to(x, layer, attention, dropout);
            block.feed_forward.add_to(x, dropout)
        })
    }

    /// The norm before the head, and the scaling where there is one.
    fn head_input(&self, x: &Tensor, _head: &Linear) -> LinearInput {
        self.decoder().final_layer_norm.forward(x)
    }
}

impl Encoder {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        source: &LayerSource<'_>,
        blocks: Range<usize>,
    ) -> Result<Self, ModelError> {
        let load_block = |layer| {
            let block = source.part("block").part(layer).part("layer");
            Ok(EncoderBlock {
                self_attention: SelfAttentionLayer::load((config, constants), &block.part(0))?,
                feed_forward: FeedForwardLayer::load((config, constants), &block.part(1))?,
            })
        };
        let (d, eps) = (config.hidden_size, constants.layer_norm_epsilon);
        Ok(Self {
            relative_attention_bias: BlockBiases::load((config, constants), source, (blocks.end, true))?,
            first_block: blocks.start,
            final_layer_norm: (blocks.is_empty() || blocks.end == config.num_hidden_layers)
                .then(|| source.rms_norm("final_layer_norm", d, eps))
                .transpose()?,
            block: blocks.map(load_block).collect::<Result<_, ModelError>>()?,
        })
    }
}

impl Decoder {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        source: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let load_block = |layer| {
            let block = source.part("block").part(layer).part("layer");
            Ok(DecoderBlock {
                self_attention: SelfAttentionLayer::load((config, constants), &block.part(0))?,
                cross_attention: CrossAttentionLayer::load((config, constants), &block.part(1))?,
                feed_forward: FeedForwardLayer::load((config, constants), &block.part(2))?,
            })
        };
        let (d, eps) = (config.hidden_size, constants.layer_norm_epsilon);
        let scale = if constants.scale_decoder_outputs { (d as f64).powf(-0.5) } else { 1.0 };
        let final_norm_weight = source.tensor("final_layer_norm.weight", &[d])?.to_kind(Kind::Float) * scale;
        let num_blocks = constants.num_decoder_layers;
        Ok(Self {
            relative_attention_bias: BlockBiases::load((config, constants), source, (num_blocks, false))?,
            block: (0..num_blocks).map(load_block).collect::<Result<_, ModelError>>()?,
            final_layer_norm: RmsNorm::new(&final_norm_weight, eps, source.compute),
        })
    }
}

/// A stack's tables of relative positions: one, stored in the first block and used in all, or one for each
/// block (UMT5).
#[derive(Debug)]
struct BlockBiases(Vec<RelativeBias>);

impl BlockBiases {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        stack: &LayerSource<'_>,
        (num_blocks, bidirectional): (usize, bool),
    ) -> Result<Self, ModelError> {
        let num_buckets = constants.relative_attention_num_buckets;
        let max_distance = constants.relative_attention_max_distance;
        let buckets = Buckets { num_buckets, max_distance, bidirectional };
        let table = |layer: usize| {
            let name = format!("block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight");
            let weight = stack.tensor(&name, &[num_buckets, config.num_attention_heads])?;
            Ok(RelativeBias::new(&weight, buckets, stack.compute))
        };
        let num_tables = if config.family() == Family::Umt5 { num_blocks } else { 1 };
        (0..num_tables).map(table).collect::<Result<_, ModelError>>().map(Self)
    }

    fn of(&self, layer: usize) -> &RelativeBias {
        &self.0[layer.min(self.0.len() - 1)]
    }
}

impl SelfAttentionLayer {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        layer: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let (d, width) = (config.hidden_size, config.num_attention_heads * config.head_dim);
        let attention = layer.part("SelfAttention");
        Ok(Self {
            layer_norm: layer.rms_norm("layer_norm", d, constants.layer_norm_epsilon)?,
            attention: SelfAttention {
                shape: head_shape(config),
                scoring: UNSCALED,
                qkv_proj: attention.stacked(d, &[("q", width), ("k", width), ("v", width)])?,
                head_norms: None,
                o_proj: attention.linear("o", [d, width])?,
            },
        })
    }

    /// `x`: `[rows, d]` f32
    fn add_to(&self, x: Tensor, layer: usize, bias: &RelativeBias, pass: &mut Pass<'_>) -> Tensor {
        let normed = time(Part::Norm, || self.layer_norm.forward(&x));
        let x = self.attention.add_to(x, (layer, &normed), Positions::Relative(bias), pass);
        x.expect("what a T5 keeps of prompts is made by `prompt_keys_and_values`, so no pass ends with it")
    }
}

impl CrossAttentionLayer {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        layer: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let (d, width) = (config.hidden_size, config.num_attention_heads * config.head_dim);
        let attention = layer.part("EncDecAttention");
        Ok(Self {
            layer_norm: layer.rms_norm("layer_norm", d, constants.layer_norm_epsilon)?,
            attention: AttentionToPrompt {
                shape: head_shape(config),
                scoring: UNSCALED,
                q: attention.linear("q", [width, d])?,
                kv: attention.stacked(d, &[("k", width), ("v", width)])?,
                o: attention.linear("o", [d, width])?,
                kind: layer.compute.kind,
            },
        })
    }

    /// `x`: `[rows, d]` f32
    fn add_to(&self, x: Tensor, layer: usize, attention: &mut dyn CrossAttention, dropout: f64) -> Tensor {
        let normed = time(Part::Norm, || self.layer_norm.forward(&x));
        self.attention.add_to(x, (layer, &normed), attention, dropout)
    }
}

impl FeedForwardLayer {
    fn load(
        (config, constants): (&ModelConfig, &T5Config),
        layer: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let dense = layer.part("DenseReluDense");
        let gated = || dense.stacked(d, &[("wi_0", ff), ("wi_1", ff)]).map(FeedForwardInput::Gated);
        let (input, activation) = match constants.feed_forward_proj {
            T5FeedForward::Relu => (FeedForwardInput::Plain(dense.linear("wi", [ff, d])?), Activation::Relu),
            T5FeedForward::GatedGelu => (gated()?, Activation::GeluTanh),
            T5FeedForward::GatedSilu => (gated()?, Activation::Silu),
        };
        Ok(Self {
            layer_norm: layer.rms_norm("layer_norm", d, constants.layer_norm_epsilon)?,
            feed_forward: FeedForward { input, activation, output: dense.linear("wo", [d, ff])? },
        })
    }

    /// `x`: `[rows, d]` f32
    fn add_to(&self, x: Tensor, dropout: f64) -> Tensor {
        let normed = time(Part::Norm, || self.layer_norm.forward(&x));
        self.feed_forward.add_to(x, &normed, dropout)
    }
}
