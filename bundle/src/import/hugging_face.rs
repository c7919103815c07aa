//! Hugging Face directories: `config.json`, one or several safetensors files, `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Checkpoint;
use crate::file::read_bytes;
use crate::safetensors_file::SafetensorsFile;
use crate::{BundleError, LlamaConfig};

const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// Copied as they are, where the source has them.
const OPTIONAL_FILES: [&str; 2] = ["tokenizer_config.json", "generation_config.json"];
/// Buffers that old checkpoints carry and that follow from the config.
const DERIVED_TENSOR_SUFFIX: &str = "rotary_emb.inv_freq";

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// An open directory of a supported family, with all its tensors present and of the right shapes.
pub(super) struct HuggingFaceCheckpoint {
    directory: PathBuf,
    config: LlamaConfig,
    shards: Vec<SafetensorsFile>,
    /// Tensor name to position in `shards`.
    shard_of: BTreeMap<String, usize>,
}

impl HuggingFaceCheckpoint {
    pub(super) fn open(directory: &Path) -> Result<Self, BundleError> {
        let config = LlamaConfig::read(&directory.join("config.json"))?;
        if !directory.join(TOKENIZER).exists() {
            return Err(BundleError::UnsupportedSource {
                path: directory.to_owned(),
                reason: "it has no tokenizer.json; save it once with a fast tokenizer of transformers"
                    .to_owned(),
            });
        }
        let mut shards = Vec::new();
        let mut shard_of = BTreeMap::new();
        for file_name in weight_files(directory)? {
            let shard = SafetensorsFile::open(&directory.join(file_name))?;
            shard_of.extend(shard.names().into_iter().map(|name| (name, shards.len())));
            shards.push(shard);
        }
        let checkpoint = Self { directory: directory.to_owned(), config, shards, shard_of };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn tensor_problem(&self, tensor: &str, problem: impl Into<String>) -> BundleError {
        BundleError::Tensor {
            path: self.directory.clone(),
            tensor: tensor.to_owned(),
            problem: problem.into(),
        }
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let expected: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        for (name, shape) in &expected {
            let shard = self.shard_of.get(name).map(|position| &self.shards[*position]);
            let info = shard.and_then(|shard| shard.info(name));
            let found = &info.ok_or_else(|| self.tensor_problem(name, "is missing"))?.shape;
            if found != shape {
                let problem = format!("has shape {found:?}, but config.json says {shape:?}");
                return Err(self.tensor_problem(name, problem));
            }
        }
        let tied_head = |name: &str| name == "lm_head.weight" && self.config.tie_word_embeddings;
        let unknown = self.shard_of.keys().find(|name| {
            !expected.contains_key(*name) && !tied_head(name) && !name.ends_with(DERIVED_TENSOR_SUFFIX)
        });
        match unknown {
            None => Ok(()),
            Some(name) => Err(self.tensor_problem(name, "is not part of this family as Baton runs it")),
        }
    }
}

/// The safetensors files of a directory: the single one, or those that the index names.
fn weight_files(directory: &Path) -> Result<Vec<String>, BundleError> {
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
            Some(name) => Err(BundleError::UnsupportedSource {
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
    Err(BundleError::UnsupportedSource { path: directory.to_owned(), reason: reason.to_owned() })
}

impl Checkpoint for HuggingFaceCheckpoint {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, BundleError> {
        let position = self.shard_of[name];
        self.shards[position].read_f32(name)
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, BundleError> {
        let present = OPTIONAL_FILES.into_iter().filter(|name| self.directory.join(name).exists());
        [TOKENIZER]
            .into_iter()
            .chain(present)
            .map(|name| Ok((name, read_bytes(&self.directory.join(name))?)))
            .collect()
    }
}
