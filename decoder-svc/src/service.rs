//! The gRPC surface: what is loaded, the checks before a shard is taken on, one task per shard.

use std::future::Future;
use std::sync::{Arc, Weak};

use baton_bundle::Bundle;
use baton_decoding::Generation;
use baton_job::Mode;
use baton_model::{Compute, cache_num_bytes_per_token};
use baton_proto::wire::decoder_server::{Decoder, DecoderServer};
use baton_proto::wire::{
    DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, ShardEvent, WorkerInfo,
};
use baton_proto::{MAX_MESSAGE_NUM_BYTES, ShardAttempt};
use baton_telemetry::{MetricsRegistry, TraceContext};
use baton_worker::{
    Admission, MemoryBudget, ModelThreads, ServeOptions, Served, ServedService, WorkerLimits,
    free_gpu_memory, refuse_draining, spawn_shard, worker_info,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::EngineQueue;
use crate::engine_models::EngineModels;
use crate::generation::generation;
use crate::metrics::DecoderMetrics;
use crate::writer::Writer;
use crate::{DecoderError, shard};

/// How the decoder computes, and what bounds its memory.
#[derive(Debug, Clone, Copy)]
pub struct DecoderConfig {
    /// Device and number format.
    pub compute: Compute,
    /// Threads that run the SLM, each with its own copy of the weights, its own slots and its own cache.
    pub engines: usize,
    /// Sequences that one engine decodes at once: a record has one, or as many as it has beams or samples. More share the cost of
    /// reading the weights; past what the core can compute they only wait together.
    pub max_slots: usize,
    /// Tokens of one engine's KV cache, all rows together. A row reserves its prompt and all it may write.
    pub max_cache_tokens: usize,
    /// Prompt tokens prefilled between two steps. Lower keeps live rows moving, higher fills empty slots faster.
    pub max_prefill_tokens: usize,
    /// Prompt tokens whose states may wait for a slot, all shards together; each costs 2 * d_slm bytes.
    pub max_waiting_tokens: u32,
    /// Bounds on the shards taken on.
    pub limits: WorkerLimits,
    /// Mode of the jobs served: it says which model writes.
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
            max_cache_tokens: 32_768,
            max_prefill_tokens: 1024,
            max_waiting_tokens: 32_768,
            limits: WorkerLimits::default(),
            mode: Mode::Hybrid,
        }
    }

    /// What suits a device: on a CPU, [`DecoderConfig::cpu`]; on a GPU, 512 slots for each engine and a cache that takes three fifths of the
    /// memory that is free now, weights and activations have the rest.
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
            num_bytes_per_token += cache_num_bytes_per_token(bundle.llm_config(), compute);
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

/// A loaded decoder, ready to [`serve`].
#[derive(Debug)]
pub struct DecoderService {
    shared: Arc<Shared>,
    engine_threads: ModelThreads,
}

/// What every shard's task uses.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: EngineQueue,
    pub(crate) writer: Writer,
    pub(crate) max_prompt_tokens: usize,
    pub(crate) records: MemoryBudget,
    pub(crate) metrics: DecoderMetrics,
    admission: Admission,
    info: WorkerInfo,
}

impl DecoderService {
    /// Loads the model of a bundle that writes, and its tokenizer.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the cache cannot hold the longest record that the bundle serves.
    pub async fn load(bundle: &Bundle, config: DecoderConfig) -> Result<Self, DecoderError> {
        let manifest = bundle.manifest();
        let writer = Writer::of(bundle, config.mode)?;
        let needed_cache_tokens = writer.max_sequence_tokens(bundle);
        if config.max_cache_tokens < needed_cache_tokens {
            let max_cache_tokens = config.max_cache_tokens;
            return Err(DecoderError::CacheTooSmall { max_cache_tokens, needed_cache_tokens });
        }
        let model_bundle = bundle.clone();
        let load = move || EngineModels::load(&model_bundle, &config);
        let (engine, engine_threads) =
            EngineQueue::start(config.engines, config.max_waiting_tokens, load).await?;
        let shared = Shared {
            engine,
            writer,
            max_prompt_tokens: manifest.limits.max_prompt_tokens,
            records: MemoryBudget::new(config.limits.max_record_num_bytes),
            metrics: DecoderMetrics::default(),
            admission: Admission::new(config.limits.max_open_shards),
            info: worker_info(bundle, config.mode),
        };
        Ok(Self { shared: Arc::new(shared), engine_threads })
    }

    /// Registers what the decoder counts.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.shared.admission.register_metrics(metrics);
        self.shared.metrics.register(metrics, self.shared.engine.load());
    }

    /// The service, to be served.
    #[must_use]
    pub fn into_served(self) -> Served<impl ServedService, impl Send> {
        let DecoderService { shared, engine_threads } = self;
        let service = DecoderServer::new(Handler { shared: Arc::downgrade(&shared) })
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        Served {
            service,
            admission: shared.admission.clone(),
            model_threads: engine_threads,
            resources: shared,
        }
    }
}

/// Serves the decoder to roles of the same process until `shutdown` resolves; shards in flight are then finished, and when it returns,
/// no thread of it runs any more.
///
/// # Errors
/// The server fails, or the engine thread dies. The process should then end: its shards are leased elsewhere.
pub async fn serve<IO, E>(
    service: DecoderService,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DecoderError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Ok(baton_worker::serve(service.into_served(), incoming, shutdown, ServeOptions::default()).await?)
}

impl Shared {
    /// Refuses an attempt that this decoder cannot serve; otherwise says how its rows are generated.
    fn accept(&self, attempt: &ShardAttempt) -> Result<Generation, DecoderError> {
        if attempt.bundle_digest != self.info.bundle_digest {
            let (wanted, loaded) = (attempt.bundle_digest.clone(), self.info.bundle_digest.clone());
            return Err(DecoderError::OtherBundle { wanted, loaded });
        }
        if !self.info.modes.iter().any(|mode| mode == attempt.mode.as_str()) {
            let served = self.info.modes.join(", ");
            return Err(DecoderError::OtherMode { wanted: attempt.mode.as_str(), served });
        }
        generation(&attempt.generation, self.writer.max_new_tokens, &self.writer.tokenizer)
    }
}

/// Answers calls as long as the service takes part in the job.
struct Handler {
    shared: Weak<Shared>,
}

impl Handler {
    fn shared(&self) -> Result<Arc<Shared>, Status> {
        self.shared.upgrade().ok_or_else(refuse_draining)
    }
}

#[tonic::async_trait]
impl Decoder for Handler {
    type DecodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        Ok(Response::new(GetDecoderInfoResponse { info: Some(self.shared()?.info.clone()) }))
    }

    async fn decode_shard(
        &self,
        request: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<Self::DecodeShardStream>, Status> {
        let shared = self.shared()?;
        let trace = TraceContext::continue_from(request.metadata());
        let mut requests = request.into_inner();
        let header = async {
            let attempt = shard::receive_header(&mut requests).await?;
            let generation = Arc::new(shared.accept(&attempt)?);
            Ok::<_, DecoderError>((attempt, generation))
        };
        let (permit, (attempt, generation)) = shared.admission.admit_with_header(header).await?;
        let span = tracing::info_span!(
            "decode_shard",
            job = attempt.job_id,
            shard = %attempt.lease.shard,
            attempt = attempt.lease.attempt,
            trace_id = trace.trace_id(),
        );
        let work = shard::ShardWork { shared, attempt, generation };
        Ok(Response::new(spawn_shard(span, permit, |events| work.process(requests, events))))
    }
}
