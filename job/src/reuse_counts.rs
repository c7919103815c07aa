//! The number of segments by the origin of their outputs: decoders count them, and receipts, the manifest and
//! the report sum them up.
//!
//! These numbers tell how a run went, like its time. They are no part of verdicts, because another attempt at
//! a shard may find more or less than the first, for the same output.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Segments by the origin of their outputs; those of none of the others were decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReuseCounts {
    /// All segments.
    pub segments: u64,
    /// They equal another one of their shard.
    pub repeated: u64,
    /// The decoder remembered them from earlier shards of the job.
    pub remembered: u64,
    /// They were in the job's cache.
    pub cached: u64,
}

impl ReuseCounts {
    /// Segments that were not decoded.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.repeated.saturating_add(self.remembered).saturating_add(self.cached)
    }

    /// The share of such segments, 0 to 1; 0 without segments.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.segments == 0 { 0.0 } else { self.reused() as f64 / self.segments as f64 }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for ReuseCounts {
    /// Counts of workers may have any value.
    fn add_assign(&mut self, more: ReuseCounts) {
        self.segments = self.segments.saturating_add(more.segments);
        self.repeated = self.repeated.saturating_add(more.repeated);
        self.remembered = self.remembered.saturating_add(more.remembered);
        self.cached = self.cached.saturating_add(more.cached);
    }
}

/// As in `95.0 % of 200 segments reused (10 repeated, 0 remembered, 180 cached)`.
impl fmt::Display for ReuseCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReuseCounts { segments, repeated, remembered, cached } = self;
        let percent = 100.0 * self.share();
        write!(f, "{percent:.1} % of {segments} segments reused ")?;
        write!(f, "({repeated} repeated, {remembered} remembered, {cached} cached)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_whatever_workers_say() {
        let mut counts = ReuseCounts::default();
        assert!(counts.is_empty() && counts.share() == 0.0);
        counts += ReuseCounts { segments: 150, repeated: 10, remembered: 0, cached: 130 };
        counts += ReuseCounts { segments: 50, cached: 50, ..ReuseCounts::default() };
        let said = "95.0 % of 200 segments reused (10 repeated, 0 remembered, 180 cached)";
        assert_eq!(counts.to_string(), said);
        counts += ReuseCounts { segments: u64::MAX, cached: u64::MAX, ..counts };
        assert_eq!(counts.reused(), u64::MAX);
    }
}
