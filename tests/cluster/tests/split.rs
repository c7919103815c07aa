//! An LLM whose blocks are on several devices, or in several processes, gives the bytes of one.

use std::path::Path;

use baton_cluster_tests::{Process, Worker, command, wait_for};
use tempfile::TempDir;

use crate::bundle::{shared_bundle, write_deep_bundle};
use crate::certificates::Certificates;
use crate::jobs::Job;

/// A bundle that can be split, and a job for it.
fn deep_job() -> (TempDir, Job) {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    write_deep_bundle(&bundle, 5);
    let line = |index: usize| {
        let words = ["small tools", "of mail", "and logs", "read quickly"][index % 4];
        format!("{{\"id\":\"r{index}\",\"text\":\"{words} {index} for the desktop\"}}\n")
    };
    let corpus = (0..160).map(line).collect::<String>();
    let job = Job::of(&bundle, &corpus, &["--records-per-shard", "8"]);
    (directory, job)
}

/// The log of a process that refuses to start.
fn refusal(name: &str, bundle: &Path, flags: &[&str]) -> String {
    let mut command = command(name);
    command
        .arg("--bundle")
        .arg(bundle)
        .args(["--listen", "127.0.0.1:0", "--http-listen", "none"])
        .args(flags);
    let ended = Process::start(command).wait();
    assert_eq!(ended.code, Some(1), "{:#?}", ended.log);
    ended.log.join("\n")
}

#[test]
fn an_llm_on_two_devices_makes_the_bytes_of_one() {
    let (directory, job) = deep_job();
    let bundle = directory.path().join("bundle");
    let reference = job.run_in_one_process();
    // Small batches, so that several are under way.
    let small = ["--encode-batch-tokens", "100"];
    let encoder = Worker::start(
        "baton-encoder",
        &bundle,
        &["--device", "cpu,cpu,cpu", small[0], small[1], "--engines", "1"],
    );
    let decoder = Worker::start("baton-decoder", &bundle, &[]);
    let ended = job.coordinate("devices", &[encoder.endpoint()], &[decoder.endpoint()], &[]).wait();
    job.check("devices", &ended, &reference);
    assert!(encoder.metric("baton_encoder_prompt_tokens_total") > 0.0);
    assert!(encoder.metric("baton_load_milliseconds") > 0.0);

    let ended = job.run("in-one-process", &["--device", "cpu,cpu", small[0], small[1]]);
    job.check("in-one-process", &ended, &reference);
}

#[test]
fn a_chain_of_processes_makes_the_bytes_of_one_also_with_mutual_tls_and_a_token() {
    let (directory, job) = deep_job();
    let bundle = directory.path().join("bundle");
    let reference = job.run_in_one_process();
    let certificates = Certificates::new();
    let security = certificates.flags();
    let start = |name, flags: &[&str]| {
        let flags: Vec<&str> = security.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Worker::start(name, &bundle, &flags)
    };
    let middle = start("baton-encoder", &["--blocks", "1..2"]);
    let last = start("baton-encoder", &["--blocks", "2..4", "--device", "cpu,cpu"]);
    let chain = [middle.tls_endpoint(), last.tls_endpoint()].join(",");
    let small = ["--encode-batch-tokens", "100"];
    let first = start("baton-encoder", &["--blocks", "0..1", "--chain", &chain, small[0], small[1]]);
    let decoder = start("baton-decoder", &[]);
    let security: Vec<&str> = security.iter().map(String::as_str).collect();
    let ended = job.coordinate("chain", &[first.tls_endpoint()], &[decoder.tls_endpoint()], &security).wait();
    job.check("chain", &ended, &reference);

    let num_tokens = first.metric("baton_encoder_prompt_tokens_total");
    assert!(num_tokens > 0.0);
    for part in [&middle, &last] {
        assert_eq!(part.metric("baton_encoder_prompt_tokens_total"), num_tokens);
        assert_eq!(part.metric("baton_open_shards"), 0.0, "nothing is left of a batch");
    }
    last.process.signal("TERM");
    assert_eq!(last.process.wait().code, Some(0));
}

#[test]
fn a_part_that_is_killed_and_comes_back_changes_no_byte() {
    let (directory, job) = deep_job();
    let bundle = directory.path().join("bundle");
    let reference = job.run_in_one_process();
    let part = Worker::start("baton-encoder", &bundle, &["--blocks", "2/2"]);
    let (address, endpoint) = (part.grpc.to_string(), part.endpoint());
    let first =
        Worker::start("baton-encoder", &bundle, &["--chain", &endpoint, "--encode-batch-tokens", "40"]);
    // One row at a time, so that the job lasts.
    let decoder = Worker::start("baton-decoder", &bundle, &["--decode-slots", "1"]);
    let coordinator = job.coordinate("cluster", &[first.endpoint()], &[decoder.endpoint()], &[]);
    wait_for("the first commit", || (decoder.metric("baton_commit_seconds_count") >= 1.0).then_some(()));
    part.process.kill();
    wait_for("a batch that is lost", || {
        first.process.log().iter().any(|line| line.contains("blocks 2..4 at")).then_some(())
    });
    assert!(job.contents("cluster").len() < reference.len(), "it died too late for this test");
    let part = Worker::start_at(command("baton-encoder"), &bundle, &address, &["--blocks", "2/2"]);
    job.check("cluster", &coordinator.wait(), &reference);
    assert!(part.metric("baton_encoder_prompt_tokens_total") > 0.0, "it was used again");
}

#[test]
fn an_encoder_waits_for_its_chain_and_serves_when_that_is_there() {
    let (directory, job) = deep_job();
    let bundle = directory.path().join("bundle");
    let socket = directory.path().join("part");
    let endpoint = format!("unix:{}", socket.display());
    let mut first = command("baton-encoder");
    first.arg("--bundle").arg(&bundle).args(["--chain", &endpoint, "--log-format", "json"]);
    first.args(["--listen", "127.0.0.1:0", "--http-listen", "none"]);
    let mut first = Process::start(first);
    first.wait_for_log("the wait", |line| {
        line["message"].as_str()?.starts_with("waiting for the next part").then_some(())
    });
    let mut part = command("baton-encoder");
    part.arg("--bundle").arg(&bundle).args(["--blocks", "2/2", "--listen", &endpoint]);
    let _part = Process::start({
        part.args(["--http-listen", "none"]);
        part
    });
    let address = first.wait_for_log("the port", |line| {
        (line["message"] == "serving gRPC").then(|| line["address"].as_str().unwrap().to_owned())
    });
    let reference = job.run_in_one_process();
    let decoder = Worker::start("baton-decoder", &bundle, &[]);
    let encoders = [format!("http://{address}")];
    let ended = job.coordinate("socket", &encoders, &[decoder.endpoint()], &[]).wait();
    job.check("socket", &ended, &reference);
}

#[test]
fn parts_that_do_not_fit_together_are_refused_by_name_and_with_what_to_do() {
    let (directory, _job) = deep_job();
    let bundle = directory.path().join("bundle");
    let other_bundle = directory.path().join("other");
    write_deep_bundle(&other_bundle, 6);
    let weights = ["--weights", "f32"];
    let part = Worker::start("baton-encoder", &bundle, &["--blocks", "2..4", weights[0], weights[1]]);
    let endpoint = part.endpoint();
    let plain = Worker::start("baton-encoder", &bundle, &[]);
    let plain = plain.endpoint();
    let both = [&*endpoint, &*endpoint].join(",");
    for (bundle, flags, pieces) in [
        (&other_bundle, &["--chain", &*endpoint, "--weights", "f32"][..], ["bundle", "the same bundle"]),
        (&bundle, &["--chain", &*endpoint, "--weights", "bf16"], ["f32 on a CPU", "--weights"]),
        (
            &bundle,
            &["--chain", &*endpoint, "--weights", "f32", "--blocks", "0..1"],
            ["blocks 2..4, and 1..4 is needed", "--blocks"],
        ),
        (
            &bundle,
            &["--chain", &*both, "--weights", "f32", "--blocks", "0..2"],
            ["no block is left", "--chain"],
        ),
        (&bundle, &["--blocks", "0..2"], ["the parts end with block 2 of 4", "--chain"]),
        (&bundle, &["--blocks", "2..5"], ["2..5", "reads with 4 blocks"]),
        (&bundle, &["--chain", &*plain], ["runs no blocks for others", "--blocks"]),
        (&bundle, &["--blocks", "2..4", "--chain", &*endpoint], ["begins with block 2", "first block"]),
        (&bundle, &["--device", "cpu,cpu,cpu,cpu,cpu"], ["5 parts", "4 blocks"]),
        (&bundle, &["--device", "cpu,cpu", "--mode", "llm"], ["mode llm", "--device"]),
    ] {
        let log = refusal("baton-encoder", bundle, flags);
        assert!(pieces.iter().all(|piece| log.contains(piece)), "{flags:?}: {pieces:?} not in {log}");
    }
    let log = refusal("baton-decoder", shared_bundle(), &["--device", "cpu,cpu"]);
    assert!(log.contains("2 devices") && log.contains("only an encoder splits its LLM"), "{log}");
}
