//! Decides who may work on which shard and when: a plain state machine, events in, decisions out.
//!
//! Time is a [`Duration`] since any fixed moment, passed in by the caller and never going back. The table holds
//! open shards alone, which the caller bounds by how many it offers at once; committed ones shrink to a counter.
//!
//! A shard is leased to one attempt at a time. What a superseded attempt reports is stale and ignored, except
//! that its commit counts: the output exists, whoever made it. The first commit wins.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ShardIndex;
use crate::shard_set::ShardSet;

/// How long leases last and how failures are retried.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasePolicy {
    /// A lease without progress for this long expires.
    pub lease_ttl: Duration,
    /// A shard that failed this many times is exhausted. At least 1.
    pub max_attempts: u32,
    /// Pause after the first failure; doubles with each further one.
    pub initial_backoff: Duration,
    /// The pause never exceeds this.
    pub max_backoff: Duration,
    /// Makes the jitter of one job differ from another's.
    pub jitter_seed: u64,
}

impl Default for LeasePolicy {
    fn default() -> Self {
        LeasePolicy {
            lease_ttl: Duration::from_secs(60),
            max_attempts: 4,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            jitter_seed: 0,
        }
    }
}

/// The time-limited right to process a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The shard.
    pub shard: ShardIndex,
    /// Counts the leases of this shard, from 1.
    pub attempt: u32,
}

/// What follows from a failed or expired lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// The shard is leased again from this moment on.
    Retry {
        /// On the caller's clock.
        not_before: Duration,
    },
    /// No attempt is left. The shard stays in the table and only a late commit can settle it.
    Exhausted,
    /// The lease was not current: nothing follows.
    Stale,
}

/// A lease that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The lease.
    pub lease: Lease,
    /// What follows for its shard; never [`AfterFailure::Stale`].
    pub after: AfterFailure,
}

/// How many shards are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseCounts {
    /// Waiting for a lease, perhaps after a failure.
    pub pending: u64,
    /// Being worked on.
    pub leased: u64,
    /// Given up.
    pub exhausted: u64,
    /// Done.
    pub committed: u64,
}

/// The state of every shard offered so far.
#[derive(Debug)]
pub struct LeaseTable {
    policy: LeasePolicy,
    open: BTreeMap<ShardIndex, State>,
    committed: ShardSet,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Pending { failed_attempts: u32, not_before: Duration },
    Leased { attempt: u32, deadline: Duration },
    Exhausted,
}

impl LeaseTable {
    /// An empty table.
    pub fn new(policy: LeasePolicy) -> LeaseTable {
        LeaseTable { policy, open: BTreeMap::new(), committed: ShardSet::default() }
    }

    /// Adds a shard to be leased; false if it is known already, committed ones included.
    pub fn offer(&mut self, shard: ShardIndex) -> bool {
        if self.committed.contains(shard) || self.open.contains_key(&shard) {
            return false;
        }
        self.open.insert(shard, State::Pending { failed_attempts: 0, not_before: Duration::ZERO });
        true
    }

    /// Leases the first shard that is ready, if any. Call [`LeaseTable::expire`] before, so that lost ones are.
    pub fn next_lease(&mut self, now: Duration) -> Option<Lease> {
        self.open.iter_mut().find_map(|(&shard, state)| match *state {
            State::Pending { failed_attempts, not_before } if not_before <= now => {
                let attempt = failed_attempts + 1;
                *state = State::Leased { attempt, deadline: now + self.policy.lease_ttl };
                Some(Lease { shard, attempt })
            }
            _ => None,
        })
    }

    /// Extends the lease, because its holder showed progress; false if it is stale and the holder should stop.
    pub fn progress(&mut self, lease: Lease, now: Duration) -> bool {
        match self.open.get_mut(&lease.shard) {
            Some(State::Leased { attempt, deadline }) if *attempt == lease.attempt => {
                *deadline = now + self.policy.lease_ttl;
                true
            }
            _ => false,
        }
    }

    /// Settles a shard, whichever attempt reports it; true if this is the first report. A shard that was never
    /// offered counts too: a restarted job finds such parts.
    pub fn committed(&mut self, shard: ShardIndex) -> bool {
        self.open.remove(&shard);
        self.committed.insert(shard)
    }

    /// Takes back a lease whose holder failed. A failure that is not `retryable` exhausts the shard at once.
    pub fn failed(&mut self, lease: Lease, now: Duration, retryable: bool) -> AfterFailure {
        let Some(state) = self.open.get_mut(&lease.shard) else { return AfterFailure::Stale };
        match *state {
            State::Leased { attempt, .. } if attempt == lease.attempt => {
                let (next, after) = self.policy.after_failure(lease, now, retryable);
                *state = next;
                after
            }
            _ => AfterFailure::Stale,
        }
    }

    /// Takes back every lease whose deadline has come.
    pub fn expire(&mut self, now: Duration) -> Vec<Expired> {
        let mut expired = Vec::new();
        for (&shard, state) in &mut self.open {
            if let State::Leased { attempt, deadline } = *state
                && deadline <= now
            {
                let lease = Lease { shard, attempt };
                let (next, after) = self.policy.after_failure(lease, now, true);
                *state = next;
                expired.push(Expired { lease, after });
            }
        }
        expired
    }

    /// The earliest moment at which [`LeaseTable::expire`] or [`LeaseTable::next_lease`] may have something to do
    /// without a further event; in the past if a shard is ready now.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.open
            .values()
            .filter_map(|state| match *state {
                State::Pending { not_before, .. } => Some(not_before),
                State::Leased { deadline, .. } => Some(deadline),
                State::Exhausted => None,
            })
            .min()
    }

    /// Shards with no attempt left, in order.
    pub fn exhausted(&self) -> impl Iterator<Item = ShardIndex> {
        self.open.iter().filter(|(_, state)| matches!(state, State::Exhausted)).map(|(&shard, _)| shard)
    }

    /// True if the shard's output is known to exist.
    pub fn is_committed(&self, shard: ShardIndex) -> bool {
        self.committed.contains(shard)
    }

    /// How many shards are in which state.
    pub fn counts(&self) -> LeaseCounts {
        let mut counts = LeaseCounts { committed: self.committed.len(), ..LeaseCounts::default() };
        for state in self.open.values() {
            match state {
                State::Pending { .. } => counts.pending += 1,
                State::Leased { .. } => counts.leased += 1,
                State::Exhausted => counts.exhausted += 1,
            }
        }
        counts
    }
}

impl LeasePolicy {
    fn after_failure(&self, lease: Lease, now: Duration, retryable: bool) -> (State, AfterFailure) {
        if !retryable || lease.attempt >= self.max_attempts {
            return (State::Exhausted, AfterFailure::Exhausted);
        }
        let not_before = now + self.backoff(lease);
        (State::Pending { failed_attempts: lease.attempt, not_before }, AfterFailure::Retry { not_before })
    }

    /// Capped exponential with "equal jitter": between half of the pause and all of it.
    fn backoff(&self, lease: Lease) -> Duration {
        let doublings = (lease.attempt - 1).min(31);
        let pause = self.initial_backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        let seed = self.jitter_seed ^ (u64::from(lease.shard.0) << 32 | u64::from(lease.attempt));
        let fraction = f64::from((splitmix64(seed) >> 32) as u32) / f64::from(u32::MAX);
        pause.mul_f64(0.5 + 0.5 * fraction)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): spreads a counter over all bits.
fn splitmix64(counter: u64) -> u64 {
    let mut bits = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
