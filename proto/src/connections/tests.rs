use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};

use super::*;
use crate::ServerSecurity;
use crate::wire::decoder_client::DecoderClient;
use crate::wire::decoder_server::{Decoder, DecoderServer};
use crate::wire::{DecodeShardRequest, GetDecoderInfoRequest, GetDecoderInfoResponse, ShardEvent};

const DEADLINE: Duration = Duration::from_secs(30);

/// Relays connections to `server` until it is told to stop. It then keeps them open, like a network that has
/// lost its way.
async fn relay(server: std::net::SocketAddr, lost: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut lost = lost.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = async { drop(lost.wait_for(|lost| *lost).await) } => std::future::pending().await,
                }
            });
        }
    });
    endpoint
}

/// A decoder that accepts shards and then sends nothing.
#[derive(Default)]
struct Silent {
    streams: Mutex<Vec<mpsc::Sender<Result<ShardEvent, Status>>>>,
}

#[tonic::async_trait]
impl Decoder for Silent {
    type DecodeShardStream = ReceiverStream<Result<ShardEvent, Status>>;

    async fn get_info(
        &self,
        _: Request<GetDecoderInfoRequest>,
    ) -> Result<Response<GetDecoderInfoResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn decode_shard(
        &self,
        _: Request<Streaming<DecodeShardRequest>>,
    ) -> Result<Response<Self::DecodeShardStream>, Status> {
        let (events, stream) = mpsc::channel(1);
        self.streams.lock().unwrap().push(events);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_without_closing_ends_the_streams_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let mut server_settings = crate::server(&ServerSecurity::default()).unwrap();
    let router = server_settings.add_service(DecoderServer::new(Silent::default()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));

    let (lose, lost) = watch::channel(false);
    let endpoint = relay(server, lost).await;
    let keepalive = Keepalive { interval: Duration::from_millis(100), timeout: Duration::from_millis(400) };
    let connections = Connections::with_keepalive(ClientSecurity::default(), keepalive);
    let mut decoder = DecoderClient::new(connections.to(&endpoint).unwrap());
    let requests = tokio_stream::pending::<DecodeShardRequest>();
    let mut events = timeout(DEADLINE, decoder.decode_shard(requests)).await.unwrap().unwrap().into_inner();

    lose.send_replace(true);
    timeout(DEADLINE, events.message()).await.expect("the loss is noticed").unwrap_err();
}

#[tokio::test]
async fn connections_are_shared_by_endpoint() {
    let connections = Connections::default();
    let num_channels = || connections.shared.state.lock().unwrap().channels.len();
    connections.to("http://one:1").unwrap();
    connections.to("http://one:1").unwrap();
    connections.clone().to("http://two:2").unwrap();
    assert_eq!(num_channels(), 2);
}
