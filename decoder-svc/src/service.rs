//! The gRPC surface: what is loaded, the checks before a shard is taken on, one task per shard.

use std::{future::Future, sync::Arc};

use baton_bundle::{Bundle, TextTokenizer};
use baton_decoding::{GenerationLimits, Scheduler, SchedulerLimits};
use baton_model::{CACHE_BLOCK_TOKENS, CacheLimits, Compute, SlmDecoder};
use baton_proto::wire::decoder_server::{Decoder, DecoderServer};
use baton_proto::wire::{
    DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, ShardEvent, WorkerInfo,
};
use baton_proto::{MAX_MESSAGE_NUM_BYTES, ShardAttempt};
use baton_worker::{ModelThread, spawn_shard, worker_info};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::EngineQueue;
use crate::{DecoderError, shard};

/// How the decoder computes, and what bounds its memory.
#[derive(Debug, Clone, Copy)]
pub struct DecoderConfig {
    /// Device and number format.
    pub compute: Compute,
    /// Rows decoded at once. More share the cost of reading the weights; past what the cores can compute they only wait together.
    pub max_slots: usize,
    /// Tokens of the KV cache, all rows together. A row reserves its prompt and all it may write.
    pub max_cache_tokens: usize,
    /// Prompt tokens prefilled between two steps. Lower keeps live rows moving, higher fills empty slots faster.
    pub max_prefill_tokens: usize,
    /// Prompt tokens whose states may wait for a slot, all shards together; each costs 2 * d_slm bytes.
    pub max_waiting_tokens: u32,
}

impl DecoderConfig {
    /// bf16 on the CPU, 64 slots, a cache of 32,768 tokens.
    #[must_use]
    pub fn cpu() -> Self {
        Self {
            compute: Compute::CPU_BF16,
            max_slots: 64,
            max_cache_tokens: 32_768,
            max_prefill_tokens: 1024,
            max_waiting_tokens: 32_768,
        }
    }
}

/// A loaded decoder, ready to [`serve`].
#[derive(Debug)]
pub struct DecoderService {
    shared: Arc<Shared>,
    engine_thread: ModelThread,
}

/// What every shard's task uses.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: EngineQueue,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) max_prompt_tokens: usize,
    pub(crate) d_slm: usize,
    max_new_tokens: usize,
    info: WorkerInfo,
}

impl DecoderService {
    /// Loads a bundle's SLM and its tokenizer.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the cache cannot hold the longest record that the bundle serves.
    pub async fn load(bundle: &Bundle, config: DecoderConfig) -> Result<Self, DecoderError> {
        let manifest = bundle.manifest();
        let limits = manifest.limits;
        let needed_cache_tokens =
            (limits.max_prompt_tokens + limits.max_new_tokens).next_multiple_of(CACHE_BLOCK_TOKENS);
        if config.max_cache_tokens < needed_cache_tokens {
            let max_cache_tokens = config.max_cache_tokens;
            return Err(DecoderError::CacheTooSmall { max_cache_tokens, needed_cache_tokens });
        }
        let tokenizer = bundle.text_tokenizer().map_err(|source| DecoderError::Bundle { source })?;
        let model_bundle = bundle.clone();
        let (engine, engine_thread) = EngineQueue::start(config.max_waiting_tokens, move || {
            let DecoderConfig { compute, max_slots, max_cache_tokens, max_prefill_tokens, .. } = config;
            let decoder =
                SlmDecoder::load(&model_bundle, compute, CacheLimits { max_slots, max_cache_tokens })?;
            let cache_block_tokens = CACHE_BLOCK_TOKENS;
            let limits =
                SchedulerLimits { max_slots, max_cache_tokens, cache_block_tokens, max_prefill_tokens };
            let scheduler = Scheduler::new(limits, decoder.special_tokens());
            Ok((decoder, scheduler))
        })
        .await?;
        let shared = Shared {
            engine,
            tokenizer,
            max_prompt_tokens: limits.max_prompt_tokens,
            d_slm: manifest.slm.d_model,
            max_new_tokens: limits.max_new_tokens,
            info: worker_info(bundle),
        };
        Ok(Self { shared: Arc::new(shared), engine_thread })
    }
}

/// Serves the decoder on accepted connections until `shutdown` resolves; streams in flight are then finished first, and when it
/// returns, no thread of it runs any more.
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
    let DecoderService { shared, engine_thread } = service;
    let server = DecoderServer::new(Handler { shared })
        .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
    let router = baton_proto::server().add_service(server);
    Ok(baton_worker::serve(router, engine_thread, incoming, shutdown).await?)
}

impl Shared {
    /// Refuses an attempt that this decoder cannot serve; otherwise gives its limits.
    fn accept(&self, attempt: &ShardAttempt) -> Result<GenerationLimits, DecoderError> {
        if attempt.bundle_digest != self.info.bundle_digest {
            let (wanted, loaded) = (attempt.bundle_digest.clone(), self.info.bundle_digest.clone());
            return Err(DecoderError::OtherBundle { wanted, loaded });
        }
        let generation = &attempt.generation;
        let wanted = generation.max_new_tokens.map_or(self.max_new_tokens, |tokens| tokens as usize);
        let limits = GenerationLimits {
            max_new_tokens: wanted.min(self.max_new_tokens),
            min_new_tokens: generation.min_new_tokens as usize,
            max_new_tokens_per_prompt_token: generation.max_new_tokens_per_prompt_token,
        };
        limits.check().map_err(|source| DecoderError::Limits { source })?;
        Ok(limits)
    }
}

struct Handler {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Decoder for Handler {
    type DecodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        Ok(Response::new(GetDecoderInfoResponse { info: Some(self.shared.info.clone()) }))
    }

    async fn decode_shard(
        &self,
        request: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<Self::DecodeShardStream>, Status> {
        let mut requests = request.into_inner();
        let attempt = shard::receive_header(&mut requests).await?;
        let limits = self.shared.accept(&attempt)?;
        let span = tracing::info_span!(
            "decode_shard",
            job = attempt.job_id,
            shard = %attempt.lease.shard,
            attempt = attempt.lease.attempt
        );
        let work = shard::ShardWork { shared: Arc::clone(&self.shared), attempt, limits };
        Ok(Response::new(spawn_shard(span, |events| work.process(requests, events))))
    }
}
