//! The process of the decoder service.

use std::process::ExitCode;

use baton_decoder_svc::{AllowedOutputs, DecoderConfig, DecoderService};
use baton_store::Location;
use baton_worker::{ListenAddress, ModelService, WorkerArgs};
use clap::{Parser, value_parser};

/// The decoder of a Baton cluster: writes outputs with the small model, or in mode llm with the large one,
/// and commits them.
///
/// Encoders stream prompts to it. It reaches the job's output by the default chain of S3 credentials. Run as
/// many as the model needs; they share nothing.
#[derive(Debug, Parser)]
#[command(
    name = "baton-decoder",
    version,
    max_term_width = 100,
    after_help = format!(
        "{}\n\nExample:\n  baton-decoder --bundle models/en-it --listen 0.0.0.0:7002",
        baton_worker::EXIT_CODES,
    )
)]
struct Cli {
    /// Address of the gRPC port, or unix:/path/to/socket.
    #[arg(long, value_name = "ADDRESS", env = "BATON_LISTEN", default_value = "0.0.0.0:7002")]
    listen: ListenAddress,
    /// Sequences that one engine decodes at once; at least as many as one record has beams or samples.
    /// Default: 64, on a GPU 512.
    #[arg(
        long,
        value_name = "ROWS",
        env = "BATON_DECODE_SLOTS",
        value_parser = value_parser!(u32).range(1..=65_536),
        help_heading = "Limits",
    )]
    decode_slots: Option<u32>,
    /// Tokens of one engine's key-value cache, for all rows. A row reserves its prompt and its longest
    /// output. Default: 32768, on a GPU three fifths of its free memory.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_CACHE_TOKENS",
        value_parser = value_parser!(u32).range(1..),
        help_heading = "Limits",
    )]
    cache_tokens: Option<u32>,
    /// Prompt tokens prefilled between two steps. Lower keeps live rows moving, higher fills empty slots
    /// faster. Default: 1024, on a GPU 8192.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_PREFILL_TOKENS",
        value_parser = value_parser!(u32).range(1..=1_048_576),
        help_heading = "Limits",
    )]
    prefill_tokens: Option<u32>,
    /// Prompt tokens whose states may wait for a slot, all shards together; each costs 2 bytes times the
    /// small model's width. An encoder that has more waits.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_MAX_WAITING_TOKENS",
        default_value_t = 32_768,
        value_parser = value_parser!(u32).range(1..=268_435_456),
        help_heading = "Limits",
    )]
    max_waiting_tokens: u32,
    /// Directory or prefix below which jobs may have their outputs and caches; may be given more than once.
    /// Default: any place that this process may write to. Example: s3://corpora/it
    #[arg(
        long = "allow-output",
        value_name = "PREFIX",
        env = "BATON_ALLOW_OUTPUT",
        value_delimiter = ',',
        help_heading = "Security"
    )]
    allow_outputs: Vec<Location>,
    #[command(flatten)]
    worker: WorkerArgs,
}

fn main() -> ExitCode {
    baton_worker::settle_libraries();
    let cli = Cli::parse();
    baton_worker::run(ModelService::Decoder, &cli.worker, cli.listen, async move |bundle, host| {
        let compute = host.devices[0];
        let engine_num_bytes = ModelService::Decoder.engine_num_bytes(&bundle, host.mode, compute);
        let machine = (compute, host.engines(engine_num_bytes));
        let suited = DecoderConfig::for_device(&bundle, host.mode, machine)?;
        let or = |flag: Option<u32>, suited: usize| flag.map_or(suited, |value| value as usize);
        let config = DecoderConfig {
            max_slots: or(cli.decode_slots, suited.max_slots),
            max_cache_tokens: or(cli.cache_tokens, suited.max_cache_tokens),
            max_prefill_tokens: or(cli.prefill_tokens, suited.max_prefill_tokens),
            max_waiting_tokens: cli.max_waiting_tokens,
            limits: host.limits,
            ..suited
        };
        let outputs = AllowedOutputs::below(cli.allow_outputs);
        if outputs.is_any() {
            tracing::warn!(
                "jobs may name ANY output that this process may write to, here or on S3; --allow-output says \
                 where"
            );
        }
        let service = DecoderService::load(&bundle, config).await?.allowing_outputs(outputs);
        service.register_metrics(&host.metrics);
        host.serve(service.into_served()).await
    })
}
