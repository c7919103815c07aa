//! The dispatcher's published state.

use std::time::Duration;

use super::{Dispatcher, JobStatus};
use crate::progress::{Progress, WorkerStatus, obstacle};

/// The interval of publishing the state while much happens.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

impl Dispatcher<'_> {
    /// Publishes the state, unless it was just done.
    pub(super) fn publish(&mut self) {
        let now = self.now();
        if self.published_at.is_none_or(|last| now >= last + PUBLISH_INTERVAL) {
            self.publish_now();
        }
    }

    pub(super) fn publish_now(&mut self) {
        let now = self.now();
        self.published_at = Some(now);
        let worker = |view: baton_job::WorkerView| WorkerStatus {
            last_failure: self.last_failures.get(&view.id).cloned(),
            view,
        };
        let workers: Vec<WorkerStatus> = self.scheduler.workers(now).map(worker).collect();
        let obstacle = self.scheduler.lacking_role(now).map(|role| obstacle(role, &workers));
        if obstacle != self.obstacle {
            if let Some(obstacle) = &obstacle {
                tracing::warn!("{obstacle}");
            }
            self.obstacle.clone_from(&obstacle);
        }
        let (progress, shards) = (self.progress(), self.scheduler.counts());
        self.history.record(now, &progress, &workers);
        let (records_per_second, output_tokens_per_second) = self.rate_meter.rates(now, &progress);
        self.watch.metrics.shards_in_flight.set(shards.in_flight as i64);
        self.watch.metrics.waiting_shards.set(shards.waiting as i64);
        self.watch.status.send_replace(JobStatus {
            progress,
            shards,
            workers,
            obstacle,
            is_draining: self.drain_deadline.is_some(),
            elapsed: now,
            records_per_second,
            output_tokens_per_second,
            history: self.history.clone(),
            reuse: self.reuse,
        });
    }

    pub(super) fn progress(&self) -> Progress {
        let commits =
            self.running.values().filter(|running| matches!(running.work, super::Work::Commit { .. }));
        let in_flight = commits.map(|running| &running.progress);
        let kept_by_tiers = self.open_shards.values().map(|open| u64::from(open.num_done()));
        let sample = self.reader.sample();
        Progress {
            committed: self.totals.clone(),
            resumed: self.resumed.clone(),
            in_flight_records: in_flight
                .clone()
                .map(|progress| u64::from(progress.decoded_records))
                .chain(kept_by_tiers)
                .sum(),
            in_flight_output_tokens: in_flight
                .map(|progress| progress.decoded_output_tokens)
                .fold(0, u64::saturating_add), // a worker's word
            read_records: self.end_of_input.as_ref().map_or(sample.records, |end| end.num_records),
            read_bytes: sample.bytes,
            input_bytes: self.job.inputs.iter().map(|input| input.size).sum(),
            input_is_read: self.end_of_input.is_some(),
        }
    }
}
