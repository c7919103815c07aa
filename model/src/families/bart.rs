//! BART and its kin: mBART, Marian, M2M-100 and NLLB-200, Pegasus, and the students of Bergamot.
//!
//! An encoder reads, a decoder writes; layer norms and biases everywhere. The places of norms, the kind of
//! positions and the decoder's view of its past depend on the kind ([`BartWiring`]).
//!
//! References: Lewis et al., arXiv 1910.13461; Liu et al., arXiv 2001.08210; Fan et al., arXiv 2010.11125;
//! Zhang et al., arXiv 1912.08777; Junczys-Dowmunt et al., arXiv 1804.00344; and the classes of Hugging Face
//! transformers.

use std::ops::Range;

use baton_bundle::{
    BartActivation, BartConfig, BartKind, BartPositions, BartWiring, DecoderPast, ModelConfig, NormPlace,
};
use tch::{Kind, Tensor};

use super::bergamot::Ssru;
use crate::{
    Attention, CrossAttention, Linear, ModelError, Scoring,
    attention_to_prompt::AttentionToPrompt,
    embedded_positions::{EmbeddedPositions, LearnedPositions, SinusoidalPositions},
    encoder_decoder::EncoderDecoder,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::LayerNorm,
    linear::LinearInput,
    residual::{Normed, Residual},
    self_attention::{Positions, SelfAttention, head_shape},
    stack::Pass,
    step_time::{Part, time},
};

#[derive(Debug)]
pub(crate) struct Bart {
    shared: Tensor, // [vocab, d]
    embedding_scale: f64,
    /// A token that the decoder reads as zeros.
    unread: Option<u32>,
    encoder: (StackEnds, Vec<EncoderBlock>),
    /// Whether the encoder's first block and its last are among these.
    encoder_ends: (bool, bool),
    decoder: Option<(StackEnds, Vec<DecoderBlock>)>,
}

/// The shape that a model's parts are loaded by.
#[derive(Clone, Copy)]
struct Shape<'a> {
    config: &'a ModelConfig,
    constants: &'a BartConfig,
    wiring: BartWiring,
}

/// The layers around the blocks of encoder or decoder.
#[derive(Debug)]
struct StackEnds {
    positions: EmbeddedPositions,
    layernorm_embedding: Option<LayerNorm>,
    /// After the last block, if norms precede parts.
    layer_norm: Option<LayerNorm>,
}

#[derive(Debug)]
struct EncoderBlock {
    self_attn: SelfAttention,
    self_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
}

#[derive(Debug)]
struct DecoderBlock {
    past: Past,
    past_layer_norm: LayerNorm,
    encoder_attn: AttentionToPrompt,
    encoder_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
}

/// The way in which a block of the decoder sees the output so far.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has a few, and they live as long as it does")]
enum Past {
    Attention(SelfAttention),
    Recurrence(Ssru),
}

impl Bart {
    /// `encoder_blocks`: those of the encoder's blocks; `writes`: whether there is a decoder.
    pub(crate) fn load(
        (config, constants): (&ModelConfig, &BartConfig),
        source: &LayerSource<'_>,
        (encoder_blocks, writes): (Range<usize>, bool),
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let shape = Shape { config, constants, wiring: constants.kind.wiring(d) };
        let (encoder, decoder) = (source.part("model").part("encoder"), source.part("model").part("decoder"));
        let encoder_block = |layer| EncoderBlock::load(shape, &encoder.part("layers").part(layer));
        let decoder_block = |layer| DecoderBlock::load(shape, &decoder.part("layers").part(layer));
        let load_decoder = || {
            let blocks = (0..constants.num_decoder_layers).map(decoder_block).collect::<Result<_, _>>()?;
            Ok::<_, ModelError>((StackEnds::load(shape, &decoder)?, blocks))
        };
        let begins = encoder_blocks.start == 0;
        let ends = encoder_blocks.is_empty() || encoder_blocks.end == config.num_hidden_layers;
        Ok(Self {
            shared: match begins {
                true => source.embedding("model.shared.weight", [config.vocab_size, d])?,
                false => source.no_embedding(d),
            },
            embedding_scale: if constants.scale_embedding { (d as f64).sqrt() } else { 1.0 },
            unread: config.bos_token_id.filter(|_| constants.kind == BartKind::Bergamot),
            encoder: (
                StackEnds::load(shape, &encoder)?,
                encoder_blocks.map(encoder_block).collect::<Result<_, _>>()?,
            ),
            encoder_ends: (begins, ends),
            decoder: writes.then(load_decoder).transpose()?,
        })
    }

    /// The head: the embedding matrix or its own matrix, with the addition to each logit.
    pub(crate) fn load_head(
        (config, constants): (&ModelConfig, &BartConfig),
        source: &LayerSource<'_>,
    ) -> Result<Linear, ModelError> {
        let (vocab, d) = (config.vocab_size, config.hidden_size);
        let name = if config.tie_word_embeddings { "model.shared.weight" } else { "lm_head.weight" };
        let weight = source.tensor(name, &[vocab, d])?;
        let bias = match constants.kind.wiring(d).logits_bias {
            true => Some(source.tensor("final_logits_bias", &[1, vocab])?.view([-1])),
            false => None,
        };
        Ok(Linear::new(&weight, bias.as_ref(), source.compute))
    }

    fn decoder(&self) -> &(StackEnds, Vec<DecoderBlock>) {
        self.decoder.as_ref().expect("only a model loaded with lm_head writes")
    }
}

impl EncoderDecoder for Bart {
    fn embedding(&self) -> &Tensor {
        &self.shared
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        let embedded = Tensor::embedding(&self.shared, tokens, -1, false, false);
        embedded.to_kind(Kind::Float) * self.embedding_scale
    }

    fn embed_written(&self, tokens: &Tensor) -> Tensor {
        let embedded = self.embed(tokens);
        match self.unread {
            None => embedded,
            Some(unread) => embedded.masked_fill(&tokens.eq(i64::from(unread)).unsqueeze(1), 0.0),
        }
    }

    fn num_encoder_blocks(&self) -> usize {
        self.encoder.1.len()
    }

    fn num_decoder_blocks(&self) -> usize {
        self.decoder.as_ref().map_or(0, |(_, blocks)| blocks.len())
    }

    fn encode(&self, x: Tensor, pass: &mut Pass<'_>) -> Tensor {
        let (ends, blocks) = &self.encoder;
        let first_layer = blocks.first().map(|block| &block.self_attn.qkv_proj);
        let (has_first, has_last) = self.encoder_ends;
        let begun = match has_first {
            true => ends.begin(x, pass.positions, first_layer),
            false => ends.resume(x, first_layer),
        };
        let x = blocks.iter().enumerate().fold(begun, |x, (layer, block)| block.forward(x, layer, pass));
        let x = x.into_numbers();
        match &ends.layer_norm {
            Some(norm) if has_last => time(Part::Norm, || norm.numbers(&x)),
            _ => x,
        }
    }

    fn prompt_keys_and_values(&self, states: &Tensor) -> Vec<[Tensor; 2]> {
        let (_, blocks) = self.decoder();
        blocks.iter().map(|block| block.encoder_attn.keys_and_values(states)).collect()
    }

    fn decode(
        &self,
        x: Tensor,
        attention: &mut dyn CrossAttention,
        positions: (&Tensor, i64),
        dropout: f64,
    ) -> Tensor {
        let (ends, blocks) = self.decoder();
        let begun = ends.begin(x, positions, blocks.first().map(|block| block.past.first_layer()));
        let blocks = blocks.iter().enumerate();
        let forward = |x, (layer, block): (usize, &DecoderBlock)| {
            block.forward(x, layer, (attention, positions, dropout))
        };
        blocks.fold(begun, forward).into_numbers()
    }

    fn head_input(&self, x: &Tensor, head: &Linear) -> LinearInput {
        match &self.decoder().0.layer_norm {
            Some(norm) => norm.forward(x),
            None => head.input(x),
        }
    }
}

impl StackEnds {
    fn load(shape: Shape<'_>, stack: &LayerSource<'_>) -> Result<Self, ModelError> {
        let Shape { config, wiring, .. } = shape;
        let d = config.hidden_size;
        let positions = match wiring.positions {
            BartPositions::Learned { first } => {
                let size = [config.max_position_embeddings + first, d];
                let table = stack.embedding("embed_positions.weight", size)?;
                EmbeddedPositions::Learned(LearnedPositions::new(&table, first))
            }
            BartPositions::Sinusoidal { divisor, first } => {
                let sines = SinusoidalPositions::new(d, (divisor, first), stack.compute);
                EmbeddedPositions::Sinusoidal(sines)
            }
        };
        let norm_if = |is_there: bool, name| is_there.then(|| shape.norm(stack, name)).transpose();
        Ok(Self {
            positions,
            layernorm_embedding: norm_if(wiring.embedding_norm, "layernorm_embedding")?,
            layer_norm: norm_if(wiring.norms == NormPlace::Before, "layer_norm")?,
        })
    }

    /// Embeddings in the form for the first block. `x`: `[rows, d]` f32; `first_layer`: the layer that reads
    /// them first.
    fn begin(&self, x: Tensor, positions: (&Tensor, i64), first_layer: Option<&Linear>) -> Residual {
        let x = time(Part::Embed, || self.positions.add_to(x, positions));
        match (&self.layernorm_embedding, &self.layer_norm, first_layer) {
            (Some(norm), Some(_), _) => Residual::Sum(time(Part::Norm, || norm.numbers(&x))),
            (Some(norm), None, _) => Residual::Normed(time(Part::Norm, || norm.normed(x))),
            (None, None, Some(layer)) => Residual::Normed(Normed { input: layer.input(&x), numbers: x }),
            (None, _, _) => Residual::Sum(x),
        }
    }

    /// The states after an earlier block in the form for the next one. `x`: `[rows, d]` f32; `next_layer`:
    /// the layer that reads them first.
    fn resume(&self, x: Tensor, next_layer: Option<&Linear>) -> Residual {
        match (&self.layer_norm, next_layer) {
            (None, Some(layer)) => Residual::Normed(Normed { input: layer.input(&x), numbers: x }),
            _ => Residual::Sum(x),
        }
    }
}

impl EncoderBlock {
    fn load(shape: Shape<'_>, block: &LayerSource<'_>) -> Result<Self, ModelError> {
        Ok(Self {
            self_attn: shape.self_attention(&block.part("self_attn"))?,
            self_attn_layer_norm: shape.norm(block, "self_attn_layer_norm")?,
            feed_forward: shape.feed_forward(block)?,
            final_layer_norm: shape.norm(block, "final_layer_norm")?,
        })
    }

    fn forward(&self, x: Residual, layer: usize, pass: &mut Pass<'_>) -> Residual {
        let x = x.add(&self.self_attn_layer_norm, |x, input| {
            attend_to_own(&self.self_attn, x, (layer, input), pass)
        });
        x.add(&self.final_layer_norm, |x, input| self.feed_forward.add_to(x, input, pass.dropout))
    }
}

impl DecoderBlock {
    fn load(shape: Shape<'_>, block: &LayerSource<'_>) -> Result<Self, ModelError> {
        let d = shape.config.hidden_size;
        let (past, past_layer_norm) = match shape.wiring.past {
            DecoderPast::Attention => {
                let self_attn = shape.self_attention(&block.part("self_attn"))?;
                (Past::Attention(self_attn), shape.norm(block, "self_attn_layer_norm")?)
            }
            DecoderPast::Recurrence => {
                (Past::Recurrence(Ssru::load(&block.part("rnn"), d)?), shape.norm(block, "rnn_layer_norm")?)
            }
        };
        let attention = block.part("encoder_attn");
        Ok(Self {
            past,
            past_layer_norm,
            encoder_attn: AttentionToPrompt {
                shape: head_shape(shape.config),
                scoring: Scoring::of_heads(shape.config.head_dim),
                q: attention.stacked_with_bias(d, &[("q_proj", d)])?,
                kv: attention.stacked_with_bias(d, &[("k_proj", d), ("v_proj", d)])?,
                o: attention.stacked_with_bias(d, &[("out_proj", d)])?,
                kind: block.compute.kind,
            },
            encoder_attn_layer_norm: shape.norm(block, "encoder_attn_layer_norm")?,
            feed_forward: shape.feed_forward(block)?,
            final_layer_norm: shape.norm(block, "final_layer_norm")?,
        })
    }

    fn forward(
        &self,
        x: Residual,
        layer: usize,
        (attention, positions, dropout): (&mut dyn CrossAttention, (&Tensor, i64), f64),
    ) -> Residual {
        let x = x.add(&self.past_layer_norm, |x, input| match &self.past {
            Past::Attention(self_attn) => {
                let own_attention: &mut dyn Attention = &mut *attention;
                let mut pass =
                    Pass { blocks: layer..layer + 1, positions, attention: own_attention, dropout };
                attend_to_own(self_attn, x, (layer, input), &mut pass)
            }
            Past::Recurrence(ssru) => ssru.add_to(x, (layer, input), attention, dropout),
        });
        let x = x.add(&self.encoder_attn_layer_norm, |x, input| {
            self.encoder_attn.add_to(x, (layer, input), attention, dropout)
        });
        x.add(&self.final_layer_norm, |x, input| self.feed_forward.add_to(x, input, dropout))
    }
}

fn attend_to_own(
    self_attn: &SelfAttention,
    x: Tensor,
    (layer, input): (usize, &LinearInput),
    pass: &mut Pass<'_>,
) -> Tensor {
    let attended = self_attn.add_to(x, (layer, input), Positions::Unmarked, pass);
    attended.expect("what is kept of prompts is made of an encoder's states, so no pass ends with it")
}

impl Past {
    fn first_layer(&self) -> &Linear {
        match self {
            Self::Attention(self_attn) => &self_attn.qkv_proj,
            Self::Recurrence(ssru) => &ssru.gates,
        }
    }
}

impl Shape<'_> {
    fn norm(self, source: &LayerSource<'_>, name: &str) -> Result<LayerNorm, ModelError> {
        source.layer_norm(name, self.config.hidden_size, self.constants.layer_norm_eps)
    }

    fn self_attention(self, attention: &LayerSource<'_>) -> Result<SelfAttention, ModelError> {
        let d = self.config.hidden_size;
        Ok(SelfAttention {
            shape: head_shape(self.config),
            scoring: Scoring::of_heads(self.config.head_dim),
            qkv_proj: attention.stacked_with_bias(d, &[("q_proj", d), ("k_proj", d), ("v_proj", d)])?,
            head_norms: None,
            o_proj: attention.stacked_with_bias(d, &[("out_proj", d)])?,
        })
    }

    fn feed_forward(self, block: &LayerSource<'_>) -> Result<FeedForward, ModelError> {
        let (d, ff) = (self.config.hidden_size, self.config.intermediate_size);
        Ok(FeedForward {
            input: FeedForwardInput::Plain(block.stacked_with_bias(d, &[("fc1", ff)])?),
            activation: match self.constants.activation_function {
                BartActivation::Relu => Activation::Relu,
                BartActivation::Swish => Activation::Silu,
                BartActivation::Gelu => Activation::Gelu,
                BartActivation::GeluTanh => Activation::GeluTanh,
            },
            output: block.stacked_with_bias(ff, &[("fc2", d)])?,
        })
    }
}
