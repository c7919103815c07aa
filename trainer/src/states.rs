//! The LLM's hidden states of prompts, computed once and kept on disk, where every run finds those that it
//! needs.
//!
//! Under a directory of states, each LLM has one directory for every choice of layers and arithmetic. It
//! holds chunk files (safetensors): prompts, as `tokens` i32 `[num_tokens]` and `lens` i32 `[num_prompts]`,
//! and their `states` bf16 `[num_tokens, layers * d_llm]`. A chunk is named by its prompts and appears by
//! rename when it is complete. A run therefore computes only states that no earlier run has computed, and an
//! interrupted computation continues with the next chunk. The arithmetic is an encoder service's on this
//! machine, so the small model learns from the states that it will later receive.

use std::{
    collections::HashMap,
    fs,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use baton_bundle::SafetensorsFile;
use baton_job::hex;
use baton_model::{Compute, LanguageModel, PackedLayout};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor, no_grad};

use crate::{TrainError, batches::cut_batches};

/// Tokens of one chunk file: about 75 MB at d_llm 576, some tens of seconds of work on a CPU.
const CHUNK_NUM_TOKENS: usize = 64 * 1024;
/// Tokens of one pass of the LLM.
const ENCODE_BATCH_NUM_TOKENS: usize = 2048;
const CHUNK_EXTENSION: &str = "safetensors";
/// Of a bf16.
const VALUE_NUM_BYTES: usize = 2;
/// Hexadecimal digits of a hash in the name of a file or directory.
const NAME_LEN: usize = 16;

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
    chunks: Vec<SafetensorsFile>,
    places: Vec<Place>, // by prompt
}

#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: usize,
    first_token: usize,
    num_tokens: usize,
}

/// The prompts to encode, and the LLM.
pub(crate) struct EncodeJob<'a> {
    /// Directory of all states.
    pub(crate) states: &'a Path,
    /// Token ids of the LLM's prompts. Equal prompts are encoded once.
    pub(crate) prompts: Vec<&'a [u32]>,
    /// sha256 of the LLM's weights, in hex.
    pub(crate) llm_sha256: &'a str,
    /// Block after which the states are taken.
    pub(crate) llm_layer: usize,
    /// Earlier blocks whose states are taken too, and come before the last block's.
    pub(crate) mixed_layers: &'a [usize],
    /// Width of the states.
    pub(crate) d_llm: usize,
    /// The LLM's device and number format: states of another arithmetic differ.
    pub(crate) compute: Compute,
}

impl EncodeJob<'_> {
    /// Where the states of this LLM's layers are kept.
    fn directory(&self) -> PathBuf {
        let layers = self.mixed_layers.iter().chain([&self.llm_layer]);
        let layers: Vec<String> = layers.map(usize::to_string).collect();
        let llm = &hex(&Sha256::digest(self.llm_sha256))[..NAME_LEN];
        let device = if self.compute.is_cpu() { "cpu" } else { "gpu" };
        let format = self.compute.weights_name();
        self.states.join(format!("{llm}-layers-{}-{format}-{device}", layers.join("-")))
    }

    /// Numbers of one token.
    fn width(&self) -> usize {
        (self.mixed_layers.len() + 1) * self.d_llm
    }
}

impl HiddenStates {
    /// Opens the states of `job.prompts`, and computes those that are not on disk yet. Calls `load_llm` only
    /// if some are missing.
    pub(crate) fn open_or_compute(
        job: &EncodeJob<'_>,
        load_llm: impl FnOnce() -> Result<LanguageModel, TrainError>,
        mut report: impl FnMut(EncodeProgress) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let directory = job.directory();
        fs::create_dir_all(&directory).map_err(TrainError::io("create", &directory))?;
        let mut wanted =
            Wanted { places: job.prompts.iter().map(|&prompt| (prompt, None)).collect(), chunks: Vec::new() };
        for path in chunks_in(&directory)? {
            wanted.look_into(&path)?;
        }
        let missing = wanted.missing();
        if !missing.is_empty() {
            let llm = load_llm()?;
            let lens: Vec<usize> = missing.iter().map(|prompt| prompt.len()).collect();
            let tokens_total = wanted.places.keys().map(|prompt| prompt.len()).sum();
            let tokens_found = tokens_total - lens.iter().sum::<usize>();
            let mut tokens_encoded = 0;
            let order: Vec<usize> = (0..missing.len()).collect();
            for chunk in cut_batches(&order, &lens, CHUNK_NUM_TOKENS) {
                let mut states = Vec::new();
                for batch in cut_batches(&chunk, &lens, ENCODE_BATCH_NUM_TOKENS) {
                    let prompts: Vec<&[u32]> = batch.iter().map(|&prompt| missing[prompt]).collect();
                    states.push(encode(&llm, job.mixed_layers, &prompts).to_kind(Kind::BFloat16));
                    tokens_encoded += prompts.iter().map(|prompt| prompt.len()).sum::<usize>();
                    let tokens_done = tokens_found + tokens_encoded;
                    if report(EncodeProgress { tokens_done, tokens_total, tokens_encoded }).is_break() {
                        return Err(TrainError::Stopped { path: directory, step: 0 });
                    }
                }
                let prompts: Vec<&[u32]> = chunk.iter().map(|&prompt| missing[prompt]).collect();
                wanted.look_into(&write_chunk(&directory, &prompts, &Tensor::cat(&states, 0))?)?;
            }
        }
        let Wanted { places, chunks } = wanted;
        let place = |prompt| places[prompt].expect("what was missing has been encoded");
        let places = job.prompts.iter().map(place).collect();
        Ok(Self { width: job.width(), chunks, places })
    }

    /// States of the first prompts: up to this many tokens, but at least one prompt.
    pub(crate) fn sample(&self, max_tokens: usize) -> Tensor {
        let mut num_tokens = 0;
        let fits = |place: &&Place| {
            num_tokens += place.num_tokens;
            num_tokens <= max_tokens
        };
        let num_prompts = self.places.iter().take_while(fits).count().max(1);
        let whole: Vec<_> =
            (0..num_prompts).map(|prompt| (prompt, 0..self.places[prompt].num_tokens)).collect();
        self.packed(&whole)
    }

    /// States of runs of tokens of the named prompts one after the other, `[total_tokens, layers * d_llm]`
    /// bf16.
    pub(crate) fn packed(&self, taken: &[(usize, Range<usize>)]) -> Tensor {
        let total_tokens: usize = taken.iter().map(|(_, tokens)| tokens.len()).sum();
        let token_num_bytes = self.width * VALUE_NUM_BYTES;
        let mut bytes = vec![0; total_tokens * token_num_bytes];
        let mut rest = bytes.as_mut_slice();
        for (prompt, tokens) in taken {
            let place = self.places[*prompt];
            assert!(tokens.end <= place.num_tokens, "a run of the prompt's tokens");
            let (mine, others) = rest.split_at_mut(tokens.len() * token_num_bytes);
            self.chunks[place.chunk]
                .read_bytes("states", (place.first_token + tokens.start) * token_num_bytes, mine)
                .expect("a chunk was complete when it was opened");
            rest = others;
        }
        Tensor::from_data_size(&bytes, &[total_tokens as i64, self.width as i64], Kind::BFloat16)
    }
}

/// Prompts whose states are sought, and the chunks that have been found to have some.
struct Wanted<'a> {
    places: HashMap<&'a [u32], Option<Place>>,
    chunks: Vec<SafetensorsFile>,
}

impl<'a> Wanted<'a> {
    /// Notes where the wanted prompts of a chunk are.
    fn look_into(&mut self, chunk: &Path) -> Result<(), TrainError> {
        let file = SafetensorsFile::open(chunk)?;
        let tokens = read_integers(&file, "tokens")?;
        let mut rest = tokens.as_slice();
        let mut has_some = false;
        for len in read_integers(&file, "lens")? {
            let num_tokens = (len as usize).min(rest.len());
            let first_token = tokens.len() - rest.len();
            let (prompt, others) = rest.split_at(num_tokens);
            if let Some(place) = self.places.get_mut(prompt) {
                *place = Some(Place { chunk: self.chunks.len(), first_token, num_tokens });
                has_some = true;
            }
            rest = others;
        }
        if has_some {
            self.chunks.push(file);
        }
        Ok(())
    }

    /// The missing prompts, shortest first, so that prompts of similar length are encoded together.
    fn missing(&self) -> Vec<&'a [u32]> {
        let missing = self.places.iter().filter(|(_, place)| place.is_none());
        let mut missing: Vec<&[u32]> = missing.map(|(&prompt, _)| prompt).collect();
        missing.sort_unstable_by_key(|&prompt| (prompt.len(), prompt));
        missing
    }
}

fn encode(llm: &LanguageModel, mixed_layers: &[usize], prompts: &[&[u32]]) -> Tensor {
    no_grad(|| {
        let layout = PackedLayout::prompts(prompts.iter().map(|p| p.len()));
        let tokens: Vec<i64> = prompts.iter().flat_map(|p| p.iter().map(|&t| i64::from(t))).collect();
        llm.read_layers(llm.embed(&Tensor::from_slice(&tokens)), &layout, mixed_layers)
    })
}

/// Chunk files of a directory, in order of their names.
fn chunks_in(directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let paths = entries.map_err(TrainError::io("read", directory))?.into_iter().map(|entry| entry.path());
    let mut chunks: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == CHUNK_EXTENSION)).collect();
    chunks.sort_unstable();
    Ok(chunks)
}

/// Writes a chunk's file, which is either absent or whole.
fn write_chunk(directory: &Path, prompts: &[&[u32]], states: &Tensor) -> Result<PathBuf, TrainError> {
    let lens: Vec<i32> = prompts.iter().map(|prompt| prompt.len() as i32).collect();
    let tokens: Vec<i32> =
        prompts.iter().flat_map(|prompt| prompt.iter().map(|&token| token as i32)).collect();
    let mut hash = Sha256::new();
    for value in lens.iter().chain(&tokens) {
        hash.update(value.to_le_bytes());
    }
    let path = directory.join(&hex(&hash.finalize())[..NAME_LEN]).with_extension(CHUNK_EXTENSION);
    let temporary = path.with_extension(format!("{}.partial", std::process::id()));
    let tensors =
        [("lens", &Tensor::from_slice(&lens)), ("tokens", &Tensor::from_slice(&tokens)), ("states", states)];
    Tensor::write_safetensors(&tensors, &temporary)
        .map_err(std::io::Error::other)
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(TrainError::io("write", &path))?;
    Ok(path)
}

fn read_integers(chunk: &SafetensorsFile, name: &str) -> Result<Vec<u32>, TrainError> {
    let num_values: usize = chunk.info(name).map_or(0, |info| info.shape.iter().product());
    let mut bytes = vec![0; num_values * size_of::<u32>()];
    chunk.read_bytes(name, 0, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|&value| u32::from_le_bytes(value)).collect())
}

/// Writes a file that is either absent or whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes).map_err(TrainError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(TrainError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_another_arithmetic_or_of_other_layers_are_found_elsewhere() {
        let directory = |compute, mixed_layers| {
            let (states, llm_sha256) = (Path::new("states"), "0123");
            EncodeJob { states, prompts: vec![], llm_sha256, llm_layer: 20, mixed_layers, d_llm: 8, compute }
                .directory()
        };
        let int8 = directory(Compute::CPU_INT8, &[]);
        assert!(int8.to_str().unwrap().ends_with("-layers-20-int8-cpu"), "{}", int8.display());
        assert_ne!(int8, directory(Compute::CPU_BF16, &[]));
        assert_ne!(int8, directory(Compute::CPU_F32, &[]));
        assert_ne!(int8, directory(Compute::CPU_INT8, &[10]));
    }
}
