//! The display of `baton run`.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::Duration;

use baton_coordinator::{JobOutcome, JobReport, JobStatus};
use baton_job::{Partition, TierTotals};
use baton_telemetry::tell;
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows progress until the future is dropped: a bar on a terminal, otherwise a line now and then.
pub(crate) async fn show_progress(status: watch::Receiver<JobStatus>) -> Infallible {
    let is_terminal = std::io::stderr().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("the template is valid");
    let bar = Bar(ProgressBar::with_draw_target(None, target).with_style(style));
    let mut ticks = interval(if is_terminal { BAR_INTERVAL } else { LINE_INTERVAL });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first comes at once
    loop {
        ticks.tick().await;
        let (message, progress) = {
            let status = status.borrow();
            (describe(&status), status.progress.clone())
        };
        if is_terminal {
            if let Some(expected) = progress.expected_records() {
                bar.0.set_length(expected);
            }
            bar.0.set_position(progress.done_records());
            bar.0.set_message(message);
        } else {
            tell!("{message}");
        }
    }
}

/// A bar that leaves the terminal when it is dropped.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// One line: records, rates, time left, and the reason for waiting.
fn describe(status: &JobStatus) -> String {
    let progress = &status.progress;
    let done = HumanCount(progress.done_records());
    let rates = format!(
        "{:.1} records/s, {:.0} tokens/s",
        status.records_per_second, status.output_tokens_per_second
    );
    if let Some(obstacle) = &status.obstacle {
        return format!("{done} records; {obstacle}");
    }
    let Some(expected) = progress.expected_records() else {
        return format!("{done} records, {rates}, reading the input");
    };
    let about = if progress.input_is_read { "" } else { "about " };
    let left = status.time_left().map_or("unknown time".to_owned(), |left| HumanDuration(left).to_string());
    let reused = match status.reuse.reused() {
        0 => String::new(),
        _ => format!(", {:.0} % of segments reused", 100.0 * status.reuse.share()),
    };
    format!("{done} of {about}{} records, {rates}{reused}, {left} left", HumanCount(expected))
}

/// Reports the job's results and their place.
pub(crate) fn show_summary(report: &JobReport, (output, suffix): (&str, &str), partition: Partition) {
    let totals = &report.totals;
    let verb = match report.outcome {
        _ if report.was_complete => "was complete before",
        JobOutcome::Complete => "is complete",
        JobOutcome::CompleteWithFailures => "is complete, some records failed",
        JobOutcome::InputsBroken => "has ended, but is not complete",
        JobOutcome::Interrupted => "was interrupted; the same command continues where it stopped",
    };
    if partition.is_whole() || report.was_complete {
        tell!("the job {verb}");
    } else {
        tell!("partition {partition} of the job {verb}");
        match (report.outcome, report.job_has_ended) {
            (JobOutcome::Interrupted | JobOutcome::InputsBroken, _) => {}
            (_, true) => tell!("              it was the last: the job is complete"),
            (_, false) => tell!("              other partitions are not yet"),
        }
    }
    if totals.records == 0 && matches!(report.outcome, JobOutcome::Complete) {
        tell!("              the inputs have no records, so there was nothing to do");
    }
    let succeeded = HumanCount(totals.outputs);
    tell!("  records     {succeeded} succeeded, {} failed", HumanCount(totals.errors));
    if report.resumed.records > 0 && !report.was_complete {
        tell!("              {} of them were done by earlier runs", HumanCount(report.resumed.records));
    }
    let (read, written) = (HumanCount(totals.prompt_tokens), HumanCount(totals.output_tokens));
    match totals.llm_prompt_tokens {
        0 => tell!("  tokens      {read} read, {written} written"),
        by_llm => {
            let by_llm = HumanCount(by_llm);
            tell!(
                "  tokens      {read} read by the small model, {by_llm} by the large one, {written} written"
            );
        }
    }
    let seconds = report.elapsed.as_secs_f64();
    if seconds > 0.0 {
        let records = (totals.records - report.resumed.records) as f64 / seconds;
        let tokens = (totals.output_tokens - report.resumed.output_tokens) as f64 / seconds;
        tell!("  time        {seconds:.1} s, {records:.1} records/s, {tokens:.0} output tokens/s");
    }
    if let Some(rate) = report.drafts.acceptance_rate() {
        let per_pass = report.drafts.tokens_per_llm_pass();
        tell!(
            "  drafts      {:.1} % accepted, {per_pass:.2} tokens per pass of the large model",
            rate * 100.0
        );
    }
    if report.reuse.reused() > 0 {
        tell!("  reuse       {}", report.reuse);
    }
    show_tiers(&totals.tiers);
    if !totals.warnings.is_empty() {
        tell!("  warnings    {}", totals.warnings);
    }
    if !totals.terms.is_empty() {
        tell!("  terms       {}", totals.terms);
    }
    let (shards, bytes) = (HumanCount(totals.shards), HumanBytes(totals.output_bytes));
    tell!("  outputs     {output}/part-*{suffix}: {shards} parts, {bytes}");
    if totals.errors > 0 {
        tell!("  errors      {output}/errors/part-*.jsonl");
    }
}

/// A line for each tier of a cascade: its records, its work, and the estimates before and after.
pub(crate) fn show_tiers(tiers: &TierTotals) {
    let num_records = tiers.iter().next().map_or(0, |first| first.records).max(1);
    for (place, tier) in tiers.iter().enumerate() {
        let share = 100.0 * tier.records as f64 / num_records as f64;
        let (records, outputs) = (HumanCount(tier.records), HumanCount(tier.outputs));
        let (read, written) = (HumanCount(tier.prompt_tokens), HumanCount(tier.output_tokens));
        let gain = tiers.gain(place).map_or(String::new(), |(before, after)| {
            format!("; mean estimate {before:.3} before, {after:.3} after")
        });
        tell!(
            "  tier        {}: {records} records ({share:.1} %), {outputs} outputs kept; {read} tokens read, \
             {written} written{gain}",
            tier.name
        );
    }
}
