//! `config.json` of a checkpoint, as Hugging Face writes it: the shape of a model.
//!
//! Owns the reading, the checks and the writing of that file, and the list of tensors that follows from it. A
//! [`ModelConfig`] has the sizes that every family has, and a [`FamilyConfig`] with the constants of its own;
//! one file a family reads and writes them. A setting that Baton does not implement is refused by the name of
//! its field, so that no checkpoint runs with an option ignored.

mod bart;
mod decoder;
mod fields;
mod gemma;
mod gpt2;
mod granite;
mod linear_layers;
mod llama;
mod mistral;
mod olmo2;
mod output_rules;
mod phi3;
mod qwen;
mod rope_scaling;
mod rotary;
mod sliding;
mod smollm3;
mod t5;
mod tensors;
mod wrapper;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::fields::Fields;
pub use self::{
    bart::{BartActivation, BartConfig, BartKind, BartPositions, BartWiring, NormPlace},
    decoder::{BlockNorms, DecoderConfig, ExpertsConfig, GateActivation, QueryKeyNorms},
    fields::UnsupportedSetting,
    gpt2::Gpt2Config,
    linear_layers::LinearLayer,
    output_rules::OutputRules,
    rope_scaling::{LongRope, RopeScaling, Yarn},
    rotary::RotaryConfig,
    sliding::SlidingLayers,
    t5::{T5Config, T5FeedForward},
    tensors::{NamedShape, TensorLayout},
};
use crate::{BundleError, Family, PromptAttention, SafetensorsFile, file::read_bytes};

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

impl WeightDtype {
    /// Its name in `config.json`.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }
}

/// Shape and constants of a checkpoint, whatever its family.
///
/// Read from and written to a Hugging Face `config.json`; [`ModelConfig::read`] lists the refused settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width of the hidden states, `d_model`.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks in the checkpoint, or in its encoder; a bundle may run fewer.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Longest sequence the checkpoint was made for, in tokens. Only a family with a table of positions
    /// cannot go beyond: [`ModelConfig::max_positions`].
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Token that starts a sequence; in an encoder-decoder, the output.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; may be empty.
    pub eos_token_ids: Vec<u32>,
    /// The parts of an output that the model does not choose.
    pub output_rules: OutputRules,
    /// Number type of the tensors on disk.
    pub dtype: WeightDtype,
    /// The family and its own constants.
    pub family: FamilyConfig,
}

/// A family with the constants that only its members have.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a process has a few, and copies them rarely")]
pub enum FamilyConfig {
    /// The decoder-only families with rotary positions: Llama and its many relatives.
    Decoder(DecoderConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// T5 1.0 and 1.1, Flan-T5: encoder and decoder.
    T5(T5Config),
    /// mT5: T5 1.1 with a large vocabulary.
    Mt5(T5Config),
    /// UMT5: mT5 with a table of relative positions in each block.
    Umt5(T5Config),
    /// BART and its kin: mBART, Marian, M2M-100, Pegasus, Bergamot's students.
    Bart(BartConfig),
}

/// The shape of models that read with an encoder and write with a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderDecoderShape {
    /// Blocks of the decoder.
    pub num_decoder_layers: usize,
    /// A decoder block's access to the earlier output.
    pub past: DecoderPast,
}

/// A decoder's access to its earlier output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderPast {
    /// It attends to it.
    Attention,
    /// A state, as wide as the hidden states, runs along with it.
    Recurrence,
}

/// How one family reads and writes its `config.json` and names its tensors.
struct FamilyFile {
    family: Family,
    /// `model_type` in the file.
    model_type: &'static str,
    read: fn(&Fields<'_>) -> Result<ModelConfig, UnsupportedSetting>,
}

const FAMILY_FILES: [FamilyFile; 23] = [
    FamilyFile { family: Family::Llama, model_type: "llama", read: llama::read },
    FamilyFile { family: Family::Mistral, model_type: "mistral", read: mistral::read_mistral },
    FamilyFile { family: Family::Ministral, model_type: "ministral", read: mistral::read_ministral },
    FamilyFile { family: Family::Ministral3, model_type: "ministral3", read: mistral::read_ministral3 },
    FamilyFile { family: Family::Qwen2, model_type: "qwen2", read: qwen::read_qwen2 },
    FamilyFile { family: Family::Qwen3, model_type: "qwen3", read: qwen::read_qwen3 },
    FamilyFile { family: Family::Qwen3Moe, model_type: "qwen3_moe", read: qwen::read_qwen3_moe },
    FamilyFile { family: Family::Gemma2, model_type: "gemma2", read: gemma::read_gemma2 },
    FamilyFile { family: Family::Gemma3, model_type: "gemma3_text", read: gemma::read_gemma3 },
    FamilyFile { family: Family::Phi3, model_type: "phi3", read: phi3::read },
    FamilyFile { family: Family::Olmo2, model_type: "olmo2", read: olmo2::read },
    FamilyFile { family: Family::Granite, model_type: "granite", read: granite::read },
    FamilyFile { family: Family::Smollm3, model_type: "smollm3", read: smollm3::read },
    FamilyFile { family: Family::Gpt2, model_type: "gpt2", read: gpt2::read },
    FamilyFile { family: Family::T5, model_type: "t5", read: t5::read_t5 },
    FamilyFile { family: Family::Mt5, model_type: "mt5", read: t5::read_mt5 },
    FamilyFile { family: Family::Umt5, model_type: "umt5", read: t5::read_umt5 },
    FamilyFile { family: Family::Bart, model_type: "bart", read: bart::read_bart },
    FamilyFile { family: Family::Mbart, model_type: "mbart", read: bart::read_mbart },
    FamilyFile { family: Family::M2m100, model_type: "m2m_100", read: bart::read_m2m_100 },
    FamilyFile { family: Family::Marian, model_type: "marian", read: bart::read_marian },
    FamilyFile { family: Family::Pegasus, model_type: "pegasus", read: bart::read_pegasus },
    FamilyFile { family: Family::Bergamot, model_type: "bergamot", read: bart::read_bergamot },
];

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not such JSON; its `model_type` is not of a family that Baton has; a
    /// field is missing or says something that Baton does not implement; a dimension is out of bounds or the
    /// heads do not divide.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let bytes = read_bytes(path)?;
        let json: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
        let json = wrapper::text_model(json);
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let file = FAMILY_FILES.iter().find(|file| file.model_type == model_type).ok_or_else(|| {
            BundleError::UnsupportedFamily {
                path: path.to_owned(),
                family: model_type.to_owned(),
                supported: FAMILY_FILES.map(|file| file.model_type).join(", "),
            }
        })?;
        Fields::new(&json)
            .and_then(|fields| {
                let mut config = (file.read)(&fields)?;
                config.output_rules.read(&fields)?;
                config.checked()
            })
            .map_err(|reason| BundleError::UnsupportedConfig { path: path.to_owned(), reason })
    }

    /// Adds the output rules of a `generation_config.json`.
    ///
    /// # Errors
    /// The file has a setting that Baton does not implement.
    pub fn add_output_rules(&mut self, generation: &Map<String, Value>) -> Result<(), UnsupportedSetting> {
        self.output_rules.read(&Fields::new(generation)?)
    }

    /// Reads the `config.json` of a directory that has `model.safetensors` beside it.
    ///
    /// T5's files do not tell whether the head is the embedding matrix, because releases of transformers
    /// write different values there. The weights decide.
    ///
    /// # Errors
    /// As for [`ModelConfig::read`], or the weights cannot be read.
    pub fn read_checkpoint(directory: &Path) -> Result<Self, BundleError> {
        let config = Self::read(&directory.join("config.json"))?;
        if config.encoder_decoder().is_none() {
            return Ok(config);
        }
        let weights = SafetensorsFile::open(&directory.join("model.safetensors"))?;
        config.tied_by_weights(|name| {
            weights.info(name).map(|_| weights.read(name).map(|tensor| tensor.bytes)).transpose()
        })
    }

    /// The same config, with the head of an encoder-decoder taken for the embedding matrix if there is no
    /// other, or one of the same numbers. `bytes_of` gives the bytes of a tensor, where the checkpoint has
    /// it.
    ///
    /// # Errors
    /// An error of `bytes_of`.
    pub fn tied_by_weights(
        mut self,
        bytes_of: impl Fn(&str) -> Result<Option<Vec<u8>>, BundleError>,
    ) -> Result<Self, BundleError> {
        if self.encoder_decoder().is_some() {
            self.tie_word_embeddings = match bytes_of("lm_head.weight")? {
                None => true,
                head => head == bytes_of(&self.embedding_name())?,
            };
        }
        Ok(self)
    }

    /// The file's text, with every field present and a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = match &self.family {
            FamilyConfig::Decoder(decoder) => decoder::write(self, decoder),
            FamilyConfig::Gpt2(gpt2) => gpt2::write(self, gpt2),
            FamilyConfig::T5(t5) | FamilyConfig::Mt5(t5) | FamilyConfig::Umt5(t5) => t5::write(self, t5),
            FamilyConfig::Bart(bart) => bart::write(self, bart),
        };
        let mut text = serde_json::to_string_pretty(&json).expect("a config has only strings and numbers");
        text.push('\n');
        text
    }

    /// Passes on a config whose dimensions are usable together. The bounds keep a nonsense file from asking
    /// for more memory than any machine has.
    ///
    /// # Errors
    /// A dimension is zero, too large, or does not go with another.
    pub fn checked(self) -> Result<Self, UnsupportedSetting> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let name = |field| self.field_name(field);
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return Err(UnsupportedSetting::new(name(field), &size, "a number from 1 to 2^24"));
        }
        if !(1..=1000).contains(&self.num_hidden_layers) {
            let field = name("num_hidden_layers");
            return Err(UnsupportedSetting::new(field, &self.num_hidden_layers, "1 to 1000"));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let supported = "a divisor of num_attention_heads";
            return Err(UnsupportedSetting::new("num_key_value_heads", &self.num_key_value_heads, supported));
        }
        if !(1..=1 << 16).contains(&self.head_dim) {
            return Err(UnsupportedSetting::new(name("head_dim"), &self.head_dim, "a number from 1 to 2^16"));
        }
        self.output_rules.check(self.vocab_size)?;
        match &self.family {
            FamilyConfig::Decoder(decoder) => decoder.check(&self)?,
            FamilyConfig::Gpt2(gpt2) => gpt2.check(&self)?,
            FamilyConfig::T5(t5) | FamilyConfig::Mt5(t5) | FamilyConfig::Umt5(t5) => t5.check(&self)?,
            FamilyConfig::Bart(bart) => bart.check(&self)?,
        }
        Ok(self)
    }

    /// The family's own name for a field of this struct.
    #[must_use]
    pub fn field_name(&self, field: &'static str) -> &'static str {
        match &self.family {
            FamilyConfig::Gpt2(_) => gpt2::field_name(field),
            FamilyConfig::T5(_) | FamilyConfig::Mt5(_) | FamilyConfig::Umt5(_) => t5::field_name(field),
            FamilyConfig::Bart(_) => bart::field_name(field),
            _ => field,
        }
    }

    /// The family, as a bundle's manifest names it.
    #[must_use]
    pub fn family(&self) -> Family {
        match &self.family {
            FamilyConfig::Decoder(decoder) => decoder.family,
            FamilyConfig::Gpt2(_) => Family::Gpt2,
            FamilyConfig::T5(_) => Family::T5,
            FamilyConfig::Mt5(_) => Family::Mt5,
            FamilyConfig::Umt5(_) => Family::Umt5,
            FamilyConfig::Bart(bart) => match bart.kind {
                BartKind::Bart => Family::Bart,
                BartKind::Mbart => Family::Mbart,
                BartKind::M2m100 => Family::M2m100,
                BartKind::Marian => Family::Marian,
                BartKind::Pegasus => Family::Pegasus,
                BartKind::Bergamot => Family::Bergamot,
            },
        }
    }

    /// The differences of a decoder-only model with rotary positions from Llama, if it is such a model.
    #[must_use]
    pub fn decoder(&self) -> Option<&DecoderConfig> {
        match &self.family {
            FamilyConfig::Decoder(decoder) => Some(decoder),
            _ => None,
        }
    }

    /// The shape of a model that reads with an encoder and writes with a decoder, if it is one.
    #[must_use]
    pub fn encoder_decoder(&self) -> Option<EncoderDecoderShape> {
        let (num_decoder_layers, past) = match &self.family {
            FamilyConfig::T5(t5) | FamilyConfig::Mt5(t5) | FamilyConfig::Umt5(t5) => {
                (t5.num_decoder_layers, DecoderPast::Attention)
            }
            FamilyConfig::Bart(bart) => (bart.num_decoder_layers, bart.kind.wiring(self.hidden_size).past),
            _ => return None,
        };
        Some(EncoderDecoderShape { num_decoder_layers, past })
    }

    /// The prompt positions that a prompt position sees when the model reads as in its training.
    #[must_use]
    pub fn prompt_attention(&self) -> PromptAttention {
        match self.encoder_decoder() {
            Some(_) => PromptAttention::Bidirectional,
            None => PromptAttention::Causal,
        }
    }

    /// Bytes of a number of the tensors on disk.
    pub(crate) fn dtype_num_bytes(&self) -> u64 {
        match self.dtype {
            WeightDtype::F32 => 4,
            WeightDtype::Bf16 | WeightDtype::F16 => 2,
        }
    }

    /// Query heads per key and value head.
    #[must_use]
    pub fn query_heads_per_kv_head(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// The reach of a token of a block, itself included; none if it sees all earlier tokens.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        match &self.family {
            FamilyConfig::Decoder(decoder) => decoder.sliding.as_ref()?.window(layer),
            _ => None,
        }
    }

    /// Maximum of tokens in a sequence, if the family looks up positions in a table or rotates by other
    /// frequencies beyond. With an encoder, prompt and output are two sequences; otherwise they are one.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        match &self.family {
            FamilyConfig::Gpt2(_) => Some(self.max_position_embeddings),
            FamilyConfig::Decoder(decoder) => decoder.rotary.max_positions(),
            FamilyConfig::Bart(bart) => match bart.kind.wiring(self.hidden_size).positions {
                BartPositions::Learned { .. } => Some(self.max_position_embeddings),
                BartPositions::Sinusoidal { .. } => None,
            },
            _ => None,
        }
    }

    /// Tokens of the longest sequence for a prompt and an output of these lengths.
    #[must_use]
    pub fn longest_sequence(&self, prompt_tokens: usize, new_tokens: usize) -> usize {
        match self.encoder_decoder() {
            Some(_) => prompt_tokens.max(new_tokens),
            None => prompt_tokens.saturating_add(new_tokens),
        }
    }

    /// Longest prompt for which the model has positions, beside an output of this length. `None`: its
    /// positions have no end.
    #[must_use]
    pub fn longest_prompt(&self, new_tokens: usize) -> Option<usize> {
        let of_output = if self.encoder_decoder().is_some() { 0 } else { new_tokens };
        Some(self.max_positions()?.saturating_sub(of_output))
    }

    /// Names and shapes of the checkpoint's tensors, by their place in the model.
    #[must_use]
    pub fn tensor_layout(&self) -> TensorLayout {
        match &self.family {
            FamilyConfig::Decoder(decoder) => decoder::tensors(self, decoder),
            FamilyConfig::Gpt2(_) => gpt2::tensors(self),
            FamilyConfig::T5(t5) | FamilyConfig::Mt5(t5) | FamilyConfig::Umt5(t5) => t5::tensors(self, t5),
            FamilyConfig::Bart(bart) => bart::tensors(self, bart),
        }
    }

    /// Name and shape of every tensor of the checkpoint, embedding first, in the order of the forward pass.
    #[must_use]
    pub fn tensor_shapes(&self) -> Vec<NamedShape> {
        self.tensor_layout().all()
    }

    /// Name of the embedding matrix, `[vocab_size, hidden_size]`.
    #[must_use]
    pub fn embedding_name(&self) -> String {
        self.tensor_layout().before.swap_remove(0).0
    }
}

impl Family {
    /// The family's name in `config.json`: its `model_type`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        FAMILY_FILES.iter().find(|file| file.family == self).expect("every family has a file").model_type
    }
}
