//! Encoders, decoders and coordinators as real processes on this machine, over TCP.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "../../end_to_end/bundle.rs"]
mod bundle;
mod cascades;
mod certificates;
mod documents;
mod jobs;
mod languages;
mod lifecycle;
mod limits;
mod security;
mod shard_client;
mod split;
mod telemetry;
mod upgrades;
