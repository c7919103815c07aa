//! The report of a finished job, for people: `_REPORT.json`, and `_REPORT.html`, which shows it.
//!
//! A job's last coordinator creates both just before `_SUCCESS`. They tell of time and money, so, like the
//! manifest's timings, they differ from run to run. Neither holds a record's text.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_job::layout::{REPORT_JSON_KEY, REPORT_PAGE_KEY};
use baton_job::{Mode, RecordFailure, ReuseCounts, Totals, Verdict};
use baton_store::Store;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::history::{RunHistory, Sample};
use crate::new_inputs::of_each_output_below;
use crate::pages;
use crate::prepare::PreparedJob;
use crate::tier_figures::{TierFigures, tier_figures};
use crate::{CoordinatorError, Progress};

/// Failures of a kind that the report quotes.
const MAX_EXAMPLES: usize = 5;

/// Prices of workers, in any currency.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Prices {
    /// Of an encoder, an hour.
    pub encoder_per_hour: Option<f64>,
    /// Of a decoder, an hour.
    pub decoder_per_hour: Option<f64>,
}

/// The figures of the run that ends a job: one coordinator's run, from its start.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct RunFigures {
    seconds: f64,
    /// Records that this run has done; earlier runs and other coordinators did the rest.
    records: u64,
    output_tokens: u64,
    records_per_second: f64,
    output_tokens_per_second: f64,
    /// Hours of workers, summed over them.
    encoder_hours: f64,
    decoder_hours: f64,
    reuse: ReuseCounts,
    /// `None` without prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    /// The time of all leases, by tier; empty without a cascade.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tier_seconds: Vec<f64>,
    samples: Vec<Sample>,
}

/// The price of a run's workers.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cost {
    #[serde(flatten)]
    prices: Prices,
    encoders: f64,
    decoders: f64,
    total: f64,
    per_million_output_tokens: Option<f64>,
}

impl RunFigures {
    /// The figures of a run of this length, of which nothing else is known.
    pub(crate) fn of_time(elapsed: Duration) -> Self {
        RunFigures { seconds: elapsed.as_secs_f64(), ..RunFigures::default() }
    }

    /// The figures of a run that has come this far.
    pub(crate) fn new(
        elapsed: Duration,
        progress: &Progress,
        history: &RunHistory,
        prices: Prices,
    ) -> RunFigures {
        let samples = history.with_end(elapsed, progress);
        let (records, output_tokens) =
            samples.last().map_or((0, 0), |last| (last.records, last.output_tokens));
        let seconds = elapsed.as_secs_f64();
        let rate = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        let [encoder_hours, decoder_hours] =
            [history.encoder_time(), history.decoder_time()].map(|time| time.as_secs_f64() / 3600.0);
        let cost = (prices != Prices::default()).then(|| {
            let encoders = prices.encoder_per_hour.unwrap_or_default() * encoder_hours;
            let decoders = prices.decoder_per_hour.unwrap_or_default() * decoder_hours;
            let total = encoders + decoders;
            let per_million_output_tokens = (output_tokens > 0).then(|| total * 1e6 / output_tokens as f64);
            Cost { prices, encoders, decoders, total, per_million_output_tokens }
        });
        RunFigures {
            seconds,
            records,
            output_tokens,
            records_per_second: rate(records),
            output_tokens_per_second: rate(output_tokens),
            encoder_hours,
            decoder_hours,
            reuse: ReuseCounts::default(),
            cost,
            tier_seconds: Vec::new(),
            samples,
        }
    }

    /// The same, with the origin of the run's outputs.
    pub(crate) fn with_reuse(self, reuse: ReuseCounts) -> RunFigures {
        RunFigures { reuse, ..self }
    }

    pub(crate) fn reuse(&self) -> ReuseCounts {
        self.reuse
    }

    /// The same, with the time of all leases by tier.
    pub(crate) fn with_tiers(self, tier_time: &[Duration]) -> RunFigures {
        RunFigures { tier_seconds: tier_time.iter().map(Duration::as_secs_f64).collect(), ..self }
    }

    /// The price of the run's workers.
    pub(crate) fn total_cost(&self) -> Option<f64> {
        self.cost.as_ref().map(|cost| cost.total)
    }

    /// The time of all leases, by tier.
    pub(crate) fn tier_seconds(&self) -> &[f64] {
        &self.tier_seconds
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// The failed records of a job by kind, with the first few of each.
#[derive(Debug, Default)]
pub(crate) struct FailureKinds(BTreeMap<String, FailureKind>);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FailureKind {
    code: String,
    records: u64,
    examples: Vec<RecordFailure>,
}

impl FailureKinds {
    /// Adds a shard. Shards are added in order.
    pub(crate) fn add(&mut self, verdict: &Verdict) {
        for failure in &verdict.failed {
            let code = failure.code.to_string();
            let kind = self.0.entry(code.clone()).or_insert_with(|| FailureKind {
                code,
                records: 0,
                examples: Vec::new(),
            });
            kind.records += 1;
            if kind.examples.len() < MAX_EXAMPLES {
                kind.examples.push(failure.clone());
            }
        }
    }

    /// The kinds, the most frequent first.
    fn sorted(self) -> Vec<FailureKind> {
        let mut kinds: Vec<FailureKind> = self.0.into_values().collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.records)); // stable: by code among equals
        kinds
    }
}

/// Everything that the page shows.
#[derive(Debug, Serialize)]
struct FinalReport<'job> {
    baton_version: &'static str,
    bundle: &'job str,
    bundle_digest: &'job str,
    output: &'job str,
    mode: Mode,
    generation: String,
    input_files: usize,
    input_bytes: u64,
    partitions: u32,
    finished_unix_seconds: u64,
    totals: &'job Totals,
    /// Of a cascade.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<TierFigures>,
    failures: Vec<FailureKind>,
    run: &'job RunFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<EarlierJob>,
}

/// An earlier job's report, as far as this one compares itself with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EarlierJob {
    output: String,
    finished_unix_seconds: u64,
    totals: Totals,
    run: EarlierRun,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EarlierRun {
    seconds: f64,
    records_per_second: f64,
    output_tokens_per_second: f64,
}

impl PreparedJob {
    /// Creates the report of this job. If another coordinator was first, its report stays.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn create_report(
        &self,
        totals: &Totals,
        failures: FailureKinds,
        run: &RunFigures,
        finished_unix_seconds: u64,
    ) -> Result<(), CoordinatorError> {
        let report = FinalReport {
            baton_version: env!("CARGO_PKG_VERSION"),
            bundle: &self.spec.bundle,
            bundle_digest: &self.record.bundle_digest,
            output: &self.spec.output,
            mode: self.spec.mode,
            generation: self.spec.generation.said().to_string(),
            input_files: self.inputs.len(),
            input_bytes: self.inputs.iter().map(|input| input.size).sum(),
            partitions: self.partition.count(),
            finished_unix_seconds,
            totals,
            tiers: tier_figures(&self.spec.tiers, &totals.tiers, run),
            failures: failures.sorted(),
            run,
            before: self.earlier_job().await?,
        };
        let json = serde_json::to_string_pretty(&report).expect("plain data with string keys serializes");
        let page = pages::report(&json);
        let _ = self.store.create(REPORT_PAGE_KEY, Bytes::from(page)).await?;
        let _ = self.store.create(REPORT_JSON_KEY, Bytes::from(json + "\n")).await?;
        Ok(())
    }

    /// The last of the finished jobs below `--skip-done`: for a nightly job, the night before.
    async fn earlier_job(&self) -> Result<Option<EarlierJob>, CoordinatorError> {
        let Some(prefix) = &self.spec.skip_done else { return Ok(None) };
        let read = async |store: &Store, output: String| -> Result<Option<EarlierJob>, CoordinatorError> {
            let report = store.get(&format!("{output}/{REPORT_JSON_KEY}")).await?;
            // A report by another version may have another form; it is only a comparison.
            Ok(report.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        };
        let found = of_each_output_below(prefix, read).await?;
        Ok(found.into_iter().flatten().max_by_key(|job| job.finished_unix_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_costs_what_its_workers_cost_for_their_time() {
        let mut history = RunHistory::default();
        let progress = Progress { in_flight_output_tokens: 500_000, ..Progress::default() };
        history.record(Duration::from_secs(3600), &progress, &workers());
        let prices = Prices { encoder_per_hour: Some(2.0), decoder_per_hour: Some(0.5) };
        let run = RunFigures::new(Duration::from_secs(3600), &progress, &history, prices);
        let cost = run.cost.unwrap();
        assert_eq!((cost.encoders, cost.decoders, cost.total), (2.0, 1.0, 3.0));
        assert_eq!(cost.per_million_output_tokens, Some(6.0));
        let free = RunFigures::new(Duration::from_secs(3600), &progress, &history, Prices::default());
        assert_eq!((free.cost, free.encoder_hours, free.decoder_hours), (None, 1.0, 2.0));
    }

    /// One encoder, two decoders, and a decoder that has left.
    fn workers() -> Vec<crate::WorkerStatus> {
        use baton_job::{Role, WorkerId, WorkerState, WorkerView};
        let worker = |role, number, state| crate::WorkerStatus {
            view: WorkerView {
                id: WorkerId { role, number },
                endpoint: "http://x:1".to_owned(),
                state,
                num_shards: 0,
                outstanding_num_bytes: 0,
                failures: 0,
            },
            last_failure: None,
        };
        vec![
            worker(Role::Encoder, 0, WorkerState::Ready),
            worker(Role::Decoder, 0, WorkerState::Ready),
            worker(Role::Decoder, 1, WorkerState::Busy),
            worker(Role::Decoder, 2, WorkerState::Left),
        ]
    }
}
