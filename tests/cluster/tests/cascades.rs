//! Cascades over workers that serve different tiers, each in a process of its own.

use baton_cluster_tests::Worker;

use crate::bundle::shared_bundle;
use crate::jobs::Job;

const NUM_RECORDS: usize = 120;

/// About half of the records go on from the first tier; of these, some from the second.
const CASCADE: [&str; 6] = [
    "--cascade",
    "hybrid,hybrid:beams=3,llm",
    "--escalate=-2.52,-2.86",
    "--records-per-shard",
    "8",
    "--origin",
];

fn job() -> Job {
    let line = |index: usize| {
        let words = ["small tools", "of mail", "and logs", "read quickly"][index % 4];
        format!("{{\"id\":\"r{index}\",\"text\":\"{words} {}\"}}\n", index * index)
    };
    Job::of(shared_bundle(), &(0..NUM_RECORDS).map(line).collect::<String>(), &CASCADE)
}

fn start(name: &str, mode: &str) -> Worker {
    Worker::start(name, shared_bundle(), &["--mode", mode])
}

#[test]
fn each_tier_goes_to_the_workers_that_serve_it_and_the_bytes_are_those_of_one_process() {
    let job = job();
    let reference = job.run_in_one_process();
    let of_tier = |tier: &str| {
        reference.keys().filter(|name| name.starts_with(&format!("_baton/tiers/{tier}/"))).count()
    };
    assert_eq!(of_tier("0"), NUM_RECORDS / 8);
    assert!(of_tier("1") > 0, "some shards reach the second tier");

    let encoders = ["hybrid", "llm"].map(|mode| start("baton-encoder", mode));
    let decoders = ["hybrid", "llm", "hybrid"].map(|mode| start("baton-decoder", mode));
    let endpoints = |workers: &[Worker]| workers.iter().map(Worker::endpoint).collect::<Vec<_>>();
    let ended = job.coordinate("cluster", &endpoints(&encoders), &endpoints(&decoders), &[]).wait();
    job.check("cluster", &ended, &reference);
    for decoder in &decoders {
        assert!(decoder.metric("baton_decoder_output_tokens_total") > 0.0, "each decoder had its tiers");
    }
}

#[test]
fn a_tier_that_no_worker_serves_ends_the_job_and_says_so() {
    let job = job();
    let (encoder, decoder) = (start("baton-encoder", "hybrid"), start("baton-decoder", "hybrid"));
    let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &[]).wait();
    assert_ne!(ended.code, Some(0));
    assert!(ended.log.join("\n").contains("asks for mode `llm`"), "{:#?}", ended.log);
}
