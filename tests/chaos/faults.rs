//! Executes the schedule: each fault begins when enough is committed, lasts, and ends only after it took
//! effect.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cluster::Cluster;
use crate::link::Mode;
use crate::process::Ending;
use crate::schedule::{Fault, LATEST_SHARE, Links, Plan, PlannedFault, Process};

/// A fault that has been felt is held at least this long.
const MIN_HOLD: Duration = Duration::from_millis(200);
/// The proxy's setting for a fault that concerns all calls, percent.
const ALL_CALLS: u32 = 100;
const NO_CALLS: u32 = 0;

const EXIT_DRAINED: i32 = 0;
const EXIT_INTERRUPTED: i32 = 130;

/// All faults of a run, which may go over several jobs, as far as they have come.
pub(crate) struct Faults {
    waiting: Vec<PlannedFault>,
    active: Vec<ActiveFault>,
    num_felt: usize,
    /// The times of all faults, beside the processes' logs.
    diary: Diary,
}

struct Diary {
    file: File,
    started: Instant,
}

impl Diary {
    fn write(&mut self, what: &str, fault: Fault) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(writeln!(self.file, "{seconds:7.2} s: {what} {fault}")?)
    }
}

/// A fault that has begun.
struct ActiveFault {
    fault: Fault,
    began: Instant,
    /// The counter that shows whether the fault took effect, at its beginning.
    count_before: u64,
}

impl Faults {
    /// No fault has begun. Writes a diary of them into `directory`.
    pub(crate) fn of(plan: &Plan, directory: &Path) -> anyhow::Result<Faults> {
        let diary = Diary { file: File::create(directory.join("faults.log"))?, started: Instant::now() };
        Ok(Faults { waiting: plan.faults.clone(), active: Vec::new(), num_felt: 0, diary })
    }

    /// Begins the faults that are due after `num_jobs_done` jobs and this share of the next job's parts. Ends
    /// those that lasted long enough and took effect.
    pub(crate) fn tick(
        &mut self,
        cluster: &mut Cluster,
        num_jobs_done: usize,
        committed_share: f64,
    ) -> anyhow::Result<()> {
        let mut still_active = Vec::new();
        for active in std::mem::take(&mut self.active) {
            let is_over = active.began.elapsed() >= active.fault.duration() && active.is_felt(cluster)?;
            if is_over {
                end(active.fault, cluster).with_context(|| format!("ending `{}`", active.fault))?;
                self.num_felt += 1;
                self.diary.write("end", active.fault)?;
            } else {
                still_active.push(active);
            }
        }
        self.active = still_active;

        let mut still_waiting = Vec::new();
        for planned in std::mem::take(&mut self.waiting) {
            let is_due = planned.after_share <= num_jobs_done as f64 + committed_share
                && committed_share <= LATEST_SHARE
                && self.active.iter().all(|active| !active.fault.disturbs_the_same_as(planned.fault));
            let count_before = if is_due { count(planned.fault, cluster)? } else { 0 };
            if is_due
                && begin(planned.fault, cluster).with_context(|| format!("beginning `{}`", planned.fault))?
            {
                self.diary.write("begin", planned.fault)?;
                self.active.push(ActiveFault { fault: planned.fault, began: Instant::now(), count_before });
            } else {
                still_waiting.push(planned);
            }
        }
        self.waiting = still_waiting;
        Ok(())
    }

    /// Ends running faults when a job is done. A fault without effect waits for the next job, and a decoder
    /// without work will find some there.
    pub(crate) fn end_job(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for active in std::mem::take(&mut self.active) {
            let is_felt = active.is_felt(cluster)?;
            if !is_felt && matches!(active.fault, Fault::Join(_)) {
                self.active.push(active);
                continue;
            }
            end(active.fault, cluster)?;
            if is_felt {
                self.num_felt += 1;
                self.diary.write("end", active.fault)?;
            } else {
                self.diary.write("not felt:", active.fault)?;
                self.waiting.push(PlannedFault { after_share: 0.0, fault: active.fault });
            }
        }
        Ok(())
    }

    /// Whether every fault has been felt.
    pub(crate) fn are_over(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} felt", self.num_felt)?;
        if self.are_over() {
            return Ok(());
        }
        let active: Vec<String> = self.active.iter().map(|active| active.fault.to_string()).collect();
        let waiting: Vec<String> = self.waiting.iter().map(|planned| planned.fault.to_string()).collect();
        write!(f, ", active: [{}], waiting: [{}]", active.join("; "), waiting.join("; "))
    }
}

impl ActiveFault {
    fn is_felt(&self, cluster: &mut Cluster) -> anyhow::Result<bool> {
        match self.fault {
            Fault::Stop(process, _) => Ok(cluster.process(process)?.is_stopped()),
            Fault::Join(process) => Ok(cluster.process(process)?.is_at_work()),
            // Its work is that of the other coordinator, which may be done before this one has begun.
            Fault::Duplicate(_) => Ok(true),
            _ => Ok(count(self.fault, cluster)? > self.count_before),
        }
    }
}

impl Fault {
    fn duration(self) -> Duration {
        match self {
            Fault::Stop(_, pause)
            | Fault::Reset(_, pause)
            | Fault::Silence(_, pause)
            | Fault::Slow(_, pause)
            | Fault::StorageErrors(pause)
            | Fault::Partition(_, pause) => pause,
            _ => MIN_HOLD,
        }
    }

    fn disturbs_the_same_as(self, other: Fault) -> bool {
        (self.process().is_some() && self.process() == other.process())
            || (self.links().is_some() && self.links() == other.links())
    }

    fn links(self) -> Option<Links> {
        match self {
            Fault::AbortCalls(links)
            | Fault::DelayCalls(links)
            | Fault::Reset(links, _)
            | Fault::Silence(links, _)
            | Fault::Slow(links, _) => Some(links),
            Fault::StorageErrors(_) => Some(Links::Storage),
            _ => None,
        }
    }
}

/// Makes it happen; false if it cannot happen yet: a process is disturbed while it is at work.
fn begin(fault: Fault, cluster: &mut Cluster) -> anyhow::Result<bool> {
    if let Some(target) = fault.process()
        && !matches!(fault, Fault::Join(_))
    {
        let process = cluster.process(target)?;
        if !process.is_running() || !process.is_at_work() {
            return Ok(false);
        }
    }
    match fault {
        Fault::Kill(target) => cluster.process(target)?.end(Ending::Killed)?,
        Fault::Terminate(target) => {
            let code =
                if matches!(target, Process::Coordinator(_)) { EXIT_INTERRUPTED } else { EXIT_DRAINED };
            cluster.process(target)?.end(Ending::Drained(code))?;
        }
        Fault::Stop(target, _) => cluster.process(target)?.signal("STOP")?,
        Fault::Join(target) => cluster.process(target)?.start()?,
        Fault::Duplicate(index) => cluster.start_duplicate(index)?,
        Fault::AbortCalls(links) => envoy(cluster)?.abort(links, ALL_CALLS)?,
        Fault::DelayCalls(links) => envoy(cluster)?.delay(links, ALL_CALLS)?,
        Fault::Reset(links, _) => set_links(cluster, links, Mode::Reset),
        Fault::Silence(links, _) => set_links(cluster, links, Mode::Silence),
        Fault::Slow(links, _) => set_links(cluster, links, Mode::Slow),
        Fault::StorageErrors(_) => set_links(cluster, Links::Storage, Mode::Unavailable),
        Fault::Partition(target, _) => host(cluster, target)?.unplug()?,
    }
    Ok(true)
}

fn end(fault: Fault, cluster: &mut Cluster) -> anyhow::Result<()> {
    match fault {
        Fault::Stop(target, _) => {
            let process = cluster.process(target)?;
            if process.is_running() { process.signal("CONT") } else { Ok(()) } // it may have been done
        }
        Fault::AbortCalls(links) => envoy(cluster)?.abort(links, NO_CALLS),
        Fault::DelayCalls(links) => envoy(cluster)?.delay(links, NO_CALLS),
        Fault::Partition(target, _) => host(cluster, target)?.plug_in(),
        Fault::Kill(_) | Fault::Terminate(_) | Fault::Join(_) | Fault::Duplicate(_) => Ok(()),
        Fault::Reset(links, _) | Fault::Silence(links, _) | Fault::Slow(links, _) => {
            set_links(cluster, links, Mode::Pass);
            Ok(())
        }
        Fault::StorageErrors(_) => {
            set_links(cluster, Links::Storage, Mode::Pass);
            Ok(())
        }
    }
}

/// The counter that grows when the fault takes effect.
fn count(fault: Fault, cluster: &mut Cluster) -> anyhow::Result<u64> {
    match fault {
        Fault::Kill(target) | Fault::Terminate(target) => Ok(cluster.process(target)?.num_endings().into()),
        Fault::AbortCalls(links) | Fault::DelayCalls(links) => envoy(cluster)?.num_disturbed(links),
        Fault::Partition(target, _) => host(cluster, target)?.num_packets_sent(),
        Fault::Reset(..) | Fault::Silence(..) | Fault::Slow(..) | Fault::StorageErrors(_) => {
            let disturbed = fault.links().context("it is about links")?;
            let links = cluster.links.iter().filter(|(links, _)| *links == disturbed);
            Ok(links.map(|(_, link)| link.num_disturbed()).sum())
        }
        Fault::Stop(..) | Fault::Join(_) | Fault::Duplicate(_) => Ok(0), // told from the process itself
    }
}

fn set_links(cluster: &Cluster, links: Links, mode: Mode) {
    for (_, link) in cluster.links.iter().filter(|(of, _)| *of == links) {
        link.set(mode);
    }
}

fn envoy(cluster: &Cluster) -> anyhow::Result<&crate::envoy::Envoy> {
    cluster.envoy.as_ref().context("there is no Envoy in this world")
}

fn host(cluster: &Cluster, process: Process) -> anyhow::Result<&crate::namespaces::Host> {
    let network = cluster.network.as_ref().context("there are no hosts in this world")?;
    Ok(network.host(cluster.host_index(process)))
}
