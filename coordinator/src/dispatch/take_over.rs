//! A coordinator whose partition is done finishes the shards of silent partitions: their machines may be
//! lost.

use std::sync::Arc;
use std::time::Duration;

use baton_job::OtherPartitions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{JobWatch, RunOptions, Shutdown};
use crate::final_report::RunFigures;
use crate::manifest::end_job;
use crate::share::Share;
use crate::signals::asked_to_stop;
use crate::{Cluster, CoordinatorError, JobReport, PreparedJob};

/// Number of looks at others' commits within the patience with them.
const LOOKS_PER_PATIENCE: u32 = 4;
/// Maximum time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl PreparedJob {
    /// Continues after `report`, of this coordinator's partition, until the whole job has ended or the
    /// process is asked to stop. Shards that were taken over count in the report like its own.
    pub(super) async fn finish_others(
        &self,
        mut report: JobReport,
        patience: Duration,
        cluster: &Cluster,
        options: &RunOptions,
        watch: &JobWatch,
        shutdown: &watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        let started = Instant::now();
        let mut others = OtherPartitions::new(self.partition, report.num_shards, patience, started.elapsed());
        let pause = (patience / LOOKS_PER_PATIENCE).min(LONGEST_PAUSE);
        tracing::info!(?patience, "this partition is done; watching the others");
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = asked_to_stop(shutdown.clone()) => return Ok(report),
            }
            let taken = match self.look_at_others(&mut others, report.num_shards, started).await {
                Ok(Look::JobHasEnded) => return Ok(JobReport { job_has_ended: true, ..report }),
                Ok(Look::TakeOver(shards)) if shards.is_empty() => continue,
                Ok(Look::TakeOver(shards)) => shards,
                Err(CoordinatorError::Store(error)) if error.is_retryable() => {
                    tracing::warn!(%error, "cannot list the commits of other coordinators, trying again");
                    continue;
                }
                Err(error) => return Err(error),
            };
            tracing::warn!(shards = taken.len(), "finishing shards of other partitions");
            let share = Share::TakenOver(Arc::new(taken));
            let more = self.run_share(share, cluster.clone(), options, watch, shutdown.clone()).await?;
            report = report.with_taken_over(more);
            if report.job_has_ended || !report.is_complete() {
                return Ok(report);
            }
        }
    }

    async fn look_at_others(
        &self,
        others: &mut OtherPartitions,
        num_shards: u32,
        started: Instant,
    ) -> Result<Look, CoordinatorError> {
        let committed = self.list_parts().await?;
        let is_whole = committed.len() >= u64::from(num_shards);
        if is_whole && end_job(self, num_shards, &RunFigures::of_time(started.elapsed())).await? {
            return Ok(Look::JobHasEnded);
        }
        Ok(Look::TakeOver(others.look(&committed, started.elapsed())))
    }
}

/// The state of the whole job.
enum Look {
    JobHasEnded,
    /// Shards to finish now, perhaps none.
    TakeOver(baton_job::ShardSet),
}
