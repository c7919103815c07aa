//! Hugging Face directories: `config.json`, one or several safetensors files, `tokenizer.json`.
//!
//! Matrices may be FP8 with scales (`float8.rs`), or packed (`packed.rs`). Of a multimodal checkpoint the
//! text model is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use baton_bundle::{BartPositions, BundleError, FamilyConfig, ModelConfig, SafetensorsFile, read_bytes};
use safetensors::Dtype;
use serde::Deserialize;

use crate::float8::{self, Scales};
use crate::packed::{self, PackedMatrix, Packing};
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
/// Prefixes of a multimodal checkpoint's text model, by the release that saved it.
const TEXT_MODEL_PREFIXES: [&str; 2] = ["language_model.", "model.language_model."];
/// Parts of such a checkpoint that read no text.
const OTHER_MODALITIES: [&str; 6] = [
    "vision_tower.",
    "vision_model.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.vision_model.",
    "model.multi_modal_projector.",
];
/// Suffixes of the names of an FP8 matrix's scales.
const SCALE_SUFFIXES: [&str; 2] = ["_scale_inv", "_scale"];
/// Scales of activations and of caches, which Baton finds itself or does not use.
const UNREAD_SCALES: [&str; 4] = [".input_scale", ".activation_scale", ".k_scale", ".v_scale"];
/// A tensor that is zero if a checkpoint lacks it.
const ZERO_IF_MISSING: &str = "final_logits_bias";

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Default, Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// The part of `config.json` that says how matrices are scaled or packed.
#[derive(Default, Deserialize)]
struct StoredConfig {
    #[serde(default)]
    quantization_config: Option<Quantization>,
}

#[derive(Deserialize)]
struct Quantization {
    weight_block_size: Option<[usize; 2]>,
    #[serde(flatten)]
    packing: packed::Settings,
}

/// An open directory of a supported family, with all its tensors present and of the right shapes.
pub(super) struct HuggingFaceCheckpoint {
    directory: PathBuf,
    config: ModelConfig,
    tokenizer_files: Vec<(&'static str, Vec<u8>)>,
    shards: Vec<SafetensorsFile>,
    /// Rows and columns of an FP8 matrix for each of its scales, if they are for blocks.
    block_size: Option<[usize; 2]>,
    /// Of matrices that are packed.
    packing: Option<Packing>,
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
        let weights = WeightFiles::of(directory)?;
        for file_name in &weights.files {
            let shard = SafetensorsFile::open(&directory.join(file_name))?;
            for stored_name in shard.names() {
                weights.check_place(directory, &stored_name, file_name)?;
                let name = model_name(&stored_name, &first_part, &expected);
                places.insert(name, TensorPlace { shard: shards.len(), stored_name });
            }
            weights.check_presence(directory, file_name, &shard)?;
            shards.push(shard);
        }
        let config_path = directory.join("config.json");
        let stored: StoredConfig = serde_json::from_slice(&read_bytes(&config_path)?)
            .map_err(|source| BundleError::Json { path: config_path, source })?;
        let quantization = stored.quantization_config.as_ref();
        let block_size = quantization.and_then(|settings| settings.weight_block_size);
        let packing = quantization.and_then(|settings| Packing::of(&settings.packing));
        let directory = directory.to_owned();
        let mut checkpoint = Self { directory, config, tokenizer_files, shards, block_size, packing, places };
        checkpoint.find_embedding();
        checkpoint.config = checkpoint.config.clone().tied_by_weights(|name| checkpoint.bytes_of(name))?;
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// The stored bytes of a tensor, if it exists.
    fn bytes_of(&self, name: &str) -> Result<Option<Vec<u8>>, BundleError> {
        let tensor = self.place(name).map(|(shard, stored_name)| shard.read(stored_name)).transpose()?;
        Ok(tensor.map(|tensor| tensor.bytes))
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

    /// Whether a tensor has scales of FP8 numbers.
    fn is_scale(&self, name: &str) -> bool {
        let is_fp8 = |matrix: &str| {
            let info = self.place(matrix).and_then(|(shard, stored_name)| shard.info(stored_name));
            info.is_some_and(|info| info.dtype == Dtype::F8_E4M3)
        };
        let module = UNREAD_SCALES.iter().find_map(|suffix| name.strip_suffix(suffix));
        SCALE_SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(is_fp8)
            || module.is_some_and(|module| is_fp8(&format!("{module}.weight")))
    }

    /// The scales of an FP8 matrix.
    fn scales(&self, name: &str, shape: [usize; 2]) -> Result<Scales, BundleError> {
        let place = SCALE_SUFFIXES.iter().find_map(|suffix| self.stored(&format!("{name}{suffix}")));
        let (shard, stored_name, found) =
            place.ok_or_else(|| self.tensor_problem(name, "is FP8 without a tensor of scales"))?;
        let fitting = Scales::block_of(found, shape, self.block_size);
        let (shape, block) = fitting.ok_or_else(|| {
            let problem = format!("has scales of shape {found:?}, which are for no part of {shape:?}");
            self.tensor_problem(name, problem)
        })?;
        Ok(Scales { factors: shard.read_f32(stored_name)?, shape, block })
    }

    /// The file of a tensor, and its name there.
    fn place(&self, name: &str) -> Option<(&SafetensorsFile, &str)> {
        let TensorPlace { shard, stored_name } = self.places.get(name)?;
        Some((&self.shards[*shard], stored_name))
    }

    /// The file, stored name and shape of a tensor.
    fn stored(&self, name: &str) -> Option<(&SafetensorsFile, &str, &[usize])> {
        let (shard, stored_name) = self.place(name)?;
        Some((shard, stored_name, &shard.info(stored_name)?.shape))
    }

    /// The module of a matrix that is stored packed.
    fn packed_module<'n>(&self, name: &'n str) -> Option<(&'n str, Packing)> {
        let module = name.strip_suffix(".weight")?;
        let is_packed = self.places.contains_key(&format!("{module}{}", packed::WORDS));
        self.packing.filter(|_| is_packed).map(|packing| (module, packing))
    }

    /// Refuses a packed matrix whose tensors do not fit its shape.
    fn check_packed(&self, (module, packing): (&str, Packing), shape: &[usize]) -> Result<(), BundleError> {
        let problem = |problem: String| self.tensor_problem(&format!("{module}.weight"), problem);
        let &[outputs, inputs] = shape else { return Err(problem("is packed, but no matrix".to_owned())) };
        let shapes = packing.shapes([outputs, inputs]);
        let shapes = shapes.ok_or_else(|| problem(format!("is packed, but of shape {shape:?}")))?;
        for (suffix, expected) in packed::SUFFIXES.into_iter().zip(shapes) {
            let found = self.stored(&format!("{module}{suffix}")).map(|(_, _, shape)| shape);
            if found != Some(&expected[..]) && (suffix != packed::GROUPS || found.is_some()) {
                let found = found.map_or("is missing".to_owned(), |found| format!("has shape {found:?}"));
                return Err(problem(format!(
                    "is packed in {expected:?} numbers of `{suffix}`, which {found}"
                )));
            }
        }
        Ok(())
    }

    /// The numbers of a packed matrix.
    fn unpacked(&self, (module, packing): (&str, Packing)) -> Result<Vec<f32>, BundleError> {
        let stored = |suffix| self.stored(&format!("{module}{suffix}"));
        let words = |suffix| -> Result<Vec<u32>, BundleError> {
            let (shard, name, shape) = stored(suffix).expect("its shape was checked");
            let mut bytes = vec![0; shape.iter().product::<usize>() * size_of::<u32>()];
            shard.read_bytes(name, 0, &mut bytes)?;
            Ok(packed::words(&bytes))
        };
        let (scales, scales_name, _) = stored(packed::SCALES).expect("its shape was checked");
        let Some((_, _, &[down, across])) = stored(packed::WORDS) else {
            unreachable!("its shape was checked")
        };
        let matrix = PackedMatrix {
            words: words(packed::WORDS)?,
            zeros: words(packed::ZEROS)?,
            scales: scales.read_f32(scales_name)?,
            groups: stored(packed::GROUPS).map(|_| words(packed::GROUPS)).transpose()?,
        };
        let problem =
            || self.tensor_problem(&format!("{module}{}", packed::GROUPS), "names a group without scales");
        packing.numbers(&matrix, packing.matrix_shape([down, across])).ok_or_else(problem)
    }

    /// Whether a tensor is a part of a packed module: one of its four, or a bias of zeros, which some tools
    /// add to modules without one.
    fn is_of_packed(&self, name: &str) -> Result<bool, BundleError> {
        let is_packed = |module: &str| self.packed_module(&format!("{module}.weight")).is_some();
        if packed::SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(is_packed) {
            return Ok(true);
        }
        let is_of_module = name.strip_suffix(".bias").is_some_and(is_packed);
        let bias = self.stored(name).filter(|_| is_of_module);
        let numbers = bias.map(|(shard, name, _)| shard.read_f32(name)).transpose()?;
        Ok(numbers.is_some_and(|numbers| numbers.iter().all(|&number| number == 0.0)))
    }

    fn check_tensors(&self) -> Result<(), BundleError> {
        let expected: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        for (name, shape) in &expected {
            if name == ZERO_IF_MISSING && !self.places.contains_key(name) {
                continue;
            }
            if let Some(module) = self.packed_module(name) {
                self.check_packed(module, shape)?;
                continue;
            }
            let (_, _, found) = self.stored(name).ok_or_else(|| self.tensor_problem(name, "is missing"))?;
            if found != shape {
                let problem = format!("has shape {found:?}, but config.json says {shape:?}");
                return Err(self.tensor_problem(name, problem));
            }
        }
        for name in self.places.keys().filter(|name| !expected.contains_key(*name)) {
            let is_tied_head = name == "lm_head.weight" && self.config.tie_word_embeddings;
            let is_unread = UNREAD_TENSOR_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                || OTHER_MODALITIES.iter().any(|prefix| name.starts_with(prefix))
                || self.is_scale(name)
                || self.is_of_packed(name)?;
            let is_copy = self.config.encoder_decoder().is_some()
                && EMBEDDING_COPIES.iter().any(|copy| name.ends_with(copy));
            if is_copy && self.bytes_of(name)? != self.bytes_of(&self.config.embedding_name())? {
                return Err(
                    self.tensor_problem(name, "differs from the embedding matrix, which Baton reads for it")
                );
            }
            let sines = self.sines().filter(|_| name.contains("embed_positions.weight"));
            if let Some((divisor, first)) = sines {
                let (shard, stored_name) = self.place(name).expect("it is one of the places");
                let stored = shard.read_f32(stored_name)?;
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

/// The name that a stored tensor has in the text model. Checkpoints of a model without its head leave out the
/// first part of names; multimodal ones put another before it.
fn model_name(stored_name: &str, first_part: &str, expected: &BTreeSet<String>) -> String {
    let stripped = TEXT_MODEL_PREFIXES.iter().filter_map(|prefix| stored_name.strip_prefix(prefix));
    let mut candidates = std::iter::once(stored_name)
        .chain(stripped)
        .flat_map(|name| [name.to_owned(), format!("{first_part}.{name}")]);
    // The scales of a matrix are named after it, and so are the parts of a packed one.
    let is_known = |name: &String| {
        let matrix = SCALE_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let module = packed::SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        expected.contains(name)
            || matrix.is_some_and(|matrix| expected.contains(matrix))
            || module.is_some_and(|module| expected.contains(&format!("{module}.weight")))
    };
    candidates.find(is_known).unwrap_or_else(|| stored_name.to_owned())
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
struct WeightFiles {
    files: Vec<String>,
    /// Empty where there is a single file.
    index: WeightsIndex,
}

impl WeightFiles {
    fn of(directory: &Path) -> Result<Self, ImportError> {
        if directory.join(WEIGHTS).exists() {
            return Ok(Self { files: vec![WEIGHTS.to_owned()], index: WeightsIndex::default() });
        }
        let index_path = directory.join(WEIGHTS_INDEX);
        if index_path.exists() {
            let index: WeightsIndex = serde_json::from_slice(&read_bytes(&index_path)?)
                .map_err(|source| BundleError::Json { path: index_path.clone(), source })?;
            let mut files: Vec<String> = index.weight_map.values().cloned().collect();
            files.sort();
            files.dedup();
            return match files.iter().find(|name| Path::new(name).components().count() != 1) {
                None => Ok(Self { files, index }),
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

    /// Refuses a tensor that lies in another file than the index says: two files may be of two models.
    fn check_place(&self, directory: &Path, tensor: &str, file: &str) -> Result<(), BundleError> {
        match self.index.weight_map.get(tensor) {
            Some(named) if named != file => {
                let problem = format!("is in {file}, but {WEIGHTS_INDEX} says that it is in {named}");
                let (path, tensor) = (directory.to_owned(), tensor.to_owned());
                Err(BundleError::Tensor { path, tensor, problem })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a file that lacks a tensor of the index.
    fn check_presence(
        &self,
        directory: &Path,
        file: &str,
        shard: &SafetensorsFile,
    ) -> Result<(), BundleError> {
        let mut named = self.index.weight_map.iter().filter(|(_, named)| *named == file);
        match named.find(|(tensor, _)| shard.info(tensor).is_none()) {
            None => Ok(()),
            Some((tensor, _)) => Err(BundleError::Tensor {
                path: directory.to_owned(),
                tensor: tensor.clone(),
                problem: format!("is missing in {file}, where {WEIGHTS_INDEX} says that it is"),
            }),
        }
    }
}

impl Checkpoint for HuggingFaceCheckpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        if let Some(module) = self.packed_module(name) {
            return Ok(self.unpacked(module)?);
        }
        let Some((shard, stored_name)) = self.place(name) else {
            return Ok(vec![0.0; self.config.vocab_size]); // of `ZERO_IF_MISSING`
        };
        let info = shard.info(stored_name).expect("its place was found in this file");
        match (info.dtype, info.shape.as_slice()) {
            (Dtype::F8_E4M3, &[rows, columns]) => {
                let scales = self.scales(name, [rows, columns])?;
                let mut bytes = vec![0; rows * columns];
                shard.read_bytes(stored_name, 0, &mut bytes)?;
                Ok(float8::numbers(&bytes, columns, &scales))
            }
            _ => Ok(shard.read_f32(stored_name)?),
        }
    }

    fn side_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
        let present = OPTIONAL_FILES.into_iter().filter(|name| self.directory.join(name).exists());
        let read = |name: &'static str| Ok((name, read_bytes(&self.directory.join(name))?));
        let mut files = self.tokenizer_files.clone();
        files.extend(present.map(read).collect::<Result<Vec<_>, ImportError>>()?);
        Ok(files)
    }
}
