//! A job whose corpus and output lie in a bucket of a real S3 server. Needs `BATON_WEED`, see
//! `tests/support/seaweed.rs`.

use std::process::Command;

use crate::bundle::shared_bundle;
use crate::command::{Ended, Job, baton, corpus};

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../support/seaweed.rs"]
mod seaweed;

use seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};

const NUM_RECORDS: usize = 40;

/// A run from bucket to bucket. The environment contains only the variables set here, none of the
/// developer's.
fn s3_job(server: &Seaweed, secret_key: &str, bucket: &str) -> Command {
    let mut command = baton();
    for variable in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"] {
        command.env_remove(variable);
    }
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL", server.endpoint())
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", secret_key)
        .arg("run")
        .arg("--bundle")
        .arg(shared_bundle())
        .args(["--input", &format!("s3://{bucket}/in/*.jsonl"), "--output", &format!("s3://{bucket}/out")])
        .args(["--records-per-shard", "8"]);
    command
}

#[test]
fn a_job_from_bucket_to_bucket_makes_the_bytes_of_a_local_one() {
    let server = Seaweed::shared();
    server.create_bucket("jobs");
    server.put_file("jobs/in/corpus.jsonl", corpus(NUM_RECORDS).as_bytes());
    server.put_file("jobs/in/README.md", b"not matched");
    let local = Job::of_records(NUM_RECORDS);
    local.run_expecting(0);

    let ended = Ended::from(s3_job(&server, "wrong-secret", "jobs").output().unwrap());
    assert_eq!(ended.code, Some(1));
    ended
        .assert_error(&["not allowed to look up s3://jobs/in/*.jsonl; check that the credentials are valid"]);

    let ended = Ended::from(s3_job(&server, SECRET_KEY, "jobs").output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let contents = local.contents();
    let parts: Vec<_> = contents.iter().filter(|(name, _)| name.starts_with("part-")).collect();
    assert_eq!(parts.len(), NUM_RECORDS / 8);
    for (name, bytes) in parts {
        assert!(server.get_file(&format!("jobs/out/{name}")).as_ref() == Some(bytes), "{name} differs");
    }
    let manifest = server.get_file("jobs/out/_SUCCESS").expect("the manifest is written");

    let ended = Ended::from(s3_job(&server, SECRET_KEY, "jobs").output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(server.get_file("jobs/out/_SUCCESS") == Some(manifest), "a complete job is left alone");
}

#[test]
fn a_server_of_ones_own_needs_no_region_and_no_metadata_address() {
    let metadata = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    metadata.set_nonblocking(true).unwrap();
    let server = Seaweed::shared();
    server.create_bucket("regionless");
    server.put_file("regionless/in/corpus.jsonl", corpus(NUM_RECORDS).as_bytes());
    let mut command = s3_job(&server, SECRET_KEY, "regionless");
    command
        .env_remove("AWS_EC2_METADATA_DISABLED")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", metadata.local_addr().unwrap()));
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let asked = metadata.accept().map(|(_, peer)| peer);
    assert_eq!(asked.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody was asked for a region");
}
