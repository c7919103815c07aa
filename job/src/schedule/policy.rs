//! The numbers of scheduling, and pauses that grow.

use std::time::Duration;

/// The duration of leases, the retries of failures, and the number of shards per worker.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulePolicy {
    /// A lease without progress for this long expires.
    pub lease_ttl: Duration,
    /// A shard that broke this many attempts is searched for the record that breaks them. At least 1.
    pub max_attempts: u32,
    /// A record is called poisonous once it broke this many attempts alone. At least 1.
    pub max_probe_attempts: u32,
    /// A shard that still breaks attempts after this many searches is given up, and the job with it.
    pub max_searches: u32,
    /// A shard whose commit the output store prevented this many times is given up. With the default pauses,
    /// that takes five minutes.
    pub max_store_attempts: u32,
    /// Pauses of a shard between its attempts.
    pub retry: Backoff,
    /// Pauses of a worker that failed.
    pub rest: Backoff,
    /// Pauses of a worker that reported no room.
    pub busy: Backoff,
    /// Shards that one decoder has at once; also an encoder, if there are as many of both.
    pub shards_per_worker: u32,
    /// At the end of the job, a lease that is older than the typical one by this factor is doubled.
    pub straggler_factor: u32,
    /// No younger lease is doubled.
    pub min_straggler_age: Duration,
    /// Makes the jitter of two jobs differ.
    pub jitter_seed: u64,
}

/// A pause that doubles with each repetition, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Default for SchedulePolicy {
    fn default() -> Self {
        SchedulePolicy {
            lease_ttl: Duration::from_secs(60),
            max_attempts: 4,
            max_probe_attempts: 3,
            max_searches: 3,
            max_store_attempts: 16,
            retry: Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30) },
            rest: Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30) },
            busy: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(2) },
            shards_per_worker: 4,
            straggler_factor: 2,
            min_straggler_age: Duration::from_secs(10),
            jitter_seed: 0,
        }
    }
}

impl Backoff {
    /// The `nth` pause, from 1, with "equal jitter": between half of it and all of it. The same `seed` gives
    /// the same jitter.
    pub fn pause(self, nth: u32, seed: u64) -> Duration {
        let doublings = nth.saturating_sub(1).min(31);
        let pause = self.initial.saturating_mul(1 << doublings).min(self.max);
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
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_limit_with_jitter_that_is_the_same_each_time() {
        let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(3) };
        for (nth, full) in [(1, 1.0), (2, 2.0), (3, 3.0), (40, 3.0), (u32::MAX, 3.0)] {
            let pause = backoff.pause(nth, 7).as_secs_f64();
            assert!((full / 2.0..=full).contains(&pause), "pause {nth} is {pause} s");
            assert_eq!(backoff.pause(nth, 7).as_secs_f64(), pause);
        }
        assert_ne!(backoff.pause(1, 7), backoff.pause(1, 8));
    }
}
