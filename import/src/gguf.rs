//! GGUF files (the format of llama.cpp) read as Hugging Face checkpoints.
//!
//! The `candle` library parses the file and dequantizes its tensors, k-quants included. This file owns the
//! translation of tensors: names, the row order of rotary projections, and norms.
//! `gguf_architectures.rs` makes the config.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use baton_bundle::{BundleError, ModelConfig, io_error};
use candle_core::Device;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo};

use crate::gguf_architectures::{ARCHITECTURES, Architecture, FREQUENCY_TENSORS, Place, Source};
use crate::gguf_metadata::GgufMetadata;
use crate::{Checkpoint, ImportError, gguf_tokenizer};

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
                supported: ARCHITECTURES.each_ref().map(|known| known.name).join(", "),
            }
        })?;
        let mut factors = |name: &str| {
            let info = content.tensor_infos.get(name);
            info.map(|info| numbers(&mut reader, &content, (info, None))).transpose()
        };
        let [of_llama, short, long] = FREQUENCY_TENSORS;
        let frequency_factors =
            [factors(of_llama), factors(short), factors(long)].map(|result| result.map_err(gguf_error(path)));
        let [of_llama, short, long] = frequency_factors;
        let frequency_factors = [of_llama?, short?, long?];
        let source = Source { metadata: &metadata, content: &content, frequency_factors, architecture };
        let config = source
            .config()?
            .checked()
            .map_err(|reason| BundleError::UnsupportedConfig { path: path.to_owned(), reason })?;
        let checkpoint = Self { path: path.to_owned(), reader, content, architecture, config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn tensor_problem(&self, tensor: &str, problem: impl Into<String>) -> BundleError {
        BundleError::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), problem: problem.into() }
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let mut expected: BTreeSet<String> = FREQUENCY_TENSORS.map(str::to_owned).into();
        let experts = self.config.decoder().and_then(|decoder| decoder.experts.as_ref());
        for (hugging_face, mut shape) in self.config.tensor_shapes() {
            let Place { name, expert } = Place::of(&hugging_face, &self.config);
            if expert.is_some() {
                shape.insert(0, experts.map_or(0, |experts| experts.num_experts));
            }
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
        let place = Place::of(name, &self.config);
        let info = &self.content.tensor_infos[&place.name];
        let mut stored =
            numbers(&mut self.reader, &self.content, (info, place.expert)).map_err(gguf_error(&self.path))?;
        let is_norm = name.ends_with("norm.weight");
        if is_norm && self.config.decoder().is_some_and(|decoder| decoder.norms_around_one) {
            stored.iter_mut().for_each(|factor| *factor -= 1.0); // converters add it
        }
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => self.config.num_attention_heads,
            Some("k_proj") => self.config.num_key_value_heads,
            _ => return Ok(stored),
        };
        Ok(if self.architecture.interleaved { join_halves(&stored, heads, &self.config) } else { stored })
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        gguf_tokenizer::files(&self.path, &self.content)
    }
}

/// The numbers of a tensor, or of one expert's part of it.
fn numbers(
    reader: &mut BufReader<File>,
    content: &Content,
    (info, expert): (&TensorInfo, Option<usize>),
) -> candle_core::Result<Vec<f32>> {
    let quantized = match expert {
        None => info.read(reader, content.tensor_data_offset, &Device::Cpu)?,
        Some(expert) => {
            let shape = info.shape.dims()[1..].to_vec();
            let num_blocks = shape.iter().product::<usize>() / info.ggml_dtype.block_size();
            let mut bytes = vec![0; num_blocks * info.ggml_dtype.type_size()];
            let offset = info.offset + (expert * bytes.len()) as u64;
            reader.seek(SeekFrom::Start(content.tensor_data_offset + offset))?;
            reader.read_exact(&mut bytes)?;
            qtensor_from_ggml(info.ggml_dtype, &bytes, shape, &Device::Cpu)?
        }
    };
    quantized.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()
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
