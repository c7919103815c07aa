//! Hugging Face directories: `config.json`, one or several safetensors files, `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use baton_bundle::{BartPositions, BundleError, FamilyConfig, ModelConfig, SafetensorsFile, read_bytes};
use serde::Deserialize;

use crate::tokenizer_files::tokenizer_files;
use crate::{Checkpoint, ImportError};

const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// Copied unchanged, if the source has them.
const OPTIONAL_FILES: [&str; 2] = ["tokenizer_config.json", "generation_config.json"];
/// Tensors that old checkpoints carry and no model reads: rotary frequencies, GPT-2's causal masks, positions
/// of T5's cross-attention, versions of fairseq.
const UNREAD_TENSOR_SUFFIXES: [&str; 6] = [
    "encoder.version",
    "decoder.version",
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    "EncDecAttention.relative_attention_bias.weight",
];
/// Tensors that encoder-decoders may hold a second and a third time, or in place of the embedding matrix.
const EMBEDDING_COPIES: [&str; 3] =
    ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
/// A tensor that is zero if a checkpoint lacks it.
const ZERO_IF_MISSING: &str = "final_logits_bias";

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// An open directory of a supported family, with all its tensors present and of the right shapes.
pub(super) struct HuggingFaceCheckpoint {
    directory: PathBuf,
    config: ModelConfig,
    tokenizer_files: Vec<(&'static str, Vec<u8>)>,
    shards: Vec<SafetensorsFile>,
    /// Name of a tensor to its place. A checkpoint of the model without its head leaves out the first part of
    /// names, `model.` or `transformer.`; here it is put back.
    places: BTreeMap<String, TensorPlace>,
}

/// Where a tensor is stored, and under which name.
struct TensorPlace {
    shard: usize,
    stored_name: String,
}

impl HuggingFaceCheckpoint {
    pub(super) fn open(directory: &Path) -> Result<Self, ImportError> {
        let config = ModelConfig::read(&directory.join("config.json"))?;
        let tokenizer_files = tokenizer_files(directory, &config)?;
        let mut shards = Vec::new();
        let mut places = BTreeMap::new();
        let layout = config.tensor_layout();
        let first_part = config.embedding_name().split('.').next().unwrap_or_default().to_owned();
        let expected: BTreeSet<String> = layout.all().into_iter().map(|(name, _)| name).collect();
        for file_name in weight_files(directory)? {
            let shard = SafetensorsFile::open(&directory.join(file_name))?;
            for stored_name in shard.names() {
                let full_name = format!("{first_part}.{stored_name}");
                let name = if expected.contains(&full_name) { full_name } else { stored_name.clone() };
                places.insert(name, TensorPlace { shard: shards.len(), stored_name });
            }
            shards.push(shard);
        }
        let directory = directory.to_owned();
        let mut checkpoint = Self { directory, config, tokenizer_files, shards, places };
        checkpoint.find_embedding();
        checkpoint.config = checkpoint.config.clone().tied_by_weights(|name| checkpoint.bytes_of(name))?;
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// The stored bytes of a tensor, if it exists.
    fn bytes_of(&self, name: &str) -> Result<Option<Vec<u8>>, BundleError> {
        let read = |place: &TensorPlace| self.shards[place.shard].read(&place.stored_name);
        Ok(self.places.get(name).map(read).transpose()?.map(|tensor| tensor.bytes))
    }

    /// Takes a copy of the embedding matrix if only a copy is stored.
    fn find_embedding(&mut self) {
        let embedding = self.config.embedding_name();
        if self.config.encoder_decoder().is_none() || self.places.contains_key(&embedding) {
            return;
        }
        let is_copy = |name: &&String| EMBEDDING_COPIES.iter().any(|copy| name.ends_with(copy));
        if let Some(copy) = self.places.keys().find(is_copy).cloned() {
            let place = self.places.remove(&copy).expect("it was found there");
            self.places.insert(embedding, place);
        }
    }

    fn tensor_problem(&self, tensor: &str, problem: impl Into<String>) -> BundleError {
        BundleError::Tensor {
            path: self.directory.clone(),
            tensor: tensor.to_owned(),
            problem: problem.into(),
        }
    }

    /// Divisor and first position of the sines, if positions are sines.
    fn sines(&self) -> Option<(f64, usize)> {
        let FamilyConfig::Bart(bart) = &self.config.family else { return None };
        match bart.kind.wiring(self.config.hidden_size).positions {
            BartPositions::Sinusoidal { divisor, first } => Some((divisor, first)),
            BartPositions::Learned { .. } => None,
        }
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let expected: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        for (name, shape) in &expected {
            if name == ZERO_IF_MISSING && !self.places.contains_key(name) {
                continue;
            }
            let place = self.places.get(name);
            let info = place.and_then(|place| self.shards[place.shard].info(&place.stored_name));
            let found = &info.ok_or_else(|| self.tensor_problem(name, "is missing"))?.shape;
            if found != shape {
                let problem = format!("has shape {found:?}, but config.json says {shape:?}");
                return Err(self.tensor_problem(name, problem));
            }
        }
        for name in self.places.keys().filter(|name| !expected.contains_key(*name)) {
            let is_tied_head = name == "lm_head.weight" && self.config.tie_word_embeddings;
            let is_unread = UNREAD_TENSOR_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
            let is_copy = self.config.encoder_decoder().is_some()
                && EMBEDDING_COPIES.iter().any(|copy| name.ends_with(copy));
            if is_copy && self.bytes_of(name)? != self.bytes_of(&self.config.embedding_name())? {
                return Err(
                    self.tensor_problem(name, "differs from the embedding matrix, which Baton reads for it")
                );
            }
            let sines = self.sines().filter(|_| name.contains("embed_positions.weight"));
            if let Some((divisor, first)) = sines {
                let place = &self.places[name];
                let stored = self.shards[place.shard].read_f32(&place.stored_name)?;
                if !are_sines(&stored, self.config.hidden_size, (divisor, first)) {
                    let problem = "differs from the sines that Baton computes for it";
                    return Err(self.tensor_problem(name, problem));
                }
            }
            if !(is_tied_head || is_unread || is_copy || sines.is_some()) {
                return Err(self.tensor_problem(name, "is not part of this family as Baton runs it"));
            }
        }
        Ok(())
    }
}

/// Whether a table of positions, `width` numbers a row, equals the formula's values from position `first` on,
/// up to the rounding of half precision.
fn are_sines(table: &[f32], width: usize, (divisor, first): (f64, usize)) -> bool {
    const TOLERANCE: f64 = 4e-3; // of bf16
    let half = width / 2;
    table.chunks(width).enumerate().skip(first).all(|(position, row)| {
        (0..half).all(|channel| {
            let angle = position as f64 * 10_000_f64.powf(-(channel as f64) / divisor);
            let near = |stored: f32, exact: f64| (f64::from(stored) - exact).abs() < TOLERANCE;
            near(row[channel], angle.sin()) && near(row[half + channel], angle.cos())
        })
    })
}

/// The safetensors files of a directory: the single one, or those that the index names.
fn weight_files(directory: &Path) -> Result<Vec<String>, ImportError> {
    if directory.join(WEIGHTS).exists() {
        return Ok(vec![WEIGHTS.to_owned()]);
    }
    let index_path = directory.join(WEIGHTS_INDEX);
    if index_path.exists() {
        let index: WeightsIndex = serde_json::from_slice(&read_bytes(&index_path)?)
            .map_err(|source| BundleError::Json { path: index_path.clone(), source })?;
        let mut files: Vec<String> = index.weight_map.into_values().collect();
        files.sort();
        files.dedup();
        return match files.iter().find(|name| Path::new(name).components().count() != 1) {
            None => Ok(files),
            Some(name) => Err(ImportError::UnsupportedSource {
                path: index_path,
                reason: format!("it names `{name}`, which is not a file beside it"),
            }),
        };
    }
    let reason = if directory.join("pytorch_model.bin").exists()
        || directory.join("pytorch_model.bin.index.json").exists()
    {
        "its weights are pickles (pytorch_model.bin), which can run code when loaded; \
         save the model once with safe_serialization=True and import that"
    } else {
        "it has neither model.safetensors nor model.safetensors.index.json"
    };
    Err(ImportError::UnsupportedSource { path: directory.to_owned(), reason: reason.to_owned() })
}

impl Checkpoint for HuggingFaceCheckpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let Some(place) = self.places.get(name) else {
            return Ok(vec![0.0; self.config.vocab_size]); // of `ZERO_IF_MISSING`
        };
        Ok(self.shards[place.shard].read_f32(&place.stored_name)?)
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        let present = OPTIONAL_FILES.into_iter().filter(|name| self.directory.join(name).exists());
        let read = |name: &'static str| Ok((name, read_bytes(&self.directory.join(name))?));
        let mut files = self.tokenizer_files.clone();
        files.extend(present.map(read).collect::<Result<Vec<_>, ImportError>>()?);
        Ok(files)
    }
}
