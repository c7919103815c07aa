//! The loaded encoder: its configuration, its models and the parts that all shards share.

use std::sync::Arc;

use baton_bundle::{BlockShare, Bundle, Limits};
use baton_job::Mode;
use baton_model::Compute;
use baton_proto::{Connections, PartName};
use baton_reuse::SegmentKeys;
use baton_telemetry::{Counter, MetricsRegistry};
use baton_worker::{CPU_PASS_TOKENS, ModelThreads, ShardDesk, WorkerLimits};

use crate::reader::Reader;
use crate::readers::PromptReaders;
use crate::split::Split;
use crate::{EncoderError, chain};

/// How the encoder computes.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// Devices that share the LLM's blocks, in their order, at least one, with one number format.
    pub devices: Vec<Compute>,
    /// Threads that run the LLM, or each part of it, each with its own copy of the weights.
    pub engines: usize,
    /// The LLM's blocks that this process runs. Default: all, or an equal part if there is a chain.
    pub blocks: Option<BlockShare>,
    /// Endpoints of the processes that run the blocks after these, in order.
    pub chain: Vec<String>,
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
            devices: vec![Compute::fastest_cpu()],
            engines: 1,
            blocks: None,
            chain: Vec::new(),
            max_batch_tokens: CPU_PASS_TOKENS,
            limits: WorkerLimits::default(),
            mode: Mode::Hybrid,
        }
    }

    /// The configuration for devices, at least one: on a CPU, [`EncoderConfig::cpu`]; on a GPU, batches of
    /// 16,384 tokens.
    #[must_use]
    pub fn for_devices(mode: Mode, devices: Vec<Compute>) -> Self {
        let max_batch_tokens = if devices[0].is_cpu() { CPU_PASS_TOKENS } else { 16_384 };
        Self { devices, mode, max_batch_tokens, ..Self::cpu() }
    }

    /// Whether this process has the LLM's first block and thus serves coordinators; otherwise it is a
    /// [`PartService`](crate::PartService).
    ///
    /// # Errors
    /// There are no such blocks.
    pub fn is_first(&self, bundle: &Bundle) -> Result<bool, EncoderError> {
        Ok(Split::of(bundle, self)?.blocks().start == 0)
    }

    /// Bytes that one engine of each part takes on the first device.
    ///
    /// # Errors
    /// There are no such blocks.
    pub fn engine_num_bytes(&self, bundle: &Bundle) -> Result<u64, EncoderError> {
        Ok(Split::of(bundle, self)?.engine_num_bytes(bundle, self))
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
    pub(crate) reader: Option<Arc<Reader>>,
    pub(crate) readers: Arc<PromptReaders>,
    /// Names segments, and how they are read here.
    pub(crate) keys: SegmentKeys,
}

impl EncoderService {
    /// Loads the models of a bundle that read prompts. `connections` reach the decoders, and the processes
    /// that run later blocks; the service is loaded when these are there.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the models do not fit into memory. Or a process of the chain
    /// has loaded something else.
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
        let split = Split::of(bundle, &config)?;
        split.check_memory(bundle, &config)?;
        let desk = ShardDesk::new("encoder", bundle, &modes, config.limits);
        // Where the decoder reads tokens, this process computes nothing.
        let mut arithmetic = "none".to_owned();
        let (mut reader, mut model_threads) = (None, ModelThreads::default());
        let mut max_batch_tokens = config.max_batch_tokens;
        if config.mode.uses_slm() {
            split.log();
            arithmetic = config.devices[0].arithmetic();
            let (mut here, threads) = Reader::start(bundle, modes, (&split, &config)).await?;
            if config.mode.reads_llm() {
                let (bundle_digest, blocks) = (bundle.digest().to_owned(), split.blocks());
                let own = PartName { bundle_digest, blocks, arithmetic: arithmetic.clone() };
                let others = (&connections, config.chain.as_slice());
                let (parts, max_tokens) = chain::reach(bundle, (&own, split.num_blocks), others).await?;
                max_batch_tokens = max_batch_tokens.min(max_tokens);
                here.extend(parts);
            }
            (reader, model_threads) = (Some(Arc::new(here)), threads);
        }
        let loaded = LoadedEncoder {
            keys: SegmentKeys::new(&arithmetic),
            desk,
            connections,
            max_batch_tokens,
            limits: manifest.limits,
            prompt_tokens: Counter::default(),
            reader,
            readers: Arc::new(readers),
        };
        Ok(Self { loaded: Arc::new(loaded), model_threads })
    }

    /// Registers the encoder's metrics.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.loaded.desk.register_metrics(metrics);
        register_prompt_tokens(metrics, &self.loaded.prompt_tokens);
    }
}

/// Registers the counter of the tokens that the LLM, or this part of it, has read.
pub(crate) fn register_prompt_tokens(metrics: &MetricsRegistry, counter: &Counter) {
    metrics.counter(
        "baton_encoder_prompt_tokens_total",
        "Tokens of the prompts that the LLM has read",
        counter,
    );
}
