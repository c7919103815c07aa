//! A service refuses excess at the edge, names the limit, and continues.

use baton_cluster_tests::{Worker, page, wait_for};
use baton_job::{GenerationOptions, ShardEntry};
use baton_proto::{FailureOrigin, Refusal, ShardAttempt};
use tonic::Code;

use crate::bundle::shared_bundle;
use crate::shard_client::{OpenShard, attempt, shard};

fn start(name: &str, flags: &[&str]) -> Worker {
    Worker::start(name, shared_bundle(), flags)
}

#[tokio::test]
async fn an_encoder_with_as_many_shards_as_it_may_have_is_busy_and_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) =
        (start("baton-encoder", &["--max-open-shards", "1"]), start("baton-decoder", &[]));
    let (at_encoder, at_decoder) = (encoder.endpoint(), decoder.endpoint());
    let open = || OpenShard::open(&at_encoder, &at_decoder, attempt(directory.path(), 20));
    let mut first = open().await.unwrap();
    wait_for("the full house", || {
        (page(encoder.http, "/readyz") == (503, "not ready: busy\n".to_owned())).then_some(())
    });
    assert_eq!(page(encoder.http, "/livez").0, 200);
    let status = open().await.err().expect("there is no room");
    assert_eq!((Refusal::of(&status), status.code()), (Some(Refusal::Busy), Code::ResourceExhausted));
    assert!(status.message().contains("--max-open-shards"), "{status}");
    assert_eq!(encoder.metric("baton_grpc_rejections_total{reason=\"busy\"}"), 1.0);

    first.send_all(&shard(20)).await;
    first.receipt().await.unwrap();
    wait_for("room", || (page(encoder.http, "/readyz").0 == 200).then_some(()));
    open().await.unwrap();
}

#[tokio::test]
async fn a_busy_decoder_is_told_to_the_coordinator_as_the_decoders_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) =
        (start("baton-encoder", &[]), start("baton-decoder", &["--max-open-shards", "1"]));
    // The decoder's only place is taken by a shard whose entries do not come.
    let other = start("baton-encoder", &[]);
    let records = shard(20);
    let mut slow = OpenShard::open(&other.endpoint(), &decoder.endpoint(), attempt(directory.path(), 400))
        .await
        .unwrap();
    slow.send_all(&shard(400)).await;
    slow.first_event().await;
    let mut refused =
        OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt(directory.path(), 20))
            .await
            .unwrap();
    refused.send_all(&records).await;
    let status = refused.receipt().await.unwrap_err();
    assert_eq!((Refusal::of(&status), status.code()), (Some(Refusal::Busy), Code::ResourceExhausted));
    assert_eq!(FailureOrigin::of(&status), Some(FailureOrigin::DecoderOpening));
    slow.receipt().await.unwrap();
}

#[tokio::test]
async fn records_above_the_memory_limit_are_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let decoder = start("baton-decoder", &[]);
    let encoder = start("baton-encoder", &["--max-records-mib", "1"]);
    let num_records = 20_000;
    let mut large =
        OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt(directory.path(), num_records))
            .await
            .unwrap();
    large.send_all(&shard(num_records)).await;
    let status = large.receipt().await.unwrap_err();
    assert_eq!((status.code(), Refusal::of(&status)), (Code::FailedPrecondition, None));
    assert!(status.message().contains("--max-records-mib"), "{status}");

    let mut small = OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt(directory.path(), 20))
        .await
        .unwrap();
    small.send_all(&shard(20)).await;
    small.receipt().await.unwrap();
}

/// Bytes of the document that is read sentence by sentence.
const DOCUMENT_NUM_BYTES: usize = 3 << 20;

#[tokio::test]
async fn a_long_document_takes_memory_for_its_own_text_and_repeated_sentences_are_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let sentence = |number: usize| format!("Mail {} came. ", number % 300);
    let mut sentences = (0..).map(sentence);
    let mut text = String::new();
    while text.len() < DOCUMENT_NUM_BYTES {
        text += &sentences.next().unwrap();
    }
    let mut document = shard(1);
    let ShardEntry::Prompt(record) = &mut document.entries[0] else { panic!("a record") };
    record.text = text;
    let generation = GenerationOptions { by_sentence: true, max_new_tokens: Some(2), ..Default::default() };
    let attempt = |output: &str| ShardAttempt {
        generation: generation.clone(),
        ..attempt(&directory.path().join(output), 1)
    };

    let (encoder, decoder) =
        (start("baton-encoder", &[]), start("baton-decoder", &["--max-records-mib", "64"]));
    let (at_encoder, at_decoder) = (encoder.endpoint(), decoder.endpoint());
    let mut open = OpenShard::open(&at_encoder, &at_decoder, attempt("fits")).await.unwrap();
    open.send_all(&document).await;
    let receipt = open.receipt().await.unwrap();
    assert_eq!((receipt.records, receipt.failed_records), (1, 0));
    assert!(receipt.output_tokens > 300_000, "{}", receipt.output_tokens);
    // A token for each byte, and two for the template.
    let num_tokens: usize = (0..300).map(|number| sentence(number).trim().len() + 2).sum();
    assert_eq!(encoder.metric("baton_encoder_prompt_tokens_total"), num_tokens as f64);

    let small = start("baton-decoder", &["--max-records-mib", "16"]);
    let mut refused = OpenShard::open(&at_encoder, &small.endpoint(), attempt("refused")).await.unwrap();
    refused.send_all(&document).await;
    let status = refused.receipt().await.unwrap_err();
    assert_eq!(FailureOrigin::of(&status), Some(FailureOrigin::DecoderOpening), "before anything is read");
    assert!(status.message().contains("--max-records-mib"), "{status}");
    assert_eq!(encoder.metric("baton_encoder_prompt_tokens_total"), num_tokens as f64);
}

#[tokio::test]
async fn a_message_or_a_shard_above_the_contracts_limits_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &[]));
    let (at_encoder, at_decoder) = (encoder.endpoint(), decoder.endpoint());
    let many = OpenShard::open(&at_encoder, &at_decoder, attempt(directory.path(), 70_000)).await;
    let status = many.err().expect("more entries than any shard has");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ShardHeader.num_entries"), "{status}");

    let mut shard_of_one =
        OpenShard::open(&at_encoder, &at_decoder, attempt(directory.path(), 1)).await.unwrap();
    shard_of_one.send_text("x".repeat(5 << 20)).await;
    let status = shard_of_one.receipt().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("after entry 0 of the shard is too large"), "{status}");
}
