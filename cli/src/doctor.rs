//! `baton doctor`: checks whether this machine can run Baton, and says what to do if it cannot.
//!
//! Each check is independent and says one thing, so a failed check does not hide the others.

#![allow(clippy::print_stdout, reason = "the command prints its findings")]

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use baton_bundle::{Bundle, verify};
use baton_model::Compute;
use baton_proto::error_chain;
use baton_store::{CreateOutcome, Location, Store};
use baton_worker::{available_memory, pair_num_bytes};
use indicatif::HumanBytes;

/// The object to probe a store with, beside outputs. No input listing takes it for an input, and no job's
/// output directory has it.
const PROBE_KEY: &str = "_baton_doctor";

/// A clock before this time was never set. A store refuses signed requests whose time differs much from its
/// own.
const EARLIEST_PLAUSIBLE_UNIX_SECONDS: u64 = 1_735_689_600; // 2025

const EXIT_CODES: &str = "\
Exit codes:
  0  this machine can run Baton
  1  a check failed; each line says what to do";

/// Arguments of `baton doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DoctorArgs {
    /// Bundle to verify, file by file. Example: models/en-pt
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Bucket or directory above the outputs of jobs. The check creates a small object there, _baton_doctor.
    /// Example: s3://corpora
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// Addresses that services are to listen on. Example: 0.0.0.0:7001,0.0.0.0:9464
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    /// Baton runs, but slower or smaller than it could.
    Poor,
    Bad,
}

#[derive(Debug)]
struct Finding {
    subject: &'static str,
    outcome: Outcome,
    said: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Good => "ok",
            Outcome::Poor => "note",
            Outcome::Bad => "FAIL",
        };
        write!(f, "{outcome:<5}{:<8}{}", self.subject, self.said)
    }
}

/// Runs `baton doctor`.
///
/// # Errors
/// The async runtime does not start.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let mut has_failed = false;
    let mut say = |finding: Finding| {
        has_failed |= finding.outcome == Outcome::Bad;
        println!("{finding}");
    };
    say(cpu());
    say(device());
    say(memory(args.bundle.as_deref()));
    say(temporary_files());
    say(clock(SystemTime::now()));
    args.bundle.iter().for_each(|bundle| say(bundle_is_whole(bundle)));
    args.store.iter().for_each(|location| say(runtime.block_on(store(location))));
    args.listen.iter().for_each(|&address| say(port(address)));
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn cpu() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let compute = Compute::fastest_cpu();
    let weights = compute.weights_name();
    let (outcome, advice) = match compute {
        Compute::CPU_INT8 => (Outcome::Good, ""),
        _ => (Outcome::Poor, "; this CPU lacks int8 products (AVX2 or better), so decoding is slow"),
    };
    Finding { subject: "cpu", outcome, said: format!("{cores} cores, weights in {weights}{advice}") }
}

fn device() -> Finding {
    let said = match Compute::cuda(0) {
        Ok(_) => "libtorch finds a GPU; services use it, except with --device cpu".to_owned(),
        Err(_) => "libtorch works, and finds no GPU; models run on the CPU".to_owned(),
    };
    Finding { subject: "device", outcome: Outcome::Good, said }
}

fn memory(bundle: Option<&Path>) -> Finding {
    let subject = "memory";
    let Some(available) = available_memory() else {
        return Finding {
            subject,
            outcome: Outcome::Poor,
            said: "the system does not tell how much is free".into(),
        };
    };
    let free = format!("{} available", HumanBytes(available));
    let compute = Compute::fastest_cpu();
    let needed = bundle.and_then(|bundle| Bundle::open(bundle).ok()).map(|bundle| {
        let mode = bundle.manifest().modes[0]; // an open bundle has one
        (mode, pair_num_bytes(&bundle, mode, compute))
    });
    let (outcome, said) = match needed {
        Some((mode, needed)) if needed > available => (
            Outcome::Bad,
            format!(
                "{free}, but mode {mode} takes {} with one engine: free memory, or use a larger machine",
                HumanBytes(needed)
            ),
        ),
        Some((mode, needed)) => {
            (Outcome::Good, format!("{free}, mode {mode} takes {} with one engine", HumanBytes(needed)))
        }
        None => (Outcome::Good, free),
    };
    Finding { subject, outcome, said }
}

fn temporary_files() -> Finding {
    let directory = std::env::temp_dir();
    let (outcome, said) = match tempfile::tempfile() {
        Ok(_) => (Outcome::Good, format!("{} is writable", directory.display())),
        Err(error) => (
            Outcome::Bad,
            format!(
                "cannot create files in {} ({error}): set TMPDIR to another directory",
                directory.display()
            ),
        ),
    };
    Finding { subject: "tmp", outcome, said }
}

fn clock(now: SystemTime) -> Finding {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (outcome, said) = if seconds < EARLIEST_PLAUSIBLE_UNIX_SECONDS {
        (
            Outcome::Bad,
            "the clock is years behind, so S3 refuses signatures: set it, for example by NTP".to_owned(),
        )
    } else {
        (Outcome::Good, format!("{seconds} s since 1970"))
    };
    Finding { subject: "clock", outcome, said }
}

fn bundle_is_whole(directory: &Path) -> Finding {
    let (outcome, said) = match verify(directory) {
        Ok(bundle) => {
            let modes: Vec<&str> = bundle.manifest().modes.iter().map(|mode| mode.as_str()).collect();
            (Outcome::Good, format!("{} is whole; modes: {}", directory.display(), modes.join(", ")))
        }
        Err(error) => (Outcome::Bad, error_chain(&error)),
    };
    Finding { subject: "bundle", outcome, said }
}

/// Whether the store honours conditional creation, on which exactly-once rests.
async fn store(location: &str) -> Finding {
    let (outcome, said) = match probe(location).await {
        Ok(true) => (Outcome::Good, format!("{location} can be read, and creates an object once")),
        Ok(false) => (
            Outcome::Bad,
            format!(
                "{location} replaced an existing object: it ignores `If-None-Match: *`, so two workers could \
                 both commit a shard; use a store that honours this header"
            ),
        ),
        Err(error) => (Outcome::Bad, error_chain(&error)),
    };
    Finding { subject: "store", outcome, said }
}

async fn probe(location: &str) -> Result<bool, baton_store::StoreError> {
    let store = Store::open(Location::parse(location)?).await?;
    let _ = store.create(PROBE_KEY, "first".into()).await?;
    let again = store.create(PROBE_KEY, "second".into()).await?;
    let kept = store.get(PROBE_KEY).await?;
    Ok(again == CreateOutcome::AlreadyExists && kept.as_deref() == Some(b"first"))
}

fn port(address: SocketAddr) -> Finding {
    let (outcome, said) = match TcpListener::bind(address) {
        Ok(_) => (Outcome::Good, format!("{address} is free")),
        Err(error) => (
            Outcome::Bad,
            format!(
                "cannot listen on {address} ({error}): stop the process there, or choose another --listen"
            ),
        ),
    };
    Finding { subject: "port", outcome, said }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_found() {
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(3600)).outcome, Outcome::Bad);
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(1_800_000_000)).outcome, Outcome::Good);
    }

    #[test]
    fn a_port_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(port(taken.local_addr().unwrap()).outcome, Outcome::Bad);
    }

    #[tokio::test]
    async fn a_store_can_be_probed_repeatedly() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap();
        for _ in 0..2 {
            assert_eq!(store(location).await.outcome, Outcome::Good);
        }
        assert_eq!(store("s3:/bucket").await.outcome, Outcome::Bad);
    }
}
