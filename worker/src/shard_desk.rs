//! The handling of every shard in both services: read the header, accept or refuse the shard, and run its
//! work in its own task, under its own span.
//!
//! A service implements [`ShardService`]; its gRPC handler is a [`ShardHandler`] around it.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Weak};

use baton_bundle::{Bundle, BundleManifest, RulesByLanguage};
use baton_job::Mode;
use baton_proto::wire::{ShardEvent, WorkerInfo};
use baton_proto::{ShardAttempt, WireError};
use baton_telemetry::{MetricsRegistry, TraceContext};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span};

use crate::admission::refuse_draining;
use crate::{Admission, MemoryBudget, MemoryShare, ShardPermit, WorkerLimits};

/// Events that wait for a slow caller. They are totals, so a few suffice.
const EVENT_QUEUE: usize = 8;

/// A shard's task sends its events here.
pub type EventSender = mpsc::Sender<Result<ShardEvent, Status>>;
/// The events of a shard, as its caller receives them.
pub type ShardEvents = ReceiverStream<Result<ShardEvent, Status>>;

/// A service with loaded models, and its work on a shard.
pub trait ShardService: Sized + Send + Sync + 'static {
    /// One message of a shard's stream.
    type Request: Send + 'static;
    /// The header's content beside the attempt.
    type Header: Send;
    /// The service's notes about a shard that it accepts.
    type Accepted: Send;
    /// The reason of a refusal or failure.
    type Error: Into<Status> + From<Status> + From<WireError> + From<UnsuitedWorker> + Display + Send;

    /// The desk that takes in its shards.
    fn desk(&self) -> &ShardDesk;

    /// The attempt that a stream's first message announces; `None` if it is no header.
    fn header(request: Self::Request) -> Option<Result<(ShardAttempt, Self::Header), WireError>>;

    /// Refuses an attempt that cannot be served here, before any of its work is done.
    ///
    /// # Errors
    /// The reason of the refusal.
    fn accept(
        &self,
        attempt: &ShardAttempt,
        header: Self::Header,
        memory: &mut MemoryShare,
    ) -> Result<Self::Accepted, Self::Error>;

    /// Works on a shard; its receipt is the last event. Dropping the future cancels the work.
    fn work(
        self: Arc<Self>,
        shard: OpenShard<Self>,
        events: EventSender,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static;
}

/// An accepted shard: its stream after the header.
#[derive(Debug)]
pub struct OpenShard<S: ShardService> {
    /// The attempt.
    pub attempt: ShardAttempt,
    /// The service's notes.
    pub accepted: S::Accepted,
    /// The rules for the parts of its texts that the models see.
    pub rules: Arc<RulesByLanguage>,
    /// The messages to come.
    pub requests: Streaming<S::Request>,
    /// Its share of the memory budget, until its work is done.
    pub memory: MemoryShare,
    /// Its trace.
    pub trace: TraceContext,
}

/// The desk that takes in a service's shards: it knows the service's bundle, modes and limits.
#[derive(Debug)]
pub struct ShardDesk {
    role: &'static str,
    admission: Admission,
    records: MemoryBudget,
    info: WorkerInfo,
    manifest: BundleManifest,
}

/// The reason why a shard is at the wrong worker.
#[derive(Debug, thiserror::Error)]
pub enum UnsuitedWorker {
    /// It asks for another bundle than the one loaded.
    #[error("the job runs bundle {wanted}, this {role} has loaded {loaded}: start it with the job's bundle")]
    OtherBundle {
        /// Digest in the header.
        wanted: String,
        /// `encoder` or `decoder`.
        role: &'static str,
        /// Digest of the bundle loaded here.
        loaded: String,
    },
    /// It asks for a mode that this process does not serve.
    #[error("the job asks for mode `{wanted}`, this {role} serves {served}: start it with --mode {wanted}")]
    OtherMode {
        /// Mode in the header.
        wanted: &'static str,
        /// `encoder` or `decoder`.
        role: &'static str,
        /// The modes served here, joined by commas.
        served: String,
    },
}

impl ShardDesk {
    /// The desk of a service that has loaded `bundle` for jobs of `modes`; messages call the service `role`.
    #[must_use]
    pub fn new(role: &'static str, bundle: &Bundle, modes: &[Mode], limits: WorkerLimits) -> Self {
        Self {
            role,
            admission: Admission::new(limits.max_open_shards),
            records: MemoryBudget::new(limits.max_record_num_bytes),
            info: worker_info(bundle, modes),
            manifest: bundle.manifest().clone(),
        }
    }

    /// Registers open shards and refusals.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        self.admission.register_metrics(metrics);
    }

    /// The admission of shards.
    #[must_use]
    pub fn admission(&self) -> Admission {
        self.admission.clone()
    }

    /// The service's description of itself.
    #[must_use]
    pub fn info(&self) -> WorkerInfo {
        self.info.clone()
    }

    fn check(&self, attempt: &ShardAttempt) -> Result<(), UnsuitedWorker> {
        let role = self.role;
        if attempt.bundle_digest != self.info.bundle_digest {
            let (wanted, loaded) = (attempt.bundle_digest.clone(), self.info.bundle_digest.clone());
            return Err(UnsuitedWorker::OtherBundle { wanted, role, loaded });
        }
        if !self.info.modes.iter().any(|mode| mode == attempt.mode.as_str()) {
            let served = self.info.modes.join(", ");
            return Err(UnsuitedWorker::OtherMode { wanted: attempt.mode.as_str(), role, served });
        }
        Ok(())
    }
}

/// The rules of an attempt's texts.
fn rules_of(manifest: &BundleManifest, attempt: &ShardAttempt) -> Result<RulesByLanguage, WireError> {
    const FIELD: &str = "ShardHeader.generation_json";
    let ShardAttempt { mode, generation, .. } = attempt;
    if let Some(problem) = manifest.problem_of_options(*mode, generation) {
        return Err(WireError::invalid(FIELD, &format!("the bundle {problem}")));
    }
    RulesByLanguage::new(&manifest.task, generation).map_err(|error| WireError::invalid(FIELD, &error))
}

impl From<UnsuitedWorker> for Status {
    fn from(error: UnsuitedWorker) -> Self {
        Status::failed_precondition(error.to_string())
    }
}

/// Answers a service's calls while the service takes part in a job.
#[derive(Debug)]
pub struct ShardHandler<S>(Weak<S>);

impl<S: ShardService> ShardHandler<S> {
    /// A handler that does not keep the service alive.
    #[must_use]
    pub fn new(service: &Arc<S>) -> Self {
        Self(Arc::downgrade(service))
    }

    /// The service.
    ///
    /// # Errors
    /// The service has ended.
    pub fn service(&self) -> Result<Arc<S>, Status> {
        self.0.upgrade().ok_or_else(refuse_draining)
    }

    /// Takes on the shard of a stream, and works on it in a task of its own. The work is cancelled if the
    /// caller drops the events, and at the end of a drain.
    ///
    /// # Errors
    /// The shard is refused: nothing has been done for it.
    pub async fn take_on(
        &self,
        request: Request<Streaming<S::Request>>,
    ) -> Result<Response<ShardEvents>, Status> {
        let service = self.service()?;
        let desk = service.desk();
        let caller = TraceContext::of_caller(request.metadata());
        let mut requests = request.into_inner();
        let mut memory = desk.records.share();
        let header = async {
            let first = requests.message().await.map_err(S::Error::from)?;
            let header = first.and_then(S::header).transpose()?;
            let (attempt, header) = header.ok_or(WireError::UnexpectedMessage { expected: "a header" })?;
            desk.check(&attempt)?;
            let rules = Arc::new(rules_of(&desk.manifest, &attempt)?);
            let accepted = service.accept(&attempt, header, &mut memory)?;
            Ok::<_, S::Error>((attempt, accepted, rules))
        };
        let (permit, (attempt, accepted, rules)) = desk.admission.admit_with_header(header).await?;
        let span = tracing::info_span!(
            parent: None,
            "process_shard",
            role = desk.role,
            job = attempt.job_id,
            shard = %attempt.lease.shard,
            attempt = attempt.lease.attempt,
            trace_id = tracing::field::Empty,
        );
        let begin = || TraceContext::begin(&span);
        let trace = caller.map_or_else(begin, |caller| caller.continue_with(&span));
        let shard = OpenShard { attempt, accepted, rules, requests, memory, trace };
        Ok(Response::new(answer(span, permit, |events| service.work(shard, events))))
    }
}

/// Does the work of an accepted call in a task of its own, and answers with the messages that it sends. The
/// work is cancelled if the caller drops them, and at the end of a drain.
pub fn answer<T, F, E>(
    span: Span,
    permit: ShardPermit,
    work: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
) -> ReceiverStream<Result<T, Status>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Status> + Display + Send,
{
    let (events, stream) = mpsc::channel(EVENT_QUEUE);
    let work = work(events.clone());
    let task = async move {
        let status = tokio::select! {
            () = events.closed() => return tracing::info!("cancelled by the caller"),
            () = permit.cancelled() => refuse_draining(),
            result = work => match result {
                Ok(()) => return,
                Err(error) => error.into(),
            }
        };
        // The coordinator judges the failure and reports it.
        tracing::info!(code = ?status.code(), error = status.message(), "failed");
        drop(permit); // a caller that is slow to read does not keep the shard open
        let _ = events.send(Err(status)).await;
    };
    tokio::spawn(task.instrument(span));
    ReceiverStream::new(stream)
}

/// The self-description of a service that has loaded `bundle` for jobs of `modes`.
fn worker_info(bundle: &Bundle, modes: &[Mode]) -> WorkerInfo {
    let manifest = bundle.manifest();
    let served = manifest.modes.iter().filter(|mode| modes.contains(mode));
    let uses_slm = modes.iter().any(|mode| mode.uses_slm());
    let d_slm = manifest.slm.as_ref().filter(|_| uses_slm).map_or(0, |slm| slm.d_model);
    let max_new_tokens = modes.iter().map(|&mode| manifest.max_new_tokens(mode)).max();
    WorkerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        bundle_digest: bundle.digest().to_owned(),
        modes: served.map(ToString::to_string).collect(),
        max_prompt_tokens: manifest.limits.max_prompt_tokens as u32,
        max_new_tokens: max_new_tokens.unwrap_or_default() as u32,
        d_slm: d_slm as u32,
    }
}
