//! The small model at work: prompt states into the KV cache, then one token per live row and step.
//!
//! It does what it is told, row by row; which rows live, what they are fed and when they stop is decided by `baton-decoding`.
//! A row's tokens and scores are the same bits alone or beside any others, on the CPU with one libtorch thread.

use baton_bundle::{Bundle, LlamaConfig, PromptAttention};
use baton_decoding::{SlotId, SpecialTokens, StepRow, TokenChoice};
use tch::{Kind, Tensor, no_grad};

use crate::{
    CacheLimits, Checkpoint, Compute, Llama, LlamaParts, ModelError, PackedLayout, PromptStates, Visibility,
    cached_attention::{PrefillAttention, StepAttention},
    kernels::greedy_tokens,
    kv_cache::KvCache,
};

/// A prompt that enters the batch.
#[derive(Debug, Clone, Copy)]
pub struct PrefillRow<'a> {
    /// An empty slot.
    pub slot: SlotId,
    /// What the SLM reads of the prompt.
    pub states: &'a PromptStates,
    /// Tokens that the row may cache: those of the prompt, and one per step to come.
    pub capacity_tokens: usize,
}

/// A small model with the cache of its live rows. Greedy.
#[derive(Debug)]
pub struct SlmDecoder {
    model: Llama,
    prompt_visibility: Visibility,
    special: SpecialTokens,
    compute: Compute,
    cache: KvCache,
    logits_scratch: Vec<f32>,
}

impl SlmDecoder {
    /// Loads `slm/` of a bundle and allocates its cache.
    ///
    /// # Errors
    /// A file is missing or broken, does not fit the manifest, names no single begin and end token, or memory runs out.
    pub fn load(bundle: &Bundle, compute: Compute, limits: CacheLimits) -> Result<Self, ModelError> {
        let config = bundle.slm_config();
        let checkpoint = Checkpoint::open(&bundle.path("slm/model.safetensors"))?;
        let parts = LlamaParts { blocks: config.num_hidden_layers, lm_head: true };
        let model = Llama::load(config, &checkpoint, parts, compute)?;
        Self::new(model, bundle.manifest().slm.prompt_attention, compute, limits)
    }

    /// A decoder around a model that is already in memory, loaded with `lm_head` and the same `compute`.
    ///
    /// # Errors
    /// The model's config names no single begin and end token, or memory runs out.
    pub fn new(
        model: Llama,
        prompt_attention: PromptAttention,
        compute: Compute,
        limits: CacheLimits,
    ) -> Result<Self, ModelError> {
        let special = special_tokens(model.config())?;
        let cache = KvCache::new(model.config(), model.num_blocks(), compute, limits)?;
        let prompt_visibility = match prompt_attention {
            PromptAttention::Bidirectional => Visibility::Bidirectional,
            PromptAttention::Causal => Visibility::Causal,
        };
        Ok(Self { model, prompt_visibility, special, compute, cache, logits_scratch: Vec::new() })
    }

    /// Width of the prompt states it reads.
    #[must_use]
    pub fn d_slm(&self) -> usize {
        self.model.config().hidden_size
    }

    /// The tokens that begin and end what it writes.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special
    }

    /// Reads prompts into the cache, as one packed batch. Yields no token: a row's first step does.
    ///
    /// # Panics
    /// A slot is occupied, the cache is full, or prompt states have another width than [`d_slm`](Self::d_slm).
    pub fn prefill(&mut self, rows: &[PrefillRow<'_>]) {
        if rows.is_empty() {
            return;
        }
        let d_slm = self.d_slm();
        let mut data = Vec::with_capacity(rows.iter().map(|row| row.states.data.len()).sum());
        for row in rows {
            assert_eq!(row.states.d_slm, d_slm, "prompt states of another small model");
            self.cache.blocks.occupy(row.slot, row.capacity_tokens);
            data.extend_from_slice(&row.states.data);
        }
        let prompts: Vec<(SlotId, usize)> =
            rows.iter().map(|row| (row.slot, row.states.prompt_len)).collect();
        let layout = PackedLayout::prompts(prompts.iter().map(|&(_, len)| len));
        let device = self.compute.device;
        no_grad(|| {
            let states =
                Tensor::from_data_size(&data, &[layout.total_tokens(), d_slm as i64], Kind::BFloat16);
            let states = states.to_device(device).to_kind(Kind::Float);
            let positions = layout.positions().to_device(device);
            let mut attention = PrefillAttention::new(&mut self.cache, &prompts, self.prompt_visibility);
            let _ = self.model.forward(states, &positions, &mut attention, 0.0);
        });
    }

    /// Feeds one token into each row and chooses what follows, in the order of `rows`. No slot may stand there twice.
    ///
    /// # Panics
    /// A slot is empty, a row outgrows its capacity, or a token is outside the vocabulary.
    pub fn step(&mut self, rows: &[StepRow]) -> Vec<TokenChoice> {
        if rows.is_empty() {
            return Vec::new();
        }
        let slots: Vec<SlotId> = rows.iter().map(|row| row.slot).collect();
        let tokens: Vec<i64> = rows.iter().map(|row| i64::from(row.token)).collect();
        let logits = no_grad(|| {
            let embeddings = self.model.embed(&Tensor::from_slice(&tokens).to_device(self.compute.device));
            let mut attention = StepAttention::new(&mut self.cache, &slots);
            let positions = attention.positions();
            self.model.logits(&self.model.forward(embeddings, &positions, &mut attention, 0.0))
        });
        let end = self.special.end_of_sequence;
        let masked: Vec<Option<u32>> = rows.iter().map(|row| (!row.allow_stop).then_some(end)).collect();
        let chosen = greedy_tokens(&logits, &masked, &mut self.logits_scratch);
        slots
            .into_iter()
            .zip(chosen)
            .map(|(slot, chosen)| TokenChoice {
                slot,
                token: chosen.token,
                log_probability: chosen.log_probability,
            })
            .collect()
    }

    /// Forgets a row and frees its cache. An empty slot stays empty.
    pub fn release(&mut self, slot: SlotId) {
        self.cache.blocks.release(slot);
    }
}

fn special_tokens(config: &LlamaConfig) -> Result<SpecialTokens, ModelError> {
    match (config.bos_token_id, config.eos_token_ids.as_slice()) {
        (Some(begin_of_sequence), &[end_of_sequence]) => {
            Ok(SpecialTokens { begin_of_sequence, end_of_sequence })
        }
        (begin, ends) => Err(ModelError::Unsupported(format!(
            "the small model's config.json has bos_token_id = {begin:?} and {} eos_token_id: it needs one of each",
            ends.len()
        ))),
    }
}
