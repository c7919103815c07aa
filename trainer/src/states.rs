//! The LLM's hidden states of all prompts, computed once and kept on disk: pairs with equal prompts share them.
//!
//! Prompts are encoded in order of length, many tokens at a time, and written as chunk files of raw bf16, `[tokens, layers * d_llm]` each.
//! A chunk appears by rename when it is complete, so an interrupted computation goes on with the next chunk. `states.json` names
//! what was encoded by what; a directory that holds other states is refused. The arithmetic is what an encoder service chooses on this
//! machine, so the small model learns from the states that it will be sent.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use baton_model::{LanguageModel, PackedLayout};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor, no_grad};

use crate::{TrainError, batches::cut_batches};

/// Tokens of one chunk file: about 75 MB at d_llm 576, some tens of seconds of work on a CPU.
const CHUNK_NUM_TOKENS: usize = 64 * 1024;
/// Tokens of one pass of the LLM.
const ENCODE_BATCH_NUM_TOKENS: usize = 2048;
const BYTES_PER_VALUE: usize = 2;

/// What a directory of states holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StatesManifest {
    llm_sha256: String,
    llm_layer: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mixed_layers: Vec<usize>,
    d_llm: usize,
    num_prompts: usize,
    prompts_sha256: String,
}

/// How far the computation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncodeProgress {
    pub(crate) tokens_done: usize,
    pub(crate) tokens_total: usize,
    /// Tokens encoded by this process, as opposed to found on disk.
    pub(crate) tokens_encoded: usize,
}

/// Hidden states of a list of prompts, readable by prompt.
#[derive(Debug)]
pub(crate) struct HiddenStates {
    width: usize,
    chunks: Vec<File>,
    places: Vec<Place>, // by pair
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    chunk: usize,
    first_token: usize,
    num_tokens: usize,
}

/// What to encode, and by what.
pub(crate) struct EncodeJob<'a> {
    /// Where the chunks are kept.
    pub(crate) directory: &'a Path,
    /// Token ids of each pair's prompt. Equal prompts are encoded once.
    pub(crate) prompts: Vec<&'a [u32]>,
    /// sha256 of the LLM's weights, in hex.
    pub(crate) llm_sha256: &'a str,
    /// Block after which the states are taken.
    pub(crate) llm_layer: usize,
    /// Earlier blocks after which they are taken, too, and stand before the last's.
    pub(crate) mixed_layers: &'a [usize],
    /// Width of the states.
    pub(crate) d_llm: usize,
}

impl EncodeJob<'_> {
    /// Numbers of one token.
    fn width(&self) -> usize {
        (self.mixed_layers.len() + 1) * self.d_llm
    }
}

impl HiddenStates {
    /// Opens the states of `job.prompts`, computing whatever is not on disk yet. `load_llm` is called only if something is missing.
    pub(crate) fn open_or_compute(
        job: &EncodeJob<'_>,
        load_llm: impl FnOnce() -> Result<LanguageModel, TrainError>,
        mut report: impl FnMut(EncodeProgress) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        fs::create_dir_all(job.directory).map_err(TrainError::io("create", job.directory))?;
        let Distinct { prompts: distinct, of_pair } = Distinct::of(&job.prompts);
        claim_directory(job, &distinct)?;
        let lens: Vec<usize> = distinct.iter().map(|p| p.len()).collect();
        let mut order: Vec<usize> = (0..lens.len()).collect();
        order.sort_by_key(|&prompt| lens[prompt]);
        let chunk_prompts = cut_batches(&order, &lens, CHUNK_NUM_TOKENS);

        let mut places = vec![Place::default(); lens.len()];
        for (chunk, prompts) in chunk_prompts.iter().enumerate() {
            let mut first_token = 0;
            for &prompt in prompts {
                places[prompt] = Place { chunk, first_token, num_tokens: lens[prompt] };
                first_token += lens[prompt];
            }
        }

        let tokens_total = lens.iter().sum();
        let mut progress = EncodeProgress { tokens_done: 0, tokens_total, tokens_encoded: 0 };
        let mut load_llm = Some(load_llm);
        let mut llm = None;
        let mut chunks = Vec::with_capacity(chunk_prompts.len());
        for (chunk, prompts) in chunk_prompts.iter().enumerate() {
            let path = chunk_path(job.directory, chunk);
            let num_tokens: usize = prompts.iter().map(|&p| lens[p]).sum();
            if !path.exists() {
                if let Some(load) = load_llm.take() {
                    llm = Some(load()?);
                }
                let llm = llm.as_ref().expect("the LLM is loaded before the first missing chunk");
                let mut bytes = Vec::with_capacity(num_tokens * job.width() * BYTES_PER_VALUE);
                for batch in cut_batches(prompts, &lens, ENCODE_BATCH_NUM_TOKENS) {
                    let prompts: Vec<&[u32]> = batch.iter().map(|&p| distinct[p]).collect();
                    append_bf16(&mut bytes, &encode(llm, job.mixed_layers, &prompts));
                    let encoded: usize = prompts.iter().map(|p| p.len()).sum();
                    progress.tokens_done += encoded;
                    progress.tokens_encoded += encoded;
                    if report(progress).is_break() {
                        return Err(TrainError::Stopped { path: job.directory.to_owned(), step: 0 });
                    }
                }
                write_atomically(&path, &bytes)?;
            } else {
                progress.tokens_done += num_tokens;
            }
            chunks.push(File::open(&path).map_err(TrainError::io("read", &path))?);
        }
        let places = of_pair.into_iter().map(|prompt| places[prompt]).collect();
        Ok(Self { width: job.width(), chunks, places })
    }

    /// States of the first prompts, of so many tokens at most, but of one prompt at least.
    pub(crate) fn sample(&self, max_tokens: usize) -> Tensor {
        let mut num_tokens = 0;
        let fits = |place: &&Place| {
            num_tokens += place.num_tokens;
            num_tokens <= max_tokens
        };
        let prompts: Vec<usize> = (0..self.places.iter().take_while(fits).count().max(1)).collect();
        self.packed(&prompts)
    }

    /// States of the named prompts one after the other, `[total_tokens, layers * d_llm]` bf16.
    pub(crate) fn packed(&self, prompts: &[usize]) -> Tensor {
        let total_tokens: usize = prompts.iter().map(|&p| self.places[p].num_tokens).sum();
        let token_num_bytes = self.width * BYTES_PER_VALUE;
        let mut bytes = vec![0; total_tokens * token_num_bytes];
        let mut rest = bytes.as_mut_slice();
        for &prompt in prompts {
            let place = self.places[prompt];
            let (mine, others) = rest.split_at_mut(place.num_tokens * token_num_bytes);
            self.chunks[place.chunk]
                .read_exact_at(mine, (place.first_token * token_num_bytes) as u64)
                .expect("a chunk file was complete when it was opened");
            rest = others;
        }
        Tensor::from_data_size(&bytes, &[total_tokens as i64, self.width as i64], Kind::BFloat16)
    }
}

fn encode(llm: &LanguageModel, mixed_layers: &[usize], prompts: &[&[u32]]) -> Tensor {
    no_grad(|| {
        let layout = PackedLayout::prompts(prompts.iter().map(|p| p.len()));
        let tokens: Vec<i64> = prompts.iter().flat_map(|p| p.iter().map(|&t| i64::from(t))).collect();
        llm.read_layers(llm.embed(&Tensor::from_slice(&tokens)), &layout, mixed_layers)
    })
}

fn append_bf16(bytes: &mut Vec<u8>, states: &Tensor) {
    let states = states.to_kind(Kind::BFloat16).contiguous();
    let start = bytes.len();
    let num_values = states.numel();
    bytes.resize(start + num_values * BYTES_PER_VALUE, 0);
    states
        .view_dtype(Kind::Uint8)
        .contiguous()
        .copy_data_u8(&mut bytes[start..], num_values * BYTES_PER_VALUE);
}

/// The prompts that differ, in order of first appearance.
struct Distinct<'a> {
    prompts: Vec<&'a [u32]>,
    of_pair: Vec<usize>,
}

impl<'a> Distinct<'a> {
    fn of(all: &[&'a [u32]]) -> Self {
        let mut numbers = HashMap::new();
        let mut prompts = Vec::new();
        let of_pair = all
            .iter()
            .map(|&prompt| {
                *numbers.entry(prompt).or_insert_with(|| {
                    prompts.push(prompt);
                    prompts.len() - 1
                })
            })
            .collect();
        Self { prompts, of_pair }
    }
}

/// Makes the directory this job's, or finds that it is.
fn claim_directory(job: &EncodeJob<'_>, prompts: &[&[u32]]) -> Result<(), TrainError> {
    let mut hash = Sha256::new();
    for prompt in prompts {
        hash.update((prompt.len() as u64).to_le_bytes());
        for token in *prompt {
            hash.update(token.to_le_bytes());
        }
    }
    let manifest = StatesManifest {
        llm_sha256: job.llm_sha256.to_owned(),
        llm_layer: job.llm_layer,
        mixed_layers: job.mixed_layers.to_vec(),
        d_llm: job.d_llm,
        num_prompts: prompts.len(),
        prompts_sha256: hex(&hash.finalize()),
    };
    let path = job.directory.join("states.json");
    match fs::read(&path) {
        Ok(bytes) => {
            let found: StatesManifest = serde_json::from_slice(&bytes).map_err(|e| TrainError::OtherRun {
                path: job.directory.to_owned(),
                difference: format!("states.json is unreadable: {e}"),
            })?;
            if found != manifest {
                return Err(TrainError::OtherRun {
                    path: job.directory.to_owned(),
                    difference: format!("hidden states of {found:?}, needed {manifest:?}"),
                });
            }
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
            write_atomically(&path, &bytes)
        }
        Err(e) => Err(TrainError::io("read", &path)(e)),
    }
}

fn chunk_path(directory: &Path, chunk: usize) -> PathBuf {
    directory.join(format!("states-{chunk:05}.bf16"))
}

/// Writes a file that is either absent or whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes).map_err(TrainError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(TrainError::io("write", path))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
