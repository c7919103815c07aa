//! The two services over their sockets, from a coordinator's view: their descriptions, their refusals, and
//! the clean-up after a dropped attempt.

use std::fs;
use std::path::Path;

use baton_bundle::Bundle;
use baton_decoder_svc::{DecoderConfig, DecoderService};
use baton_encoder_svc::{EncoderConfig, EncoderService};
use baton_job::{
    GenerationOptions, Lease, Mode, PartFormat, Record, RecordSource, Shard, ShardEntry, ShardIndex, layout,
};
use baton_proto::wire::decoder_client::DecoderClient;
use baton_proto::wire::encoder_client::EncoderClient;
use baton_proto::wire::{
    EncodeShardHeader, EncodeShardRequest, GetDecoderInfoRequest, GetEncoderInfoRequest, ShardEvent,
    encode_shard_request, shard_event,
};
use baton_proto::{Connection, Connections, ShardAttempt, entry_batches};
use baton_worker::serve_locally;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Status, Streaming};

use crate::bundle::{MAX_NEW_TOKENS, MAX_PROMPT_TOKENS, shared_bundle, write_bundle};
use crate::command::Job;

struct Services {
    directory: TempDir,
    bundle: Bundle,
    encoder: EncoderClient<Connection>,
    decoder: DecoderClient<Connection>,
}

impl Services {
    async fn start() -> Services {
        Self::start_with(shared_bundle()).await
    }

    async fn start_with(bundle: &Path) -> Services {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(bundle).unwrap();
        let connections = Connections::default();
        let listen = |name: &str| {
            let path = directory.path().join(name);
            let listener = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
            (listener, connections.to(&format!("unix:{}", path.display())).unwrap())
        };
        let (encoder_connections, encoder_channel) = listen("encoder.sock");
        let (decoder_connections, decoder_channel) = listen("decoder.sock");
        let encoder = EncoderService::load(&bundle, EncoderConfig::cpu(), connections.clone()).await.unwrap();
        let decoder = DecoderService::load(&bundle, DecoderConfig::cpu()).await.unwrap();
        tokio::spawn(serve_locally(encoder.into_served(), encoder_connections, std::future::pending()));
        tokio::spawn(serve_locally(decoder.into_served(), decoder_connections, std::future::pending()));
        let (encoder, decoder) = (EncoderClient::new(encoder_channel), DecoderClient::new(decoder_channel));
        Services { directory, bundle, encoder, decoder }
    }

    fn attempt(&self, shard: &Shard) -> ShardAttempt {
        ShardAttempt {
            job_id: "test".to_owned(),
            lease: Lease { shard: shard.index, attempt: 1 },
            num_entries: shard.entries.len() as u32,
            bundle_digest: self.bundle.digest().to_owned(),
            output_location: self.directory.path().join("out").to_str().unwrap().to_owned(),
            cache_location: None,
            mode: Mode::Hybrid,
            task: None,
            generation: GenerationOptions::default(),
            parts: baton_job::PartOptions::default(),
            first_entry: shard.first_entry,
            is_probe: false,
            tier: None,
        }
    }

    async fn encode(
        &mut self,
        attempt: ShardAttempt,
        shard: &Shard,
    ) -> Result<Streaming<ShardEvent>, Status> {
        use encode_shard_request::Message;
        let decoder_endpoint = format!("unix:{}", self.directory.path().join("decoder.sock").display());
        let header = Message::Header(EncodeShardHeader { shard: Some(attempt.into()), decoder_endpoint });
        let messages: Vec<_> = std::iter::once(header)
            .chain(entry_batches(shard).map(Message::Entries))
            .map(|message| EncodeShardRequest { message: Some(message) })
            .collect();
        Ok(self.encoder.encode_shard(tokio_stream::iter(messages)).await?.into_inner())
    }

    /// Runs an attempt to its receipt or status.
    async fn run(&mut self, attempt: ShardAttempt, shard: &Shard) -> Result<shard_event::Event, Status> {
        let mut events = self.encode(attempt, shard).await?;
        let mut last = None;
        while let Some(event) = events.message().await? {
            last = event.event;
        }
        last.ok_or_else(|| Status::internal("no event"))
    }

    fn has(&self, key: &str) -> bool {
        self.directory.path().join("out").join(key).exists()
    }
}

fn shard(index: u32, num_records: u32) -> Shard {
    let record = |index: u32| {
        let source = RecordSource { uri: "corpus.txt".to_owned(), line: u64::from(index) + 1 };
        let text = format!("record number {index}");
        ShardEntry::Prompt(Record::new(index, format!("r{index}"), source, text))
    };
    Shard {
        index: ShardIndex(index),
        first_entry: u64::from(index) * u64::from(num_records),
        entries: (0..num_records).map(record).collect(),
    }
}

#[tokio::test]
async fn services_report_their_loaded_models() {
    let mut services = Services::start().await;
    let encoder =
        services.encoder.get_info(GetEncoderInfoRequest {}).await.unwrap().into_inner().info.unwrap();
    let decoder =
        services.decoder.get_info(GetDecoderInfoRequest {}).await.unwrap().into_inner().info.unwrap();
    assert_eq!(encoder, decoder);
    assert_eq!(encoder.bundle_digest, services.bundle.digest());
    assert_eq!(
        (encoder.max_prompt_tokens, encoder.max_new_tokens),
        (MAX_PROMPT_TOKENS as u32, MAX_NEW_TOKENS as u32)
    );
    assert_eq!(encoder.modes, ["hybrid"]);
}

#[tokio::test]
async fn an_attempt_ends_with_a_receipt_and_a_second_one_learns_that_the_shard_is_committed() {
    let mut services = Services::start().await;
    let shard = shard(3, 20);
    let attempt = services.attempt(&shard);
    for already_committed in [false, true] {
        let event = services.run(attempt.clone(), &shard).await.unwrap();
        let shard_event::Event::Receipt(receipt) = event else { panic!("a receipt comes last") };
        assert_eq!((receipt.records, receipt.failed_records), (20, 0));
        assert_eq!(receipt.already_committed, already_committed);
    }
}

#[tokio::test]
async fn an_attempt_for_another_bundle_or_mode_or_template_is_refused() {
    let mut services = Services::start().await;
    let shard = shard(0, 1);
    let attempt = services.attempt(&shard);
    let refused = [
        (
            ShardAttempt { bundle_digest: "0123".to_owned(), ..attempt.clone() },
            Code::FailedPrecondition,
            "0123",
        ),
        (ShardAttempt { mode: Mode::Verified, ..attempt.clone() }, Code::FailedPrecondition, "`verified`"),
        (ShardAttempt { task: Some("poem".to_owned()), ..attempt.clone() }, Code::InvalidArgument, "`poem`"),
        (ShardAttempt { num_entries: 2, ..attempt.clone() }, Code::InvalidArgument, "as many entries"),
    ];
    for (attempt, code, piece) in refused {
        let status = services.run(attempt, &shard).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(piece), "{status}");
    }
    assert!(!services.has("_baton"), "nothing was written");
}

/// A bundle that serves `modes`; its weights are the same for all modes.
fn write_bundle_of_modes(directory: &Path, modes: &[Mode]) {
    write_bundle(directory, 1);
    let path = directory.join("bundle.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["modes"] = serde_json::to_value(modes).unwrap();
    manifest["generation"] = json!({});
    fs::write(path, manifest.to_string()).unwrap();
}

#[tokio::test]
async fn the_mode_of_a_request_decides_in_one_process_and_in_services() {
    let directory = tempfile::tempdir().unwrap();
    let (both, alone) = (directory.path().join("both"), directory.path().join("alone"));
    write_bundle_of_modes(&both, &[Mode::Hybrid, Mode::Slm]);
    write_bundle_of_modes(&alone, &[Mode::Slm]);
    let shard = shard(0, 20);
    let lines: String = shard
        .prompts()
        .map(|record| format!("{}\n", json!({ "id": record.id, "text": record.text })))
        .collect();
    let part_of_job = |bundle: &Path, mode: &str| {
        let job = Job::new().with_input("a.jsonl", &lines).with_bundle(bundle).with_flags(&["--mode", mode]);
        job.run_expecting(0);
        job.contents()["part-000000.jsonl"].clone()
    };
    let (hybrid, slm) = (part_of_job(&both, "hybrid"), part_of_job(&both, "slm"));
    assert!(slm == part_of_job(&alone, "slm"), "the LLM takes part where the small model is asked alone");
    assert!(slm != hybrid);

    let mut services = Services::start_with(&both).await;
    for (mode, part) in [(Mode::Slm, slm), (Mode::Hybrid, hybrid)] {
        let output = services.directory.path().join(mode.as_str());
        let output_location = output.to_str().unwrap().to_owned();
        let attempt = ShardAttempt { mode, output_location, ..services.attempt(&shard) };
        services.run(attempt, &shard).await.unwrap();
        assert!(
            fs::read(output.join(layout::part_key(shard.index, PartFormat::default()))).unwrap() == part,
            "{mode}"
        );
    }
}

#[tokio::test]
async fn a_dropped_attempt_is_cancelled_and_the_services_continue() {
    let mut services = Services::start().await;
    let abandoned = shard(0, 2000);
    let attempt = services.attempt(&abandoned);
    let mut events = services.encode(attempt, &abandoned).await.unwrap();
    events.message().await.unwrap().expect("a first event, so the attempt is under way");
    drop(events);

    // If the abandoned rows were still decoded, they would be ahead of these.
    let next = shard(1, 5);
    let attempt = services.attempt(&next);
    services.run(attempt, &next).await.unwrap();
    assert!(services.has(&layout::part_key(ShardIndex(1), PartFormat::default())));
    assert!(
        !services.has(&layout::part_key(ShardIndex(0), PartFormat::default())),
        "an abandoned attempt commits nothing"
    );
}

#[tokio::test]
async fn an_encoder_whose_pass_cannot_fit_into_memory_refuses_before_it_loads_a_model() {
    if baton_worker::available_memory().is_none() {
        eprintln!("SKIPPED: the system does not tell its free memory");
        return;
    }
    let bundle = Bundle::open(shared_bundle()).unwrap();
    let config = EncoderConfig { max_batch_tokens: usize::MAX, ..EncoderConfig::cpu() };
    let error = EncoderService::load(&bundle, config, Connections::default()).await.unwrap_err().to_string();
    for piece in ["the encoder's models need", "of weights for each of 1 engines", "are free"] {
        assert!(error.contains(piece), "{piece} is not in: {error}");
    }
}
