//! Encoders and decoders in this process, a pair for each mode that takes models of its own, reached through
//! the job's connections. However the process ends, it leaves no socket and no file.

use baton_bundle::Bundle;
use baton_coordinator::{Cluster, JobReport, JobWatch, PreparedJob, RunOptions, Shutdown};
use baton_decoder_svc::{DecoderConfig, DecoderService};
use baton_encoder_svc::{EncoderConfig, EncoderService};
use baton_proto::Connections;
use baton_worker::serve_locally;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The services, running.
pub(crate) struct InProcessWorkers {
    connections: Connections,
    num_pairs: usize,
    services: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
}

impl InProcessWorkers {
    /// Loads the models of all services and starts serving.
    ///
    /// # Errors
    /// A model cannot be loaded.
    pub(crate) async fn start(
        bundle: &Bundle,
        pairs: Vec<(EncoderConfig, DecoderConfig)>,
    ) -> anyhow::Result<InProcessWorkers> {
        let connections = Connections::default();
        let (stop, stopped) = watch::channel(false);
        let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await; // a dropped sender stops too
        };
        let mut services = JoinSet::new();
        let num_pairs = pairs.len();
        for (number, (encoder, decoder)) in pairs.into_iter().enumerate() {
            let [to_encoder, to_decoder] = names(number).map(|name| connections.listen_locally(&name));
            let encoder = EncoderService::load(bundle, encoder, connections.clone()).await?;
            let decoder = DecoderService::load(bundle, decoder).await?;
            let shutdown = until_stopped(stopped.clone());
            services.spawn(async { Ok(serve_locally(encoder.into_served(), to_encoder, shutdown).await?) });
            let shutdown = until_stopped(stopped.clone());
            services.spawn(async { Ok(serve_locally(decoder.into_served(), to_decoder, shutdown).await?) });
        }
        Ok(InProcessWorkers { connections, num_pairs, services, stop })
    }

    /// The services, from the coordinator's view.
    fn cluster(&self) -> Cluster {
        let endpoints = (0..self.num_pairs).map(|number| names(number).map(|name| format!("local:{name}")));
        let (encoders, decoders) = endpoints.map(|[encoder, decoder]| (encoder, decoder)).unzip();
        Cluster::fixed(self.connections.clone(), encoders, decoders)
    }

    /// Runs a job, given the cluster of these services, and then stops them.
    ///
    /// # Errors
    /// The job's, or that of a service that failed meanwhile.
    pub(crate) async fn run<T>(
        mut self,
        job: impl AsyncFnOnce(Cluster) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let cluster = self.cluster();
        let result = tokio::select! {
            result = job(cluster) => result,
            failure = self.failure() => Err(failure),
        };
        self.stop().await;
        result
    }

    /// Waits until a service fails.
    async fn failure(&mut self) -> anyhow::Error {
        match self.services.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => panic.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a service ended before the job did"),
        }
    }

    /// Stops all services and waits until their model threads have ended.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        // Serious errors have ended the job already.
        while self.services.join_next().await.is_some() {}
    }
}

/// The names of a pair's services.
fn names(number: usize) -> [String; 2] {
    match number {
        0 => ["encoder", "decoder"].map(str::to_owned),
        _ => ["encoder", "decoder"].map(|role| format!("{role}-{number}")),
    }
}

/// Runs a job with the usual options, while nobody watches it and nobody stops it.
///
/// # Errors
/// The job failed.
pub(crate) async fn run_unwatched(job: &PreparedJob, cluster: Cluster) -> anyhow::Result<JobReport> {
    let (_keep, shutdown) = watch::channel(Shutdown::No);
    Ok(job.run(cluster, &RunOptions::default(), &JobWatch::default(), shutdown).await?)
}
