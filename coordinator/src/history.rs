//! The course of a run: its progress over time, and how long workers were there. Memory is bounded.

use std::time::Duration;

use baton_job::{Role, WorkerState};
use serde::Serialize;

use crate::{Progress, WorkerStatus};

/// When this many samples are held, every second one goes, and the interval doubles.
const MAX_SAMPLES: usize = 240;

/// Time between samples at the beginning.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// This run's work at a moment of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the run began.
    pub seconds: f64,
    /// Records that this run has done since it began.
    pub records: u64,
    /// Tokens of their outputs.
    pub output_tokens: u64,
}

/// Samples of a run, and the time of its workers.
#[derive(Debug, Clone, PartialEq)]
pub struct RunHistory {
    samples: Vec<Sample>,
    interval: Duration,
    looked_at: Duration,
    encoder_time: Duration,
    decoder_time: Duration,
}

impl Default for RunHistory {
    fn default() -> Self {
        RunHistory {
            samples: Vec::new(),
            interval: FIRST_INTERVAL,
            looked_at: Duration::ZERO,
            encoder_time: Duration::ZERO,
            decoder_time: Duration::ZERO,
        }
    }
}

impl RunHistory {
    /// Takes in the state at `now`, the time since the run began.
    pub(crate) fn record(&mut self, now: Duration, progress: &Progress, workers: &[WorkerStatus]) {
        let passed = now.saturating_sub(self.looked_at);
        self.looked_at = now;
        for worker in workers.iter().filter(|worker| worker.view.state != WorkerState::Left) {
            match worker.view.id.role {
                Role::Encoder => self.encoder_time += passed,
                Role::Decoder => self.decoder_time += passed,
            }
        }
        let is_due = |last: &Sample| now.as_secs_f64() >= last.seconds + self.interval.as_secs_f64();
        if !self.samples.last().is_none_or(is_due) {
            return;
        }
        self.samples.push(sample(now, progress));
        if self.samples.len() >= MAX_SAMPLES {
            self.samples = self.samples.iter().copied().step_by(2).collect();
            self.interval *= 2;
        }
    }

    /// The samples, and one of the present state.
    pub(crate) fn with_end(&self, now: Duration, progress: &Progress) -> Vec<Sample> {
        self.samples.iter().copied().chain([sample(now, progress)]).collect()
    }

    /// The samples, oldest first.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The time that encoders were known to this run, summed over them.
    #[must_use]
    pub fn encoder_time(&self) -> Duration {
        self.encoder_time
    }

    /// The time that decoders were known to this run, summed over them.
    #[must_use]
    pub fn decoder_time(&self) -> Duration {
        self.decoder_time
    }
}

fn sample(now: Duration, progress: &Progress) -> Sample {
    Sample {
        seconds: now.as_secs_f64(),
        records: progress.done_records().saturating_sub(progress.resumed.records),
        output_tokens: progress.done_output_tokens().saturating_sub(progress.resumed.output_tokens),
    }
}

#[cfg(test)]
mod tests {
    use baton_job::Totals;

    use super::*;

    #[test]
    fn a_long_run_has_few_samples_that_span_it_evenly() {
        let mut history = RunHistory::default();
        let resumed = Totals { records: 7, ..Totals::default() };
        for second in 0..100_000_u64 {
            let progress =
                Progress { resumed: resumed.clone(), in_flight_records: 7 + second, ..Progress::default() };
            history.record(Duration::from_secs(second), &progress, &[]);
        }
        let samples = history.samples();
        assert!((MAX_SAMPLES / 2 - 1..MAX_SAMPLES).contains(&samples.len()), "{}", samples.len());
        assert_eq!(samples[0].records, 0, "the work of earlier runs does not count");
        let gaps: Vec<f64> = samples.windows(2).map(|pair| pair[1].seconds - pair[0].seconds).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
        assert!(samples.iter().all(|sample| sample.records as f64 == sample.seconds));
    }
}
