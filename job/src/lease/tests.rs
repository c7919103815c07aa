//! The lease table against tables of events and against any order of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SHARD: ShardIndex = ShardIndex(0);

fn policy() -> LeasePolicy {
    LeasePolicy {
        lease_ttl: Duration::from_secs(10),
        max_attempts: 3,
        initial_backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(3),
        jitter_seed: 7,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn leased(table: &mut LeaseTable, now: Duration) -> Lease {
    table.next_lease(now).expect("a shard is ready")
}

fn table_with(num_shards: u32) -> LeaseTable {
    let mut table = LeaseTable::new(policy());
    for index in 0..num_shards {
        assert!(table.offer(ShardIndex(index)));
    }
    table
}

#[test]
fn shards_are_leased_in_order_each_to_one_attempt() {
    let mut table = table_with(2);
    assert!(!table.offer(SHARD));
    assert_eq!(leased(&mut table, seconds(0)), Lease { shard: SHARD, attempt: 1 });
    assert_eq!(leased(&mut table, seconds(0)), Lease { shard: ShardIndex(1), attempt: 1 });
    assert_eq!(table.next_lease(seconds(0)), None);
    assert_eq!(table.next_wakeup(), Some(seconds(10)));
}

#[test]
fn an_expired_lease_is_reissued_once() {
    let mut table = table_with(1);
    let first = leased(&mut table, seconds(0));
    assert_eq!(table.expire(seconds(9)), []);
    let [Expired { lease, after: AfterFailure::Retry { not_before } }] = table.expire(seconds(10))[..] else {
        panic!("one lease expires and is retried")
    };
    assert_eq!(lease, first);
    assert!(not_before > seconds(10) && table.next_wakeup() == Some(not_before));
    assert_eq!(table.next_lease(seconds(10)), None);
    assert_eq!(leased(&mut table, not_before), Lease { shard: SHARD, attempt: 2 });
    assert_eq!(table.next_lease(not_before), None);
}

#[test]
fn progress_extends_a_lease_and_a_stale_holder_is_told_to_stop() {
    let mut table = table_with(1);
    let first = leased(&mut table, seconds(0));
    assert!(table.progress(first, seconds(9)));
    assert_eq!(table.expire(seconds(18)), []);
    assert_eq!(table.expire(seconds(19)).len(), 1);
    assert!(!table.progress(first, seconds(19)));
    let second = leased(&mut table, seconds(60));
    assert!(!table.progress(first, seconds(61)));
    assert_eq!(table.failed(first, seconds(61), true), AfterFailure::Stale);
    assert!(table.progress(second, seconds(61)));
}

#[test]
fn a_stale_attempt_may_still_commit_and_the_first_commit_wins() {
    let mut table = table_with(1);
    let first = leased(&mut table, seconds(0));
    table.expire(seconds(10));
    let second = leased(&mut table, seconds(60));
    assert!(table.committed(first.shard));
    assert!(!table.committed(second.shard));
    assert_eq!(table.failed(second, seconds(61), true), AfterFailure::Stale);
    assert_eq!(table.counts(), LeaseCounts { committed: 1, ..Default::default() });
    assert_eq!(table.next_wakeup(), None);
}

#[test]
fn a_shard_is_exhausted_after_its_last_attempt_or_a_permanent_failure() {
    let mut table = table_with(2);
    for attempt in 1..=3 {
        let now = seconds(u64::from(attempt) * 100);
        let lease = leased(&mut table, now);
        assert_eq!(lease.attempt, attempt);
        assert_eq!(table.failed(lease, now, true) == AfterFailure::Exhausted, attempt == 3);
    }
    let other = leased(&mut table, seconds(300));
    assert_eq!(table.failed(other, seconds(300), false), AfterFailure::Exhausted);
    assert_eq!(table.exhausted().collect::<Vec<_>>(), [SHARD, ShardIndex(1)]);
    assert_eq!((table.next_lease(seconds(1000)), table.next_wakeup()), (None, None));
    assert!(table.committed(SHARD)); // by an attempt thought lost
    assert_eq!(table.exhausted().collect::<Vec<_>>(), [ShardIndex(1)]);
}

#[test]
fn backoff_doubles_up_to_its_cap_with_jitter_that_is_the_same_each_time() {
    let policy = policy();
    let mut pauses = Vec::new();
    for (attempt, full) in [(1, 1.0), (2, 2.0), (3, 3.0), (40, 3.0), (u32::MAX, 3.0)] {
        let lease = Lease { shard: SHARD, attempt };
        let pause = policy.backoff(lease).as_secs_f64();
        assert!((full / 2.0..=full).contains(&pause), "attempt {attempt} pauses {pause} s");
        assert_eq!(policy.backoff(lease).as_secs_f64(), pause);
        pauses.push(pause);
    }
    assert_ne!(pauses[3], pauses[4], "attempts do not share their jitter");
}

#[test]
fn parts_found_at_a_restart_are_never_leased() {
    let mut table = LeaseTable::new(policy());
    assert!(table.committed(SHARD));
    assert!(!table.offer(SHARD));
    assert!(table.is_committed(SHARD));
    assert_eq!(table.next_lease(seconds(0)), None);
}

#[derive(Debug, Clone)]
enum Event {
    Offer(u32),
    Lease,
    Wait(u64),
    Progress(usize),
    Commit(usize),
    Fail(usize, bool),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u32..12).prop_map(Event::Offer),
        Just(Event::Lease),
        (0u64..15).prop_map(Event::Wait),
        any::<usize>().prop_map(Event::Progress),
        any::<usize>().prop_map(Event::Commit),
        (any::<usize>(), any::<bool>()).prop_map(|(lease, retryable)| Event::Fail(lease, retryable)),
    ]
}

proptest! {
    /// Events about leases name any lease ever issued, so most of them are late, repeated or stale.
    #[test]
    fn every_offered_shard_ends_committed_once_or_exhausted(
        events in proptest::collection::vec(any_event(), 0..200)
    ) {
        let mut table = LeaseTable::new(policy());
        let mut now = Duration::ZERO;
        let mut issued: Vec<Lease> = Vec::new();
        let mut num_commits: BTreeMap<ShardIndex, u32> = BTreeMap::new();
        for event in events {
            match event {
                Event::Offer(index) => {
                    let fresh = table.offer(ShardIndex(index));
                    prop_assert_eq!(fresh, !num_commits.contains_key(&ShardIndex(index)));
                    num_commits.entry(ShardIndex(index)).or_default();
                }
                Event::Lease => issued.extend(table.next_lease(now)),
                Event::Wait(pause) => {
                    now += seconds(pause);
                    table.expire(now);
                }
                Event::Progress(_) | Event::Commit(_) | Event::Fail(..) if issued.is_empty() => {}
                Event::Progress(choice) => {
                    table.progress(issued[choice % issued.len()], now);
                }
                Event::Commit(choice) => {
                    let shard = issued[choice % issued.len()].shard;
                    *num_commits.entry(shard).or_default() += u32::from(table.committed(shard));
                }
                Event::Fail(choice, retryable) => {
                    table.failed(issued[choice % issued.len()], now, retryable);
                }
            }
        }
        loop {
            table.expire(now);
            while let Some(lease) = table.next_lease(now) {
                issued.push(lease);
                *num_commits.entry(lease.shard).or_default() += u32::from(table.committed(lease.shard));
            }
            match table.next_wakeup() {
                Some(wakeup) => now = now.max(wakeup),
                None => break,
            }
        }
        let exhausted: Vec<ShardIndex> = table.exhausted().collect();
        for (shard, num_commits) in num_commits {
            prop_assert_eq!(num_commits, u32::from(!exhausted.contains(&shard)));
        }
        let mut leases = issued.clone();
        leases.sort_by_key(|lease| (lease.shard, lease.attempt));
        leases.dedup();
        prop_assert_eq!(leases.len(), issued.len(), "no lease is issued twice");
    }
}
