//! The use of this machine: its flags, and the models that they load.

use std::path::PathBuf;

use baton_bundle::Bundle;
use baton_decoder_svc::{DecoderConfig, DecoderError};
use baton_encoder_svc::EncoderConfig;
use baton_job::{JobSpec, Mode};
use baton_model::Compute;
use baton_telemetry::tell;
use baton_worker::{ComputeArgs, WorkerLimits, pair_num_bytes};
use clap::value_parser;

use super::InProcessWorkers;

/// The use of this machine if no cluster is named. These settings change no output byte.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Prompt tokens encoded in one pass of the large model. More tokens need more memory. Default: 1024, on
    /// a GPU 16384.
    #[arg(
        long,
        value_name = "TOKENS",
        env = "BATON_ENCODE_BATCH_TOKENS",
        value_parser = value_parser!(u32).range(1..=1_048_576),
    )]
    encode_batch_tokens: Option<u32>,
    /// Sequences that one engine decodes at once; at least the number of beams or samples of one record.
    /// Default: 64, on a GPU 512.
    #[arg(
        long,
        value_name = "ROWS",
        env = "BATON_DECODE_SLOTS",
        value_parser = value_parser!(u32).range(1..=65_536),
    )]
    decode_slots: Option<u32>,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl MachineArgs {
    /// Loads the models that a job needs, for this many shards at once.
    ///
    /// # Errors
    /// The bundle is damaged, or its models do not fit this machine.
    pub(crate) async fn load_workers(
        &self,
        spec: &JobSpec,
        shards_in_flight: u32,
    ) -> anyhow::Result<InProcessWorkers> {
        // A flipped bit in a weight would only show as bad text, so every byte is checked, at disk speed.
        tell!("verifying bundle {}", spec.bundle);
        let bundle_path = PathBuf::from(&spec.bundle);
        let bundle = tokio::task::spawn_blocking(move || baton_bundle::verify(&bundle_path)).await??;
        tell!("loading models");
        let devices = self.compute.devices()?;
        let compute = devices[0];
        let engines = self.compute.engines(&devices, pair_num_bytes(&bundle, spec.mode, compute));
        // Within one process, only the coordinator bounds the work in flight.
        let limits =
            WorkerLimits { max_open_shards: shards_in_flight as usize, max_record_num_bytes: usize::MAX };
        let modes = Mode::of_processes(&spec.modes());
        let pair = |&mode: &Mode| -> Result<(EncoderConfig, DecoderConfig), DecoderError> {
            let decoder = self.decoder(&bundle, (compute, engines), mode, limits)?;
            let decoder = match compute.gpu() {
                // Each was sized as if it had the GPU alone.
                Some(_) => {
                    DecoderConfig { max_cache_tokens: decoder.max_cache_tokens / modes.len(), ..decoder }
                }
                None => decoder,
            };
            let decoder = decoder.with_room_for(&bundle, sequences_per_record(spec) as usize)?;
            Ok((self.encoder((&devices, engines), mode, limits), decoder))
        };
        let pairs = modes.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        InProcessWorkers::start(&bundle, pairs).await
    }

    /// Of several devices, the encoder's LLM takes all, and the decoder the first.
    fn encoder(
        &self,
        (devices, engines): (&[Compute], usize),
        mode: Mode,
        limits: WorkerLimits,
    ) -> EncoderConfig {
        let suited = EncoderConfig::for_devices(mode, devices.to_vec());
        let max_batch_tokens =
            self.encode_batch_tokens.map_or(suited.max_batch_tokens, |tokens| tokens as usize);
        EncoderConfig { max_batch_tokens, limits, engines, ..suited }
    }

    fn decoder(
        &self,
        bundle: &Bundle,
        machine: (Compute, usize),
        mode: Mode,
        limits: WorkerLimits,
    ) -> Result<DecoderConfig, DecoderError> {
        let suited = DecoderConfig::for_device(bundle, mode, machine)?;
        let max_slots = self.decode_slots.map_or(suited.max_slots, |slots| slots as usize);
        Ok(DecoderConfig { max_slots, limits, ..suited })
    }
}

/// Sequences of one record that are decoded at once, at the tier that has most, second tries included.
fn sequences_per_record(spec: &JobSpec) -> u32 {
    let of_tiers = spec.tiers.iter().map(|tier| tier.generation.most_sequences_per_record());
    of_tiers.chain([spec.generation.most_sequences_per_record()]).max().unwrap_or(1)
}
