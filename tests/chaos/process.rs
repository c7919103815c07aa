//! One process of the cluster: started, signalled, watched, and started again as an orchestrator would.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::http;
use crate::schedule::Process;

/// How a process was asked to end, and so how it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM: with this exit code.
    Drained(i32),
}

/// A process, running or between two lives.
pub(crate) struct Supervised {
    pub(crate) process: Process,
    command: Box<dyn Fn() -> Command>,
    metrics: SocketAddr,
    log_prefix: PathBuf,
    restart_delay: Duration,
    num_starts: u32,
    running: Option<Child>,
    expected: Option<Ending>,
    starts_again_at: Option<Instant>,
    num_endings: u32,
}

/// How a process and its life are described.
pub(crate) struct Description {
    pub(crate) process: Process,
    pub(crate) command: Box<dyn Fn() -> Command>,
    /// Where its HTTP pages are.
    pub(crate) metrics: SocketAddr,
    /// Its logs are `log_prefix.1.log` for its first life, and so on.
    pub(crate) log_prefix: PathBuf,
    pub(crate) restart_delay: Duration,
}

impl Supervised {
    /// A process that has not been started.
    pub(crate) fn new(description: Description) -> Supervised {
        let Description { process, command, metrics, log_prefix, restart_delay } = description;
        Supervised {
            process,
            command,
            metrics,
            log_prefix,
            restart_delay,
            num_starts: 0,
            running: None,
            expected: None,
            starts_again_at: None,
            num_endings: 0,
        }
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.num_starts += 1;
        let log = self.log();
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = command.spawn().with_context(|| format!("cannot start {}: {command:?}", self.process))?;
        self.running = Some(child);
        self.starts_again_at = None;
        Ok(())
    }

    /// Looks after the process: notes that it has ended, and starts it again when it is time. Returns the
    /// status of a process that ended by itself.
    pub(crate) fn tick(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if let Some(child) = &mut self.running
            && let Some(status) = child.try_wait()?
        {
            self.running = None;
            let Some(expected) = self.expected.take() else { return Ok(Some(status)) };
            if is_complete(self.process, status) {
                return Ok(Some(status)); // it was done before the signal reached it
            }
            self.check_ending(expected, status)?;
            self.num_endings += 1;
            self.starts_again_at = Some(Instant::now() + self.restart_delay);
        }
        if self.starts_again_at.is_some_and(|at| Instant::now() >= at) {
            self.start()?;
        }
        Ok(None)
    }

    fn check_ending(&self, expected: Ending, status: ExitStatus) -> anyhow::Result<()> {
        const SIGKILL: i32 = 9;
        let is_right = match expected {
            Ending::Killed => status.signal() == Some(SIGKILL),
            Ending::Drained(code) => status.code() == Some(code),
        };
        ensure!(is_right, "{} ended with {status}, not as {expected:?}; {}", self.process, self.last_words());
        Ok(())
    }

    /// Whether it is a coordinator, which ends with its job.
    pub(crate) fn is_coordinator(&self) -> bool {
        matches!(self.process, Process::Coordinator(_))
    }

    /// Whether it runs and was not asked to end.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some() && self.expected.is_none()
    }

    /// How often it ended because it was asked to, in the right way.
    pub(crate) fn num_endings(&self) -> u32 {
        self.num_endings
    }

    /// Asks the process to end, which it must do as `ending` says.
    pub(crate) fn end(&mut self, ending: Ending) -> anyhow::Result<()> {
        self.signal(if ending == Ending::Killed { "KILL" } else { "TERM" })?;
        self.expected = Some(ending);
        Ok(())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let Some(child) = &self.running else {
            bail!("{} does not run, so it cannot get SIG{name}", self.process)
        };
        let done = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
        ensure!(done.success(), "{} cannot be sent SIG{name}", self.process);
        Ok(())
    }

    /// Whether the kernel has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let Some(child) = &self.running else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Whether it has come so far as to answer.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(http::get(self.metrics, "/livez"), Ok((200, _)))
    }

    /// Whether it takes work, by its own word.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(http::get(self.metrics, "/readyz"), Ok((200, _)))
    }

    /// Whether it works on a shard, or for a coordinator on its job, by its own metrics.
    pub(crate) fn is_at_work(&self) -> bool {
        let name = match self.process {
            Process::Coordinator(_) => "baton_coordinator_shards_in_flight",
            // A batch is there for a moment; after the first one, others come all the time.
            Process::Reader => "baton_encoder_prompt_tokens_total",
            Process::Encoder(_) | Process::Decoder(_) => "baton_open_shards",
        };
        self.metric(name).is_some_and(|value| value > 0.0)
    }

    /// The sum of a metric over its labels, if the process answers.
    fn metric(&self, name: &str) -> Option<f64> {
        let (_, body) = http::get(self.metrics, "/metrics").ok()?;
        let body = String::from_utf8(body).ok()?;
        let values = body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.reduce(|sum, value| sum + value)
    }

    /// The end of its log, for messages.
    pub(crate) fn last_words(&self) -> String {
        const NUM_LINES: usize = 12;
        let log = self.log();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(NUM_LINES)..];
        format!("{} ends with:\n{}", log.display(), tail.join("\n"))
    }

    fn log(&self) -> PathBuf {
        log_of(&self.log_prefix, self.num_starts)
    }

    /// Ends the process without looking how, and for good.
    pub(crate) fn discard(&mut self) {
        self.starts_again_at = None;
        self.expected = None;
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Whether this is how a coordinator ends whose partition is complete: all records succeeded, or some failed.
pub(crate) fn is_complete(process: Process, status: ExitStatus) -> bool {
    matches!(process, Process::Coordinator(_)) && matches!(status.code(), Some(0 | 3))
}

fn log_of(prefix: &Path, life: u32) -> PathBuf {
    prefix.with_extension(format!("{life}.log"))
}
