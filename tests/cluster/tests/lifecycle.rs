//! A service's health, its ways to stop, and the clean-up at one end of a stream after the death of the
//! other.

use std::collections::BTreeSet;

use baton_cluster_tests::{Process, Worker, command, page, wait_for};
use baton_job::PartFormat;
use baton_job::ShardIndex;
use baton_job::layout::part_key;
use baton_proto::{Connections, Refusal};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::bundle::shared_bundle;
use crate::shard_client::{OpenShard, attempt, shard};

const OPEN_SHARDS: &str = "baton_open_shards";

fn start(name: &str, flags: &[&str]) -> Worker {
    Worker::start(name, shared_bundle(), flags)
}

async fn health(worker: &Worker, service: &str) -> ServingStatus {
    let connection = Connections::default().to(&worker.endpoint()).unwrap();
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(connection).check(request).await.unwrap().into_inner().status()
}

async fn services_by_reflection(worker: &Worker) -> BTreeSet<String> {
    let connection = Connections::default().to(&worker.endpoint()).unwrap();
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let requests = tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request });
    let responses = ServerReflectionClient::new(connection).server_reflection_info(requests).await.unwrap();
    let response = responses.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else {
        panic!("a list is the answer to a wish for a list")
    };
    list.service.into_iter().map(|service| service.name).collect()
}

#[tokio::test]
async fn a_service_tells_its_health_its_contract_and_its_metrics() {
    for (name, service, metric) in [
        ("baton-encoder", "baton.v1.Encoder", "baton_encoder_prompt_tokens_total"),
        ("baton-decoder", "baton.v1.Decoder", "baton_decoder_waiting_tokens"),
    ] {
        let worker = start(name, &[]);
        for part in ["", service, "liveness"] {
            assert_eq!(health(&worker, part).await, ServingStatus::Serving, "{name} {part}");
        }
        let listed = services_by_reflection(&worker).await;
        assert!(listed.contains(service), "{listed:?}");
        assert_eq!(page(worker.http, "/livez").0, 200);
        assert_eq!(page(worker.http, "/readyz").0, 200);
        assert_eq!(worker.metric(metric), 0.0);
    }
}

#[tokio::test]
async fn a_draining_pair_finishes_its_shard_takes_no_other_and_exits_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &[]));
    let records = shard(20);
    let (at_encoder, at_decoder) = (encoder.endpoint(), decoder.endpoint());
    let open = || OpenShard::open(&at_encoder, &at_decoder, attempt(directory.path(), 20));
    let mut under_way = open().await.unwrap();
    encoder.process.signal("TERM");
    wait_for("the drain", || {
        (page(encoder.http, "/readyz") == (503, "not ready: draining\n".to_owned())).then_some(())
    });

    assert_eq!(page(encoder.http, "/livez").0, 200);
    assert_eq!(health(&encoder, "").await, ServingStatus::NotServing);
    assert_eq!(health(&encoder, "liveness").await, ServingStatus::Serving);
    let refused = open().await.err().expect("no shard is taken on");
    assert_eq!((Refusal::of(&refused), refused.code()), (Some(Refusal::Draining), Code::Unavailable));

    under_way.send_all(&records).await;
    assert_eq!(under_way.receipt().await.unwrap().records, 20);
    let ended = encoder.process.wait();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    decoder.process.signal("INT");
    assert_eq!(decoder.process.wait().code, Some(0));
    assert!(directory.path().join(part_key(ShardIndex(0), PartFormat::default())).exists());
}

#[tokio::test]
async fn shards_that_outlast_the_grace_period_or_a_second_signal_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let decoder = start("baton-decoder", &[]);
    for (grace_period_s, num_signals) in [("1", 1), ("600", 2)] {
        let mut encoder = start("baton-encoder", &["--grace-period-s", grace_period_s]);
        let mut stuck =
            OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt(directory.path(), 20))
                .await
                .unwrap();
        encoder.process.signal("TERM");
        if num_signals == 2 {
            encoder.process.wait_for_log("draining", |line| (line["message"] == "draining").then_some(()));
            encoder.process.signal("TERM");
        }
        let status = stuck.receipt().await.unwrap_err();
        assert_eq!(Refusal::of(&status), Some(Refusal::Draining), "{status}");
        assert_eq!(encoder.process.wait().code, Some(0));
    }
}

#[tokio::test]
async fn the_death_of_an_encoder_frees_the_decoder() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &["--decode-slots", "1"]));
    let records = shard(2000);
    let attempt = attempt(directory.path(), 2000);
    let mut under_way = OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt).await.unwrap();
    under_way.send_all(&records).await;
    under_way.first_event().await;
    decoder.wait_for_metric(OPEN_SHARDS, 1.0);
    encoder.process.kill();

    assert!(under_way.receipt().await.is_err());
    for metric in [OPEN_SHARDS, "baton_decoder_slots_in_use", "baton_decoder_waiting_tokens"] {
        decoder.wait_for_metric(metric, 0.0);
    }
    assert!(
        !directory.path().join(part_key(ShardIndex(0), PartFormat::default())).exists(),
        "nothing of it was committed"
    );
}

#[tokio::test]
async fn the_death_of_a_decoder_frees_the_encoder_and_is_told_to_the_coordinator() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &["--decode-slots", "1"]));
    let (records, endpoint) = (shard(2000), decoder.endpoint());
    let mut under_way =
        OpenShard::open(&encoder.endpoint(), &endpoint, attempt(directory.path(), 2000)).await.unwrap();
    under_way.send_all(&records).await;
    under_way.first_event().await;
    decoder.process.kill();
    let status = under_way.receipt().await.unwrap_err();
    assert!(status.message().contains(&endpoint), "{status}");
    encoder.wait_for_metric(OPEN_SHARDS, 0.0);
}

#[tokio::test]
async fn a_caller_that_leaves_frees_both() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, decoder) = (start("baton-encoder", &[]), start("baton-decoder", &["--decode-slots", "1"]));
    let records = shard(2000);
    let mut under_way =
        OpenShard::open(&encoder.endpoint(), &decoder.endpoint(), attempt(directory.path(), 2000))
            .await
            .unwrap();
    under_way.send_all(&records).await;
    under_way.first_event().await;
    drop(under_way);
    encoder.wait_for_metric(OPEN_SHARDS, 0.0);
    decoder.wait_for_metric(OPEN_SHARDS, 0.0);
}

#[test]
fn a_service_that_is_stopped_while_it_loads_exits_with_0() {
    let mut process = command("baton-encoder");
    process.arg("--bundle").arg(shared_bundle()).args(["--log-format", "json"]);
    process.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    let mut process = Process::start(process);
    process.wait_for_log("the first line", |_| Some(()));
    process.signal("TERM");
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
}

#[test]
fn a_process_that_cannot_start_says_why_and_with_which_code() {
    let fails = |flags: &[&str], code: i32, piece: &str| {
        let mut process = command("baton-decoder");
        process.args(["--http-listen", "none", "--listen", "127.0.0.1:0"]).args(flags);
        let ended = Process::start(process).wait();
        assert_eq!(ended.code, Some(code), "{:#?}", ended.log);
        assert!(ended.log.join("\n").contains(piece), "`{piece}` is not in {:#?}", ended.log);
    };
    let bundle = shared_bundle().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fails(&[], 2, "--bundle");
    fails(&["--bundle", bundle, "--log", "=,="], 2, "--log");
    fails(&["--bundle", bundle, "--tls-cert", "absent.crt"], 2, "--tls-key");
    fails(&["--bundle", bundle, "--auth-token-file", "absent"], 2, "cannot read absent");
    fails(&["--bundle", "absent"], 1, "absent/bundle.json");
    fails(&["--bundle", bundle, "--cache-tokens", "8"], 1, "cannot hold one prompt");
    let mut process = command("baton-decoder");
    process.args(["--bundle", bundle, "--listen", &taken, "--http-listen", "none"]);
    let ended = Process::start(process).wait();
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.join("\n").contains("--listen"), "{:#?}", ended.log);
}
