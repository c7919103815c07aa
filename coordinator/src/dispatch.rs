//! Runs a prepared job: takes shards from the reader, leases them to workers, and watches over the leases.
//!
//! All decisions are `LeaseTable`'s; this is one loop around it that waits for whatever comes first: a shard, a worker's event, the
//! end of an attempt, a deadline, or the wish to stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use baton_job::layout::part_key;
use baton_job::{AfterFailure, Lease, LeasePolicy, LeaseTable, Shard, ShardIndex, Totals};
use baton_proto::wire::{ShardProgress, ShardReceipt};
use baton_proto::{Connections, ShardAttempt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::attempt::{AttemptFailure, AttemptRequest, run_attempt};
use crate::manifest::write_manifest;
use crate::reader::CorpusReader;
use crate::{CoordinatorError, JobOutcome, JobReport, PreparedJob, Progress};

/// Shards held beyond those in flight, so that a worker that becomes free has its next one at once.
const SHARDS_WAITING: usize = 2;

/// Progress events that wait for the loop; they are totals, so few suffice.
const PROGRESS_QUEUE: usize = 64;

/// How often leases are looked after while all workers are busy and nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// Before so many records are done, a job is not failed for its share of errors: the first shards may be unlucky.
const MIN_RECORDS_FOR_ERROR_RATE: u64 = 1000;

/// An encoder and the decoder it streams to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerPair {
    /// `http://host:port` or `unix:/path`, as the coordinator reaches it.
    pub encoder_endpoint: String,
    /// The same, as the encoder reaches it.
    pub decoder_endpoint: String,
}

/// How a job is run. None of it changes an output byte.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Shards processed at once by one worker pair. Two keep encoder and decoder both busy; more also hide the commit and fill the
    /// decode batch at shard ends. Each is held in memory by all three roles.
    pub max_shards_in_flight_per_worker: usize,
    /// How long leases last and how failures are retried.
    pub lease_policy: LeasePolicy,
    /// How long shards in flight may take to finish once the job is asked to stop.
    pub grace_period: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            max_shards_in_flight_per_worker: 4,
            lease_policy: LeasePolicy::default(),
            grace_period: Duration::from_secs(30),
        }
    }
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

impl PreparedJob {
    /// Runs the job until every shard is committed, or it is asked to stop. Dropping the future stops it at once; that is safe.
    ///
    /// # Errors
    /// The job failed; what is committed stays.
    pub async fn run(
        &self,
        workers: &[WorkerPair],
        options: &RunOptions,
        progress: &watch::Sender<Progress>,
        shutdown: watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        if let Some(report) = self.finished_report().await? {
            return Ok(report);
        }
        self.begin().await?;
        let started = Instant::now();
        let mut table = LeaseTable::new(options.lease_policy.clone());
        let committed = self.committed().await?;
        for shard in &committed.shards {
            table.committed(*shard);
        }
        let (events, progress_events) = mpsc::channel(PROGRESS_QUEUE);
        let dispatcher = Dispatcher {
            job: self,
            options,
            workers: connect(workers)?,
            table,
            open_shards: HashMap::new(),
            attempts: JoinSet::new(),
            running: HashMap::new(),
            totals: committed.totals,
            resumed: committed.totals,
            last_committed: committed.shards.last().copied(),
            read: ReadState::default(),
            started,
            events,
        };
        dispatcher.run(progress_events, progress, shutdown).await
    }
}

struct Dispatcher<'job> {
    job: &'job PreparedJob,
    options: &'job RunOptions,
    workers: Vec<Worker>,
    table: LeaseTable,
    open_shards: HashMap<ShardIndex, Arc<Shard>>,
    attempts: JoinSet<(Lease, Result<ShardReceipt, AttemptFailure>)>,
    running: HashMap<Lease, RunningAttempt>,
    totals: Totals,
    resumed: Totals,
    /// The last shard that an earlier run committed: the input must reach it.
    last_committed: Option<ShardIndex>,
    read: ReadState,
    started: Instant,
    events: mpsc::Sender<(Lease, ShardProgress)>,
}

struct Worker {
    encoder: tonic::transport::Channel,
    decoder_endpoint: String,
}

struct RunningAttempt {
    worker: usize,
    task: AbortHandle,
    progress: ShardProgress,
}

#[derive(Debug, Clone, Copy, Default)]
struct ReadState {
    shards: u32,
    records: u64,
    is_finished: bool,
}

impl Dispatcher<'_> {
    async fn run(
        mut self,
        mut progress_events: mpsc::Receiver<(Lease, ShardProgress)>,
        progress: &watch::Sender<Progress>,
        mut shutdown: watch::Receiver<Shutdown>,
    ) -> Result<JobReport, CoordinatorError> {
        let mut reader = CorpusReader::start(&self.job.spec, self.job.inputs.clone())?;
        let mut drain_deadline: Option<Instant> = None;
        if *shutdown.borrow_and_update() != Shutdown::No {
            return Ok(self.interrupted()); // asked to stop while models were loading
        }
        loop {
            self.expire_leases()?;
            if drain_deadline.is_none() {
                self.lease_shards();
            }
            progress.send_replace(self.progress(&reader));
            if self.read.is_finished && self.open_shards.is_empty() {
                return self.finish().await;
            }
            if drain_deadline.is_some() && self.running.is_empty() {
                return Ok(self.interrupted());
            }
            let wants_shard = drain_deadline.is_none()
                && !self.read.is_finished
                && self.open_shards.len() < self.max_in_flight() + SHARDS_WAITING;
            let wakeup = self.wakeup();
            tokio::select! {
                shard = reader.next(), if wants_shard => match shard.transpose()? {
                    Some(shard) => self.take_shard(shard),
                    None => self.end_of_input()?,
                },
                Some((lease, totals)) = progress_events.recv() => self.absorb_progress(lease, totals),
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok((lease, result)) => self.absorb_result(lease, result)?,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_aborted) => {} // its lease had expired
                },
                () = sleep_until(wakeup) => {}
                () = sleep_until(drain_deadline.unwrap_or_else(Instant::now)), if drain_deadline.is_some() => {
                    tracing::warn!(shards = self.running.len(), "the grace period is over, giving up shards in flight");
                    return Ok(self.interrupted());
                }
                Ok(()) = shutdown.changed() => match *shutdown.borrow_and_update() {
                    Shutdown::No => {}
                    Shutdown::Drain => drain_deadline = Some(Instant::now() + self.options.grace_period),
                    Shutdown::Now => return Ok(self.interrupted()),
                },
            }
        }
    }

    /// The lease table's clock.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn max_in_flight(&self) -> usize {
        self.workers.len() * self.options.max_shards_in_flight_per_worker
    }

    /// When leases need looking after. A shard that is ready now waits for a free worker, which announces itself.
    fn wakeup(&self) -> Instant {
        let now = self.now();
        let next = self.table.next_wakeup().filter(|&next| next > now).unwrap_or(now + IDLE_TICK);
        self.started + next
    }

    fn expire_leases(&mut self) -> Result<(), CoordinatorError> {
        for expired in self.table.expire(self.now()) {
            let Lease { shard, attempt } = expired.lease;
            tracing::warn!(%shard, attempt, "no progress within the lease, cancelling the attempt");
            if let Some(running) = self.running.remove(&expired.lease) {
                running.task.abort();
            }
            if expired.after == AfterFailure::Exhausted {
                let reason = "it made no progress within its lease".to_owned();
                return Err(CoordinatorError::ShardFailed { shard, attempt, reason });
            }
        }
        Ok(())
    }

    fn lease_shards(&mut self) {
        while self.running.len() < self.max_in_flight()
            && let Some(lease) = self.table.next_lease(self.now())
        {
            let shard = Arc::clone(
                self.open_shards.get(&lease.shard).expect("an offered shard is held until committed"),
            );
            let worker = self.least_busy_worker();
            let request = AttemptRequest {
                encoder: self.workers[worker].encoder.clone(),
                decoder_endpoint: self.workers[worker].decoder_endpoint.clone(),
                attempt: self.attempt(lease, shard.entries.len()),
                shard,
            };
            let events = self.events.clone();
            let task = self.attempts.spawn(async move { (lease, run_attempt(request, events).await) });
            tracing::debug!(shard = %lease.shard, attempt = lease.attempt, worker, "leased");
            self.running.insert(lease, RunningAttempt { worker, task, progress: ShardProgress::default() });
        }
    }

    fn attempt(&self, lease: Lease, num_entries: usize) -> ShardAttempt {
        let spec = &self.job.spec;
        ShardAttempt {
            job_id: self.job.id(),
            lease,
            num_entries: u32::try_from(num_entries).expect("shard.max_records is a u32"),
            bundle_digest: self.job.record.bundle_digest.clone(),
            output_location: spec.output.clone(),
            mode: spec.mode,
            task: spec.task.clone(),
            generation: spec.generation.clone(),
        }
    }

    fn least_busy_worker(&self) -> usize {
        let load = |worker: &usize| self.running.values().filter(|attempt| attempt.worker == *worker).count();
        (0..self.workers.len()).min_by_key(load).expect("a job has at least one worker")
    }

    fn take_shard(&mut self, shard: Shard) {
        self.read.shards += 1;
        self.read.records += shard.entries.len() as u64;
        if self.table.offer(shard.index) {
            self.open_shards.insert(shard.index, Arc::new(shard));
        }
    }

    fn end_of_input(&mut self) -> Result<(), CoordinatorError> {
        self.read.is_finished = true;
        let num_shards = self.read.shards;
        match self.last_committed {
            Some(shard) if shard.0 >= num_shards => {
                Err(CoordinatorError::StrayPart { key: part_key(shard), num_shards: num_shards.into() })
            }
            _ => Ok(()),
        }
    }

    fn absorb_progress(&mut self, lease: Lease, totals: ShardProgress) {
        if let Some(running) = self.running.get_mut(&lease) {
            running.progress = totals;
            self.table.progress(lease, self.started.elapsed());
        }
    }

    fn absorb_result(
        &mut self,
        lease: Lease,
        result: Result<ShardReceipt, AttemptFailure>,
    ) -> Result<(), CoordinatorError> {
        self.running.remove(&lease);
        let Lease { shard, attempt } = lease;
        match result {
            Ok(receipt) => {
                self.open_shards.remove(&shard);
                if self.table.committed(shard) {
                    add_receipt(&mut self.totals, &receipt);
                    tracing::debug!(%shard, attempt, receipt.records, receipt.failed_records, "committed");
                }
                self.check_error_rate(MIN_RECORDS_FOR_ERROR_RATE)
            }
            Err(AttemptFailure { reason, is_retryable }) => {
                match self.table.failed(lease, self.started.elapsed(), is_retryable) {
                    AfterFailure::Exhausted => Err(CoordinatorError::ShardFailed { shard, attempt, reason }),
                    AfterFailure::Retry { .. } => {
                        tracing::warn!(%shard, attempt, reason, "attempt failed, trying again");
                        Ok(())
                    }
                    AfterFailure::Stale => Ok(()),
                }
            }
        }
    }

    fn check_error_rate(&self, min_records: u64) -> Result<(), CoordinatorError> {
        let (errors, records, max_error_rate) =
            (self.totals.errors, self.totals.records, self.job.spec.max_error_rate);
        if records >= min_records && self.totals.error_rate() > max_error_rate {
            return Err(CoordinatorError::TooManyErrors { errors, records, max_error_rate });
        }
        Ok(())
    }

    async fn finish(self) -> Result<JobReport, CoordinatorError> {
        self.check_error_rate(0)?;
        let totals = write_manifest(self.job, self.read.shards, self.started.elapsed()).await?;
        Ok(JobReport::complete(totals, self.resumed, self.started.elapsed()))
    }

    /// Dropping the attempts cancels them.
    fn interrupted(&self) -> JobReport {
        JobReport {
            outcome: JobOutcome::Interrupted,
            totals: self.totals,
            resumed: self.resumed,
            elapsed: self.started.elapsed(),
            was_complete: false,
        }
    }

    fn progress(&self, reader: &CorpusReader) -> Progress {
        let in_flight = self.running.values().map(|running| &running.progress);
        let sample = reader.sample();
        Progress {
            committed: self.totals,
            resumed: self.resumed,
            in_flight_records: in_flight.clone().map(|progress| u64::from(progress.decoded_records)).sum(),
            in_flight_output_tokens: in_flight.map(|progress| progress.decoded_output_tokens).sum(),
            read_records: if self.read.is_finished { self.read.records } else { sample.records },
            read_bytes: sample.bytes,
            input_bytes: self.job.inputs.iter().map(|input| input.size).sum(),
            input_is_read: self.read.is_finished,
        }
    }
}

fn connect(workers: &[WorkerPair]) -> Result<Vec<Worker>, CoordinatorError> {
    if workers.is_empty() {
        return Err(CoordinatorError::NoWorkers);
    }
    let connections = Connections::default();
    let connect = |pair: &WorkerPair| {
        let encoder = connections.to(&pair.encoder_endpoint)?;
        Ok(Worker { encoder, decoder_endpoint: pair.decoder_endpoint.clone() })
    };
    workers.iter().map(connect).collect()
}

fn add_receipt(totals: &mut Totals, receipt: &ShardReceipt) {
    let (records, errors) = (u64::from(receipt.records), u64::from(receipt.failed_records));
    totals.shards += 1;
    totals.records += records;
    totals.outputs += records - errors;
    totals.errors += errors;
    totals.prompt_tokens += receipt.prompt_tokens;
    totals.output_tokens += receipt.output_tokens;
    totals.output_bytes += receipt.part_num_bytes;
}
