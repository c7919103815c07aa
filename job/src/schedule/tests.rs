//! Scheduling against tables of events. Whole jobs under random schedules are in `tests/simulation.rs`.

use super::*;

const SHARD: ShardIndex = ShardIndex(0);
const NUM_PROMPTS: u32 = 8;
const NUM_BYTES: u64 = 800;

fn policy() -> SchedulePolicy {
    SchedulePolicy {
        lease_ttl: seconds(10),
        max_attempts: 3,
        max_probe_attempts: 2,
        max_searches: 2,
        max_store_attempts: 4,
        shards_per_worker: 2,
        ..SchedulePolicy::default()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn names(prefix: &str, count: u32) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}{index}")).collect()
}

fn scheduler(num_encoders: u32, num_decoders: u32, num_shards: u32) -> ShardScheduler {
    let mut scheduler = ShardScheduler::new(policy(), ShardSet::default());
    scheduler.set_workers(Role::Encoder, &names("e", num_encoders), seconds(0));
    scheduler.set_workers(Role::Decoder, &names("d", num_decoders), seconds(0));
    for shard in (0..num_shards).map(ShardIndex) {
        assert!(scheduler.offer(shard, NUM_PROMPTS, NUM_BYTES));
    }
    scheduler
}

fn leased(scheduler: &mut ShardScheduler, now: Duration) -> Assignment {
    scheduler.next(now).expect("a shard is ready and a worker has room")
}

/// Waits, from `now` on, until something is leased.
fn leased_later(scheduler: &mut ShardScheduler, now: &mut Duration) -> Assignment {
    loop {
        if let Some(assignment) = scheduler.next(*now) {
            return assignment;
        }
        *now = scheduler.next_wakeup(*now).expect("something will be ready");
    }
}

/// The endpoints of an assignment: encoder, then decoder.
fn places(scheduler: &ShardScheduler, assignment: &Assignment) -> (String, String) {
    let Pair { encoder, decoder } = assignment.pair;
    (scheduler.endpoint(encoder).to_owned(), scheduler.endpoint(decoder).to_owned())
}

fn state_of(scheduler: &ShardScheduler, endpoint: &str, now: Duration) -> WorkerState {
    scheduler.workers(now).find(|worker| worker.endpoint == endpoint).expect("a known worker").state
}

/// Breaks the shard's attempts until it is searched.
fn break_until_searched(scheduler: &mut ShardScheduler, now: &mut Duration) {
    for attempt in 1..=3 {
        let assignment = leased_later(scheduler, now);
        assert_eq!(assignment.work, Work::Commit { accused: vec![] });
        let after = scheduler.failed(assignment.lease, Failure::Broke(Role::Decoder), *now);
        assert_eq!(after == AfterFailure::Search, attempt == 3);
    }
}

#[test]
fn shards_are_leased_in_order_each_to_one_attempt_while_workers_have_room() {
    let mut scheduler = scheduler(1, 1, 3);
    assert!(!scheduler.offer(SHARD, 1, 1));
    for shard in 0..2 {
        assert_eq!(leased(&mut scheduler, seconds(0)).lease, Lease { shard: ShardIndex(shard), attempt: 1 });
    }
    assert_eq!(scheduler.next(seconds(0)), None, "both workers have their two shards");
    assert!(scheduler.committed(Lease { shard: SHARD, attempt: 1 }, seconds(1)).is_first);
    assert_eq!(leased(&mut scheduler, seconds(1)).lease.shard, ShardIndex(2));
}

#[test]
fn encoders_and_decoders_are_chosen_independently_by_outstanding_work() {
    let mut scheduler = scheduler(2, 3, 6);
    let found: Vec<_> = (0..6)
        .map(|_| {
            let assignment = leased(&mut scheduler, seconds(0));
            places(&scheduler, &assignment)
        })
        .collect();
    let expected = [("e0", "d0"), ("e1", "d1"), ("e0", "d2"), ("e1", "d0"), ("e0", "d1"), ("e1", "d2")];
    assert_eq!(found, expected.map(|(encoder, decoder)| (encoder.to_owned(), decoder.to_owned())));

    // The second shard of `d1` is nearly done, so it gets the next one.
    scheduler.progress(Lease { shard: ShardIndex(1), attempt: 1 }, 8, 7, seconds(1));
    scheduler.progress(Lease { shard: ShardIndex(4), attempt: 1 }, 8, 6, seconds(1));
    scheduler.offer(ShardIndex(6), NUM_PROMPTS, NUM_BYTES);
    scheduler.committed(Lease { shard: ShardIndex(1), attempt: 1 }, seconds(2));
    let assignment = leased(&mut scheduler, seconds(2));
    assert_eq!(places(&scheduler, &assignment).1, "d1");
}

#[test]
fn one_encoder_feeds_many_decoders() {
    let mut scheduler = scheduler(1, 5, 20);
    let mut num_leases = 0;
    while scheduler.next(seconds(0)).is_some() {
        num_leases += 1;
    }
    assert_eq!((num_leases, scheduler.max_in_flight()), (10, 10), "two for each decoder");
}

#[test]
fn an_expired_lease_is_reissued_once_and_elsewhere() {
    let mut scheduler = scheduler(2, 2, 1);
    let first = leased(&mut scheduler, seconds(0));
    assert!(scheduler.progress(first.lease, 8, 0, seconds(1)));
    assert_eq!(scheduler.expire(seconds(10)), []);
    let [Expired { lease, after: AfterFailure::Retry { not_before } }] = scheduler.expire(seconds(11))[..]
    else {
        panic!("one lease expires and is retried")
    };
    assert_eq!(lease, first.lease);
    assert_eq!(scheduler.next(seconds(11)), None);
    let second = leased(&mut scheduler, not_before);
    assert_eq!(second.lease, Lease { shard: SHARD, attempt: 2 });
    assert!(second.pair.decoder != first.pair.decoder);
    assert_eq!(scheduler.next(not_before), None);
    assert_eq!(state_of(&scheduler, "d0", seconds(11)), WorkerState::Resting);
    assert_eq!(state_of(&scheduler, "e0", seconds(11)), WorkerState::Ready, "it had encoded everything");
}

#[test]
fn a_lease_that_the_encoder_never_took_on_costs_no_attempt() {
    let mut scheduler = scheduler(1, 1, 1);
    let mut now = seconds(0);
    for _ in 0..20 {
        let lease = leased_later(&mut scheduler, &mut now).lease;
        now += seconds(10);
        assert_eq!(scheduler.expire(now), [Expired { lease, after: AfterFailure::PlacedAgain }]);
        assert_eq!(state_of(&scheduler, "e0", now), WorkerState::Resting);
        assert_eq!(state_of(&scheduler, "d0", now), WorkerState::Ready);
    }
}

#[test]
fn progress_extends_a_lease_and_a_stale_holder_is_told_to_stop() {
    let mut scheduler = scheduler(1, 1, 1);
    let first = leased(&mut scheduler, seconds(0)).lease;
    assert!(scheduler.progress(first, 0, 0, seconds(9)));
    assert_eq!(scheduler.expire(seconds(18)), []);
    assert_eq!(scheduler.expire(seconds(19)).len(), 1);
    assert!(!scheduler.progress(first, 1, 0, seconds(19)));
    let second = leased(&mut scheduler, seconds(60)).lease;
    assert!(!scheduler.progress(first, 1, 0, seconds(61)));
    assert_eq!(scheduler.failed(first, Failure::Broke(Role::Encoder), seconds(61)), AfterFailure::Stale);
    assert!(scheduler.progress(second, 1, 0, seconds(61)));
    // The output exists, whichever attempt made it.
    assert_eq!(scheduler.committed(first, seconds(62)), Settled { is_first: true, losers: vec![second] });
    assert_eq!(scheduler.committed(second, seconds(63)), Settled { is_first: false, losers: vec![] });
    assert_eq!(scheduler.counts(), ShardCounts { committed: 1, ..ShardCounts::default() });
}

#[test]
fn a_busy_worker_costs_no_attempt_and_is_asked_again_less_and_less_often() {
    let mut scheduler = scheduler(1, 1, 1);
    let (mut now, mut pauses) = (seconds(0), Vec::new());
    for _ in 0..50 {
        let before = now;
        let lease = leased_later(&mut scheduler, &mut now).lease;
        pauses.push(now - before);
        assert_eq!(scheduler.failed(lease, Failure::Busy(Role::Decoder), now), AfterFailure::PlacedAgain);
    }
    assert!(pauses[1] < seconds(1) && pauses[49] >= seconds(1), "{pauses:?}");
    assert_eq!(scheduler.lacking_role(now), Some(Role::Decoder));
}

#[test]
fn a_shard_without_a_worker_waits_for_as_long_as_it_takes() {
    let mut scheduler = scheduler(1, 1, 1);
    let mut now = seconds(0);
    for _ in 0..100 {
        let lease = leased_later(&mut scheduler, &mut now).lease;
        assert_eq!(
            scheduler.failed(lease, Failure::Unreached(Role::Decoder), now),
            AfterFailure::PlacedAgain
        );
    }
    assert!(now > seconds(1000), "it is not hammered: 100 tries take longer than {now:?}");
    assert_eq!(scheduler.lacking_role(now), Some(Role::Decoder));
    let lease = leased_later(&mut scheduler, &mut now).lease;
    assert!(scheduler.committed(lease, now).is_first);
}

#[test]
fn shards_that_break_together_are_one_incident_and_a_trial_is_one_shard() {
    let mut scheduler = scheduler(1, 1, 4);
    let leases = [leased(&mut scheduler, seconds(0)).lease, leased(&mut scheduler, seconds(0)).lease];
    for lease in leases {
        scheduler.failed(lease, Failure::Broke(Role::Decoder), seconds(1));
    }
    let view = scheduler.workers(seconds(1)).find(|worker| worker.endpoint == "d0").unwrap();
    assert_eq!((view.state, view.failures), (WorkerState::Resting, 1));
    let trial = leased(&mut scheduler, seconds(3)).lease;
    assert_eq!(scheduler.next(seconds(3)), None);
    assert_eq!(state_of(&scheduler, "d0", seconds(3)), WorkerState::OnTrial);
    scheduler.progress(trial, 8, 1, seconds(4));
    assert!(scheduler.next(seconds(4)).is_some(), "it works again");
}

#[test]
fn workers_leave_and_come_back() {
    let mut scheduler = scheduler(1, 2, 3);
    let first = leased(&mut scheduler, seconds(0));
    assert_eq!(places(&scheduler, &first).1, "d0");
    scheduler.set_workers(Role::Decoder, &names("d", 3)[1..], seconds(1));
    assert_eq!(state_of(&scheduler, "d0", seconds(1)), WorkerState::Left);
    let used: Vec<_> = (0..2)
        .map(|_| {
            let assignment = leased(&mut scheduler, seconds(1));
            places(&scheduler, &assignment).1
        })
        .collect();
    assert_eq!(used, ["d1", "d2"]);
    assert!(scheduler.committed(first.lease, seconds(2)).is_first, "what it had, it may finish");
    scheduler.set_workers(Role::Decoder, &names("d", 3), seconds(3));
    scheduler.offer(ShardIndex(3), NUM_PROMPTS, NUM_BYTES);
    let assignment = leased(&mut scheduler, seconds(3));
    assert_eq!(places(&scheduler, &assignment).1, "d0");
}

#[test]
fn a_worker_does_not_get_rid_of_its_rest_by_leaving() {
    let mut scheduler = scheduler(1, 1, 1);
    let lease = leased(&mut scheduler, seconds(0)).lease;
    scheduler.failed(lease, Failure::Unreached(Role::Decoder), seconds(0));
    scheduler.set_workers(Role::Decoder, &[], seconds(0));
    scheduler.set_workers(Role::Decoder, &names("d", 1), seconds(0));
    assert_eq!(scheduler.next(seconds(0)), None);
    assert_eq!(state_of(&scheduler, "d0", seconds(0)), WorkerState::Resting);
}

#[test]
fn a_worker_that_refuses_the_job_is_passed_over_until_all_do() {
    let mut scheduler = scheduler(1, 2, 1);
    let first = leased(&mut scheduler, seconds(0));
    let after = scheduler.failed(first.lease, Failure::Refused(Role::Decoder), seconds(0));
    assert_eq!(after, AfterFailure::PlacedAgain);
    let second = leased(&mut scheduler, seconds(0));
    assert!(second.pair.decoder != first.pair.decoder);
    let after = scheduler.failed(second.lease, Failure::Refused(Role::Decoder), seconds(0));
    assert_eq!(after, AfterFailure::GivenUp);
}

#[test]
fn a_store_that_fails_for_long_gives_the_shard_up_without_accusing_a_record() {
    let mut scheduler = scheduler(1, 1, 1);
    let mut now = seconds(0);
    for attempt in 1..=4 {
        let lease = leased_later(&mut scheduler, &mut now).lease;
        let after = scheduler.failed(lease, Failure::Store, now);
        assert_eq!(after == AfterFailure::GivenUp, attempt == 4, "{after:?}");
    }
    assert_eq!(scheduler.counts().given_up, 1);
    assert_eq!(state_of(&scheduler, "d0", now), WorkerState::Ready, "the decoder is not to blame");
}

#[test]
fn a_shard_that_breaks_every_attempt_is_searched_for_the_record_that_does_it() {
    let mut scheduler = scheduler(1, 2, 1);
    let mut now = seconds(0);
    break_until_searched(&mut scheduler, &mut now);
    let poisonous = 5;
    let accused = loop {
        let assignment = leased_later(&mut scheduler, &mut now);
        match assignment.work {
            Work::Probe { prompts } if prompts.contains(&poisonous) => {
                let after = scheduler.failed(assignment.lease, Failure::Broke(Role::Decoder), now);
                assert_eq!(after, AfterFailure::Search);
            }
            Work::Probe { .. } => scheduler.probe_passed(assignment.lease),
            Work::Commit { accused } => {
                assert!(scheduler.committed(assignment.lease, now).is_first);
                break accused;
            }
        }
    };
    assert_eq!(accused, [poisonous]);
}

/// Fails every attempt and probe until the shard is given up; returns the number of searches.
fn break_everything(scheduler: &mut ShardScheduler, now: &mut Duration) -> u32 {
    let mut num_searches = 0;
    loop {
        let assignment = leased_later(scheduler, now);
        let is_whole = matches!(&assignment.work, Work::Commit { accused } if accused.is_empty());
        assert!(is_whole || matches!(assignment.work, Work::Probe { .. }), "{assignment:?} accuses");
        match scheduler.failed(assignment.lease, Failure::Broke(Role::Decoder), *now) {
            AfterFailure::GivenUp => return num_searches,
            AfterFailure::Search if is_whole => num_searches += 1,
            _ => {}
        }
    }
}

#[test]
fn no_record_is_called_poisonous_if_every_record_breaks_everything() {
    let mut now = seconds(0);
    assert_eq!(break_everything(&mut scheduler(2, 2, 1), &mut now), 2);
    let mut of_one_prompt = scheduler(1, 1, 0);
    of_one_prompt.offer(SHARD, 1, 100);
    assert_eq!(break_everything(&mut of_one_prompt, &mut now), 2);
}

#[test]
fn the_only_record_of_a_shard_is_poisonous_if_others_were_processed() {
    let mut scheduler = ShardScheduler::new(policy(), [ShardIndex(1)].into_iter().collect());
    scheduler.set_workers(Role::Encoder, &names("e", 1), seconds(0));
    scheduler.set_workers(Role::Decoder, &names("d", 1), seconds(0));
    scheduler.offer(SHARD, 1, 100);
    let mut now = seconds(0);
    break_until_searched(&mut scheduler, &mut now);
    for _ in 0..2 {
        let probe = leased_later(&mut scheduler, &mut now);
        scheduler.failed(probe.lease, Failure::Broke(Role::Encoder), now);
    }
    assert_eq!(leased_later(&mut scheduler, &mut now).work, Work::Commit { accused: vec![0] });
}

#[test]
fn a_probe_of_one_record_has_its_workers_for_itself() {
    let mut scheduler = scheduler(1, 1, 0);
    let mut now = seconds(0);
    assert!(scheduler.offer(SHARD, 1, 100));
    break_until_searched(&mut scheduler, &mut now);
    now += seconds(60);
    for shard in (1..4).map(ShardIndex) {
        scheduler.offer(shard, NUM_PROMPTS, NUM_BYTES);
    }
    let probe = leased(&mut scheduler, now);
    assert_eq!(probe.work, Work::Probe { prompts: 0..1 });
    assert_eq!(scheduler.next(now), None, "nothing is placed beside it");
    scheduler.failed(probe.lease, Failure::Busy(Role::Decoder), now);
    now += seconds(60);
    let probe = leased(&mut scheduler, now);
    scheduler.probe_passed(probe.lease);
    assert_eq!(leased(&mut scheduler, now).work, Work::Commit { accused: vec![] });
    let other = leased(&mut scheduler, now);
    assert_eq!(other.lease.shard, ShardIndex(1));
}

#[test]
fn workers_are_kept_free_for_an_attempt_that_must_have_them_for_itself() {
    let mut scheduler = scheduler(1, 1, 0);
    scheduler.offer(ShardIndex(1), NUM_PROMPTS, NUM_BYTES);
    let other = leased(&mut scheduler, seconds(0)).lease;
    scheduler.offer(SHARD, 1, 100);
    for attempt in 1..=3 {
        let now = seconds(60 * u64::from(attempt));
        scheduler.progress(other, attempt, attempt, now);
        let suspect = leased(&mut scheduler, now).lease;
        assert_eq!(suspect, Lease { shard: SHARD, attempt });
        scheduler.failed(suspect, Failure::Broke(Role::Decoder), now);
    }
    let now = seconds(240);
    scheduler.progress(other, 4, 4, now);
    scheduler.offer(ShardIndex(2), NUM_PROMPTS, NUM_BYTES);
    assert_eq!(scheduler.next(now), None, "there is room, but it is kept");
    scheduler.committed(other, now);
    assert_eq!(leased(&mut scheduler, now).work, Work::Probe { prompts: 0..1 });
}

#[test]
fn a_shard_that_breaks_only_as_a_whole_is_given_up_after_some_searches() {
    let mut scheduler = scheduler(1, 1, 1);
    let mut now = seconds(0);
    let mut num_searches = 0;
    loop {
        let assignment = leased_later(&mut scheduler, &mut now);
        match assignment.work {
            Work::Probe { .. } => scheduler.probe_passed(assignment.lease),
            Work::Commit { accused } => {
                assert_eq!(accused, [0u32; 0]);
                match scheduler.failed(assignment.lease, Failure::Broke(Role::Encoder), now) {
                    AfterFailure::Search => num_searches += 1,
                    AfterFailure::GivenUp => break,
                    _ => {}
                }
            }
        }
    }
    assert_eq!(num_searches, 2);
}

#[test]
fn a_straggler_is_leased_twice_at_the_end_unless_it_breaks() {
    let mut scheduler = scheduler(1, 2, 3);
    let assignments: Vec<_> = (0..3).map(|_| leased(&mut scheduler, seconds(0))).collect();
    scheduler.committed(assignments[1].lease, seconds(8));
    scheduler.committed(assignments[2].lease, seconds(8));
    scheduler.progress(assignments[0].lease, 1, 0, seconds(15));
    assert_eq!(scheduler.next(seconds(15)), None, "it is not near the end");
    scheduler.end_input();
    assert_eq!(scheduler.next_wakeup(seconds(15)), Some(seconds(16)));
    let second = leased(&mut scheduler, seconds(16));
    assert_eq!(second.lease, Lease { shard: SHARD, attempt: 2 });
    assert!(second.pair.decoder != assignments[0].pair.decoder);
    assert_eq!(scheduler.next(seconds(40)), None, "it is leased twice, not more often");
    assert_eq!(
        scheduler.failed(second.lease, Failure::Broke(Role::Decoder), seconds(17)),
        AfterFailure::OtherAttempt
    );
    assert_eq!(scheduler.next(seconds(20)), None, "whatever broke it may be in the shard");
    assert!(scheduler.committed(assignments[0].lease, seconds(21)).is_first);
}

#[test]
fn the_loser_of_a_stragglers_two_leases_is_told_to_stop() {
    let mut scheduler = scheduler(1, 2, 2);
    let assignments: Vec<_> = (0..2).map(|_| leased(&mut scheduler, seconds(0))).collect();
    scheduler.committed(assignments[1].lease, seconds(1));
    scheduler.end_input();
    scheduler.progress(assignments[0].lease, 1, 0, seconds(9));
    let second = leased(&mut scheduler, seconds(10));
    let settled = scheduler.committed(second.lease, seconds(11));
    assert_eq!(settled, Settled { is_first: true, losers: vec![assignments[0].lease] });
}

#[test]
fn a_shard_whose_two_leases_expire_together_is_retried_once() {
    let mut scheduler = scheduler(1, 2, 2);
    let assignments: Vec<_> = (0..2).map(|_| leased(&mut scheduler, seconds(0))).collect();
    scheduler.committed(assignments[1].lease, seconds(1));
    scheduler.end_input();
    scheduler.progress(assignments[0].lease, 1, 0, seconds(10));
    let second = leased(&mut scheduler, seconds(10));
    scheduler.progress(second.lease, 0, 0, seconds(10));
    let after: Vec<_> = scheduler.expire(seconds(20)).into_iter().map(|expired| expired.after).collect();
    assert!(matches!(after[..], [AfterFailure::OtherAttempt, AfterFailure::Retry { .. }]), "{after:?}");
}

#[test]
fn parts_found_at_a_restart_are_never_leased() {
    let committed = [ShardIndex(0), ShardIndex(2)].into_iter().collect();
    let mut scheduler = ShardScheduler::new(policy(), committed);
    assert!(!scheduler.offer(ShardIndex(2), 1, 1));
    assert!(scheduler.offer(ShardIndex(1), 1, 1));
    assert_eq!(scheduler.counts(), ShardCounts { waiting: 1, committed: 2, ..ShardCounts::default() });
}
