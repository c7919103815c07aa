//! Spans and metrics sent to an OpenTelemetry collector, by OTLP over gRPC.
//!
//! Owns the export: its batches, its connection, and the last flush when the process ends. It sends the
//! spans of Baton's own crates from level info on, and the metrics that Prometheus may scrape, under the same
//! names. Without an endpoint nothing is made. A collector that does not answer delays nothing: the exporters
//! drop what they cannot send, and log it.
//!
//! The standard variables of OpenTelemetry hold, such as `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_METRIC_EXPORT_INTERVAL`:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::{Builder, Runtime};

/// The standard name of the variable with the file of an authority's certificates.
const CERTIFICATE_VARIABLE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

/// Why nothing can be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint, or a variable of OpenTelemetry, is wrong.
    #[error("cannot send telemetry to --otlp-endpoint {endpoint}; write it like http://collector:4317")]
    Exporter {
        /// The endpoint.
        endpoint: String,
        /// The problem.
        #[source]
        source: ExporterBuildError,
    },
    /// An https endpoint needs the certificates that it is known by.
    #[error(
        "an https --otlp-endpoint needs the collector's authority: set {CERTIFICATE_VARIABLE} to a PEM file, \
         such as /etc/ssl/certs/ca-certificates.crt"
    )]
    NoCertificate,
    /// Those certificates cannot be read.
    #[error("cannot read {path}, the value of {CERTIFICATE_VARIABLE}")]
    Certificate {
        /// The file.
        path: String,
        /// The problem.
        #[source]
        source: std::io::Error,
    },
    /// The thread of the connection cannot start.
    #[error("cannot start the thread that sends telemetry")]
    Runtime(#[source] std::io::Error),
}

/// The export of this process. Dropping it sends what waits, for up to some seconds.
#[derive(Debug)]
pub(crate) struct Otlp {
    spans: SdkTracerProvider,
    metrics: SdkMeterProvider,
    /// Drives the connection; the exporters have threads of their own. Dropped last.
    _runtime: Runtime,
}

impl Otlp {
    /// Begins to export to `endpoint` as the service `baton-<process>`, unless a variable names it otherwise.
    pub(crate) fn start(endpoint: &str, process: &str) -> Result<Self, OtlpError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .map_err(OtlpError::Runtime)?;
        let entered = runtime.enter(); // the exporters' connections belong to it
        let wrong = |source| OtlpError::Exporter { endpoint: endpoint.to_owned(), source };
        let mut spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let mut metrics = MetricExporter::builder().with_tonic().with_endpoint(endpoint);
        if let Some(tls) = tls_of(endpoint)? {
            spans = spans.with_tls_config(tls.clone());
            metrics = metrics.with_tls_config(tls);
        }
        let (spans, metrics) = (spans.build().map_err(wrong)?, metrics.build().map_err(wrong)?);
        let resource = resource(process);
        let spans =
            SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build();
        let metrics =
            SdkMeterProvider::builder().with_periodic_exporter(metrics).with_resource(resource).build();
        opentelemetry::global::set_meter_provider(metrics.clone());
        drop(entered);
        Ok(Self { spans, metrics, _runtime: runtime })
    }

    /// The tracer of Baton's spans.
    pub(crate) fn tracer(&self) -> SdkTracer {
        self.spans.tracer("baton")
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        // A collector that does not take the rest has been logged, and changes no exit code.
        let _ = self.spans.shutdown();
        let _ = self.metrics.shutdown();
    }
}

/// The certificates by which an https endpoint is known: those of the standard variable's file.
fn tls_of(endpoint: &str) -> Result<Option<ClientTlsConfig>, OtlpError> {
    if !endpoint.starts_with("https:") {
        return Ok(None);
    }
    let path = std::env::var(CERTIFICATE_VARIABLE).map_err(|_| OtlpError::NoCertificate)?;
    let pem = std::fs::read(&path).map_err(|source| OtlpError::Certificate { path, source })?;
    Ok(Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))))
}

/// Describes this process to the collector.
fn resource(process: &str) -> Resource {
    const NAME: Key = Key::from_static_str("service.name");
    let found = Resource::builder().build();
    let is_named = found.get(&NAME).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let name = (!is_named).then(|| KeyValue::new(NAME, format!("baton-{process}")));
    Resource::builder()
        .with_attributes(name)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", format!("{:016x}", rand::random::<u64>())))
        .build()
}
