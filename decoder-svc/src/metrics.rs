//! The decoder's metrics.

use baton_job::ReuseCounts;
use baton_telemetry::{Counter, Histogram, LabelledCounter, MetricsRegistry, seconds_histogram};

use crate::engine::EngineLoad;

/// Counters of a decoder; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct DecoderMetrics {
    pub(crate) output_tokens: Counter,
    /// Rows decoded twice.
    pub(crate) retried_rows: Counter,
    /// Of mode `verified`.
    pub(crate) drafted_tokens: Counter,
    pub(crate) accepted_tokens: Counter,
    pub(crate) llm_passes: Counter,
    /// Time of a commit, all its steps.
    pub(crate) commit_seconds: Histogram,
    pub(crate) committed_bytes: Counter,
    /// Segments by the origin of their outputs.
    pub(crate) segments: LabelledCounter,
    /// Why a cache of outputs was of no use.
    pub(crate) cache_problems: LabelledCounter,
}

impl Default for DecoderMetrics {
    fn default() -> Self {
        Self {
            output_tokens: Counter::default(),
            retried_rows: Counter::default(),
            drafted_tokens: Counter::default(),
            accepted_tokens: Counter::default(),
            llm_passes: Counter::default(),
            commit_seconds: seconds_histogram(),
            committed_bytes: Counter::default(),
            segments: LabelledCounter::new("origin"),
            cache_problems: LabelledCounter::new("problem"),
        }
    }
}

impl DecoderMetrics {
    /// Counts the segments of an attempt.
    pub(crate) fn count(&self, counts: ReuseCounts) {
        let ReuseCounts { segments, repeated, remembered, cached } = counts;
        let decoded = segments.saturating_sub(counts.reused());
        for (origin, number) in
            [("decoded", decoded), ("repeated", repeated), ("remembered", remembered), ("cached", cached)]
        {
            self.segments.of(origin).inc_by(number);
        }
    }

    /// Registers them, and the load of the engine.
    pub(crate) fn register(&self, metrics: &MetricsRegistry, engine: EngineLoad) {
        metrics.counter("baton_decoder_output_tokens_total", "Tokens written", &self.output_tokens);
        let help = "Rows decoded once more, because their first output had flaws";
        metrics.counter("baton_decoder_retried_rows_total", help, &self.retried_rows);
        let help = "Mode verified: tokens the small model has drafted";
        metrics.counter("baton_decoder_drafted_tokens_total", help, &self.drafted_tokens);
        let help = "Mode verified: drafted tokens that the large model also chose";
        metrics.counter("baton_decoder_accepted_tokens_total", help, &self.accepted_tokens);
        let help = "Mode verified: passes of the large model, a row's part in a pass counted once";
        metrics.counter("baton_decoder_llm_passes_total", help, &self.llm_passes);
        metrics.histogram("baton_commit_seconds", "Time of a commit", &self.commit_seconds);
        let help = "Bytes of the parts that this decoder has created";
        metrics.counter("baton_committed_bytes_total", help, &self.committed_bytes);
        let help = "Segments by the origin of their outputs: decoded, repeated, remembered or cached";
        metrics.labelled_counter("baton_decoder_segments_total", help, &self.segments);
        let help = "Uses of a cache of outputs that failed: unreachable, late or damaged";
        metrics.labelled_counter("baton_decoder_cache_problems_total", help, &self.cache_problems);
        let load = engine.clone();
        metrics
            .reading("baton_decoder_slots_in_use", "Rows being decoded", move || load.slots_in_use() as i64);
        let help = "Prompt tokens that wait for a slot: the depth of the decoder's queue";
        metrics.reading("baton_decoder_waiting_tokens", help, move || engine.waiting_tokens() as i64);
    }
}
