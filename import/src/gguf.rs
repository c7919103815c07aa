//! GGUF files (the format of llama.cpp) read as Hugging Face checkpoints.
//!
//! The `candle` library parses the file and dequantizes its tensors. This file owns the translation: names,
//! the row order of rotary projections, and the config. One [`Architecture`] in [`ARCHITECTURES`] says all
//! that is particular to a family.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use baton_bundle::{BundleError, FamilyConfig, LlamaConfig, ModelConfig, OutputRules, WeightDtype, io_error};
use candle_core::Device;
use candle_core::quantized::gguf_file::Content;

use crate::gguf_metadata::GgufMetadata;
use crate::{Checkpoint, ImportError, gguf_tokenizer};

/// How one architecture of GGUF becomes a Hugging Face checkpoint.
struct Architecture {
    /// `general.architecture` in the file, and the prefix of its metadata keys.
    name: &'static str,
    /// Builds the config from the metadata.
    config: fn(&GgufMetadata<'_>, &Content) -> Result<ModelConfig, ImportError>,
    /// Tensors outside the blocks.
    tensors: &'static [TensorName],
    /// Tensors of block `N`, without `blk.N.` and `model.layers.N.`.
    block_tensors: &'static [TensorName],
}

struct TensorName {
    gguf: &'static str,
    hugging_face: &'static str,
    rows: Rows,
}

/// Order of a projection's output rows.
#[derive(Clone, Copy)]
enum Rows {
    AsStored,
    /// GGUF stores the two halves of each rotary query head interleaved; Hugging Face one after the other.
    InterleavedByQueryHead,
    /// The same, by key head.
    InterleavedByKeyHead,
}

const fn tensor(gguf: &'static str, hugging_face: &'static str) -> TensorName {
    TensorName { gguf, hugging_face, rows: Rows::AsStored }
}

const ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "llama",
    config: llama_config,
    tensors: &[
        tensor("token_embd.weight", "model.embed_tokens.weight"),
        tensor("output_norm.weight", "model.norm.weight"),
        tensor("output.weight", "lm_head.weight"),
    ],
    block_tensors: &[
        tensor("attn_norm.weight", "input_layernorm.weight"),
        TensorName {
            gguf: "attn_q.weight",
            hugging_face: "self_attn.q_proj.weight",
            rows: Rows::InterleavedByQueryHead,
        },
        TensorName {
            gguf: "attn_k.weight",
            hugging_face: "self_attn.k_proj.weight",
            rows: Rows::InterleavedByKeyHead,
        },
        tensor("attn_v.weight", "self_attn.v_proj.weight"),
        tensor("attn_output.weight", "self_attn.o_proj.weight"),
        tensor("ffn_norm.weight", "post_attention_layernorm.weight"),
        tensor("ffn_gate.weight", "mlp.gate_proj.weight"),
        tensor("ffn_up.weight", "mlp.up_proj.weight"),
        tensor("ffn_down.weight", "mlp.down_proj.weight"),
    ],
}];

fn llama_config(metadata: &GgufMetadata<'_>, content: &Content) -> Result<ModelConfig, ImportError> {
    // Rescaled for long contexts. (Scaling by a table shows as a tensor, `rope_freqs`, and is refused as
    // such.)
    if let Some(scaling) = metadata.optional_string("llama.rope.scaling.type")?
        && scaling != "none"
    {
        let problem = format!("is `{scaling}`; only a rotary embedding without scaling is supported");
        return Err(metadata.problem("llama.rope.scaling.type", problem));
    }
    if let Some(experts) = metadata.optional_unsigned("llama.expert_count")?
        && experts > 0
    {
        let problem = format!("is {experts}; mixtures of experts are not supported");
        return Err(metadata.problem("llama.expert_count", problem));
    }
    let hidden_size = metadata.unsigned("llama.embedding_length")?;
    let num_attention_heads = metadata.unsigned("llama.attention.head_count")?;
    if num_attention_heads == 0 {
        return Err(metadata.problem("llama.attention.head_count", "is 0"));
    }
    let num_key_value_heads = metadata.optional_unsigned("llama.attention.head_count_kv")?;
    let num_key_value_heads = num_key_value_heads.unwrap_or(num_attention_heads);
    let key_length = metadata.optional_unsigned("llama.attention.key_length")?;
    let head_dim = key_length.unwrap_or(hidden_size / num_attention_heads);
    let rotary_dim = metadata.optional_unsigned("llama.rope.dimension_count")?.unwrap_or(head_dim);
    if rotary_dim != head_dim {
        let problem = format!("is {rotary_dim}; only rotation of the whole head ({head_dim}) is supported");
        return Err(metadata.problem("llama.rope.dimension_count", problem));
    }
    Ok(ModelConfig {
        hidden_size,
        intermediate_size: metadata.unsigned("llama.feed_forward_length")?,
        num_hidden_layers: metadata.unsigned("llama.block_count")?,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        vocab_size: metadata.strings("tokenizer.ggml.tokens")?.len(),
        max_position_embeddings: metadata.unsigned("llama.context_length")?,
        tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
        bos_token_id: metadata.optional_token_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: metadata.optional_token_id("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
        output_rules: OutputRules::default(),
        dtype: WeightDtype::F32,
        family: FamilyConfig::Llama(LlamaConfig {
            rms_norm_eps: metadata.float("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: metadata.optional_float("llama.rope.freq_base")?.unwrap_or(10_000.0),
        }),
    })
}

/// An open GGUF file of a supported architecture, with all its tensors present and of the right shapes.
pub(super) struct GgufCheckpoint {
    path: PathBuf,
    reader: BufReader<File>,
    content: Content,
    architecture: &'static Architecture,
    config: ModelConfig,
}

impl GgufCheckpoint {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let mut reader = BufReader::new(file);
        let content = Content::read(&mut reader).map_err(gguf_error(path))?;
        let metadata = GgufMetadata::new(path, &content);
        let name = metadata.string("general.architecture")?;
        let architecture = ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
            BundleError::UnsupportedFamily {
                path: path.to_owned(),
                family: name.to_owned(),
                supported: ARCHITECTURES.iter().map(|known| known.name).collect::<Vec<_>>().join(", "),
            }
        })?;
        let config = (architecture.config)(&metadata, &content)?
            .checked()
            .map_err(|reason| BundleError::UnsupportedConfig { path: path.to_owned(), reason })?;
        let checkpoint = Self { path: path.to_owned(), reader, content, architecture, config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn tensor_problem(&self, tensor: &str, problem: impl Into<String>) -> BundleError {
        BundleError::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), problem: problem.into() }
    }

    /// The file's name for a Hugging Face tensor.
    fn gguf_name(&self, hugging_face: &str) -> (String, Rows) {
        let (prefix, names, rest) = match hugging_face.strip_prefix("model.layers.") {
            Some(rest) => {
                let (layer, rest) =
                    rest.split_once('.').expect("a block's tensor has a name after its number");
                (format!("blk.{layer}."), self.architecture.block_tensors, rest)
            }
            None => (String::new(), self.architecture.tensors, hugging_face),
        };
        let name = names.iter().find(|name| name.hugging_face == rest);
        let name = name.expect("the table has every tensor that a config of its family has");
        (format!("{prefix}{}", name.gguf), name.rows)
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let mut expected = BTreeSet::new();
        for (hugging_face, shape) in self.config.tensor_shapes() {
            let (name, _) = self.gguf_name(&hugging_face);
            let info = self.content.tensor_infos.get(&name);
            let found = info.ok_or_else(|| self.tensor_problem(&name, "is missing"))?.shape.dims();
            if found != shape {
                let problem = format!("has shape {found:?}, but the metadata says {shape:?}");
                return Err(self.tensor_problem(&name, problem));
            }
            expected.insert(name);
        }
        let mut names: Vec<&String> = self.content.tensor_infos.keys().collect();
        names.sort();
        match names.into_iter().find(|name| !expected.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(self.tensor_problem(name, "is not part of this architecture as Baton runs it")),
        }
    }
}

impl Checkpoint for GgufCheckpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let (gguf_name, rows) = self.gguf_name(name);
        let read = |reader: &mut BufReader<File>| {
            let tensor = self.content.tensor(reader, &gguf_name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
            tensor.flatten_all()?.to_vec1::<f32>()
        };
        let stored = read(&mut self.reader).map_err(gguf_error(&self.path))?;
        Ok(match rows {
            Rows::AsStored => stored,
            Rows::InterleavedByQueryHead => {
                join_halves(&stored, self.config.num_attention_heads, &self.config)
            }
            Rows::InterleavedByKeyHead => join_halves(&stored, self.config.num_key_value_heads, &self.config),
        })
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        gguf_tokenizer::files(&self.path, &self.content)
    }
}

/// The parser's errors end with a backtrace where one is asked for; an error message is one line.
fn gguf_error(path: &Path) -> impl Fn(candle_core::Error) -> ImportError {
    move |error| {
        let problem = error.to_string().lines().next().unwrap_or_default().to_owned();
        ImportError::Gguf { path: path.to_owned(), problem }
    }
}

/// Reorders the rows of each head from `0, h, 1, h+1, ...` (h: half the head) to `0, 1, ..., h, h+1, ...`.
fn join_halves(stored: &[f32], num_heads: usize, config: &ModelConfig) -> Vec<f32> {
    let (head_dim, half, width) = (config.head_dim, config.head_dim / 2, config.hidden_size);
    let mut joined = Vec::with_capacity(stored.len());
    for head in 0..num_heads {
        for row in 0..head_dim {
            let stored_row = head * head_dim + 2 * (row % half) + row / half;
            joined.extend_from_slice(&stored[stored_row * width..][..width]);
        }
    }
    joined
}
