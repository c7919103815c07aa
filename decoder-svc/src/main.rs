//! The process of the decoder service.

use std::process::ExitCode;

use baton_decoder_svc::{DecoderConfig, DecoderService};
use baton_worker::{ListenAddress, WorkerArgs};
use clap::{Parser, value_parser};

/// The decoder of a Baton cluster: writes outputs with the small model, or in mode llm with the large one, and commits them.
///
/// Encoders stream prompts to it. It reaches the job's output by the default chain of S3 credentials. Run as many as the
/// model needs; they share nothing.
#[derive(Debug, Parser)]
#[command(
    name = "baton-decoder",
    version,
    max_term_width = 100,
    after_help = format!("{}\n\nExample:\n  baton-decoder --bundle models/en-it --listen 0.0.0.0:7002", baton_worker::EXIT_CODES)
)]
struct Cli {
    /// Address of the gRPC port, or unix:/path/to/socket.
    #[arg(long, value_name = "ADDRESS", env = "BATON_LISTEN", default_value = "0.0.0.0:7002")]
    listen: ListenAddress,
    /// Sequences that one engine decodes at once; at least as many as one record has beams or samples.
    #[arg(long, value_name = "ROWS", env = "BATON_DECODE_SLOTS", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65_536), help_heading = "Limits")]
    decode_slots: u32,
    /// Tokens of one engine's key-value cache, all rows together. A row reserves its prompt and all it may write.
    #[arg(long, value_name = "TOKENS", env = "BATON_CACHE_TOKENS", default_value_t = 32_768, value_parser = value_parser!(u32).range(1..), help_heading = "Limits")]
    cache_tokens: u32,
    /// Prompt tokens prefilled between two steps. Lower keeps live rows moving, higher fills empty slots faster.
    #[arg(long, value_name = "TOKENS", env = "BATON_PREFILL_TOKENS", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_048_576), help_heading = "Limits")]
    prefill_tokens: u32,
    /// Prompt tokens whose states may wait for a slot, all shards together; each costs 2 bytes times the small model's width. An encoder
    /// that has more waits.
    #[arg(long, value_name = "TOKENS", env = "BATON_MAX_WAITING_TOKENS", default_value_t = 32_768, value_parser = value_parser!(u32).range(1..=268_435_456), help_heading = "Limits")]
    max_waiting_tokens: u32,
    #[command(flatten)]
    worker: WorkerArgs,
}

fn main() -> ExitCode {
    baton_worker::settle_libraries();
    let cli = Cli::parse();
    baton_worker::run("decoder", &cli.worker, cli.listen, async move |bundle, host| {
        let config = DecoderConfig {
            compute: host.compute,
            engines: host.engines,
            max_slots: cli.decode_slots as usize,
            max_cache_tokens: cli.cache_tokens as usize,
            max_prefill_tokens: cli.prefill_tokens as usize,
            max_waiting_tokens: cli.max_waiting_tokens,
            limits: host.limits,
            mode: host.mode,
        };
        let service = DecoderService::load(&bundle, config).await?;
        service.register_metrics(&host.metrics);
        host.serve(service.into_served()).await
    })
}
