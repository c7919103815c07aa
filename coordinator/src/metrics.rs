//! The coordinator's counters for Prometheus.

use baton_telemetry::{Counter, Gauge, LabelledCounter, MetricsRegistry};

/// The coordinator's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct CoordinatorMetrics {
    pub(crate) leases: Counter,
    pub(crate) lease_expiries: Counter,
    pub(crate) shards_in_flight: Gauge,
    pub(crate) waiting_shards: Gauge,
    pub(crate) records: LabelledCounter,
}

impl Default for CoordinatorMetrics {
    fn default() -> Self {
        CoordinatorMetrics {
            leases: Counter::default(),
            lease_expiries: Counter::default(),
            shards_in_flight: Gauge::default(),
            waiting_shards: Gauge::default(),
            records: LabelledCounter::new("outcome"),
        }
    }
}

impl CoordinatorMetrics {
    /// Registers them among a process's metrics.
    pub fn register(&self, registry: &MetricsRegistry) {
        registry.counter("baton_coordinator_leases_total", "Leases given to workers", &self.leases);
        let help = "Leases that ended because nobody reported progress";
        registry.counter("baton_coordinator_lease_expiries_total", help, &self.lease_expiries);
        registry.gauge("baton_coordinator_shards_in_flight", "Shards worked on", &self.shards_in_flight);
        registry.gauge(
            "baton_coordinator_waiting_shards",
            "Shards that wait for a worker",
            &self.waiting_shards,
        );
        let help = "Records committed by this run, by outcome: output or error";
        registry.labelled_counter("baton_coordinator_records_total", help, &self.records);
    }
}
