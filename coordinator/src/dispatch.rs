//! Runs a prepared job: takes shards from the reader, leases them to workers, and watches over the leases.
//!
//! `ShardScheduler` makes all decisions. This file is one loop around it, which waits for the next event: a
//! shard, a worker's event, the end of an attempt, a change among the workers, a deadline, or the request to
//! stop.

mod options;
mod outcome;
mod report;
mod take_over;

use std::collections::HashMap;
use std::time::Duration;

use baton_job::{
    Assignment, Lease, Pair, ReuseCounts, Role, Shard, ShardIndex, ShardScheduler, Totals, Work, WorkerId,
};
use baton_proto::ShardAttempt;
use baton_proto::wire::{ShardProgress, ShardReceipt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::attempt::{AttemptFailure, AttemptRequest, entries_for, run_attempt};
use crate::history::RunHistory;
use crate::progress::{DraftTotals, RateMeter};
use crate::reader::{CorpusReader, EndOfInput, ReadItem};
use crate::share::Share;
use crate::tiers::{OpenShard, TiersDone};
use crate::{Cluster, CoordinatorError, JobReport, JobStatus, PreparedJob};
pub use options::{JobWatch, RunOptions, Shutdown};

/// Shards held beyond those in flight, so that a worker that becomes free gets its next one at once.
const SHARDS_WAITING: usize = 2;

/// Progress events that wait for the loop; they are totals, so few suffice.
const PROGRESS_QUEUE: usize = 64;

/// The interval of checking the state while nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);

impl PreparedJob {
    /// Runs the job until every shard of its partition is committed, or until it is asked to stop. With
    /// `take_over_after`, it then finishes the shards of silent partitions, until the whole job has ended.
    /// Dropping the future stops it at once; that is safe.
    ///
    /// # Errors
    /// The job failed; committed shards stay.
    pub async fn run(
        &self,
        cluster: Cluster,
        options: &RunOptions,
        watch: &JobWatch,
        shutdown: watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        if let Some(report) = self.finished_report().await? {
            return Ok(report);
        }
        self.begin().await?;
        let own = Share::Own(self.partition);
        let report = self.run_share(own, cluster.clone(), options, watch, shutdown.clone()).await?;
        match options.take_over_after {
            Some(patience) if report.is_complete() && !report.job_has_ended => {
                self.finish_others(report, patience, &cluster, options, watch, &shutdown).await
            }
            _ => Ok(report),
        }
    }

    /// Runs the job until every shard of `share` is committed, or it is asked to stop.
    async fn run_share(
        &self,
        share: Share,
        mut cluster: Cluster,
        options: &RunOptions,
        watch: &JobWatch,
        shutdown: watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        let started = Instant::now();
        let committed = self.committed(&share).await?;
        let reader = CorpusReader::start(self, share.clone(), &committed)?;
        let mut scheduler = ShardScheduler::new(options.policy.clone(), committed.shards.clone());
        scheduler.set_workers(Role::Encoder, &cluster.encoders.borrow_and_update(), Duration::ZERO);
        scheduler.set_workers(Role::Decoder, &cluster.decoders.borrow_and_update(), Duration::ZERO);
        let (events, progress_events) = mpsc::channel(PROGRESS_QUEUE);
        let dispatcher = Dispatcher {
            job: self,
            share,
            options,
            watch,
            cluster,
            scheduler,
            reader,
            found_at_start: committed.shards,
            tiers_done: committed.tiers_done,
            open_shards: HashMap::new(),
            attempts: JoinSet::new(),
            running: HashMap::new(),
            last_failures: HashMap::new(),
            totals: committed.totals.clone(),
            resumed: committed.totals,
            drafts: DraftTotals::default(),
            reuse: ReuseCounts::default(),
            end_of_input: None,
            rate_meter: RateMeter::default(),
            history: RunHistory::default(),
            tier_time: vec![Duration::ZERO; self.spec.tiers.len()],
            published_at: None,
            obstacle: None,
            started,
            drain_deadline: None,
            moved_at: started,
            searched_at: started,
            looked_at: Duration::ZERO,
            events,
        };
        dispatcher.run(progress_events, shutdown).await
    }
}

/// The end of an attempt's task.
type AttemptEnd = (Lease, Result<ShardReceipt, AttemptFailure>);

struct Dispatcher<'job> {
    job: &'job PreparedJob,
    share: Share,
    options: &'job RunOptions,
    watch: &'job JobWatch,
    cluster: Cluster,
    scheduler: ShardScheduler,
    reader: CorpusReader,
    /// Shards that all partitions had committed when this run began: the input must have them.
    found_at_start: baton_job::ShardSet,
    /// The tiers that earlier runs have done of shards that are not committed.
    tiers_done: TiersDone,
    open_shards: HashMap<ShardIndex, OpenShard>,
    attempts: JoinSet<AttemptEnd>,
    running: HashMap<Lease, RunningAttempt>,
    /// The last failure of each worker.
    last_failures: HashMap<WorkerId, String>,
    totals: Totals,
    resumed: Totals,
    drafts: DraftTotals,
    reuse: ReuseCounts,
    end_of_input: Option<EndOfInput>,
    rate_meter: RateMeter,
    history: RunHistory,
    /// The time of all leases that have ended, by tier; empty without a cascade.
    tier_time: Vec<Duration>,
    published_at: Option<Duration>,
    obstacle: Option<String>,
    started: Instant,
    drain_deadline: Option<Instant>,
    /// The time of the last commit, or of the last search for others' commits.
    moved_at: Instant,
    /// The time of the last search for others' commits.
    searched_at: Instant,
    /// When the loop last looked at its leases, on the scheduler's clock.
    looked_at: Duration,
    events: mpsc::Sender<(Lease, ShardProgress)>,
}

struct RunningAttempt {
    pair: Pair,
    tier: u32,
    began: Instant,
    work: Work,
    task: AbortHandle,
    progress: ShardProgress,
}

impl Dispatcher<'_> {
    async fn run(
        mut self,
        mut progress_events: mpsc::Receiver<(Lease, ShardProgress)>,
        mut shutdown: watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        if *shutdown.borrow_and_update() != Shutdown::No {
            return Ok(self.interrupted()); // asked to stop while models were loading
        }
        loop {
            // Earlier reports are taken in before a lease is judged to be late.
            while let Ok((lease, totals)) = progress_events.try_recv() {
                self.absorb_progress(lease, totals);
            }
            while let Some(ended) = self.attempts.try_join_next() {
                self.absorb_ended(ended)?;
            }
            self.forgive_pause();
            self.expire_leases()?;
            if self.drain_deadline.is_none() {
                self.lease_shards()?;
                self.search_commits_of_others().await?;
            }
            self.publish();
            if self.scheduler.num_open() == 0
                && let Some(end) = self.end_of_input.take()
            {
                return self.finish(end).await;
            }
            if self.drain_deadline.is_some() && self.running.is_empty() {
                return Ok(self.interrupted());
            }
            let wants_shard = self.drain_deadline.is_none()
                && self.end_of_input.is_none()
                && self.scheduler.num_open() < self.scheduler.max_in_flight() + SHARDS_WAITING;
            let wakeup = self.wakeup();
            tokio::select! {
                item = self.reader.next(), if wants_shard => match item.transpose()? {
                    Some(ReadItem::Shard(shard)) => self.take_shard(shard).await?,
                    Some(ReadItem::End(end)) => self.take_end(end)?,
                    None => unreachable!("the reader ends with an end or an error"),
                },
                Some((lease, totals)) = progress_events.recv() => self.absorb_progress(lease, totals),
                Some(ended) = self.attempts.join_next() => self.absorb_ended(ended)?,
                Ok(()) = self.cluster.encoders.changed() => self.update_workers(Role::Encoder),
                Ok(()) = self.cluster.decoders.changed() => self.update_workers(Role::Decoder),
                () = sleep_until(wakeup) => {}
                () = sleep_until(self.drain_deadline.unwrap_or(wakeup)), if self.drain_deadline.is_some() => {
                    let shards = self.running.len();
                    tracing::warn!(shards, "the grace period is over, giving up shards in flight");
                    return Ok(self.interrupted());
                }
                Ok(()) = shutdown.changed() => match *shutdown.borrow_and_update() {
                    Shutdown::No => {}
                    Shutdown::Drain => {
                        let deadline = Instant::now() + self.options.grace_period;
                        self.drain_deadline.get_or_insert(deadline);
                    }
                    Shutdown::Now => return Ok(self.interrupted()),
                },
            }
        }
    }

    /// The scheduler's clock.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wakeup(&self) -> Instant {
        let now = self.now();
        let next = self.scheduler.next_wakeup(now).unwrap_or(now + IDLE_TICK);
        self.started + next.min(now + IDLE_TICK)
    }

    /// The loop checks its leases once a tick. If it comes later, this process was stopped, or waited for the
    /// store, and received no progress. The time beyond a tick therefore does not count against a lease.
    fn forgive_pause(&mut self) {
        let now = self.now();
        let pause = (now - self.looked_at).saturating_sub(IDLE_TICK);
        self.looked_at = now;
        if !pause.is_zero() {
            self.scheduler.forgive(pause);
        }
    }

    fn update_workers(&mut self, role: Role) {
        let endpoints = match role {
            Role::Encoder => self.cluster.encoders.borrow_and_update().clone(),
            Role::Decoder => self.cluster.decoders.borrow_and_update().clone(),
        };
        tracing::info!(?role, count = endpoints.len(), "workers changed");
        self.scheduler.set_workers(role, &endpoints, self.now());
        let known: Vec<WorkerId> = self.scheduler.workers(self.now()).map(|worker| worker.id).collect();
        self.last_failures.retain(|worker, _| known.contains(worker));
    }

    fn lease_shards(&mut self) -> Result<(), CoordinatorError> {
        while let Some(assignment) = self.scheduler.next(self.now()) {
            self.start_attempt(assignment)?;
        }
        Ok(())
    }

    fn start_attempt(&mut self, assignment: Assignment) -> Result<(), CoordinatorError> {
        let Assignment { lease, pair, tier, work } = assignment;
        let open = self.open_shards.get(&lease.shard).expect("an offered shard is held until committed");
        let shard = entries_for(&work, &open.shard);
        let [encoder_endpoint, decoder_endpoint] =
            [pair.encoder, pair.decoder].map(|worker| self.scheduler.endpoint(worker).to_owned());
        let span = tracing::info_span!(
            parent: None,
            "shard",
            job = self.job.id(),
            shard = %lease.shard,
            attempt = lease.attempt,
            trace_id = tracing::field::Empty
        );
        let trace = self.job.trace.place.continue_with(&span);
        span.in_scope(|| {
            tracing::debug!(encoder = encoder_endpoint, decoder = decoder_endpoint, tier, ?work, "leased");
        });
        let request = AttemptRequest {
            encoder: self.cluster.connections.to(&encoder_endpoint)?,
            decoder_endpoint,
            attempt: self.attempt((lease, &work), open, &shard),
            shard,
            num_records: open.num_entries,
            trace,
        };
        let events = self.events.clone();
        let attempt = async move { (lease, run_attempt(request, events).await) };
        let task = self.attempts.spawn(attempt.instrument(span));
        self.watch.metrics.leases.inc();
        let (began, progress) = (Instant::now(), ShardProgress::default());
        self.running.insert(lease, RunningAttempt { pair, tier, began, work, task, progress });
        Ok(())
    }

    /// An attempt under a lease, with these of the shard's entries.
    fn attempt(&self, (lease, work): (Lease, &Work), open: &OpenShard, shard: &Shard) -> ShardAttempt {
        let spec = &self.job.spec;
        let tier = spec.tiers.get(open.tier as usize);
        let (mode, generation) =
            tier.map_or((spec.mode, &spec.generation), |tier| (tier.mode, &tier.generation));
        ShardAttempt {
            job_id: self.job.id(),
            lease,
            num_entries: u32::try_from(shard.entries.len()).expect("shard.records_per_shard is a u32"),
            bundle_digest: self.job.record.bundle_digest.clone(),
            output_location: spec.output.clone(),
            cache_location: spec.cache.clone(),
            mode,
            task: spec.task.clone(),
            generation: generation.clone(),
            parts: self.job.parts.clone(),
            first_entry: shard.first_entry,
            is_probe: matches!(work, Work::Probe { .. }),
            tier: open.tier_attempt(&spec.tiers, work),
        }
    }

    async fn take_shard(&mut self, shard: Shard) -> Result<(), CoordinatorError> {
        let num_done = self.tiers_done.remove(&shard.index).unwrap_or_default();
        let open = self.job.open_shard(shard, num_done).await?;
        let index = open.shard.index;
        if self.scheduler.offer_from(open.tier, index, open.num_prompts(), open.num_bytes()) {
            self.open_shards.insert(index, open);
        }
        Ok(())
    }

    fn take_end(&mut self, end: EndOfInput) -> Result<(), CoordinatorError> {
        self.scheduler.end_input();
        // If inputs were left unread, others may have found more shards.
        let (has_stopped, num_shards) = (end.has_stopped, end.num_shards);
        self.end_of_input = Some(end);
        if !has_stopped { self.job.check_no_stray_part(&self.found_at_start, num_shards) } else { Ok(()) }
    }

    fn absorb_progress(&mut self, lease: Lease, totals: ShardProgress) {
        let now = self.now();
        if let Some(running) = self.running.get_mut(&lease) {
            running.progress = totals;
            self.scheduler.progress(lease, totals.encoded_records, totals.decoded_records, now);
        }
    }
}
