//! The process of a service: its flags, its ports, its signals, its exit code.
//!
//! The HTTP port answers at once, so that probes see a process that still loads its models. The gRPC port
//! opens when the models are loaded. The first SIGTERM or SIGINT drains; a second one ends the grace period.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_bundle::Bundle;
use baton_job::Mode;
use baton_model::Compute;
use baton_proto::{ClientSecurity, SecurityArgs, error_chain};
use baton_telemetry::{HttpServer, MetricsRegistry, Readiness, TelemetryArgs, resident_memory_num_bytes};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::value_parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::listen::{Bound, open_tcp, open_unix};
use crate::serve::{Served, ServedService};
use crate::{ComputeArgs, ListenAddress, ModelService, ServeOptions, WorkerLimits, serve};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Threads that move messages; the model has threads of its own.
const MAX_RUNTIME_THREADS: usize = 8;

const MIB: usize = 1 << 20;

/// The exit codes of a service's process, for the help text of its command.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    stopped by SIGTERM or SIGINT, having finished its shards or given them up after the grace period
  1    it cannot start, or its model thread died; its shards are leased elsewhere
  2    the flags are wrong";

/// Flags that all services have.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// Directory of the bundle. Its hashes are verified at the start. Example: models/en-it
    #[arg(long, value_name = "DIR", env = "BATON_BUNDLE")]
    pub bundle: PathBuf,
    /// Mode of the jobs served, which decides the models to load. Default: the bundle's first; hybrid and slm
    /// are served together.
    #[arg(
        long,
        value_name = "MODE",
        env = "BATON_MODE",
        value_parser = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str))
            .map(|name| name.parse::<Mode>().expect("a possible value is a mode")),
    )]
    pub mode: Option<Mode>,
    /// Maximum of shards worked on at once; further shards are answered RESOURCE_EXHAUSTED and leased
    /// elsewhere.
    #[arg(
        long,
        value_name = "SHARDS",
        env = "BATON_MAX_OPEN_SHARDS",
        default_value_t = 32,
        value_parser = value_parser!(u32).range(1..=65_536),
        help_heading = "Limits",
    )]
    pub max_open_shards: u32,
    /// Memory for texts, ids and kept fields of all open shards, MiB; beyond it shards are answered
    /// RESOURCE_EXHAUSTED. Must hold the largest shard.
    #[arg(
        long,
        value_name = "MIB",
        env = "BATON_MAX_RECORDS_MIB",
        default_value_t = 256,
        value_parser = value_parser!(u32).range(1..=1_048_576),
        help_heading = "Limits",
    )]
    pub max_records_mib: u32,
    /// Time for shards in flight to finish after SIGTERM, seconds. Keep it below the time after which the
    /// process is killed.
    #[arg(long, value_name = "SECONDS", env = "BATON_GRACE_PERIOD_S", default_value_t = 30)]
    pub grace_period_s: u64,
    /// Device, number format, engines.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Logs and HTTP port.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// TLS and tokens.
    #[command(flatten)]
    pub security: SecurityArgs,
}

/// The process's part in running its service.
#[derive(Debug)]
pub struct Host {
    /// The registry for the service's metrics.
    pub metrics: MetricsRegistry,
    /// The limits of its shards.
    pub limits: WorkerLimits,
    /// The devices of its models: one, unless the service splits a model.
    pub devices: Vec<Compute>,
    /// Mode of the jobs it serves.
    pub mode: Mode,
    /// The service's credentials as a client.
    pub client_security: ClientSecurity,
    listen: ListenAddress,
    bound: Bound,
    options: ServeOptions,
    drain: CancellationToken,
    is_serving: Arc<AtomicBool>,
    compute_args: ComputeArgs,
    began: Instant,
}

/// Runs a service's process to its exit code. `start` loads the service from the verified bundle and then
/// serves it with [`Host::serve`].
pub fn run<F>(
    service: ModelService,
    args: &WorkerArgs,
    listen: ListenAddress,
    start: impl FnOnce(Bundle, Host) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), BoxError>>,
{
    let (role, began) = (service.name(), Instant::now());
    // More threads would split a product's sums differently, which would change output bytes.
    baton_model::set_num_threads(1);
    let _logging = match args.telemetry.log.init("info", role) {
        Ok(logging) => logging,
        Err(error) => {
            baton_telemetry::tell!("error: {}", error_chain(&error));
            return ExitCode::from(2);
        }
    };
    let security = match args.security.load() {
        Ok(security) => security,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "cannot use the security flags");
            return ExitCode::from(2);
        }
    };
    let options = ServeOptions {
        security: security.server,
        grace_period: Duration::from_secs(args.grace_period_s),
        readiness: watch::Sender::new(Readiness::not_ready("loading models")),
        hurry: CancellationToken::new(),
    };
    let result = (|| {
        let num_cores = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(num_cores.clamp(2, MAX_RUNTIME_THREADS))
            .enable_all()
            .build()?;
        let result =
            runtime.block_on(run_service(service, args, (security.client, listen, began), options, start));
        runtime.shutdown_background(); // connections that peers keep open are not waited for
        result
    })();
    match result {
        Ok(()) => {
            tracing::info!(role, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(role, error = error_chain(error.as_ref()), "ends");
            ExitCode::FAILURE
        }
    }
}

async fn run_service<F>(
    service: ModelService,
    args: &WorkerArgs,
    (client_security, listen, began): (ClientSecurity, ListenAddress, Instant),
    options: ServeOptions,
    start: impl FnOnce(Bundle, Host) -> F,
) -> Result<(), BoxError>
where
    F: Future<Output = Result<(), BoxError>>,
{
    let role = service.name();
    let (drain, hurry) = (CancellationToken::new(), options.hurry.clone());
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminations, interrupts] = signals;
    tokio::spawn(obey_signals(terminations?, interrupts?, [drain.clone(), hurry]));

    let metrics = MetricsRegistry::new(role);
    if let Some(address) = args.telemetry.http_listen.address() {
        let http = HttpServer::bind(address, metrics.clone(), options.readiness.subscribe()).await?;
        tracing::info!(role, address = %http.local_address(), "serving HTTP");
        tokio::spawn(http.serve());
    }
    let bound = listen.bind()?;
    warn_if_open_to_all(&listen, &options);
    let limits = WorkerLimits {
        max_open_shards: args.max_open_shards as usize,
        max_record_num_bytes: args.max_records_mib as usize * MIB,
    };
    tracing::info!(role, bundle = %args.bundle.display(), "verifying the bundle and loading models");
    let is_serving = Arc::new(AtomicBool::new(false));
    let devices = match service {
        ModelService::Encoder => args.compute.devices()?,
        ModelService::Decoder => vec![args.compute.compute()?],
    };
    let host = Host {
        metrics,
        limits,
        devices,
        mode: Mode::default(), // until the bundle is known
        client_security,
        listen,
        bound,
        options,
        drain: drain.clone(),
        is_serving: Arc::clone(&is_serving),
        compute_args: args.compute.clone(),
        began,
    };
    let (path, mode) = (args.bundle.clone(), args.mode);
    let serving = async {
        let bundle = tokio::task::spawn_blocking(move || baton_bundle::verify(&path)).await??;
        let modes = &bundle.manifest().modes;
        let mode = mode.unwrap_or(modes[0]); // a verified bundle has one
        if !modes.contains(&mode) {
            let served: Vec<&str> = modes.iter().map(|mode| mode.as_str()).collect();
            let problem =
                format!("the bundle does not serve mode {mode}; try --mode {}", served.join(" or --mode "));
            return Err(problem.into());
        }
        start(bundle, Host { mode, ..host }).await
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended,
        () = drain.cancelled() => {
            if !is_serving.load(Ordering::Relaxed) {
                tracing::info!(role, "stopped before the models were loaded");
                // Exit at once. Otherwise the process would wait for the loading thread, and that thread
                // might run into a library that is shutting down.
                signal_hook::low_level::exit(0);
            }
            serving.await
        }
    }
}

/// Time for a process to tell its callers after it was asked twice to stop.
const HURRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Cancels one token at each signal. Ends a process that still runs a moment after the second.
async fn obey_signals(mut terminations: Signal, mut interrupts: Signal, tokens: [CancellationToken; 2]) {
    for token in tokens {
        tokio::select! {
            _ = terminations.recv() => {}
            _ = interrupts.recv() => {}
        }
        token.cancel();
    }
    tokio::time::sleep(HURRY_TIMEOUT).await;
    tracing::warn!("told twice to stop, ending at once");
    signal_hook::low_level::exit(0);
}

/// Warns loudly if anybody who reaches the port is admitted.
fn warn_if_open_to_all(listen: &ListenAddress, options: &ServeOptions) {
    if let ListenAddress::Tcp(address) = listen
        && !address.ip().is_loopback()
        && !options.security.authenticates()
    {
        tracing::warn!(
            %address,
            "ANYBODY who reaches this port may use this service: it asks for neither a token \
             (--auth-token-file) nor a client's certificate (--tls-client-ca)"
        );
    }
}

impl Host {
    /// Engines of each model, whose engines take so many bytes on the first device.
    #[must_use]
    pub fn engines(&self, engine_num_bytes: u64) -> usize {
        self.compute_args.engines(&self.devices, engine_num_bytes)
    }

    /// Opens the gRPC port and serves until a signal has ended the drain.
    ///
    /// # Errors
    /// The port cannot be opened, the server fails, or the model thread dies.
    pub async fn serve<S: ServedService, R>(self, served: Served<S, R>) -> Result<(), BoxError> {
        self.is_serving.store(true, Ordering::Relaxed);
        let Host { listen, bound, options, drain, metrics, began, .. } = self;
        let (ready_after, memory) = (began.elapsed(), resident_memory_num_bytes());
        let help = "Milliseconds from the process's start until its models were loaded";
        metrics.reading("baton_load_milliseconds", help, move || ready_after.as_millis() as i64);
        tracing::info!(seconds = ready_after.as_secs_f64(), resident_mib = memory >> 20, "ready");
        let shutdown = drain.cancelled();
        let service = S::NAME;
        match bound {
            Bound::Tcp(socket) => {
                let (address, incoming) = open_tcp(socket).map_err(|source| listen.failed(source))?;
                tracing::info!(service, %address, tls = options.security.uses_tls(), "serving gRPC");
                serve(served, incoming, shutdown, options).await?;
            }
            Bound::Unix(path) => {
                let incoming = open_unix(&path).map_err(|source| listen.failed(source))?;
                tracing::info!(service, address = %listen, tls = options.security.uses_tls(), "serving gRPC");
                serve(served, incoming, shutdown, options).await?;
                let _ = std::fs::remove_file(path); // if it is gone, so much the better
            }
        }
        Ok(())
    }
}
