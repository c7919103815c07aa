//! Coordinators and workers of two versions: they refuse each other, and the job goes on with one of them.
//!
//! The other version's programs are copies of this one's that name other contracts in their calls.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use baton_cluster_tests::{Ended, Process, Worker, command_of, program, wait_for};
use baton_proto::PROTOCOL;
use tempfile::TempDir;

use crate::bundle::shared_bundle;
use crate::jobs::Job;

const REFUSAL: &str = "another version of Baton runs the job";

/// The programs of another version.
struct OtherVersion {
    directory: TempDir,
}

impl OtherVersion {
    fn new() -> OtherVersion {
        OtherVersion { directory: tempfile::tempdir().unwrap() }
    }

    /// Copies a program. In the copy the fingerprint of the contracts ends with other digits. The first two
    /// stay: a compiler compares the name's first eight bytes and its last eight.
    fn program(&self, name: &str) -> PathBuf {
        let copy = self.directory.path().join(name);
        fs::copy(program(name), &copy).unwrap();
        let (_, fingerprint) = PROTOCOL.rsplit_once('-').expect("the name ends with a fingerprint");
        let digit = if fingerprint.ends_with('0') { '1' } else { '0' };
        let other = format!("{}{}", &fingerprint[..2], digit.to_string().repeat(6));
        let mut sed = Command::new("sed");
        sed.env("LC_ALL", "C").args(["-i", &format!("s/{fingerprint}/{other}/g")]).arg(&copy);
        assert!(sed.status().unwrap().success());
        copy
    }

    fn start(&self, name: &str) -> Worker {
        Worker::start_by(command_of(&self.program(name)), shared_bundle(), &[])
    }

    fn coordinate(&self, job: &Job, encoder: &Worker, decoder: &Worker) -> Ended {
        let mut coordinator = command_of(&self.program("baton-coordinator"));
        let (encoders, decoders) = ([encoder.endpoint()], [decoder.endpoint()]);
        job.add_coordinator_flags(&mut coordinator, "cluster", &encoders, &decoders);
        Process::start(coordinator).wait()
    }
}

fn start(name: &str, flags: &[&str]) -> Worker {
    Worker::start(name, shared_bundle(), flags)
}

fn check_refusal(job: &Job, ended: &Ended) {
    assert_eq!(ended.code, Some(1), "{:#?}", ended.log);
    assert!(ended.log.join("\n").contains(REFUSAL), "{:#?}", ended.log);
    assert_eq!(job.num_parts("cluster"), 0);
}

#[test]
fn processes_of_two_versions_refuse_each_other_and_a_job_goes_to_the_workers_of_its_own() {
    let (job, other) = (Job::new(), OtherVersion::new());
    let reference = job.run_in_one_process();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &[]));
    let other_decoder = other.start("baton-decoder");
    check_refusal(&job, &other.coordinate(&job, &encoder, &decoder));
    // The encoder takes the shard, and its decoder does not.
    let (encoders, decoders) = ([encoder.endpoint()], [other_decoder.endpoint(), decoder.endpoint()]);
    check_refusal(&job, &job.coordinate("cluster", &encoders, &decoders[..1], &[]).wait());

    let ended = job.coordinate("cluster", &encoders, &decoders, &[]).wait();
    job.check("cluster", &ended, &reference);
    assert_eq!(other_decoder.metric("baton_commit_seconds_count"), 0.0);
}

#[test]
fn an_upgrade_in_the_middle_of_a_job_changes_no_byte() {
    let (job, other) = (Job::new(), OtherVersion::new());
    let reference = job.run_in_one_process();
    // One row at a time, so that the job lasts.
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &["--decode-slots", "1"]));
    let coordinator = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &[]);
    wait_for("a commit of the old version", || (job.num_parts("cluster") > 0).then_some(()));
    coordinator.kill();
    decoder.process.kill();
    encoder.process.kill();
    assert!(job.num_parts("cluster") < reference.len() / 2, "too little was left for the new version");

    let (encoder, decoder) = (other.start("baton-encoder"), other.start("baton-decoder"));
    job.check("cluster", &other.coordinate(&job, &encoder, &decoder), &reference);
    assert!(decoder.metric("baton_commit_seconds_count") > 0.0);
}
