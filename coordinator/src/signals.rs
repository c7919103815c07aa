//! The signals that ask a job to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Shutdown;

/// The exit code of an interrupted job. The same command continues it.
pub const INTERRUPTED: u8 = 130;

/// Turns SIGINT, SIGTERM and SIGHUP into requests to stop, and reports them through `on_signal`. The first
/// drains. The second ends the process at once with the exit code of an interrupted job. No committed work is
/// lost, because each commit is atomic. Under `nohup`, SIGHUP stays ignored.
///
/// # Errors
/// A signal cannot be caught.
pub fn watch_signals(
    on_signal: impl Fn(Shutdown) + Send + 'static,
) -> std::io::Result<watch::Receiver<Shutdown>> {
    let obeys_hangups = !ignores_hangups();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let (wish, shutdown) = watch::channel(Shutdown::No);
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
                _ = hangups.recv(), if obeys_hangups => {}
            }
        };
        next().await;
        wish.send_replace(Shutdown::Drain);
        on_signal(Shutdown::Drain);
        next().await;
        on_signal(Shutdown::Now);
        exit_interrupted();
    });
    Ok(shutdown)
}

/// Waits for the request to stop.
pub async fn asked_to_stop(mut shutdown: watch::Receiver<Shutdown>) {
    if shutdown.wait_for(|wish| *wish != Shutdown::No).await.is_err() {
        std::future::pending::<()>().await; // nobody is left who could ask
    }
}

/// Ends the process like an interrupted job, without waiting for any thread. A thread that loads a model or
/// waits for the network may take long, and must not run into a library that is shutting down.
pub fn exit_interrupted() -> ! {
    signal_hook::low_level::exit(INTERRUPTED.into())
}

/// Whether the process was started with SIGHUP ignored, as under `nohup`. Call it before the signal is
/// caught.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // absent but on Linux
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0) // SIGHUP is signal 1
}
