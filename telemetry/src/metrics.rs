//! The registry of a process's metrics: their text form for Prometheus, and the same values for a collector.
//!
//! Each service owns its metrics and registers them under their full names, so that searching the source
//! finds a name from a dashboard. A collector gets them under these names as well. The export reads values
//! from here when it sends; without an export, registering there does nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{self, Meter};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, text::encode};
use prometheus_client::metrics::{MetricType, family::Family, histogram, info::Info};
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::{Metric, Registry};

const NO_PANIC: &str = "no holder of this lock panics";

/// Upper bound of a histogram's first bucket, seconds; each further one is twice as wide.
const FIRST_BUCKET_SECONDS: f64 = 0.001;
/// The last of these ends at about two minutes.
const NUM_BUCKETS: u16 = 18;

/// A process's metrics. Clones share one registry.
#[derive(Debug, Clone)]
pub struct MetricsRegistry {
    registry: Arc<Mutex<Registry>>,
    export: Meter,
}

impl MetricsRegistry {
    /// A registry that has the process's memory, and its version as `baton_build_info`, where `process` is
    /// the role: `encoder`, `decoder`, `coordinator`.
    #[must_use]
    pub fn new(process: &'static str) -> Self {
        let export = opentelemetry::global::meter("baton"); // of no provider, it ignores all
        let metrics = Self { registry: Arc::default(), export };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("process", process)]);
        // The format appends _info.
        metrics.register("baton_build", "Version and role of this process", build);
        metrics.reading("process_resident_memory_bytes", "Memory in use", resident_memory_num_bytes);
        metrics
    }

    /// Adds a counter. Its name ends with `_total`.
    ///
    /// # Panics
    /// The name does not.
    pub fn counter(&self, name: &'static str, help: &'static str, counter: &Counter) {
        self.register(without_total(name), help, counter.clone());
        let counter = counter.clone();
        let export = self.export.u64_observable_counter(name).with_description(help);
        let _ = export.with_callback(move |to| to.observe(counter.get(), &[])).build();
    }

    /// Adds a counter with one label. Its name ends with `_total`.
    ///
    /// # Panics
    /// The name does not.
    pub fn labelled_counter(&self, name: &'static str, help: &'static str, counter: &LabelledCounter) {
        self.register(without_total(name), help, counter.by_value.clone());
        let counter = counter.clone();
        let export = self.export.u64_observable_counter(name).with_description(help);
        let observe = move |to: &dyn metrics::AsyncInstrument<u64>| {
            let values = counter.values.lock().expect(NO_PANIC).clone();
            for value in values {
                to.observe(counter.of(value).get(), &[KeyValue::new(counter.label, value)]);
            }
        };
        let _ = export.with_callback(observe).build();
    }

    /// Adds a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, gauge: &Gauge) {
        self.register(name, help, gauge.clone());
        let gauge = gauge.clone();
        let export = self.export.i64_observable_gauge(name).with_description(help);
        let _ = export.with_callback(move |to| to.observe(gauge.get(), &[])).build();
    }

    /// Adds a gauge that reads its value on each scrape.
    pub fn reading(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        let reading = Reading(Arc::new(read));
        self.register(name, help, reading.clone());
        let export = self.export.i64_observable_gauge(name).with_description(help);
        let _ = export.with_callback(move |to| to.observe(reading.0(), &[])).build();
    }

    /// Adds a histogram, such as [`seconds_histogram`].
    pub fn histogram(&self, name: &'static str, help: &'static str, histogram: &Histogram) {
        self.register(name, help, histogram.scraped.clone());
        let export = self.export.f64_histogram(name).with_description(help);
        histogram.exported.get_or_init(|| export.with_boundaries(bounds().collect()).build());
    }

    /// All metrics as text, in the OpenMetrics format.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().expect(NO_PANIC))
            .expect("a string takes all that is written");
        text
    }

    fn register(&self, name: &'static str, help: &'static str, metric: impl Metric) {
        self.registry.lock().expect(NO_PANIC).register(name, help, metric);
    }
}

/// A counter for each value of one label.
#[derive(Debug, Clone)]
pub struct LabelledCounter {
    label: &'static str,
    by_value: Family<[(&'static str, &'static str); 1], Counter>,
    values: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl LabelledCounter {
    /// A counter whose label is called `label`.
    #[must_use]
    pub fn new(label: &'static str) -> Self {
        Self { label, by_value: Family::default(), values: Arc::default() }
    }

    /// The counter of a value. Values are few and known in the source, because each is a time series.
    #[must_use]
    pub fn of(&self, value: &'static str) -> Counter {
        self.values.lock().expect(NO_PANIC).insert(value);
        self.by_value.get_or_create_owned(&[(self.label, value)])
    }
}

/// A histogram. Clones share its values.
#[derive(Debug, Clone)]
pub struct Histogram {
    scraped: histogram::Histogram,
    /// Set when the histogram is registered.
    exported: Arc<OnceLock<metrics::Histogram<f64>>>,
}

impl Histogram {
    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.scraped.observe(value);
        if let Some(exported) = self.exported.get() {
            exported.record(value, &[]);
        }
    }
}

/// A histogram of durations in seconds, from a millisecond to two minutes.
#[must_use]
pub fn seconds_histogram() -> Histogram {
    Histogram { scraped: histogram::Histogram::new(bounds()), exported: Arc::default() }
}

/// The upper bounds of its buckets.
fn bounds() -> impl Iterator<Item = f64> {
    histogram::exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, NUM_BUCKETS)
}

/// The format appends the suffix itself.
fn without_total(name: &'static str) -> &'static str {
    name.strip_suffix("_total").expect("the name of a counter ends with _total")
}

/// Resident memory of this process; 0 without Linux's /proc.
#[must_use]
pub fn resident_memory_num_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<i64>().ok()).unwrap_or_default() * 1024
}

/// A gauge that reads its value elsewhere.
#[derive(Clone)]
struct Reading(Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({})", (self.0)())
    }
}

impl EncodeMetric for Reading {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0)())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_appear_under_their_full_names() {
        let metrics = MetricsRegistry::new("decoder");
        let (leases, shards, seconds) = (Counter::default(), Gauge::default(), seconds_histogram());
        let rejections = LabelledCounter::new("reason");
        metrics.counter("baton_leases_total", "Leases", &leases);
        metrics.gauge("baton_open_shards", "Shards", &shards);
        metrics.histogram("baton_commit_seconds", "Time of a commit", &seconds);
        metrics.labelled_counter("baton_grpc_rejections_total", "Refused", &rejections);
        metrics.reading("baton_waiting", "Waiting", || 7);
        leases.inc_by(3);
        shards.set(2);
        seconds.observe(0.5);
        rejections.of("busy").inc();

        let text = metrics.to_text();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            &format!("baton_build_info{{version=\"{version}\",process=\"decoder\"}} 1"),
            "baton_leases_total 3",
            "baton_open_shards 2",
            "baton_commit_seconds_count 1",
            "baton_grpc_rejections_total{reason=\"busy\"} 1",
            "baton_waiting 7",
            "# TYPE baton_leases counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is not in:\n{text}");
        }
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(resident_memory_num_bytes() > 1 << 20);
    }
}
