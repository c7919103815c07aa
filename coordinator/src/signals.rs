//! The signals by which a job is asked to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Shutdown;

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop: the first drains, after which `on_drain` is called, the second stops at
/// once. Under `nohup`, SIGHUP stays ignored.
///
/// # Errors
/// A signal cannot be caught.
pub fn watch_signals(on_drain: impl FnOnce() + Send + 'static) -> std::io::Result<watch::Receiver<Shutdown>> {
    let obeys_hangups = !ignores_hangups();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let (wish, shutdown) = watch::channel(Shutdown::No);
    tokio::spawn(async move {
        let mut on_drain = Some(on_drain);
        for next in [Shutdown::Drain, Shutdown::Now] {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
                _ = hangups.recv(), if obeys_hangups => {}
            }
            wish.send_replace(next);
            if let Some(on_drain) = on_drain.take() {
                on_drain();
            }
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
