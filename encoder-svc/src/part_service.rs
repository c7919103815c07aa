//! The service of an encoder that runs later blocks of the LLM for another one.
//!
//! It knows no shard, no text and no decoder: states come in, pass its blocks, and go back. The memory of
//! batches is bounded; callers wait for room.

use std::sync::{Arc, Weak};

use baton_bundle::Bundle;
use baton_model::LayerStates;
use baton_proto::wire::blocks_server::{Blocks, BlocksServer};
use baton_proto::wire::{
    GetBlocksInfoRequest, GetBlocksInfoResponse, RunBlocksRequest, RunBlocksResponse, run_blocks_request,
};
use baton_proto::{MAX_MESSAGE_NUM_BYTES, PartName, WireError, answer_messages};
use baton_telemetry::{Counter, MetricsRegistry};
use baton_worker::{Admission, ModelThreads, Served, ServedService, answer, refuse_draining};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::loaded::register_prompt_tokens;
use crate::parts::Parts;
use crate::split::Split;
use crate::{ChainError, EncoderConfig, EncoderError, chain};

/// Batches whose states are here, for each part and engine: one that is computed and one that waits.
const BATCHES_PER_PART: usize = 2;
/// Batches that wait for that; each costs up to a stream's window, 1 MiB.
const MAX_OPEN_BATCHES: usize = 256;

/// Later blocks of a bundle's LLM, loaded and not served yet.
#[derive(Debug)]
pub struct PartService {
    loaded: Arc<LoadedPart>,
    model_threads: ModelThreads,
}

#[derive(Debug)]
struct LoadedPart {
    admission: Admission,
    part: PartName,
    parts: Parts,
    room: Semaphore,
    d_llm: usize,
    max_batch_tokens: usize,
    /// Of one prompt.
    max_prompt_tokens: usize,
    prompt_tokens: Counter,
}

impl PartService {
    /// Loads the blocks that `config` names.
    ///
    /// # Errors
    /// A part of the bundle cannot be loaded, or the blocks do not fit into memory.
    pub async fn load(bundle: &Bundle, config: &EncoderConfig) -> Result<Self, EncoderError> {
        let split = Split::of(bundle, config)?;
        if !config.chain.is_empty() {
            return Err(ChainError::NotFirst { start: split.blocks().start }.into());
        }
        split.check_memory(bundle, config)?;
        split.log();
        let (parts, model_threads) = Parts::start(bundle, split.parts(), config.engines).await?;
        let (_, llm) = bundle.llm().map_err(|source| EncoderError::Bundle { source })?;
        let room = BATCHES_PER_PART * parts.len() * config.engines.max(1);
        let loaded = LoadedPart {
            admission: Admission::new(MAX_OPEN_BATCHES),
            part: PartName {
                bundle_digest: bundle.digest().to_owned(),
                blocks: split.blocks(),
                arithmetic: config.devices[0].arithmetic(),
            },
            parts,
            room: Semaphore::new(room),
            d_llm: llm.hidden_size,
            max_batch_tokens: config.max_batch_tokens,
            max_prompt_tokens: bundle.manifest().limits.max_prompt_tokens,
            prompt_tokens: Counter::default(),
        };
        Ok(Self { loaded: Arc::new(loaded), model_threads })
    }

    /// Registers the service's metrics.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.loaded.admission.register_metrics(metrics);
        register_prompt_tokens(metrics, &self.loaded.prompt_tokens);
    }

    /// The service, to be served.
    #[must_use]
    pub fn into_served(self) -> Served<impl ServedService, impl Send> {
        let PartService { loaded, model_threads } = self;
        let service = BlocksServer::new(Handler(Arc::downgrade(&loaded)))
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        Served { service, admission: loaded.admission.clone(), model_threads, resources: loaded }
    }
}

/// A batch that was accepted.
struct OpenBatch {
    prompt_lens: Vec<usize>,
    requests: Streaming<RunBlocksRequest>,
}

type Answers = mpsc::Sender<Result<RunBlocksResponse, Status>>;

impl LoadedPart {
    /// The prompts of a batch that can be read here.
    fn accept(&self, request: Option<RunBlocksRequest>) -> Result<Vec<usize>, EncoderError> {
        let Some(run_blocks_request::Message::Header(header)) = request.and_then(|request| request.message)
        else {
            return Err(WireError::UnexpectedMessage { expected: "a header" }.into());
        };
        let part = header.part.ok_or(WireError::MissingField { field: "RunBlocksHeader.part" })?;
        if let Some(problem) = chain::difference(&self.part, &PartName::try_from(part)?) {
            return Err(EncoderError::OtherPart { problem });
        }
        let prompt_lens: Vec<usize> = header.prompt_lens.iter().map(|&len| len as usize).collect();
        let longest = prompt_lens.iter().copied().max().unwrap_or(0);
        let num_tokens: usize = prompt_lens.iter().sum();
        let max_tokens = self.max_batch_tokens.max(self.max_prompt_tokens);
        if prompt_lens.contains(&0)
            || longest > self.max_prompt_tokens
            || !(1..=max_tokens).contains(&num_tokens)
        {
            let detail = format!(
                "{} prompts of up to {longest} tokens, {num_tokens} together; prompts have 1 to {} tokens, \
                 and batches up to {max_tokens}",
                prompt_lens.len(),
                self.max_prompt_tokens
            );
            return Err(WireError::InvalidField { field: "RunBlocksHeader.prompt_lens", detail }.into());
        }
        Ok(prompt_lens)
    }

    async fn run(self: Arc<Self>, batch: OpenBatch, answers: Answers) -> Result<(), EncoderError> {
        let OpenBatch { prompt_lens, mut requests } = batch;
        let _room = self.room.acquire().await.expect("it is never closed");
        let num_tokens: usize = prompt_lens.iter().sum();
        let mut bytes = Vec::new();
        while let Some(request) = requests.message().await? {
            let Some(run_blocks_request::Message::States(states)) = request.message else {
                return Err(WireError::UnexpectedMessage { expected: "states" }.into());
            };
            bytes.extend_from_slice(&states);
            if bytes.len() > num_tokens * self.d_llm * size_of::<f32>() {
                break; // refused below
            }
        }
        let stream = LayerStates::from_bytes(prompt_lens, (1, self.d_llm), &bytes)
            .map_err(|error| WireError::invalid("RunBlocksRequest.states", &error))?;
        drop(bytes);
        let states = self.parts.continue_all(stream).await?;
        self.prompt_tokens.inc_by(num_tokens as u64);
        let layers = states.to_bytes();
        drop(states);
        for message in answer_messages(layers) {
            if answers.send(Ok(message)).await.is_err() {
                break; // the caller has left
            }
        }
        Ok(())
    }
}

/// Answers the calls of gRPC. Does not keep the models alive.
struct Handler(Weak<LoadedPart>);

impl Handler {
    fn part(&self) -> Result<Arc<LoadedPart>, Status> {
        self.0.upgrade().ok_or_else(refuse_draining)
    }
}

#[tonic::async_trait]
impl Blocks for Handler {
    type RunBlocksStream = ReceiverStream<Result<RunBlocksResponse, Status>>;

    async fn get_info(
        &self,
        _: Request<GetBlocksInfoRequest>,
    ) -> Result<Response<GetBlocksInfoResponse>, Status> {
        let loaded = self.part()?;
        let max_batch_tokens = u32::try_from(loaded.max_batch_tokens).unwrap_or(u32::MAX);
        let part = Some(loaded.part.clone().into());
        Ok(Response::new(GetBlocksInfoResponse { part, max_batch_tokens }))
    }

    async fn run_blocks(
        &self,
        request: Request<Streaming<RunBlocksRequest>>,
    ) -> Result<Response<Self::RunBlocksStream>, Status> {
        let loaded = self.part()?;
        let mut requests = request.into_inner();
        let header = async { loaded.accept(requests.message().await?) };
        let (permit, prompt_lens) = loaded.admission.admit_with_header(header).await?;
        let span = tracing::info_span!(parent: None, "run_blocks", prompts = prompt_lens.len());
        let batch = OpenBatch { prompt_lens, requests };
        Ok(Response::new(answer(span, permit, |answers| loaded.run(batch, answers))))
    }
}
