//! What a job says of itself: while it runs, and at its end.

use std::collections::VecDeque;
use std::time::Duration;

use baton_job::{BrokenInput, Role, ShardCounts, Totals, WorkerView, broken_inputs_said};

/// The rates shown are those of this long.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Moments in that time at which progress is noted.
const RATE_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How far a job is, or this coordinator's partition of it.
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

/// The state of a running job, published as it changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobStatus {
    /// How far it is.
    pub progress: Progress,
    /// Shards by state.
    pub shards: ShardCounts,
    /// Every worker that is known, encoders first.
    pub workers: Vec<WorkerStatus>,
    /// Why nothing can be leased just now, if so.
    pub obstacle: Option<String>,
    /// Whether no new shard is begun any more.
    pub is_draining: bool,
    /// Since this run began.
    pub elapsed: Duration,
    /// Of the last half minute.
    pub records_per_second: f64,
    /// Of the last half minute.
    pub output_tokens_per_second: f64,
}

/// A worker as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// What is known of it.
    pub view: WorkerView,
    /// Why it failed last.
    pub last_failure: Option<String>,
}

impl Progress {
    /// Records done, those of uncommitted shards included.
    #[must_use]
    pub fn done_records(&self) -> u64 {
        self.committed.records + self.in_flight_records
    }

    /// Tokens written, those of uncommitted shards included.
    #[must_use]
    pub fn done_output_tokens(&self) -> u64 {
        self.committed.output_tokens + self.in_flight_output_tokens
    }

    /// Records of the whole input: exact once it is read, before that what its bytes read so far let expect;
    /// `None` at the start.
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

impl JobStatus {
    /// Time that is left at the present rate; `None` while there is none, or the end is not known.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.progress.expected_records()?.saturating_sub(self.progress.done_records());
        Duration::try_from_secs_f64(left as f64 / self.records_per_second).ok()
    }
}

/// What is said when nothing can be leased for lack of a worker.
pub(crate) fn obstacle(role: Role, workers: &[WorkerStatus]) -> String {
    let name = match role {
        Role::Encoder => "encoder",
        Role::Decoder => "decoder",
    };
    let mut of_role = workers.iter().filter(|worker| worker.view.id.role == role).peekable();
    if of_role.peek().is_none() {
        return format!("no {name} is known yet, waiting for one");
    }
    match of_role.filter_map(|worker| worker.last_failure.as_deref()).next_back() {
        Some(failure) => format!("no {name} takes a shard now, waiting; the last answer: {failure}"),
        None => format!("no {name} takes a shard now, waiting"),
    }
}

/// Rates over the last while.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    /// Moment, records and tokens, oldest first.
    samples: VecDeque<(Duration, u64, u64)>,
}

impl RateMeter {
    /// Records and output tokens a second, of what this run did.
    pub(crate) fn rates(&mut self, now: Duration, progress: &Progress) -> (f64, f64) {
        let (records, tokens) = (progress.done_records(), progress.done_output_tokens());
        if self.samples.back().is_none_or(|(last, ..)| now >= *last + RATE_SAMPLE_INTERVAL) {
            self.samples.push_back((now, records, tokens));
        }
        while self.samples.get(1).is_some_and(|(second, ..)| *second + RATE_WINDOW <= now) {
            self.samples.pop_front();
        }
        let (from, first_records, first_tokens) =
            self.samples.front().copied().unwrap_or((now, records, tokens));
        let seconds = (now - from).as_secs_f64();
        // A failed attempt takes back what it had done.
        let rate = |last: u64, first: u64| last.saturating_sub(first) as f64 / seconds;
        if seconds > 0.0 { (rate(records, first_records), rate(tokens, first_tokens)) } else { (0.0, 0.0) }
    }
}

/// How a job ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// Every record has an output row.
    Complete,
    /// Every record has an output row or an error row.
    CompleteWithFailures,
    /// Inputs are damaged, or changed while they were read: the others are done, and there is no `_SUCCESS`.
    /// Another try changes nothing.
    InputsBroken,
    /// It was asked to stop. Started again, it goes on where it was.
    Interrupted,
}

/// What the small model drafted for the large one, in mode `verified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DraftTotals {
    /// Tokens drafted.
    pub drafted_tokens: u64,
    /// Of these, those that the large model chose too.
    pub accepted_tokens: u64,
    /// Passes of the large model; each chose one token more than it accepted.
    pub llm_passes: u64,
}

impl DraftTotals {
    /// Share of drafts that were right; `None` where nothing was drafted.
    #[must_use]
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.drafted_tokens > 0).then(|| self.accepted_tokens as f64 / self.drafted_tokens as f64)
    }

    /// Tokens that a pass of the large model chose, on average.
    #[must_use]
    pub fn tokens_per_llm_pass(&self) -> f64 {
        1.0 + self.accepted_tokens as f64 / self.llm_passes.max(1) as f64
    }
}

/// What a job made, or this coordinator's partition of it.
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
    /// True where the whole job is complete, not only this partition: `_SUCCESS` exists.
    pub job_has_ended: bool,
    /// What drafting has brought to this run's shards; all 0 where there was none.
    pub drafts: DraftTotals,
    /// Inputs that could not be read to their end.
    pub broken: Vec<BrokenInput>,
    /// Inputs after a broken one that this coordinator left unread, because another one may have read it
    /// before it changed.
    pub num_unread_inputs: usize,
}

impl JobReport {
    /// Of a job that was asked to stop before it began.
    pub(crate) fn not_begun() -> Self {
        let nothing = Totals::default();
        JobReport { outcome: JobOutcome::Interrupted, ..Self::complete(nothing, nothing, Duration::ZERO) }
    }

    pub(crate) fn complete(totals: Totals, resumed: Totals, elapsed: Duration) -> Self {
        let outcome =
            if totals.errors == 0 { JobOutcome::Complete } else { JobOutcome::CompleteWithFailures };
        JobReport {
            outcome,
            totals,
            resumed,
            elapsed,
            was_complete: false,
            job_has_ended: false,
            drafts: DraftTotals::default(),
            broken: Vec::new(),
            num_unread_inputs: 0,
        }
    }

    /// One line about the inputs that are broken, with what to do; `None` where all are sound.
    #[must_use]
    pub fn broken_inputs(&self) -> Option<String> {
        if self.broken.is_empty() {
            return None;
        }
        let unread = match self.num_unread_inputs {
            0 => String::new(),
            number => {
                format!("; {number} inputs after it were left unread, whose shards other coordinators cut")
            }
        };
        Some(broken_inputs_said(&self.broken) + &unread)
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

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let mut meter = RateMeter::default();
        let progress = |records| Progress { in_flight_records: records, ..Progress::default() };
        assert_eq!(meter.rates(Duration::ZERO, &progress(0)).0, 0.0);
        for second in 1..=100 {
            meter.rates(Duration::from_secs(second), &progress(10 * second));
        }
        let (rate, _) = meter.rates(Duration::from_secs(130), &progress(1000));
        assert!(rate < 1.0, "{rate}");
        let status = JobStatus {
            records_per_second: 2.0,
            progress: Progress { read_records: 50, input_is_read: true, ..progress(30) },
            ..JobStatus::default()
        };
        assert_eq!(status.time_left(), Some(Duration::from_secs(10)));
        assert_eq!(JobStatus { records_per_second: 0.0, ..status }.time_left(), None);
    }
}
