//! The loaded encoder: its configuration, its models and the parts that all shards share.

use std::sync::Arc;

use baton_bundle::{Bundle, Limits};
use baton_job::Mode;
use baton_model::{Compute, PromptEncoder};
use baton_proto::Connections;
use baton_reuse::SegmentKeys;
use baton_telemetry::{Counter, MetricsRegistry};
use baton_worker::{CPU_PASS_TOKENS, ModelService, ModelThreads, PlannedModels, ShardDesk, WorkerLimits};

use crate::EncoderError;
use crate::model_queue::ModelQueue;
use crate::readers::PromptReaders;

/// How the encoder computes.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Device and number format.
    pub compute: Compute,
    /// Threads that run the LLM, each with its own copy of the weights.
    pub engines: usize,
    /// Prompt tokens in one forward pass. More use the hardware better, and cost activations: about 100 KiB a
    /// token at d_model 576.
    pub max_batch_tokens: usize,
    /// Bounds on the shards taken on.
    pub limits: WorkerLimits,
    /// Mode of the jobs served, together with the modes that [`Mode::served`] names. It decides what is
    /// loaded: in mode `slm` no block of the LLM; in mode `llm`, where the decoder reads the tokens, no
    /// model. A shard's own mode decides what runs for it.
    pub mode: Mode,
}

impl EncoderConfig {
    /// The fastest number format on this CPU, one engine, batches of 1024 tokens.
    #[must_use]
    pub fn cpu() -> Self {
        Self {
            compute: Compute::fastest_cpu(),
            engines: 1,
            max_batch_tokens: CPU_PASS_TOKENS,
            limits: WorkerLimits::default(),
            mode: Mode::Hybrid,
        }
    }

    /// The configuration for a device: on a CPU, [`EncoderConfig::cpu`]; on a GPU, batches of 16,384 tokens.
    #[must_use]
    pub fn for_device(mode: Mode, (compute, engines): (Compute, usize)) -> Self {
        let config = Self { compute, engines, mode, ..Self::cpu() };
        if compute.is_cpu() { config } else { Self { max_batch_tokens: 16_384, ..config } }
    }
}

/// An encoder that is loaded and not served yet.
#[derive(Debug)]
pub struct EncoderService {
    pub(crate) loaded: Arc<LoadedEncoder>,
    pub(crate) model_threads: ModelThreads,
}

/// The parts that every shard's task uses.
#[derive(Debug)]
pub(crate) struct LoadedEncoder {
    pub(crate) desk: ShardDesk,
    pub(crate) connections: Connections,
    pub(crate) max_batch_tokens: usize,
    pub(crate) limits: Limits,
    pub(crate) prompt_tokens: Counter,
    /// None where the decoder reads tokens alone.
    pub(crate) queue: Option<ModelQueue>,
    pub(crate) readers: Arc<PromptReaders>,
    /// Names segments, and how they are read here.
    pub(crate) keys: SegmentKeys,
}

impl EncoderService {
    /// Loads the models of a bundle that read prompts. `connections` reach the decoders.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the models do not fit into memory.
    pub async fn load(
        bundle: &Bundle,
        config: EncoderConfig,
        connections: Connections,
    ) -> Result<Self, EncoderError> {
        let manifest = bundle.manifest();
        let served = config.mode.served().iter().copied().filter(|mode| manifest.modes.contains(mode));
        let modes: Vec<Mode> = served.collect();
        let readers =
            PromptReaders::load(bundle, &modes).map_err(|source| EncoderError::Bundle { source })?;
        check_memory(bundle, &config)?;
        let desk = ShardDesk::new("encoder", bundle, &modes, config.limits);
        let (queue, model_threads) = match config.mode.uses_slm() {
            true => {
                let bundle = bundle.clone();
                let load = move || PromptEncoder::load(&bundle, &modes, config.compute);
                let (queue, threads) = ModelQueue::start(config.engines, load).await?;
                (Some(queue), threads)
            }
            false => (None, ModelThreads::default()),
        };
        // Where the decoder reads tokens, this process computes nothing.
        let arithmetic = queue.as_ref().map_or_else(|| "none".to_owned(), |_| config.compute.arithmetic());
        let loaded = LoadedEncoder {
            keys: SegmentKeys::new(&arithmetic),
            desk,
            connections,
            max_batch_tokens: config.max_batch_tokens,
            limits: manifest.limits,
            prompt_tokens: Counter::default(),
            queue,
            readers: Arc::new(readers),
        };
        Ok(Self { loaded: Arc::new(loaded), model_threads })
    }

    /// Registers the encoder's metrics.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.loaded.desk.register_metrics(metrics);
        let help = "Tokens of the prompts that the LLM has read";
        metrics.counter("baton_encoder_prompt_tokens_total", help, &self.loaded.prompt_tokens);
    }
}

/// Refuses models that do not fit into memory.
fn check_memory(bundle: &Bundle, config: &EncoderConfig) -> Result<(), EncoderError> {
    let EncoderConfig { compute, engines, max_batch_tokens, mode, .. } = *config;
    let memory = |format| ModelService::Encoder.memory(bundle, mode, format);
    // A text is read in one pass, even if it is longer than a batch.
    let pass_tokens = max_batch_tokens.max(bundle.manifest().limits.max_prompt_tokens);
    let format = compute.weight_format();
    memory(format).map_err(|source| EncoderError::Bundle { source })?;
    let service = ModelService::Encoder;
    let planned = PlannedModels { service, format, engines, pass_tokens, cache_tokens: 0 };
    Ok(planned.check(compute, |format| memory(format).unwrap_or_default())?)
}
