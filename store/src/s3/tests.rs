//! The S3 backend against a real server (which needs `BATON_WEED`, see `tests/support/seaweed.rs`). Prepared
//! answers and cut connections stand in for errors that a healthy server does not produce on demand.

mod cutting_proxy;
mod failures;
mod reading;
mod scripted_server;
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../../../tests/support/seaweed.rs"]
mod seaweed;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use bytes::Bytes;
use seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};

use super::client::build;
use super::upload::{MAX_SINGLE_WRITE_NUM_BYTES, PART_NUM_BYTES};
use crate::{CreateOutcome, Store, StoreError, conformance};

/// A client's settings without credentials. Two tries, and hardly a wait between them.
fn settings(endpoint: &str) -> Builder {
    let retries = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(1));
    Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .retry_config(retries)
        .endpoint_url(endpoint)
}

fn client(endpoint: &str, secret_key: &str) -> Client {
    build(
        settings(endpoint).credentials_provider(Credentials::new(ACCESS_KEY, secret_key, None, None, "test")),
    )
}

/// A new bucket, which keeps its server alive.
struct Bucket {
    server: Arc<Seaweed>,
    name: &'static str,
    client: Client,
}

impl Bucket {
    fn new(name: &'static str) -> Bucket {
        let server = Seaweed::shared();
        server.create_bucket(name);
        let client = client(&server.endpoint(), SECRET_KEY);
        Bucket { server, name, client }
    }

    fn store(&self, prefix: &str) -> Store {
        Store::on_s3(self.client.clone(), self.name, prefix)
    }
}

/// An error and its causes, as the command line shows them.
fn in_full(error: &StoreError) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Bytes that differ from place to place.
fn pattern(num_bytes: usize) -> Bytes {
    (0..num_bytes).map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_s3_backend_conforms() {
    let bucket = Bucket::new("conformance");
    conformance::run_all(&bucket.store("some/prefix")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_more_than_one_page_is_complete_and_sorted() {
    const NUM_OBJECTS: usize = 1_050; // a page has 1,000
    let bucket = Bucket::new("pages");
    let keys: Vec<String> = (0..NUM_OBJECTS).map(|index| format!("many/{index:04}")).collect();
    for key in &keys {
        bucket.server.put_file(&format!("pages/{key}"), b"x");
    }
    let listed = bucket.store("").list("many/").await.unwrap();
    assert!(listed.iter().map(|object| &object.key).eq(&keys), "{} objects", listed.len());
}

#[tokio::test]
async fn a_store_sees_only_its_prefix() {
    let bucket = Bucket::new("prefixes");
    let (inner, sibling) = (bucket.store("jobs/a"), bucket.store("jobs/ab"));
    assert_eq!(inner.create("part", "inner".into()).await.unwrap(), CreateOutcome::Created);
    assert_eq!(sibling.create("part", "sibling".into()).await.unwrap(), CreateOutcome::Created);
    bucket.server.put_file("prefixes/jobs/a/.hidden", b"no key of a store");
    let listed = inner.list("").await.unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["part"]);
    assert_eq!(bucket.server.get_file("prefixes/jobs/a/part").unwrap(), b"inner");
}

#[tokio::test]
async fn a_large_object_is_created_once_in_parts_and_leaves_no_unfinished_upload() {
    let bucket = Bucket::new("large");
    let store = bucket.store("out");
    let bytes = pattern(MAX_SINGLE_WRITE_NUM_BYTES + PART_NUM_BYTES / 3);
    assert_eq!(store.create("object", bytes.clone()).await.unwrap(), CreateOutcome::Created);
    assert!(store.get("object").await.unwrap() == Some(bytes.clone()), "other bytes came back");
    let other = pattern(MAX_SINGLE_WRITE_NUM_BYTES + 1);
    assert_eq!(store.create("object", other.clone()).await.unwrap(), CreateOutcome::AlreadyExists);
    assert_eq!(store.head("object").await.unwrap().unwrap().size, bytes.len() as u64);
    store.put("object", other.clone()).await.unwrap();
    assert!(store.get("object").await.unwrap() == Some(other), "a put replaces");
    let uploads = bucket.client.list_multipart_uploads().bucket(bucket.name).send().await.unwrap();
    assert_eq!(uploads.uploads().len(), 0);
}
