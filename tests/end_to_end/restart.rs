//! A job that dies or is stopped continues where it stopped and ends with the bytes of an undisturbed run.

use std::process::Command;

use crate::command::{Ended, Job};

const NUM_RECORDS: usize = 240;
const NUM_PARTS: usize = NUM_RECORDS / 8;

#[test]
fn a_job_killed_at_any_point_ends_with_the_same_bytes() {
    let undisturbed = Job::of_records(NUM_RECORDS);
    undisturbed.run_expecting(0);

    // Each run gets further than the one before and dies by SIGKILL, which nothing can catch.
    let job = Job::of_records(NUM_RECORDS);
    for parts_before_kill in [1, 2, NUM_PARTS / 3, NUM_PARTS / 2] {
        let mut child = job.start();
        job.wait_for_parts(parts_before_kill, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!job.is_finished(), "the fault fired too late");
    }
    let parts_before = job.num_parts();
    let ended = job.run_expecting(0);
    assert!(ended.stderr.contains("were done by earlier runs"), "{}", ended.stderr);
    assert!(parts_before >= NUM_PARTS / 2);
    assert_same_bytes(&job, &undisturbed);
}

#[test]
fn an_interrupted_job_finishes_its_shards_and_continues_later() {
    let undisturbed = Job::of_records(NUM_RECORDS);
    undisturbed.run_expecting(0);

    let job = Job::of_records(NUM_RECORDS);
    let mut child = job.start();
    job.wait_for_parts(1, &mut child);
    let signalled = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("the same command continues"), "{}", ended.stderr);
    assert!(!job.is_finished());

    // Shards in flight were finished: no verdict is without its part.
    let contents = job.contents();
    let num_verdicts = contents.keys().filter(|name| name.starts_with("_baton/shards/")).count();
    assert_eq!(num_verdicts, job.num_parts());

    job.run_expecting(0);
    assert_same_bytes(&job, &undisturbed);
}

fn interrupt(child: &std::process::Child) {
    let signalled = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
}

/// Reads the running job's output until it contains `line`.
fn wait_for_line(child: &mut std::process::Child, line: &str) -> impl Iterator<Item = String> + use<> {
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let found = said.by_ref().map(Result::unwrap).any(|text| text.contains(line));
    assert!(found, "`{line}` was not said");
    said.map(Result::unwrap)
}

#[test]
fn an_interrupt_while_models_load_stops_at_once() {
    let job = Job::of_records(NUM_RECORDS);
    let mut child = job.start();
    let mut said = wait_for_line(&mut child, "verifying bundle");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(said.any(|line| line.contains("the same command")), "how to go on is said");
    job.run_expecting(0);
}

#[test]
fn a_second_interrupt_stops_at_once_and_the_job_continues_later() {
    let job = Job::of_records(NUM_RECORDS);
    let mut child = job.start();
    job.wait_for_parts(1, &mut child);
    interrupt(&child);
    let mut said = wait_for_line(&mut child, "interrupt again to stop at once");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(said.any(|line| line.contains("the same command continues")), "how to go on is said");
    job.run_expecting(0);
    assert!(job.is_finished());
}

#[test]
fn two_runs_of_one_job_at_once_make_one_output() {
    let undisturbed = Job::of_records(NUM_RECORDS);
    undisturbed.run_expecting(0);
    let job = Job::of_records(NUM_RECORDS);
    let (first, second) = (job.start(), job.start());
    for child in [first, second] {
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert_same_bytes(&job, &undisturbed);
}

fn assert_same_bytes(job: &Job, undisturbed: &Job) {
    let (mut found, mut expected) = (job.contents(), undisturbed.contents());
    for contents in [&mut found, &mut expected] {
        contents.remove("_baton/job.json").expect("it names the inputs, which lie in another directory");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in found {
        assert!(bytes == expected[&name], "{name} differs");
    }
}
