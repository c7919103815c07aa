//! A job's reports: while it runs, and at its end.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

use baton_job::{BrokenInput, ReuseCounts, Role, ShardCounts, Totals, WorkerView, broken_inputs_said};

use crate::history::RunHistory;

/// The rates are those of this last period.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Interval of the samples in that period.
const RATE_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The progress of a job, or of this coordinator's partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Everything committed, by this run and by earlier ones.
    pub committed: Totals,
    /// The part that earlier runs had committed.
    pub resumed: Totals,
    /// Records decoded in shards that are not committed yet.
    pub in_flight_records: u64,
    /// Tokens of their outputs.
    pub in_flight_output_tokens: u64,
    /// Records read so far, committed ones included; while reading, those that lie in `read_bytes`.
    pub read_records: u64,
    /// Stored bytes of the input whose records are counted in `read_records`.
    pub read_bytes: u64,
    /// Stored bytes of the whole input.
    pub input_bytes: u64,
    /// Whether `read_records` is final.
    pub input_is_read: bool,
}

/// The state of a running job, published as it changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobStatus {
    /// Its progress.
    pub progress: Progress,
    /// Shards by state.
    pub shards: ShardCounts,
    /// Every known worker, encoders first.
    pub workers: Vec<WorkerStatus>,
    /// The reason why nothing can be leased now, if any.
    pub obstacle: Option<String>,
    /// Whether no new shard is started any more.
    pub is_draining: bool,
    /// Time since this run began.
    pub elapsed: Duration,
    /// Mean of the last half minute.
    pub records_per_second: f64,
    /// Mean of the last half minute.
    pub output_tokens_per_second: f64,
    /// The course of the run so far.
    pub history: RunHistory,
    /// The origin of the outputs that this run has committed.
    pub reuse: ReuseCounts,
}

/// The state of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// The scheduler's knowledge of it.
    pub view: WorkerView,
    /// Its last failure.
    pub last_failure: Option<String>,
}

impl Progress {
    /// Records done, including those of uncommitted shards.
    #[must_use]
    pub fn done_records(&self) -> u64 {
        self.committed.records + self.in_flight_records
    }

    /// Tokens written, including those of uncommitted shards.
    #[must_use]
    pub fn done_output_tokens(&self) -> u64 {
        self.committed.output_tokens + self.in_flight_output_tokens
    }

    /// Records of the whole input: exact once it is read, before that an estimate from the bytes read so far;
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
    /// Remaining time at the present rate; `None` without a rate or a known end.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.progress.expected_records()?.saturating_sub(self.progress.done_records());
        Duration::try_from_secs_f64(left as f64 / self.records_per_second).ok()
    }
}

/// The message when nothing can be leased for lack of a worker.
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

/// Rates over the last period.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    /// Moment, records and tokens, oldest first.
    samples: VecDeque<(Duration, u64, u64)>,
}

impl RateMeter {
    /// This run's records and output tokens per second.
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
        // A failed attempt takes back its progress.
        let rate = |last: u64, first: u64| last.saturating_sub(first) as f64 / seconds;
        if seconds > 0.0 { (rate(records, first_records), rate(tokens, first_tokens)) } else { (0.0, 0.0) }
    }
}

/// The end of a job that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// Every record has an output row.
    Complete,
    /// Every record has an output row or an error row.
    CompleteWithFailures,
    /// Inputs are damaged, or changed while they were read: the others are done, and there is no `_SUCCESS`.
    /// Another try changes nothing.
    InputsBroken,
    /// The job was asked to stop. A restarted job continues where it stopped.
    Interrupted,
}

/// The small model's drafts for the large one, in mode `verified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DraftTotals {
    /// Tokens drafted.
    pub drafted_tokens: u64,
    /// Drafted tokens that the large model also chose.
    pub accepted_tokens: u64,
    /// Passes of the large model; each chose one token more than it accepted.
    pub llm_passes: u64,
}

impl AddAssign for DraftTotals {
    fn add_assign(&mut self, more: DraftTotals) {
        self.drafted_tokens = self.drafted_tokens.saturating_add(more.drafted_tokens);
        self.accepted_tokens = self.accepted_tokens.saturating_add(more.accepted_tokens);
        self.llm_passes = self.llm_passes.saturating_add(more.llm_passes);
    }
}

impl DraftTotals {
    /// Share of correct drafts; `None` without drafts.
    #[must_use]
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.drafted_tokens > 0).then(|| self.accepted_tokens as f64 / self.drafted_tokens as f64)
    }

    /// Mean number of tokens chosen in a pass of the large model.
    #[must_use]
    pub fn tokens_per_llm_pass(&self) -> f64 {
        1.0 + self.accepted_tokens as f64 / self.llm_passes.max(1) as f64
    }
}

/// The result of a job, or of this coordinator's partition.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    /// Its end.
    pub outcome: JobOutcome,
    /// Shards of the whole job, of all partitions; 0 if the inputs were not read to their end.
    pub num_shards: u32,
    /// Everything committed, by this run and by earlier ones.
    pub totals: Totals,
    /// The part that earlier runs had committed.
    pub resumed: Totals,
    /// Time from the start of this run to its end.
    pub elapsed: Duration,
    /// Whether the job was complete before this run began.
    pub was_complete: bool,
    /// Whether the whole job is complete, not only this partition: `_SUCCESS` exists.
    pub job_has_ended: bool,
    /// The drafts of this run's shards; all 0 without drafts.
    pub drafts: DraftTotals,
    /// The origin of the outputs of this run's shards.
    pub reuse: ReuseCounts,
    /// Inputs that could not be read to their end.
    pub broken: Vec<BrokenInput>,
    /// Inputs after a broken one that this coordinator left unread, because another one may have read it
    /// before it changed.
    pub num_unread_inputs: usize,
}

impl JobReport {
    /// The report of a job that was asked to stop before it began.
    pub(crate) fn not_begun() -> Self {
        let nothing = Self::complete(Totals::default(), Totals::default(), Duration::ZERO);
        JobReport { outcome: JobOutcome::Interrupted, ..nothing }
    }

    pub(crate) fn complete(totals: Totals, resumed: Totals, elapsed: Duration) -> Self {
        let outcome =
            if totals.errors == 0 { JobOutcome::Complete } else { JobOutcome::CompleteWithFailures };
        JobReport {
            outcome,
            num_shards: 0,
            totals,
            resumed,
            elapsed,
            was_complete: false,
            job_has_ended: false,
            drafts: DraftTotals::default(),
            reuse: ReuseCounts::default(),
            broken: Vec::new(),
            num_unread_inputs: 0,
        }
    }

    /// Whether every shard of the run is committed.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.outcome, JobOutcome::Complete | JobOutcome::CompleteWithFailures)
    }

    /// This report, plus the report of a later run of other partitions' shards.
    pub(crate) fn with_taken_over(self, more: JobReport) -> JobReport {
        let is_complete = more.is_complete();
        let (mut totals, mut resumed) = (self.totals, self.resumed);
        let (mut drafts, mut reuse) = (self.drafts, self.reuse);
        totals += more.totals;
        resumed += more.resumed;
        drafts += more.drafts;
        reuse += more.reuse;
        let report = JobReport::complete(totals, resumed, self.elapsed + more.elapsed);
        let outcome = if is_complete { report.outcome } else { more.outcome };
        JobReport {
            outcome,
            num_shards: self.num_shards,
            job_has_ended: more.job_has_ended,
            drafts,
            reuse,
            broken: more.broken,
            num_unread_inputs: more.num_unread_inputs,
            ..report
        }
    }

    /// One line about the inputs that are broken, with what to do; `None` if all are sound.
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
