//! The outward signs of every Baton process: logs, metrics, health pages, and the trace that follows a shard.
//!
//! Owns their flags, the log formats, the metrics registry, and the HTTP server for people, Prometheus and
//! probes. Also the export to a collector, and the W3C trace context in gRPC metadata. It knows no service:
//! each registers its own metrics and adds its own pages.
//!
//! Logs never hold record text or secrets; callers must ensure that.
//!
//! ```no_run
//! # async fn example(args: baton_telemetry::TelemetryArgs) -> Result<(), Box<dyn std::error::Error>> {
//! use baton_telemetry::{Counter, HttpServer, MetricsRegistry, Readiness};
//! let _logging = args.log.init("info", "coordinator")?;
//! let metrics = MetricsRegistry::new("coordinator");
//! let leases = Counter::default();
//! metrics.counter("baton_coordinator_leases_total", "Leases given to workers", &leases);
//! let (ready, readiness) = tokio::sync::watch::channel(Readiness::not_ready("reading the job"));
//! if let Some(address) = args.http_listen.address() {
//!     let server = HttpServer::bind(address, metrics, readiness).await?;
//!     tokio::spawn(server.serve());
//! }
//! leases.inc();
//! ready.send_replace(Readiness::Ready);
//! # Ok(()) }
//! ```

mod flags;
mod http;
mod logging;
mod metrics;
mod otlp;
mod readiness;
mod trace;

pub use axum;
pub use flags::{HttpListen, LogArgs, LogFormat, TelemetryArgs};
pub use http::{HttpServer, HttpServerError};
pub use logging::{LogError, Logging, write_stderr_line};
pub use metrics::{
    Counter, Gauge, Histogram, LabelledCounter, MetricsRegistry, resident_memory_num_bytes, seconds_histogram,
};
pub use otlp::OtlpError;
pub use readiness::Readiness;
pub use trace::{InvalidTraceparent, JobTrace, TraceContext};
