//! Serving gRPC beside a model thread, from the first connection to the end of the drain.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use baton_proto::{SecurityError, ServerSecurity, wire};
use baton_telemetry::Readiness;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Connected, Router};
use tonic::{Request, Status};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{Admission, ModelThreadError, ModelThreads};

/// The name under which the gRPC health protocol reports liveness: whether the process works, whatever its
/// load and its peers.
const LIVENESS: &str = "liveness";

/// Time for connections to deliver their last messages after the last shard has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a service ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server failed.
    #[error("the gRPC server failed")]
    Server {
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The model thread died. The process should end: its shards are leased elsewhere.
    #[error(transparent)]
    ModelThread(#[from] ModelThreadError),
}

/// A gRPC service as tonic generates it.
pub trait ServedService:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> ServedService for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service with its parts.
#[derive(Debug)]
pub struct Served<S, R> {
    /// The gRPC service. It finds the model thread's queues in `resources` and does not keep them alive.
    pub service: S,
    /// Admits shards.
    pub admission: Admission,
    /// Runs the model, and ends with its last queue.
    pub model_threads: ModelThreads,
    /// Keeps the model thread's queues alive; dropped when the last shard has ended.
    pub resources: R,
}

/// The settings of serving. The default suits roles within one process: no credentials, 30 s of grace.
#[derive(Debug)]
pub struct ServeOptions {
    /// The callers' credentials that are required.
    pub security: ServerSecurity,
    /// Time for shards to finish once the service is asked to stop.
    pub grace_period: Duration,
    /// Receives whether shards may be sent here.
    pub readiness: watch::Sender<Readiness>,
    /// Cuts the grace period short.
    pub hurry: CancellationToken,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            security: ServerSecurity::default(),
            grace_period: Duration::from_secs(30),
            readiness: watch::Sender::new(Readiness::not_ready("starting")),
            hurry: CancellationToken::new(),
        }
    }
}

/// Serves roles of the same process until `shutdown` resolves, then finishes the shards in flight. When it
/// returns, no thread of the service runs any more.
///
/// # Errors
/// The server fails, or a model thread dies. The process should then end: its shards are leased elsewhere.
pub async fn serve_locally<S, R, IO, E>(
    served: Served<S, R>,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: ServedService,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve(served, incoming, shutdown, ServeOptions::default()).await
}

/// Serves on accepted connections until `shutdown` resolves. Then it takes on no shard; shards in flight
/// finish within the grace period, and the others are cancelled. When it returns, no model thread runs any
/// more.
///
/// # Errors
/// The server fails, or the model thread dies.
pub async fn serve<S, R, IO, E>(
    served: Served<S, R>,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: impl Future<Output = ()>,
    options: ServeOptions,
) -> Result<(), ServeError>
where
    S: ServedService,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Served { service, admission, mut model_threads, resources } = served;
    let gate = Gate { security: options.security.clone(), admission: admission.clone() };
    let (health, router) = router(service, &gate)?;
    health.set_service_status(LIVENESS, ServingStatus::Serving).await; // and nothing ever sets it to another
    let (close, closed) = oneshot::channel::<()>();
    let server = router.serve_with_incoming_shutdown(incoming, async { drop(closed.await) });
    tokio::pin!(server);
    let failed = |source| ServeError::Server { source };
    let tell_readiness = async {
        let mut told = None;
        loop {
            let readiness = admission.next_readiness(told.as_ref()).await;
            let status =
                if readiness.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in ["", S::NAME] {
                health.set_service_status(name, status).await;
            }
            options.readiness.send_replace(readiness.clone());
            told = Some(readiness);
        }
    };
    tokio::select! {
        biased;
        served = &mut server => return served.map_err(failed), // what connects has ended
        () = model_threads.one_failed() => return Err(model_threads.failure().into()),
        () = tell_readiness => {}
        () = drain(&admission, shutdown, &options) => {}
    }
    // Without models to wait for, nobody has announced the readiness yet.
    options.readiness.send_replace(admission.readiness());
    drop(resources);
    let _ = close.send(()); // the server waits for it
    tokio::select! {
        served = server => served.map_err(failed)?,
        () = sleep(FLUSH_TIMEOUT) => tracing::debug!("connections stay open, leaving them"),
    }
    model_threads.all_ended().await;
    Ok(())
}

/// Waits for the request to stop, then until no shard is open.
async fn drain(admission: &Admission, shutdown: impl Future<Output = ()>, options: &ServeOptions) {
    let grace_period = options.grace_period;
    shutdown.await;
    admission.drain();
    let num_open_shards = admission.num_open_shards();
    tracing::info!(open_shards = num_open_shards, ?grace_period, "draining");
    tokio::select! {
        () = admission.idle() => return,
        () = sleep(grace_period) => {}
        () = options.hurry.cancelled() => {}
    }
    tracing::warn!(
        open_shards = admission.num_open_shards(),
        "the grace period is over, giving up shards in flight"
    );
    admission.cancel();
    admission.idle().await;
}

/// Admits calls that carry the token.
#[derive(Clone)]
struct Gate {
    security: ServerSecurity,
    admission: Admission,
}

impl tonic::service::Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.security
            .check_token(request.metadata())
            .inspect_err(|status| self.admission.count_refusal(status))?;
        Ok(request)
    }
}

/// The service, its reflection, and the health of both, which probes may query without a token.
fn router<S: ServedService>(service: S, gate: &Gate) -> Result<(HealthReporter, Router), SecurityError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let valid = "the compiled .proto files are valid";
    let (reporter, health) = tonic_health::server::health_reporter();
    let router = baton_proto::server(&gate.security)?
        .add_service(health)
        .add_service(InterceptedService::new(service, gate.clone()))
        .add_service(InterceptedService::new(reflection().build_v1().expect(valid), gate.clone()))
        .add_service(InterceptedService::new(reflection().build_v1alpha().expect(valid), gate.clone()));
    Ok((reporter, router))
}

#[cfg(test)]
mod tests;
