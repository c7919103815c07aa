//! Each failure is one line that says what to do, and is retried if that helps.

use std::net::{Ipv4Addr, TcpListener};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::ProvideCredentials;

use super::scripted_server::Answer::{self, Http, Nothing};
use super::scripted_server::ScriptedServer;
use super::*;

const OK: Answer = Http("200 OK", "");
const EXISTS: Answer = Http("412 Precondition Failed", "<Error><Code>PreconditionFailed</Code></Error>");
const CONFLICT: Answer = Http("409 Conflict", "<Error><Code>ConditionalRequestConflict</Code></Error>");
const BUSY: Answer = Http("503 Slow Down", "<Error><Code>SlowDown</Code><Message>Wait.</Message></Error>");

/// Creates one object on a server that gives these answers.
async fn create_with(
    answers: &[Answer],
    num_bytes: usize,
) -> (Result<CreateOutcome, StoreError>, Vec<String>) {
    let server = ScriptedServer::start(answers);
    let store = Store::on_s3(client(&server.endpoint(), SECRET_KEY), "bucket", "out");
    let outcome = store.create("part", pattern(num_bytes)).await;
    (outcome, server.requests())
}

#[track_caller]
fn assert_says(error: &StoreError, wanted: &str) {
    let text = in_full(error);
    assert!(text.contains(wanted), "`{wanted}` is not in: {text}");
    assert!(!text.contains('\n'), "one line: {text}");
    assert!(!text.contains(SECRET_KEY), "no secrets: {text}");
}

#[tokio::test]
async fn a_wrong_secret_key_is_refused_and_not_shown() {
    let bucket = Bucket::new("wrong-key");
    let wrong = client(&bucket.server.endpoint(), "wrong-secret");
    let store = Store::on_s3(wrong, bucket.name, "out");
    let created = store.create("part", "x".into()).await.unwrap_err();
    for error in [created, store.list("").await.unwrap_err(), store.get("part").await.unwrap_err()] {
        assert!(matches!(error, StoreError::S3AccessDenied { .. }), "{error:?}");
        assert!(!error.is_retryable() && !in_full(&error).contains("wrong-secret"), "{error:?}");
    }
    let error = store.create("part", "x".into()).await.unwrap_err();
    assert_says(&error, "not allowed to write s3://wrong-key/out/part; check that the credentials are valid");
    assert_says(&error, ": HTTP status 403 SignatureDoesNotMatch");
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = Seaweed::shared();
    let store = Store::on_s3(client(&server.endpoint(), SECRET_KEY), "no-such-bucket", "out");
    // This server makes a bucket for anybody who writes into it as an administrator, so a create is checked
    // against a script.
    let answer = Http("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>");
    let created = create_with(&[answer], 1).await.0.unwrap_err();
    assert!(matches!(created, StoreError::S3NoSuchBucket { .. }), "{created:?}");
    for error in [store.list("").await.unwrap_err(), store.get("part").await.unwrap_err()] {
        assert!(matches!(error, StoreError::S3NoSuchBucket { .. }), "{error:?}");
        assert_says(&error, "s3://no-such-bucket/out");
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_serves_is_unreachable_and_retryable() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let store = Store::on_s3(client(&format!("http://127.0.0.1:{port}"), SECRET_KEY), "bucket", "out");
    let error = store.get("part").await.unwrap_err();
    assert!(matches!(error, StoreError::S3Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert_says(
        &error,
        "the S3 endpoint cannot be reached to read s3://bucket/out/part; check AWS_ENDPOINT_URL",
    );
    assert_says(&error, "Connection refused");
}

#[tokio::test]
async fn missing_credentials_are_named_with_the_variables_to_set() {
    #[derive(Debug)]
    struct NoCredentials;
    impl ProvideCredentials for NoCredentials {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nothing is set")))
        }
    }
    let client = build(settings("http://127.0.0.1:9").credentials_provider(NoCredentials));
    let error = Store::on_s3(client, "bucket", "out").list("").await.unwrap_err();
    assert!(matches!(error, StoreError::S3NoCredentials { .. }) && !error.is_retryable(), "{error:?}");
    assert_says(&error, "no credentials to list s3://bucket/out/; set AWS_ACCESS_KEY_ID");
}

#[tokio::test]
async fn a_throttled_request_is_tried_again_and_then_said_to_be_throttled() {
    let (outcome, requests) = create_with(&[BUSY, OK], 1).await;
    assert_eq!((outcome.unwrap(), requests.len()), (CreateOutcome::Created, 2));
    let (outcome, requests) = create_with(&[BUSY], 1).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::S3Throttled { .. }) && error.is_retryable(), "{error:?}");
    assert_says(&error, "throttling requests to write s3://bucket/out/part");
    assert_says(&error, "HTTP status 503 SlowDown: Wait.");
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn a_bucket_in_another_region_is_said_to_be_there() {
    let answer = Http(
        "301 Moved Permanently\r\nx-amz-bucket-region: eu-south-1",
        "<Error><Code>PermanentRedirect</Code></Error>",
    );
    let error = create_with(&[answer], 1).await.0.unwrap_err();
    assert!(matches!(error, StoreError::S3WrongRegion { .. }) && !error.is_retryable(), "{error:?}");
    assert_says(&error, "set AWS_REGION to eu-south-1");
}

#[tokio::test]
async fn a_conflicting_create_is_tried_again() {
    let (outcome, requests) = create_with(&[CONFLICT, OK], 1).await;
    assert_eq!((outcome.unwrap(), requests.len()), (CreateOutcome::Created, 2));
    let (outcome, _) = create_with(&[CONFLICT, EXISTS], 1).await;
    assert_eq!(outcome.unwrap(), CreateOutcome::AlreadyExists);
    let error = create_with(&[CONFLICT], 1).await.0.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_to_exist() {
    let (outcome, requests) = create_with(&[Nothing, EXISTS], 1).await;
    assert_eq!((outcome.unwrap(), requests.len()), (CreateOutcome::AlreadyExists, 2));
}

const PARTS: usize = MAX_SINGLE_WRITE_NUM_BYTES + 1;
const ABSENT: Answer = Http("404 Not Found", "");
const BEGUN: Answer =
    Http("200 OK", "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>");
const SENT: Answer = Http("200 OK\r\nETag: \"tag\"", "");
const COMPLETED: Answer = Http("200 OK", "<CompleteMultipartUploadResult/>");
const GONE: Answer = Http("404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>");
const DENIED: Answer = Http("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
const ABORTED: Answer = Http("204 No Content", "");

#[tokio::test]
async fn a_large_create_that_another_write_crossed_is_uploaded_again() {
    let first = [ABSENT, BEGUN, SENT, SENT, SENT, CONFLICT, ABORTED];
    let (outcome, requests) =
        create_with(&[&first[..], &[ABSENT, BEGUN, SENT, SENT, SENT, COMPLETED]].concat(), PARTS).await;
    assert_eq!((outcome.unwrap(), requests.len()), (CreateOutcome::Created, 13));
}

#[tokio::test]
async fn a_large_create_whose_answer_was_lost_is_found_to_exist() {
    let answers = [ABSENT, BEGUN, SENT, SENT, SENT, Nothing, GONE, GONE, OK];
    let (outcome, requests) = create_with(&answers, PARTS).await;
    assert_eq!(outcome.unwrap(), CreateOutcome::AlreadyExists);
    let object = "/bucket/out/part";
    let methods = ["HEAD", "POST", "PUT", "PUT", "PUT", "POST", "POST", "DELETE", "HEAD"];
    assert_eq!(requests, methods.map(|method| format!("{method} {object}")));
}

#[tokio::test]
async fn a_large_create_that_fails_is_aborted() {
    let (outcome, requests) = create_with(&[ABSENT, BEGUN, SENT, DENIED, ABORTED], PARTS).await;
    assert_says(&outcome.unwrap_err(), "not allowed to write s3://bucket/out/part");
    assert_eq!(requests.last().unwrap(), "DELETE /bucket/out/part");
}
