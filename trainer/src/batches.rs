//! The pairs of each step: a pure function of seed, lengths and token budget.
//!
//! Each epoch is a new permutation, cut into pools of neighbours. A pool is sorted by length, so that a
//! step's pairs have similar lengths, and is cut under the token budget. The batches are shuffled. Step `n`
//! can be found from `n` alone.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Pairs sorted together before batches are cut. Large enough for even batches, small enough to stay random.
const POOL_NUM_PAIRS: usize = 4096;

/// The pairs of an epoch: all of the first kind, and as many of the others as their share needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    num_first: usize,
    num_others: usize, // that there are
    num_drawn: usize,  // that an epoch takes of them
}

impl Mix {
    /// All pairs are of one kind.
    pub(crate) fn none(num_pairs: usize) -> Self {
        Self { num_first: num_pairs, num_others: 0, num_drawn: 0 }
    }

    /// `share`: of the others among the pairs of an epoch, below 1.
    pub(crate) fn new(num_first: usize, num_others: usize, share: f64) -> Self {
        let num_drawn = (num_first as f64 * share / (1.0 - share)).round() as usize;
        Self { num_first, num_others, num_drawn: if num_others == 0 { 0 } else { num_drawn } }
    }

    /// The pairs of an epoch. Of the others, it takes those after the previous epoch's, round and round.
    fn pairs(self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut others: Vec<usize> = (self.num_first..self.num_first + self.num_others).collect();
        others.shuffle(&mut ChaCha8Rng::seed_from_u64(seed ^ u64::MAX));
        let start = epoch as usize * self.num_drawn;
        let drawn = (start..start + self.num_drawn).map(|place| others[place % others.len()]);
        (0..self.num_first).chain(drawn).collect()
    }
}

/// The batches of one epoch, as indices of pairs.
///
/// `row_counts`: rows of each pair. Every pair of the mix is in exactly one batch; no batch exceeds `budget`
/// rows unless it is a single pair.
pub(crate) fn epoch_batches(
    row_counts: &[usize],
    mix: Mix,
    budget: usize,
    (seed, epoch): (u64, u64),
) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let mut order = mix.pairs(seed, epoch);
    order.shuffle(&mut rng);
    let mut batches = Vec::new();
    for pool in order.chunks_mut(POOL_NUM_PAIRS) {
        pool.sort_by_key(|&pair| row_counts[pair]);
        batches.extend(cut_batches(pool, row_counts, budget));
    }
    batches.shuffle(&mut rng);
    batches
}

/// Cuts an ordered list of pairs into consecutive batches of at most `budget` rows.
pub(crate) fn cut_batches(order: &[usize], row_counts: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut rows = 0;
    for &pair in order {
        match batches.last_mut() {
            Some(batch) if rows + row_counts[pair] <= budget => {
                batch.push(pair);
                rows += row_counts[pair];
            }
            _ => {
                batches.push(vec![pair]);
                rows = row_counts[pair];
            }
        }
    }
    batches
}

/// Hands out the batch of any step, epoch after epoch.
#[derive(Debug)]
pub(crate) struct BatchSchedule {
    row_counts: Vec<usize>,
    mix: Mix,
    budget: usize,
    seed: u64,
    epoch: u64,
    first_step: usize,
    batches: Vec<Vec<usize>>,
}

impl BatchSchedule {
    pub(crate) fn new(row_counts: Vec<usize>, mix: Mix, budget: usize, seed: u64) -> Self {
        let batches = epoch_batches(&row_counts, mix, budget, (seed, 0));
        Self { row_counts, mix, budget, seed, epoch: 0, first_step: 0, batches }
    }

    /// The pairs of `step`. Steps are asked for in rising order.
    pub(crate) fn batch(&mut self, step: usize) -> &[usize] {
        while step >= self.first_step + self.batches.len() {
            self.first_step += self.batches.len();
            self.epoch += 1;
            self.batches = epoch_batches(&self.row_counts, self.mix, self.budget, (self.seed, self.epoch));
        }
        &self.batches[step - self.first_step]
    }

    /// Passes over the data up to and with `step`, as a fraction.
    pub(crate) fn epochs_at(&self, step: usize) -> f64 {
        self.epoch as f64 + (step + 1 - self.first_step) as f64 / self.batches.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Vec<usize> {
        (0..10_000).map(|i| 5 + (i * 7919) % 60).collect()
    }

    fn all() -> Mix {
        Mix::none(lengths().len())
    }

    #[test]
    fn mixed_in_pairs_have_their_share_and_take_turns() {
        let mix = Mix::new(60, 50, 0.25); // 20 of the 50 an epoch
        let others = |epoch| -> Vec<usize> {
            let mut pairs: Vec<usize> = epoch_batches(&lengths(), mix, 512, (1, epoch)).concat();
            pairs.sort_unstable();
            assert_eq!(pairs[..60], (0..60).collect::<Vec<_>>(), "all of the first are there");
            pairs.split_off(60)
        };
        let mut taken: Vec<usize> = (0..5).flat_map(others).collect();
        assert_eq!(taken.len(), 100);
        taken.sort_unstable();
        assert!(taken.chunks(2).zip(60..110).all(|(pair, other)| pair == [other, other]), "{taken:?}");
        let few = Mix::new(60, 5, 0.25).pairs(1, 0);
        assert_eq!(few.iter().filter(|&&pair| pair == 62).count(), 4, "fewer come several times");
    }

    #[test]
    fn every_pair_is_in_exactly_one_batch_of_an_epoch() {
        let lengths = lengths();
        let mut seen: Vec<usize> =
            epoch_batches(&lengths, all(), 512, (1, 3)).into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
    }

    #[test]
    fn no_batch_exceeds_its_token_budget() {
        let lengths = lengths();
        for batch in epoch_batches(&lengths, all(), 512, (1, 0)) {
            assert!(batch.iter().map(|&i| lengths[i]).sum::<usize>() <= 512);
        }
    }

    #[test]
    fn a_pair_longer_than_the_budget_is_a_batch_of_its_own() {
        assert_eq!(cut_batches(&[0, 1, 2], &[4, 20, 4], 10), vec![vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn a_step_asked_of_a_fresh_schedule_is_the_same_batch() {
        let mut running = BatchSchedule::new(lengths(), all(), 512, 42);
        let far = (0..3000).map(|step| running.batch(step).to_vec()).next_back().unwrap();
        let mut fresh = BatchSchedule::new(lengths(), all(), 512, 42);
        assert_eq!(fresh.batch(2999), far);
        assert!(fresh.epochs_at(2999) > 2.0, "the step lies in a later epoch");
    }

    #[test]
    fn epochs_differ_from_each_other() {
        let lengths = lengths();
        assert_ne!(epoch_batches(&lengths, all(), 512, (1, 0)), epoch_batches(&lengths, all(), 512, (1, 1)));
    }
}
