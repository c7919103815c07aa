//! The encoder's model: the LLM up to the bundle's layer, the projector and the fusion, as one function from tokens to prompt states.

use std::cell::Cell;

use baton_bundle::{Bundle, Fusion, PromptEmbeddingSource, SmallModel};
use baton_job::Mode;
use bytes::Bytes;
use tch::{Kind, Tensor, no_grad};

use crate::{
    Checkpoint, Compute, LanguageModel, LlmWeights, ModelError, ModelParts, PackedLayout, Projector,
    PromptEmbedding, fuse,
    memory::PassSize,
    transfer::{download, upload_indices},
};

const BYTES_PER_BF16: usize = 2;

/// What the SLM's prefill reads of one prompt: `[prompt_len, d_slm]`, bf16, little-endian, row by row.
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

/// Turns prompts into prompt states.
#[derive(Debug)]
pub struct PromptEncoder {
    compute: Compute,
    llm: LanguageModel,
    projector: Option<Projector>, // none where the LLM is not read (mode `slm`)
    mixed_layers: Vec<usize>,
    prompt_embedding: Option<PromptEmbedding>,
    fusion: Fusion,
    d_slm: usize,
    pass_size: Cell<PassSize>, // tokens
}

impl PromptEncoder {
    /// Loads `llm/` and `projector/` of a bundle. Blocks of the LLM above the bundle's layer are not read, and none is where the
    /// bundle's small model works alone.
    ///
    /// # Errors
    /// A file is missing or broken, or does not fit the manifest.
    pub fn load(bundle: &Bundle, compute: Compute) -> Result<Self, ModelError> {
        let manifest = bundle.manifest();
        let (SmallModel { projector: shape, fusion, .. }, _) = bundle.small_model()?;
        let hybrid = manifest.modes.contains(&Mode::Hybrid);
        let llm_config = bundle.llm_config();
        let llm_weights = LlmWeights::for_reading(bundle)?;
        let blocks = if hybrid { manifest.llm.layers } else { 0 };
        let llm =
            LanguageModel::load(llm_config, &llm_weights, ModelParts { blocks, lm_head: false }, compute)?;

        let trained = Checkpoint::open(&bundle.path("projector/model.safetensors"))?;
        let (d_llm, d_slm) = (shape.d_llm, shape.d_slm);
        let projector = if hybrid { Some(Projector::load(&trained, shape, compute)?) } else { None };
        let prompt_embedding = match (shape.prompt_embedding, fusion) {
            (PromptEmbeddingSource::None, _) => None,
            (PromptEmbeddingSource::Llm, Fusion::Replace) if hybrid => None,
            (PromptEmbeddingSource::Llm, _) => Some(PromptEmbedding::load(&trained, d_llm, d_slm, compute)?),
        };
        let pass_size = Cell::new(PassSize::unbounded("encode"));
        let mixed_layers = shape.mixed_layers.clone();
        Ok(Self { compute, llm, projector, mixed_layers, prompt_embedding, fusion, d_slm, pass_size })
    }

    /// Width of the prompt states.
    #[must_use]
    pub fn d_slm(&self) -> usize {
        self.d_slm
    }

    /// Encodes prompts as one packed batch, or as several where memory does not suffice for one; results in the same order. A prompt's states
    /// do not depend on the others.
    ///
    /// # Panics
    /// A prompt is empty or has a token outside the LLM's vocabulary, or memory does not suffice for it alone.
    #[must_use]
    pub fn encode(&self, prompts: &[&[u32]]) -> Vec<PromptStates> {
        let mut states = Vec::with_capacity(prompts.len());
        let lens = prompts.iter().map(|prompt| prompt.len());
        let size = self.pass_size.get().run(&lens, |part| states.extend(self.encode_at_once(&prompts[part])));
        self.pass_size.set(size);
        states
    }

    fn encode_at_once(&self, prompts: &[&[u32]]) -> Vec<PromptStates> {
        assert!(prompts.iter().all(|p| !p.is_empty()), "a template renders at least one token");
        let states = no_grad(|| self.prompt_states(prompts)).to_kind(Kind::BFloat16).contiguous();
        let num_bytes = states.numel() * BYTES_PER_BF16;
        let mut bytes = vec![0; num_bytes];
        download(states.view_dtype(Kind::Uint8)).copy_data_u8(&mut bytes, num_bytes);
        let mut rest = Bytes::from(bytes);
        prompts
            .iter()
            .map(|p| PromptStates {
                prompt_len: p.len(),
                d_slm: self.d_slm,
                data: rest.split_to(p.len() * self.d_slm * BYTES_PER_BF16),
            })
            .collect()
    }

    /// `[total_tokens, d_slm]` f32.
    fn prompt_states(&self, prompts: &[&[u32]]) -> Tensor {
        let layout = PackedLayout::prompts(prompts.iter().map(|p| p.len()));
        let tokens: Vec<i64> = prompts.iter().flat_map(|p| p.iter().map(|&t| i64::from(t))).collect();
        let embeddings = self.llm.embed(&upload_indices(&tokens, self.compute.device));
        let prompt_embeddings = self.prompt_embedding.as_ref().map(|e| e.forward(&embeddings));
        let Some(projector) = &self.projector else {
            return prompt_embeddings.expect("where the LLM is not read, prompts are embedded");
        };
        let hidden_states = self.llm.read_layers(embeddings, &layout, &self.mixed_layers);
        fuse(self.fusion, projector.forward(&hidden_states), || {
            prompt_embeddings.expect("fusion `add` has a prompt embedding")
        })
    }
}
