//! How a job is run, and how it is watched and stopped. None of it changes an output byte.

use std::time::Duration;

use baton_job::SchedulePolicy;
use tokio::sync::watch;

use crate::{CoordinatorMetrics, JobStatus};

/// How a job is run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How long leases last, how failures are retried, and how many shards a worker has at once. Two shards
    /// keep encoder and decoder both busy; more also hide the commit and fill the decode batch at shard ends.
    /// Each is held in memory by all three roles.
    pub policy: SchedulePolicy,
    /// How long shards in flight may take to finish once the job is asked to stop.
    pub grace_period: Duration,
    /// How long nothing may be committed, while nothing is in flight either, before the output is asked what
    /// another coordinator of the partition has committed.
    pub search_others_after: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            policy: SchedulePolicy::default(),
            grace_period: Duration::from_secs(30),
            search_others_after: Duration::from_secs(5),
        }
    }
}

/// Where a running job shows its state.
#[derive(Debug, Clone, Default)]
pub struct JobWatch {
    /// Its state, several times a second.
    pub status: watch::Sender<JobStatus>,
    /// What it counts.
    pub metrics: CoordinatorMetrics,
}

/// What the process's owner wants of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Shutdown {
    /// Go on.
    #[default]
    No,
    /// Take no new shard; finish those in flight within the grace period.
    Drain,
    /// Stop now; what is not committed is done again next time.
    Now,
}
