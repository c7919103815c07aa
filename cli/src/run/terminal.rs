//! What `baton run` shows, and the signals it obeys.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use baton_coordinator::{JobOutcome, JobReport, Progress, Shutdown};
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop: the first drains, the second stops at once. Under `nohup`, SIGHUP
/// stays ignored.
pub(crate) fn watch_signals() -> anyhow::Result<watch::Receiver<Shutdown>> {
    let obeys_hangups = !ignores_hangups();
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminations = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut hangups = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    let (wish, shutdown) = watch::channel(Shutdown::No);
    tokio::spawn(async move {
        for next in [Shutdown::Drain, Shutdown::Now] {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
                _ = hangups.recv(), if obeys_hangups => {}
            }
            if next == Shutdown::Drain {
                eprintln!("finishing the shards in flight; interrupt again to stop at once");
            }
            wish.send_replace(next);
        }
    });
    Ok(shutdown)
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does. Must be asked before the signal is caught.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // absent but on Linux
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0) // SIGHUP is signal 1
}

/// Shows progress until the job drops its end: a bar on a terminal, otherwise a line now and then.
pub(crate) async fn show_progress(mut progress: watch::Receiver<Progress>) {
    let is_terminal = std::io::stderr().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("the template is valid");
    let bar = ProgressBar::with_draw_target(None, target).with_style(style);
    let started = Instant::now();
    let mut ticks = interval(if is_terminal { BAR_INTERVAL } else { LINE_INTERVAL });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first comes at once
    loop {
        tokio::select! {
            _closed = progress.wait_for(|_| false) => break,
            _ = ticks.tick() => {}
        }
        let state = *progress.borrow();
        let message = describe(&state, started.elapsed());
        if is_terminal {
            if let Some(expected) = state.expected_records() {
                bar.set_length(expected);
            }
            bar.set_position(state.done_records());
            bar.set_message(message);
        } else {
            eprintln!("{message}");
        }
    }
    bar.finish_and_clear();
}

/// One line: records, rates of this run, time left.
fn describe(progress: &Progress, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let done = progress.done_records();
    let records_per_second = (done - progress.resumed.records) as f64 / seconds;
    let tokens = progress.committed.output_tokens + progress.in_flight_output_tokens;
    let tokens_per_second = (tokens - progress.resumed.output_tokens) as f64 / seconds;
    let rates = format!("{records_per_second:.1} records/s, {tokens_per_second:.0} tokens/s");
    let Some(expected) = progress.expected_records() else {
        return format!("{} records, {rates}, reading the input", HumanCount(done));
    };
    let about = if progress.input_is_read { "" } else { "about " };
    let left = if records_per_second > 0.0 {
        let left = expected.saturating_sub(done) as f64 / records_per_second;
        HumanDuration(Duration::from_secs_f64(left)).to_string()
    } else {
        "unknown time".to_owned()
    };
    format!("{} of {about}{} records, {rates}, {left} left", HumanCount(done), HumanCount(expected),)
}

/// Says what a job made and where it is.
pub(crate) fn show_summary(report: &JobReport, output: &str) {
    let totals = &report.totals;
    let verb = match report.outcome {
        _ if report.was_complete => "was complete before",
        JobOutcome::Complete => "is complete",
        JobOutcome::CompleteWithFailures => "is complete, some records failed",
        JobOutcome::Interrupted => "was interrupted; the same command goes on where it was",
    };
    eprintln!("the job {verb}");
    let succeeded = HumanCount(totals.outputs);
    eprintln!("  records     {succeeded} succeeded, {} failed", HumanCount(totals.errors));
    if report.resumed.records > 0 && !report.was_complete {
        eprintln!("              {} of them were done by earlier runs", HumanCount(report.resumed.records));
    }
    let (read, written) = (HumanCount(totals.prompt_tokens), HumanCount(totals.output_tokens));
    eprintln!("  tokens      {read} read, {written} written");
    let seconds = report.elapsed.as_secs_f64();
    if seconds > 0.0 {
        let records = (totals.records - report.resumed.records) as f64 / seconds;
        let tokens = (totals.output_tokens - report.resumed.output_tokens) as f64 / seconds;
        eprintln!("  time        {seconds:.1} s, {records:.1} records/s, {tokens:.0} output tokens/s");
    }
    let (shards, bytes) = (HumanCount(totals.shards), HumanBytes(totals.output_bytes));
    eprintln!("  outputs     {output}/part-*.jsonl: {shards} parts, {bytes}");
    if totals.errors > 0 {
        eprintln!("  errors      {output}/errors/part-*.jsonl");
    }
}
