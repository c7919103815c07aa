//! Encoder and decoder in this process, each served on a Unix socket in a private directory.

use anyhow::Context;
use baton_bundle::Bundle;
use baton_coordinator::WorkerPair;
use baton_decoder_svc::{DecoderConfig, DecoderService};
use baton_encoder_svc::{EncoderConfig, EncoderService};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;

/// The two services, running.
pub(crate) struct InProcessWorkers {
    pair: WorkerPair,
    services: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
    _sockets: TempDir,
}

impl InProcessWorkers {
    /// Loads both services' models and starts serving.
    ///
    /// # Errors
    /// A model cannot be loaded, or the sockets cannot be made.
    pub(crate) async fn start(
        bundle: &Bundle,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
    ) -> anyhow::Result<InProcessWorkers> {
        let encoder = EncoderService::load(bundle, encoder).await?;
        let decoder = DecoderService::load(bundle, decoder).await?;
        // Made with mode 0700: no other user reaches the sockets.
        let sockets = tempfile::Builder::new()
            .prefix("baton-")
            .tempdir()
            .context("cannot make a directory for sockets; set TMPDIR to a writable one")?;
        let listen = |name: &str| {
            let path = sockets.path().join(name);
            let listener = UnixListener::bind(&path).with_context(|| {
                format!("cannot listen on {}; set TMPDIR to a short path", path.display())
            })?;
            anyhow::Ok((UnixListenerStream::new(listener), format!("unix:{}", path.display())))
        };
        let (encoder_connections, encoder_endpoint) = listen("encoder.sock")?;
        let (decoder_connections, decoder_endpoint) = listen("decoder.sock")?;
        let (stop, stopped) = watch::channel(false);
        let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await; // a dropped sender stops too
        };
        let mut services = JoinSet::new();
        let shutdown = until_stopped(stopped.clone());
        services.spawn(async { Ok(baton_encoder_svc::serve(encoder, encoder_connections, shutdown).await?) });
        let shutdown = until_stopped(stopped);
        services.spawn(async { Ok(baton_decoder_svc::serve(decoder, decoder_connections, shutdown).await?) });
        let pair = WorkerPair { encoder_endpoint, decoder_endpoint };
        Ok(InProcessWorkers { pair, services, stop, _sockets: sockets })
    }

    /// Where the services listen.
    pub(crate) fn pair(&self) -> &WorkerPair {
        &self.pair
    }

    /// Waits until a service fails.
    pub(crate) async fn failure(&mut self) -> anyhow::Error {
        match self.services.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => panic.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a service ended before the job did"),
        }
    }

    /// Stops both services and waits until their model threads have ended.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        // Errors that matter have ended the job already.
        while self.services.join_next().await.is_some() {}
    }
}
