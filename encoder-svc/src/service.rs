//! The gRPC surface: what is loaded, the checks before a shard is taken on, one task per shard.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use baton_bundle::{Bundle, DEFAULT_TEMPLATE, PromptTokenizer};
use baton_job::Mode;
use baton_model::{Compute, PromptEncoder};
use baton_proto::wire::encoder_server::{Encoder, EncoderServer};
use baton_proto::wire::{
    EncodeShardRequest, GetEncoderInfoRequest, GetEncoderInfoResponse, ShardEvent, WorkerInfo,
};
use baton_proto::{Connections, MAX_MESSAGE_NUM_BYTES, ShardAttempt, WireError};
use baton_telemetry::{Counter, MetricsRegistry, TraceContext};
use baton_worker::{
    Admission, MemoryBudget, ModelThreads, ServeOptions, Served, ServedService, WorkerLimits,
    refuse_draining, spawn_shard, worker_info,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::model_queue::ModelQueue;
use crate::{EncoderError, shard};

/// How the encoder computes.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Device and number format.
    pub compute: Compute,
    /// Threads that run the LLM, each with its own copy of the weights.
    pub engines: usize,
    /// Prompt tokens in one forward pass. More use the hardware better, and cost activations: about 100 KiB a token at d_model 576.
    pub max_batch_tokens: usize,
    /// Bounds on the shards taken on.
    pub limits: WorkerLimits,
    /// Mode of the jobs served. In mode `llm` the decoder reads the tokens itself, and no model is loaded here.
    pub mode: Mode,
}

impl EncoderConfig {
    /// The fastest number format on this CPU, one engine, batches of 1024 tokens.
    #[must_use]
    pub fn cpu() -> Self {
        Self {
            compute: Compute::fastest_cpu(),
            engines: 1,
            max_batch_tokens: 1024,
            limits: WorkerLimits::default(),
            mode: Mode::Hybrid,
        }
    }

    /// What suits a device: on a CPU, [`EncoderConfig::cpu`]; on a GPU, batches of 16,384 tokens.
    #[must_use]
    pub fn for_device(mode: Mode, (compute, engines): (Compute, usize)) -> Self {
        let config = Self { compute, engines, mode, ..Self::cpu() };
        if compute.is_cpu() { config } else { Self { max_batch_tokens: 16_384, ..config } }
    }
}

/// A loaded encoder, ready to [`serve`].
#[derive(Debug)]
pub struct EncoderService {
    shared: Arc<Shared>,
    model_threads: ModelThreads,
}

/// What every shard's task uses.
#[derive(Debug)]
pub(crate) struct Shared {
    /// None where the decoder reads tokens alone.
    pub(crate) queue: Option<ModelQueue>,
    pub(crate) sends_tokens: bool,
    pub(crate) connections: Connections,
    pub(crate) max_batch_tokens: usize,
    pub(crate) max_prompt_tokens: usize,
    pub(crate) records: MemoryBudget,
    pub(crate) prompt_tokens: Counter,
    admission: Admission,
    tokenizers: BTreeMap<String, Arc<PromptTokenizer>>, // by template name
    info: WorkerInfo,
}

impl EncoderService {
    /// Loads a bundle's LLM, projector and prompt tokenizers. `connections` reach the decoders.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded.
    pub async fn load(
        bundle: &Bundle,
        config: EncoderConfig,
        connections: Connections,
    ) -> Result<Self, EncoderError> {
        let manifest = bundle.manifest();
        let tokenizer = |name: &String| match bundle.prompt_tokenizer(Some(name)) {
            Ok(tokenizer) => Ok((name.clone(), Arc::new(tokenizer))),
            Err(source) => Err(EncoderError::Bundle { source }),
        };
        let tokenizers = manifest.templates.keys().map(tokenizer).collect::<Result<_, _>>()?;
        let model_bundle = bundle.clone();
        let (queue, model_threads) = if config.mode.uses_slm() {
            let load = move || PromptEncoder::load(&model_bundle, config.compute);
            let (queue, threads) = ModelQueue::start(config.engines, load).await?;
            (Some(queue), threads)
        } else {
            (None, ModelThreads::default())
        };
        let shared = Shared {
            queue,
            sends_tokens: config.mode.llm_writes(),
            connections,
            records: MemoryBudget::new(config.limits.max_record_num_bytes),
            prompt_tokens: Counter::default(),
            admission: Admission::new(config.limits.max_open_shards),
            max_batch_tokens: config.max_batch_tokens,
            max_prompt_tokens: manifest.limits.max_prompt_tokens,
            tokenizers,
            info: worker_info(bundle, config.mode),
        };
        Ok(Self { shared: Arc::new(shared), model_threads })
    }

    /// Registers what the encoder counts.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.shared.admission.register_metrics(metrics);
        let help = "Tokens of the prompts that the LLM has read";
        metrics.counter("baton_encoder_prompt_tokens_total", help, &self.shared.prompt_tokens);
    }

    /// The service, to be served.
    #[must_use]
    pub fn into_served(self) -> Served<impl ServedService, impl Send> {
        let EncoderService { shared, model_threads } = self;
        let service = EncoderServer::new(Handler { shared: Arc::downgrade(&shared) })
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        Served { service, admission: shared.admission.clone(), model_threads, resources: shared }
    }
}

/// Serves the encoder to roles of the same process until `shutdown` resolves; shards in flight are then finished, and when it returns,
/// no thread of it runs any more.
///
/// # Errors
/// The server fails, or the model thread dies. The process should then end: its shards are leased elsewhere.
pub async fn serve<IO, E>(
    service: EncoderService,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EncoderError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Ok(baton_worker::serve(service.into_served(), incoming, shutdown, ServeOptions::default()).await?)
}

impl Shared {
    /// Refuses an attempt that this encoder cannot serve; otherwise gives its prompt tokenizer.
    pub(crate) fn accept(&self, attempt: &ShardAttempt) -> Result<Arc<PromptTokenizer>, EncoderError> {
        if attempt.bundle_digest != self.info.bundle_digest {
            let (wanted, loaded) = (attempt.bundle_digest.clone(), self.info.bundle_digest.clone());
            return Err(EncoderError::OtherBundle { wanted, loaded });
        }
        if !self.info.modes.iter().any(|mode| mode == attempt.mode.as_str()) {
            let served = self.info.modes.join(", ");
            return Err(EncoderError::OtherMode { wanted: attempt.mode.as_str(), served });
        }
        let template = attempt.task.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        self.tokenizers.get(template).cloned().ok_or_else(|| {
            let names: Vec<&str> = self.tokenizers.keys().map(String::as_str).collect();
            let detail = format!("the bundle has no template `{template}`; it has: {}", names.join(", "));
            WireError::InvalidField { field: "ShardHeader.task", detail }.into()
        })
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
impl Encoder for Handler {
    type EncodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetEncoderInfoRequest>,
    ) -> Result<Response<GetEncoderInfoResponse>, Status> {
        Ok(Response::new(GetEncoderInfoResponse { info: Some(self.shared()?.info.clone()) }))
    }

    async fn encode_shard(
        &self,
        request: Request<Streaming<EncodeShardRequest>>,
    ) -> Result<Response<Self::EncodeShardStream>, Status> {
        let shared = self.shared()?;
        let trace = TraceContext::continue_from(request.metadata());
        let mut requests = request.into_inner();
        let header = async {
            let (attempt, decoder_endpoint) = shard::receive_header(&mut requests).await?;
            let tokenizer = shared.accept(&attempt)?;
            shared.connections.to(&decoder_endpoint)?; // refused here, it says nothing against the shard
            Ok::<_, EncoderError>((attempt, decoder_endpoint, tokenizer))
        };
        let (permit, (attempt, decoder_endpoint, tokenizer)) =
            shared.admission.admit_with_header(header).await?;
        let span = tracing::info_span!(
            "encode_shard",
            job = attempt.job_id,
            shard = %attempt.lease.shard,
            attempt = attempt.lease.attempt,
            trace_id = trace.trace_id(),
        );
        let work = shard::ShardWork { shared, attempt, decoder_endpoint, tokenizer, trace };
        Ok(Response::new(spawn_shard(span, permit, |events| work.process(requests, events))))
    }
}
