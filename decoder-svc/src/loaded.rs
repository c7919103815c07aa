//! The loaded decoder: its configuration, its models and the parts that all shards share.

use std::sync::Arc;

use baton_bundle::Bundle;
use baton_job::Mode;
use baton_model::{Compute, cache_num_bytes_per_token};
use baton_telemetry::MetricsRegistry;
use baton_worker::{
    CPU_CACHE_TOKENS, CPU_PASS_TOKENS, ModelService, ModelThreads, PlannedModels, ShardDesk, WorkerLimits,
    free_gpu_memory,
};

use crate::engine::EngineQueue;
use crate::engine_models::EngineModels;
use crate::judge::QualityModels;
use crate::metrics::DecoderMetrics;
use crate::reuse::KnownOutputs;
use crate::writer::Writer;
use crate::{AllowedOutputs, DecoderError};

/// The decoder's arithmetic, and the bounds of its memory.
#[derive(Debug, Clone, Copy)]
pub struct DecoderConfig {
    /// Device and number format.
    pub compute: Compute,
    /// Threads that run the SLM, each with its own copy of the weights, its own slots and its own cache.
    pub engines: usize,
    /// Sequences that one engine decodes at once. A record has one, or as many as it has beams or samples.
    /// More sequences share the cost of reading the weights; beyond the core's arithmetic they only wait.
    pub max_slots: usize,
    /// Tokens of one engine's KV cache, all rows together. A row reserves its prompt and all it may write.
    pub max_cache_tokens: usize,
    /// Prompt tokens prefilled between two steps. Lower keeps live rows moving, higher fills empty slots
    /// faster.
    pub max_prefill_tokens: usize,
    /// Prompt tokens whose states may wait for a slot, all shards together; each costs 2 * d_slm bytes.
    pub max_waiting_tokens: u32,
    /// Bounds on the shards taken on.
    pub limits: WorkerLimits,
    /// Mode of the jobs served, with those that [`Mode::served`] names beside it: it says which model writes.
    pub mode: Mode,
}

impl DecoderConfig {
    /// The fastest number format on this CPU, one engine, 64 slots, a cache of 32,768 tokens.
    #[must_use]
    pub fn cpu() -> Self {
        Self {
            compute: Compute::fastest_cpu(),
            engines: 1,
            max_slots: 64,
            max_cache_tokens: CPU_CACHE_TOKENS,
            max_prefill_tokens: CPU_PASS_TOKENS,
            max_waiting_tokens: 32_768,
            limits: WorkerLimits::default(),
            mode: Mode::Hybrid,
        }
    }

    /// The configuration for a device: on a CPU, [`DecoderConfig::cpu`]. On a GPU, each engine has 512 slots
    /// and a cache of three fifths of the free memory; weights and activations have the rest.
    ///
    /// # Errors
    /// The bundle does not serve the mode.
    pub fn for_device(
        bundle: &Bundle,
        mode: Mode,
        (compute, engines): (Compute, usize),
    ) -> Result<Self, DecoderError> {
        let config = Self { compute, engines, mode, ..Self::cpu() };
        let Some(index) = compute.gpu() else { return Ok(config) };
        let config = Self { max_slots: 512, max_prefill_tokens: 8192, ..config };
        let Some(free) = free_gpu_memory(index) else { return Ok(config) };
        let mut num_bytes_per_token = 0;
        if mode.llm_writes() {
            let (_, llm) = bundle.llm().map_err(|source| DecoderError::Bundle { source })?;
            num_bytes_per_token += cache_num_bytes_per_token(llm, compute);
        }
        if mode.uses_slm() {
            let (_, slm) = bundle.small_model().map_err(|source| DecoderError::Bundle { source })?;
            num_bytes_per_token += cache_num_bytes_per_token(slm, compute);
        }
        let tokens = free / 5 * 3 / (num_bytes_per_token * engines.max(1)) as u64;
        let max_cache_tokens = tokens.min(1 << 28) as usize;
        tracing::info!(
            free_num_bytes = free,
            max_cache_tokens,
            "sized the key-value cache by the GPU's free memory"
        );
        Ok(Self { max_cache_tokens, ..config })
    }

    /// The same, or larger, so that any record of the bundle fits with `num_sequences` beams or samples.
    ///
    /// # Errors
    /// The bundle does not say how the model that writes is used.
    pub fn with_room_for(self, bundle: &Bundle, num_sequences: usize) -> Result<Self, DecoderError> {
        let tokens_of_sequence = Writer::of(bundle, self.mode)?.max_sequence_tokens(bundle);
        Ok(Self {
            max_slots: self.max_slots.max(num_sequences),
            max_cache_tokens: self.max_cache_tokens.max(num_sequences * tokens_of_sequence),
            ..self
        })
    }
}

/// A decoder that is loaded and not served yet.
#[derive(Debug)]
pub struct DecoderService {
    pub(crate) loaded: Arc<LoadedDecoder>,
    pub(crate) engine_threads: ModelThreads,
}

/// The parts that every shard's task uses.
#[derive(Debug)]
pub(crate) struct LoadedDecoder {
    pub(crate) desk: ShardDesk,
    pub(crate) engine: EngineQueue,
    pub(crate) writer: Writer,
    pub(crate) max_prompt_tokens: usize,
    /// Of one engine.
    pub(crate) max_slots: usize,
    pub(crate) metrics: DecoderMetrics,
    pub(crate) allowed_outputs: AllowedOutputs,
    /// The estimates of outputs' quality.
    pub(crate) quality: QualityModels,
    /// Outputs that need not be written again.
    pub(crate) known: KnownOutputs,
}

impl DecoderService {
    /// Loads the model of a bundle that writes, and its tokenizer.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded. Or the models do not fit into memory, or the longest record not
    /// into the cache.
    pub async fn load(bundle: &Bundle, config: DecoderConfig) -> Result<Self, DecoderError> {
        let writer = Writer::of(bundle, config.mode)?;
        let needed_cache_tokens = writer.max_sequence_tokens(bundle);
        if config.max_cache_tokens < needed_cache_tokens {
            let max_cache_tokens = config.max_cache_tokens;
            return Err(DecoderError::CacheTooSmall { max_cache_tokens, needed_cache_tokens });
        }
        check_memory(bundle, &config)?;
        let model_bundle = bundle.clone();
        let load = move || EngineModels::load(&model_bundle, &config);
        let (engine, engine_threads) =
            EngineQueue::start(config.engines, config.max_waiting_tokens, load).await?;
        // The small model writes the same way for every reader.
        let modes = if config.mode == Mode::Slm { Mode::Hybrid } else { config.mode }.served();
        let limits = bundle.manifest().limits;
        let reads_llm_tokens = writer.reads.prompt_end.is_some();
        let quality = bundle.manifest().quality.iter();
        let metrics = DecoderMetrics::default();
        let loaded = LoadedDecoder {
            known: KnownOutputs::new(config.compute.arithmetic(), &metrics),
            desk: ShardDesk::new("decoder", bundle, modes, config.limits),
            engine,
            writer,
            max_prompt_tokens: match reads_llm_tokens {
                true => limits.max_prompt_tokens,
                false => limits.slm_prompt_tokens(),
            },
            max_slots: config.max_slots,
            metrics,
            allowed_outputs: AllowedOutputs::default(),
            quality: quality.map(|(mode, model)| (*mode, Arc::new(model.clone()))).collect(),
        };
        Ok(Self { loaded: Arc::new(loaded), engine_threads })
    }

    /// Says where jobs may have their outputs; any place, if it is not said.
    ///
    /// # Panics
    /// The service is served already.
    #[must_use]
    pub fn allowing_outputs(mut self, outputs: AllowedOutputs) -> Self {
        let loaded = Arc::get_mut(&mut self.loaded).expect("a service that is not served is not shared");
        loaded.allowed_outputs = outputs;
        self
    }

    /// Registers the decoder's metrics.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.loaded.desk.register_metrics(metrics);
        self.loaded.metrics.register(metrics, self.loaded.engine.load());
    }
}

/// Refuses models that do not fit into memory.
fn check_memory(bundle: &Bundle, config: &DecoderConfig) -> Result<(), DecoderError> {
    let DecoderConfig { compute, engines, max_cache_tokens, max_prefill_tokens, mode, .. } = *config;
    let memory = |format| ModelService::Decoder.memory(bundle, mode, format);
    // A prompt is read in one pass, even if it is longer than other passes.
    let pass_tokens = max_prefill_tokens.max(bundle.manifest().limits.max_prompt_tokens);
    let format = compute.weight_format();
    memory(format).map_err(|source| DecoderError::Bundle { source })?;
    let (service, cache_tokens) = (ModelService::Decoder, max_cache_tokens);
    let planned = PlannedModels { service, format, engines, pass_tokens, cache_tokens };
    Ok(planned.check(compute, |format| memory(format).unwrap_or_default())?)
}
