//! The gRPC surface of the decoder.

use std::sync::Arc;

use baton_proto::wire::decoder_server::{Decoder, DecoderServer};
use baton_proto::wire::{
    DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, decode_shard_request,
};
use baton_proto::{DecodeHeader, MAX_MESSAGE_NUM_BYTES, ShardAttempt, WireError};
use baton_worker::{
    EventSender, MemoryShare, OpenShard, Served, ServedService, ShardDesk, ShardEvents, ShardHandler,
    ShardService,
};
use tonic::{Request, Response, Status, Streaming};

use crate::generation::generation;
use crate::loaded::LoadedDecoder;
use crate::memory::{Announced, expected_num_bytes};
use crate::shard::{Accepted, process};
use crate::{DecoderError, DecoderService};

impl DecoderService {
    /// The service, to be served.
    #[must_use]
    pub fn into_served(self) -> Served<impl ServedService, impl Send> {
        let DecoderService { loaded, engine_threads } = self;
        let service = DecoderServer::new(Handler(ShardHandler::new(&loaded)))
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        let admission = loaded.desk.admission();
        Served { service, admission, model_threads: engine_threads, resources: loaded }
    }
}

impl ShardService for LoadedDecoder {
    type Request = DecodeShardRequest;
    type Header = Announced;
    type Accepted = Accepted;
    type Error = DecoderError;

    fn desk(&self) -> &ShardDesk {
        &self.desk
    }

    fn header(request: DecodeShardRequest) -> Option<Result<(ShardAttempt, Announced), WireError>> {
        let Some(decode_shard_request::Message::Header(header)) = request.message else { return None };
        Some(DecodeHeader::try_from(header).map(|header| (header.attempt.clone(), Announced::by(&header))))
    }

    fn accept(
        &self,
        attempt: &ShardAttempt,
        announced: Announced,
        memory: &mut MemoryShare,
    ) -> Result<Accepted, DecoderError> {
        self.allowed_outputs.check(&attempt.output_location)?;
        attempt.cache_location.iter().try_for_each(|cache| self.allowed_outputs.check(cache))?;
        let generation = generation(&attempt.generation, &self.writer)?;
        let num_sequences = attempt.generation.second_try().map_or(0, |options| options.beams as usize);
        if num_sequences > self.max_slots {
            return Err(DecoderError::TooFewSlots { num_sequences, max_slots: self.max_slots });
        }
        memory.grow(expected_num_bytes(attempt, announced))?;
        Ok(Accepted { generation: Arc::new(generation), announced })
    }

    async fn work(self: Arc<Self>, shard: OpenShard<Self>, events: EventSender) -> Result<(), DecoderError> {
        process(&self, shard, &events).await
    }
}

/// Answers the calls of gRPC.
struct Handler(ShardHandler<LoadedDecoder>);

#[tonic::async_trait]
impl Decoder for Handler {
    type DecodeShardStream = ShardEvents;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        Ok(Response::new(GetDecoderInfoResponse { info: Some(self.0.service()?.desk.info()) }))
    }

    async fn decode_shard(
        &self,
        request: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<ShardEvents>, Status> {
        self.0.take_on(request).await
    }
}
