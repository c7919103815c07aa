//! A budget of bytes that the open shards of a service share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_proto::Refusal;
use tonic::Status;

/// Bytes that all open shards together may hold. Clones share the budget.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    max_num_bytes: usize,
    num_bytes: Arc<AtomicUsize>,
}

/// One shard's share of a budget, returned when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    budget: MemoryBudget,
    num_bytes: usize,
}

impl MemoryBudget {
    /// A budget of `max_num_bytes`.
    #[must_use]
    pub fn new(max_num_bytes: usize) -> Self {
        Self { max_num_bytes, num_bytes: Arc::default() }
    }

    /// An empty share.
    #[must_use]
    pub fn share(&self) -> MemoryShare {
        MemoryShare { budget: self.clone(), num_bytes: 0 }
    }
}

impl MemoryShare {
    /// Takes `num_bytes` more, if there is room.
    ///
    /// # Errors
    /// The budget is spent: busy, if other shards have some of it; FAILED_PRECONDITION, if this shard alone
    /// is too large for it.
    pub fn grow(&mut self, num_bytes: usize) -> Result<(), Status> {
        let MemoryBudget { max_num_bytes, num_bytes: spent } = &self.budget;
        let wanted = self.num_bytes.saturating_add(num_bytes);
        if wanted > *max_num_bytes {
            return Err(Status::failed_precondition(format!(
                "the shard's records take more than {max_num_bytes} bytes, all that --max-records-mib allows \
                 for all open shards: raise it, or cut smaller shards"
            )));
        }
        let fits = |spent: usize| spent.checked_add(num_bytes).filter(|sum| sum <= max_num_bytes);
        if spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Refusal::Busy.status("the records of the open shards fill --max-records-mib"));
        }
        self.num_bytes = wanted;
        Ok(())
    }

    /// Makes the share hold `num_bytes`, even beyond the budget: these bytes exist already, so they only keep
    /// other shards away. Bytes that were reserved and are not needed are returned.
    pub fn settle(&mut self, num_bytes: usize) {
        let spent = &self.budget.num_bytes;
        match num_bytes.checked_sub(self.num_bytes) {
            Some(more) => spent.fetch_add(more, Ordering::Relaxed),
            None => spent.fetch_sub(self.num_bytes - num_bytes, Ordering::Relaxed),
        };
        self.num_bytes = num_bytes;
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.num_bytes.fetch_sub(self.num_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_spent_budget_is_busy_until_a_shard_returns_its_share() {
        let budget = MemoryBudget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(60).unwrap();
        let status = second.grow(60).unwrap_err();
        assert_eq!(Refusal::of(&status), Some(Refusal::Busy));
        drop(first);
        second.grow(60).unwrap();
        second.grow(40).unwrap();
    }

    #[test]
    fn existing_bytes_count_beyond_the_budget_and_keep_others_away() {
        let budget = MemoryBudget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(60).unwrap();
        first.settle(130);
        assert_eq!(first.num_bytes(), 130);
        assert_eq!(Refusal::of(&second.grow(1).unwrap_err()), Some(Refusal::Busy));
        first.settle(50);
        second.grow(50).unwrap();
        drop((first, second));
        budget.share().grow(100).unwrap();
    }

    #[test]
    fn a_shard_that_can_never_fit_is_refused_for_good() {
        let mut share = MemoryBudget::new(100).share();
        share.grow(60).unwrap();
        let status = share.grow(60).unwrap_err();
        assert_eq!((Refusal::of(&status), status.code()), (None, Code::FailedPrecondition));
        assert!(status.message().contains("--max-records-mib"), "{status}");
    }
}
