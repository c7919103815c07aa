//! What a job says of itself: while it runs, and at its end.

use std::time::Duration;

use baton_job::Totals;

/// The state of a running job, published whenever it changes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Everything committed, by this run and by earlier ones.
    pub committed: Totals,
    /// The part of it that earlier runs had committed.
    pub resumed: Totals,
    /// Records decoded in shards that are not committed yet.
    pub in_flight_records: u64,
    /// Tokens of their outputs.
    pub in_flight_output_tokens: u64,
    /// Records read so far, committed ones included; until all are, those that lie in `read_bytes`.
    pub read_records: u64,
    /// Bytes of the input whose records are counted in `read_records`, as stored.
    pub read_bytes: u64,
    /// Bytes of the whole input, as stored.
    pub input_bytes: u64,
    /// Whether `read_records` is all there is.
    pub input_is_read: bool,
}

impl Progress {
    /// Records done, those of uncommitted shards included.
    #[must_use]
    pub fn done_records(&self) -> u64 {
        self.committed.records + self.in_flight_records
    }

    /// Records of the whole input: exact once it is read, before that what its bytes read so far let expect; `None` at
    /// the start.
    #[must_use]
    pub fn expected_records(&self) -> Option<u64> {
        if self.input_is_read {
            return Some(self.read_records);
        }
        if self.read_records == 0 || self.read_bytes == 0 {
            return None;
        }
        let per_byte = self.read_records as f64 / self.read_bytes as f64;
        Some(((per_byte * self.input_bytes as f64) as u64).max(self.done_records()))
    }
}

/// How a job ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// Every record has an output row.
    Complete,
    /// Every record has an output row or an error row.
    CompleteWithFailures,
    /// It was asked to stop. Started again, it goes on where it was.
    Interrupted,
}

/// What a job made.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    /// How it ended.
    pub outcome: JobOutcome,
    /// Everything committed, by this run and by earlier ones.
    pub totals: Totals,
    /// The part of it that earlier runs had committed.
    pub resumed: Totals,
    /// From the start of this run to its end.
    pub elapsed: Duration,
    /// True where the job was complete before this run began.
    pub was_complete: bool,
}

impl JobReport {
    pub(crate) fn complete(totals: Totals, resumed: Totals, elapsed: Duration) -> Self {
        let outcome =
            if totals.errors == 0 { JobOutcome::Complete } else { JobOutcome::CompleteWithFailures };
        JobReport { outcome, totals, resumed, elapsed, was_complete: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_records_is_estimated_from_bytes_until_it_is_known() {
        let mut progress = Progress { input_bytes: 1000, ..Progress::default() };
        assert_eq!(progress.expected_records(), None);
        progress = Progress { read_records: 30, read_bytes: 300, ..progress };
        assert_eq!(progress.expected_records(), Some(100));
        progress = Progress { read_bytes: 1000, read_records: 90, input_is_read: true, ..progress };
        assert_eq!(progress.expected_records(), Some(90));
    }
}
