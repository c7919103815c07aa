//! The signals by which a job is asked to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Shutdown;

/// The exit code of a job that was interrupted. The same command goes on where it was.
pub const INTERRUPTED: u8 = 130;

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop, and says so by `on_signal`: the first drains; the
/// second ends the process at once, whatever it does, with the exit code of an interrupted job. Nothing is
/// lost by that, since each commit is atomic. Under `nohup`, SIGHUP stays ignored.
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

/// Waits for the wish to stop.
pub async fn asked_to_stop(mut shutdown: watch::Receiver<Shutdown>) {
    if shutdown.wait_for(|wish| *wish != Shutdown::No).await.is_err() {
        std::future::pending::<()>().await; // nobody is left who could ask
    }
}

/// Ends the process as an interrupted job does, without waiting for any thread. One that loads a model or
/// waits for the network may take long, and must not meet a library that tidies up.
pub fn exit_interrupted() -> ! {
    signal_hook::low_level::exit(INTERRUPTED.into())
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does. Must be asked before the signal is
/// caught.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // absent but on Linux
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0) // SIGHUP is signal 1
}
