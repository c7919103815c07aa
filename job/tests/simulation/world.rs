//! A coordinator, its workers and its store, from the view of scheduling.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use baton_job::{
    AfterFailure, Assignment, Failure, Lease, Role, SchedulePolicy, ShardIndex, ShardScheduler, ShardSet,
    Work, WorkerState,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cascade::{End, Tiers};
use crate::faults::{Faults, Fired};
use crate::setting::{Poison, Shard, Worker, shards, workers};

/// Faults happen before this moment. Afterwards none happen, so that every job ends.
const FAULTS_END: Duration = Duration::from_secs(600);
/// No schedule takes longer; a longer one would never end.
const TOO_LONG: Duration = Duration::from_secs(200_000);
/// The pause between a worker's start of work and its first report.
const LATENCY: Duration = Duration::from_millis(5);

/// An attempt on its way through the workers, which the coordinator may have given up.
#[derive(Debug, Clone)]
struct Attempt {
    id: u64,
    /// The coordinator that began it.
    incarnation: u32,
    assignment: Assignment,
    encoder: String,
    decoder: String,
    was_taken_on: bool,
    /// By their numbers in the whole shard: all prompts of its tier, and those that it works on.
    of_tier: Vec<u32>,
    prompts: Vec<u32>,
    steps_left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The attempt's next step.
    Step(u64),
    Death,
    Stall,
    Membership,
    Restart,
}

pub(crate) struct World {
    seed: u64,
    rng: ChaCha8Rng,
    faults: Faults,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    num_events: u64,
    workers: BTreeMap<String, Worker>,
    shards: Vec<Shard>,
    tiers: Tiers,
    attempts: BTreeMap<u64, Attempt>,
    num_attempts: u64,
    scheduler: ShardScheduler,
    incarnation: u32,
    next_to_offer: usize,
    /// The store: by shard, the prompts that its verdict calls failed.
    committed: BTreeMap<ShardIndex, Vec<u32>>,
    pub(crate) fired: Fired,
}

fn policy(seed: u64) -> SchedulePolicy {
    SchedulePolicy { shards_per_worker: 2, jitter_seed: seed, ..SchedulePolicy::default() }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let workers = workers(&mut rng, faults);
        let shards = shards(&mut rng, faults);
        let num_poisonous = shards.iter().map(|shard| shard.poisonous.len() as u64).sum();
        let fired =
            Fired { shards: shards.len() as u64, poisonous_records: num_poisonous, ..Fired::default() };
        let mut world = World {
            seed,
            rng,
            faults,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            num_events: 0,
            workers,
            shards,
            tiers: Tiers::new(seed, if faults.cascade { 2 + (seed % 2) as u32 } else { 1 }),
            attempts: BTreeMap::new(),
            num_attempts: 0,
            scheduler: ShardScheduler::new(policy(seed), ShardSet::default()),
            incarnation: 0,
            next_to_offer: 0,
            committed: BTreeMap::new(),
            fired,
        };
        world.tell_members();
        for (is_on, event) in [
            (faults.deaths, Event::Death),
            (faults.stalls, Event::Stall),
            (faults.membership, Event::Membership),
            (faults.restarts, Event::Restart),
        ] {
            if is_on {
                world.plan_fault(event);
            }
        }
        world
    }

    /// Runs the job to its end.
    pub(crate) fn run(&mut self) {
        loop {
            self.expire();
            self.offer();
            self.lease();
            if self.next_to_offer == self.shards.len() && self.scheduler.num_open() == 0 {
                return;
            }
            let next_event = self.events.peek().map(|Reverse((moment, ..))| *moment);
            let wakeup = self.scheduler.next_wakeup(self.now);
            let next = next_event.into_iter().chain(wakeup).min();
            self.now = next.unwrap_or_else(|| panic!("seed {}: nothing will ever happen", self.seed));
            assert!(self.now < TOO_LONG, "seed {}: the job does not end: {:?}", self.seed, self.scheduler);
            while self.events.peek().is_some_and(|Reverse((moment, ..))| *moment <= self.now) {
                let Reverse((_, _, event)) = self.events.pop().unwrap();
                self.happen(event);
            }
        }
    }

    /// Every shard is committed, exactly the poisonous records are errors.
    pub(crate) fn check(&self) {
        for (index, shard) in (0u32..).zip(&self.shards) {
            let expected: Vec<u32> = shard.poisonous.keys().copied().collect();
            assert_eq!(
                self.committed.get(&ShardIndex(index)),
                Some(&expected),
                "seed {}, shard {index}",
                self.seed
            );
        }
        let counts = self.scheduler.counts();
        assert_eq!((counts.committed, counts.given_up), (self.shards.len() as u64, 0), "seed {}", self.seed);
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.num_events += 1;
        self.events.push(Reverse((self.now + after, self.num_events, event)));
    }

    fn plan_fault(&mut self, event: Event) {
        let after = Duration::from_millis(self.rng.random_range(500..30_000));
        if self.now + after < FAULTS_END {
            self.plan(after, event);
        }
    }

    fn any_worker(&mut self) -> String {
        let choice = self.rng.random_range(0..self.workers.len());
        self.workers.keys().nth(choice).unwrap().clone()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(id) => self.step(id),
            Event::Death => {
                let worker = self.any_worker();
                self.fired.deaths += 1;
                self.kill(&worker);
                self.plan_fault(Event::Death);
            }
            Event::Stall => {
                let worker = self.any_worker();
                let pause = Duration::from_secs(self.rng.random_range(1..150));
                self.workers.get_mut(&worker).unwrap().stalled_until = self.now + pause;
                self.fired.stalls += 1;
                self.plan_fault(Event::Stall);
            }
            Event::Membership => {
                let worker = self.any_worker();
                let worker = self.workers.get_mut(&worker).unwrap();
                worker.is_member = !worker.is_member;
                self.fired.departures += u64::from(!worker.is_member);
                if self.now + Duration::from_secs(120) >= FAULTS_END {
                    self.workers.values_mut().for_each(|worker| worker.is_member = true);
                }
                self.tell_members();
                self.plan_fault(Event::Membership);
            }
            Event::Restart => {
                self.fired.restarts += 1;
                self.incarnation += 1;
                let committed = self.committed.keys().copied().collect();
                self.scheduler = ShardScheduler::new(policy(self.seed), committed);
                self.next_to_offer = 0;
                // Some attempts are cancelled with their stream; others have come too far to notice.
                let rng = &mut self.rng;
                self.attempts.retain(|_, _| rng.random_bool(0.3));
                self.tell_members();
                self.plan_fault(Event::Restart);
            }
        }
    }

    fn tell_members(&mut self) {
        for (role, prefix) in [(Role::Encoder, 'e'), (Role::Decoder, 'd')] {
            let members =
                self.workers.iter().filter(|(name, worker)| name.starts_with(prefix) && worker.is_member);
            let members: Vec<String> = members.map(|(name, _)| name.clone()).collect();
            self.scheduler.set_workers(role, &members, self.now);
        }
    }

    fn kill(&mut self, name: &str) {
        let pause = Duration::from_secs(self.rng.random_range(1..90));
        let worker = self.workers.get_mut(name).unwrap();
        worker.dead_until = self.now + pause;
        (worker.stalled_until, worker.knocks, worker.died_at) = (Duration::ZERO, 0, self.now);
        let role = if name.starts_with('e') { Role::Encoder } else { Role::Decoder };
        let broken: Vec<u64> = self
            .attempts
            .values()
            .filter(|attempt| attempt.was_taken_on && (attempt.encoder == name || attempt.decoder == name))
            .map(|attempt| attempt.id)
            .collect();
        for id in broken {
            self.fail(id, Failure::Broke(role));
        }
    }

    fn is_poisoned(&self, attempt: &Attempt) -> Option<Poison> {
        let shard = &self.shards[attempt.assignment.lease.shard.0 as usize];
        let mut poisonous = shard.poisonous.iter();
        poisonous.find(|(prompt, _)| attempt.prompts.contains(prompt)).map(|(_, poison)| *poison)
    }

    fn offer(&mut self) {
        while self.next_to_offer < self.shards.len()
            && self.scheduler.num_open() < self.scheduler.max_in_flight() + 2
        {
            let num_prompts = self.shards[self.next_to_offer].num_prompts;
            let shard = ShardIndex(self.next_to_offer as u32);
            let (tier, num_prompts) = self.tiers.read(shard, num_prompts);
            self.scheduler.offer_from(tier, shard, num_prompts, 100 * u64::from(num_prompts));
            self.next_to_offer += 1;
        }
        if self.next_to_offer == self.shards.len() {
            self.scheduler.end_input();
        }
    }

    fn lease(&mut self) {
        while let Some(assignment) = {
            let before: Vec<_> = self.scheduler.workers(self.now).collect();
            let assignment = self.scheduler.next(self.now);
            if let Some(Assignment { pair, .. }) = &assignment {
                for worker in before.iter().filter(|worker| [pair.encoder, pair.decoder].contains(&worker.id))
                {
                    let may = match worker.state {
                        WorkerState::Ready => true,
                        WorkerState::OnTrial => worker.num_shards == 0,
                        WorkerState::Refusing => self.faults.cascade, // it may serve another tier
                        _ => false,
                    };
                    assert!(may, "seed {}: {worker:?} was given a shard", self.seed);
                }
            }
            assignment
        } {
            let [encoder, decoder] = [assignment.pair.encoder, assignment.pair.decoder]
                .map(|worker| self.scheduler.endpoint(worker).to_owned());
            self.num_attempts += 1;
            self.fired.attempts += 1;
            let same_shard = |attempt: &&Attempt| {
                attempt.incarnation == self.incarnation
                    && attempt.assignment.lease.shard == assignment.lease.shard
                    && self.is_current(attempt)
            };
            self.fired.doubled_leases +=
                u64::from(self.attempts.values().any(|attempt| same_shard(&attempt)));
            let of_tier = self.tiers.of_tier(assignment.lease.shard);
            let prompts = self.tiers.prompts_of(assignment.lease, assignment.tier, &assignment.work);
            let num_prompts = match &assignment.work {
                Work::Commit { .. } => of_tier.len() as u32,
                Work::Probe { prompts } => prompts.len() as u32,
            };
            let attempt = Attempt {
                id: self.num_attempts,
                incarnation: self.incarnation,
                assignment,
                encoder,
                decoder,
                was_taken_on: false,
                of_tier,
                prompts,
                steps_left: 1 + self.rng.random_range(0..=num_prompts / 3),
            };
            self.plan(LATENCY, Event::Step(attempt.id));
            self.attempts.insert(attempt.id, attempt);
        }
    }

    /// Whether the coordinator still waits for the attempt. It cancels an attempt that it gives up, but the
    /// cancellation may come too late.
    fn is_current(&self, attempt: &Attempt) -> bool {
        attempt.incarnation == self.incarnation
            && !self.committed.contains_key(&attempt.assignment.lease.shard)
    }

    fn step(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id).cloned() else { return };
        let [encoder, decoder] = [&attempt.encoder, &attempt.decoder].map(|name| self.workers[name].clone());
        let stalled_until = encoder.stalled_until.max(decoder.stalled_until);
        if stalled_until > self.now {
            self.plan(stalled_until - self.now, Event::Step(id));
            return;
        }
        for (role, name, worker) in
            [(Role::Encoder, &attempt.encoder, encoder), (Role::Decoder, &attempt.decoder, decoder)]
        {
            if worker.dead_until > self.now {
                self.knock(name);
                self.fail(id, Failure::Unreached(role));
                return;
            }
            if !attempt.was_taken_on && worker.refused_tier == Some(attempt.assignment.tier) {
                self.fired.refusals += 1;
                self.fail(id, Failure::Refused(role));
                return;
            }
            if self.faults.busy && !attempt.was_taken_on && self.now < FAULTS_END && self.rng.random_bool(0.1)
            {
                self.fired.busy_answers += 1;
                self.fail(id, Failure::Busy(role));
                return;
            }
        }
        if !attempt.was_taken_on {
            self.attempts.get_mut(&id).unwrap().was_taken_on = true;
            self.report(&attempt, 0);
        } else if let Some(num_done) = (attempt.of_tier.len() as u32).checked_div(attempt.steps_left) {
            self.report(&attempt, num_done);
            self.attempts.get_mut(&id).unwrap().steps_left -= 1;
            if attempt.steps_left == 1
                && let Some(poison) = self.is_poisoned(&attempt)
            {
                match poison {
                    Poison::KillsDecoder => self.kill(&attempt.decoder),
                    Poison::KillsEncoder => self.kill(&attempt.encoder),
                    Poison::IsRejected => self.fail(id, Failure::Rejected),
                    Poison::HangsDecoder => return, // nothing is ever heard of it again
                }
            }
        } else {
            self.complete(&attempt);
            return;
        }
        let pause = Duration::from_millis(self.rng.random_range(100..3000));
        self.plan(pause, Event::Step(id));
    }

    fn knock(&mut self, name: &str) {
        let worker = self.workers.get_mut(name).unwrap();
        worker.knocks += 1;
        // The attempts under way at its death, and then one at a time, at pauses that double up to half a
        // minute. A restarted coordinator has to learn this again, and so does one whose rest was lifted by a
        // failure without blame.
        let seconds = (self.now - worker.died_at).as_secs_f64();
        let most = 20.0 + 10.0 * (1.0 + seconds).log2() + seconds / 10.0;
        let is_hammered = !self.faults.restarts && f64::from(worker.knocks) > most;
        assert!(
            !is_hammered,
            "seed {}: {name} was knocked at {} times in {seconds} s",
            self.seed, worker.knocks
        );
    }

    fn report(&mut self, attempt: &Attempt, num_done: u32) {
        if attempt.incarnation == self.incarnation {
            self.scheduler.progress(attempt.assignment.lease, num_done, num_done, self.now);
        }
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        let Some(attempt) = self.attempts.remove(&id) else { return };
        if attempt.incarnation == self.incarnation {
            let after = self.scheduler.failed(attempt.assignment.lease, failure, self.now);
            assert_ne!(after, AfterFailure::GivenUp, "seed {}", self.seed);
        }
    }

    fn complete(&mut self, attempt: &Attempt) {
        self.attempts.remove(&attempt.id);
        let Assignment { lease, tier, work, .. } = &attempt.assignment;
        let (shard, tier) = (lease.shard, *tier);
        let is_known = self.committed.contains_key(&shard);
        let is_current = attempt.incarnation == self.incarnation;
        let Work::Commit { .. } = work else {
            if is_current {
                self.scheduler.probe_passed(*lease);
            }
            return;
        };
        match self.tiers.end(shard, tier, &attempt.of_tier, &attempt.prompts) {
            End::GoesOn(prompts) if is_current => {
                let num_prompts = prompts.len() as u32;
                let num_bytes = 100 * u64::from(num_prompts);
                if let Some(losers) = self.scheduler.tier_done(*lease, num_prompts, num_bytes, self.now) {
                    self.fired.tiers += 1;
                    self.tiers.go_on(shard, tier + 1, prompts);
                    self.cancel(&losers);
                }
            }
            End::GoesOn(_) => {}
            End::Committed(failed) => {
                self.committed.entry(shard).or_insert(failed);
                if is_current {
                    let settled = self.scheduler.committed(*lease, self.now);
                    self.cancel(&settled.losers);
                } else {
                    self.fired.late_commits += u64::from(!is_known);
                }
            }
        }
    }

    fn expire(&mut self) {
        for expired in self.scheduler.expire(self.now) {
            self.fired.expiries += 1;
            assert_ne!(expired.after, AfterFailure::GivenUp, "seed {}", self.seed);
            self.cancel(&[expired.lease]);
        }
    }

    /// Cancels attempts, unless they have come too far to notice.
    fn cancel(&mut self, leases: &[Lease]) {
        let (incarnation, rng) = (self.incarnation, &mut self.rng);
        for attempt in self.attempts.values_mut() {
            if attempt.incarnation == incarnation && leases.contains(&attempt.assignment.lease) {
                // From now on nobody listens to this attempt.
                attempt.incarnation = u32::MAX;
            }
        }
        self.attempts.retain(|_, attempt| attempt.incarnation != u32::MAX || rng.random_bool(0.3));
    }
}
