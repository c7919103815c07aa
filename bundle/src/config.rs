//! `config.json` of the Llama family, as Hugging Face writes it: what a checkpoint says about its own shape.
//!
//! Owns the reading, the checks and the writing of that file. Both the LLM and the SLM of a bundle are
//! described by it, and `model/` builds its layers from it. A setting that Baton's Llama does not implement
//! is refused by the name of its field, so that no checkpoint runs with a silently ignored option.

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::BundleError;
use crate::file::read_bytes;

/// The `model_type` of the Llama family.
pub const LLAMA: &str = "llama";

/// Number type of a checkpoint's tensors, under the names that `config.json` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WeightDtype {
    /// IEEE single precision.
    #[default]
    #[serde(rename = "float32")]
    F32,
    /// The upper half of a single: 8 bits of exponent, 8 of significand.
    #[serde(rename = "bfloat16")]
    Bf16,
    /// IEEE half precision.
    #[serde(rename = "float16")]
    F16,
}

/// Shape and constants of a Llama checkpoint.
///
/// Reads from and writes to a Hugging Face `config.json`; see [`LlamaConfig::read`] for what is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HuggingFaceConfig", into = "HuggingFaceConfig")]
pub struct LlamaConfig {
    /// Width of the hidden states, `d_model`.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks in the checkpoint; a bundle may run fewer.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Longest sequence the checkpoint was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square before the root in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Token that starts a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; may be empty.
    pub eos_token_ids: Vec<u32>,
    /// Number type of the tensors on disk.
    pub dtype: WeightDtype,
}

impl LlamaConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not such JSON; the model type is not `llama`; the activation is not
    /// SiLU; attention or feed-forward layers have biases; the rotary embedding is scaled or partial; a
    /// dimension is zero or the heads do not divide.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let bytes = read_bytes(path)?;
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        if model_type != LLAMA {
            return Err(BundleError::UnsupportedFamily {
                path: path.to_owned(),
                family: model_type.to_owned(),
                supported: LLAMA.to_owned(),
            });
        }
        let raw: HuggingFaceConfig = serde_json::from_value(json)
            .map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
        raw.try_into().map_err(|reason: UnsupportedSetting| BundleError::UnsupportedConfig {
            path: path.into(),
            reason,
        })
    }

    /// Passes on a config whose dimensions are usable together. The bounds keep a nonsense file from asking for
    /// more memory than any machine has.
    pub(crate) fn checked(self) -> Result<Self, UnsupportedSetting> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return Err(UnsupportedSetting::new(field, &size, "a number from 1 to 2^24"));
        }
        if !(1..=1000).contains(&self.num_hidden_layers) {
            return Err(UnsupportedSetting::new("num_hidden_layers", &self.num_hidden_layers, "1 to 1000"));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let supported = "a divisor of num_attention_heads";
            return Err(UnsupportedSetting::new("num_key_value_heads", &self.num_key_value_heads, supported));
        }
        if !(2..=1 << 16).contains(&self.head_dim) || !self.head_dim.is_multiple_of(2) {
            return Err(UnsupportedSetting::new("head_dim", &self.head_dim, "an even number from 2 to 2^16"));
        }
        if !(self.rope_theta > 0.0 && self.rope_theta.is_finite()) {
            return Err(UnsupportedSetting::new("rope_theta", &self.rope_theta, "a positive number"));
        }
        Ok(self)
    }

    /// The file's text, with every field present and a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a config has only strings and numbers");
        text.push('\n');
        text
    }

    /// Query heads per key and value head.
    pub fn query_heads_per_kv_head(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Name and shape of every tensor of the checkpoint, embedding first, in the order of the forward pass.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let query_rows = self.num_attention_heads * self.head_dim;
        let kv_rows = self.num_key_value_heads * self.head_dim;
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            let block: [(&str, Vec<usize>); 9] = [
                ("input_layernorm.weight", vec![hidden]),
                ("self_attn.q_proj.weight", vec![query_rows, hidden]),
                ("self_attn.k_proj.weight", vec![kv_rows, hidden]),
                ("self_attn.v_proj.weight", vec![kv_rows, hidden]),
                ("self_attn.o_proj.weight", vec![hidden, query_rows]),
                ("post_attention_layernorm.weight", vec![hidden]),
                ("mlp.gate_proj.weight", vec![inner, hidden]),
                ("mlp.up_proj.weight", vec![inner, hidden]),
                ("mlp.down_proj.weight", vec![hidden, inner]),
            ];
            shapes.extend(block.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
        }
        shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            shapes.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        shapes
    }
}

/// A setting of a `config.json` that Baton's Llama does not implement.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{field}` is {value}, but only {supported} is supported")]
pub struct UnsupportedSetting {
    /// Path of the field, such as `rope_scaling.rope_type`.
    pub field: String,
    /// What the file says, as JSON.
    pub value: String,
    /// What would be accepted.
    pub supported: &'static str,
}

impl UnsupportedSetting {
    fn new(field: impl Into<String>, value: &dyn Display, supported: &'static str) -> Self {
        Self { field: field.into(), value: value.to_string(), supported }
    }
}

/// The file as it is on disk: older and newer spellings of the same settings side by side.
#[derive(Clone, Serialize, Deserialize)]
struct HuggingFaceConfig {
    #[serde(default)]
    architectures: Vec<String>,
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_max_position_embeddings")]
    max_position_embeddings: usize,
    #[serde(default = "default_rms_norm_eps")]
    rms_norm_eps: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_scaling: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rope_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    bos_token_id: Option<u32>,
    #[serde(default)]
    eos_token_id: Option<OneOrMany>,
    #[serde(default, alias = "torch_dtype")]
    dtype: Option<WeightDtype>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

// What transformers' LlamaConfig takes for a field that the file leaves out.
fn default_max_position_embeddings() -> usize {
    2048
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

fn default_hidden_act() -> String {
    "silu".to_owned()
}

const DEFAULT_ROPE_THETA: f64 = 10_000.0;

impl TryFrom<HuggingFaceConfig> for LlamaConfig {
    type Error = UnsupportedSetting;

    fn try_from(raw: HuggingFaceConfig) -> Result<Self, UnsupportedSetting> {
        if raw.model_type != LLAMA {
            return Err(UnsupportedSetting::new("model_type", &raw.model_type, "llama"));
        }
        if raw.hidden_act != "silu" {
            return Err(UnsupportedSetting::new("hidden_act", &raw.hidden_act, "silu"));
        }
        for (field, biased) in [("attention_bias", raw.attention_bias), ("mlp_bias", raw.mlp_bias)] {
            if biased {
                return Err(UnsupportedSetting::new(field, &true, "false"));
            }
        }
        let rope_theta = rope_theta(&raw)?;

        let heads = raw.num_attention_heads;
        let config = Self {
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(heads),
            head_dim: raw.head_dim.or(raw.hidden_size.checked_div(heads)).unwrap_or(0),
            vocab_size: raw.vocab_size,
            max_position_embeddings: raw.max_position_embeddings,
            rms_norm_eps: raw.rms_norm_eps,
            rope_theta,
            tie_word_embeddings: raw.tie_word_embeddings,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            dtype: raw.dtype.unwrap_or_default(),
        };
        config.checked()
    }
}

/// Finds the rotary base at the top level or in either of the two maps, and refuses any rescaling of it.
fn rope_theta(raw: &HuggingFaceConfig) -> Result<f64, UnsupportedSetting> {
    let mut theta = raw.rope_theta;
    for (field, map) in [("rope_scaling", &raw.rope_scaling), ("rope_parameters", &raw.rope_parameters)] {
        for (key, value) in map.iter().flatten() {
            let refused =
                |supported| Err(UnsupportedSetting::new(format!("{field}.{key}"), value, supported));
            match key.as_str() {
                "rope_type" | "type" if value != "default" => return refused("\"default\""),
                "rope_type" | "type" => {}
                "partial_rotary_factor" if value.as_f64() != Some(1.0) => return refused("1.0"),
                "partial_rotary_factor" => {}
                "rope_theta" => match value.as_f64() {
                    Some(value) => theta = Some(value),
                    None => return refused("a number"),
                },
                _ => return refused("a plain rotary embedding (rope_type and rope_theta)"),
            }
        }
    }
    Ok(theta.unwrap_or(DEFAULT_ROPE_THETA))
}

impl From<LlamaConfig> for HuggingFaceConfig {
    fn from(config: LlamaConfig) -> Self {
        let mut rope_parameters = Map::new();
        rope_parameters.insert("rope_theta".to_owned(), config.rope_theta.into());
        rope_parameters.insert("rope_type".to_owned(), "default".into());
        Self {
            architectures: vec!["LlamaForCausalLM".to_owned()],
            model_type: LLAMA.to_owned(),
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: Some(config.num_key_value_heads),
            head_dim: Some(config.head_dim),
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            rms_norm_eps: config.rms_norm_eps,
            // Both spellings: releases of transformers before 5 know only the first, later ones the second.
            rope_theta: Some(config.rope_theta),
            rope_scaling: None,
            rope_parameters: Some(rope_parameters),
            tie_word_embeddings: config.tie_word_embeddings,
            hidden_act: default_hidden_act(),
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: config.bos_token_id,
            eos_token_id: match config.eos_token_ids[..] {
                [] => None,
                [id] => Some(OneOrMany::One(id)),
                _ => Some(OneOrMany::Many(config.eos_token_ids)),
            },
            dtype: Some(config.dtype),
        }
    }
}
