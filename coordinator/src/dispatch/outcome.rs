//! The consequences of the end of an attempt, and of the job.

use baton_job::{
    AfterFailure, Failure, Lease, MAX_TIERS, ReuseCounts, Role, ShardIndex, TermCounts, TierSums, Totals,
    WarningCounts, Work,
};
use baton_proto::wire::ShardReceipt;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{AttemptEnd, Dispatcher};
use crate::attempt::AttemptFailure;
use crate::final_report::RunFigures;
use crate::manifest::end_job;
use crate::progress::DraftTotals;
use crate::reader::EndOfInput;
use crate::tiers::OpenShard;
use crate::{CoordinatorError, JobOutcome, JobReport};

/// A job fails for its share of errors only after this many records, because the first shards may be unlucky.
const MIN_RECORDS_FOR_ERROR_RATE: u64 = 1000;

impl Dispatcher<'_> {
    pub(super) fn expire_leases(&mut self) -> Result<(), CoordinatorError> {
        for expired in self.scheduler.expire(self.now()) {
            let Lease { shard, attempt } = expired.lease;
            tracing::warn!(%shard, attempt, "no progress within the lease, cancelling the attempt");
            self.watch.metrics.lease_expiries.inc();
            let reason = "it made no progress within its lease".to_owned();
            if let Some(running) = self.running.remove(&expired.lease) {
                running.task.abort();
                for worker in [running.pair.encoder, running.pair.decoder] {
                    self.last_failures.insert(worker, reason.clone());
                }
            }
            if expired.after == AfterFailure::GivenUp {
                return Err(CoordinatorError::ShardFailed { shard, attempt, reason });
            }
        }
        Ok(())
    }

    /// Takes in the end of an attempt's task.
    pub(super) fn absorb_ended(
        &mut self,
        ended: Result<AttemptEnd, JoinError>,
    ) -> Result<(), CoordinatorError> {
        match ended {
            Ok((lease, result)) => self.absorb_result(lease, result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_aborted) => Ok(()), // its lease had expired, or another attempt has committed
        }
    }

    fn absorb_result(
        &mut self,
        lease: Lease,
        result: Result<ShardReceipt, AttemptFailure>,
    ) -> Result<(), CoordinatorError> {
        let Some(running) = self.running.remove(&lease) else {
            // The attempt ended while it was being cancelled. Only a commit would still matter, and another
            // attempt will find it.
            return Ok(());
        };
        if let Some(time) = self.tier_time.get_mut(running.tier as usize) {
            *time += running.began.elapsed();
        }
        if let Ok(ShardReceipt { drafts: Some(drafts), .. }) = &result {
            self.drafts += DraftTotals {
                drafted_tokens: drafts.drafted_tokens,
                accepted_tokens: drafts.accepted_tokens,
                llm_passes: drafts.llm_passes,
            };
        }
        match result.and_then(|receipt| Ok((self.next_tier(lease.shard, &receipt)?, receipt))) {
            Ok(_) if matches!(running.work, Work::Probe { .. }) => {
                self.scheduler.probe_passed(lease);
                Ok(())
            }
            Ok((None, receipt)) => self.absorb_commit(lease, &receipt),
            Ok((Some(next), receipt)) => {
                self.absorb_tier(lease, next, &receipt);
                Ok(())
            }
            Err(AttemptFailure { failure, reason }) => {
                let worker = match failure {
                    Failure::Busy(role)
                    | Failure::Unreached(role)
                    | Failure::Refused(role)
                    | Failure::Broke(role) => {
                        Some(if role == Role::Encoder { running.pair.encoder } else { running.pair.decoder })
                    }
                    Failure::Rejected | Failure::Store | Failure::Hopeless => None,
                };
                if let Some(worker) = worker {
                    self.last_failures.insert(worker, reason.clone());
                }
                let after = self.scheduler.failed(lease, failure, self.now());
                let Lease { shard, attempt } = lease;
                match after {
                    AfterFailure::GivenUp => {
                        return Err(CoordinatorError::ShardFailed { shard, attempt, reason });
                    }
                    AfterFailure::PlacedAgain | AfterFailure::Stale => {
                        tracing::debug!(%shard, attempt, reason, "placed elsewhere");
                    }
                    AfterFailure::Search => {
                        tracing::warn!(%shard, attempt, reason, "attempt failed, searching its record");
                    }
                    AfterFailure::Retry { .. } | AfterFailure::OtherAttempt => {
                        tracing::warn!(%shard, attempt, reason, "attempt failed, trying again");
                    }
                }
                Ok(())
            }
        }
    }

    /// The shard at the next tier, if the receipt says that some of its records go on.
    fn next_tier(
        &self,
        shard: ShardIndex,
        receipt: &ShardReceipt,
    ) -> Result<Option<OpenShard>, AttemptFailure> {
        let Some(escalation) = &receipt.escalation else { return Ok(None) };
        let next = self.open_shards.get(&shard).and_then(|open| open.escalated(&escalation.positions));
        let broken = || AttemptFailure {
            failure: Failure::Broke(Role::Decoder),
            reason: "the receipt names records that the tier did not have".to_owned(),
        };
        next.ok_or_else(broken).map(Some)
    }

    /// Takes a shard to its next tier.
    fn absorb_tier(&mut self, lease: Lease, next: OpenShard, receipt: &ShardReceipt) {
        let (num_prompts, num_bytes) = (next.num_prompts(), next.num_bytes());
        let Some(losers) = self.scheduler.tier_done(lease, num_prompts, num_bytes, self.now()) else {
            return;
        };
        self.cancel(losers);
        let Lease { shard, attempt } = lease;
        tracing::debug!(%shard, attempt, num_prompts, "goes on to its next tier");
        self.open_shards.insert(lease.shard, next);
        self.reuse += receipt.reuse.map(ReuseCounts::from).unwrap_or_default();
        self.moved_at = Instant::now();
    }

    fn cancel(&mut self, leases: Vec<Lease>) {
        for lease in leases {
            if let Some(running) = self.running.remove(&lease) {
                running.task.abort();
            }
        }
    }

    fn absorb_commit(&mut self, lease: Lease, receipt: &ShardReceipt) -> Result<(), CoordinatorError> {
        let Lease { shard, attempt } = lease;
        self.open_shards.remove(&shard);
        let settled = self.scheduler.committed(lease, self.now());
        self.cancel(settled.losers);
        self.moved_at = Instant::now();
        if settled.is_first {
            self.reuse += receipt.reuse.map(ReuseCounts::from).unwrap_or_default();
            add_receipt(&mut self.totals, receipt);
            let (records, errors) = (u64::from(receipt.records), u64::from(receipt.failed_records));
            self.watch.metrics.records.of("output").inc_by(records - errors);
            self.watch.metrics.records.of("error").inc_by(errors);
            tracing::debug!(%shard, attempt, records, errors, "committed");
        }
        self.check_error_rate(MIN_RECORDS_FOR_ERROR_RATE)
    }

    /// If nothing moves, another coordinator may have done the work, and its workers may be gone.
    /// Coordinators that finish shards of each other also search regularly while they work.
    pub(super) async fn search_commits_of_others(&mut self) -> Result<(), CoordinatorError> {
        let is_waiting = self.running.is_empty() && self.scheduler.num_open() > 0;
        let is_stuck = is_waiting && self.moved_at.elapsed() >= self.options.search_others_after;
        let others_help = !self.job.partition.is_whole()
            && self.options.take_over_after.is_some_and(|patience| self.searched_at.elapsed() >= patience);
        if !is_stuck && !others_help {
            return Ok(());
        }
        let now = Instant::now();
        (self.moved_at, self.searched_at) = (now, now);
        match self.adopt_commits_of_others().await {
            Err(CoordinatorError::Store(error)) if error.is_retryable() => {
                tracing::debug!(%error, "cannot look for commits of other coordinators, trying again later");
                Ok(())
            }
            adopted => adopted,
        }
    }

    async fn adopt_commits_of_others(&mut self) -> Result<(), CoordinatorError> {
        let committed = self.job.list_parts().await?;
        let of_others = committed.iter().filter(|&shard| self.share.has(shard));
        let of_others: Vec<ShardIndex> =
            of_others.filter(|&shard| !self.scheduler.is_committed(shard)).collect();
        if of_others.is_empty() {
            return Ok(());
        }
        self.totals = self.job.add_verdicts(self.totals.clone(), of_others.iter().copied()).await?;
        for &shard in &of_others {
            self.open_shards.remove(&shard);
            self.scheduler.committed_elsewhere(shard);
        }
        tracing::warn!(shards = of_others.len(), "another coordinator has committed shards of this share");
        Ok(())
    }

    fn check_error_rate(&self, min_records: u64) -> Result<(), CoordinatorError> {
        let (errors, records, max_error_rate) =
            (self.totals.errors, self.totals.records, self.job.spec.max_error_rate);
        if records >= min_records && self.totals.error_rate() > max_error_rate {
            return Err(CoordinatorError::TooManyErrors { errors, records, max_error_rate });
        }
        Ok(())
    }

    /// Ends this coordinator's share of the job: with the manifest, unless inputs are broken.
    pub(super) async fn finish(mut self, end: EndOfInput) -> Result<JobReport, CoordinatorError> {
        let EndOfInput { num_shards, num_records, broken, num_unread, .. } = end;
        // For the status page.
        self.end_of_input = Some(EndOfInput { num_shards, num_records, ..EndOfInput::default() });
        if broken.is_empty() {
            self.check_error_rate(0)?;
            let job_has_ended = self.end_job(num_shards).await?;
            self.publish_now();
            let report = self.report();
            return Ok(JobReport { job_has_ended, num_shards, ..report });
        }
        self.publish_now();
        Ok(JobReport {
            outcome: JobOutcome::InputsBroken,
            broken,
            num_unread_inputs: num_unread,
            ..self.report()
        })
    }

    /// Ends the job, with the same patience for the store as workers at a commit.
    async fn end_job(&self, num_shards: u32) -> Result<bool, CoordinatorError> {
        let policy = &self.options.policy;
        let run = RunFigures::new(self.now(), &self.progress(), &self.history, self.options.prices);
        let run = run.with_reuse(self.reuse).with_tiers(&self.tier_time);
        for attempt in 1.. {
            match end_job(self.job, num_shards, &run).await {
                Err(CoordinatorError::Store(error))
                    if error.is_retryable() && attempt < policy.max_store_attempts =>
                {
                    let pause = policy.retry.pause(attempt, policy.jitter_seed);
                    tracing::warn!(%error, ?pause, "cannot end the job, trying again");
                    tokio::time::sleep(pause).await;
                }
                ended => return ended,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Dropping the attempts cancels them.
    pub(super) fn interrupted(&self) -> JobReport {
        JobReport { outcome: JobOutcome::Interrupted, ..self.report() }
    }

    /// The results of this run so far.
    fn report(&self) -> JobReport {
        let report = JobReport::complete(self.totals.clone(), self.resumed.clone(), self.now());
        JobReport { drafts: self.drafts, reuse: self.reuse, ..report }
    }
}

/// The receipt was checked; but its sums come from a worker, so they may have any value.
fn add_receipt(totals: &mut Totals, receipt: &ShardReceipt) {
    let (records, errors) = (u64::from(receipt.records), u64::from(receipt.failed_records));
    totals.shards += 1;
    totals.records += records;
    totals.outputs += records - errors;
    totals.errors += errors;
    totals.prompt_tokens = totals.prompt_tokens.saturating_add(receipt.prompt_tokens);
    totals.llm_prompt_tokens = totals.llm_prompt_tokens.saturating_add(receipt.llm_prompt_tokens);
    totals.output_tokens = totals.output_tokens.saturating_add(receipt.output_tokens);
    totals.output_bytes = totals.output_bytes.saturating_add(receipt.part_num_bytes);
    let warnings = receipt.warnings.iter().map(|(name, &count)| (name.clone(), count));
    totals.warnings.add(&WarningCounts::of(warnings));
    let tiers: Vec<TierSums> = receipt.tiers.iter().take(MAX_TIERS).map(TierSums::from).collect();
    totals.tiers.add(&tiers);
    if let Some(terms) = &receipt.terms {
        let missed = terms.missed_by_term.iter().map(|(term, &count)| (term.clone(), count));
        totals.terms.add(&TermCounts::of(terms.occurrences, terms.missed, missed));
    }
}
