//! Whole jobs under thousands of random schedules, in virtual time: workers die, stall, leave and return,
//! have no room, answer late; records break them; the coordinator restarts. A schedule is a function of its
//! seed, and a failure names the seed.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod cascade;
mod faults;
mod setting;
mod world;

use faults::{Faults, Fired};
use world::World;

/// Runs a schedule for each seed; returns how often each kind of fault fired in all of them.
fn run_schedules(seeds: std::ops::Range<u64>, faults: Faults) -> Fired {
    let mut fired = Fired::default();
    for seed in seeds {
        let mut world = World::new(seed, faults);
        world.run();
        world.check();
        fired.add(&world.fired);
    }
    fired
}

/// Everything that may happen to a job without a cascade.
fn all_faults() -> Faults {
    Faults {
        deaths: true,
        stalls: true,
        membership: true,
        busy: true,
        poison: true,
        restarts: true,
        cascade: false,
    }
}

#[test]
fn an_undisturbed_job_leases_each_shard_once_but_for_stragglers() {
    let fired = run_schedules(0..200, Faults::default());
    let (shards, doubled_leases) = (fired.shards, fired.doubled_leases);
    let expected = Fired { attempts: shards + doubled_leases, shards, doubled_leases, ..Default::default() };
    assert_eq!(fired, expected);
    assert!(doubled_leases < shards / 20, "only stragglers are leased twice: {fired:?}");
}

#[test]
fn every_shard_is_committed_once_under_faults_and_only_poisonous_records_fail() {
    let fired = run_schedules(0..4000, all_faults());
    let kinds = [
        fired.deaths,
        fired.stalls,
        fired.departures,
        fired.busy_answers,
        fired.poisonous_records,
        fired.restarts,
        fired.expiries,
        fired.doubled_leases,
        fired.late_commits,
    ];
    assert!(kinds.iter().all(|&count| count > 100), "a fault hardly fired: {fired:?}");
}

#[test]
fn a_coordinator_that_lives_long_hammers_no_worker() {
    let faults = Faults { restarts: false, ..all_faults() };
    let fired = run_schedules(5000..7000, faults); // each knock at a dead worker is checked
    assert!(fired.deaths > 1000 && fired.poisonous_records > 1000, "{fired:?}");
}

#[test]
fn poison_alone_is_found_without_help_from_other_faults() {
    let fired = run_schedules(10_000..11_000, Faults { poison: true, ..Faults::default() });
    assert!(fired.poisonous_records > 500, "{fired:?}");
}

#[test]
fn deaths_alone_accuse_no_record() {
    let fired = run_schedules(20_000..21_000, Faults { deaths: true, ..Faults::default() });
    assert!(fired.deaths > 1000 && fired.poisonous_records == 0, "{fired:?}");
}

#[test]
fn an_undisturbed_cascade_leases_each_tier_of_a_shard_once_but_for_stragglers_and_refusals() {
    let fired = run_schedules(30_000..30_400, Faults { cascade: true, ..Faults::default() });
    let leases = fired.shards + fired.tiers + fired.doubled_leases + fired.refusals;
    let num_refused_doubles = leases - fired.attempts; // they count as both
    assert!(num_refused_doubles <= fired.doubled_leases, "{fired:?}");
    assert!(fired.tiers > fired.shards / 2 && fired.refusals > 100, "{fired:?}");
}

#[test]
fn a_cascade_under_faults_commits_every_shard_once_and_only_poisonous_records_fail() {
    let faults = Faults { membership: false, cascade: true, ..all_faults() };
    let fired = run_schedules(31_000..34_000, faults);
    let kinds = [
        fired.deaths,
        fired.stalls,
        fired.busy_answers,
        fired.poisonous_records,
        fired.restarts,
        fired.expiries,
        fired.late_commits,
        fired.tiers,
        fired.refusals,
    ];
    assert!(kinds.iter().all(|&count| count > 100), "a fault hardly fired: {fired:?}");
}
