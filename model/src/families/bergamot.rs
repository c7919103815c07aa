//! Students of Firefox Translations and Bergamot, trained by Marian: an encoder, and a decoder that is
//! recurrent instead of attending to its own output.
//!
//! Post-norm blocks with layer norms and biases, and sines for positions. A decoder's block is an SSRU, the
//! attention to the prompt, and a feed-forward layer. Decoding begins with zeros instead of an embedding.
//! Reference: Kim et al., "From Research to Production and Back", ACL Anthology D19-5632.

use baton_bundle::{BergamotActivation, BergamotConfig, ModelConfig};
use tch::{Kind, Tensor};

use crate::{
    CrossAttention, Linear, ModelError, Scoring,
    attention_to_prompt::AttentionToPrompt,
    encoder_decoder::EncoderDecoder,
    feed_forward::{FeedForward, FeedForwardInput},
    kernels::Activation,
    layer_source::LayerSource,
    layers::{LayerNorm, SinusoidalPositions},
    linear::LinearInput,
    post_norm::{Normed, PostNormBlock, PostNormFeedForward},
    self_attention::{SelfAttention, head_shape},
    stack::Pass,
    step_time::{Part, time},
};

#[derive(Debug)]
pub(crate) struct Bergamot {
    shared: Tensor, // [vocab, d]
    embedding_scale: f64,
    positions: SinusoidalPositions,
    begin_token: Option<u32>,
    encoder: Vec<PostNormBlock>,
    decoder: Vec<DecoderBlock>, // none where it only encodes
}

#[derive(Debug)]
struct DecoderBlock {
    rnn: Ssru,
    rnn_layer_norm: LayerNorm,
    encoder_attn: AttentionToPrompt,
    encoder_attn_layer_norm: LayerNorm,
    feed_forward: PostNormFeedForward,
}

/// `relu(c)`, where `f = sigmoid(forget x)` and `c = f * c_before + (1 - f) * input x`: a simpler simple
/// recurrent unit.
#[derive(Debug)]
struct Ssru {
    gates: Linear, // d -> 2 d: forget, input
}

impl Bergamot {
    /// `encoder_blocks`: how many blocks of the encoder; `writes`: whether there is a decoder.
    pub(crate) fn load(
        (config, constants): (&ModelConfig, &BergamotConfig),
        source: &LayerSource<'_>,
        (encoder_blocks, writes): (usize, bool),
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let blocks = |stack| source.part("model").part(stack).part("layers");
        let encoder = (0..encoder_blocks).map(|layer| {
            let block = blocks("encoder").part(layer);
            Ok(PostNormBlock {
                self_attn: self_attention(config, &block.part("self_attn"))?,
                self_attn_layer_norm: block.layer_norm(
                    "self_attn_layer_norm",
                    d,
                    constants.layer_norm_eps,
                )?,
                feed_forward: feed_forward((config, constants), &block)?,
            })
        });
        let num_decoder_layers = if writes { constants.num_decoder_layers } else { 0 };
        let decoder = (0..num_decoder_layers)
            .map(|layer| DecoderBlock::load((config, constants), &blocks("decoder").part(layer)));
        Ok(Self {
            shared: source.embedding("model.shared.weight", [config.vocab_size, d])?,
            embedding_scale: (d as f64).sqrt(),
            positions: SinusoidalPositions::new(d, d as f64 / 2.0 - 1.0, source.compute),
            begin_token: config.bos_token_id,
            encoder: encoder.collect::<Result<_, ModelError>>()?,
            decoder: decoder.collect::<Result<_, ModelError>>()?,
        })
    }

    /// The embedding matrix as a head, with its own biases.
    pub(crate) fn load_head(config: &ModelConfig, source: &LayerSource<'_>) -> Result<Linear, ModelError> {
        let weight = source.tensor("model.shared.weight", &[config.vocab_size, config.hidden_size])?;
        let bias = source.tensor("final_logits_bias", &[1, config.vocab_size])?.view([-1]);
        Ok(Linear::new(&weight, Some(&bias), source.compute))
    }
}

impl EncoderDecoder for Bergamot {
    fn embedding(&self) -> &Tensor {
        &self.shared
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        let embedded = Tensor::embedding(&self.shared, tokens, -1, false, false);
        embedded.to_kind(Kind::Float) * self.embedding_scale
    }

    fn embed_written(&self, tokens: &Tensor) -> Tensor {
        let embedded = self.embed(tokens);
        match self.begin_token {
            None => embedded,
            Some(begin) => embedded.masked_fill(&tokens.eq(i64::from(begin)).unsqueeze(1), 0.0),
        }
    }

    fn num_encoder_blocks(&self) -> usize {
        self.encoder.len()
    }

    fn num_decoder_blocks(&self) -> usize {
        self.decoder.len()
    }

    fn encode(&self, x: Tensor, pass: &mut Pass<'_>) -> Tensor {
        let x = time(Part::Embed, || self.positions.add_to(x, pass.positions));
        let Some(first) = self.encoder.first() else { return x };
        let begun = first.begin(x);
        let blocks = self.encoder.iter().enumerate();
        blocks.fold(begun, |x, (layer, block)| block.forward(x, layer, pass)).numbers
    }

    fn prompt_keys_and_values(&self, states: &Tensor) -> Vec<[Tensor; 2]> {
        self.decoder.iter().map(|block| block.encoder_attn.keys_and_values(states)).collect()
    }

    fn decode(
        &self,
        x: Tensor,
        attention: &mut dyn CrossAttention,
        positions: (&Tensor, i64),
        dropout: f64,
    ) -> Tensor {
        let x = time(Part::Embed, || self.positions.add_to(x, positions));
        let Some(first) = self.decoder.first() else { return x };
        let begun = Normed { input: first.rnn.gates.input(&x), numbers: x };
        let blocks = self.decoder.iter().enumerate();
        blocks.fold(begun, |x, (layer, block)| block.forward(x, layer, (attention, dropout))).numbers
    }

    fn head_input(&self, x: &Tensor, head: &Linear) -> LinearInput {
        head.input(x)
    }
}

impl DecoderBlock {
    fn load(
        (config, constants): (&ModelConfig, &BergamotConfig),
        block: &LayerSource<'_>,
    ) -> Result<Self, ModelError> {
        let (d, eps) = (config.hidden_size, constants.layer_norm_eps);
        let attention = block.part("encoder_attn");
        let gates = block.part("rnn").stacked_with_first_bias(d, &[("forget", d), ("input", d)])?;
        Ok(Self {
            rnn: Ssru { gates },
            rnn_layer_norm: block.layer_norm("rnn_layer_norm", d, eps)?,
            encoder_attn: AttentionToPrompt {
                shape: head_shape(config),
                scoring: scoring(config),
                q: attention.stacked_with_bias(d, &[("q_proj", d)])?,
                kv: attention.stacked_with_bias(d, &[("k_proj", d), ("v_proj", d)])?,
                o: attention.stacked_with_bias(d, &[("out_proj", d)])?,
                kind: block.compute.kind,
            },
            encoder_attn_layer_norm: block.layer_norm("encoder_attn_layer_norm", d, eps)?,
            feed_forward: feed_forward((config, constants), block)?,
        })
    }

    fn forward(
        &self,
        x: Normed,
        layer: usize,
        (attention, dropout): (&mut dyn CrossAttention, f64),
    ) -> Normed {
        let gates = time(Part::Linear, || self.rnn.gates.product(&x.input).into_tensor(Kind::Float));
        let written = time(Part::Attention, || attention.recur(layer, &gates)).relu();
        let x = x.numbers + written.dropout(dropout, dropout > 0.0);
        let x = time(Part::Norm, || self.rnn_layer_norm.normed(x));
        let x = self.encoder_attn.add_to(x.numbers, (layer, &x.input), attention, dropout);
        let x = time(Part::Norm, || self.encoder_attn_layer_norm.normed(x));
        self.feed_forward.forward(x, dropout)
    }
}

fn scoring(config: &ModelConfig) -> Scoring {
    Scoring { scale: (config.head_dim as f32).sqrt().recip(), window: None }
}

fn self_attention(config: &ModelConfig, attention: &LayerSource<'_>) -> Result<SelfAttention, ModelError> {
    let d = config.hidden_size;
    Ok(SelfAttention {
        shape: head_shape(config),
        scoring: scoring(config),
        qkv_proj: attention.stacked_with_bias(d, &[("q_proj", d), ("k_proj", d), ("v_proj", d)])?,
        head_norms: None,
        o_proj: attention.stacked_with_bias(d, &[("out_proj", d)])?,
    })
}

fn feed_forward(
    (config, constants): (&ModelConfig, &BergamotConfig),
    block: &LayerSource<'_>,
) -> Result<PostNormFeedForward, ModelError> {
    let (d, ff) = (config.hidden_size, config.intermediate_size);
    Ok(PostNormFeedForward {
        layers: FeedForward {
            input: FeedForwardInput::Plain(block.stacked_with_bias(d, &[("fc1", ff)])?),
            activation: match constants.activation_function {
                BergamotActivation::Relu => Activation::Relu,
                BergamotActivation::Swish => Activation::Silu,
            },
            output: block.stacked_with_bias(ff, &[("fc2", d)])?,
        },
        final_layer_norm: block.layer_norm("final_layer_norm", d, constants.layer_norm_eps)?,
    })
}
