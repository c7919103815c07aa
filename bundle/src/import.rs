//! Import of a public checkpoint as the LLM of a bundle, into the Hugging Face layout.
//!
//! Two kinds of source, a GGUF file and a Hugging Face directory, give the same things: a config, tensors
//! under their Hugging Face names, and the tokenizer's files. What is written is a function of the source's
//! bytes and the dtype alone, so equal imports have equal hashes. A source that cannot be represented
//! exactly (unknown family, unknown tensor, pickled weights) is refused, never approximated.

mod gguf;
mod gguf_metadata;
mod gguf_tokenizer;
mod hugging_face;

use std::path::{Path, PathBuf};

use crate::file::{DirectoryInProgress, write_atomically};
use crate::safetensors_file::write_safetensors;
use crate::{BundleError, ModelConfig, WeightDtype};
use gguf::GgufCheckpoint;
use hugging_face::HuggingFaceCheckpoint;

/// What to import, and where to.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// A `.gguf` file, or a directory with `config.json`, safetensors and `tokenizer.json`.
    pub from: PathBuf,
    /// The directory to create; must not exist, or be empty.
    pub out: PathBuf,
    /// Number type of the written tensors. `F32` is exact for every source; `Bf16` halves the size and rounds.
    pub dtype: WeightDtype,
}

/// What an import wrote.
#[derive(Debug, Clone)]
pub struct ImportSummary {
    /// The checkpoint's config as written.
    pub config: ModelConfig,
    /// Number of numbers in all tensors.
    pub num_parameters: u64,
}

/// A checkpoint that can be read as Hugging Face names its parts.
trait Checkpoint {
    /// The shape of the model; its `dtype` is the source's.
    fn config(&self) -> &ModelConfig;

    /// Values of a tensor of [`ModelConfig::tensor_shapes`], row-major. Its shape has been checked.
    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, BundleError>;

    /// Name and bytes of the other files: `tokenizer.json`, and what else the source has.
    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, BundleError>;
}

/// Imports a checkpoint; the output directory appears complete or not at all.
///
/// # Errors
/// The source does not parse, is of an unsupported family, lacks a tensor, has one that the family does not
/// know, or has pickled weights only; the output directory is not empty or cannot be written.
pub fn import_llm(options: &ImportOptions) -> Result<ImportSummary, BundleError> {
    let mut checkpoint = open_checkpoint(&options.from)?;
    let config = ModelConfig { dtype: options.dtype, ..checkpoint.config().clone() };
    let shapes = config.tensor_shapes();

    let directory = DirectoryInProgress::create(&options.out)?;
    for (name, bytes) in checkpoint.side_files()? {
        write_atomically(&directory.path().join(name), &bytes)?;
    }
    write_atomically(&directory.path().join("config.json"), config.to_json().as_bytes())?;
    let weights = directory.path().join("model.safetensors");
    write_safetensors(&weights, &shapes, options.dtype, |name| checkpoint.tensor(name))?;
    directory.finish()?;

    let num_parameters = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    Ok(ImportSummary { config, num_parameters })
}

fn open_checkpoint(from: &Path) -> Result<Box<dyn Checkpoint>, BundleError> {
    if from.is_dir() {
        return Ok(Box::new(HuggingFaceCheckpoint::open(from)?));
    }
    let is_gguf = from.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if from.exists() && !is_gguf {
        return Err(BundleError::UnsupportedSource {
            path: from.to_owned(),
            reason:
                "give a .gguf file, or a directory with config.json, model.safetensors and tokenizer.json"
                    .to_owned(),
        });
    }
    Ok(Box::new(GgufCheckpoint::open(from)?))
}
