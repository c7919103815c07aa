//! Decides which shards a service takes on, and when it takes no more.
//!
//! Owns the limit of open shards and the drain, and thereby the service's readiness. Every shard's task holds
//! a [`ShardPermit`]; a service is idle when the last permit is gone.

use std::sync::Arc;
use std::time::Duration;

use baton_proto::Refusal;
use baton_telemetry::{LabelledCounter, MetricsRegistry, Readiness};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// How long a caller that has opened a shard's stream may take to send its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// The shards that a service works on, and their limit. Clones share the state.
#[derive(Debug, Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max_open_shards: usize,
    load: watch::Sender<Load>,
    cancelled: CancellationToken,
    refusals: LabelledCounter,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    num_open_shards: usize,
    is_draining: bool,
}

/// The right to work on one shard, until it is dropped.
#[derive(Debug)]
pub struct ShardPermit {
    admission: Admission,
}

impl Admission {
    /// Lets at most `max_open_shards` shards be worked on at once.
    #[must_use]
    pub fn new(max_open_shards: usize) -> Self {
        let (load, cancelled) = (watch::Sender::default(), CancellationToken::new());
        let refusals = LabelledCounter::new("reason");
        Self { inner: Arc::new(Inner { max_open_shards, load, cancelled, refusals }) }
    }

    /// Registers the open shards, and the calls refused by reason.
    pub fn register_metrics(&self, metrics: &MetricsRegistry) {
        let admission = self.clone();
        metrics.reading("baton_open_shards", "Shards being worked on", move || {
            admission.num_open_shards() as i64
        });
        let help = "Calls refused before any work was done for them";
        metrics.labelled_counter("baton_grpc_rejections_total", help, &self.inner.refusals);
    }

    /// Takes a shard on.
    ///
    /// # Errors
    /// The service is full or draining: [`Refusal`].
    pub fn admit(&self) -> Result<ShardPermit, Status> {
        let Inner { max_open_shards, ref load, .. } = *self.inner;
        let mut refusal = None;
        load.send_if_modified(|load| {
            refusal = match load {
                Load { is_draining: true, .. } => Some(refuse_draining()),
                Load { num_open_shards, .. } if *num_open_shards >= max_open_shards => {
                    let detail =
                        format!("{max_open_shards} shards are open, as many as --max-open-shards allows");
                    Some(Refusal::Busy.status(&detail))
                }
                _ => None,
            };
            load.num_open_shards += usize::from(refusal.is_none());
            refusal.is_none()
        });
        match refusal {
            Some(status) => Err(status),
            None => Ok(ShardPermit { admission: self.clone() }),
        }
    }

    /// Takes on a shard whose stream begins with the message that `header` receives. Counts every refusal.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), or there is no header, or `header` says why it cannot be served.
    pub async fn admit_with_header<H, E: Into<Status>>(
        &self,
        header: impl Future<Output = Result<H, E>>,
    ) -> Result<(ShardPermit, H), Status> {
        let admitted = async {
            let permit = self.admit()?;
            let header = timeout(HEADER_TIMEOUT, header).await.map_err(|_| {
                Status::deadline_exceeded(format!("the stream had no header within {HEADER_TIMEOUT:?}"))
            })?;
            Ok((permit, header.map_err(Into::into)?))
        };
        admitted.await.inspect_err(|status| self.count_refusal(status))
    }

    /// Counts a refused call by the refusal in its status.
    pub fn count_refusal(&self, status: &Status) {
        let reason = match (Refusal::of(status), status.code()) {
            (Some(Refusal::Busy), _) => "busy",
            (Some(Refusal::Draining), _) => "draining",
            (None, Code::Unauthenticated) => "unauthenticated",
            (None, Code::FailedPrecondition) => "mismatch",
            (None, Code::DeadlineExceeded) => "too_slow",
            (None, _) => "invalid",
        };
        self.inner.refusals.of(reason).inc();
    }

    /// Takes on no more shards.
    pub fn drain(&self) {
        self.inner.load.send_modify(|load| load.is_draining = true);
    }

    /// Ends the work on all shards and tells their callers that the service is draining.
    pub fn cancel(&self) {
        self.inner.cancelled.cancel();
    }

    /// Waits until no shard is open.
    pub async fn idle(&self) {
        let _ = self.inner.load.subscribe().wait_for(|load| load.num_open_shards == 0).await;
    }

    /// Shards being worked on.
    #[must_use]
    pub fn num_open_shards(&self) -> usize {
        self.inner.load.borrow().num_open_shards
    }

    /// Whether a shard would be taken on now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match *self.inner.load.borrow() {
            Load { is_draining: true, .. } => Readiness::not_ready("draining"),
            Load { num_open_shards, .. } if num_open_shards >= self.inner.max_open_shards => {
                Readiness::not_ready("busy")
            }
            _ => Readiness::Ready,
        }
    }

    /// Waits until the readiness differs from `told`, and returns it.
    pub async fn next_readiness(&self, told: Option<&Readiness>) -> Readiness {
        let mut load = self.inner.load.subscribe();
        loop {
            load.mark_unchanged();
            let readiness = self.readiness();
            if told != Some(&readiness) {
                return readiness;
            }
            let _ = load.changed().await; // the sender lives as long as `self`
        }
    }
}

/// The answer of a service that is about to stop.
#[must_use]
pub fn refuse_draining() -> Status {
    Refusal::Draining.status("this worker is about to stop; try another one")
}

impl ShardPermit {
    /// Waits until the work must end, finished or not.
    pub async fn cancelled(&self) {
        self.admission.inner.cancelled.cancelled().await;
    }
}

impl Drop for ShardPermit {
    fn drop(&mut self) {
        self.admission.inner.load.send_modify(|load| load.num_open_shards -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_above_the_limit_are_refused_as_busy_until_one_is_done() {
        let admission = Admission::new(2);
        let first = admission.admit().unwrap();
        let _second = admission.admit().unwrap();
        assert_eq!(admission.readiness(), Readiness::not_ready("busy"));
        let status = admission.admit().unwrap_err();
        assert_eq!(Refusal::of(&status), Some(Refusal::Busy));
        assert!(status.message().contains("--max-open-shards"), "{status}");
        drop(first);
        assert!(admission.readiness().is_ready());
        admission.admit().unwrap();
    }

    #[tokio::test]
    async fn a_draining_service_finishes_its_shards_and_takes_no_others() {
        let admission = Admission::new(2);
        let permit = admission.admit().unwrap();
        admission.drain();
        assert_eq!(Refusal::of(&admission.admit().unwrap_err()), Some(Refusal::Draining));
        assert_eq!(admission.readiness(), Readiness::not_ready("draining"));
        let mut idle = Box::pin(admission.idle());
        tokio::select! {
            biased;
            () = &mut idle => panic!("a shard is open"),
            () = std::future::ready(()) => {}
        }
        drop(permit);
        idle.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_header_does_not_stay_open() {
        let admission = Admission::new(1);
        let header = std::future::pending::<Result<(), Status>>();
        let status = admission.admit_with_header(header).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(admission.num_open_shards(), 0);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let (admission, metrics) = (Admission::new(0), MetricsRegistry::new("encoder"));
        admission.register_metrics(&metrics);
        admission.count_refusal(&admission.admit().unwrap_err());
        admission.count_refusal(&Status::unauthenticated("no token"));
        admission.count_refusal(&Status::invalid_argument("no header"));
        let text = metrics.to_text();
        for reason in ["busy", "unauthenticated", "invalid"] {
            let line = format!("baton_grpc_rejections_total{{reason=\"{reason}\"}} 1");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
