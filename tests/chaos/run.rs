//! One run: a cluster, its faults, and the conditions at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Site};
use crate::corpus;
use crate::faults::Faults;
use crate::process::{Ending, is_complete};
use crate::schedule::{Plan, Process};

/// A job that commits nothing for so long is stuck. How long it takes in all is the machine's affair.
const STALL_DEADLINE: Duration = Duration::from_secs(180);
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
/// Jobs in one run. A plan is for one, and a fast machine takes two.
const MAX_JOBS: usize = 5;

/// Every object of an output by its key.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// The report of a successful run.
pub(crate) struct Report {
    faults: String,
    /// How many jobs it took to feel every fault.
    pub(crate) num_jobs: usize,
    took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults: {}, jobs: {}, {:.0} s", self.faults, self.num_jobs, self.took.as_secs_f64())
    }
}

/// Runs `plan` and compares its output with `expected`.
///
/// The cluster gets the same job again, with another output, until every fault has taken effect. The
/// machine's speed must not decide whether a fault finds work to disturb.
pub(crate) fn run(plan: &Plan, directory: &Path, site: &Site, expected: &Contents) -> anyhow::Result<Report> {
    let started = Instant::now();
    let output = |job: usize| format!("out-{}-{job}", plan.seed);
    let mut cluster = Cluster::start(plan, directory, site, &output(0))?;
    let mut faults = Faults::of(plan, directory)?;
    let mut num_jobs = 0;
    loop {
        until_done(plan, &mut cluster, &mut faults, site, num_jobs, &output(num_jobs))?;
        faults.end_job(&mut cluster)?;
        end_coordinators(&mut cluster)?;
        num_jobs += 1;
        if faults.are_over() {
            break;
        }
        ensure!(num_jobs < MAX_JOBS, "{num_jobs} jobs did not feel every fault; faults: {faults}");
        cluster.start_next_job(site, &output(num_jobs), num_jobs)?;
    }
    drain(&mut cluster)?;
    drop(cluster);

    let mut num_cached = 0;
    for job in 0..num_jobs {
        let contents = site.storage.contents(&output(job))?;
        check_each_record_once(&contents)?;
        check_same_bytes(&contents, expected)?;
        num_cached += num_from_cache(&contents)?;
        if plan.cascade {
            check_tiers(&contents)?;
        }
    }
    ensure!(plan.has_cache == (num_cached > 0), "{num_cached} segments came from a cache");
    Ok(Report { faults: faults.to_string(), num_jobs, took: started.elapsed() })
}

/// Looks after faults and processes until the coordinators have done the job that writes `output`.
fn until_done(
    plan: &Plan,
    cluster: &mut Cluster,
    faults: &mut Faults,
    site: &Site,
    num_jobs_done: usize,
    output: &str,
) -> anyhow::Result<()> {
    let mut unfinished: BTreeSet<usize> = (0..plan.num_coordinators).collect();
    let (mut num_parts, mut last_commit) = (0, Instant::now());
    while !unfinished.is_empty() {
        let num_parts_now = site.storage.num_parts(output)?;
        if num_parts_now > num_parts {
            (num_parts, last_commit) = (num_parts_now, Instant::now());
        }
        let is_stuck = last_commit.elapsed() > STALL_DEADLINE;
        ensure!(!is_stuck, "stuck at {num_parts} of {} parts; faults: {faults}", corpus::NUM_PARTS);
        tick_processes(cluster, &mut unfinished)?;
        faults.tick(cluster, num_jobs_done, num_parts as f64 / corpus::NUM_PARTS as f64)?;
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Looks after all processes, and notes the coordinators that are done.
fn tick_processes(cluster: &mut Cluster, unfinished: &mut BTreeSet<usize>) -> anyhow::Result<()> {
    for supervised in &mut cluster.processes {
        let Some(status) = supervised.tick()? else { continue };
        match supervised.process {
            Process::Coordinator(index) if is_complete(supervised.process, status) => {
                unfinished.remove(&index); // a duplicate may be done first: what it says is true all the same
            }
            process => bail!("{process} ended by itself with {status}; {}", supervised.last_words()),
        }
    }
    Ok(())
}

/// Waits for coordinators that are still there when the job is done: of two of a partition one may have a
/// moment to go.
fn end_coordinators(cluster: &mut Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN_DEADLINE;
    for supervised in cluster.processes.iter_mut().filter(|process| process.is_coordinator()) {
        while supervised.is_running() {
            if let Some(status) = supervised.tick()? {
                let words = || supervised.last_words();
                let is_complete = is_complete(supervised.process, status);
                ensure!(is_complete, "a coordinator too many ended with {status}; {}", words());
            }
            let is_late = Instant::now() > deadline;
            ensure!(!is_late, "a coordinator goes on after the job; {}", supervised.last_words());
            std::thread::sleep(TICK);
        }
        supervised.discard();
    }
    Ok(())
}

/// Ends the workers as an orchestrator would: all of them must end well.
fn drain(cluster: &mut Cluster) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN_DEADLINE;
    for supervised in cluster.processes.iter_mut().filter(|process| !process.is_coordinator()) {
        if supervised.is_running() && supervised.is_alive() {
            let num_endings = supervised.num_endings();
            supervised.end(Ending::Drained(0))?;
            while supervised.num_endings() == num_endings {
                supervised.tick()?;
                let is_late = Instant::now() > deadline;
                ensure!(!is_late, "{} does not drain; {}", supervised.process, supervised.last_words());
                std::thread::sleep(TICK);
            }
        }
        supervised.discard(); // one that does not run is on its way to another life
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
        if key.ends_with(".parquet") {
            for id in ids_of_parquet(bytes).with_context(|| key.clone())? {
                *times.entry(id).or_default() += 1;
            }
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

/// Each shard has its first tier's result, and both tiers wrote rows.
fn check_tiers(contents: &Contents) -> anyhow::Result<()> {
    let num_results = contents.keys().filter(|key| key.starts_with("_baton/tiers/0/")).count();
    ensure!(num_results == corpus::NUM_PARTS, "{num_results} results of the first tier");
    let manifest: Value = serde_json::from_slice(&contents["_SUCCESS"]).context("the manifest")?;
    for tier in [0, 1] {
        let num_outputs = manifest["totals"]["tiers"][tier]["outputs"].as_u64().unwrap_or_default();
        ensure!(num_outputs > 100, "tier {tier} wrote {num_outputs} rows");
    }
    Ok(())
}

/// The ids of a part. Each row must have kept the columns of the corpus.
fn ids_of_parquet(part: &[u8]) -> anyhow::Result<Vec<String>> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(part))?;
    let mut ids = Vec::new();
    for row in reader.get_row_iter(None)? {
        let row = row?.into_columns();
        let value = |name: &str| row.iter().find(|(column, _)| column == name).map(|(_, value)| value);
        let (Some(Field::Str(id)), Some(Field::Long(number))) = (value("id"), value("number")) else {
            bail!("a row has other columns: {row:?}");
        };
        ensure!(*id == format!("r{number}"), "record {id} has the columns of record {number}");
        ids.push(id.clone());
    }
    Ok(ids)
}

/// The output has exactly the objects of the undisturbed run, with the same bytes.
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

/// Segments that the last coordinator had from a cache.
fn num_from_cache(contents: &Contents) -> anyhow::Result<u64> {
    let manifest: Value = serde_json::from_slice(contents.get("_SUCCESS").context("a manifest")?)?;
    Ok(manifest["timings"]["last_run_reuse"]["cached"].as_u64().unwrap_or_default())
}

/// Manifest and report say how long the job took; nothing else may differ.
fn without_timings(key: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let timeless = match key {
        "_SUCCESS" => {
            let mut manifest: Value = serde_json::from_slice(bytes).context("the manifest")?;
            manifest["timings"] = Value::Null;
            manifest
        }
        "_REPORT.json" => {
            let report: Value = serde_json::from_slice(bytes).context("the report")?;
            json!([report["totals"], report["failures"]])
        }
        "_REPORT.html" => Value::Null, // shows the report
        _ => return Ok(bytes.to_vec()),
    };
    Ok(timeless.to_string().into_bytes())
}
