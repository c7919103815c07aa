//! The process of the encoder service.

use std::process::ExitCode;

use baton_bundle::BlockShare;
use baton_encoder_svc::{EncoderConfig, EncoderService, PartService};
use baton_proto::Connections;
use baton_worker::{ListenAddress, ModelService, WorkerArgs};
use clap::{Parser, value_parser};

/// The encoder of a Baton cluster: reads prompts with the large model and streams their states to decoders.
///
/// Coordinators send it shards and name the decoders. Run as many as the large model needs; they share
/// nothing.
#[derive(Debug, Parser)]
#[command(
    name = "baton-encoder",
    version,
    max_term_width = 100,
    after_help = format!(
        "{}\n\nExamples:\n  baton-encoder --bundle models/en-it --listen 0.0.0.0:7001\n  \
         baton-encoder --bundle models/en-it --device cuda:0,cuda:1\n  \
         baton-encoder --bundle models/en-it --blocks 2/2 --listen 0.0.0.0:7001",
        baton_worker::EXIT_CODES,
    )
)]
struct Cli {
    /// Address of the gRPC port, or unix:/path/to/socket.
    #[arg(long, value_name = "ADDRESS", env = "BATON_LISTEN", default_value = "0.0.0.0:7001")]
    listen: ListenAddress,
    /// Prompt tokens encoded in one pass of the large model. Each takes about 100 KiB at width 576; if memory
    /// does not suffice, passes become smaller. Default: 1024, on a GPU 16384.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_ENCODE_BATCH_TOKENS",
        value_parser = value_parser!(u32).range(1..=1_048_576),
        help_heading = "Limits",
    )]
    encode_batch_tokens: Option<u32>,
    /// Blocks of the large model that this process runs: a range such as 0..16, or a share such as 1/2, the
    /// first of two. A process without block 0 serves only the encoder whose --chain names it. Default: all,
    /// or the first share of as many as --chain makes.
    #[arg(long, value_name = "BLOCKS", env = "BATON_BLOCKS", help_heading = "Split model")]
    blocks: Option<BlockShare>,
    /// Endpoints of the encoders that run the blocks after these, in order, separated by commas. Example:
    /// http://encoder-2:7001
    #[arg(
        long,
        value_name = "ENDPOINTS",
        env = "BATON_CHAIN",
        value_delimiter = ',',
        help_heading = "Split model"
    )]
    chain: Vec<String>,
    #[command(flatten)]
    worker: WorkerArgs,
}

fn main() -> ExitCode {
    baton_worker::settle_libraries();
    let cli = Cli::parse();
    baton_worker::run(ModelService::Encoder, &cli.worker, cli.listen, async move |bundle, host| {
        let suited = EncoderConfig::for_devices(host.mode, host.devices.clone());
        let max_batch_tokens =
            cli.encode_batch_tokens.map_or(suited.max_batch_tokens, |tokens| tokens as usize);
        let config = EncoderConfig {
            max_batch_tokens,
            limits: host.limits,
            blocks: cli.blocks,
            chain: cli.chain,
            ..suited
        };
        let engines = host.engines(config.engine_num_bytes(&bundle)?);
        let config = EncoderConfig { engines, ..config };
        if !config.is_first(&bundle)? {
            let service = PartService::load(&bundle, &config).await?;
            service.register_metrics(&host.metrics);
            return host.serve(service.into_served()).await;
        }
        let connections = Connections::new(host.client_security.clone());
        let service = EncoderService::load(&bundle, config, connections).await?;
        service.register_metrics(&host.metrics);
        host.serve(service.into_served()).await
    })
}
