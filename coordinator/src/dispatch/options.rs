//! The options of running, watching and stopping a job. None of them changes an output byte.

use std::time::Duration;

use baton_job::SchedulePolicy;
use tokio::sync::watch;

use crate::{CoordinatorMetrics, JobStatus, Prices};

/// The options of running a job.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The duration of leases, the retries of failures, and the number of shards per worker. Two shards keep
    /// encoder and decoder both busy; more also hide the commit and fill the decode batch at shard ends. All
    /// three roles hold each shard in memory.
    pub policy: SchedulePolicy,
    /// Time for shards in flight to finish once the job is asked to stop.
    pub grace_period: Duration,
    /// If nothing is committed or in flight for this long, the coordinator looks in the output for commits of
    /// another coordinator of its partition.
    pub search_others_after: Duration,
    /// Once its own partition is done, this coordinator finishes shards of partitions that have committed
    /// nothing for this time. `None`: it ends once its own partition is done.
    pub take_over_after: Option<Duration>,
    /// Prices of workers, for the report.
    pub prices: Prices,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            policy: SchedulePolicy::default(),
            grace_period: Duration::from_secs(30),
            search_others_after: Duration::from_secs(5),
            take_over_after: None,
            prices: Prices::default(),
        }
    }
}

/// A running job shows its state here.
#[derive(Debug, Clone, Default)]
pub struct JobWatch {
    /// Its state, several times a second.
    pub status: watch::Sender<JobStatus>,
    /// Its counters.
    pub metrics: CoordinatorMetrics,
}

/// The owner's request to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Shutdown {
    /// Continue.
    #[default]
    No,
    /// Take no new shard; finish those in flight within the grace period.
    Drain,
    /// Stop now; uncommitted work is done again next time.
    Now,
}
