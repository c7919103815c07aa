//! Import of public checkpoints into the layout of bundles: as the LLM of one, or as a bundle of a small
//! model.
//!
//! A GGUF file, a Hugging Face directory and a directory with a Marian student give the same things: a
//! config, tensors under their Hugging Face names, and the tokenizer's files. The written bytes depend only
//! on the source's bytes and the dtype, so equal imports have equal hashes. A source that cannot be
//! represented exactly (unknown family, unknown tensor, pickled weights) is refused, never approximated.
//!
//! `baton-bundle` owns the layout of the written files. This crate is separate, so that a process that only
//! reads bundles does not link the parsers of other formats.

mod bergamot;
mod conventions;
mod error;
mod float8;
mod gguf;
mod gguf_architectures;
mod gguf_metadata;
mod gguf_pieces;
mod gguf_tokenizer;
mod hugging_face;
mod marian_file;
mod packed;
mod slm;
mod slm_template;
mod tokenizer_files;

use std::path::{Path, PathBuf};

use baton_bundle::{
    DirectoryInProgress, Family, ModelConfig, WeightDtype, write_atomically, write_safetensors,
};

use bergamot::BergamotCheckpoint;
pub use error::ImportError;
use gguf::GgufCheckpoint;
use hugging_face::HuggingFaceCheckpoint;
pub use slm::{SlmImportOptions, import_slm};

/// The source and the destination of an import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// A `.gguf` file, a directory with `config.json`, safetensors and `tokenizer.json`, or one with a
    /// student's `model.*.bin` and `vocab.*.spm`.
    pub from: PathBuf,
    /// The directory to create; must not exist, or be empty.
    pub out: PathBuf,
    /// Number type of the written tensors. `F32` is exact for every source; `Bf16` halves the size and
    /// rounds.
    pub dtype: WeightDtype,
}

/// The result of an import.
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
    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ImportError>;

    /// Name and bytes of the other files: `tokenizer.json`, and others that the source has.
    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError>;
}

/// Imports a checkpoint; the output directory appears complete or not at all.
///
/// # Errors
/// The source does not parse, has an unsupported family, lacks a tensor or has an unknown one, or has only
/// pickled weights; the output directory is not empty or cannot be written.
pub fn import_llm(options: &ImportOptions) -> Result<ImportSummary, ImportError> {
    let mut checkpoint = open_checkpoint(&options.from)?;
    let side_files = checkpoint.side_files()?;
    let has_pieces_alone = !side_files.iter().any(|(name, _)| *name == "tokenizer.json");
    if has_pieces_alone && checkpoint.config().family() != Family::Bergamot {
        return Err(ImportError::UnsupportedSource {
            path: options.from.clone(),
            reason: "it has no tokenizer.json, which a large model needs".to_owned(),
        });
    }
    let config = ModelConfig { dtype: options.dtype, ..checkpoint.config().clone() };
    let directory = DirectoryInProgress::create(&options.out)?;
    for (name, bytes) in side_files {
        write_atomically(&directory.path().join(name), &bytes)?;
    }
    write_weights(checkpoint.as_mut(), &config, directory.path())?;
    directory.finish()?;

    let shapes = config.tensor_shapes();
    let num_parameters = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    Ok(ImportSummary { config, num_parameters })
}

/// Writes `config`, with the written tensors' dtype, and the weights into `directory`.
fn write_weights(
    checkpoint: &mut dyn Checkpoint,
    config: &ModelConfig,
    directory: &Path,
) -> Result<(), ImportError> {
    write_atomically(&directory.join("config.json"), config.to_json().as_bytes())?;
    let weights = directory.join("model.safetensors");
    write_safetensors(&weights, &config.tensor_shapes(), config.dtype, |name| checkpoint.tensor(name))
}

fn open_checkpoint(from: &Path) -> Result<Box<dyn Checkpoint>, ImportError> {
    let model = BergamotCheckpoint::model_file(from);
    if let Some(model) = model.filter(|_| !from.join("config.json").exists()) {
        return Ok(Box::new(BergamotCheckpoint::open(model)?));
    }
    if from.is_dir() {
        return Ok(Box::new(HuggingFaceCheckpoint::open(from)?));
    }
    let is_gguf = from.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if from.exists() && !is_gguf {
        return Err(ImportError::UnsupportedSource {
            path: from.to_owned(),
            reason:
                "give a .gguf file, or a directory with config.json, model.safetensors and tokenizer.json"
                    .to_owned(),
        });
    }
    Ok(Box::new(GgufCheckpoint::open(from)?))
}
