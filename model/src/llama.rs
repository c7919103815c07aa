//! The Llama family: SmolLM2 as LLM, and Baton's own decoder-only small models.
//!
//! Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU MLP. Parameter names are the checkpoint's.
//! Reference: Touvron et al., arXiv 2302.13971, and Hugging Face `LlamaForCausalLM`.

use baton_bundle::LlamaConfig;
use tch::{Kind, Tensor};

use crate::{
    Attention, Compute, Linear, ModelError, TensorSource,
    layers::{RmsNorm, Rope},
    step_time::{Part, time},
};

/// A Llama-family model with any number of its blocks.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    compute: Compute,
    embed_tokens: Tensor, // [vocab, d]
    blocks: Vec<Block>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
    rope: Rope,
}

#[derive(Debug)]
struct Block {
    kind: Kind, // of queries, keys and values
    input_layernorm: RmsNorm,
    qkv_proj: Linear, // d -> (heads + 2 kv_heads) * head_dim
    o_proj: Linear,   // heads * head_dim -> d
    post_attention_layernorm: RmsNorm,
    gate_up_proj: Linear, // d -> 2 ff
    down_proj: Linear,    // ff -> d
}

/// Which parts of a checkpoint a model is made of.
#[derive(Debug, Clone, Copy)]
pub struct LlamaParts {
    /// How many blocks, counted from the embedding.
    pub blocks: usize,
    /// Whether next-token logits will be asked for. An LLM that only encodes has no head.
    pub lm_head: bool,
}

impl Llama {
    /// Builds a model from named tensors, converted to the compute type; norm weights stay f32.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than `config` says, or more blocks are asked for than `config` has.
    pub fn load(
        config: &LlamaConfig,
        source: &dyn TensorSource,
        parts: LlamaParts,
        compute: Compute,
    ) -> Result<Self, ModelError> {
        if parts.blocks > config.num_hidden_layers {
            return Err(ModelError::Unsupported(format!(
                "{} blocks are asked for, config.json has num_hidden_layers = {}",
                parts.blocks, config.num_hidden_layers
            )));
        }
        let d = config.hidden_size as i64;
        let ff = config.intermediate_size as i64;
        let vocab = config.vocab_size as i64;
        let q_width = (config.num_attention_heads * config.head_dim) as i64;
        let kv_width = (config.num_key_value_heads * config.head_dim) as i64;

        let weight = |name: &str, shape: &[i64]| source.tensor(name, shape);
        let norm = |name: &str| -> Result<RmsNorm, ModelError> {
            Ok(RmsNorm::new(&source.tensor(name, &[d])?, config.rms_norm_eps, compute))
        };

        let embed_tokens = weight("model.embed_tokens.weight", &[vocab, d])?;
        let embed_tokens = embed_tokens.to_device(compute.device).to_kind(compute.kind);
        let blocks = (0..parts.blocks)
            .map(|i| {
                let name = |suffix: &str| format!("model.layers.{i}.{suffix}.weight");
                Ok(Block {
                    kind: compute.kind,
                    input_layernorm: norm(&name("input_layernorm"))?,
                    qkv_proj: Linear::stacked(
                        &[
                            weight(&name("self_attn.q_proj"), &[q_width, d])?,
                            weight(&name("self_attn.k_proj"), &[kv_width, d])?,
                            weight(&name("self_attn.v_proj"), &[kv_width, d])?,
                        ],
                        compute,
                    ),
                    o_proj: Linear::new(&weight(&name("self_attn.o_proj"), &[d, q_width])?, None, compute),
                    post_attention_layernorm: norm(&name("post_attention_layernorm"))?,
                    gate_up_proj: Linear::stacked(
                        &[weight(&name("mlp.gate_proj"), &[ff, d])?, weight(&name("mlp.up_proj"), &[ff, d])?],
                        compute,
                    ),
                    down_proj: Linear::new(&weight(&name("mlp.down_proj"), &[d, ff])?, None, compute),
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let lm_head = if !parts.lm_head {
            None
        } else if config.tie_word_embeddings {
            Some(Linear::new(&embed_tokens, None, compute))
        } else {
            Some(Linear::new(&weight("lm_head.weight", &[vocab, d])?, None, compute))
        };
        let rope = Rope::new(config.head_dim, config.rope_theta, compute);
        Ok(Self {
            config: config.clone(),
            compute,
            embed_tokens,
            blocks,
            norm: norm("model.norm.weight")?,
            lm_head,
            rope,
        })
    }

    /// The config the model was built from.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// How many blocks the model has, at most `config().num_hidden_layers`.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Token embeddings. `tokens`: `[rows]` int64; result `[rows, d]` f32.
    pub fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.embed_tokens, tokens, -1, false, false).to_kind(tch::Kind::Float)
    }

    /// All blocks, without the final norm. `x`: `[rows, d]` f32, whose memory may be reused; `positions`: `[rows]` int64; `dropout`:
    /// probability with which an element of a block's contribution is dropped, 0 outside training. Result: hidden states `[rows, d]`
    /// f32.
    pub fn forward(
        &self,
        x: Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
        dropout: f64,
    ) -> Tensor {
        if self.blocks.is_empty() || positions.numel() == 0 {
            return x;
        }
        let largest_position = positions.max().int64_value(&[]);
        let mut pass =
            Pass { rope: &self.rope, positions: (positions, largest_position), attention, dropout };
        let mut x = x;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &self.config, layer, &mut pass);
        }
        x
    }

    /// Next-token logits. `x`: hidden states `[rows, d]` f32, before the final norm; result `[rows, vocab]` in the compute kind.
    ///
    /// # Panics
    /// The model was loaded without `lm_head`.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        let head = self.head();
        head.product(&self.norm.forward(x)).into_tensor(self.compute.kind)
    }

    /// The same, in host memory, row by row, in f32.
    pub(crate) fn copy_logits(&self, x: &Tensor, logits: &mut Vec<f32>) {
        time(Part::Head, || self.head().product(&self.norm.forward(x)).copy_to(logits));
    }

    fn head(&self) -> &Linear {
        self.lm_head.as_ref().expect("logits are asked only of a model loaded with lm_head")
    }
}

/// What all blocks of one pass share.
struct Pass<'a> {
    rope: &'a Rope,
    positions: (&'a Tensor, i64), // [rows] int64, and the largest
    attention: &'a mut dyn Attention,
    dropout: f64,
}

impl Block {
    /// `x`: `[rows, d]` f32
    fn forward(&self, x: Tensor, config: &LlamaConfig, layer: usize, pass: &mut Pass<'_>) -> Tensor {
        let (heads, kv_heads) = (config.num_attention_heads as i64, config.num_key_value_heads as i64);
        let rows = x.size()[0];

        let normed = time(Part::Norm, || self.input_layernorm.forward(&x));
        let qkv = time(Part::Linear, || self.qkv_proj.product(&normed)); // [rows, (heads + 2 kv_heads) * head_dim]
        let qkv = time(Part::Rotate, || {
            let qkv = qkv.into_tensor(self.kind).view([rows, heads + 2 * kv_heads, config.head_dim as i64]);
            pass.rope.apply(qkv, heads + kv_heads, pass.positions)
        });
        let attended = time(Part::Attention, || {
            let parts = qkv.split_with_sizes([heads, kv_heads, kv_heads], 1);
            pass.attention.attend(layer, &parts[0], &parts[1], &parts[2]) // [rows, heads * head_dim]
        });
        let attended = time(Part::Activation, || self.o_proj.input(&attended));
        let output = time(Part::Linear, || self.o_proj.product(&attended));
        let x = time(Part::Activation, || output.add_to(x, pass.dropout));

        let normed = time(Part::Norm, || self.post_attention_layernorm.forward(&x));
        let gate_up = time(Part::Linear, || self.gate_up_proj.product(&normed)); // [rows, 2 ff]
        let gated = time(Part::Activation, || gate_up.swiglu());
        let output = time(Part::Linear, || self.down_proj.product(&gated));
        time(Part::Activation, || output.add_to(x, pass.dropout))
    }
}
