//! A model that writes, row by row: prompt states into the KV cache, then one token per live row and step.
//!
//! It executes orders, row by row. `baton-decoding` decides which rows live, their inputs and their ends. A
//! row's tokens and scores are the same bits alone or beside any others, on the CPU with one libtorch thread.

use std::ops::Range;

use baton_bundle::{Bundle, ModelConfig, OutputRules, PromptAttention};
use baton_decoding::{Candidates, LogitRows, Plan, Rewind, RowId, SlotId, SpecialTokens, StepRow};
use baton_job::Mode;
use tch::{Kind, Tensor, no_grad};

use crate::{
    CacheLimits, Checkpoint, Compute, LanguageModel, LlmWeights, ModelError, ModelParts, PackedLayout,
    PromptStates, Visibility,
    cached_attention::{PrefillAttention, StepAttention, write_prompts},
    kv_cache::KvCache,
    memory::PassSize,
    step_time::{Part, time},
    transfer::{upload, upload_indices},
};

/// A prompt that enters the batch.
#[derive(Debug, Clone, Copy)]
pub struct PrefillRow<'a> {
    /// An empty slot.
    pub slot: SlotId,
    /// The model's input for the prompt.
    pub prompt: Prompt<'a>,
    /// Tokens that the row may cache: those of the prompt, and one per future step.
    pub capacity_tokens: usize,
}

/// A writing model's input for a prompt.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Prompt states from an encoder: the small model's way.
    States(&'a PromptStates),
    /// Tokens of the model's own vocabulary, at least one: a model that works alone.
    Tokens(&'a [u32]),
}

impl Prompt<'_> {
    /// Tokens that it takes of the cache.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a prompt is never empty")]
    pub fn len(self) -> usize {
        match self {
            Prompt::States(states) => states.prompt_len,
            Prompt::Tokens(tokens) => tokens.len(),
        }
    }
}

/// A writing model, with the cache of its live rows: the small one, or the large one if it works alone.
#[derive(Debug)]
pub struct BatchDecoder {
    model: LanguageModel,
    prompt_visibility: Visibility,
    special: SpecialTokens,
    compute: Compute,
    cache: KvCache,
    prefill_size: PassSize,              // tokens
    step_size: PassSize,                 // rows
    feeding: Vec<SlotId>,                // of the pass under way
    candidates: Vec<Option<Candidates>>, // by slot
    logits: Vec<f32>,                    // of the last step, row after row
    ends: Vec<usize>,                    // of the rows in `logits`
}

impl BatchDecoder {
    /// Loads `slm/` of a bundle and allocates its cache.
    ///
    /// # Errors
    /// A file is missing or broken, does not fit the manifest, names no single begin and end token, or memory
    /// runs out.
    pub fn load(bundle: &Bundle, compute: Compute, limits: CacheLimits) -> Result<Self, ModelError> {
        let (small_model, config) = bundle.small_model()?;
        let checkpoint = Checkpoint::open(&bundle.path("slm/model.safetensors"))?;
        let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
        let model = LanguageModel::load(config, &checkpoint, parts, compute)?;
        Self::new(model, small_model.slm.prompt_attention, compute, limits)
    }

    /// Loads the whole of `llm/` of a bundle, with its adapter merged, as a writing model, and allocates its
    /// cache. Its prompts are tokens: the bundle's prompt, and all but the last of
    /// [`Bundle::prompt_end_ids`], which begins its output.
    ///
    /// # Errors
    /// The bundle does not serve mode `llm`, a file is missing or broken, or memory runs out.
    pub fn load_llm(bundle: &Bundle, compute: Compute, limits: CacheLimits) -> Result<Self, ModelError> {
        let end_of_sequence = bundle.llm_writer()?.eos_id(&bundle.text_tokenizer(Mode::Llm)?)?;
        let prompt_end = bundle.prompt_end_ids()?;
        let begin_of_sequence = *prompt_end.last().expect("a prompt's end is never empty");
        let (_, config) = bundle.llm()?;
        let limits_of_bundle = bundle.manifest().limits;
        let longest = config.longest_sequence(
            limits_of_bundle.max_prompt_tokens + prompt_end.len(),
            bundle.llm_writer()?.max_new_tokens,
        );
        if let Some(positions) = config.max_positions().filter(|&positions| longest > positions) {
            return Err(ModelError::Unsupported(format!(
                "bundle.json allows sequences of {longest} tokens, `llm.writer.prompt_end` included, but \
                 llm/ has only {positions} positions: lower `limits.max_prompt_tokens` or \
                 `llm.writer.max_new_tokens`"
            )));
        }
        let weights = LlmWeights::for_writing(bundle)?;
        let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
        let model = LanguageModel::load(config, &weights, parts, compute)?;
        let first = config.output_rules.first_token_id;
        let special = SpecialTokens { begin_of_sequence, end_of_sequence, first };
        Self::with_special_tokens(model, special, Visibility::Causal, (compute, limits))
    }

    /// A decoder around a model that is already in memory, loaded with `lm_head` and the same `compute`.
    ///
    /// # Errors
    /// The model's config names no single begin and end token, or memory runs out.
    pub fn new(
        model: LanguageModel,
        prompt_attention: PromptAttention,
        compute: Compute,
        limits: CacheLimits,
    ) -> Result<Self, ModelError> {
        let special = special_tokens(model.config())?;
        let prompt_visibility = match prompt_attention {
            PromptAttention::Bidirectional => Visibility::Bidirectional,
            PromptAttention::Causal => Visibility::Causal,
        };
        Self::with_special_tokens(model, special, prompt_visibility, (compute, limits))
    }

    fn with_special_tokens(
        model: LanguageModel,
        special: SpecialTokens,
        prompt_visibility: Visibility,
        (compute, limits): (Compute, CacheLimits),
    ) -> Result<Self, ModelError> {
        let cache = KvCache::new(model.config(), model.num_writing_blocks(), compute, limits)?;
        Ok(Self {
            model,
            prompt_visibility,
            special,
            compute,
            cache,
            prefill_size: PassSize::unbounded("prefill"),
            step_size: PassSize::unbounded("step"),
            feeding: Vec::new(),
            candidates: vec![None; limits.max_slots],
            logits: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Width of the prompt states it reads.
    #[must_use]
    pub fn d_slm(&self) -> usize {
        self.model.config().hidden_size
    }

    /// The tokens that begin and end its output.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special
    }

    /// Executes a plan's work before its step: releases slots, prefills newcomers, whose prompts `prompt_of`
    /// returns and whose candidates it keeps, and forks. [`step`](Self::step) is next. The caller decides
    /// which model a plan's rewinds concern.
    ///
    /// # Panics
    /// As for [`release`](Self::release), [`prefill`](Self::prefill) and [`fork`](Self::fork).
    pub fn begin_step<'a>(&mut self, plan: &Plan, prompt_of: impl Fn(RowId) -> Prompt<'a>) {
        plan.release.iter().for_each(|&slot| self.release(slot));
        let entering: Vec<PrefillRow<'a>> = plan
            .prefill
            .iter()
            .map(|entry| PrefillRow {
                slot: entry.slot,
                prompt: prompt_of(entry.row),
                capacity_tokens: entry.capacity_tokens,
            })
            .collect();
        self.prefill(&entering);
        for entry in plan.prefill.iter().filter(|entry| entry.candidates.is_some()) {
            self.candidates[entry.slot.0].clone_from(&entry.candidates);
        }
        plan.forks.iter().for_each(|fork| self.fork(fork.from, fork.to, fork.capacity_tokens));
    }

    /// Reads prompts into the cache, as one packed batch, or as several where memory does not suffice for
    /// one. Yields no token: a row's first step does.
    ///
    /// # Panics
    /// A slot is occupied, the cache is full, prompt states have another width than [`d_slm`](Self::d_slm),
    /// or memory does not suffice for one prompt.
    pub fn prefill(&mut self, rows: &[PrefillRow<'_>]) {
        for row in rows {
            self.cache.occupy(row.slot, row.prompt.len(), row.capacity_tokens);
        }
        let (size, lens) = (self.prefill_size, rows.iter().map(|row| row.prompt.len()));
        self.prefill_size = size.run(&lens, |part| self.prefill_at_once(&rows[part]));
    }

    fn prefill_at_once(&mut self, rows: &[PrefillRow<'_>]) {
        rows.iter().for_each(|row| self.cache.clear(row.slot)); // of what a pass that did not fit has left
        let prompts: Vec<(SlotId, usize)> = rows.iter().map(|row| (row.slot, row.prompt.len())).collect();
        let layout = PackedLayout::prompts(prompts.iter().map(|&(_, len)| len));
        no_grad(|| {
            let embeddings: Vec<Tensor> =
                time(Part::Embed, || rows.iter().map(|row| self.embeddings(row.prompt)).collect());
            let embeddings = Tensor::cat(&embeddings, 0);
            if self.model.config().encoder_decoder().is_some() {
                let states = self.model.read(embeddings, &layout);
                let keys_and_values = self.model.prompt_keys_and_values(&states);
                time(Part::Attention, || write_prompts(&mut self.cache, &prompts, &keys_and_values));
                return;
            }
            let mut attention = PrefillAttention::new(&mut self.cache, &prompts, self.prompt_visibility);
            self.model.remember(embeddings, &layout.positions(), &mut attention);
        });
    }

    /// `[prompt_len, d]` f32.
    fn embeddings(&self, prompt: Prompt<'_>) -> Tensor {
        match prompt {
            Prompt::States(states) => {
                assert_eq!(states.d_slm, self.d_slm(), "prompt states of another small model");
                let shape = [states.prompt_len as i64, states.d_slm as i64];
                let states = Tensor::from_data_size(&states.data, &shape, Kind::BFloat16);
                upload(states, self.compute.device).to_kind(Kind::Float)
            }
            Prompt::Tokens(tokens) => {
                let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
                self.model.embed(&upload_indices(&tokens, self.compute.device))
            }
        }
    }

    /// Feeds tokens into rows and yields the logits after each, in the order of `rows`: of the row's
    /// candidates, or of all tokens; minus infinity for tokens that the model never writes. Tokens for
    /// one slot follow one another. If memory does not suffice for all rows at once, they are fed in parts.
    ///
    /// # Panics
    /// A slot is empty, a row outgrows its capacity, a token is outside the vocabulary, or memory does not
    /// suffice for one row.
    pub fn step(&mut self, rows: &[StepRow]) -> LogitRows<'_> {
        self.logits.clear();
        self.ends.clear();
        let size = self.step_size;
        self.step_size = size.run(&rows.iter().map(|_| 1), |part| self.step_at_once(rows, part));
        LogitRows::ending(&self.logits, &self.ends)
    }

    fn step_at_once(&mut self, rows: &[StepRow], part: Range<usize>) {
        // A pass that did not fit into memory has left its tokens, and perhaps logits.
        self.feeding.drain(..).for_each(|slot| self.cache.blocks.rewind(slot, 1));
        self.ends.truncate(part.start);
        self.logits.truncate(self.ends.last().copied().unwrap_or(0));

        self.feeding.extend(rows[part.clone()].iter().map(|row| row.slot));
        let tokens: Vec<i64> = rows[part].iter().map(|row| i64::from(row.token)).collect();
        let mut attention = StepAttention::new(&mut self.cache, &self.feeding);
        no_grad(|| {
            let tokens = upload_indices(&tokens, self.compute.device);
            let embeddings = time(Part::Embed, || self.model.embed_written(&tokens));
            let positions = attention.positions();
            let hidden_states = if self.model.config().encoder_decoder().is_some() {
                self.model.decode(embeddings, &positions, &mut attention, 0.0)
            } else {
                self.model.forward(embeddings, &positions, &mut attention, 0.0)
            };
            let candidates = self.feeding.iter().map(|slot| self.candidates[slot.0].as_ref());
            let asked: Vec<_> = candidates.clone().map(|of_row| of_row.map(Candidates::tokens)).collect();
            let mut start = self.logits.len();
            self.model.append_logits(&hidden_states, &asked, &mut self.logits);
            let OutputRules { suppressed_token_ids, .. } = &self.model.config().output_rules;
            for candidates in candidates {
                let len = candidates.map_or(self.model.config().vocab_size, |all| all.tokens().len());
                let place = |&token: &u32| candidates.map_or(Some(token as usize), |all| all.place(token));
                for place in suppressed_token_ids.iter().filter_map(place) {
                    self.logits[start + place] = f32::NEG_INFINITY;
                }
                start += len;
                self.ends.push(start);
            }
        });
        self.feeding.clear();
    }

    /// Forgets the last tokens that rows were fed.
    ///
    /// # Panics
    /// A slot is empty, or was fed fewer tokens.
    pub fn rewind(&mut self, rewinds: &[Rewind]) {
        rewinds.iter().for_each(|rewind| self.cache.blocks.rewind(rewind.slot, rewind.num_tokens));
    }

    /// Makes the empty slot `to` a copy of the row in `from`. Both then continue independently: full blocks
    /// of the cache are shared, and the last, partial one is copied. `capacity_tokens`: tokens that the copy
    /// may cache, including its first ones.
    ///
    /// # Panics
    /// `from` is empty, `to` is occupied, `capacity_tokens` is less than `from` holds, or the cache is full.
    pub fn fork(&mut self, from: SlotId, to: SlotId, capacity_tokens: usize) {
        self.cache.fork(from, to, capacity_tokens);
        self.candidates[to.0] = self.candidates[from.0].clone();
    }

    /// Forgets a row and frees its cache. An empty slot stays empty.
    pub fn release(&mut self, slot: SlotId) {
        self.cache.release(slot);
        self.candidates[slot.0] = None;
    }
}

fn special_tokens(config: &ModelConfig) -> Result<SpecialTokens, ModelError> {
    match (config.bos_token_id, config.eos_token_ids.as_slice()) {
        (Some(begin_of_sequence), &[end_of_sequence]) => {
            let first = config.output_rules.first_token_id;
            Ok(SpecialTokens { begin_of_sequence, end_of_sequence, first })
        }
        (begin, ends) => Err(ModelError::Unsupported(format!(
            "the small model's config.json has {} = {begin:?} and {} eos_token_id: it needs one of each",
            config.field_name("bos_token_id"),
            ends.len()
        ))),
    }
}
