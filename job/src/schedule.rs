//! Decides which workers process a shard, and when: a plain state machine, events in, decisions out.
//!
//! Time is a [`Duration`] since any fixed moment, passed in by the caller and never going back. Only open
//! shards take memory, and the caller bounds their number by its offers; a committed shard takes a bit.
//!
//! - A shard is placed on the least busy encoder and decoder. A worker that has no room, cannot be reached,
//!   or does not serve the job costs the shard no attempt: the shard is placed elsewhere, or waits.
//! - A lease that shows no progress expires. A worker that fails rests.
//! - After `max_attempts` broken attempts, a shard is searched for the record that breaks them
//!   ([`Work::Probe`]), and then processed without it.
//! - Near the end, a lease that is far older than the typical one is doubled. The first commit wins. Reports
//!   of a superseded attempt are stale and ignored, except that its commit counts.
//! - In a cascade, a shard goes through its tiers in order, each under leases of its own. A worker may refuse
//!   some tiers and serve others.

mod fleet;
mod open_shard;
mod policy;
mod search;
mod stragglers;
mod tiers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{ShardIndex, ShardSet};
use fleet::{Fleet, Wish};
pub use fleet::{Pair, Role, WorkerId, WorkerState, WorkerView};
pub use open_shard::Work;
use open_shard::{ActiveLease, OpenShard, SearchStage};
pub use policy::{Backoff, SchedulePolicy};
use stragglers::RecentDurations;

/// The time-limited right to process a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The shard.
    pub shard: ShardIndex,
    /// Counts the leases of this shard, from 1.
    pub attempt: u32,
}

/// A decision: workers and their work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The lease.
    pub lease: Lease,
    /// The workers.
    pub pair: Pair,
    /// The tier of a cascade that works, from 0; 0 without a cascade.
    pub tier: u32,
    /// The work.
    pub work: Work,
}

/// The kind of an attempt's failure, and the role that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The worker has no room.
    Busy(Role),
    /// The worker could not be reached, or did not accept the shard.
    Unreached(Role),
    /// The worker does not serve this job.
    Refused(Role),
    /// The worker accepted the shard, and then failed or vanished.
    Broke(Role),
    /// The worker does not accept the shard's content. The attempt counts as broken, but the worker is not to
    /// blame.
    Rejected,
    /// The output cannot be written at present.
    Store,
    /// No worker can process this shard.
    Hopeless,
}

/// The consequence of a failed or expired lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// The shard is placed again as soon as a worker has room; no attempt was used up.
    PlacedAgain,
    /// The shard is tried again, not before this moment.
    Retry {
        /// On the caller's clock.
        not_before: Duration,
    },
    /// The shard is being searched for a record that breaks its attempts.
    Search,
    /// Another attempt at the shard is under way.
    OtherAttempt,
    /// The shard cannot be processed, and only a late commit can settle it.
    GivenUp,
    /// The lease was not current: there is no consequence.
    Stale,
}

/// A lease that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The lease.
    pub lease: Lease,
    /// The consequence for its shard; never [`AfterFailure::Stale`].
    pub after: AfterFailure,
}

/// The effect of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// False if the shard was known to be committed.
    pub is_first: bool,
    /// Leases that this ends; their holders should stop.
    pub losers: Vec<Lease>,
}

/// The number of shards in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardCounts {
    /// Waiting for a lease.
    pub waiting: u64,
    /// Being worked on.
    pub in_flight: u64,
    /// Those among both that are being searched for a poisonous record.
    pub searched: u64,
    /// Given up.
    pub given_up: u64,
    /// Done.
    pub committed: u64,
}

/// The state of a job's shards and workers.
#[derive(Debug)]
pub struct ShardScheduler {
    policy: SchedulePolicy,
    fleet: Fleet,
    open: BTreeMap<ShardIndex, OpenShard>,
    committed: ShardSet,
    input_has_ended: bool,
    recent_durations: RecentDurations,
    /// Successful attempts and probes. Of earlier runs only commits are known, and included.
    num_successes: u64,
}

impl ShardScheduler {
    /// A scheduler without workers, for a job with some `committed` shards.
    pub fn new(policy: SchedulePolicy, committed: ShardSet) -> ShardScheduler {
        ShardScheduler {
            policy,
            fleet: Fleet::default(),
            num_successes: committed.len(),
            open: BTreeMap::new(),
            committed,
            input_has_ended: false,
            recent_durations: RecentDurations::default(),
        }
    }

    /// Sets the present workers of a role.
    pub fn set_workers(&mut self, role: Role, endpoints: &[String], now: Duration) {
        self.fleet.set_members(role, endpoints, now);
    }

    /// Adds a shard of `num_prompts` prompts with `num_bytes` of text; returns false if it is known already.
    pub fn offer(&mut self, shard: ShardIndex, num_prompts: u32, num_bytes: u64) -> bool {
        self.offer_from(0, shard, num_prompts, num_bytes)
    }

    /// Announces that no more shards will be offered.
    pub fn end_input(&mut self) {
        self.input_has_ended = true;
    }

    /// Leases a shard that is ready to workers with room, if both exist. Call [`ShardScheduler::expire`]
    /// before.
    pub fn next(&mut self, now: Duration) -> Option<Assignment> {
        let ready = |alone| {
            self.open
                .iter()
                .filter(move |(_, shard)| shard.is_ready(now) && shard.must_be_alone() == alone)
                .map(move |(&index, shard)| {
                    (index, Wish { avoid: shard.avoid, alone, ..Wish::of(shard.tier) })
                })
        };
        let place = |wish| self.fleet.place(wish, now, &self.policy);
        let mut held = None;
        for (shard, wish) in ready(true) {
            if let Some(pair) = place(wish) {
                return Some(self.lease(shard, pair, now));
            }
            // That pair gets nothing new until this shard can have it alone.
            held = self.fleet.soonest_free(wish.tier, now);
        }
        // Shards of a tier wait for the same workers, so only the first of each tier is tried.
        let mut tiers_tried = BTreeSet::new();
        for (shard, wish) in ready(false).filter(|(_, wish)| tiers_tried.insert(wish.tier)) {
            if let Some(pair) = place(Wish { held, ..wish }) {
                return Some(self.lease(shard, pair, now));
            }
        }
        self.double(now)
    }

    /// Extends a lease whose holder showed progress: prompts encoded and decoded since the lease began, both
    /// 0 when the encoder has just accepted the shard. Returns false if the lease is stale and its holder
    /// should stop.
    pub fn progress(&mut self, lease: Lease, num_encoded: u32, num_decoded: u32, now: Duration) -> bool {
        let Some(shard) = self.open.get_mut(&lease.shard) else { return false };
        let tier = shard.tier;
        let Some(active) = shard.active(lease.attempt) else { return false };
        active.deadline = now + self.policy.lease_ttl;
        active.was_taken_on = true;
        let pair = active.pair;
        let (encoded, decoded) = active.advance(num_encoded, num_decoded);
        for (worker, num_bytes) in [(pair.encoder, encoded), (pair.decoder, decoded)] {
            self.fleet.lighten(worker, num_bytes);
            if num_bytes > 0 {
                self.fleet.moved(worker, tier);
            }
        }
        true
    }

    /// Settles a shard, whichever attempt reports it.
    pub fn committed(&mut self, lease: Lease, now: Duration) -> Settled {
        let mut losers = Vec::new();
        if let Some(mut shard) = self.open.remove(&lease.shard) {
            if let Some(active) = shard.take(lease.attempt) {
                self.note_success(&active, shard.tier);
                self.recent_durations.note(shard.tier, now.saturating_sub(active.begun_at));
            }
            for active in shard.leases {
                self.release(&active);
                losers.push(Lease { shard: lease.shard, attempt: active.attempt });
            }
        }
        Settled { is_first: self.committed.insert(lease.shard), losers }
    }

    /// Whether a shard is known to be committed.
    pub fn is_committed(&self, shard: ShardIndex) -> bool {
        self.committed.contains(shard)
    }

    /// Settles a shard that another coordinator has committed. Its current leases continue until their
    /// holders notice.
    pub fn committed_elsewhere(&mut self, shard: ShardIndex) {
        for active in self.open.remove(&shard).into_iter().flat_map(|open| open.leases) {
            self.release(&active);
        }
        self.committed.insert(shard);
    }

    /// Notes that a probe succeeded.
    pub fn probe_passed(&mut self, lease: Lease) {
        let Some(shard) = self.open.get_mut(&lease.shard) else { return };
        let Some(active) = shard.take(lease.attempt) else { return };
        if let SearchStage::Searching(search) = &mut shard.stage {
            search.passed();
        }
        shard.conclude_search_if_over(self.num_successes + 1);
        let tier = shard.tier;
        self.note_success(&active, tier);
    }

    /// Takes back a lease whose holder failed.
    pub fn failed(&mut self, lease: Lease, failure: Failure, now: Duration) -> AfterFailure {
        let Some(shard) = self.open.get_mut(&lease.shard) else { return AfterFailure::Stale };
        let Some(active) = shard.take(lease.attempt) else { return AfterFailure::Stale };
        let tier = shard.tier;
        self.release(&active);
        let worker = |role| match role {
            Role::Encoder => active.pair.encoder,
            Role::Decoder => active.pair.decoder,
        };
        let (fleet, policy) = (&mut self.fleet, &self.policy);
        match failure {
            Failure::Busy(role) => fleet.busy(worker(role), now, policy),
            Failure::Unreached(role) | Failure::Broke(role) => {
                fleet.failed(worker(role), active.begun_at, now, policy);
            }
            Failure::Refused(role) => fleet.refused(worker(role), tier, now, policy),
            Failure::Rejected | Failure::Store | Failure::Hopeless => {}
        }
        let is_refused_by_all =
            matches!(failure, Failure::Refused(role) if self.fleet.all_refuse(role, tier));
        let failure = if is_refused_by_all { Failure::Hopeless } else { failure };
        self.after_failure(lease.shard, active.pair, failure, now)
    }

    /// Extends every lease by `pause`, during which the caller could not hear of progress.
    pub fn forgive(&mut self, pause: Duration) {
        for lease in self.open.values_mut().flat_map(|shard| &mut shard.leases) {
            lease.deadline += pause;
        }
    }

    /// Takes back every lease whose deadline has come.
    pub fn expire(&mut self, now: Duration) -> Vec<Expired> {
        let mut late = Vec::new();
        for (&shard, state) in &self.open {
            let leases = state.leases.iter().filter(|lease| lease.deadline <= now);
            late.extend(leases.map(|lease| Lease { shard, attempt: lease.attempt }));
        }
        let expire = |lease| Expired { lease, after: self.expire_lease(lease, now) };
        late.into_iter().map(expire).collect()
    }

    /// The next moment at which [`ShardScheduler::expire`] or [`ShardScheduler::next`] may act without a
    /// further event.
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        let waiting = self.open.values().filter(|shard| shard.is_waiting()).map(|shard| shard.ready_at);
        let deadlines = self.open.values().flat_map(|shard| &shard.leases).map(|lease| lease.deadline);
        let stragglers = self.open.values().flat_map(|shard| {
            let age = self.straggler_age(shard.tier);
            shard.leases.iter().filter_map(move |lease| Some(lease.begun_at + age?))
        });
        let moments = waiting.chain(deadlines).chain(stragglers).chain(self.fleet.next_wakeup(now));
        moments.filter(|&moment| moment > now).min()
    }

    /// The role that stops the job because none of its workers works at a tier that has shards.
    pub fn lacking_role(&self, now: Duration) -> Option<Role> {
        let tiers: BTreeSet<u32> = self.open.values().map(|shard| shard.tier).collect();
        let lacks = |role| tiers.iter().any(|&tier| !self.fleet.has_sound(role, tier, now));
        [Role::Encoder, Role::Decoder].into_iter().find(|&role| lacks(role))
    }

    /// Shards that all workers together take at once.
    pub fn max_in_flight(&self) -> usize {
        self.fleet.max_leases(&self.policy)
    }

    /// Shards that are not committed.
    pub fn num_open(&self) -> usize {
        self.open.len()
    }

    /// The number of shards in each state.
    pub fn counts(&self) -> ShardCounts {
        let mut counts = ShardCounts { committed: self.committed.len(), ..ShardCounts::default() };
        for shard in self.open.values() {
            counts.waiting += u64::from(shard.is_waiting());
            counts.in_flight += u64::from(!shard.leases.is_empty());
            counts.given_up += u64::from(shard.is_given_up);
            counts.searched += u64::from(matches!(shard.stage, SearchStage::Searching(_)));
        }
        counts
    }

    /// Every known worker, encoders first.
    pub fn workers(&self, now: Duration) -> impl Iterator<Item = WorkerView> {
        self.fleet.views(now)
    }

    /// The endpoint of a worker that has a lease.
    ///
    /// # Panics
    /// The worker is not known.
    pub fn endpoint(&self, worker: WorkerId) -> &str {
        self.fleet.endpoint(worker)
    }

    fn lease(&mut self, shard: ShardIndex, pair: Pair, now: Duration) -> Assignment {
        let state = self.open.get_mut(&shard).expect("only open shards are leased");
        let (work, tier) = (state.work(), state.tier);
        let lease = state.lease(pair, now, self.policy.lease_ttl);
        self.fleet.begin(pair.encoder, lease.to_encode_num_bytes, lease.alone);
        self.fleet.begin(pair.decoder, lease.to_decode_num_bytes, lease.alone);
        for worker in [pair.encoder, pair.decoder] {
            self.fleet.ask_again(worker, tier, now, &self.policy);
        }
        Assignment { lease: Lease { shard, attempt: lease.attempt }, pair, tier, work }
    }

    fn expire_lease(&mut self, lease: Lease, now: Duration) -> AfterFailure {
        let shard = self.open.get_mut(&lease.shard).expect("the lease was found in it");
        let active = shard.take(lease.attempt).expect("the lease was found");
        self.release(&active);
        let blame = |fleet: &mut Fleet, worker| fleet.failed(worker, active.begun_at, now, &self.policy);
        let failure = if active.was_taken_on {
            Failure::Broke(Role::Decoder)
        } else {
            Failure::Unreached(Role::Encoder)
        };
        // A worker that never received the shard, or had finished its part, is not to blame.
        if active.was_taken_on {
            blame(&mut self.fleet, active.pair.decoder);
        }
        if active.to_encode_num_bytes > 0 {
            blame(&mut self.fleet, active.pair.encoder);
        }
        self.after_failure(lease.shard, active.pair, failure, now)
    }

    fn after_failure(
        &mut self,
        index: ShardIndex,
        pair: Pair,
        failure: Failure,
        now: Duration,
    ) -> AfterFailure {
        let (policy, num_successes) = (&self.policy, self.num_successes);
        let shard = self.open.get_mut(&index).expect("the shard had a lease");
        if failure == Failure::Hopeless {
            shard.is_given_up = true;
            return AfterFailure::GivenUp;
        }
        shard.avoid = Some(pair);
        if !shard.leases.is_empty() {
            // The failure counts, so that a shard that breaks all its attempts is not doubled again and
            // again.
            shard.broken_attempts += u32::from(matches!(failure, Failure::Broke(_) | Failure::Rejected));
            return AfterFailure::OtherAttempt;
        }
        let seed = policy.jitter_seed ^ (u64::from(index.0) << 32) ^ u64::from(shard.num_leases);
        let retry = |shard: &mut OpenShard, nth| {
            shard.ready_at = now + policy.retry.pause(nth, seed);
            AfterFailure::Retry { not_before: shard.ready_at }
        };
        match (failure, &mut shard.stage) {
            (Failure::Store, _) => {
                shard.store_failures += 1;
                shard.is_given_up = shard.store_failures >= policy.max_store_attempts;
                if shard.is_given_up {
                    return AfterFailure::GivenUp;
                }
                let nth = shard.store_failures;
                retry(shard, nth)
            }
            (Failure::Broke(_) | Failure::Rejected, SearchStage::Searching(search)) => {
                search.failed(policy.max_probe_attempts);
                let nth = search.failed_probes() + 1;
                shard.conclude_search_if_over(num_successes);
                retry(shard, nth);
                AfterFailure::Search
            }
            (Failure::Broke(_) | Failure::Rejected, SearchStage::Whole { .. }) => {
                shard.broken_attempts += 1;
                let nth = shard.broken_attempts;
                if nth < policy.max_attempts {
                    return retry(shard, nth);
                }
                if shard.num_searches == policy.max_searches {
                    shard.is_given_up = true;
                    return AfterFailure::GivenUp;
                }
                shard.begin_search(num_successes);
                retry(shard, nth);
                AfterFailure::Search
            }
            _ => AfterFailure::PlacedAgain,
        }
    }

    fn note_success(&mut self, active: &ActiveLease, tier: u32) {
        self.num_successes += 1;
        self.release(active);
        self.fleet.succeeded(active.pair.encoder, tier);
        self.fleet.succeeded(active.pair.decoder, tier);
    }

    fn release(&mut self, active: &ActiveLease) {
        self.fleet.end(active.pair.encoder, active.to_encode_num_bytes);
        self.fleet.end(active.pair.decoder, active.to_decode_num_bytes);
    }
}

#[cfg(test)]
mod tests;
