//! A language model of any family, as encoder, decoder, trainer and benchmark hold it.

use std::ops::Range;

use baton_bundle::{FamilyConfig, ModelConfig};
use tch::Tensor;

use crate::{
    Attention, Compute, CrossAttention, Linear, ModelError, PackedAttention, PackedLayout, TensorSource,
    Visibility,
    attention::capped,
    encoder_decoder::EncoderDecoder,
    families::{
        bart::Bart,
        decoder,
        gpt2::Gpt2,
        t5::{T5, T5Parts},
    },
    layer_source::LayerSource,
    linear::LinearInput,
    stack::{Pass, Stack},
    step_time::{Part, time},
    transfer::upload,
};

/// A language model with any number of its blocks.
///
/// A decoder-only model has one stack of blocks, [`forward`](Self::forward). An encoder-decoder
/// ([`ModelConfig::encoder_decoder`]) [encodes](Self::encode) prompts, keeps their keys and values, and
/// [decodes](Self::decode) with them.
#[derive(Debug)]
pub struct LanguageModel {
    config: ModelConfig,
    compute: Compute,
    network: Network,
    /// The first of its blocks among those of the checkpoint.
    first_block: usize,
    lm_head: Option<Linear>,
}

#[derive(Debug)]
enum Network {
    DecoderOnly(Box<dyn Stack>),
    EncoderDecoder(Box<dyn EncoderDecoder>),
}

/// Which parts of a checkpoint a model is made of.
#[derive(Debug, Clone, Copy)]
pub struct ModelParts {
    /// Number of blocks, counted from the embedding; in an encoder-decoder, of its encoder.
    pub blocks: usize,
    /// Whether next-token logits will be needed. An LLM that only encodes has no head, and no decoder after
    /// its encoder.
    pub lm_head: bool,
}

impl LanguageModel {
    /// Builds a model from named tensors, converted to the compute type; norm weights stay f32.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than `config` says, or more blocks are asked for than
    /// `config` has.
    pub fn load(
        config: &ModelConfig,
        tensors: &dyn TensorSource,
        parts: ModelParts,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        let ModelParts { blocks, lm_head } = parts;
        Self::load_parts(config, tensors, (0..blocks, lm_head), compute)
    }

    /// The same for a part of a model that reads: these blocks, and the embedding if the first is among them.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_blocks(
        config: &ModelConfig,
        tensors: &dyn TensorSource,
        blocks: Range<usize>,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        Self::load_parts(config, tensors, (blocks, false), compute)
    }

    fn load_parts(
        config: &ModelConfig,
        tensors: &dyn TensorSource,
        (blocks, lm_head): (Range<usize>, bool),
        compute: Compute,
    ) -> Result<Self, ModelError> {
        if blocks.end > config.num_hidden_layers {
            return Err(ModelError::Unsupported(format!(
                "{} blocks are asked for, config.json has {} layers",
                blocks.end, config.num_hidden_layers
            )));
        }
        let first_block = blocks.start;
        let source = LayerSource::new(tensors, compute);
        let network = match &config.family {
            FamilyConfig::Decoder(constants) => {
                decoder_only(decoder::load((config, constants), &source, blocks)?)
            }
            FamilyConfig::Gpt2(gpt2) => decoder_only(Gpt2::load((config, gpt2), &source, blocks)?),
            FamilyConfig::T5(t5) | FamilyConfig::Mt5(t5) | FamilyConfig::Umt5(t5) => {
                let parts = T5Parts { encoder_blocks: blocks, decoder: lm_head };
                Network::EncoderDecoder(Box::new(T5::load((config, t5), &source, parts)?))
            }
            FamilyConfig::Bart(bart) => {
                let model = Bart::load((config, bart), &source, (blocks, lm_head))?;
                Network::EncoderDecoder(Box::new(model))
            }
        };
        let lm_head = match (&config.family, config.tie_word_embeddings) {
            _ if !lm_head => None,
            (FamilyConfig::Bart(bart), _) => Some(Bart::load_head((config, bart), &source)?),
            (_, true) => Some(Linear::new(network.embedding(), None, compute)),
            (_, false) => Some(source.linear("lm_head", [config.vocab_size, config.hidden_size])?),
        };
        Ok(Self { config: config.clone(), compute, network, first_block, lm_head })
    }

    /// The config the model was built from.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where and in which formats it computes.
    pub(crate) fn compute(&self) -> Compute {
        self.compute
    }

    /// How many blocks the model reads with, at most `config().num_hidden_layers`.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        match &self.network {
            Network::DecoderOnly(stack) => stack.num_blocks(),
            Network::EncoderDecoder(model) => model.num_encoder_blocks(),
        }
    }

    /// How many blocks it writes with: those whose keys and values are cached.
    pub(crate) fn num_writing_blocks(&self) -> usize {
        match &self.network {
            Network::DecoderOnly(stack) => stack.num_blocks(),
            Network::EncoderDecoder(model) => model.num_decoder_blocks(),
        }
    }

    /// Embeddings of a prompt's tokens, as the blocks read them. `tokens`: `[rows]` int64; result `[rows, d]`
    /// f32.
    pub fn embed(&self, tokens: &Tensor) -> Tensor {
        match &self.network {
            Network::DecoderOnly(stack) => stack.embed(tokens),
            Network::EncoderDecoder(model) => model.embed(tokens),
        }
    }

    /// The same for the output, which begins with the begin token: the decoder of an encoder-decoder may
    /// embed it differently.
    pub fn embed_written(&self, tokens: &Tensor) -> Tensor {
        match &self.network {
            Network::DecoderOnly(stack) => stack.embed(tokens),
            Network::EncoderDecoder(model) => model.embed_written(tokens),
        }
    }

    /// The hidden states of prompts after the model's last block, or after an encoder's final norm. `x`:
    /// embeddings `[rows, d]` f32, whose memory may be reused; `layout`: prompts; result `[rows, d]` f32.
    ///
    /// # Panics
    /// A position is not below [`ModelConfig::max_positions`].
    pub fn read(&self, x: Tensor, layout: &PackedLayout) -> Tensor {
        let like = (self.compute.kind, self.compute.device);
        let packed = |visibility| PackedAttention::new(layout, visibility, like);
        match &self.network {
            Network::DecoderOnly(_) => {
                self.forward(x, &layout.positions(), &mut packed(Visibility::Causal), 0.0)
            }
            Network::EncoderDecoder(_) => {
                self.encode(x, &layout.positions(), &mut packed(Visibility::Bidirectional), 0.0)
            }
        }
    }

    /// The same, plus the states after each of the `earlier` blocks, which count from 1 and rise. Result:
    /// `[rows, (earlier + 1) * d]` f32, the blocks' states side by side.
    ///
    /// # Panics
    /// As [`read_blocks`](Self::read_blocks).
    pub fn read_layers(&self, x: Tensor, layout: &PackedLayout, earlier: &[usize]) -> Tensor {
        let mut layers = self.read_blocks(x, layout, earlier);
        if layers.len() == 1 { layers.swap_remove(0) } else { Tensor::cat(&layers, 1) }
    }

    /// The same as a list: the states after each of the `earlier` blocks, then those after the last; `[rows,
    /// d]` f32 each. A part of a model gets in `x` the states before its first block; `earlier` counts the
    /// blocks of the whole model.
    ///
    /// # Panics
    /// As [`read`](Self::read). Also: there are `earlier` blocks, and they are not among the model's, or the
    /// model has an encoder, whose earlier states cannot be read.
    pub fn read_blocks(&self, mut x: Tensor, layout: &PackedLayout, earlier: &[usize]) -> Vec<Tensor> {
        if earlier.is_empty() {
            return vec![self.read(x, layout)];
        }
        let like = (self.compute.kind, self.compute.device);
        let (mut attention, positions) =
            (PackedAttention::new(layout, Visibility::Causal, like), layout.positions());
        let mut read = |x, blocks| {
            let states = self.pass(x, &positions, (&mut attention, 0.0), blocks);
            states.expect("packed attention does not end a pass")
        };
        let (mut layers, mut start) = (Vec::with_capacity(earlier.len() + 1), 0);
        for end in earlier.iter().map(|&block| block - self.first_block) {
            x = read(x, start..end);
            layers.push(x.copy()); // the next block may write into what it is given
            start = end;
        }
        layers.push(read(x, start..self.num_blocks()));
        layers
    }

    /// All blocks of a decoder-only model, without the final norm. `x`: `[rows, d]` f32, whose memory may be
    /// reused; `positions`: `[rows]` int64 in host memory; `dropout`: probability with which an element of a
    /// block's contribution is dropped, 0 outside training. Result: hidden states `[rows, d]` f32.
    ///
    /// # Panics
    /// A position is not below [`ModelConfig::max_positions`], or the model is an encoder-decoder.
    pub fn forward(
        &self,
        x: Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
        dropout: f64,
    ) -> Tensor {
        let x = self.pass(x, positions, (attention, dropout), 0..self.num_blocks());
        x.expect("attention that ends a pass with keys and values is for `remember`")
    }

    /// The same, only for the keys and values that `attention` keeps.
    pub(crate) fn remember(&self, x: Tensor, positions: &Tensor, attention: &mut dyn Attention) {
        let _ = self.pass(x, positions, (attention, 0.0), 0..self.num_blocks());
    }

    fn pass(
        &self,
        x: Tensor,
        positions: &Tensor,
        (attention, dropout): (&mut dyn Attention, f64),
        blocks: Range<usize>,
    ) -> Option<Tensor> {
        let Network::DecoderOnly(stack) = &self.network else {
            panic!("a model with an encoder encodes and decodes");
        };
        if blocks.is_empty() || positions.numel() == 0 {
            return Some(x);
        }
        let (positions, largest) = self.uploaded(positions);
        stack.forward(x, &mut Pass { blocks, positions: (&positions, largest), attention, dropout })
    }

    /// The encoder's last hidden states, after its final norm. `x`: `[rows, d]` f32, embeddings or
    /// replacements, whose memory may be reused; `positions`: as for [`forward`](Self::forward); result
    /// `[rows, d]` f32.
    ///
    /// # Panics
    /// The model is decoder-only.
    pub fn encode(
        &self,
        x: Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
        dropout: f64,
    ) -> Tensor {
        if x.size()[0] == 0 {
            return x;
        }
        let (model, (positions, largest)) = (self.encoder_decoder(), self.uploaded(positions));
        let (blocks, positions) = (0..model.num_encoder_blocks(), (&positions, largest));
        model.encode(x, &mut Pass { blocks, positions, attention, dropout })
    }

    /// Positions on the model's device, and the largest of them.
    fn uploaded(&self, positions: &Tensor) -> (Tensor, i64) {
        let largest = positions.max().int64_value(&[]);
        (upload(positions.shallow_clone(), self.compute.device), largest)
    }

    /// The keys and values that the decoder's blocks keep of encoded prompts, `[rows, heads, head_dim]` in
    /// the compute kind, block by block. `states`: `[rows, d]` f32.
    ///
    /// # Panics
    /// The model is decoder-only, or was loaded without `lm_head`.
    #[must_use]
    pub fn prompt_keys_and_values(&self, states: &Tensor) -> Vec<[Tensor; 2]> {
        self.encoder_decoder().prompt_keys_and_values(states)
    }

    /// All blocks of the decoder after an encoder, without the final norm. `x`: embeddings of the output,
    /// `[rows, d]` f32, whose memory may be reused; `positions`: as for [`forward`](Self::forward); result:
    /// hidden states `[rows, d]` f32.
    ///
    /// # Panics
    /// The model is decoder-only, or was loaded without `lm_head`.
    pub fn decode(
        &self,
        x: Tensor,
        positions: &Tensor,
        attention: &mut dyn CrossAttention,
        dropout: f64,
    ) -> Tensor {
        if x.size()[0] == 0 {
            return x;
        }
        let (positions, largest) = self.uploaded(positions);
        self.encoder_decoder().decode(x, attention, (&positions, largest), dropout)
    }

    /// Next-token logits. `x`: hidden states `[rows, d]` f32, before the final norm; result `[rows, vocab]`
    /// in the compute kind.
    ///
    /// # Panics
    /// The model was loaded without `lm_head`.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        let input = self.network.head_input(x, self.head());
        capped(self.head().product(&input).into_tensor(self.compute.kind), self.logit_cap())
    }

    /// The same, appended to `logits` in host memory, row by row, in f32: of the tokens asked for, or of all.
    pub(crate) fn append_logits(&self, x: &Tensor, asked: &[Option<&[u32]>], logits: &mut Vec<f32>) {
        time(Part::Head, || {
            let first = logits.len();
            self.head().append_some(&self.network.head_input(x, self.head()), asked, logits);
            if let Some(cap) = self.logit_cap() {
                logits[first..].iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
            }
        });
    }

    /// The bound of logits, if there is one.
    fn logit_cap(&self) -> Option<f32> {
        self.config.decoder()?.logit_cap.map(|cap| cap as f32)
    }

    fn head(&self) -> &Linear {
        self.lm_head.as_ref().expect("logits are asked only of a model loaded with lm_head")
    }

    fn encoder_decoder(&self) -> &dyn EncoderDecoder {
        match &self.network {
            Network::EncoderDecoder(model) => model.as_ref(),
            Network::DecoderOnly(_) => panic!("a decoder-only model has no encoder"),
        }
    }
}

fn decoder_only(stack: impl Stack + 'static) -> Network {
    Network::DecoderOnly(Box::new(stack))
}

impl Network {
    fn embedding(&self) -> &Tensor {
        match self {
            Network::DecoderOnly(stack) => stack.embedding(),
            Network::EncoderDecoder(model) => model.embedding(),
        }
    }

    fn head_input(&self, x: &Tensor, head: &Linear) -> LinearInput {
        match self {
            Network::DecoderOnly(stack) => stack.final_norm(x),
            Network::EncoderDecoder(model) => model.head_input(x, head),
        }
    }
}
