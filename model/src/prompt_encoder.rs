//! The encoder's model: the LLM up to the bundle's layer, the projector and the fusion, as one function from
//! tokens to prompt states.
//!
//! The prompt of a small model consists of the LLM's tokens, or of its own tokens, which take the LLM's
//! states by characters (`aligned_states.rs`).
//!
//! Where the LLM is split, this is its first part together with all that is not the LLM's blocks. A pass then
//! has two halves, before and after the blocks that others run.

use std::{cell::Cell, ops::Range};

use baton_bundle::{Bundle, Fusion, ProjectorPart, PromptEmbeddingSource, PromptSource, Reading, SmallModel};
use baton_job::Mode;
use bytes::Bytes;
use tch::{Kind, Tensor, no_grad};

use crate::{
    AlignedRows, Checkpoint, Compute, LanguageModel, LayerStates, LlmWeights, ModelError, ModelParts,
    PackedLayout, Projector, PromptEmbedding, fuse,
    memory::PassSize,
    reader_part::mixed_layers_in,
    transfer::{download, upload_indices},
};

const BYTES_PER_BF16: usize = 2;

/// The input of the SLM's prefill for one prompt: `[prompt_len, d_slm]`, bf16, little-endian, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptStates {
    /// Rows: tokens of the prompt.
    pub prompt_len: usize,
    /// Columns: the SLM's width.
    pub d_slm: usize,
    /// The values, `prompt_len * d_slm * 2` bytes.
    pub data: Bytes,
}

impl PromptStates {
    /// Prompt states from their bytes.
    ///
    /// # Errors
    /// The prompt is empty, or the number of bytes does not fit the dimensions.
    pub fn new(prompt_len: usize, d_slm: usize, data: Bytes) -> Result<Self, ModelError> {
        let expected = prompt_len.checked_mul(d_slm).and_then(|values| values.checked_mul(BYTES_PER_BF16));
        if prompt_len == 0 || expected != Some(data.len()) {
            return Err(ModelError::PromptStates { prompt_len, d_slm, num_bytes: data.len() });
        }
        Ok(Self { prompt_len, d_slm, data })
    }
}

/// Turns texts, in tokens, into prompt states.
#[derive(Debug)]
pub struct PromptEncoder {
    compute: Compute,
    prompts: Prompts,
    d_slm: usize,
    pass_size: Cell<PassSize>, // tokens
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each engine")]
enum Prompts {
    LlmTokens {
        llm: LanguageModel,             // its embedding alone where no mode reads its states
        projection: Option<Projection>, // where one does
        embedding: Option<PromptEmbedding>,
        fusion: Fusion,
    },
    OwnTokens {
        slm: LanguageModel, // its embedding alone
        reader: Option<(LanguageModel, Projection)>,
    },
}

/// How the LLM's states enter the small model's space.
#[derive(Debug)]
struct Projection {
    mixed_layers: Vec<usize>, // those that are read here
    projector: Projector,
}

impl PromptEncoder {
    /// Loads the models that read prompts in `modes` of a bundle: the LLM up to the bundle's layer and the
    /// projector, or only their embeddings if the small model works alone.
    ///
    /// # Errors
    /// A file is missing or broken, or does not fit the manifest; the bundle has no small model; or it lacks
    /// a part that a mode needs.
    pub fn load(bundle: &Bundle, modes: &[Mode], compute: Compute) -> Result<Self, ModelError> {
        let num_blocks = bundle.llm().map_or(0, |(part, _)| part.layers);
        Self::load_first(bundle, modes, (num_blocks, compute))
    }

    /// The same with only the first `num_blocks` of the LLM's blocks: others run the rest between
    /// [`begin`](Self::begin) and [`finish`](Self::finish).
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_first(
        bundle: &Bundle,
        modes: &[Mode],
        (num_blocks, compute): (usize, Compute),
    ) -> Result<Self, ModelError> {
        let blocks = 0..num_blocks;
        let (SmallModel { prompts, .. }, slm_config) = bundle.small_model()?;
        let reads_llm = modes.iter().any(|mode| mode.reads_llm());
        let prompts = match prompts {
            PromptSource::LlmTokens { projector: part, fusion } => {
                let embeds = fusion == Fusion::Add || modes.contains(&Mode::Slm);
                let is_there = part.prompt_embedding == PromptEmbeddingSource::Llm;
                Prompts::LlmTokens {
                    llm: load_llm(bundle, if reads_llm { blocks.clone() } else { 0..0 }, compute)?,
                    projection: reads_llm
                        .then(|| Projection::load(bundle, (part, &blocks), compute))
                        .transpose()?,
                    embedding: (embeds && is_there)
                        .then(|| load_prompt_embedding(bundle, part, compute))
                        .transpose()?,
                    fusion,
                }
            }
            PromptSource::OwnTokens { projector } => {
                let weights = Checkpoint::open(&bundle.path("slm/model.safetensors"))?;
                let embedding_alone = ModelParts { blocks: 0, lm_head: false };
                let reader = projector.filter(|_| reads_llm).map(|part| {
                    Ok::<_, ModelError>((
                        load_llm(bundle, blocks.clone(), compute)?,
                        Projection::load(bundle, (part, &blocks), compute)?,
                    ))
                });
                Prompts::OwnTokens {
                    slm: LanguageModel::load(slm_config, &weights, embedding_alone, compute)?,
                    reader: reader.transpose()?,
                }
            }
        };
        let pass_size = Cell::new(PassSize::unbounded("encode"));
        Ok(Self { compute, prompts, d_slm: slm_config.hidden_size, pass_size })
    }

    /// Width of the prompt states.
    #[must_use]
    pub fn d_slm(&self) -> usize {
        self.d_slm
    }

    /// Encodes texts for one of the loaded modes, as one packed batch, or as several if memory does not
    /// suffice. Result: for each text, the states of each of its prompts, in order: of its segments, or of
    /// the LLM's tokens if it has no segments. States do not depend on the other texts.
    ///
    /// # Panics
    /// The mode was not loaded; a prompt is empty or has a token outside its model's vocabulary, or memory
    /// does not suffice for it alone.
    #[must_use]
    pub fn encode(&self, mode: Mode, readings: &[Reading]) -> Vec<Vec<PromptStates>> {
        let mut states = Vec::with_capacity(readings.len());
        self.in_passes(readings, |part| {
            let readings = &readings[part];
            let layers = if mode.reads_llm() { self.read(readings) } else { Vec::new() };
            states.extend(self.prompt_states(mode, readings, layers));
        });
        states
    }

    /// The first half of [`encode`](Self::encode) in a mode that reads the LLM's states: the layers of the
    /// first part. Other parts continue the stream.
    ///
    /// # Panics
    /// As for `encode`.
    #[must_use]
    pub fn begin(&self, readings: &[Reading]) -> LayerStates {
        let (llm, Projection { mixed_layers, .. }) = self.reader();
        let mut states = LayerStates::none(mixed_layers.len() + 1, llm.config().hidden_size);
        self.in_passes(readings, |part| {
            let readings = &readings[part];
            let lens = readings.iter().map(|reading| reading.llm_tokens.len()).collect();
            states.extend(LayerStates::of_layers(lens, self.read(readings)));
        });
        states
    }

    /// The second half: `layers` are the states of all layers that the projector mixes.
    ///
    /// # Panics
    /// As for `encode`.
    #[must_use]
    pub fn finish(&self, mode: Mode, readings: &[Reading], layers: &LayerStates) -> Vec<Vec<PromptStates>> {
        let mut states = Vec::with_capacity(readings.len());
        self.in_passes(readings, |part| {
            let layers = layers.copied_to(&part, self.compute.device);
            states.extend(self.prompt_states(mode, &readings[part], layers));
        });
        states
    }

    /// Runs `pass` over all readings, one or several at a time.
    fn in_passes(&self, readings: &[Reading], pass: impl FnMut(Range<usize>)) {
        let lens = readings.iter().map(Reading::num_tokens);
        self.pass_size.set(self.pass_size.get().run(&lens, pass));
    }

    /// The layers that are read here, mixed ones first: `[total_tokens, d_llm]` f32 each.
    fn read(&self, readings: &[Reading]) -> Vec<Tensor> {
        let (llm, Projection { mixed_layers, .. }) = self.reader();
        no_grad(|| {
            let embeddings = self.embed(llm, readings.iter().map(|reading| reading.llm_tokens.as_slice()));
            llm.read_blocks(embeddings, &layout_of_llm(readings), mixed_layers)
        })
    }

    /// The LLM and the projector.
    fn reader(&self) -> (&LanguageModel, &Projection) {
        match &self.prompts {
            Prompts::LlmTokens { llm, projection, .. } => {
                (llm, projection.as_ref().expect("the mode was loaded with the projector"))
            }
            Prompts::OwnTokens { reader, .. } => {
                let (llm, projection) = reader.as_ref().expect("the mode was loaded with the LLM");
                (llm, projection)
            }
        }
    }

    /// `layers`: as [`read`](Self::read) gives them, all that the projector mixes; none in a mode without the
    /// LLM's states.
    fn prompt_states(
        &self,
        mode: Mode,
        readings: &[Reading],
        mut layers: Vec<Tensor>,
    ) -> Vec<Vec<PromptStates>> {
        let prompt_lens: Vec<Vec<usize>> = readings.iter().map(Reading::prompt_lens).collect();
        assert!(!prompt_lens.concat().contains(&0), "a template renders at least one token");
        let states = no_grad(|| {
            let hidden_states = match layers.len() {
                0 | 1 => layers.pop(),
                _ => Some(Tensor::cat(&layers, 1)),
            };
            debug_assert_eq!(hidden_states.is_some(), mode.reads_llm());
            match &self.prompts {
                Prompts::LlmTokens { .. } => self.states_of_llm_tokens(readings, hidden_states),
                Prompts::OwnTokens { .. } => self.states_of_own_tokens(readings, hidden_states),
            }
        });
        let states = states.to_kind(Kind::BFloat16).contiguous();
        let num_bytes = states.numel() * BYTES_PER_BF16;
        let mut bytes = vec![0; num_bytes];
        download(states.view_dtype(Kind::Uint8)).copy_data_u8(&mut bytes, num_bytes);
        let mut rest = Bytes::from(bytes);
        let mut take = |&prompt_len: &usize| PromptStates {
            prompt_len,
            d_slm: self.d_slm,
            data: rest.split_to(prompt_len * self.d_slm * BYTES_PER_BF16),
        };
        prompt_lens.iter().map(|lens| lens.iter().map(&mut take).collect()).collect()
    }

    /// `hidden_states`: `[total_tokens, layers * d_llm]` f32; result `[total_tokens, d_slm]` f32.
    fn states_of_llm_tokens(&self, readings: &[Reading], hidden_states: Option<Tensor>) -> Tensor {
        let Prompts::LlmTokens { llm, embedding, fusion, .. } = &self.prompts else {
            unreachable!("the caller has looked")
        };
        let embedded = || {
            let embeddings = self.embed(llm, readings.iter().map(|reading| reading.llm_tokens.as_slice()));
            let embedding = embedding.as_ref();
            embedding.expect("a mode that embeds prompts has an embedding").forward(&embeddings)
        };
        match hidden_states {
            None => embedded(),
            Some(states) => {
                let (_, Projection { projector, .. }) = self.reader();
                fuse(*fusion, projector.forward(&states, &layout_of_llm(readings)), embedded)
            }
        }
    }

    /// As [`states_of_llm_tokens`](Self::states_of_llm_tokens).
    fn states_of_own_tokens(&self, readings: &[Reading], hidden_states: Option<Tensor>) -> Tensor {
        let Prompts::OwnTokens { slm, .. } = &self.prompts else { unreachable!("the caller has looked") };
        let segments = readings.iter().flat_map(|reading| &reading.segments);
        let embedded = self.embed(slm, segments.map(|segment| segment.tokens.as_slice()));
        match hidden_states {
            None => embedded,
            Some(states) => {
                let (_, Projection { projector, .. }) = self.reader();
                let aligned = AlignedRows::of_readings(readings, self.compute.device);
                aligned.add_projected(embedded, projector, &states)
            }
        }
    }

    /// `[total_tokens, d]` f32 of some prompts in the tokens of `model`.
    fn embed<'a>(&self, model: &LanguageModel, prompts: impl Iterator<Item = &'a [u32]>) -> Tensor {
        let tokens: Vec<i64> = prompts.flatten().map(|&token| i64::from(token)).collect();
        model.embed(&upload_indices(&tokens, self.compute.device))
    }
}

fn layout_of_llm(readings: &[Reading]) -> PackedLayout {
    PackedLayout::prompts(readings.iter().map(|reading| reading.llm_tokens.len()))
}

/// The first blocks of the LLM, or its embedding.
fn load_llm(bundle: &Bundle, blocks: Range<usize>, compute: Compute) -> Result<LanguageModel, ModelError> {
    let (_, config) = bundle.llm()?;
    LanguageModel::load_blocks(config, &LlmWeights::for_reading(bundle)?, blocks, compute)
}

fn load_prompt_embedding(
    bundle: &Bundle,
    part: &ProjectorPart,
    compute: Compute,
) -> Result<PromptEmbedding, ModelError> {
    PromptEmbedding::load(&open_projector(bundle)?, part.d_llm, part.d_slm, compute)
}

fn open_projector(bundle: &Bundle) -> Result<Checkpoint, ModelError> {
    Checkpoint::open(&bundle.path("projector/model.safetensors"))
}

impl Projection {
    fn load(
        bundle: &Bundle,
        (part, blocks): (&ProjectorPart, &Range<usize>),
        compute: Compute,
    ) -> Result<Self, ModelError> {
        let projector = Projector::load(&open_projector(bundle)?, part, compute)?;
        Ok(Self { mixed_layers: mixed_layers_in(bundle, blocks)?, projector })
    }
}
