//! The fault suite: a cluster of real processes on this machine, real faults by a seeded schedule, and the
//! bytes of an undisturbed run.
//!
//! Each seed is one run (`schedule.rs`). A run fails if a record is not exactly once in outputs or errors; if
//! a byte differs from the undisturbed run's; if a process ends in an unexpected way; or if a fault did not
//! take effect.
//!
//! ```text
//! make chaos SEEDS=100                  the seeds 1 to 100
//! make chaos SEEDS=1 FIRST_SEED=17      that one again
//! ```
//!
//! If the machine lacks something that a run needs, the suite leaves that run out and says so. `make tools`
//! fetches what can be fetched.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that talks to the terminal; a helper that fails is a failed test"
)]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../end_to_end/bundle.rs"]
mod bundle;
mod cluster;
mod corpus;
mod envoy;
mod faults;
mod http;
mod link;
mod namespaces;
mod ports;
mod process;
mod run;
mod schedule;
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../support/seaweed.rs"]
mod seaweed;
mod self_checks;
mod storage;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use cluster::Site;
use corpus::Files;
use run::{Contents, Report};
use schedule::{Fault, Plan, PlannedFault, Process, World};
use storage::Storage;

/// Without a wish: one run in each world.
const DEFAULT_NUM_SEEDS: u64 = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // a run has the machine for itself
    let number = |name: &str, default| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map_or(default, |value| {
            value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is `{value}`, not a number"))
        })
    };
    let first = number("BATON_CHAOS_FIRST_SEED", 1);
    let seeds = first..first + number("BATON_CHAOS_SEEDS", DEFAULT_NUM_SEEDS);
    let no_namespaces = namespaces::Network::is_impossible();
    let suite = Arc::new(Suite::default());
    let mut trials = self_checks::trials();
    for seed in seeds {
        let plan = Plan::of_seed(seed);
        if let (World::Namespaces, Some(reason)) = (plan.world, &no_namespaces) {
            eprintln!("chaos: seed {seed} SKIPPED, it needs network namespaces: {reason}");
            continue;
        }
        let (name, suite) = (format!("seed_{seed}"), Arc::clone(&suite));
        let world = format!("{:?}", plan.world).to_lowercase();
        trials.push(Trial::test(name, move || suite.run(&plan).map(drop)).with_kind(world));
    }
    let suite_of_late_fault = Arc::clone(&suite);
    trials.push(Trial::test("a_fault_that_a_job_outruns_is_felt_in_the_next_job", move || {
        let stop = Fault::Stop(Process::Decoder(0), Duration::from_millis(200));
        let faults = vec![PlannedFault { after_share: 1.0, fault: stop }]; // when nothing is left to disturb
        let has_cache = false;
        let plan = Plan { seed: 0, has_cache, num_coordinators: 1, faults, ..Plan::of_seed(1) };
        let num_jobs = suite_of_late_fault.run(&plan)?.num_jobs;
        if num_jobs == 2 { Ok(()) } else { Err(Failed::from(format!("it took {num_jobs} jobs"))) }
    }));
    let suite_of_split_llm = Arc::clone(&suite);
    trials.push(Trial::test("a_split_llm_reads_the_same_whatever_happens_to_its_parts", move || {
        suite_of_split_llm.run(&Plan::of_split_llm()).map(drop)
    }));
    trials.push(Trial::test("a_cascade_keeps_its_tiers_whatever_happens", move || {
        suite.run(&Plan { seed: 1_000_000, cascade: true, has_cache: false, ..Plan::of_seed(1) }).map(drop)
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The common parts of all runs: places for corpus and outputs, and an undisturbed run's output.
#[derive(Default)]
struct Suite {
    directory: OnceLock<TempDir>,
    local: Places,
    s3: Places,
}

/// A storage, with the common objects of runs, by format.
#[derive(Default)]
struct Places {
    storage: OnceLock<Arc<Storage>>,
    /// Without a cascade, with one, and with an LLM that can be split.
    sites: [[OnceLock<(Site, Contents)>; Files::ALL.len()]; 3],
}

impl Suite {
    fn run(&self, plan: &Plan) -> Result<Report, Failed> {
        cluster::check_binaries().map_err(|error| format!("{error:#}"))?;
        let planned: Vec<String> = plan
            .faults
            .iter()
            .map(|fault| format!("{:.0} %: {}", fault.after_share * 100.0, fault.fault))
            .collect();
        let (site, expected) = self.site(plan);
        let directory = self.directory().path().join(format!("seed-{}", plan.seed));
        std::fs::create_dir(&directory)?;
        match run::run(plan, &directory, site, expected) {
            Ok(report) => {
                eprintln!("chaos: seed {}: {report}", plan.seed);
                Ok(report)
            }
            Err(error) => {
                let kept = std::env::temp_dir().join(format!(
                    "baton-chaos-{}-seed-{}",
                    std::process::id(),
                    plan.seed
                ));
                std::fs::rename(&directory, &kept)?;
                let plan = format!(
                    "{:?}, {:?}, {} coordinators{}\n  {}",
                    plan.world,
                    plan.files,
                    plan.num_coordinators,
                    if plan.has_cache { ", a cache" } else { "" },
                    planned.join("\n  ")
                );
                Err(Failed::from(format!("{error:#}\nlogs: {}\nplan: {plan}", kept.display())))
            }
        }
    }

    fn directory(&self) -> &TempDir {
        self.directory.get_or_init(|| tempfile::tempdir().expect("a temporary directory"))
    }

    fn site(&self, plan: &Plan) -> &(Site, Contents) {
        let &Plan { world, files, cascade, has_reader, .. } = plan;
        let places = if world == World::S3 { &self.s3 } else { &self.local };
        let variant = if has_reader { 2 } else { usize::from(cascade) };
        places.sites[variant][files as usize].get_or_init(|| {
            let directory = self.directory().path();
            let storage = places.storage.get_or_init(|| {
                Arc::new(match world {
                    World::S3 => Storage::s3(),
                    World::Local | World::Namespaces => Storage::local(&directory.join("local")).unwrap(),
                })
            });
            let bundle = directory.join(if has_reader { "deep-bundle" } else { "bundle" });
            match bundle.exists() {
                true => {}
                false if has_reader => bundle::write_deep_bundle(&bundle, 1),
                false => bundle::write_bundle(&bundle, 1),
            }
            let site = Site { bundle, storage: Arc::clone(storage), files, cascade };
            let variant = ["", "-cascade", "-deep"][variant];
            let output = format!("undisturbed-{}{variant}", files.name());
            site.run_undisturbed(&output).unwrap();
            let contents = site.storage.contents(&output).unwrap();
            (site, contents)
        })
    }
}
