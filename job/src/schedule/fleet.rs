//! The workers: which are present, which may get a shard, and which of them have the least to do.
//!
//! A worker that fails rests, longer each time, and is then tried with one shard before it gets more.
//! Failures of several attempts that were under way at the first failure count as one incident. A worker's
//! load is counted in bytes of text, which stand in for tokens.
//!
//! A worker that refuses a tier is asked for it again occasionally, with one shard, and works at other tiers
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::policy::SchedulePolicy;

/// A worker's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads prompts.
    Encoder,
    /// Writes outputs and commits them.
    Decoder,
}

/// Names a worker within its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// Its role.
    pub role: Role,
    /// Counts the workers in the order in which they appeared.
    pub number: u32,
}

/// An encoder, and the decoder it streams to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The encoder.
    pub encoder: WorkerId,
    /// The decoder.
    pub decoder: WorkerId,
}

/// Whether a worker may get a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It may.
    Ready,
    /// It has failed and may get one shard to show that it works again.
    OnTrial,
    /// It reported that it has no room, and is asked again soon.
    Busy,
    /// It has failed and is left alone for a while.
    Resting,
    /// It does not serve this job, for example because it has loaded another bundle, and is asked again
    /// occasionally.
    Refusing,
    /// It is no longer listed. It may finish its shards.
    Left,
}

/// A worker's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Its endpoint.
    pub endpoint: String,
    /// Whether it may get a shard.
    pub state: WorkerState,
    /// Shards it works on.
    pub num_shards: u32,
    /// Bytes of text that it still has to process.
    pub outstanding_num_bytes: u64,
    /// Incidents since it last completed a shard.
    pub failures: u32,
}

/// An attempt's requirements for its workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// The tier that both must serve.
    pub(super) tier: u32,
    /// Workers on which the shard failed before; used only if there are no others.
    pub(super) avoid: Option<Pair>,
    /// Kept free for another shard.
    pub(super) held: Option<Pair>,
    /// A decoder that must not be used.
    pub(super) not_decoder: Option<WorkerId>,
    /// Whether both workers must have nothing else to do, now and until the attempt ends.
    pub(super) alone: bool,
}

impl Wish {
    /// Any workers of this tier.
    pub(super) fn of(tier: u32) -> Wish {
        Wish { tier, avoid: None, held: None, not_decoder: None, alone: false }
    }
}

#[derive(Debug, Default)]
pub(super) struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    num_seen: u32,
}

#[derive(Debug)]
struct Worker {
    endpoint: String,
    is_member: bool,
    num_leases: u32,
    outstanding_num_bytes: u64,
    /// An attempt that must be alone runs here.
    is_taken: bool,
    failures: u32,
    failed_at: Duration,
    rests_until: Duration,
    is_on_trial: bool,
    /// The tiers that it refuses, and when each may be asked for again.
    refused: BTreeMap<u32, Duration>,
    /// The tiers that it has worked at.
    served: BTreeSet<u32>,
    busy_answers: u32,
    busy_until: Duration,
}

impl Fleet {
    /// Sets the present workers of a role. A missing worker gets no new lease; a returning worker keeps its
    /// state.
    pub(super) fn set_members(&mut self, role: Role, endpoints: &[String], now: Duration) {
        for worker in self.of_role_mut(role) {
            worker.is_member = endpoints.contains(&worker.endpoint);
        }
        for endpoint in endpoints {
            if !self.of_role_mut(role).any(|worker| worker.endpoint == *endpoint) {
                let id = WorkerId { role, number: self.num_seen };
                self.num_seen += 1;
                self.workers.insert(id, Worker::new(endpoint.clone()));
            }
        }
        // A worker that left is remembered for as long as it would rest, so leaving and returning does not
        // end its rest.
        let is_left_alone =
            |worker: &Worker| worker.rests_until > now || worker.refused.values().any(|&until| until > now);
        self.workers.retain(|_, worker| worker.is_member || worker.num_leases > 0 || is_left_alone(worker));
    }

    /// The best pair for an attempt, encoder and decoder chosen independently; `None` if either is lacking.
    pub(super) fn place(&self, wish: Wish, now: Duration, policy: &SchedulePolicy) -> Option<Pair> {
        let best = |role, avoided: Option<WorkerId>, held: Option<WorkerId>| {
            let capacity = if wish.alone { 1 } else { self.capacity(role, policy) };
            self.of_role(role)
                .filter(|(id, worker)| {
                    worker.has_room(wish.tier, now, capacity)
                        && Some(*id) != held
                        && Some(*id) != wish.not_decoder
                })
                .min_by_key(|(id, worker)| (Some(*id) == avoided, worker.load()))
                .map(|(id, _)| id)
        };
        let (avoid, held) = (wish.avoid, wish.held);
        Some(Pair {
            encoder: best(Role::Encoder, avoid.map(|pair| pair.encoder), held.map(|pair| pair.encoder))?,
            decoder: best(Role::Decoder, avoid.map(|pair| pair.decoder), held.map(|pair| pair.decoder))?,
        })
    }

    /// The pair that will be free first, if both roles have a worker that may work at this tier now.
    pub(super) fn soonest_free(&self, tier: u32, now: Duration) -> Option<Pair> {
        let best = |role| {
            let workers = self.of_role(role).filter(|(_, worker)| worker.may_work_at(tier, now));
            workers.min_by_key(|(_, worker)| worker.load()).map(|(id, _)| id)
        };
        Some(Pair { encoder: best(Role::Encoder)?, decoder: best(Role::Decoder)? })
    }

    pub(super) fn begin(&mut self, id: WorkerId, num_bytes: u64, alone: bool) {
        let worker = self.get_mut(id);
        worker.num_leases += 1;
        worker.outstanding_num_bytes += num_bytes;
        worker.is_taken |= alone;
    }

    pub(super) fn lighten(&mut self, id: WorkerId, num_bytes: u64) {
        self.get_mut(id).outstanding_num_bytes -= num_bytes;
    }

    pub(super) fn end(&mut self, id: WorkerId, num_bytes: u64) {
        let worker = self.get_mut(id);
        worker.num_leases -= 1;
        worker.outstanding_num_bytes -= num_bytes;
        worker.is_taken = false; // either it was alone here, or it was never taken
    }

    /// Notes that an attempt that began at `begun_at` failed here.
    pub(super) fn failed(
        &mut self,
        id: WorkerId,
        begun_at: Duration,
        now: Duration,
        policy: &SchedulePolicy,
    ) {
        let worker = self.get_mut(id);
        if worker.failures > 0 && begun_at < worker.failed_at {
            return; // the incident that is known already
        }
        worker.failures += 1;
        worker.failed_at = now;
        worker.is_on_trial = true;
        worker.rests_until = now + policy.rest.pause(worker.failures, seed(id, worker.failures, policy));
    }

    /// Notes that the worker does not serve a tier of this job.
    pub(super) fn refused(&mut self, id: WorkerId, tier: u32, now: Duration, policy: &SchedulePolicy) {
        let worker = self.get_mut(id);
        worker.served.remove(&tier);
        worker.refused.insert(tier, now + policy.rest.max);
    }

    /// Notes that a worker is being asked for a tier. If it had refused that, it is asked once.
    pub(super) fn ask_again(&mut self, id: WorkerId, tier: u32, now: Duration, policy: &SchedulePolicy) {
        if let Some(until) = self.get_mut(id).refused.get_mut(&tier) {
            *until = now + policy.rest.max;
        }
    }

    /// Notes that the worker has no room.
    pub(super) fn busy(&mut self, id: WorkerId, now: Duration, policy: &SchedulePolicy) {
        let worker = self.get_mut(id);
        if worker.busy_until <= now {
            worker.busy_answers += 1;
            worker.busy_until =
                now + policy.busy.pause(worker.busy_answers, seed(id, worker.busy_answers, policy));
        }
    }

    /// Notes that the worker works at a tier.
    pub(super) fn moved(&mut self, id: WorkerId, tier: u32) {
        let worker = self.get_mut(id);
        (worker.is_on_trial, worker.busy_answers) = (false, 0);
        worker.refused.remove(&tier);
        worker.served.insert(tier);
    }

    /// Notes that the worker completed an attempt.
    pub(super) fn succeeded(&mut self, id: WorkerId, tier: u32) {
        self.moved(id, tier);
        self.get_mut(id).failures = 0;
    }

    /// Whether every worker of a role refuses this tier.
    pub(super) fn all_refuse(&self, role: Role, tier: u32) -> bool {
        let mut members = self.of_role(role).filter(|(_, worker)| worker.is_member).peekable();
        members.peek().is_some() && members.all(|(_, worker)| worker.refused.contains_key(&tier))
    }

    /// Whether any worker of a role is working, or may get a shard of this tier without a trial.
    pub(super) fn has_sound(&self, role: Role, tier: u32, now: Duration) -> bool {
        let is_sound = |worker: &Worker| {
            !worker.is_on_trial
                && !worker.refused.contains_key(&tier)
                && (worker.num_leases > 0 || worker.may_work(now))
        };
        self.of_role(role).any(|(_, worker)| is_sound(worker))
    }

    /// Shards that all workers together take at once.
    pub(super) fn max_leases(&self, policy: &SchedulePolicy) -> usize {
        let num_members = |role| self.of_role(role).filter(|(_, worker)| worker.is_member).count();
        let larger = num_members(Role::Encoder).max(num_members(Role::Decoder));
        larger * policy.shards_per_worker as usize
    }

    /// The next moment at which a worker that may not work now may work.
    pub(super) fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        let members = self.workers.values().filter(|worker| worker.is_member);
        let until = |worker: &Worker| {
            let asked_again = worker.refused.values().copied();
            asked_again.chain([worker.rests_until.max(worker.busy_until)]).filter(|&until| until > now).min()
        };
        members.filter_map(until).min()
    }

    pub(super) fn views(&self, now: Duration) -> impl Iterator<Item = WorkerView> {
        self.workers.iter().map(move |(&id, worker)| worker.view(id, now))
    }

    pub(super) fn endpoint(&self, id: WorkerId) -> &str {
        &self.workers[&id].endpoint
    }

    /// Shards that one worker of a role takes at once. A role with fewer workers takes more per worker, so
    /// that the workers of the other role have enough.
    fn capacity(&self, role: Role, policy: &SchedulePolicy) -> u32 {
        let num_members = self.of_role(role).filter(|(_, worker)| worker.is_member).count().max(1);
        u32::try_from(self.max_leases(policy).div_ceil(num_members)).unwrap_or(u32::MAX)
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().filter(move |(id, _)| id.role == role).map(|(&id, worker)| (id, worker))
    }

    fn of_role_mut(&mut self, role: Role) -> impl Iterator<Item = &mut Worker> {
        self.workers.iter_mut().filter(move |(id, _)| id.role == role).map(|(_, worker)| worker)
    }

    fn get_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("a worker is remembered while it has a lease")
    }
}

impl Worker {
    fn new(endpoint: String) -> Worker {
        Worker {
            endpoint,
            is_member: true,
            num_leases: 0,
            outstanding_num_bytes: 0,
            is_taken: false,
            failures: 0,
            failed_at: Duration::ZERO,
            rests_until: Duration::ZERO,
            is_on_trial: false,
            refused: BTreeMap::new(),
            served: BTreeSet::new(),
            busy_answers: 0,
            busy_until: Duration::ZERO,
        }
    }

    fn may_work(&self, now: Duration) -> bool {
        self.is_member && self.rests_until <= now && self.busy_until <= now
    }

    fn may_work_at(&self, tier: u32, now: Duration) -> bool {
        self.may_work(now) && self.refused.get(&tier).is_none_or(|&until| until <= now)
    }

    /// Whether it has refused every tier that it was asked about.
    fn refuses_all(&self) -> bool {
        self.served.is_empty() && !self.refused.is_empty()
    }

    fn has_room(&self, tier: u32, now: Duration, capacity: u32) -> bool {
        let capacity = if self.is_on_trial { 1 } else { capacity };
        self.may_work_at(tier, now) && !self.is_taken && self.num_leases < capacity
    }

    fn load(&self) -> (u64, u32) {
        (self.outstanding_num_bytes, self.num_leases)
    }

    fn view(&self, id: WorkerId, now: Duration) -> WorkerView {
        let state = match () {
            () if !self.is_member => WorkerState::Left,
            () if self.refuses_all() => WorkerState::Refusing,
            () if self.rests_until > now => WorkerState::Resting,
            () if self.busy_until > now => WorkerState::Busy,
            () if self.is_on_trial => WorkerState::OnTrial,
            () => WorkerState::Ready,
        };
        WorkerView {
            id,
            endpoint: self.endpoint.clone(),
            state,
            num_shards: self.num_leases,
            outstanding_num_bytes: self.outstanding_num_bytes,
            failures: self.failures,
        }
    }
}

fn seed(id: WorkerId, nth: u32, policy: &SchedulePolicy) -> u64 {
    policy.jitter_seed ^ (1 << 63) ^ (u64::from(id.number) << 32) ^ u64::from(nth)
}
