//! The gRPC surface of the encoder.

use std::sync::Arc;

use baton_job::LanguageChoice;
use baton_proto::wire::encoder_server::{Encoder, EncoderServer};
use baton_proto::wire::{
    EncodeShardRequest, GetEncoderInfoRequest, GetEncoderInfoResponse, encode_shard_request,
};
use baton_proto::{MAX_MESSAGE_NUM_BYTES, ShardAttempt, WireError};
use baton_worker::{
    EventSender, MemoryShare, OpenShard, Served, ServedService, ShardDesk, ShardEvents, ShardHandler,
    ShardService,
};
use tonic::{Request, Response, Status, Streaming};

use crate::loaded::LoadedEncoder;
use crate::shard::{Accepted, process};
use crate::{EncoderError, EncoderService};

impl EncoderService {
    /// The service, to be served.
    #[must_use]
    pub fn into_served(self) -> Served<impl ServedService, impl Send> {
        let EncoderService { loaded, model_threads } = self;
        let service = EncoderServer::new(Handler(ShardHandler::new(&loaded)))
            .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
        Served { service, admission: loaded.desk.admission(), model_threads, resources: loaded }
    }
}

impl ShardService for LoadedEncoder {
    type Request = EncodeShardRequest;
    type Header = String; // the decoder's endpoint
    type Accepted = Accepted;
    type Error = EncoderError;

    fn desk(&self) -> &ShardDesk {
        &self.desk
    }

    fn header(request: EncodeShardRequest) -> Option<Result<(ShardAttempt, String), WireError>> {
        let Some(encode_shard_request::Message::Header(header)) = request.message else { return None };
        let shard = header.shard.ok_or(WireError::MissingField { field: "EncodeShardHeader.shard" });
        Some(shard.and_then(|shard| Ok((shard.try_into()?, header.decoder_endpoint))))
    }

    fn accept(
        &self,
        attempt: &ShardAttempt,
        decoder_endpoint: String,
        _: &mut MemoryShare,
    ) -> Result<Accepted, EncoderError> {
        self.readers.of(attempt, &LanguageChoice::default())?;
        self.connections.to(&decoder_endpoint)?; // refused here, it says nothing against the shard
        Ok(Accepted { decoder_endpoint })
    }

    async fn work(self: Arc<Self>, shard: OpenShard<Self>, events: EventSender) -> Result<(), EncoderError> {
        process(&self, shard, &events).await
    }
}

/// Answers the calls of gRPC.
struct Handler(ShardHandler<LoadedEncoder>);

#[tonic::async_trait]
impl Encoder for Handler {
    type EncodeShardStream = ShardEvents;

    async fn get_info(
        &self,
        _: Request<GetEncoderInfoRequest>,
    ) -> Result<Response<GetEncoderInfoResponse>, Status> {
        Ok(Response::new(GetEncoderInfoResponse { info: Some(self.0.service()?.desk.info()) }))
    }

    async fn encode_shard(
        &self,
        request: Request<Streaming<EncodeShardRequest>>,
    ) -> Result<Response<ShardEvents>, Status> {
        self.0.take_on(request).await
    }
}
