//! Inputs on S3: the matches of a pattern, and reading that survives broken connections but not a changed
//! object.

use std::io::Read;

use super::cutting_proxy::CuttingProxy;
use super::scripted_server::{Answer, ScriptedServer};
use super::*;
use crate::InputFile;
use crate::inputs::{list_s3, open_ranges_s3, open_s3};

const NUM_BYTES: usize = 3 << 20;

async fn read_to_end(mut reader: Box<dyn Read + Send>) -> std::io::Result<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// A bucket with one object, as an input.
async fn one_input(bucket: &Bucket) -> InputFile {
    bucket.store("").put("in/a.jsonl", pattern(NUM_BYTES)).await.unwrap();
    let [input] = &list_s3(&bucket.client, bucket.name, "in").await.unwrap()[..] else {
        panic!("one object")
    };
    input.clone()
}

#[tokio::test]
async fn objects_directories_and_globs_are_listed_as_on_a_local_disk() {
    let bucket = Bucket::new("patterns");
    let keys = [
        "a.txt",
        "a[1].txt",
        "b.csv",
        "_c.txt",
        ".d.txt",
        "in/e.txt",
        "in/deep/f.txt",
        "in/_g/h.txt",
        "into.txt",
    ];
    for key in keys {
        bucket.client.put_object().bucket(bucket.name).key(key).send().await.unwrap();
    }
    let cases: [(&str, &[&str]); 11] = [
        ("a.txt", &["a.txt"]),
        ("_c.txt", &["_c.txt"]),
        ("in", &["in/deep/f.txt", "in/e.txt"]),
        ("in/_g", &["in/_g/h.txt"]),
        ("", &["a.txt", "a[1].txt", "b.csv", "in/deep/f.txt", "in/e.txt", "into.txt"]),
        ("*.txt", &["a.txt", "a[1].txt", "into.txt"]),
        ("*/*.txt", &["in/e.txt"]),
        ("**/[ef].txt", &["in/deep/f.txt", "in/e.txt"]),
        ("in/_g/?.txt", &["in/_g/h.txt"]),
        ("a[1].txt", &["a[1].txt"]),
        ("missing*", &[]),
    ];
    for (pattern, wanted) in cases {
        let files = list_s3(&bucket.client, bucket.name, pattern).await.unwrap();
        let uris: Vec<&str> = files.iter().map(|file| file.uri.as_str()).collect();
        assert_eq!(
            uris,
            wanted.iter().map(|key| format!("s3://patterns/{key}")).collect::<Vec<_>>(),
            "{pattern}"
        );
    }
    let error = list_s3(&bucket.client, bucket.name, "a[.txt").await.unwrap_err().to_string();
    assert!(error.starts_with("input pattern s3://patterns/a[.txt is not a valid glob"), "{error}");
}

#[tokio::test]
async fn an_input_is_opened_only_as_it_was_listed() {
    let bucket = Bucket::new("changes");
    let input = one_input(&bucket).await;
    assert_eq!((input.uri.as_str(), input.size), ("s3://changes/in/a.jsonl", NUM_BYTES as u64));
    let bytes = read_to_end(open_s3(&bucket.client, &input).await.unwrap()).await.unwrap();
    assert!(bytes == pattern(NUM_BYTES), "other bytes came back");
    bucket.store("").put("in/a.jsonl", "other".into()).await.unwrap();
    let error = open_s3(&bucket.client, &input).await.err().expect("it changed").to_string();
    assert!(error.starts_with("input s3://changes/in/a.jsonl changed while the job ran"), "{error}");
    bucket.client.delete_object().bucket("changes").key("in/a.jsonl").send().await.unwrap();
    let error = open_s3(&bucket.client, &input).await.err().expect("it is gone");
    assert!(matches!(error, StoreError::InputChanged { .. }), "{error}");
}

#[tokio::test]
async fn a_read_continues_where_its_connection_broke() {
    let bucket = Bucket::new("broken-reads");
    let input = one_input(&bucket).await;
    let proxy = CuttingProxy::start(bucket.server.s3_port(), 2, NUM_BYTES / 3);
    let through_proxy = client(&proxy.endpoint(), SECRET_KEY);
    let bytes = read_to_end(open_s3(&through_proxy, &input).await.unwrap()).await.unwrap();
    assert!(bytes == pattern(NUM_BYTES), "{} other bytes came back", bytes.len());
    assert_eq!(proxy.cuts_left(), 0, "the connection was cut");

    let proxy = CuttingProxy::start(bucket.server.s3_port(), 1, NUM_BYTES / 3);
    let store = Store::on_s3(client(&proxy.endpoint(), SECRET_KEY), bucket.name, "");
    assert!(store.get("in/a.jsonl").await.unwrap() == Some(pattern(NUM_BYTES)), "other bytes came back");
    assert_eq!(proxy.cuts_left(), 0, "the connection was cut");
}

#[tokio::test]
async fn a_read_of_an_object_that_was_replaced_meanwhile_fails() {
    let bucket = Bucket::new("replaced");
    let input = one_input(&bucket).await;
    let proxy = CuttingProxy::start(bucket.server.s3_port(), 1, NUM_BYTES / 3);
    let reader = open_s3(&client(&proxy.endpoint(), SECRET_KEY), &input).await.unwrap();
    bucket.store("").put("in/a.jsonl", "other".into()).await.unwrap();
    let error = read_to_end(reader).await.unwrap_err();
    assert!(error.to_string().starts_with("input s3://replaced/in/a.jsonl changed"), "{error}");
    assert_eq!(proxy.cuts_left(), 0, "the connection was cut");
}

#[tokio::test]
async fn a_read_whose_connection_breaks_again_and_again_is_given_up() {
    let server = ScriptedServer::start(&[Answer::CutShort("200 OK\r\nETag: \"tag\"", 10)]);
    let input = InputFile { uri: "s3://bucket/a.jsonl".to_owned(), size: 10, etag: "tag".to_owned() };
    let reader = open_s3(&client(&server.endpoint(), SECRET_KEY), &input).await.unwrap();
    let error = read_to_end(reader).await.unwrap_err().downcast::<StoreError>().unwrap();
    assert!(matches!(error, StoreError::S3Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert_eq!(server.requests().len(), 6, "it was tried again");
}

#[tokio::test]
async fn any_bytes_of_an_object_are_read_in_the_version_that_was_listed() {
    let bucket = Bucket::new("ranges");
    bucket.store("").put("in/a.parquet", pattern(NUM_BYTES)).await.unwrap();
    let input = list_s3(&bucket.client, "ranges", "in").await.unwrap().remove(0);
    let ranges = std::sync::Arc::new(open_ranges_s3(&bucket.client, input).unwrap());
    assert_eq!(ranges.size(), NUM_BYTES as u64);
    let read = async |start: usize, num_bytes: usize| {
        let ranges = std::sync::Arc::clone(&ranges);
        let read = move || {
            let mut buffer = vec![0; num_bytes];
            ranges.read_at(start as u64, &mut buffer).map(|()| buffer)
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    };
    for (start, num_bytes) in [(0, 10), (NUM_BYTES - 7, 7), (1000, NUM_BYTES - 1000)] {
        assert!(read(start, num_bytes).await.unwrap() == pattern(NUM_BYTES)[start..start + num_bytes]);
    }
    assert!(read(NUM_BYTES - 7, 8).await.is_err(), "there are seven bytes only");
    bucket.store("").put("in/a.parquet", "other".into()).await.unwrap();
    assert!(read(0, 10).await.unwrap_err().to_string().contains("changed"));
}
