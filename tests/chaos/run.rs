//! One run: a cluster, its faults, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Site};
use crate::corpus;
use crate::faults::Faults;
use crate::process::Ending;
use crate::schedule::{Plan, Process};

/// A job that commits nothing for so long is stuck. How long it takes in all is the machine's affair.
const STALL_DEADLINE: Duration = Duration::from_secs(180);
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
/// Exit codes of a coordinator whose partition is complete: all records succeeded, or some failed.
const COMPLETE: [i32; 2] = [0, 3];

/// Every object of an output by its key.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// Runs `plan` and compares what it made with `expected`. Gives a line about the run.
pub(crate) fn run(plan: &Plan, directory: &Path, site: &Site, expected: &Contents) -> anyhow::Result<String> {
    let started = Instant::now();
    let output = format!("out-{}", plan.seed);
    let mut cluster = Cluster::start(plan, directory, site, &output)?;
    let mut faults = Faults::of(plan, directory)?;
    let mut unfinished: BTreeSet<usize> = (0..plan.num_coordinators).collect();
    let (mut num_parts, mut last_commit) = (0, Instant::now());
    while !unfinished.is_empty() {
        let num_parts_now = site.storage.num_parts(&output)?;
        if num_parts_now > num_parts {
            (num_parts, last_commit) = (num_parts_now, Instant::now());
        }
        let is_stuck = last_commit.elapsed() > STALL_DEADLINE;
        ensure!(!is_stuck, "stuck at {num_parts} of {} parts; faults: {faults}", corpus::NUM_PARTS);
        tick_processes(&mut cluster, &mut unfinished)?;
        faults.tick(&mut cluster, num_parts as f64 / corpus::NUM_PARTS as f64)?;
        std::thread::sleep(TICK);
    }
    let num_felt = faults.finish(&mut cluster)?;
    drain(&mut cluster)?;
    drop(cluster);

    let contents = site.storage.contents(&output)?;
    check_each_record_once(&contents)?;
    check_same_bytes(&contents, expected)?;
    Ok(format!("{num_felt} faults felt, {:.0} s", started.elapsed().as_secs_f64()))
}

/// Looks after all processes, and notes the coordinators that are done.
fn tick_processes(cluster: &mut Cluster, unfinished: &mut BTreeSet<usize>) -> anyhow::Result<()> {
    for supervised in &mut cluster.processes {
        let Some(status) = supervised.tick()? else { continue };
        match supervised.process {
            Process::Coordinator(index) if status.code().is_some_and(|code| COMPLETE.contains(&code)) => {
                unfinished.remove(&index); // a duplicate may be done first: what it says is true all the same
            }
            process => bail!("{process} ended by itself with {status}; {}", supervised.last_words()),
        }
    }
    Ok(())
}

/// Ends what still runs as an orchestrator would: all of it must end well.
fn drain(cluster: &mut Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN_DEADLINE;
    for supervised in &mut cluster.processes {
        match supervised.process {
            Process::Coordinator(_) => {
                // One of two coordinators of a partition may have a moment to go.
                while supervised.is_running() {
                    if let Some(status) = supervised.tick()? {
                        let is_complete = status.code().is_some_and(|code| COMPLETE.contains(&code));
                        ensure!(
                            is_complete,
                            "a coordinator too many ended with {status}; {}",
                            supervised.last_words()
                        );
                    }
                    ensure!(
                        Instant::now() < deadline,
                        "a coordinator goes on after the job; {}",
                        supervised.last_words()
                    );
                    std::thread::sleep(TICK);
                }
            }
            process => {
                if !supervised.is_running() || !supervised.is_alive() {
                    supervised.discard(); // it was on its way to another life
                    continue;
                }
                let num_endings = supervised.num_endings();
                supervised.end(Ending::Drained(0))?;
                while supervised.num_endings() == num_endings {
                    supervised.tick()?;
                    ensure!(
                        Instant::now() < deadline,
                        "{process} does not drain; {}",
                        supervised.last_words()
                    );
                    std::thread::sleep(TICK);
                }
            }
        }
        supervised.discard();
    }
    Ok(())
}

/// Every input record is in exactly one of outputs and errors.
pub(crate) fn check_each_record_once(contents: &Contents) -> anyhow::Result<()> {
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    let mut num_errors = 0;
    for (key, bytes) in contents {
        let is_error = key.starts_with("errors/part-");
        if !is_error && !key.starts_with("part-") {
            continue;
        }
        for line in std::str::from_utf8(bytes).with_context(|| key.clone())?.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("a row of {key}"))?;
            if is_error {
                num_errors += 1;
            } else {
                *times.entry(row["id"].as_str().context("a row has an id")?.to_owned()).or_default() += 1;
            }
        }
    }
    for id in corpus::good_ids() {
        let times = times.remove(&id).unwrap_or(0);
        ensure!(times == 1, "record {id} is {times} times in the outputs");
    }
    ensure!(times.is_empty(), "the outputs have records that the corpus has not: {:?}", times.keys());
    ensure!(num_errors == corpus::NUM_BAD, "{num_errors} error rows for {} bad lines", corpus::NUM_BAD);
    Ok(())
}

/// Every object is there, no other, and each has the bytes of the undisturbed run's.
pub(crate) fn check_same_bytes(contents: &Contents, expected: &Contents) -> anyhow::Result<()> {
    let keys = |contents: &Contents| contents.keys().cloned().collect::<BTreeSet<_>>();
    let (found, wanted) = (keys(contents), keys(expected));
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    ensure!(
        missing.is_empty() && surplus.is_empty(),
        "missing objects: {missing:?}, surplus objects: {surplus:?}"
    );
    for (key, bytes) in expected {
        ensure!(
            without_timings(key, bytes)? == without_timings(key, &contents[key])?,
            "{key} has other bytes"
        );
    }
    Ok(())
}

/// The manifest says how long the job took; nothing else may differ.
fn without_timings(key: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    if key != "_SUCCESS" {
        return Ok(bytes.to_vec());
    }
    let mut manifest: Value = serde_json::from_slice(bytes).context("the manifest")?;
    manifest["timings"] = Value::Null;
    Ok(manifest.to_string().into_bytes())
}
