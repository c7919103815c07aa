use std::sync::{Arc, Mutex, mpsc};

use baton_proto::Connections;
use baton_proto::wire::decoder_server::{Decoder, DecoderServer};
use baton_proto::wire::{
    DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, ShardEvent,
    decoder_client::DecoderClient,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Streaming};

use super::*;
use crate::Pulse;

struct Service;

#[tonic::async_trait]
impl Decoder for Service {
    type DecodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        Ok(Response::new(GetDecoderInfoResponse::default()))
    }

    async fn decode_shard(
        &self,
        _: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<Self::DecodeShardStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// A service whose model thread runs until its queue is dropped, or panics when it is told to.
async fn served() -> Served<DecoderServer<Service>, mpsc::Sender<&'static str>> {
    let (queue, commands) = mpsc::channel::<&'static str>();
    let commands = Arc::new(Mutex::new(commands));
    let run = move |_engine, (), _pulse: &Pulse| {
        let received = commands.lock().unwrap().recv(); // the lock is not poisoned by what follows
        if let Ok(last_words) = received {
            panic!("{last_words}\nand a stack");
        }
    };
    let model_threads = ModelThreads::start("test-model", 2, || Ok(()), run).await.unwrap();
    Served {
        service: DecoderServer::new(Service),
        admission: Admission::new(1),
        model_threads,
        resources: queue,
    }
}

#[tokio::test]
async fn a_model_thread_that_dies_ends_the_service_with_its_last_words() {
    let served = served().await;
    served.resources.send("out of memory").unwrap();
    let incoming = Connections::default().listen_locally("test");
    let error = serve(served, pending_after(incoming), std::future::pending(), ServeOptions::default())
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("test-model died: out of memory;"), "{message}");
}

#[tokio::test]
async fn a_drained_service_ends_its_model_thread_though_a_caller_stays_connected() {
    let connections = Connections::default();
    let incoming = connections.listen_locally("test");
    let served = served().await;
    let (admission, permit) = (served.admission.clone(), served.admission.admit().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let options = ServeOptions::default();
    let readiness = options.readiness.subscribe();
    let serving = tokio::spawn(serve(served, incoming, async { drop(stopped.await) }, options));
    let mut caller = DecoderClient::new(connections.to("local:test").unwrap());
    caller.get_info(GetDecoderInfoRequest {}).await.unwrap();

    stop.send(()).unwrap();
    let mut states = readiness.clone();
    states.wait_for(|state| *state == Readiness::not_ready("draining")).await.unwrap();
    caller.get_info(GetDecoderInfoRequest {}).await.unwrap(); // it goes on answering
    assert!(!serving.is_finished());
    drop(permit);
    serving.await.unwrap().unwrap();
    assert_eq!(admission.num_open_shards(), 0);
}

/// The same connections, and no end after them.
fn pending_after<T>(incoming: impl Stream<Item = T>) -> impl Stream<Item = T> {
    tokio_stream::StreamExt::chain(incoming, tokio_stream::pending())
}
