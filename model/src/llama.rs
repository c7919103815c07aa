//! The Llama family: SmolLM2 as LLM, and Baton's own decoder-only small models.
//!
//! Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU MLP. Parameter names are the checkpoint's.
//! Reference: Touvron et al., arXiv 2302.13971, and Hugging Face `LlamaForCausalLM`.

use baton_bundle::LlamaConfig;
use tch::Tensor;

use crate::{Attention, Compute, Linear, ModelError, Rope, TensorSource, rms_norm};

/// A Llama-family model with any number of its blocks.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    embed_tokens: Tensor, // [vocab, d]
    blocks: Vec<Block>,
    norm: Tensor, // [d] f32
    lm_head: Option<Linear>,
}

#[derive(Debug)]
struct Block {
    input_layernorm: Tensor,          // [d] f32
    qkv_proj: Linear,                 // d -> (heads + 2 kv_heads) * head_dim
    o_proj: Linear,                   // heads * head_dim -> d
    post_attention_layernorm: Tensor, // [d] f32
    gate_up_proj: Linear,             // d -> 2 ff
    down_proj: Linear,                // ff -> d
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

        let weight = |name: &str, shape: &[i64]| -> Result<Tensor, ModelError> {
            Ok(source.tensor(name, shape)?.to_device(compute.device).to_kind(compute.kind))
        };
        let norm = |name: &str| -> Result<Tensor, ModelError> {
            Ok(source.tensor(name, &[d])?.to_device(compute.device).to_kind(tch::Kind::Float))
        };

        let embed_tokens = weight("model.embed_tokens.weight", &[vocab, d])?;
        let blocks = (0..parts.blocks)
            .map(|i| {
                let name = |suffix: &str| format!("model.layers.{i}.{suffix}.weight");
                Ok(Block {
                    input_layernorm: norm(&name("input_layernorm"))?,
                    qkv_proj: Linear::stacked(&[
                        weight(&name("self_attn.q_proj"), &[q_width, d])?,
                        weight(&name("self_attn.k_proj"), &[kv_width, d])?,
                        weight(&name("self_attn.v_proj"), &[kv_width, d])?,
                    ]),
                    o_proj: Linear::new(weight(&name("self_attn.o_proj"), &[d, q_width])?, None),
                    post_attention_layernorm: norm(&name("post_attention_layernorm"))?,
                    gate_up_proj: Linear::stacked(&[
                        weight(&name("mlp.gate_proj"), &[ff, d])?,
                        weight(&name("mlp.up_proj"), &[ff, d])?,
                    ]),
                    down_proj: Linear::new(weight(&name("mlp.down_proj"), &[d, ff])?, None),
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let lm_head = if !parts.lm_head {
            None
        } else if config.tie_word_embeddings {
            Some(Linear::new(embed_tokens.shallow_clone(), None))
        } else {
            Some(Linear::new(weight("lm_head.weight", &[vocab, d])?, None))
        };
        Ok(Self { config: config.clone(), embed_tokens, blocks, norm: norm("model.norm.weight")?, lm_head })
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

    /// All blocks, without the final norm. `x`: `[rows, d]` f32; `positions`: `[rows]` int64; `dropout`: probability with which an
    /// element of a block's contribution is dropped, 0 outside training. Result: hidden states `[rows, d]` f32.
    pub fn forward(
        &self,
        x: Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
        dropout: f64,
    ) -> Tensor {
        let rope = Rope::new(positions, self.config.head_dim as i64, self.config.rope_theta);
        let mut x = x;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &self.config, layer, &rope, attention, dropout);
        }
        x
    }

    /// Next-token logits. `x`: hidden states `[rows, d]` f32, before the final norm; result `[rows, vocab]` in the compute type.
    ///
    /// # Panics
    /// The model was loaded without `lm_head`.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        let head = self.lm_head.as_ref().expect("logits are asked only of a model loaded with lm_head");
        head.forward(&rms_norm(x, &self.norm, self.config.rms_norm_eps))
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor, // [rows, d] f32
        config: &LlamaConfig,
        layer: usize,
        rope: &Rope,
        attention: &mut dyn Attention,
        dropout: f64,
    ) -> Tensor {
        let (heads, kv_heads) = (config.num_attention_heads as i64, config.num_key_value_heads as i64);
        let rows = x.size()[0];
        let train = dropout > 0.0;

        let normed = rms_norm(&x, &self.input_layernorm, config.rms_norm_eps);
        let qkv = self.qkv_proj.forward(&normed).view([rows, heads + 2 * kv_heads, config.head_dim as i64]);
        let parts = qkv.split_with_sizes([heads, kv_heads, kv_heads], 1);
        let attended = attention.attend(layer, &rope.apply(&parts[0]), &rope.apply(&parts[1]), &parts[2]);
        let x = x + self.o_proj.forward(&attended).dropout(dropout, train);

        let normed = rms_norm(&x, &self.post_attention_layernorm, config.rms_norm_eps);
        let gate_up = self.gate_up_proj.forward(&normed).chunk(2, -1);
        let x_mlp = self.down_proj.forward(&(gate_up[0].silu() * &gate_up[1]));
        x + x_mlp.dropout(dropout, train)
    }
}
